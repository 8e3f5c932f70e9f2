// What must hold whatever happens, checked as it happens: the weights of every replica after every step, what a step's report says, who
// computed what, which steps commit, which generations there are.

import type { CommitsEntry, RecordedEffect } from '../../coordinator/core/commit-log.ts';
import type { Effect, Input, JournalEntry } from '../../coordinator/core/effects.ts';
import { stepsPerEpoch } from '../../protocol/batch-plan.ts';
import type { CoordinatorMessage, WorkerMessage } from '../../protocol/messages.ts';
import type { RunEvent } from '../../protocol/run-event.ts';
import { evenShares, type Shares } from '../../protocol/shares.ts';
import { digestOf } from '../../worker/engine/digest.ts';
import type { Answer, ToyJob, Watcher } from './toy.ts';
import { Violation } from './world.ts';

/** Messages that are remembered. */
const SAID_MAX = 2000;

export class Checks {
  private readonly job: ToyJob;
  private readonly answer: Answer;
  private readonly digests: readonly string[];
  /** Loss sums by step. */
  private readonly committed = new Map<number, number>();
  /** By whichever coordinator. */
  private readonly everCommitted = new Set<number>();
  /** By steps done, microbatch and process. */
  private readonly computed = new Set<string>();
  /** Microbatches that a worker computed which had computed them before. */
  computedAgain = 0;
  /** By generation: where its members are reached, in the order of their ranks. */
  private readonly memberships = new Map<number, readonly string[]>();
  private readonly shares = new Map<number, Shares>();
  private readonly begun = new Map<string, number>();
  private journalled = 0;
  /** Steps whose commits are on disk. */
  private recordedTo = 0;
  private wasResumed = false;
  private isExcused = false;
  /** The steps that each process has done, by where it is reached. */
  private readonly reached = new Map<string, number>();
  /** What workers said of a generation, some of it. */
  private readonly said: {
    readonly worker: string;
    readonly message: WorkerMessage & { readonly generation: number };
  }[] = [];
  /** The last epoch that was told. */
  private epoch = 0;
  private mayBeUntested = false;
  generations = 0;
  microbatches = 0;

  private readonly broken: (violation: Violation) => void;

  /** @param broken is told what the code that runs would otherwise catch */
  constructor(job: ToyJob, answer: Answer, broken: (violation: Violation) => void) {
    this.broken = broken;
    this.job = job;
    this.answer = answer;
    this.digests = answer.weights.map(digestOf);
  }

  private break(property: string, message: string): never {
    const violation = new Violation(property, message);
    this.broken(violation);
    throw violation;
  }

  get steps(): number {
    return this.committed.size;
  }

  watcher(who: string): Watcher {
    const has = (step: number): void => void this.reached.set(urlOf(who), step);
    return {
      loaded: (weights) => {
        const step = this.answer.weights.findIndex((right) => hasSameBits(weights, right));
        if (step === -1 && this.isExcused) return;
        if (step === -1)
          this.break('the weights after a step are the same', `${who} trains on from weights that are no step's`);
        has(step);
      },
      computed: (done, microbatch, samples) => {
        this.microbatches++;
        const right = this.answer.samplesOf(done, microbatch);
        if (right.join() !== samples.join()) {
          this.break(
            'a microbatch has its own samples',
            `${who} computed ${samples.join()} as microbatch ${microbatch} of step ${done + 1}, which is ${right.join()}`,
          );
        }
        const what = `${done}/${microbatch}/${urlOf(who)}`;
        if (this.computed.has(what)) this.computedAgain++;
        this.computed.add(what);
      },
      applied: (done, weights, slots, lossSum) => {
        const right = [this.answer.weights[done], ...(this.answer.slots[done] ?? [])];
        if (!this.isExcused && [weights, ...slots].some((vector, i) => !hasSameBits(vector, right[i]))) {
          this.break('the weights after a step are the same', `${who} has other weights after step ${done}`);
        }
        this.checkLoss(who, done, lossSum);
        has(done);
      },
    };
  }

  /** Wrong bits are in somebody's memory, and may be in what others compute until they are found. In the end they must not be. */
  excuse(): void {
    this.isExcused = true;
  }

  private checkLoss(who: string, step: number, lossSum: number): void {
    if (!this.isExcused && !Object.is(lossSum, this.answer.lossSums[step])) {
      this.break(
        'a step has one loss sum',
        `${who} says ${lossSum} of step ${step}, which is ${this.answer.lossSums[step]}`,
      );
    }
  }

