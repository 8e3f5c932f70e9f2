// `lockstep evaluate RUN`: loss, accuracy and confusion matrix of a run's last checkpoint on the test set, in this process.

import { latestCheckpoint } from '../coordinator/record/checkpoint.ts';
import { LockstepError } from '../protocol/errors.ts';
import { chunkCount } from '../worker/data/evaluation-chunks.ts';
import { engineEnvironment } from '../worker/engine/environment.ts';
import { openEngine } from '../worker/engine/tensorflow.ts';
import { evaluateChunk } from '../worker/train.ts';
import { loadJob, resolveReference } from './job-file.ts';
import { dataSetDirectory } from './setup/dataset.ts';
import { setUp } from './setup/steps.ts';
import { findTensorflow } from './setup/tensorflow.ts';
import { confusionText } from './terminal/confusion.ts';
import { percent } from './terminal/text.ts';

export async function evaluate(runDirectory: string): Promise<number> {
  const { checkpoint, directory, damaged } = await latestCheckpoint(runDirectory);
  for (const message of damaged) process.stderr.write(`warning: ${message}; the one before it is used\n`);
  const { config } = checkpoint;
  const job = await loadJob(resolveReference(config.job));
  if (job.reference.sha256 !== config.job.sha256) {
    throw new LockstepError('E_JOB_CHANGED', `the job at ${job.path} is not the one that ${runDirectory} was trained with`, {
      remedy: 'Restore the job file.',
    });
  }
  await setUp({ dataSet: job.definition.data });
  for (const [name, value] of Object.entries(engineEnvironment(1))) process.env[name] = value;
  const { bindingPath, libraryVersion } = findTensorflow();
  const engine = await openEngine({ job: job.definition, bindingPath, libraryVersion, seed: config.seed, precision: 'float32' });
  const weights = checkpoint.vectors.find((v) => v.name === 'weights')?.data ?? new Float32Array(0);
  engine.loadWeights(weights);
  const data = job.definition.data.open(dataSetDirectory(job.definition.data));
  const samples = data.test.size;
  const confusion = data.classes.map(() => data.classes.map(() => 0));
  let lossSum = 0;
  let correct = 0;
  for (let chunk = 0; chunk < chunkCount(samples); chunk++) {
    const { labels, result } = evaluateChunk(engine, data.test, data.inputShape, samples, chunk);
    lossSum += result.lossSum;
    correct += result.correct;
    for (const [i, label] of labels.entries()) {
      const row = confusion[label];
      const predicted = result.predictions[i] ?? 0;
      if (row !== undefined) row[predicted] = (row[predicted] ?? 0) + 1;
    }
  }
  engine.close();
  data.train.close?.();
  data.test.close?.();
  process.stdout.write(
    [
      `${job.definition.name} after step ${checkpoint.step} (${directory})`,
      `engine         ${engine.info.name}: ${engine.info.library} on ${engine.info.device}`,
      `test set       ${job.definition.data.name}, ${samples} samples`,
      `test loss      ${(lossSum / samples).toFixed(4)}`,
      `test accuracy  ${percent(correct / samples)} (${correct} of ${samples})`,
      `digest         ${checkpoint.digest}`,
      '',
      confusionText(data.classes, confusion),
      '',
    ].join('\n'),
  );
  return 0;
}
