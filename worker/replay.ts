// Computes steps of a run again, in one process and without peers: all M microbatches of each, summed in the same tree and applied by
// the same code as in training (train.ts), so that the same bits must come out, whoever computed them then.

import type { DataSet, JobDefinition } from '../jobs/contract.ts';
import { LockstepError } from '../protocol/errors.ts';
import { residualName, type StepReport } from '../protocol/messages.ts';
import { batchPlanOf, type RunConfig } from '../protocol/run-config.ts';
import { planFor } from './collective/shell/generation.ts';
import { inPlace } from './collective/shell/in-place.ts';
import { plainLoader } from './data/shell/plain-loader.ts';
import { digestOf } from './engine/digest.ts';
import type { Engine } from './engine/engine.ts';
import { stepVectorOf } from './step-vector.ts';
import { aloneContext, train, type ReplicaState } from './train.ts';

/** A checkpoint's state: weights, the optimizer's slots and, where gradients are compressed, the residuals, by name. */
export interface KeptState {
  readonly step: number;
  readonly vectors: readonly { readonly name: string; readonly data: Float32Array }[];
}

/**
 * Does the steps after `from` (null: from the initial weights) up to `to`; tells each to `onStep`. Returns the digest of the weights
 * after the last. Throws E_JOB_CHANGED where the state does not fit the job's model.
 */
export async function replaySteps(options: {
  readonly job: JobDefinition;
  readonly engine: Engine;
  readonly data: DataSet;
  readonly config: RunConfig;
  readonly from: KeptState | null;
  readonly to: number;
  readonly onStep: (report: StepReport) => void;
}): Promise<string> {
  const { job, engine, data, config, from } = options;
  const { inputShape } = data;
  const plan = batchPlanOf(config);
  const state: ReplicaState = {
    step: from?.step ?? 0,
    weights: await engine.initialWeights(config.seed),
    slots: job.optimizer.slots.map(() => new Float32Array(engine.layout.trainableSize)),
  };
  const alone = [{ rank: 0, worker: 'replay', peerUrl: '', host: 'here' }];
  const generation = { generation: 1, rank: 0, ...stepVectorOf(config, engine.layout) };
  const collective = inPlace(planFor(generation, alone), alone, new Map());
  try {
    if (from !== null) {
      take(from, 'weights', state.weights);
      for (const [i, slot] of state.slots.entries()) take(from, `slot:${job.optimizer.slots[i]}`, slot);
      for (const [m, residual] of collective.residuals) take(from, residualName(m), residual);
    }
    await train(
      {
        ...aloneContext(plan),
        steps: options.to,
        learningRate: config.learningRate,
        // Evaluations change no weight.
        testSamples: 0,
        engine,
        optimizer: job.optimizer,
        loader: plainLoader(config, job, data),
        test: data.test,
        inputShape,
        collective,
        clock: () => performance.now() / 1000,
        report: (report) => options.onStep(report),
      },
      state,
    );
    return digestOf(state.weights);
  } finally {
    await collective.close();
  }
}

function take(from: KeptState, name: string, into: Float32Array): void {
  const found = from.vectors.find((vector) => vector.name === name)?.data;
  if (found?.length !== into.length) {
    throw new LockstepError(
      'E_JOB_CHANGED',
      `the checkpoint after step ${from.step} has ${found === undefined ? 'no' : `${found.length} floats of`} ${name}; the job wants ${into.length}`,
      { remedy: 'Restore the job file that the run was trained with.' },
    );
  }
  into.set(found);
}