  private checkDigest(what: string, step: number, digest: string, isFinal = false): void {
    if ((isFinal || !this.isExcused) && digest !== this.digests[step]) {
      this.break(
        'the weights after a step are the same',
        `${what} has the digest ${digest.slice(0, 16)} after step ${step}, not ${this.digests[step]?.slice(0, 16)}`,
      );
    }
  }

  /** The coordinator's core decided this about that. */
  decided(input: Input, effects: readonly Effect[]): void {
    if (input.kind === 'message') this.hears(input.worker, input.message, effects);
  }

  /** Something that a worker said of a generation that it has left since. */
  get stale(): Extract<Input, { kind: 'message' }>[] {
    return this.said
      .filter(({ worker, message }) => message.generation < (this.begun.get(worker) ?? 0))
      .map(({ worker, message }) => ({ kind: 'message', worker, message }));
  }

  private hears(worker: string, message: WorkerMessage, effects: readonly Effect[]): void {
    if (message.kind === 'report') for (const { step, lossSum } of message.steps) this.checkLoss(worker, step, lossSum);
    if (message.kind === 'finished') this.checkDigest(worker, message.step, message.digest);
    if (!('generation' in message)) return;
    if (this.said.length < SAID_MAX) this.said.push({ worker, message });
    if (message.generation >= (this.begun.get(worker) ?? 0)) return;
    if (effects.length > 0) {
      const what = effects.map((effect) => effect.kind).join(', ');
      this.break(
        'what is stale has no effect',
        `${worker}'s "${message.kind}" of generation ${message.generation} led to ${what}`,
      );
    }
  }

  /** The coordinator carries it out. */
  performs(effect: RecordedEffect): void {
    if (effect.kind === 'tell' && effect.event.kind === 'step') this.commits(effect.event);
    else if (effect.kind === 'tell' && effect.event.kind === 'epoch') this.completes(effect.event);
    else if (effect.kind === 'send') this.sends(effect.worker, effect.message);
    else if (effect.kind === 'write-checkpoint' || effect.kind === 'send-state') {
      const { step, digest, vectors } = effect.state;
      this.checkDigest('a state', step, digest);
      const right = [this.answer.weights[step], ...(this.answer.slots[step] ?? [])];
      for (const [i, vector] of vectors.entries()) {
        if (!this.isExcused && !hasSameBits(vector.data, right[i])) {
          this.break('the weights after a step are the same', `a state after step ${step} has other ${vector.name}`);
        }
      }
    }
  }

  private commits({ step, loss, samples, generation }: Extract<RunEvent, { kind: 'step' }>): void {
    const lossSum = loss * samples;
    const before = this.committed.get(step);
    if (before !== undefined) this.break('a step commits once', `step ${step} commits again`);
    // Another coordinator may find nobody who still knows of steps that the one before has committed.
    for (let known = this.committed.size + 1; known < step && this.everCommitted.has(known); known++) {
      this.committed.set(known, this.answer.lossSums[known] ?? Number.NaN);
    }
    if (step !== this.committed.size + 1)
      this.break('steps commit in their order', `step ${step} commits after ${this.committed.size}`);
    const right = ((this.answer.lossSums[step] ?? Number.NaN) / samples) * samples;
    if (!this.isExcused && !Object.is(lossSum, right))
      this.break('a step has one loss sum', `step ${step} commits with ${lossSum}, not ${right}`);
    // By the record alone: whose a microbatch was follows from the generation's members.
    const { microbatches } = this.job.plan;
    const members = this.memberships.get(generation) ?? [];
    const shares = this.shares.get(generation) ?? evenShares(microbatches, members.length);
    for (const [rank, url] of members.entries()) {
      for (const m of shares[rank] ?? []) {
        const hasSamples = this.answer.samplesOf(step - 1, m).length > 0;
        if (hasSamples && !this.computed.has(`${step - 1}/${m}/${url}`)) {
          this.break(
            'every sample counts once',
            `step ${step} of generation ${generation} commits, and rank ${rank} has not computed microbatch ${m}`,
          );
        }
      }
    }
    this.committed.set(step, lossSum);
    this.everCommitted.add(step);
  }

