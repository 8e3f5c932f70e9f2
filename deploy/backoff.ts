// How long to wait before what has failed is tried again: not at all the first time, because most that ends ends once; then doubling.
// Pure. Without chance: one launcher is all that would come back at once.

export interface Backoff {
  /** Before the second attempt in a row. */
  readonly firstMs: number;
  readonly mostMs: number;
}

/** @param failures in a row, from 1 */
export function waitAfter(failures: number, { firstMs, mostMs }: Backoff): number {
  return failures <= 1 ? 0 : Math.min(mostMs, firstMs * 2 ** (failures - 2));
}

/** What lives for so long did not die of how it begins: its failures are counted anew. */
export const STEADY_MS = 10_000;

/** Failures in a row, by whatever failed. */
export class FailuresInARow<K> {
  private readonly counts = new Map<K, number>();
  private readonly steadyMs: number;

  constructor(steadyMs: number = STEADY_MS) {
    this.steadyMs = steadyMs;
  }

  /** Counts a failure of what lived for so long; returns how many that makes in a row. */
  failed(what: K, livedMs: number): number {
    const count = (livedMs >= this.steadyMs ? 0 : (this.counts.get(what) ?? 0)) + 1;
    this.counts.set(what, count);
    return count;
  }
}
