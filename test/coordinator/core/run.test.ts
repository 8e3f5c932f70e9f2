// The coordinator's decisions, told as stories: messages in, effects out, no process, no socket, no clock.

import { describe, expect, it } from 'vitest';
import { NO_PROGRESS } from '../../../coordinator/core/progress.ts';
import type { Effect, Input } from '../../../coordinator/core/effects.ts';
import { REJOIN_MS, Run, type RunOptions } from '../../../coordinator/core/run.ts';
import { SUSPICION_MS } from '../../../coordinator/core/suspicions.ts';
import { viewOf } from '../../../coordinator/core/view.ts';
import type { StepReport, WorkerMessage } from '../../../protocol/messages.ts';
import { CONFIG } from '../config.ts';

const DIGEST_A = 'a'.repeat(64);
const DIGEST_B = 'b'.repeat(64);

/** 10 samples, batches of 4: three steps an epoch; two epochs. */
function options(
  change: Partial<RunOptions> & {
    steps?: number;
    microbatches?: number;
    gradientCompression?: 'bf16';
    auditRate?: number;
  } = {},
): RunOptions {
  const { steps = 6, microbatches = 4, gradientCompression = 'none', auditRate = 0, ...rest } = change;
  return {
    config: { ...CONFIG, steps, microbatches, gradientCompression, auditRate },
    plan: { samples: 10, globalBatch: 4, microbatches, seed: 1 },
    workers: 2,
    allowMixedEngines: false,
    supervised: true,
    minWorkers: 1,
    maxWorkers: 64,
    restartLimit: 0,
    stragglerLimit: 0,
    progressLimitMs: 60_000,
    waitLimitMs: 60_000,
    resumed: null,
    workersLost: 0,
    progress: NO_PROGRESS,
    stepsLost: 0,
    lastGeneration: 0,
    term: 1,
    isBeforeHung: false,
    ...rest,
  };
}

const hello = (pid: number, localRank: number): WorkerMessage => ({
  kind: 'hello',
  protocol: 7,
  lockstep: '0.1.0',
  node: 'v20',
  host: 'h',
  pid,
  localRank,
  rejoin: null,
});

const ready = (change: Partial<Extract<WorkerMessage, { kind: 'ready' }>> = {}): WorkerMessage => ({
  kind: 'ready',
  engine: { name: 'tensorflow', library: 'TensorFlow 2.21.0', device: 'CPU', threads: 1, settings: { oneDNN: '1' } },
  fingerprint: DIGEST_A,
  weightsDigest: DIGEST_B,
  peerUrl: 'ws://127.0.0.1:1',
  layout: [{ name: 'w', shape: [2], offset: 0, length: 2, trainable: true }],
  topology: '{}',
  optimizer: { name: 'sgd', slots: [] },
  ...change,
});

const stepReport = (step: number, change: Partial<StepReport> = {}): StepReport => ({
  step,
  samples: step % 3 === 0 ? 2 : 4,
  lossSum: 8,
  correct: 1,
  gradientNorm: 1,
  seconds: 0.5,
  phases: { data: 0.1, compute: 0.2, allreduce: 0.1, apply: 0.05, wait: 0.05 },
  rssBytes: 1000,
  ...change,
});

const report = (step: number, change: Partial<StepReport> = {}): WorkerMessage => ({
  kind: 'report',
  generation: 1,
  steps: [stepReport(step, change)],
  links: [],
});

const evaluation = (
  step: number,
  chunks: { index: number; samples: number; lossSum: number; correct: number }[],
  digest = DIGEST_A,
): WorkerMessage => ({
  kind: 'evaluation',
  generation: 1,
  step,
  digest,
  seconds: 0.1,
  chunks,
});

const state = (step: number): WorkerMessage => ({
  kind: 'state',
  step,
  digest: DIGEST_A,
  vector: 'weights',
  vectorIndex: 0,
  vectors: 1,
  offset: 0,
  length: 2,
  bytes: new Uint8Array(new Float32Array([1.5, -2]).buffer),
});

/** A rank's residuals of one step, after what else it sends. */
function residuals(step: number, microbatches: readonly number[], before: readonly string[] = []): WorkerMessage[] {
  const names = [...before, ...microbatches.map((m) => `residual:${m}`)];
  return names.map((vector, vectorIndex) => ({
    ...(state(step) as Extract<WorkerMessage, { kind: 'state' }>),
    vector,
    vectorIndex,
    vectors: names.length,
  }));
}

const linked = (generation: number, step = 0, digest = DIGEST_B): WorkerMessage => ({
  kind: 'linked',
  generation,
  step,
  digest,
});

const finished = (step: number, digest = DIGEST_A, generation = 1): WorkerMessage => ({
  kind: 'finished',
  generation,
  step,
  digest,
  peakRssBytes: 5000,
  because: 'done',
});

class Story {
  readonly run: Run;
  now = 1000;
  constructor(change: Parameters<typeof options>[0] = {}) {
    this.run = new Run(options(change));
  }
  say(worker: string, message: WorkerMessage): Effect[] {
    return this.run.receive({ kind: 'message', worker, message }, this.now);
  }
  /** Two workers joined, ready, training. */
  begun(): this {
    this.say('w0', hello(100, 0));
    this.say('w1', hello(101, 1));
    this.say('w0', ready());
    this.say('w1', ready());
    this.link(1, this.run.options.resumed?.step ?? 0);
    return this;
  }
  /** All members of the generation that forms are linked, with the state after `step`. */
  link(generation: number, step: number, digest = DIGEST_B): Effect[] {
    return this.run.members().flatMap((w) => this.say(w.id, linked(generation, step, digest)));
  }
  steps(from: number, to: number): void {
    for (let step = from; step <= to; step++) for (const w of ['w0', 'w1']) this.say(w, report(step));
  }
  evaluate(step: number): Effect[] {
    return [
      ...this.say('w1', evaluation(step, [{ index: 1, samples: 2, lossSum: 3, correct: 0 }])),
      ...this.say('w0', evaluation(step, [{ index: 0, samples: 3, lossSum: 2, correct: 3 }])),
    ];
  }
}

/** What follows once a record is on disk comes right after it. */
const flat = (effects: readonly Effect[]): Effect[] =>
  effects.flatMap((e) => (e.kind === 'journal' ? [e, ...flat(e.afterwards ?? [])] : [e]));

const kinds = (effects: readonly Effect[]): string[] =>
  flat(effects).map((e) =>
    e.kind === 'tell' ? `tell ${e.event.kind}` : e.kind === 'send' ? `send ${e.message.kind} to ${e.worker}` : e.kind,
  );