  private completes({ report }: Extract<RunEvent, { kind: 'epoch' }>): void {
    if (report.epoch !== this.epoch + 1)
      this.break('epochs end in their order', `epoch ${report.epoch} is complete after epoch ${this.epoch}`);
    this.epoch = report.epoch;
    if (report.testLoss === null && this.job.testSamples > 0 && !this.mayBeUntested)
      this.break('every epoch is evaluated', `epoch ${report.epoch} is not, and every worker is there`);
  }

  /** A worker is gone, or thought to be: with it may go its part of an evaluation. */
  workerMissing(): void {
    this.mayBeUntested = true;
  }

  /** It is on disk. */
  recorded(record: JournalEntry | CommitsEntry): void {
    if (record.kind === 'generation') {
      if (record.generation <= this.journalled) {
        this.break('a generation has a number of its own', `generation ${record.generation} after ${this.journalled}`);
      }
      this.journalled = record.generation;
      this.generations++;
    } else if (record.kind === 'commits') {
      if (record.from !== this.recordedTo + 1 || record.to < record.from) {
        this.break(
          'steps commit in their order',
          `the journal has the steps ${record.from} to ${record.to} after ${this.recordedTo}`,
        );
      }
      this.recordedTo = record.to;
      if (record.digest !== null) this.checkDigest('the journal', record.to, record.digest);
    } else if (record.kind === 'unrecorded') {
      if (!this.wasResumed || record.from !== this.recordedTo + 1)
        this.break('no step is lost', `nobody tells of the steps ${record.from} to ${record.to}`);
      this.recordedTo = record.to;
    } else if ('digest' in record) this.checkDigest(`the journal's "${record.kind}"`, record.step, record.digest);
  }

  private sends(worker: string, message: CoordinatorMessage): void {
    if (message.kind === 'begin') {
      this.begun.set(worker, message.generation);
      this.checkDigest(`generation ${message.generation}`, message.step, message.digest);
      for (const url of this.memberships.get(message.generation) ?? []) {
        const reached = this.reached.get(url) ?? 0;
        if (reached > message.step && !this.isExcused) {
          this.break(
            'no step is lost',
            `generation ${message.generation} begins after step ${message.step}, and ${url} has done ${reached}`,
          );
        }
      }
    }
    if (message.kind !== 'generation') return;
    if (message.generation > this.journalled)
      this.break('a generation is on record before it is told', `generation ${message.generation}`);
    const membership = message.members.toSorted((a, b) => a.rank - b.rank).map((member) => member.peerUrl);
    const known = this.memberships.get(message.generation);
    if (known !== undefined && known.join() !== membership.join()) {
      this.break(
        'a generation has a number of its own',
        `generation ${message.generation} is told to ${worker} as ${membership.join()}, and was ${known.join()}`,
      );
    }
    this.memberships.set(message.generation, membership);
    if (message.shares !== undefined) this.shares.set(message.generation, message.shares);
  }

  /** The run has ended as done. */
  done({ step, digest }: { step: number; digest: string | null }): void {
    while (this.everCommitted.has(this.committed.size + 1)) this.committed.set(this.committed.size + 1, 0);
    if (step !== this.job.steps || this.committed.size !== this.job.steps) {
      this.break(
        'no step is lost',
        `the run is done after step ${step}, with ${this.committed.size} of ${this.job.steps} committed`,
      );
    }
    this.checkDigest('the run', step, digest ?? '', true);
    if (this.recordedTo !== step) this.break('no step is lost', `the journal ends with step ${this.recordedTo}`);
  }

  /** A coordinator of that term does something that can't be undone. */
  actsAs(term: number, newest: number, what: string): void {
    if (term < newest)
      this.break('an older coordinator has no effect', `of terms ${term} and ${newest} the first acts: ${what}`);
  }

  /** Another coordinator goes on from what the disk has after `step`; returns how many steps were done since. */
  resumed(step: number): number {
    const again = this.committed.size - step;
    for (const done of this.committed.keys()) if (done > step) this.committed.delete(done);
    this.recordedTo = step;
    this.epoch = Math.floor(step / stepsPerEpoch(this.job.plan));
    this.wasResumed = true;
    this.begun.clear();
    this.said.length = 0;
    return again;
  }
}

/** Where a process's peers reach it. */
export function urlOf(process: string): string {
  return `sim://${process}/peer`;
}

function hasSameBits(a: Float32Array, b: Float32Array | undefined): boolean {
  return (
    b !== undefined &&
    Buffer.from(a.buffer, a.byteOffset, a.byteLength).equals(Buffer.from(b.buffer, b.byteOffset, b.byteLength))
  );
}
