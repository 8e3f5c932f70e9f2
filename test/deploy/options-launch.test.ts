// The command line of a launch, and of nodes as torchrun's users write them.

import { describe, expect, it } from 'vitest';
import { parse, refusal } from './command-line.ts';

function flagsOf(line: string, env: Record<string, string> = {}): Record<string, unknown> {
  const command = parse(line, env);
  if (!('options' in command)) throw new Error(`${command.kind} was parsed`);
  const { workers, minWorkers, maxWorkers } = command.options.flags;
  return { workers, minWorkers, maxWorkers };
}

describe('launch', () => {
  it('takes hosts, how ssh reaches them, and flags of the training, which go on to the coordinator', () => {
    const command = parse(
      'launch -H gpu1:4,gpu2:2 a-job --ssh-option User=ada --ssh-option Port=23 --epochs 3 --resume --nnodes 1:2 --host-grace 60',
      { LOCKSTEP_SSH_PORT: '22', LOCKSTEP_REMOTE_DIR: '/opt/lockstep' },
    );
    if (command.kind !== 'launch') throw new Error(`${command.kind} was parsed`);
    expect(command.launch).toEqual({
      hosts: [
        { name: 'gpu1', slots: 4, where: '-H' },
        { name: 'gpu2', slots: 2, where: '-H' },
      ],
      hostfile: undefined,
      discoveryScript: undefined,
      discoveryIntervalSeconds: 5,
      sshPort: 22,
      sshIdentityFile: null,
      sshOptions: ['User=ada', 'Port=23'],
      remoteDir: '/opt/lockstep',
      remoteNode: 'node',
      graceSeconds: 60,
      retryLimit: 10,
    });
    expect(command.args).toEqual(['a-job', '--epochs', '3', '--resume']);
    expect(command.options.flags).toMatchObject({ epochs: 3, resume: true, nnodes: { min: 1, max: 2 } });
  });

  it('may listen where others reach it: it has a token made', () => {
    expect(refusal('launch -H gpu1 a-job --listen 10.0.0.1:29400')).toBe('no refusal');
    expect(refusal('train a-job --listen 10.0.0.1:29400')).toMatch(/^E_LISTEN /);
  });

  it.each([
    [
      'a-job',
      'E_USAGE a launch needs hosts -> Give one of -H HOST:SLOTS,HOST:SLOTS, --hostfile FILE and --host-discovery-script FILE.',
    ],
    [
      'a-job -H gpu1 --hostfile f',
      'E_USAGE --hosts gpu1 and --hostfile f each name the hosts -> Give one of -H HOST:SLOTS,HOST:SLOTS, --hostfile FILE and --host-discovery-script FILE.',
    ],
    ['a-job -H gpu1:0', 'E_HOSTS -H: "gpu1:0": "0" is no number of workers -> Give a whole number from 1 to 1024.'],
    [
      'a-job -H gpu1 --workers 3',
      'E_USAGE --workers 3: a launch has as many as its hosts have slots -> Give slots, -H HOST:SLOTS, or --nproc-per-node N.',
    ],
    [
      'a-job -H gpu1 --ssh-port 0',
      'E_USAGE --ssh-port 0: it must be a whole number from 1 to 65,535 -> Change --ssh-port or leave it out.',
    ],
    [
      'a-job -H gpu1 --ssh-option yes',
      'E_USAGE --ssh-option yes: it must be NAME=VALUE -> See `man ssh_config` for the names.',
    ],
    [
      'a-job -H gpu1 --host-grace 1',
      'E_USAGE --host-grace 1: it must be a whole number from 3 to 3,600 -> Change --host-grace or leave it out.',
    ],
    [
      'a-job -H gpu1 --nnodes 2 --min-workers 2',
      'E_USAGE --nnodes 2 and --min-workers 2 both say how many workers there are -> Leave one of them out.',
    ],
  ])('refuses %s', (line, said) => {
    expect(refusal(`launch ${line}`)).toBe(said);
  });
});

describe('nodes', () => {
  it('of one machine are its workers', () => {
    expect(flagsOf('train a-job --nproc-per-node 4 --nnodes 1')).toMatchObject({ workers: 4 });
    expect(flagsOf('train a-job --nproc-per-node auto')).toMatchObject({ workers: undefined });
  });

  it('of a coordinator say how many workers are waited for, at least and at most', () => {
    expect(flagsOf('coordinator a-job --nnodes 2:4 --nproc-per-node 8')).toEqual({
      workers: 16,
      minWorkers: 16,
      maxWorkers: 32,
    });
    expect(flagsOf('coordinator a-job --nnodes 3', { LOCKSTEP_NPROC_PER_NODE: '2' })).toEqual({
      workers: 6,
      minWorkers: 6,
      maxWorkers: 6,
    });
    expect(flagsOf('coordinator a-job --nproc-per-node 2 --min-workers 1')).toMatchObject({
      workers: 2,
      minWorkers: 1,
    });
  });

  it.each([
    [
      'train a-job --nnodes 2',
      'E_USAGE --nnodes 2: `lockstep train` is on one machine -> Use `lockstep launch -H HOST1,HOST2 JOB`, or `lockstep coordinator` and `lockstep worker`.',
    ],
    [
      'train a-job --nproc-per-node 2 --workers 4',
      'E_USAGE --nproc-per-node 2 and --workers 4 both say how many workers there are -> Leave one of them out.',
    ],
    [
      'train a-job --nnodes 4:2',
      'E_USAGE --nnodes 4:2: it must be N or MIN:MAX, from 1 to 256 -> E.g. --nnodes 2, or --nnodes 1:4.',
    ],
    [
      'train a-job --nnodes 0',
      'E_USAGE --nnodes 0: it must be N or MIN:MAX, from 1 to 256 -> E.g. --nnodes 2, or --nnodes 1:4.',
    ],
    [
      'train a-job --nproc-per-node gpu',
      'E_USAGE --nproc-per-node gpu: it must be a whole number from 1 to 1,024, or auto -> Change --nproc-per-node or leave it out.',
    ],
    [
      'coordinator a-job --nnodes 2',
      'E_USAGE --nnodes 2: a coordinator does not know how many workers a machine has -> Give --nproc-per-node N, the number that each machine starts.',
    ],
    [
      'coordinator a-job --nnodes 256 --nproc-per-node 8',
      'E_USAGE --nnodes 256 --nproc-per-node 8 are 2048 workers -> There may be 1024.',
    ],
    [
      'coordinator a-job --nnodes 1:2 --nproc-per-node 2 --max-workers 4',
      'E_USAGE --nnodes 1:2 --nproc-per-node 2 and --max-workers 4 both say how many workers there are -> Leave one of them out.',
    ],
  ])('%s is refused', (line, said) => {
    expect(refusal(line)).toBe(said);
  });

  it('of a worker start so many of them', () => {
    const command = parse('worker --coordinator http://10.0.0.1:29400 --nproc-per-node auto --pin on');
    expect(command).toMatchObject({ kind: 'worker', flags: { nprocPerNode: 'auto', pin: 'on', restartLimit: 3 } });
  });

  it('the supervisor of a host is told all else by its launcher', () => {
    expect(parse('worker --launched')).toEqual({ kind: 'host' });
  });
});