describe('gathering', () => {
  it("waits, saying for whom, until every expected worker is ready; then opens generation 1 with the launcher's ranks", () => {
    const story = new Story();
    expect(kinds(story.say('w0', hello(100, 1)))).toEqual(['send welcome to w0', 'tell worker-joined']);
    story.say('w1', hello(101, 0));
    expect(kinds(story.say('w0', ready()))).toEqual(['tell worker-ready']);
    expect(story.run.phase).toBe('gathering');
    expect(story.run.because).toBe('1 of 2 workers ready');

    const effects = story.say('w1', ready());
    expect(kinds(effects)).toEqual(['tell worker-ready', 'journal', 'send generation to w1', 'send generation to w0']);
    expect(flat(effects).find((e) => e.kind === 'send')).toMatchObject({
      message: {
        generation: 1,
        rank: 0,
        worldSize: 2,
        members: [
          { worker: 'w1', rank: 0 },
          { worker: 'w0', rank: 1 },
        ],
      },
    });
  });

  it('begins with fewer when it is told to expect fewer, and waits for more when it is told to expect more', () => {
    const story = new Story({ workers: 3, supervised: false });
    for (const [i, id] of ['w0', 'w1'].entries()) {
      story.say(id, hello(100 + i, 0));
      story.say(id, ready());
    }
    expect(kinds(story.run.receive({ kind: 'workers-expected', workers: 4 }, story.now))).toEqual([]);
    expect(story.run.because).toBe('2 of 4 workers ready');
    // A host is left out.
    expect(kinds(story.run.receive({ kind: 'workers-expected', workers: 2 }, story.now))).toEqual([
      'journal',
      'send generation to w0',
      'send generation to w1',
    ]);
    // Once it has begun, whoever comes joins.
    expect(kinds(story.run.receive({ kind: 'workers-expected', workers: 9 }, story.now))).toEqual([]);
  });

  it('keeps workers beyond the number of microbatches as spares', () => {
    const story = new Story({ workers: 2, microbatches: 1 }).begun();
    expect([...story.run.workers.values()].map((w) => [w.id, w.rank, w.state])).toEqual([
      ['w0', 0, 'training'],
      ['w1', null, 'spare'],
    ]);
  });

  it('refuses another protocol version by name of both', () => {
    const effects = new Story().say('w0', { ...hello(1, 0), protocol: 8 } as WorkerMessage);
    expect(effects[0]).toMatchObject({ message: { kind: 'refused', code: 'E_PROTOCOL_VERSION' } });
    expect(JSON.stringify(effects[0])).toContain('speaks protocol 8, this coordinator 7');
  });

  it('closes the link of a worker that speaks before it introduced itself', () => {
    expect(new Story().say('w9', ready())).toEqual([
      { kind: 'disconnect', worker: 'w9', code: 'E_PROTOCOL', because: '"ready" before "hello"' },
    ]);
  });

  it('refuses an engine that computes other bits, with both engines side by side, and fails a supervised run for it', () => {
    const story = new Story();
    story.say('w0', hello(100, 0));
    story.say('w1', hello(101, 1));
    story.say('w0', ready());
    const other = {
      name: 'tensorflow',
      library: 'TensorFlow 2.20.0',
      device: 'CPU',
      threads: 2,
      settings: { oneDNN: '1' },
    };
    const effects = story.say('w1', ready({ fingerprint: DIGEST_B, engine: other }));
    expect(effects[0]).toMatchObject({
      kind: 'send',
      worker: 'w1',
      message: { kind: 'refused', code: 'E_FINGERPRINT' },
    });
    const because =
      effects[0]?.kind === 'send' && effects[0].message.kind === 'refused' ? effects[0].message.because : '';
    expect(because).toContain('library: TensorFlow 2.21.0 | TensorFlow 2.20.0');
    expect(because).toContain('threads: 1 | 2');
    expect(because).not.toContain('oneDNN');
    const end = { exitCode: 1, signal: null, lastLines: ['last'], logFile: 'log' };
    const concluded = story.run.receive({ kind: 'process-ended', pid: 101, localRank: 1, end }, story.now);
    expect(kinds(concluded)).toContain('end');
    expect(story.run.rootCause).toMatchObject({ who: 'w1', code: 'E_FINGERPRINT', exitCode: 1 });
  });

  it('refuses another thread count though the probe came out the same, and takes another processor', () => {
    const engine = {
      name: 'tensorflow',
      library: 'TensorFlow 2.21.0',
      device: 'CPU',
      threads: 1,
      settings: { oneDNN: '1' },
    };
    const answerTo = (other: Partial<typeof engine>): unknown => {
      const story = new Story();
      story.say('w0', hello(100, 0));
      story.say('w1', hello(101, 1));
      story.say('w0', ready({ engine }));
      return story.say('w1', ready({ engine: { ...engine, ...other } }))[0];
    };
    expect(answerTo({ threads: 2 })).toMatchObject({
      message: {
        kind: 'refused',
        code: 'E_FINGERPRINT',
        because: "w1's engine is set otherwise than w0's (w0 | w1: threads: 1 | 2)",
      },
    });
    expect(answerTo({ settings: { oneDNN: '0' } })).toMatchObject({ message: { kind: 'refused' } });
    expect(answerTo({ device: 'CPU (another)' })).not.toMatchObject({ message: { kind: 'refused' } });
  });

  it('lets another engine in when that is allowed, and says that the run is not reproducible', () => {
    const story = new Story({ allowMixedEngines: true });
    story.say('w0', hello(100, 0));
    story.say('w1', hello(101, 1));
    story.say('w0', ready());
    const effects = story.say('w1', ready({ fingerprint: DIGEST_B }));
    expect(kinds(effects)).toContain('tell warning');
    expect(story.run.reproducible).toBe(false);
    expect(story.run.phase).toBe('training');
  });

  it('refuses a worker that starts from other weights even when engines may differ', () => {
    const story = new Story({ allowMixedEngines: true, supervised: false });
    story.say('w0', hello(100, 0));
    story.say('w1', hello(101, 1));
    story.say('w0', ready());
    const effects = story.say('w1', ready({ weightsDigest: 'c'.repeat(64) }));
    expect(effects[0]).toMatchObject({ message: { code: 'E_DIGEST' } });
    expect(story.run.workers.has('w1')).toBe(false);
  });
});

describe('a run that is resumed', () => {
  it('goes on with the number after its last generation: none is used twice', () => {
    const story = new Story({ lastGeneration: 7 });
    for (const [worker, pid] of [
      ['w0', 100],
      ['w1', 101],
    ] as const)
      story.say(worker, hello(pid, pid - 100));
    story.say('w0', ready());
    const effects = story.say('w1', ready());
    expect(effects[1]).toMatchObject({
      kind: 'journal',
      record: { kind: 'generation', generation: 8, members: ['w0', 'w1'], because: '2 of 2 workers ready' },
    });
  });
});

describe('members that are all lost at once, as when their network is', () => {
  const cutOff = (): Story => {
    const story = new Story().begun();
    story.steps(1, 1);
    // One has done another step, and has told of it.
    story.say('w0', report(2));
    for (const worker of ['w0', 'w1']) {
      story.run.receive({ kind: 'disconnected', worker, because: 'the link was cut' }, story.now);
    }
    return story;
  };
  const comesBack = (story: Story, worker: string, localRank: number, step: number): Effect[] => {
    const rejoin = { worker: `w${localRank}`, generation: 1, worldSize: 2, step, term: 1 };
    story.say(worker, { ...hello(100 + localRank, localRank), rejoin } as WorkerMessage);
    return story.say(worker, ready());
  };

  it('go on where the one was that is back last: no step is lost', () => {
    const story = cutOff();
    expect(kinds(comesBack(story, 'w2', 1, 1))).toEqual(['tell worker-ready']);
    expect(kinds(comesBack(story, 'w3', 0, 2))).toContain('send generation to w2');
    story.say('w2', linked(3, 1));
    const [effect] = story.say('w3', linked(3, 2)).filter((e) => e.kind === 'send');
    expect(effect).toMatchObject({ message: { kind: 'begin', step: 2 } });
    expect(story.run.stepsLost).toBe(0);
  });

  it('go on without who is not back after a while', () => {
    const story = cutOff();
    comesBack(story, 'w2', 1, 1);
    const early = story.run.receive({ kind: 'tick' }, story.now + REJOIN_MS - 1);
    expect(kinds(early)).not.toContain('send generation to w2');
    expect(kinds(story.run.receive({ kind: 'tick' }, story.now + REJOIN_MS))).toContain('send generation to w2');
    story.say('w2', linked(3, 1));
    expect([story.run.step, story.run.stepsLost]).toEqual([2, 1]);
  });
});

describe('a coordinator that takes the place of another', () => {
  const back = (pid: number, localRank: number, step: number, generation = 3): WorkerMessage =>
    ({
      ...hello(pid, localRank),
      rejoin: { worker: `w${localRank}`, generation, worldSize: 2, step, term: 1 },
    }) as WorkerMessage;
  const repeated = (generation: number, ...steps: number[]): WorkerMessage => ({
    kind: 'report',
    generation,
    steps: steps.map((step) => stepReport(step)),
    links: [],
  });
  const taking = (change: Parameters<typeof options>[0] = {}): Story =>
    new Story({ lastGeneration: 3, workersLost: 2, ...change });

  it('does not wait for a step that can’t end because not all are back who are in it', () => {
    const story = taking();
    story.say('w4', back(100, 0, 2));
    story.say('w4', ready());
    story.say('w5', hello(102, 1));
    // The other may still come, until the launcher says that it does not.
    expect(kinds(story.say('w5', ready()))).toEqual(['tell worker-ready']);
    const end = { exitCode: null, signal: 'SIGKILL', lastLines: [], logFile: null };
    story.run.receive({ kind: 'process-ended', pid: 101, localRank: 1, end }, story.now);
    const effects = flat(story.run.receive({ kind: 'tick' }, story.now));
    expect(effects.filter((e) => e.kind === 'send')).toMatchObject([
      { worker: 'w4', message: { generation: 4, graceful: false } },
      { worker: 'w5', message: { generation: 4, graceful: true } },
    ]);
  });

  it('takes in who has finished before all are back: each finishes again, where it is asked', () => {
    const story = taking({ steps: 2 });
    story.say('w4', back(100, 0, 2));
    story.say('w4', ready());
    story.say('w4', finished(2, DIGEST_A, 3));
    story.say('w5', back(101, 1, 2));
    expect(kinds(story.say('w5', ready()))).toContain('send generation to w4');
  });

  it('counts an evaluation to the epoch that it was of, when it hears of two epochs at once', () => {
    const story = taking();
    story.say('w4', {
      ...back(100, 0, 6),
      rejoin: { worker: 'w0', generation: 3, worldSize: 1, step: 6, term: 1 },
    } as WorkerMessage);
    story.say('w4', repeated(3, 1, 2, 3, 4, 5, 6));
    const chunks = [{ index: 0, samples: 5, lossSum: 5, correct: 1 }];
    const effects = story.say('w4', { ...evaluation(3, chunks), generation: 3 } as WorkerMessage);
    expect(effects.find((e) => e.kind === 'journal')).toMatchObject({ record: { kind: 'epoch', epoch: 1, step: 3 } });
  });

  it('takes it that a worker has not done a step itself whose result it took from a peer', () => {
    const story = taking();
    story.say('w4', back(100, 0, 3));
    story.say('w4', repeated(2, 1));
    expect(kinds(story.say('w4', repeated(3, 3)))).toEqual(['worker-step']);
    story.say('w5', back(101, 1, 3));
    story.say('w5', repeated(3, 2));
    expect(story.run.step).toBe(3);
  });

  it('believes a repeated report only until the worker is ready', () => {
    const story = taking();
    story.say('w4', back(100, 0, 2));
    story.say('w4', repeated(2, 1));
    story.say('w4', ready());
    expect(story.say('w4', repeated(2, 1))).toEqual([]);
  });

  it('starts a worker anew that could not reach it before it was there', () => {
    const end = { exitCode: 1, signal: null, lastLines: [], logFile: null };
    const input = { kind: 'process-ended', pid: 103, localRank: 1, end } as const;
    expect(kinds(taking({ restartLimit: 1 }).run.receive(input, 0))).toContain('start-worker');
  });

  it('hears from its workers what they did meanwhile, and lets them finish their step before it opens a generation', () => {
    const story = taking({ stepsLost: 1 });
    expect(story.say('w4', back(100, 0, 2))).toMatchObject([{ message: { kind: 'welcome', step: 0 } }, {}]);
    expect(kinds(story.say('w4', repeated(2, 1)))).toContain('tell step');
    story.say('w4', repeated(3, 2));
    story.say('w4', ready());
    story.say('w5', back(101, 1, 2));
    story.say('w5', repeated(3, 1, 2));
    expect(story.run.step).toBe(2);
    const effects = flat(story.say('w5', ready()));
    expect(effects.filter((e) => e.kind === 'send')).toMatchObject([
      { worker: 'w4', message: { generation: 4, graceful: true } },
      { worker: 'w5', message: { generation: 4, graceful: true } },
    ]);
    expect(kinds(story.say('w4', repeated(3, 3)))).toContain('tell step');
    story.say('w5', repeated(3, 3));
    story.link(4, 3);
    expect([story.run.step, story.run.stepsLost, story.run.workersLost]).toEqual([3, 0, 2]);
  });

  it('takes the steps in their order, whoever reports them first; what nobody knows any more it says', () => {
    const story = taking();
    story.say('w4', back(100, 0, 3));
    expect(kinds(story.say('w4', repeated(3, 3)))).toEqual(['worker-step']);
    story.say('w5', back(101, 1, 3));
    expect(kinds(story.say('w5', repeated(3, 2)))).toEqual(['worker-step']);
    story.say('w5', repeated(3, 3));
    story.say('w4', ready());
    story.say('w5', ready());
    const told = story.link(4, 3).flatMap((e) => (e.kind === 'tell' ? [e.event] : []));
    expect(told).toMatchObject([
      { kind: 'warning', message: 'nobody is left who could report step 1: done, but not among the metrics' },
      { kind: 'step', step: 2, generation: 3 },
      { kind: 'step', step: 3, generation: 3 },
      { kind: 'generation' },
    ]);
  });

  it('does not wait for long for those who do not come back', () => {
    const story = taking();
    story.say('w4', back(100, 0, 0));
    expect(story.say('w4', ready())).toHaveLength(1);
    expect(story.run.receive({ kind: 'tick' }, story.now + REJOIN_MS - 1)).toEqual([]);
    expect(kinds(story.run.receive({ kind: 'tick' }, story.now + REJOIN_MS))).toContain('send generation to w4');
  });

  it('that has no checkpoint asks for the state of those who have done steps', () => {
    const story = taking();
    for (const [i, w] of ['w4', 'w5'].entries()) {
      story.say(w, back(100 + i, i, 1));
      story.say(w, repeated(3, 1));
      story.say(w, ready());
    }
    const begun = story.link(4, 1).flatMap((e) => (e.kind === 'send' && e.message.kind === 'begin' ? [e.message] : []));
    expect(begun).toMatchObject([
      { step: 1, keep: true },
      { step: 1, keep: true },
    ]);
  });

  it('completes an evaluation with the parts of all who had a share in it', () => {
    const story = taking();
    for (const [i, w] of ['w4', 'w5'].entries()) {
      story.say(w, back(100 + i, i, 3));
      story.say(w, repeated(3, 1, 2, 3));
    }
    const part = (index: number): WorkerMessage =>
      ({
        ...evaluation(3, [{ index, samples: 2 + index, lossSum: 3, correct: 1 }]),
        generation: 3,
      }) as WorkerMessage;
    expect(kinds(story.say('w4', part(0)))).toEqual([]);
    expect(kinds(story.say('w5', part(1)))).toEqual(['tell epoch', 'journal']);
  });
});

