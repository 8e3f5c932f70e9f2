// `lockstep evaluate RUN`: loss, accuracy and confusion matrix of a run's last checkpoint on the test set. Done in a process of
// its own, which has the engine's environment from its start and whose library may write to stderr what it likes.

import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { latestCheckpoint } from '../coordinator/main.ts';
import { LockstepError } from '../protocol/errors.ts';
import { engineEnvironment } from '../worker/engine/environment.ts';
import { evaluateWeights } from '../worker/main.ts';
import { isEngineNoise } from './engine-noise.ts';
import { loadJob, resolveReference } from './job-file.ts';
import { openEngine } from './open-engine.ts';
import { dataSetDirectory } from './setup/dataset.ts';
import { setUp } from './setup/steps.ts';
import { confusionText } from './terminal/confusion.ts';
import { percent } from './terminal/text.ts';

/** Set in the process that evaluates. */
const INSIDE = 'LOCKSTEP_EVALUATE_INSIDE';
const ENTRY = fileURLToPath(new URL('lockstep.mjs', import.meta.url));

export async function evaluate(runDirectory: string): Promise<number> {
  if (process.env[INSIDE] !== undefined) return evaluateHere(runDirectory);
  const child = spawn(process.execPath, [ENTRY, 'evaluate', runDirectory], {
    stdio: ['ignore', 'inherit', 'pipe'],
    env: { ...process.env, ...engineEnvironment(1), [INSIDE]: '1' },
  });
  const lines = createInterface({ input: child.stderr });
  lines.on('line', (line) => {
    if (!isEngineNoise(line)) process.stderr.write(`${line}\n`);
  });
  const code = await new Promise<number | null>((resolve) => {
    child.on('close', resolve);
  });
  return code ?? 1;
}

async function evaluateHere(runDirectory: string): Promise<number> {
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
  const { samples, loss, correct, confusion } = await evaluateWeights(engine, data, weights);
  engine.close();
  data.train.close?.();
  data.test.close?.();
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
