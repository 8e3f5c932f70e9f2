// The journal read as a history: which steps were committed in which generation along the line that survives. A run that is taken up
// goes back to its checkpoint's step; what had been done after that is done anew, by a new generation, or told again by workers that
// outlived their coordinator, as of the generation that did it. Pure: records with their line numbers in,
// the surviving line and all that is wrong with it out. One pass; a few bytes a step.

import { stepsPerEpoch, type BatchPlan } from '../../protocol/batch-plan.ts';
import type { RunConfig } from '../../protocol/run-config.ts';
import { areWhole, type Shares } from '../../protocol/shares.ts';
import type { CommitsEntry } from './commit-log.ts';
import type { JournalEntry } from './effects.ts';
import { findingsIn, type Finding, type Report } from './finding.ts';

/** A coordinator begins, or goes on with, the run. */
interface BeginEntry {
  readonly kind: 'run';
  readonly config: RunConfig;
  readonly resumedFromStep: number | null;
  readonly jobChangedFrom?: string | null | undefined;
}

/** A record of the journal; numbers that are not finite are null there. */
export type RecordedEntry =
  | BeginEntry
  | CommitsEntry
  | Extract<JournalEntry, { kind: 'generation' | 'begin' | 'checkpoint' | 'unrecorded' | 'stopped' | 'finished' }>
  | { readonly kind: 'failed'; readonly step: number }
  | { readonly kind: 'lost'; readonly worker: string }
  | { readonly kind: 'epoch'; readonly step: number; readonly epoch: number; readonly digest: string };

export interface JournalLine {
  /** From 1. */
  readonly line: number;
  readonly record: RecordedEntry;
}

export interface Commit {
  readonly step: number;
  /** Null: nobody is left who knows. */
  readonly generation: number | null;
  readonly line: number;
  /** Told by workers to a coordinator that was not there when they did it. */
  readonly isToldAgain: boolean;
}

/** Somebody wrote down the digest of the weights after a step. */
export interface DigestClaim {
  readonly step: number;
  readonly digest: string;
  /** Where it stands: `journal.jsonl:7`. */
  readonly file: string;
  readonly line: number | null;
}

/** A generation as it is on record. */
export interface Membership {
  /** In the order of their ranks. */
  readonly members: readonly string[];
  /** Microbatches by rank; null: evenly. */
  readonly shares: Shares | null;
  readonly line: number;
}

export interface History {
  /** Of the last part: it may be longer than the first was to be, with the same batches. */
  readonly config: RunConfig | null;
  readonly plan: BatchPlan | null;
  /** What the surviving line was done with: from after the step named on, up to the next one's. */
  readonly spans: readonly { readonly after: number; readonly config: RunConfig }[];
  /** How often a coordinator took the run up. */
  readonly parts: number;
  /** Steps done: 1 .. `steps`. */
  readonly steps: number;
  /** By step, ascending, along the surviving line; a step that is there twice is two of them. */
  readonly commits: readonly Commit[];
  /** Steps that a later part did anew, by what the journal knows. */
  readonly redone: number;
  readonly generations: ReadonlyMap<number, Membership>;
  /** Workers lost on the way. */
  readonly lost: number;
  /** Somebody had wrong bits: what was done since was done again, and the newest digest of a step is the right one. */
  readonly isDistrusted: boolean;
  /** Along all lines: a step that is done anew comes to the same bits, unless the job was changed. */
  readonly claims: readonly DigestClaim[];
  /** Steps of the surviving line that nobody was left to tell of: they have no line among the metrics. */
  readonly untold: ReadonlySet<number>;
  /** Epochs, from 1, that have their record on the surviving line. */
  readonly epochs: ReadonlySet<number>;
  /** How the last part ended; null: it did not, or goes on. */
  readonly end: 'finished' | 'stopped' | 'failed' | null;
}

export const JOURNAL = 'journal.jsonl';

/** What a resumed part may not change: each step's samples follow from it. */
const FIXED = ['seed', 'globalBatch', 'microbatches', 'trainSamples'] as const;