describe('a member whose engine hangs', () => {
  it('is named, sent away and ended, and the others do the step again', () => {
    const story = new Story().begun();
    story.steps(1, 1);
    const tick = (afterMs: number): Effect[] => {
      story.now += afterMs;
      return story.run.receive({ kind: 'tick' }, story.now);
    };
    expect(tick(59_999)).toEqual([]);
    expect(kinds(tick(1))).toEqual(['send probe to w0', 'send probe to w1']);
    story.say('w0', { kind: 'standing', generation: 1, step: 1, computed: 2 });
    const effects = tick(10_000);
    expect(kinds(effects)).toEqual([
      'tell worker-refused',
      'send refused to w1',
      'disconnect',
      'end-worker',
      'journal',
      'send generation to w0',
    ]);
    expect(effects).toContainEqual({ kind: 'end-worker', host: 'h', localRank: 1, pid: 101 });
    expect(effects[0]).toMatchObject({
      event: { code: 'E_STALLED', because: 'no step for 70 s, where 60 s is the limit: the others wait for w1' },
    });
  });
});

describe('a coordinator that another has replaced', () => {
  it('says so, nothing to its workers, and does nothing more; also when its run has just ended', () => {
    const story = new Story().begun();
    const fenced: Input = { kind: 'fenced', host: 'h', pid: 7, because: 'process 8 has it' };
    expect(story.run.receive(fenced, story.now)).toEqual([
      { kind: 'tell', event: { kind: 'warning', message: 'process 8 has it' } },
      { kind: 'stand-aside' },
    ]);
    expect(story.run.rootCause).toMatchObject({ code: 'E_FENCED', who: 'coordinator', pid: 7 });
    expect(story.say('w0', report(1))).toEqual([]);

    const over = new Story();
    over.run.receive({ kind: 'stop-requested', because: 'x' }, 1);
    expect(kinds(over.run.receive(fenced, 2))).toEqual(['tell warning', 'stand-aside']);
  });

  it('hears it from a worker that has joined the other', () => {
    const story = new Story({ term: 3 });
    const rejoin = { worker: 'w0', generation: 1, worldSize: 2, step: 1 };
    const back = (term: number): WorkerMessage => ({ ...hello(100, 0), rejoin: { ...rejoin, term } }) as WorkerMessage;
    expect(kinds(story.say('w4', back(3)))).toEqual(['send welcome to w4', 'tell worker-joined']);
    expect(kinds(story.say('w5', back(4)))).toEqual(['tell warning', 'stand-aside']);
    expect(story.run.because).toContain('worker process 100 on h has joined it (term 4, this one has 3)');
  });
});

describe('a worker that was lost and lives', () => {
  it('comes back as a newcomer, and takes the state from a member', () => {
    const story = new Story().begun();
    story.run.receive({ kind: 'disconnected', worker: 'w1', because: 'nothing was heard of it for 2 s' }, story.now);
    story.say('w0', linked(2, 0));
    story.say('w0', { ...report(1), generation: 2 } as WorkerMessage);
    const rejoin = { worker: 'w1', generation: 1, worldSize: 2, step: 0 };
    story.say('w2', { ...hello(101, 1), rejoin } as WorkerMessage);
    expect(kinds(story.say('w2', ready()))).toContain('send generation to w2');
    story.say('w0', linked(3, 1, DIGEST_A));
    expect(story.say('w2', linked(3, 0)).filter((e) => e.kind === 'send')).toMatchObject([
      { message: { kind: 'begin', step: 1, source: { kind: 'rank', rank: 0 } } },
      { message: { kind: 'begin' } },
    ]);
  });
});

