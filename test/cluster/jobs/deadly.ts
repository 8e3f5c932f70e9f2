// The tutorial's CNN whose workers kill themselves, as a fault of their own would, at exact places of a step: before they have computed
// anything of it, within its reduce-scatter and its all-gather, when a part is with one peer and not yet with the next, and after its sum
// is with everybody. Each place is deadly once: who is there first leaves a mark in LOCKSTEP_TEST_MARKS.

import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import job from '../../../jobs/cifar10-cnn.ts';
import { defineJob } from '../../../jobs/contract.ts';
import { AllReduce, type AllReduceOptions, type Send } from '../../../worker/collective/all-reduce.ts';

const marks = process.env['LOCKSTEP_TEST_MARKS'] ?? '';

function dieOnce(place: string): void {
  try {
    mkdirSync(join(marks, place));
  } catch {
    return; // somebody has
  }
  process.kill(process.pid, 'SIGKILL');
}

/** Samples that a worker reads before it dies: some 150 steps. */
const READS = 3000;
const STEP = 250;
let reads = 0;
/** From which sum of a generation on; when there are two others: one who has got its part, and one who has not. */
const WITHIN = { scatter: 20, gather: 30 } as const;

/** The step, kind, bucket and slice of the part that was sent last. */
let sentLast = '';

const deadlySend =
  (send: Send, worldSize: number): Send =>
  (to, header, payload) => {
    const { kind, step, bucket } = header;
    const isDue = kind !== 'absent' && worldSize > 2 && step >= WITHIN[kind];
    const part = `${kind} ${step} ${bucket}`;
    if (isDue && part === sentLast) dieOnce(`within-the-${kind}`);
    sentLast = part;
    send(to, header, payload);
  };

const { begin } = AllReduce.prototype;
const isDeadly = new WeakSet<AllReduce>();
AllReduce.prototype.begin = function beginDeadly(this: AllReduce): number {
  if (!isDeadly.has(this)) {
    isDeadly.add(this);
    const own = this as unknown as { options: AllReduceOptions };
    own.options = { ...own.options, send: deadlySend(own.options.send, own.options.plan.worldSize) };
  }
  return begin.call(this);
};

export default defineJob({
  ...job,
  data: {
    ...job.data,
    open: (directory) => {
      const data = job.data.open(directory);
      const read: typeof data.train.read = (index, into) => {
        if (++reads === READS) dieOnce('before-computing');
        return data.train.read(index, into);
      };
      return { ...data, train: { ...data.train, size: data.train.size, read } };
    },
  },
  optimizer: {
    ...job.optimizer,
    update: (weights, gradient, slots, step, rate) => {
      if (step === STEP) dieOnce('after-the-sum');
      job.optimizer.update(weights, gradient, slots, step, rate);
    },
  },
});