export function planOf(config: RunConfig): BatchPlan {
  const { trainSamples: samples, globalBatch, microbatches, seed } = config;
  return { samples, globalBatch, microbatches, seed };
}

/** Reads a journal's records. Nothing is assumed of them but their form. */
export function readHistory(lines: readonly JournalLine[]): { history: History; findings: Finding[] } {
  const findings: Finding[] = [];
  const walk = new Walk(findingsIn(JOURNAL, findings));
  for (const { line, record } of lines) walk.take(record, line);
  return { history: walk.history(), findings };
}

class Walk {
  private readonly report: Report;
  private config: RunConfig | null = null;
  private spans: { after: number; config: RunConfig }[] = [];
  private hasBegun = false;
  private parts = 0;
  private steps = 0;
  /** By step, commits that the present part went back before: its workers may go on from a state that has them. */
  private readonly setAside = new Map<number, Commit>();
  /** The last of them that there is a checkpoint of. */
  private checkpointed = 0;
  private commits: Commit[] = [];
  private redone = 0;
  /** Steps that were committed when the present part began, and the last generation of those before. */
  private doneBefore = 0;
  private generationBefore = 0;
  private readonly generations = new Map<number, Membership>();
  private highestGeneration = 0;
  /** The last that did a step: the next one is prepared while it still steps. */
  private lastGeneration = 0;
  private lost = 0;
  /** Workers whose link to the coordinator has ended. */
  private readonly outOfSight = new Set<string>();
  /** What was done by a generation after another had begun to step. */
  private readonly late: { members: readonly string[]; line: number; what: string }[] = [];
  private isDistrusted = false;
  private isDoneAgain = false;
  private claims: DigestClaim[] = [];
  private untold = new Set<number>();
  private epochs = new Set<number>();
  private end: History['end'] = null;

  constructor(report: Report) {
    this.report = report;
  }

  /**
   * Cut off from the coordinator, and not from each other, the members of a generation go on, while another one begins behind them; back, under
   * other names, they tell what they did. Of any that was not lost it is a stale generation's act. A loss comes on record once its story is known.
   */
  private judgeLate(): void {
    for (const { members, line, what } of this.late) {
      if (!members.every((worker) => this.outOfSight.has(worker))) this.report('E_RECORD_GENERATION', line, what);
    }
  }

  history(): History {
    this.judgeLate();
    const { config, spans, parts, steps, commits, redone, generations, lost } = this;
    const { isDistrusted, claims, untold, epochs, end } = this;
    const plan = config === null ? null : planOf(config);
    const done = { config, plan, spans, parts, steps, commits, redone, generations, lost };
    return { ...done, isDistrusted, claims, untold, epochs, end };
  }

  take(record: RecordedEntry, line: number): void {
    if (!this.hasBegun && record.kind !== 'run')
      this.report('E_RECORD_DAMAGED', line, 'the record does not begin with what the run is');
    this.hasBegun = true;
    switch (record.kind) {
      case 'run':
        return this.begin(record, line);
      case 'generation':
        return this.generation(record, line);
      case 'begin':
        return this.beginGeneration(record, line);
      case 'lost':
        this.lost++;
        this.outOfSight.add(record.worker);
        return;
      case 'commits':
        return this.commit(record, line);
      case 'unrecorded':
        return this.unrecorded(record, line);
      case 'epoch':
        return this.epoch(record, line);
      case 'checkpoint':
        if (this.isDone(record.step, 'a checkpoint', line)) {
          this.claim(record.step, record.digest, line);
          // Of what is being done again a checkpoint may still come from before.
          if (!this.isDoneAgain) this.checkpointed = Math.max(this.checkpointed, record.step);
        }
        return;
      case 'stopped':
      case 'failed':
      case 'finished':
        return this.ended(record, line);
    }
  }

