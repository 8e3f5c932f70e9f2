// Loss, accuracy and confusion matrix of some weights on a whole test set, in one process.

import type { DataSet } from '../jobs/contract.ts';
import { chunkCount } from './data/evaluation-chunks.ts';
import type { Engine } from './engine/engine.ts';
import { evaluateChunk } from './train.ts';

export interface TestResult {
  readonly samples: number;
  /** Mean over the samples, summed in the chunks' order as a run's coordinator does. */
  readonly loss: number;
  readonly correct: number;
  /** counts[true class][predicted class]. */
  readonly confusion: readonly (readonly number[])[];
  /** Of each sample, in order: its true class and what the model said. */
  readonly said: readonly { readonly label: number; readonly predicted: number }[];
}

export async function evaluateWeights(engine: Engine, data: DataSet, weights: Float32Array): Promise<TestResult> {
  engine.loadWeights(weights);
  const samples = data.test.size;
  const confusion = data.classes.map(() => data.classes.map(() => 0));
  const said: { label: number; predicted: number }[] = [];
  let lossSum = 0;
  let correct = 0;
  for (let chunk = 0; chunk < chunkCount(samples); chunk++) {
    const { labels, result } = await evaluateChunk(engine, data.test, data.inputShape, samples, chunk);
    lossSum += result.lossSum;
    correct += result.correct;
    for (const [i, label] of labels.entries()) {
      const row = confusion[label];
      const predicted = result.predictions[i] ?? 0;
      said.push({ label, predicted });
      if (row !== undefined) row[predicted] = (row[predicted] ?? 0) + 1;
    }
  }
  return { samples, loss: lossSum / samples, correct, confusion, said };
}