describe('training', () => {
  it("commits a step with its first report and checks the others' against it", () => {
    const story = new Story().begun();
    expect(kinds(story.say('w1', report(1)))).toEqual(['worker-step', 'tell step']);
    expect(kinds(story.say('w0', report(1)))).toEqual(['worker-step']);
    expect(story.run.step).toBe(1);
    expect(story.run.progress.lastLoss).toBe(2);
  });

  it('tells what a worker’s links carried, by the worker at their other end; a link to nobody is a breach of the protocol', () => {
    const story = new Story().begun();
    const carrying = (peer: number): WorkerMessage => ({
      kind: 'report',
      generation: 1,
      steps: [stepReport(1)],
      links: [{ peer, transport: 'shm', bytesOut: 500, bytesIn: 700 }],
    });
    expect(story.say('w0', carrying(1)).filter((e) => e.kind === 'worker-traffic')).toEqual([
      {
        kind: 'worker-traffic',
        worker: 'w0',
        peer: 'w1',
        link: { peer: 1, transport: 'shm', bytesOut: 500, bytesIn: 700 },
      },
    ]);
    expect(story.run.progress.bytesSent).toEqual([{ transport: 'shm', bytes: 500 }]);
    const effects = story.say('w1', carrying(1));
    expect(kinds(effects)).toContain('send refused to w1');
    expect(kinds(effects)).toContain('send generation to w0');
  });

  it('remembers the digest that all members reported, and asks no more of a step without one', () => {
    const story = new Story().begun();
    story.steps(1, 1);
    for (const w of ['w0', 'w1']) story.say(w, report(2, { digest: DIGEST_A }));
    expect(story.run.digests.agreed).toEqual({ step: 2, digest: DIGEST_A });
    expect(story.run.rootCause).toBeNull();
  });

  it('tells of members whose weights differ, and fails the run', () => {
    const story = new Story({ supervised: false }).begun();
    story.say('w0', report(1, { digest: DIGEST_A }));
    const effects = story.say('w1', report(1, { digest: DIGEST_B }));
    expect(effects).toContainEqual({
      kind: 'tell',
      event: {
        kind: 'mismatch',
        what: 'weights',
        step: 1,
        workers: ['w0', 'w1'],
        because: expect.stringContaining('no majority') as string,
      },
    });
    story.say('w0', linked(2, 1, DIGEST_A));
    story.say('w1', linked(2, 1, DIGEST_B));
    expect(story.run.rootCause).toMatchObject({ code: 'E_DIGEST' });
    expect(story.run.digests.agreed).toBeNull();
  });

  it('sends away the one of three members whose weights differ', () => {
    const story = new Story({ workers: 3, supervised: false });
    const all = ['w0', 'w1', 'w2'];
    for (const [i, w] of all.entries()) story.say(w, hello(100 + i, i));
    for (const w of all) story.say(w, ready());
    story.link(1, 0);
    const effects = all.flatMap((w) => story.say(w, report(1, { digest: w === 'w1' ? DIGEST_B : DIGEST_A })));
    expect(effects).toContainEqual({
      kind: 'tell',
      event: expect.objectContaining({ kind: 'mismatch', workers: ['w1'] }) as unknown,
    });
    expect(kinds(effects)).toContain('send refused to w1');
    expect(story.run.members().map((w) => w.id)).toEqual(['w0', 'w2']);
    // Its gradient of step 2 came of wrong weights: what all agreed on is the start.
    story.say('w0', linked(2, 2, DIGEST_A));
    const begun = story.say('w2', linked(2, 2, DIGEST_A));
    expect(begun.filter((e) => e.kind === 'send')).toMatchObject([
      { message: { kind: 'begin', step: 0, source: { kind: 'start' } } },
      { message: { kind: 'begin', step: 0 } },
    ]);
    // Done again, a step may have another loss sum than it had: that is what is to be among the metrics.
    expect(begun).toContainEqual({ kind: 'unmeasure', step: 0 });
    const again = { ...report(1, { lossSum: 7, digest: DIGEST_B }), generation: 2 } as WorkerMessage;
    const measured = story.say('w0', again);
    expect(kinds(measured)).toEqual(['worker-step', 'measure']);
    expect(measured[1]).toMatchObject({ event: { step: 1, generation: 2, loss: 7 / 4 } });
    expect(kinds(story.say('w2', again))).toEqual(['worker-step']);
  });

  it('goes back to what was kept before a microbatch whose worker had other bits than two others, without that worker', () => {
    const story = new Story({ auditRate: 1, workers: 3, supervised: false });
    const all = ['w0', 'w1', 'w2'];
    for (const [i, w] of all.entries()) story.say(w, hello(100 + i, i));
    for (const w of all) story.say(w, ready());
    story.link(1, 0);
    const found = (step: number, microbatch: number, as: 'owner' | 'auditor', digest: string): WorkerMessage =>
      report(step, { audits: [{ microbatch, digest, as }] });
    for (const w of all) story.say(w, report(1));
    story.say('w0', state(1));
    story.say('w0', found(2, 1, 'auditor', DIGEST_A));
    story.say('w1', found(2, 1, 'owner', DIGEST_B));
    story.say('w1', found(3, 2, 'auditor', DIGEST_B));
    story.say('w2', report(2));
    const effects = story.say('w2', found(3, 2, 'owner', DIGEST_A));
    expect(kinds(effects)).toContain('send refused to w1');
    story.say('w0', linked(2, 2, DIGEST_A));
    const begun = story.say('w2', linked(2, 3, DIGEST_A));
    expect(begun.filter((e) => e.kind === 'send')[0]).toMatchObject({
      message: { kind: 'begin', step: 1, source: { kind: 'coordinator' } },
    });
    expect(story.run.stepsLost).toBe(2);
  });

  const audited = (digest: string, as: 'owner' | 'auditor', step = 1): WorkerMessage =>
    report(step, { audits: [{ microbatch: 3, digest, as }] });

  it('goes on while audits find the same bits', () => {
    const story = new Story({ auditRate: 1 }).begun();
    story.say('w0', audited(DIGEST_A, 'auditor'));
    story.say('w1', audited(DIGEST_A, 'owner'));
    expect(story.run.audits.compared).toBe(1);
    expect(story.run.rootCause).toBeNull();
  });

  it('fails the run, naming both, when a microbatch has other bits on the second of two workers', () => {
    const story = new Story({ auditRate: 1, supervised: false }).begun();
    story.say('w0', audited(DIGEST_A, 'auditor'));
    expect(story.say('w1', audited(DIGEST_B, 'owner'))).toContainEqual({
      kind: 'tell',
      event: {
        kind: 'mismatch',
        what: 'microbatch',
        step: 1,
        workers: ['w1', 'w0'],
        because: expect.stringContaining('microbatch 3 of step 1 has other bits') as string,
      },
    });
    expect(story.run.rootCause).toMatchObject({ who: 'w1', code: 'E_DIGEST' });
  });

  it('says that a lone worker has nobody to be audited by', () => {
    const story = new Story({ auditRate: 0.5, workers: 1 });
    story.say('w0', hello(100, 0));
    story.say('w0', ready());
    expect(story.link(1, 0)).toContainEqual({
      kind: 'tell',
      event: { kind: 'warning', message: expect.stringContaining('nothing is audited') as string },
    });
  });

  it('compares the weights in a new generation when two replicas report different loss sums for one step', () => {
    const story = new Story().begun();
    story.say('w0', report(1));
    expect(kinds(story.say('w1', report(1, { lossSum: 8.000001 })))).toEqual([
      'worker-step',
      'tell warning',
      'journal',
      'send generation to w0',
      'send generation to w1',
    ]);
    story.say('w0', linked(2, 1, DIGEST_A));
    expect(kinds(story.say('w1', linked(2, 1, DIGEST_B)))).toContain('end');
    expect(story.run.rootCause).toMatchObject({ code: 'E_DIGEST' });
    expect(story.run.rootCause?.message).toContain('w0, w1 hold different weights');
  });

  it('ends an epoch when every rank has evaluated: pieces summed in order, mean over all test samples', () => {
    const story = new Story().begun();
    story.steps(1, 3);
    const effects = story.evaluate(3);
    expect(effects.find((e) => e.kind === 'tell' && e.event.kind === 'epoch')).toEqual({
      kind: 'tell',
      event: {
        kind: 'epoch',
        epochs: 2,
        report: { epoch: 1, loss: 24 / 10, testLoss: 1, testAccuracy: 0.6, seconds: 1.5, imagesPerSecond: 10 / 1.5 },
      },
    });
  });

  it("holds an epoch's checkpoint until its evaluation is in, so that the record is whole", () => {
    const story = new Story().begun();
    story.steps(1, 3);
    expect(kinds(story.say('w0', state(3)))).toEqual([]);
    const written = story.evaluate(3).find((e) => e.kind === 'write-checkpoint');
    expect(written).toMatchObject({
      state: { step: 3, digest: DIGEST_A },
      progress: { byEpoch: [{ epoch: 1, testAccuracy: 0.6 }] },
    });
    expect(written?.kind === 'write-checkpoint' && [...(written.state.vectors[0]?.data ?? [])]).toEqual([1.5, -2]);
  });

  it('sends away the one of three that holds other weights after an epoch', () => {
    const story = new Story({ workers: 3 });
    for (const [i, w] of ['w0', 'w1', 'w2'].entries()) story.say(w, hello(100 + i, i));
    for (const w of ['w0', 'w1', 'w2']) story.say(w, ready());
    story.link(1, 0);
    for (let step = 1; step <= 3; step++) for (const w of ['w0', 'w1', 'w2']) story.say(w, report(step));
    story.say('w0', evaluation(3, [], DIGEST_A));
    expect(kinds(story.say('w1', evaluation(3, [], DIGEST_B)))).toContain('send generation to w1');
    story.say('w0', linked(2, 3, DIGEST_A));
    story.say('w1', linked(2, 3, DIGEST_B));
    const effects = story.say('w2', linked(2, 3, DIGEST_A));
    expect(kinds(effects)).toEqual([
      'tell worker-refused',
      'send refused to w1',
      'disconnect',
      'journal',
      'send generation to w0',
      'send generation to w2',
    ]);
    expect(story.run.workersLost).toBe(1);
  });

  it('is whole, where gradients are compressed, when every rank has sent the residuals of its microbatches', () => {
    const story = new Story({ gradientCompression: 'bf16' }).begun();
    story.steps(1, 2);
    const first = residuals(2, [0, 1], ['weights']).flatMap((part) => story.say('w0', part));
    expect(first).toEqual([]);
    const [rest, last] = residuals(2, [2, 3]) as [WorkerMessage, WorkerMessage];
    expect(story.say('w1', rest)).toEqual([]);
    const [written] = story.say('w1', last);
    expect(written?.kind === 'write-checkpoint' && written.state.vectors.map((v) => v.name)).toEqual([
      'weights',
      'residual:0',
      'residual:1',
      'residual:2',
      'residual:3',
    ]);
  });

  it('is put together by step, though a quick rank is a step ahead', () => {
    const story = new Story({ gradientCompression: 'bf16' }).begun();
    story.steps(1, 2);
    for (const step of [1, 2]) for (const part of residuals(step, [2, 3])) story.say('w1', part);
    const written = [1, 2].map((step) =>
      residuals(step, [0, 1], ['weights'])
        .flatMap((part) => story.say('w0', part))
        .map((e) => e.kind === 'write-checkpoint' && e.state.step),
    );
    expect(written).toEqual([[1], [2]]);
  });

  it.each([
    [
      "residuals that are another rank's",
      'w1',
      { vector: 'residual:0' },
      'a part of vector "residual:0" of step 2 of 2 floats, which is not its length',
    ],
    ['a state that lacks some', 'w1', { vectors: 1 }, "w1's state of step 2 lacks residual:3"],
  ])('disconnects a worker that sends %s', (_what, worker, change, because) => {
    const story = new Story({ gradientCompression: 'bf16' }).begun();
    const [part] = residuals(2, [2, 3]) as [WorkerMessage];
    expect(story.say(worker, { ...part, ...change })).toEqual([
      { kind: 'disconnect', worker, code: 'E_PROTOCOL', because },
    ]);
  });

  it('is taken from rank 0 alone without compression', () => {
    const story = new Story().begun();
    expect(story.say('w1', state(1))).toEqual([
      { kind: 'disconnect', worker: 'w1', code: 'E_PROTOCOL', because: 'w1 has no state to send' },
    ]);
  });

  it('that is resumed goes to every member when all are linked, with the residuals of its microbatches', () => {
    const resumed = { step: 2, digest: DIGEST_A, vectors: [{ name: 'weights', data: new Float32Array(2) }] };
    const story = new Story({ gradientCompression: 'bf16', resumed, workers: 3 });
    for (const [i, w] of ['w0', 'w1', 'w2'].entries()) story.say(w, hello(100 + i, i));
    for (const w of ['w0', 'w1', 'w2']) story.say(w, ready());
    const effects = story.link(1, 0);
    const sent = { kind: 'send-state', state: resumed };
    expect(effects.filter((e) => e.kind === 'send-state')).toEqual([
      { ...sent, worker: 'w0', vectors: ['weights', 'residual:0'] },
      { ...sent, worker: 'w1', vectors: ['weights', 'residual:1'] },
      { ...sent, worker: 'w2', vectors: ['weights', 'residual:2', 'residual:3'] },
    ]);
    expect(kinds(effects).filter((k) => k.startsWith('send'))).toEqual([
      'send begin to w0',
      'send-state',
      'send begin to w1',
      'send-state',
      'send begin to w2',
      'send-state',
    ]);
    expect(effects.find((e) => e.kind === 'send')).toMatchObject({
      message: { step: 2, digest: DIGEST_A, source: { kind: 'coordinator' } },
    });
  });

  it('disconnects a worker whose state does not fit the model', () => {
    const story = new Story().begun();
    const part = { ...state(1), length: 3 } as WorkerMessage;
    expect(story.say('w0', part)).toEqual([
      {
        kind: 'disconnect',
        worker: 'w0',
        code: 'E_PROTOCOL',
        because: 'a part of vector "weights" of step 1 of 3 floats, which is not its length',
      },
    ]);
  });
});