  private begin(record: BeginEntry, line: number): void {
    const { config, resumedFromStep } = record;
    const before = this.config;
    const step = resumedFromStep ?? 0;
    for (const field of FIXED) {
      if (before !== null && before[field] !== config[field])
        this.report('E_RECORD_SAMPLES', line, `${field} is ${config[field]} and was ${before[field]} before`);
    }
    if (before !== null && resumedFromStep === null)
      this.report('E_RECORD_STEPS', line, 'a second run begins in the record of the first');
    if (step > this.steps)
      this.report('E_RECORD_STEPS', line, `it goes on after step ${step}, and the record knows ${this.steps} steps`);
    this.doneBefore = this.steps;
    this.generationBefore = this.highestGeneration;
    // Workers that go on may tell of steps of any generation since that checkpoint.
    this.lastGeneration = 0;
    this.steps = Math.min(step, this.steps);
    this.checkpointed = this.steps;
    for (const commit of this.commits) if (commit.step > step) this.setAside.set(commit.step, commit);
    this.commits = this.commits.filter((commit) => commit.step <= step);
    this.untold = new Set([...this.untold].filter((untold) => untold <= step));
    const perEpoch = stepsPerEpoch(planOf(config));
    this.epochs = new Set([...this.epochs].filter((epoch) => epoch * perEpoch <= step));
    if (record.jobChangedFrom !== undefined && record.jobChangedFrom !== null)
      this.claims = this.claims.filter((claim) => claim.step <= step);
    this.spans = [...this.spans.filter(({ after }) => after < step), { after: step, config }];
    this.config = config;
    this.parts++;
    this.end = null;
  }

  private generation(record: Extract<RecordedEntry, { kind: 'generation' }>, line: number): void {
    const { generation, members } = record;
    const most = this.config?.microbatches ?? members.length;
    const before = this.generations.get(generation);
    const highest = this.highestGeneration;
    if (before !== undefined)
      this.report('E_RECORD_GENERATION', line, `generation ${generation} was used before, in line ${before.line}`);
    else if (generation <= highest)
      this.report('E_RECORD_GENERATION', line, `generation ${generation} comes after generation ${highest}`);
    if (members.length === 0 || members.length > most)
      this.report(
        'E_RECORD_GENERATION',
        line,
        `generation ${generation} has ${members.length} members for ${most} microbatches`,
      );
    if (new Set(members).size < members.length)
      this.report('E_RECORD_GENERATION', line, `generation ${generation} has a member twice`);
    if (record.shares !== undefined && !areWhole(most, members.length, record.shares))
      this.report(
        'E_RECORD_GENERATION',
        line,
        `generation ${generation} shares out other than the ${most} microbatches`,
      );
    this.generations.set(generation, { members, shares: record.shares ?? null, line });
    this.highestGeneration = Math.max(highest, generation);
  }

  private beginGeneration(record: Extract<RecordedEntry, { kind: 'begin' }>, line: number): void {
    const { generation, step, digest } = record;
    if (record.distrusted === true) {
      this.isDistrusted = true;
      this.checkpointed = Math.min(this.checkpointed, step);
      this.isDoneAgain = true;
    }
    if (!this.generations.has(generation))
      this.report('E_RECORD_GENERATION', line, `generation ${generation} begins, which nobody has formed`);
    this.takeUpTo(step);
    // Who alone had done the last step may be the one that was lost: then it is done again, by the others, to the same bits. Where nobody
    // is left newcomers go back to what was kept.
    if (step > this.steps || step < Math.min(this.steps - 1, this.checkpointed))
      this.report(
        'E_RECORD_STEPS',
        line,
        `generation ${generation} begins after step ${step}, and ${this.steps} are committed`,
      );
    this.claim(step, digest, line);
  }

  /** Takes up again what was committed before the present part and is told by nobody who is left, up to `step`. */
  private takeUpTo(step: number): void {
    for (let known = this.setAside.get(this.steps + 1); known !== undefined && known.step <= step;) {
      this.commits.push(known);
      this.steps++;
      known = this.setAside.get(this.steps + 1);
    }
  }

