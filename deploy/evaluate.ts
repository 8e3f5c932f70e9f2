// `lockstep evaluate RUN`: loss, accuracy and confusion matrix of a run's last checkpoint on the test set. Done in a process of
// its own, which has the engine's environment from its start and whose library may write to stderr what it likes.

import { writeFile } from 'node:fs/promises';
import { latestCheckpoint } from '../coordinator/main.ts';
import { LockstepError } from '../protocol/errors.ts';
import { evaluateWeights } from '../worker/main.ts';
import { inEngineProcess, isEngineProcess } from './engine-process.ts';
import { loadJob, resolveReference } from './job-file.ts';
import { openEngine } from './open-engine.ts';
import { dataSetDirectory } from './setup/dataset.ts';
import { setUp } from './setup/steps.ts';
import { confusionText } from './terminal/confusion.ts';
import { percent } from './terminal/text.ts';

/** `predictions`: a file for what the model says of each sample. */
export async function evaluate(runDirectory: string, predictions: string | null): Promise<number> {
  if (isEngineProcess()) return evaluateHere(runDirectory, predictions);
  const flags = predictions === null ? [] : ['--predictions', predictions];
  return inEngineProcess(['evaluate', runDirectory, ...flags]);
}

async function evaluateHere(runDirectory: string, predictions: string | null): Promise<number> {
  const { checkpoint, directory, damaged } = await latestCheckpoint(runDirectory);
  for (const message of damaged) process.stderr.write(`warning: ${message}; the one before it is used\n`);
  const { config } = checkpoint;
  const job = await loadJob(resolveReference(config.job));
  if (job.reference.sha256 !== config.job.sha256) {
    throw new LockstepError(
      'E_JOB_CHANGED',
      `the job at ${job.path} is not the one that ${runDirectory} was trained with`,
      {
        remedy: 'Restore the job file.',
      },
    );
  }
  await setUp({ dataSet: job.definition.data, engine: config.engine });
  const engine = await openEngine(job.definition, config);
  const weights = checkpoint.vectors.find((v) => v.name === 'weights')?.data ?? new Float32Array(0);
  const data = job.definition.data.open(dataSetDirectory(job.definition.data));
  const { samples, loss, correct, confusion, said } = await evaluateWeights(engine, data, weights);
  engine.close();
  data.train.close?.();
  data.test.close?.();
  if (predictions !== null) await writeLines(predictions, said);
  process.stdout.write(
    [
      `${job.definition.name} after step ${checkpoint.step} (${directory})`,
      `engine         ${engine.info.name}: ${engine.info.library} on ${engine.info.device}`,
      `test set       ${job.definition.data.name}, ${samples} samples`,
      `test loss      ${loss.toFixed(4)}`,
      `test accuracy  ${percent(correct / samples)} (${correct} of ${samples})`,
      `digest         ${checkpoint.digest}`,
      '',
      confusionText(data.classes, confusion),
      '',
    ].join('\n'),
  );
  return 0;
}

/** Throws E_USAGE where the file can't be written. */
async function writeLines(file: string, said: readonly object[]): Promise<void> {
  try {
    await writeFile(file, said.map((one, index) => `${JSON.stringify({ index, ...one })}\n`).join(''));
  } catch (cause) {
    const because = cause instanceof Error ? cause.message : String(cause);
    throw new LockstepError('E_USAGE', `the predictions cannot be written to ${file}: ${because}`, {
      remedy: 'Give --predictions a file that can be written.',
      cause,
    });
  }
}