describe('ending', () => {
  it('is done when all have finished with one digest and the last checkpoint is on disk', () => {
    const story = new Story().begun();
    story.steps(1, 3);
    story.evaluate(3);
    story.steps(4, 6);
    story.say('w0', state(6));
    expect(kinds(story.evaluate(6))).toContain('write-checkpoint');
    story.say('w0', finished(6));
    expect(kinds(story.say('w1', finished(6)))).toEqual([]);
    const written = { kind: 'checkpoint-written', step: 6, digest: DIGEST_A, directory: 'd', seconds: 0.1 } as const;
    const effects = story.run.receive(written, story.now);
    expect(kinds(effects)).toEqual([
      'tell checkpoint',
      'journal',
      'journal',
      'send dismissed to w0',
      'send dismissed to w1',
      'end',
    ]);
    // By which each worker's process has the exit code of the run.
    expect(effects.at(-2)).toMatchObject({
      message: { kind: 'dismissed', outcome: 'done', because: 'the run is done' },
    });
    expect(effects.at(-1)).toEqual({ kind: 'end', outcome: 'done' });
    expect(story.run.digest).toBe(DIGEST_A);
  });

  it('still ends, with a warning, when the last checkpoint cannot be written', () => {
    const story = new Story({ steps: 1 }).begun();
    story.steps(1, 1);
    story.say('w0', state(1));
    story.evaluate(1);
    story.say('w0', finished(1));
    story.say('w1', finished(1));
    const effects = story.run.receive({ kind: 'checkpoint-failed', step: 1, because: 'no space left' }, story.now);
    expect(kinds(effects)).toEqual(['tell warning', 'journal', 'send dismissed to w0', 'send dismissed to w1', 'end']);
  });

  it('tells of a checkpoint that fails once, until one is written again', () => {
    const story = new Story().begun();
    const fail = (step: number): string[] =>
      kinds(story.run.receive({ kind: 'checkpoint-failed', step, because: 'no space left' }, story.now));
    expect([fail(1), fail(2)]).toEqual([['tell warning'], []]);
    const written = { step: 3, digest: DIGEST_A, directory: 'checkpoints/step-3', seconds: 1 };
    story.run.receive({ kind: 'checkpoint-written', ...written }, story.now);
    expect([fail(4), fail(5)]).toEqual([['tell warning'], []]);
    // The last one is not tried again.
    expect(fail(6)).toEqual(['tell warning']);
  });

  it('asks every member to stop once, and ends as stopped at the step that they agreed on', () => {
    const story = new Story().begun();
    story.steps(1, 1);
    expect(kinds(story.run.receive({ kind: 'stop-requested', because: 'Ctrl-C' }, story.now))).toEqual([
      'tell stopping',
      'send stop to w0',
      'send stop to w1',
    ]);
    expect(story.run.receive({ kind: 'stop-requested', because: 'Ctrl-C' }, story.now)).toEqual([]);
    story.steps(2, 2);
    expect(story.say('w0', state(2))).toMatchObject([{ kind: 'write-checkpoint', final: true }]);
    story.say('w0', finished(2));
    story.say('w1', finished(2));
    const effects = story.run.receive(
      { kind: 'checkpoint-written', step: 2, digest: DIGEST_A, directory: 'd', seconds: 0 },
      story.now,
    );
    expect(effects.at(-2)).toMatchObject({ message: { kind: 'dismissed', outcome: 'stopped', because: 'Ctrl-C' } });
    expect(effects.at(-1)).toEqual({ kind: 'end', outcome: 'stopped' });
  });

  it('stops at once while it still gathers workers', () => {
    const story = new Story();
    story.say('w0', hello(100, 0));
    expect(kinds(story.run.receive({ kind: 'stop-requested', because: 'Ctrl-C' }, 0))).toEqual([
      'tell stopping',
      'journal',
      'send dismissed to w0',
      'end',
    ]);
  });
});

