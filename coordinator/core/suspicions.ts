// Links between two members that both live, as far as is known: the news that one of them has died may be under way, so it is waited for.
// And whom members lose their links to again and again.

/** How long to wait for the news that one of two workers is dead whose link has failed. */
export const SUSPICION_MS = 200;
/** How often in a row, without a step between, two members may fail to keep a link before one of them has to go. */
const SUSPICIONS_MAX = 3;

interface Suspicion {
  readonly sinceMs: number;
  readonly because: string;
  readonly accused: string[];
}

export class Suspicions {
  private open: Suspicion | null = null;
  /** How often members lost their links to a worker, since the last step. */
  private readonly accusations = new Map<string, number>();

  /** A member has lost its link to `accused`; null: to somebody who is none any more. */
  suspect(because: string, accused: string | null, nowMs: number): void {
    this.open ??= { sinceMs: nowMs, because, accused: [] };
    if (accused !== null) this.open.accused.push(accused);
  }

  /** What is to be taken for certain: that links have failed, and who has to go for it, if anybody; null: nothing by now. */
  conclude(nowMs: number): { readonly because: string; readonly culprit: string | null } | null {
    const { open } = this;
    if (open === null || nowMs - open.sinceMs < SUSPICION_MS) return null;
    this.open = null;
    for (const id of open.accused) this.accusations.set(id, (this.accusations.get(id) ?? 0) + 1);
    const [worst] = [...this.accusations].toSorted(([, a], [, b]) => b - a);
    return { because: open.because, culprit: worst !== undefined && worst[1] > SUSPICIONS_MAX ? worst[0] : null };
  }

  /** Another generation links up: what was suspected of the one before does not matter. */
  drop(): void {
    this.open = null;
  }

  /** A step is done: everybody keeps his links. */
  clear(): void {
    this.accusations.clear();
  }
}
