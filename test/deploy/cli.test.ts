// The command as a process: exit codes, and what goes to which stream.

import { spawn } from 'node:child_process';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { mkdirSync, mkdtempSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { GATHERING } from './terminal/a-run.ts';

const HERE = import.meta.dirname;
const TSX = import.meta.resolve('tsx');

interface Ended {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

let place = '';
beforeAll(() => {
  place = mkdtempSync(join(realpathSync(tmpdir()), 'lockstep-cli-'));
});
afterAll(() => rmSync(place, { recursive: true, force: true }));

/** Runs `lockstep` in a directory of its own, with no LOCKSTEP_ variables but those given. */
async function lockstep(args: readonly string[], env: Readonly<Record<string, string>> = {}): Promise<Ended> {
  const inherited = Object.entries(process.env).filter(
    ([name]) => !/^(LOCKSTEP_|npm_|NO_COLOR|FORCE_COLOR)/.test(name),
  );
  const child = spawn(process.execPath, ['--import', TSX, join(HERE, 'cli-process.ts'), ...args], {
    cwd: place,
    env: { ...Object.fromEntries(inherited), ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const code = new Promise<number | null>((resolve) => {
    child.on('close', resolve);
  });
  const [stdout, stderr] = await Promise.all([text(child.stdout), text(child.stderr)]);
  return { code: await code, stdout, stderr };
}

describe('bad input ends with code 2, one error on stderr, and nothing on stdout', () => {
  test('a flag', async () => {
    expect(await lockstep(['train', 'cifar10-cnn', '--workers', '0'])).toEqual({
      code: 2,
      stdout: '',
      stderr:
        'lockstep: E_USAGE: --workers 0: it must be a whole number from 1 to 1,024\n  -> Change --workers or leave it out.\n',
    });
  });

  test('a variable', async () => {
    expect(await lockstep(['train', 'cifar10-cnn'], { LOCKSTEP_TRANSPORT: 'tcp' })).toEqual({
      code: 2,
      stdout: '',
      stderr:
        'lockstep: E_USAGE: LOCKSTEP_TRANSPORT=tcp: it must be one of ws, nats\n  -> Change LOCKSTEP_TRANSPORT or leave it out.\n',
    });
  });

  test('a run to verify that is not there', async () => {
    const { code, stderr } = await lockstep(['verify', 'runs/x']);
    expect(code).toBe(2);
    expect(stderr).toMatch(
      /^lockstep: E_RUN_NOT_FOUND: there is no run in \S+runs\/x: it has no journal\.jsonl\n {2}-> /,
    );
  });

  test('as an object, where logs are JSON', async () => {
    const { code, stdout, stderr } = await lockstep(['train', 'j', '--seed', '-1', '--log-format', 'json']);
    expect([code, stdout]).toEqual([2, '']);
    expect(JSON.parse(stderr)).toMatchObject({
      level: 'error',
      kind: 'error',
      code: 'E_USAGE',
      msg: '--seed -1: it must be a whole number of at least 0',
      remedy: 'Change --seed or leave it out.',
    });
  });

  test('in colour only when that is forced', async () => {
    const { stderr } = await lockstep(['bogus'], { FORCE_COLOR: '1' });
    expect(stderr).toContain('\u001B[31m');
  });
});

test('a job file that throws starts nothing: code 2, its own error and line, no run directory', async () => {
  writeFileSync(join(place, 'bad-job.mjs'), "\n\nthrow new RangeError('too many layers');\n");
  const { code, stderr } = await lockstep(['coordinator', './bad-job.mjs', '--run-dir', 'a-run']);
  expect(code).toBe(2);
  expect(stderr).toContain(
    `lockstep: E_JOB_INVALID: the job file ${join(place, 'bad-job.mjs')}:3 cannot be loaded: RangeError: too many layers\n`,
  );
  const again = await lockstep(['status']);
  expect(again.stderr).toContain('E_RUN_NOT_FOUND');
});

test('help and version end well on stdout', async () => {
  const help = await lockstep(['--help']);
  expect([help.code, help.stderr]).toEqual([0, '']);
  expect(help.stdout).toContain('\nCommands:\n  train [options] <job> ');
  const version = await lockstep(['--version']);
  expect([version.code, version.stderr]).toEqual([0, '']);
  expect(version.stdout).toMatch(/^\d+\.\d+\.\d+\n$/);
});

describe('status', () => {
  let server: Server;
  let url = '';
  const asked: (string | undefined)[] = [];
  beforeAll(async () => {
    server = createServer((request, response) => {
      asked.push(request.url);
      response.setHeader('content-type', 'application/json').end(JSON.stringify(GATHERING));
    });
    await new Promise<void>((resolve) => {
      server.listen(0, '127.0.0.1', resolve);
    });
    url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  });
  afterAll(() => {
    server.closeAllConnections();
    server.close();
  });

  const shown = [
    'cifar10-cnn-1 (cifar10-cnn): gathering, 1 of 2 workers ready',
    'step 0 of 7,820, generation 1, 0 workers lost',
    '  ○ w0  -  ready      box pid 4000  480 MB  CPU',
    '  ◌ w1  -  preparing  box pid 4001  480 MB  CPU',
    '',
  ].join('\n');

  test('asks the coordinator at a URL', async () => {
    expect(await lockstep(['status', url], { LANG: 'C.UTF-8', LC_ALL: '' })).toEqual({
      code: 0,
      stdout: shown,
      stderr: '',
    });
    expect(asked.at(-1)).toBe('/api/run');
  });

  test('without one, asks that of the newest run here', async () => {
    mkdirSync(join(place, 'runs', 'cifar10-cnn-20260101-000000'), { recursive: true });
    mkdirSync(join(place, 'runs', 'cifar10-cnn-20260102-000000'), { recursive: true });
    writeFileSync(join(place, 'runs/cifar10-cnn-20260102-000000/endpoint.json'), JSON.stringify({ url, pid: 1 }));
    expect((await lockstep(['status'], { LANG: 'C.UTF-8', LC_ALL: '' })).stdout).toBe(shown);
    rmSync(join(place, 'runs'), { recursive: true });
  });

  test('where nobody answers, says so', async () => {
    const { code, stdout, stderr } = await lockstep(['status', '127.0.0.1:1']);
    expect([code, stdout]).toEqual([1, '']);
    expect(stderr).toMatch(/^lockstep: E_COORDINATOR_LOST: no coordinator answers at http:\/\/127\.0\.0\.1:1\n/);
  });
});
