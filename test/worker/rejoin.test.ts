// A worker and its coordinators, who come and go: what is said to the next one.

import { expect, it } from 'vitest';
import { LockstepError } from '../../protocol/errors.ts';
import type { CoordinatorMessage, StepReport, WorkerMessage } from '../../protocol/messages.ts';
import type { RunConfig } from '../../protocol/run-config.ts';
import type { ControlLink } from '../../worker/control-link.ts';
import { keepJoined } from '../../worker/rejoin.ts';

const CONFIG = { run: 'r' } as RunConfig;
const HELLO = {
  kind: 'hello',
  protocol: 7,
  lockstep: '0',
  node: 'v20',
  host: 'h',
  pid: 1,
  localRank: null,
} as const;
const READY = { kind: 'ready' } as WorkerMessage;
const STANDING = { worker: 'w1', generation: 2, worldSize: 2, step: 4 };
const LOST = new LockstepError('E_COORDINATOR_LOST', 'gone');

/** A coordinator's end: it answers a hello by `answer`. */
class Far {
  readonly said: WorkerMessage[] = [];
  isReleased = false;
  handler: (message: CoordinatorMessage) => void = () => {};
  die: (error: LockstepError) => void = () => {};
  readonly link: ControlLink;

  constructor(answer?: CoordinatorMessage) {
    this.link = {
      send: (message) => this.said.push(message),
      drained: async () => {},
      next: async () => answer ?? Promise.reject(LOST),
      listen: (handler) => {
        this.handler = handler;
      },
      closed: new Promise((resolve) => {
        this.die = resolve;
      }),
      close: async () => {
        this.isReleased = true;
      },
      localAddress: null,
    };
  }
}

const welcome = (step: number, config = CONFIG, term = 3): CoordinatorMessage => ({
  kind: 'welcome',
  protocol: 7,
  worker: 'w7',
  config,
  step,
  term,
});

const report = (generation: number, ...steps: number[]): WorkerMessage => ({
  kind: 'report',
  generation,
  steps: steps.map((step) => ({ step }) as StepReport),
  links: [],
});
const evaluation = (step: number): WorkerMessage =>
  ({ kind: 'evaluation', generation: 2, step }) as Extract<WorkerMessage, { kind: 'evaluation' }>;

function joined(first: Far, ...next: (Far | LockstepError)[]): ReturnType<typeof keepJoined> {
  return keepJoined({
    first: first.link,
    connect: async () => {
      const one = next.shift() ?? LOST;
      if (one instanceof LockstepError) throw one;
      return one.link;
    },
    hello: HELLO,
    term: 3,
    termProof: undefined,
    ready: async () => READY,
    config: CONFIG,
    standing: () => STANDING,
    isOrphaned: () => next.length === 0,
    log: () => {},
  });
}

it('the next coordinator is told who comes, what it has not on record, and that the worker is ready; and is heard', async () => {
  const [first, second] = [new Far(), new Far(welcome(2))];
  const control = joined(first, LOST, second, LOST);
  const heard: string[] = [];
  control.listen((message) => heard.push(message.kind));
  control.send(report(1, 1, 2));
  control.send(evaluation(2));
  control.send(report(1, 3));
  first.die(LOST);
  // While there is no coordinator nothing is lost that matters.
  control.send(report(2, 4, 5));
  control.send(evaluation(4));
  await expect.poll(() => second.said.at(-1)).toEqual(READY);
  expect(second.said).toEqual([
    { ...HELLO, rejoin: { ...STANDING, term: 3 } },
    evaluation(2),
    report(1, 3),
    report(2, 4),
    evaluation(4),
    report(2, 5),
    READY,
  ]);
  second.handler({ kind: 'stop', because: 'x' });
  control.send(report(2, 6));
  expect(second.said.at(-1)).toEqual(report(2, 6));
  expect(heard).toEqual(['stop']);
});

it('what was recorded for a timeline while there was no coordinator the next one gets, once it knows who this is', async () => {
  const trace = (generation: number): WorkerMessage => ({
    kind: 'trace',
    generation,
    spans: new Uint8Array(0),
    lost: 0,
  });
  const [first, second, third] = [new Far(), new Far(welcome(0)), new Far(welcome(0))];
  const control = joined(first, second, third, LOST);
  control.send(trace(1));
  first.die(LOST);
  await Promise.resolve();
  control.send(trace(2));
  control.send(trace(3));
  await expect.poll(() => second.said.at(-1)).toEqual(trace(3));
  expect(second.said.slice(1)).toEqual([READY, trace(2), trace(3)]);
  // It has them: nobody else gets them, too.
  second.die(LOST);
  await expect.poll(() => third.said.at(-1)).toEqual(READY);
});

it('a coordinator that knows its steps from others is told of all evaluations: it may lack this worker’s piece of an earlier one', async () => {
  const [first, second] = [new Far(), new Far(welcome(5))];
  const control = joined(first, second, LOST);
  control.send(report(2, 1, 2));
  control.send(evaluation(2));
  control.send(report(2, 3, 4));
  control.send(evaluation(4));
  control.send(report(2, 5, 6));
  first.die(LOST);
  await expect.poll(() => second.said.at(-1)).toEqual(READY);
  expect(second.said.slice(1, -1)).toEqual([evaluation(2), evaluation(4), report(2, 6)]);
});

it('a coordinator of a lower term has been replaced: it is left, and told nothing; the next is told of the highest that was joined', async () => {
  const [first, newer, older, last] = [
    new Far(),
    new Far(welcome(0, CONFIG, 5)),
    new Far(welcome(0, CONFIG, 4)),
    new Far(welcome(0, CONFIG, 6)),
  ];
  const control = joined(first, newer, older, last, LOST);
  control.send(report(2, 1));
  first.die(LOST);
  await expect.poll(() => newer.said.at(-1)).toEqual(READY);
  newer.die(LOST);
  await expect.poll(() => last.said.at(-1)).toEqual(READY);
  expect(older.said).toEqual([{ ...HELLO, rejoin: { ...STANDING, term: 5 } }]);
  expect(older.isReleased).toBe(true);
  expect(last.said[0]).toEqual({ ...HELLO, rejoin: { ...STANDING, term: 5 } });
});

it('a step that was done twice is told once, as of its last generation', async () => {
  const [first, second] = [new Far(), new Far(welcome(0))];
  const control = joined(first, second, LOST);
  control.send(report(1, 1, 2));
  control.send(report(2, 2, 3));
  first.die(LOST);
  await expect.poll(() => second.said.at(-1)).toEqual(READY);
  expect(second.said.slice(1, -1)).toEqual([report(1, 1), report(2, 2, 3)]);
});

it('a coordinator of another run, or one that refuses it, ends the worker', async () => {
  const [first, second] = [new Far(), new Far(welcome(0, { run: 'another' } as RunConfig))];
  const control = joined(first, second, LOST);
  first.die(LOST);
  expect(await control.closed).toMatchObject({ code: 'E_PROTOCOL' });

  const [third, fourth] = [new Far(), new Far({ kind: 'refused', code: 'E_PROTOCOL_VERSION', because: 'too old' })];
  const refused = joined(third, fourth, LOST);
  third.die(LOST);
  expect((await refused.closed).message).toContain('too old');
});

it('a worker that nobody watches any more does not call; what a lost link held is released', async () => {
  const first = new Far();
  const control = joined(first);
  first.die(LOST);
  expect(await control.closed).toBe(LOST);
  expect(first.isReleased).toBe(true);
});