describe('a lost worker', () => {
  const end = { exitCode: null, signal: 'SIGKILL', lastLines: ['step 1'], logFile: 'worker-1.log' };
  const killed = { kind: 'process-ended', pid: 101, localRank: 1, end } as const;
  const closed = (worker: string): Input => ({ kind: 'disconnected', worker, because: 'closed' });

  it('is left behind at once: the survivors form a generation, and begin where the most advanced is', () => {
    const story = new Story().begun();
    story.steps(1, 1);
    const effects = story.run.receive(closed('w1'), story.now);
    expect(kinds(effects)).toEqual(['journal', 'send generation to w0']);
    expect(flat(effects).at(-1)).toMatchObject({
      message: { generation: 2, graceful: false, rank: 0, worldSize: 1, because: 'w1 on h is lost' },
    });
    expect(story.run.workersLost).toBe(1);
    const begun = story.say('w0', linked(2, 1, DIGEST_A));
    expect(begun.filter((e) => e.kind === 'send')).toMatchObject([
      { message: { kind: 'begin', generation: 2, step: 1, source: { kind: 'held' }, evaluate: false, keep: false } },
    ]);
    expect(story.run.stepsLost).toBe(0);
    expect(kinds(story.say('w0', { ...report(2), generation: 2 } as WorkerMessage))).toContain('tell step');
  });

  it('may have the only copy of the newest step: whoever has less takes the state from who has most', () => {
    const story = new Story({ workers: 3 });
    for (const [i, w] of ['w0', 'w1', 'w2'].entries()) story.say(w, hello(100 + i, i));
    for (const w of ['w0', 'w1', 'w2']) story.say(w, ready());
    story.link(1, 0);
    story.say('w2', report(1));
    story.run.receive(closed('w1'), story.now);
    story.say('w0', linked(2, 0, DIGEST_B));
    const effects = story.say('w2', linked(2, 1, DIGEST_A));
    expect(effects.filter((e) => e.kind === 'send')).toMatchObject(
      ['w0', 'w2'].map((worker) => ({
        worker,
        message: { kind: 'begin', step: 1, source: { kind: 'rank', rank: 1 }, digest: DIGEST_A },
      })),
    );
  });

  it('that took the only copy with it makes the survivors do the step again: it is not committed twice, and counted as lost', () => {
    const story = new Story().begun();
    story.say('w1', report(1));
    story.run.receive(closed('w1'), story.now);
    story.say('w0', linked(2, 0, DIGEST_B));
    expect(story.run.stepsLost).toBe(1);
    expect(kinds(story.say('w0', { ...report(1), generation: 2 } as WorkerMessage))).toEqual(['worker-step']);
    expect(story.run.step).toBe(1);
    expect(kinds(story.say('w0', { ...report(2), generation: 2 } as WorkerMessage))).toContain('tell step');
  });

  it('has no say any more: what it reports later is of a generation that is over', () => {
    const story = new Story().begun();
    story.run.receive(closed('w1'), story.now);
    expect(story.say('w1', report(1))).toEqual([]);
    expect(story.run.step).toBe(0);
  });

  it("whose survivors' reports of the old generation are still under way is not mourned for the steps in them", () => {
    const story = new Story().begun();
    story.run.receive(closed('w1'), story.now);
    expect(kinds(story.say('w0', report(1)))).toContain('tell step');
    story.say('w0', linked(2, 1, DIGEST_A));
    expect([story.run.step, story.run.stepsLost]).toEqual([1, 0]);
  });

  it('while a generation forms: another forms without it', () => {
    const story = new Story({ workers: 3 });
    for (const [i, w] of ['w0', 'w1', 'w2'].entries()) story.say(w, hello(100 + i, i));
    for (const w of ['w0', 'w1', 'w2']) story.say(w, ready());
    story.say('w0', linked(1));
    const effects = story.run.receive(closed('w1'), story.now);
    expect(kinds(effects)).toEqual(['journal', 'send generation to w0', 'send generation to w2']);
    expect(story.say('w2', linked(1))).toEqual([]);
    story.say('w0', linked(2));
    expect(kinds(story.say('w2', linked(2)))).toContain('send begin to w0');
  });

  it('has its place taken by a spare at once', () => {
    const story = new Story({ workers: 3, microbatches: 2 });
    for (const [i, w] of ['w0', 'w1', 'w2'].entries()) story.say(w, hello(100 + i, i));
    for (const w of ['w0', 'w1', 'w2']) story.say(w, ready());
    story.link(1, 0);
    expect(story.run.workers.get('w2')?.state).toBe('spare');
    story.run.receive(closed('w0'), story.now);
    expect(story.run.members().map((w) => [w.id, w.rank])).toEqual([
      ['w1', 0],
      ['w2', 1],
    ]);
  });

  it('is started anew by the launcher, as often in a row as the limit says; a step starts the count again', () => {
    const story = new Story({ restartLimit: 1 }).begun();
    expect(kinds(story.run.receive(killed, story.now))).toContain('start-worker');
    story.say('w2', hello(102, 1));
    const again = { ...killed, pid: 102 };
    expect(kinds(story.run.receive(again, story.now))).not.toContain('start-worker');

    const lucky = new Story({ restartLimit: 1 }).begun();
    lucky.run.receive(killed, lucky.now);
    lucky.say('w0', linked(2, 0));
    lucky.say('w2', hello(102, 1));
    lucky.say('w2', ready());
    lucky.link(3, 0);
    lucky.say('w2', { ...report(1), generation: 3 } as WorkerMessage);
    expect(kinds(lucky.run.receive(again, lucky.now))).toContain('start-worker');
  });

  it('comes back as a newcomer, who joins after a whole step and takes the state from a member', () => {
    const story = new Story({ restartLimit: 1 }).begun();
    story.run.receive(killed, story.now);
    story.say('w0', linked(2, 0));
    story.say('w0', { ...report(1), generation: 2 } as WorkerMessage);
    story.say('w2', hello(102, 1));
    const effects = story.say('w2', ready());
    expect(flat(effects).filter((e) => e.kind === 'send')).toMatchObject([
      { worker: 'w0', message: { generation: 3, graceful: true, rank: 0 } },
      { worker: 'w2', message: { generation: 3, graceful: true, rank: 1, because: 'w2 joined' } },
    ]);
    story.say('w2', linked(3, 0));
    expect(story.say('w0', linked(3, 1, DIGEST_A)).filter((e) => e.kind === 'send')).toMatchObject([
      { message: { kind: 'begin', step: 1, source: { kind: 'rank', rank: 0 } } },
      { message: { kind: 'begin', step: 1, source: { kind: 'rank', rank: 0 } } },
    ]);
  });

  it('leaves an evaluation to be done again by those who are left, and the state to be kept', () => {
    const story = new Story().begun();
    story.steps(1, 3);
    story.say('w0', evaluation(3, [{ index: 0, samples: 3, lossSum: 2, correct: 3 }]));
    story.run.receive(closed('w1'), story.now);
    const begun = story.say('w0', linked(2, 3, DIGEST_A));
    expect(begun.filter((e) => e.kind === 'send')).toMatchObject([{ message: { evaluate: true, keep: true } }]);
    expect(story.run.phase).toBe('evaluating');
    const chunks = [
      { index: 0, samples: 3, lossSum: 2, correct: 3 },
      { index: 1, samples: 2, lossSum: 3, correct: 0 },
    ];
    const effects = story.say('w0', { ...evaluation(3, chunks), generation: 2 } as WorkerMessage);
    expect(effects.find((e) => e.kind === 'tell' && e.event.kind === 'epoch')).toMatchObject({
      event: { report: { testAccuracy: 0.6 } },
    });
  });

  it('below the minimum: those who are left keep their state and wait; with enough again they go on', () => {
    const story = new Story({ minWorkers: 2 }).begun();
    story.steps(1, 1);
    story.run.receive(closed('w1'), story.now);
    expect(story.run.phase).toBe('waiting');
    expect(story.run.because).toBe('waiting for 1 more worker (--min-workers 2): w1 on h is lost');
    const held = story.say('w0', linked(2, 1, DIGEST_A));
    expect(held.filter((e) => e.kind === 'send')).toMatchObject([
      { message: { kind: 'begin', hold: true, keep: true } },
    ]);
    expect(kinds(story.say('w0', state(1)))).toEqual(['write-checkpoint']);
    story.say('w2', hello(102, 1));
    story.say('w2', ready());
    story.say('w0', linked(3, 1, DIGEST_A));
    story.say('w2', linked(3, 0));
    expect(story.run.phase).toBe('training');
  });

  it('that nobody replaces fails the run when the limit of waiting is over, saying why it waited', () => {
    const story = new Story({ supervised: false, minWorkers: 2 }).begun();
    story.run.receive(closed('w1'), 1000);
    story.run.receive({ kind: 'tick' }, 60_999);
    expect(story.run.phase).toBe('waiting');
    story.run.receive({ kind: 'tick' }, 61_000);
    expect(story.run.rootCause).toMatchObject({
      who: 'w1',
      code: 'E_TOO_FEW_WORKERS',
      message: 'waiting for 1 more worker (--min-workers 2): w1 on h is lost; it has waited for 60 s (--wait-limit)',
    });
  });

  it('when nobody has its state any more: newcomers get what the coordinator kept', () => {
    const story = new Story({ restartLimit: 1 }).begun();
    story.steps(1, 2);
    story.say('w0', state(2));
    story.steps(3, 3);
    story.run.receive(killed, story.now);
    story.run.receive({ ...killed, pid: 100, localRank: 0 }, story.now);
    expect(story.run.phase).toBe('waiting');
    story.say('w2', hello(102, 1));
    story.say('w2', ready());
    const effects = story.say('w2', linked(story.run.generation, 0));
    expect(effects.filter((e) => e.kind === 'send' || e.kind === 'send-state')).toMatchObject([
      { message: { kind: 'begin', step: 2, source: { kind: 'coordinator' } } },
      { kind: 'send-state', state: { step: 2 } },
    ]);
    expect(story.run.stepsLost).toBe(1);
  });

  it('is told of with the end of its process when both are known', () => {
    const story = new Story().begun();
    story.run.receive(closed('w1'), story.now);
    const effects = story.run.receive(killed, story.now);
    expect(effects.find((e) => e.kind === 'tell')).toEqual({
      kind: 'tell',
      event: {
        kind: 'worker-lost',
        cause: {
          who: 'w1',
          rank: 1,
          host: 'h',
          pid: 101,
          exitCode: null,
          signal: 'SIGKILL',
          code: null,
          message: 'killed by SIGKILL',
          lastLines: ['step 1'],
          logFile: 'worker-1.log',
        },
      },
    });
  });

  it('by an error of its own that any other would meet ends the run, with the end of its process', () => {
    const story = new Story().begun();
    story.say('w1', { kind: 'failed', code: 'E_NOT_FINITE', message: 'the gradient is not finite', stack: '' });
    expect(story.run.rootCause).toBeNull();
    story.run.receive({ ...killed, end: { ...end, exitCode: 1, signal: null } }, story.now);
    expect(story.run.rootCause).toMatchObject({
      code: 'E_NOT_FINITE',
      exitCode: 1,
      message: 'the gradient is not finite',
    });
  });

  it('by another error of its own is survived once, not twice in a step', () => {
    const failed = { kind: 'failed', code: 'E_TRAINING', message: 'out of memory', stack: '' } as const;
    const story = new Story({ workers: 3, supervised: false });
    for (const [i, w] of ['w0', 'w1', 'w2'].entries()) story.say(w, hello(100 + i, i));
    for (const w of ['w0', 'w1', 'w2']) story.say(w, ready());
    story.link(1, 0);
    expect(kinds(story.say('w1', failed))).toContain('send generation to w0');
    expect(kinds(story.say('w2', failed))).toContain('end');
    expect(story.run.rootCause).toMatchObject({ who: 'w2', code: 'E_TRAINING' });
  });

  const killedToo = { ...killed, pid: 100, localRank: 0 } as const;

  it('is started anew when all steps are done, too: nobody else may be left to end the run', () => {
    const story = new Story({ steps: 1, restartLimit: 1 }).begun();
    story.steps(1, 1);
    expect(kinds(story.run.receive(killed, story.now))).toContain('start-worker');
    expect(kinds(story.run.receive(killedToo, story.now))).toContain('start-worker');
    story.say('w2', hello(102, 0));
    expect(kinds(story.say('w2', ready()))).toContain('send generation to w2');
  });

  it('below the minimum does not matter when all steps are done: who is left ends the run', () => {
    const story = new Story({ steps: 1, minWorkers: 2 }).begun();
    story.steps(1, 1);
    story.run.receive(killed, story.now);
    const begun = story.say('w0', linked(2, 1, DIGEST_A));
    expect(begun.filter((e) => e.kind === 'send')).toMatchObject([{ message: { hold: false, evaluate: true } }]);
  });

  it('that had finished does not fail the run while the last checkpoint is written', () => {
    const story = new Story({ steps: 1 }).begun();
    story.run.receive(killed, story.now);
    story.say('w0', linked(2, 0));
    story.say('w0', { ...report(1), generation: 2 } as WorkerMessage);
    story.say('w0', state(1));
    const chunks = [{ index: 0, samples: 5, lossSum: 2, correct: 3 }];
    story.say('w0', { ...evaluation(1, chunks), generation: 2 } as WorkerMessage);
    story.say('w0', finished(1, DIGEST_A, 2));
    story.run.receive(closed('w0'), story.now);
    expect(story.run.receive(killedToo, story.now)).toEqual([]);
    expect(kinds(story.run.receive({ kind: 'tick' }, story.now + 10_000))).not.toContain('end');
    const written = { kind: 'checkpoint-written', step: 1, digest: DIGEST_A, directory: 'd', seconds: 0 } as const;
    expect(story.run.receive(written, story.now).at(-1)).toEqual({ kind: 'end', outcome: 'done' });
  });

  it('and another and another: a step that is being done again is lost once', () => {
    const story = new Story({ restartLimit: 2 }).begun();
    story.steps(1, 3);
    story.run.receive(killed, story.now);
    story.run.receive(killedToo, story.now);
    story.say('w2', hello(102, 1));
    story.say('w2', ready());
    const first = story.run.generation;
    story.say('w2', linked(first, 0));
    expect(story.run.stepsLost).toBe(3);
    story.say('w2', { ...report(1), generation: first } as WorkerMessage);
    story.say('w3', hello(103, 0));
    story.say('w3', ready());
    story.say('w3', linked(first + 1, 0));
    story.say('w2', linked(first + 1, 1, DIGEST_A));
    expect(story.run.stepsLost).toBe(3);
  });

  it('below the minimum while the run stops: who is left is not waited with', () => {
    const story = new Story({ minWorkers: 2 }).begun();
    story.run.receive(closed('w1'), story.now);
    story.run.receive({ kind: 'stop-requested', because: 'Ctrl-C' }, story.now);
    expect(story.say('w0', linked(2, 0)).at(-1)).toEqual({ kind: 'end', outcome: 'stopped' });
  });

  it('takes steps with it that are done again: a run that is stopped meanwhile is not done', () => {
    const story = new Story({ restartLimit: 1 }).begun();
    story.steps(1, 6);
    story.run.receive(killed, story.now);
    story.run.receive(killedToo, story.now);
    story.say('w2', hello(102, 1));
    story.say('w2', ready());
    const { generation } = story.run;
    story.say('w2', linked(generation, 0));
    story.run.receive({ kind: 'stop-requested', because: 'Ctrl-C' }, story.now);
    story.say('w2', { ...report(1), generation } as WorkerMessage);
    const effects = story.say('w2', { ...finished(1, DIGEST_A, generation), because: 'stopped' } as WorkerMessage);
    expect(effects.at(-1)).toEqual({ kind: 'end', outcome: 'stopped' });
  });

  it('that was silent and ends when it learns of it is started anew, also before training has begun', () => {
    const story = new Story({ restartLimit: 1 });
    story.say('w0', hello(100, 0));
    story.say('w1', hello(101, 1));
    story.run.receive(closed('w1'), 0);
    story.run.receive({ kind: 'tick' }, 10_000);
    const itself = { ...killed, end: { ...end, exitCode: 1, signal: null } };
    expect(kinds(story.run.receive(itself, 20_000))).toContain('start-worker');
  });

  it('is the last one: a supervised run whose processes are all gone for good has failed', () => {
    const story = new Story().begun();
    story.run.receive(killed, story.now);
    expect(kinds(story.run.receive({ ...killed, pid: 100, localRank: 0 }, story.now))).toContain('end');
    expect(story.run.rootCause).toMatchObject({ who: 'w1', signal: 'SIGKILL' });
  });

  it('is counted once, whether its link or its process is seen to end first', () => {
    for (const order of [
      [killed, closed('w1')],
      [closed('w1'), killed],
    ]) {
      const story = new Story().begun();
      for (const input of order) story.run.receive(input, story.now);
      expect(story.run.workersLost).toBe(1);
      expect(story.run.phase).toBe('training');
    }
  });

  it('does not matter once all have finished; until then the others may lack what it sent last', () => {
    const early = new Story({ steps: 1 }).begun();
    early.say('w1', finished(1));
    expect(kinds(early.run.receive(closed('w1'), 0))).toContain('send generation to w0');

    const story = new Story({ steps: 1 }).begun();
    story.steps(1, 1);
    story.say('w0', state(1));
    for (const w of ['w0', 'w1']) story.say(w, finished(1));
    expect(story.run.receive(closed('w1'), 0)).toEqual([]);
    expect(story.run.receive(killed, 0)).toEqual([]);
  });

  it('fails the run when it ends by itself before it has joined; one that is killed is started anew', () => {
    const story = new Story({ restartLimit: 1 });
    expect(kinds(story.run.receive({ ...killed, pid: 54 }, 0))).toContain('start-worker');
    const itself = { ...end, exitCode: 1, signal: null };
    expect(kinds(story.run.receive({ ...killed, pid: 55, end: itself }, 0))).toContain('end');
    expect(story.run.rootCause?.who).toBe('worker process 1');
  });
});

