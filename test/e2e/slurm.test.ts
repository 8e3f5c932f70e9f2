// deploy/slurm/ under Slurm itself: a job on two nodes that is preempted, signalled as its time limit would, and goes on each time.

import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, it, onTestFinished, vi } from 'vitest';
import { need, needProgram, CHECKOUT } from '../deploy/tools.ts';
import { lockstep, reportIn, Scratch } from './lockstep.ts';
import { SlurmCluster } from './slurm-cluster.ts';

const JOB = fileURLToPath(new URL('jobs/two-moons.ts', import.meta.url));
const EPOCHS = '80';
const STEPS = 16 * Number(EPOCHS);
const INSTALL = 'apt-get install slurmctld slurmd slurm-client munge';
const WAIT = { timeout: 60_000, interval: 50 };

it('a job that is preempted, and then told that its time is over, is queued again, resumes, and comes to the bits of an undisturbed run', async (context) => {
  for (const program of ['slurmctld', 'slurmd', 'sbatch', 'munged']) needProgram(context, program, INSTALL);
  need(context, process.getuid?.() === 0, "slurmd of a cluster of one's own wants root");
  const scratch = new Scratch();
  onTestFinished(() => scratch.remove());
  const cluster = await SlurmCluster.start();
  onTestFinished(async () => cluster.stop());
  const run = join(cluster.shared, 'runs', 'moons');
  const script = join(CHECKOUT, 'deploy', 'slurm', 'lockstep.sbatch');
  const size = ['--nodes=2', '--ntasks-per-node=1', `--output=${cluster.shared}/out`];
  const environment = { LOCKSTEP_HOME: CHECKOUT, LOCKSTEP_RUN_DIR: run, NO_COLOR: '1' };
  const id = cluster.ask('sbatch', ['--parsable', ...size, script, JOB, '--epochs', EPOCHS], environment).trim();

  const linesOf = (file: string): string[] => readFileSync(join(run, file), 'utf8').trim().split('\n');
  const stepsDone = (): number => (JSON.parse(linesOf('metrics.jsonl').at(-1) ?? '') as { step: number }).step;
  const untilStep = async (step: number): Promise<void> =>
    vi.waitFor(() => {
      if (stepsDone() < step) throw new Error(`at step ${stepsDone()}: ${cluster.job(id, 'JobState')}`);
    }, WAIT);
  const recorded = (...kinds: string[]): string[] =>
    linesOf('journal.jsonl').flatMap((line) => {
      const record = JSON.parse(line) as { kind: string; because?: string; step?: number };
      return kinds.includes(record.kind) ? [`${record.kind} ${record.step}`] : [];
    });
  const goOn = async (restarts: string): Promise<void> => {
    await cluster.until(id, 'Restarts', restarts);
    await cluster.until(id, 'JobState', 'PENDING');
    // Slurm lets a job wait for two minutes before it begins again, so that its nodes know that the credentials of before are void; that is
    // told by the second. Here they are asked instead.
    await cluster.untilIdle();
    cluster.ask('scontrol', ['update', `JobId=${id}`, 'StartTime=now+2']);
  };

  await untilStep(50);
  // What is more urgent takes both nodes.
  cluster.ask('srun', ['--partition=high', '--nodes=2', '--exclusive', 'true']);
  await goOn('1');
  await untilStep(stepsDone() + 50);
  // As Slurm does by --signal=B:USR1@180.
  cluster.ask('scancel', ['--signal=USR1', '--batch', id]);
  await goOn('2');
  await cluster.until(id, 'JobState', 'COMPLETED');

  // Each time it stopped after a checkpoint of the last step, and went on from there: nobody was lost on the way.
  const stops = recorded('stopped').map((text) => text.replace('stopped ', ''));
  expect(stops).toHaveLength(2);
  expect(recorded('checkpoint')).toEqual(expect.arrayContaining(stops.map((step) => `checkpoint ${step}`)));
  expect(recorded('begin')).toEqual(['begin 0', ...stops.map((step) => `begin ${step}`)]);
  expect(recorded('lost')).toEqual([]);
  const report = reportIn(run);
  expect(report).toMatchObject({ state: 'done', steps: STEPS, stepsLost: 0, workersLost: 0, reproducible: true });
  const alone = lockstep([
    'train',
    JOB,
    '--epochs',
    EPOCHS,
    '--workers',
    '1',
    '--listen',
    '127.0.0.1:0',
    '--run-dir',
    scratch.dir('alone'),
  ]);
  expect((await alone.ended).code).toBe(0);
  expect(report.digest).toBe(reportIn(scratch.dir('alone')).digest);

  // The same line once more finds nothing to do, and that is no failure.
  const again = ['coordinator', JOB, '--auto-resume', '--run-dir', run, '--listen', '127.0.0.1:0'];
  const { code, stdout } = await lockstep(again).ended;
  expect([code, stdout.replaceAll(/\s+/g, ' ')]).toEqual([
    0,
    expect.stringContaining(`has done its ${STEPS} steps: nothing is left to do`),
  ]);

  // Three times two tasks, each a worker on its node, over TLS; what they show is for its owner alone.
  const secrets = join(run, 'secrets');
  expect(readdirSync(secrets).map((name) => [name, statSync(join(secrets, name)).mode & 0o777])).toEqual([
    ['cert.pem', 0o600],
    ['key.pem', 0o600],
    ['token', 0o600],
  ]);
  const logs = ['worker-0.log', 'worker-1.log'].map((name) => readFileSync(join(run, 'logs', name), 'utf8'));
  expect(logs.map((text) => text.match(/^joined run moons as /gm)?.length)).toEqual([3, 3]);
  expect(readFileSync(join(cluster.shared, 'out'), 'utf8')).toContain('listening  https://127.0.0.1:');
});