  /** Done, and lost to the record with those who did them. Some of them may be on it from an earlier part. */
  private unrecorded({ from, to }: Extract<RecordedEntry, { kind: 'unrecorded' }>, line: number): void {
    this.takeUpTo(to);
    if (from > this.steps + 1)
      this.report('E_RECORD_STEPS', line, `steps ${this.steps + 1} to ${from - 1} are committed nowhere`);
    for (let step = from; step <= to; step++) this.untold.add(step);
    for (let step = this.steps + 1; step <= to; step++)
      this.commits.push({ step, generation: null, line, isToldAgain: true });
    this.steps = Math.max(this.steps, to);
  }

  private commit(record: CommitsEntry, line: number): void {
    const { generation, from, to, digest } = record;
    const most = this.config?.steps ?? to;
    if (from < 1 || to < from || to > most) {
      this.report('E_RECORD_STEPS', line, `steps ${from} to ${to} of a run of ${most}`);
      return;
    }
    const members = this.generations.get(generation)?.members ?? [];
    const isLate = generation < this.lastGeneration && generation > this.generationBefore;
    if (!this.generations.has(generation))
      this.report(
        'E_RECORD_GENERATION',
        line,
        `generation ${generation}, which nobody began, did steps ${from} to ${to}`,
      );
    else if (isLate)
      this.late.push({
        members,
        line,
        what: `generation ${generation} did steps ${from} to ${to}, after generation ${this.lastGeneration} had begun to step`,
      });
    else this.lastGeneration = Math.max(this.lastGeneration, generation);
    this.takeUpTo(from - 1);
    if (from <= this.steps)
      this.report('E_RECORD_STEPS', line, `step ${from} is committed again: the record was at step ${this.steps}`);
    if (from > this.steps + 1)
      this.report('E_RECORD_STEPS', line, `steps ${this.steps + 1} to ${from - 1} are committed nowhere`);
    this.isDoneAgain = false;
    const isToldAgain = generation <= this.generationBefore || isLate;
    for (let step = from; step <= to; step++) this.commits.push({ step, generation, line, isToldAgain });
    if (!isToldAgain) this.redone += Math.max(0, Math.min(to, this.doneBefore) - from + 1);
    this.steps = Math.max(this.steps, to);
    if (digest !== null) this.claim(to, digest, line);
  }

  private epoch(record: Extract<RecordedEntry, { kind: 'epoch' }>, line: number): void {
    const { epoch, step, digest } = record;
    const end = this.config === null ? step : epoch * stepsPerEpoch(planOf(this.config));
    if (!this.isDone(step, `the end of epoch ${epoch}`, line)) {
      this.epochs.add(epoch);
      return;
    }
    if (end !== step) this.report('E_RECORD_STEPS', line, `epoch ${epoch} ends after step ${end}, not ${step}`);
    if (this.epochs.has(epoch)) this.report('E_RECORD_STEPS', line, `epoch ${epoch} ends a second time`);
    this.epochs.add(epoch);
    this.claim(step, digest, line);
  }

  private ended(record: Extract<RecordedEntry, { kind: 'stopped' | 'failed' | 'finished' }>, line: number): void {
    this.end = record.kind;
    const due = record.kind === 'finished' ? (this.config?.steps ?? record.step) : this.steps;
    if (record.step !== this.steps || record.step !== due) {
      const of = record.kind === 'finished' ? ` of ${due}` : '';
      this.report(
        'E_RECORD_STEPS',
        line,
        `it ${record.kind} after step ${record.step}, and ${this.steps}${of} are committed`,
      );
    }
    if (record.kind === 'finished') this.claim(record.step, record.digest, line);
  }

  private isDone(step: number, what: string, line: number): boolean {
    if (step >= 1 && step <= this.steps) return true;
    // A run that is stopped before its first step may keep what it began with.
    if (step === 0) return true;
    this.report('E_RECORD_STEPS', line, `${what} after step ${step}, and ${this.steps} are committed`);
    return false;
  }

  private claim(step: number, digest: string, line: number): void {
    this.claims.push({ step, digest, file: JOURNAL, line });
  }
}