describe('a straggler', () => {
  const slow = { data: 0, compute: 0.5, allreduce: 0.1, apply: 0, wait: 0 };
  const waiting = { data: 0, compute: 0.2, allreduce: 0.1, apply: 0, wait: 0.3 };
  const tell = (story: Story, steps: number): void => {
    for (let step = 1; step <= steps; step++) {
      story.say('w0', report(step, { phases: slow }));
      story.say('w1', report(step, { phases: waiting }));
    }
  };
  const three = (stragglerLimit: number): Story => {
    const story = new Story({ workers: 3, microbatches: 2, stragglerLimit, steps: 100 });
    for (const [i, w] of ['w0', 'w1', 'w2'].entries()) story.say(w, hello(100 + i, i));
    for (const w of ['w0', 'w1', 'w2']) story.say(w, ready());
    story.link(1, 0);
    return story;
  };
  const tick = (story: Story): Effect[] => story.run.receive({ kind: 'tick' }, story.now);

  it('makes room for a spare after the step in flight, once enough steps have shown it', () => {
    const story = three(0.4);
    tell(story, 19);
    expect(tick(story)).toEqual([]);
    story.say('w0', report(20, { phases: slow }));
    story.say('w1', report(20, { phases: waiting }));
    const effects = tick(story);
    expect(kinds(effects)).toEqual(['tell warning', 'journal', 'send generation to w1', 'send generation to w2']);
    expect(flat(effects).find((e) => e.kind === 'send')).toMatchObject({ message: { graceful: true } });
    expect(story.run.workers.get('w0')?.state).toBe('spare');
    expect(story.run.workersLost).toBe(0);
    story.link(2, 20);
    // Not swapped back: the new membership is judged by its own steps.
    expect(tick(story)).toEqual([]);
  });

  it('stays where nobody asked for that, or waits for it less', () => {
    for (const limit of [0, 0.6]) {
      const story = three(limit);
      tell(story, 30);
      expect(tick(story)).toEqual([]);
    }
  });
});

