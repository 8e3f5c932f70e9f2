// `lockstep verify RUN --replay STEP`: computes a step again, from the checkpoint before it, and compares with what is on record, bit for
// bit: each step's loss, accuracy and norm of the gradient on the way, and the weights' digest after the last where one is known.

import { join } from 'node:path';
import { latestCheckpointBefore, type Finding, type RecordedRun, type RunAccount } from '../coordinator/main.ts';
import { LockstepError } from '../protocol/errors.ts';
import type { StepReport } from '../protocol/messages.ts';
import { replaySteps } from '../worker/main.ts';
import { loadJob, resolveReference } from './job-file.ts';
import { openEngine } from './open-engine.ts';
import { dataSetDirectory } from './setup/dataset.ts';
import { setUp } from './setup/steps.ts';

/** Returns what came to other bits; says on stdout what did not. Throws E_USAGE, E_NO_CHECKPOINT, E_JOB_CHANGED, and what opening the engine throws. */
export async function replay(
  directory: string,
  run: RecordedRun,
  account: RunAccount,
  step: number,
): Promise<Finding[]> {
  const { history } = account;
  if (step > history.steps) {
    throw new LockstepError('E_USAGE', `--replay ${step}: the run in ${directory} has done ${history.steps} steps`, {
      remedy: `Give a step from 1 to ${history.steps}.`,
    });
  }
  const from = await latestCheckpointBefore(directory, step);
  const begun = from?.step ?? 0;
  const { config, after } = history.spans.findLast((span) => span.after < step) ?? history.spans[0] ?? noBeginning();
  const earlier = history.spans.findLast((span) => span.after <= begun) ?? history.spans[0];
  if (begun < after && earlier !== undefined && earlier.config.job.sha256 !== config.job.sha256) {
    throw new LockstepError(
      'E_NO_CHECKPOINT',
      `the job was changed after step ${after}, and no checkpoint from there to step ${step - 1} is left`,
      { remedy: `Replay a step up to ${after} with the job as it was, or keep more checkpoints.` },
    );
  }
  const job = await loadJob(resolveReference(config.job));
  if (job.reference.sha256 !== config.job.sha256) {
    throw new LockstepError('E_JOB_CHANGED', `the job at ${job.path} is not the one that step ${step} was done with`, {
      remedy: 'Restore the job file.',
    });
  }
  await setUp({ dataSet: job.definition.data, engine: config.engine });
  const engine = await openEngine(job.definition, config);
  const data = job.definition.data.open(dataSetDirectory(job.definition.data));
  const where = from === null ? 'the initial weights' : join('checkpoints', `step-${begun}`);
  const { name, library, device } = engine.info;
  process.stdout.write(
    `\n  replay         from ${where}, steps ${begun + 1} to ${step}, on ${name}: ${library} on ${device}\n`,
  );
  const reports: StepReport[] = [];
  const digest = await replaySteps({
    job: job.definition,
    engine,
    data,
    config,
    from,
    to: step,
    onStep: (report) => reports.push(report),
  });
  engine.close();
  data.train.close?.();
  data.test.close?.();
  const wrong = compare(run, account, reports, { step, digest });
  const last = reports.at(-1);
  if (wrong.length === 0 && last !== undefined) {
    const known = account.digests.has(step) ? `digest ${digest} and loss` : 'no digest on record; loss';
    process.stdout.write(`  step ${step}`.padEnd(17) + `${known} ${last.lossSum / last.samples}, as recorded\n`);
  }
  return wrong;
}

function noBeginning(): never {
  throw new LockstepError('E_RECORD_DAMAGED', 'journal.jsonl does not say what the run is', {
    remedy: 'Without its first record no step can be computed again.',
  });
}

function compare(
  run: RecordedRun,
  account: RunAccount,
  reports: readonly StepReport[],
  end: { readonly step: number; readonly digest: string },
): Finding[] {
  const wrong: Finding[] = [];
  const tell = (file: string, line: number | null, message: string): void => {
    wrong.push({ code: 'E_RECORD_REPLAY', file, line, message });
  };
  const finite = (x: number): number | null => (Number.isFinite(x) ? x : null);
  for (const { step, lossSum, samples, correct, gradientNorm } of reports) {
    const recorded = run.metrics.find((line) => line.step === step);
    if (recorded === undefined) continue;
    const numbers = [
      ['loss', finite(lossSum / samples), recorded.loss],
      ['accuracy', finite(correct / samples), recorded.accuracy],
      ['norm of the gradient', finite(gradientNorm), recorded.gradientNorm],
    ] as const;
    for (const [what, now, then] of numbers) {
      if (now !== then)
        tell('metrics.jsonl', recorded.line, `step ${step} comes to the ${what} ${now}, and ${then} is on record`);
    }
    // What follows the first is a consequence.
    if (wrong.length > 0) return wrong;
  }
  const claim = account.digests.get(end.step);
  if (claim !== undefined && claim.digest !== end.digest)
    tell(
      claim.file,
      claim.line,
      `step ${end.step} comes to weights of the digest ${end.digest}, and ${claim.digest} is on record`,
    );
  return wrong;
}
