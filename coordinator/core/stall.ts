// A member whose process lives and whose engine hangs: its heart beats, its link is open, and the others wait for it in the all-reduce for
// ever. Nobody reports then, so it is seen by what does not come: no step for longer than the longest explains. How long that may be is
// nobody's guess but the run's own past, above a floor (--progress-limit).
//
// Who it is follows from a question to all members: which generation they serve, and how many microbatches of the step in flight they have
// computed. Who has computed its part waits for the others; who has not, or has not left an older generation, or does not answer, is waited
// for. Where nobody has, or all have, the question does not tell, and
// nobody is sent away: then a machine may be slow, or a message be lost.
//
// Cost: nothing while steps come.

/** Of the longest step so far. */
const TIMES_LONGEST = 20;
/** Of the floor, before the first step of a generation (engines prepare themselves), and while weights are evaluated. */
const TIMES_UNKNOWN = 10;
/** For an answer; who is within a microbatch answers after it, if it ends. */
export const ANSWER_MS = 10_000;

export interface Standing {
  /** That it serves. */
  readonly generation: number;
  /** Steps done. */
  readonly step: number;
  /** Microbatches that it has computed of the next one. */
  readonly computed: number;
}

export interface Asked {
  readonly worker: string;
  /** That it should serve. */
  readonly generation: number;
  /** Its microbatches of a step; 0 while the generation forms. */
  readonly share: number;
}

export type Look =
  | { readonly kind: 'well' }
  | { readonly kind: 'ask' }
  | { readonly kind: 'hung'; readonly workers: readonly string[]; readonly because: string }
  /** `allWait`: each has done its part, so that the step may be done again. */
  | { readonly kind: 'unknown'; readonly allWait: boolean; readonly because: string };

export class Stall {
  private readonly floorMs: number;
  private longestMs = 0;
  private sinceMs: number | null = null;
  private isKnown = false;
  private asked: { readonly atMs: number; readonly answers: Map<string, Standing> } | null = null;

  /** @param floorMs 0: nobody is looked for */
  constructor(floorMs: number) {
    this.floorMs = floorMs;
  }

  /** A generation begins: from now on steps must come. */
  begin(nowMs: number): void {
    this.isKnown = false;
    this.progress(nowMs);
  }

  /** A step is done, which took so long. */
  step(seconds: number, nowMs: number): void {
    this.longestMs = Math.max(this.longestMs, 1000 * seconds);
    this.isKnown = true;
    this.progress(nowMs);
  }

  /** Something else has come that takes its time. */
  progress(nowMs: number): void {
    this.sinceMs = nowMs;
    this.asked = null;
  }

  /** No steps are due. */
  rest(): void {
    this.sinceMs = null;
    this.asked = null;
  }

  answered(worker: string, standing: Standing): void {
    this.asked?.answers.set(worker, standing);
  }

  /** To be asked at every tick while the members should step. */
  look(members: readonly Asked[], isEvaluating: boolean, nowMs: number): Look {
    if (this.floorMs === 0) return { kind: 'well' };
    this.sinceMs ??= nowMs;
    const floorMs = this.isKnown && !isEvaluating ? this.floorMs : TIMES_UNKNOWN * this.floorMs;
    const limitMs = Math.max(floorMs, TIMES_LONGEST * this.longestMs);
    const silentMs = nowMs - this.sinceMs;
    if (silentMs < limitMs) return { kind: 'well' };
    if (this.asked === null) {
      this.asked = { atMs: nowMs, answers: new Map() };
      return { kind: 'ask' };
    }
    const { atMs, answers } = this.asked;
    if (nowMs - atMs < ANSWER_MS) return { kind: 'well' };
    const step = Math.min(...[...answers.values()].map((answer) => answer.step));
    const late = members.filter(({ worker, generation, share }) => {
      const answer = answers.get(worker);
      if (answer === undefined || answer.generation < generation) return true;
      return answer.step === step && answer.computed < share;
    });
    this.progress(nowMs);
    const seconds = (ms: number): number => Math.round(ms / 1000);
    const named = late.map(({ worker }) => worker).join(', ');
    const none = `no step for ${seconds(silentMs)} s, where ${seconds(limitMs)} s is the limit`;
    if (late.length === 0) return { kind: 'unknown', allWait: true, because: `${none}, and all have done their part` };
    if (late.length === members.length)
      return { kind: 'unknown', allWait: false, because: `${none}, and nobody has done its part` };
    return {
      kind: 'hung',
      workers: late.map(({ worker }) => worker),
      because: `${none}: the others wait for ${named}`,
    };
  }
}