describe('microbatches of the step in flight', () => {
  /** Three workers with two, three and three of eight, training; each of their steps took so long. */
  function three(seconds: number, change: Parameters<typeof options>[0] = {}): Story {
    const story = new Story({ workers: 3, microbatches: 8, ...change });
    for (let i = 0; i < 3; i++) story.say(`w${i}`, hello(100 + i, i));
    for (let i = 0; i < 3; i++) story.say(`w${i}`, ready());
    story.link(1, 0);
    const phases = { data: seconds / 2, compute: seconds / 2, allreduce: 0, apply: 0, wait: 0 };
    for (let i = 0; i < 3; i++) story.say(`w${i}`, report(1, { phases }));
    return story;
  }
  const lose = (story: Story, worker: string): Effect[] =>
    story.run.receive({ kind: 'disconnected', worker, because: 'closed' }, story.now);
  const sharesOf = (effects: readonly Effect[]): unknown[] =>
    flat(effects).flatMap((e) => {
      if (e.kind === 'journal' && e.record.kind === 'generation')
        return ['shares' in e.record ? e.record.shares : null];
      if (e.kind === 'send' && e.message.kind === 'generation') return [e.message.shares ?? null];
      return [];
    });

  it('stay whose they are when a member is lost in a step that takes long, for that step', () => {
    const story = three(0.12);
    const kept = [
      [0, 1, 5, 6],
      [2, 3, 4, 7],
    ];
    expect(sharesOf(lose(story, 'w2'))).toEqual([kept, kept, kept]);
    const begun = story.link(2, 1);
    // Once it has begun the next generation waits for the end of the step.
    expect(kinds(begun).filter((kind) => /begin|generation to/.test(kind))).toEqual([
      'send begin to w0',
      'send begin to w1',
      'send generation to w0',
      'send generation to w1',
    ]);
    expect(sharesOf(begun)).toEqual([null, null, null]);
    expect(flat(begun).findLast((e) => e.kind === 'send')).toMatchObject({
      message: { generation: 3, graceful: true },
    });
    expect(kinds(story.link(3, 2)).filter((kind) => kind.startsWith('send generation'))).toEqual([]);
  });

  it('stay whose they are, and a spare gets those of the lost', () => {
    const story = new Story({ workers: 3, microbatches: 8, maxWorkers: 2 });
    for (let i = 0; i < 3; i++) story.say(`w${i}`, hello(100 + i, i));
    for (let i = 0; i < 3; i++) story.say(`w${i}`, ready());
    story.link(1, 0);
    for (const id of ['w0', 'w1']) story.say(id, report(1));
    const kept = [
      [4, 5, 6, 7],
      [0, 1, 2, 3],
    ];
    expect(sharesOf(lose(story, 'w0'))).toEqual([kept, kept, kept]);
    // As even a cut as any: it may stay.
    expect(sharesOf(story.link(2, 1))).toEqual([]);
  });

  it('are shared out evenly at once where steps are short, gradients are compressed, or nobody is left of before', () => {
    expect(sharesOf(lose(three(0.09), 'w2'))).toEqual([null, null, null]);
    expect(sharesOf(lose(three(0.12, { gradientCompression: 'bf16' }), 'w2'))).toEqual([null, null, null]);
    const story = three(0.12);
    for (const id of ['w0', 'w1', 'w2']) lose(story, id);
    story.say('w3', hello(104, 0));
    expect(sharesOf(story.say('w3', ready()))).toEqual([null, null]);
  });

  it('are not shared out anew for a last step', () => {
    const story = three(0.12, { steps: 2 });
    lose(story, 'w2');
    expect(kinds(story.link(2, 1)).filter((kind) => kind.startsWith('send generation'))).toEqual([]);
  });
});

describe('a lost link between two workers that live', () => {
  const interrupted = (generation: number, peer: number): WorkerMessage => ({
    kind: 'interrupted',
    generation,
    step: 0,
    computed: 2,
    peer,
    code: 'E_PEER_LOST',
    because: 'the link to rank 1 is lost',
  });

  it('makes all link up again, once it is sure that nobody has died', () => {
    const story = new Story().begun();
    expect(story.say('w0', interrupted(1, 1))).toEqual([]);
    expect(story.run.receive({ kind: 'tick' }, story.now + SUSPICION_MS - 1)).toEqual([]);
    const effects = story.run.receive({ kind: 'tick' }, story.now + SUSPICION_MS);
    expect(kinds(effects)).toEqual(['journal', 'send generation to w0', 'send generation to w1']);
    expect(story.run.workersLost).toBe(0);
    expect(story.run.microbatchesRecomputed).toBe(2);
  });

  it('is forgotten when the one at its other end is found dead', () => {
    const story = new Story().begun();
    story.say('w0', interrupted(1, 1));
    story.run.receive({ kind: 'disconnected', worker: 'w1', because: 'closed' }, story.now);
    expect(kinds(story.run.receive({ kind: 'tick' }, story.now + SUSPICION_MS))).not.toContain('send generation to w0');
  });

  it('sends the accused away when it happens again and again without a step', () => {
    const story = new Story({ workers: 2 }).begun();
    for (let generation = 1; generation <= 3; generation++) {
      story.say('w0', interrupted(generation, 1));
      story.now += SUSPICION_MS;
      story.run.receive({ kind: 'tick' }, story.now);
      story.link(generation + 1, 0);
    }
    story.say('w0', interrupted(4, 1));
    const effects = story.run.receive({ kind: 'tick' }, story.now + SUSPICION_MS);
    expect(kinds(effects)).toContain('send refused to w1');
    expect(story.run.members().map((w) => w.id)).toEqual(['w0']);
  });
});

describe('the coordinator’s own failure', () => {
  const failure = {
    kind: 'coordinator-failed',
    host: 'h',
    pid: 9,
    code: 'E_NATS_LOST',
    message: 'the server is gone',
  } as const;

  it('ends the run at once with itself as the root cause, whatever its workers say of it later', () => {
    const story = new Story().begun();
    const effects = story.run.receive(failure, story.now);
    expect(kinds(effects)).toContain('end');
    expect(story.run.phase).toBe('failed');
    expect(story.run.rootCause).toMatchObject({ who: 'coordinator', host: 'h', pid: 9, code: 'E_NATS_LOST' });
    expect(story.run.receive({ kind: 'disconnected', worker: 'w0', because: 'closed' }, story.now)).toEqual([]);
    expect(story.run.workersLost).toBe(0);
  });
});

describe('the view', () => {
  const place = { pid: 9, host: 'h', startedAtMs: 0, nowMs: 2000, alarms: [] };

  it('counts epochs from 1 and stays in an epoch until the next one has a step', () => {
    const story = new Story().begun();
    expect(viewOf(story.run, place)).toMatchObject({
      epoch: 1,
      epochStep: 0,
      epochSteps: 3,
      step: 0,
      steps: 6,
      loss: null,
    });
    story.steps(1, 3);
    expect(viewOf(story.run, place)).toMatchObject({ epoch: 1, epochStep: 3, phase: 'evaluating' });
    story.evaluate(3);
    story.steps(4, 4);
    expect(viewOf(story.run, place)).toMatchObject({ epoch: 2, epochStep: 1, phase: 'training', accuracy: 0.25 });
  });

  it('estimates what is left from the speed of the last steps, the first of a generation left out', () => {
    const story = new Story().begun();
    story.say('w0', report(1, { seconds: 100 }));
    expect(viewOf(story.run, place).secondsLeft).toBeNull();
    story.say('w0', report(2));
    expect(viewOf(story.run, place)).toMatchObject({ imagesPerSecond: 8, secondsLeft: 2 });
  });
});

describe('workers that lie', () => {
  /** A guest of a run that trains: no launcher has its process. */
  const guest = (story: Story): void => {
    story.steps(1, 2);
    story.say('w2', { ...hello(200, 0), localRank: null } as WorkerMessage);
  };
  const others = (story: Story): unknown[] => story.run.members().map(({ id, rank, state: now }) => [id, rank, now]);
  const UNHARMED = [
    ['w0', 0, 'training'],
    ['w1', 1, 'training'],
  ];

  it.each<[string, WorkerMessage, string]>([
    ['reports a step of a generation that it is not in', report(3), '"report" of generation 1, and it was in none'],
    ['reports a step of no generation', { ...report(3), generation: 0 } as WorkerMessage, 'and it was in none'],
    ['tells an evaluation that was not asked of it', { ...evaluation(2, []), generation: 0 } as WorkerMessage, 'none'],
    ['is linked in a generation that has not been', linked(9), '"linked" of generation 9, and the newest is 1'],
    ['has finished', finished(6, DIGEST_A, 1), '"finished" of generation 1, and it was in none'],
  ])('one that %s is sent away with E_PROTOCOL, and nobody else is disturbed', (_, lie, why) => {
    const story = new Story().begun();
    guest(story);
    const effects = story.say('w2', lie);
    const because = expect.stringContaining(why) as string;
    expect(effects).toContainEqual({ kind: 'disconnect', worker: 'w2', code: 'E_PROTOCOL', because });
    expect(kinds(effects).filter((kind) => kind.startsWith('send generation'))).toEqual([]);
    expect(others(story)).toEqual(UNHARMED);
    expect(story.run.step).toBe(2);
  });

  it('a member that speaks of a generation to come goes, and the others go on', () => {
    const story = new Story().begun();
    story.steps(1, 2);
    const effects = story.say('w1', { ...report(3), generation: 2 } as WorkerMessage);
    expect(effects).toContainEqual(expect.objectContaining({ kind: 'disconnect', worker: 'w1', code: 'E_PROTOCOL' }));
    expect(story.run.members().map(({ id }) => id)).toEqual(['w0']);
  });

  it.each([
    ['another engine', { fingerprint: DIGEST_B }, 'E_FINGERPRINT'],
    ['other weights', { weightsDigest: DIGEST_A }, 'E_DIGEST'],
  ])(
    'a guest with %s is refused, before training begins as well; the launcher’s own would end the run',
    (_, lie, code) => {
      for (const isEarly of [true, false]) {
        const story = new Story();
        if (isEarly) {
          story.say('w0', hello(100, 0));
          story.say('w0', ready());
          story.say('w2', { ...hello(200, 0), localRank: null } as WorkerMessage);
        } else guest(story.begun());
        const effects = story.say('w2', ready(lie));
        expect(effects).toContainEqual(expect.objectContaining({ kind: 'disconnect', worker: 'w2', code }));
        expect([story.run.workersLost, story.run.rootCause]).toEqual([0, null]);
      }
    },
  );

  it('guests that fail, one after the other, do not end the run of those who do not', () => {
    const story = new Story().begun();
    story.steps(1, 2);
    for (const id of ['w2', 'w3', 'w4']) {
      story.say(id, { ...hello(200, 0), localRank: null } as WorkerMessage);
      story.say(id, { kind: 'failed', code: 'E_NOT_FINITE', message: 'NaN', stack: '' });
    }
    story.say('w1', { kind: 'failed', code: 'E_TRAINING', message: 'an accident', stack: '' });
    expect(story.run.phase).toBe('training');
    expect(story.run.members().map(({ id }) => id)).toEqual(['w0']);
  });
});
