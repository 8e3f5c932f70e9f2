// The main job with TLS, by real processes: the coordinator's port, the workers' links over TCP, `status`; and each way in which the two
// sides do not fit, said by a code.

import { once } from 'node:events';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { request } from 'node:https';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { makeAuthority, makeCertificate } from '../certificates.ts';
import { lockstep, processesNaming, reportIn, Scratch, type LockstepProcess } from './lockstep.ts';

const scratch = new Scratch();
const authority = makeAuthority();
const file = (name: string, content: string): string => {
  const path = scratch.dir(name);
  writeFileSync(path, content, { mode: 0o600 });
  return path;
};
const CA = file('ca.pem', authority.cert);
const OTHER_CA = file('other-ca.pem', makeAuthority('another').cert);

/** `--tls-cert F --tls-key F` of a new certificate for `names`. */
function shows(name: string, ...names: string[]): string[] {
  const { cert, key } = makeCertificate(names, authority);
  return ['--tls-cert', file(`${name}.pem`, cert), '--tls-key', file(`${name}-key.pem`, key)];
}
const COORDINATOR = shows('coordinator', '127.0.0.1', 'localhost');

/** Whoever calls shows a certificate of the authority. */
const CLIENTS = ['--tls-client-ca', CA];

afterAll(() => scratch.remove());

const JOB = 'cifar10-cnn';
const SMALL = ['--train-samples', '1000', '--test-samples', '500', '--seed', '7', '--workers', '2'];
const HERE = ['--listen', '127.0.0.1:0'];

async function get(url: string, ca: string): Promise<string> {
  const asked = request(url, { ca });
  asked.end();
  const [response] = (await once(asked, 'response')) as [NodeJS.ReadableStream];
  return text(response);
}

async function start(
  name: string,
  command: string,
  ...flags: string[]
): Promise<{ run: LockstepProcess; url: string }> {
  const run = lockstep([command, JOB, ...SMALL, ...HERE, '--run-dir', scratch.dir(name), ...flags], {
    cwd: scratch.path,
  });
  const [, url = ''] = await run.wrote(/listening\s+(\S+)/);
  return { run, url };
}

describe('a run with TLS', () => {
  it('ends in the bits of one without: two workers with certificates of their own, which all ask for, at other addresses, over TCP; one has a token for workers alone', async () => {
    const plain = await lockstep([
      'train',
      JOB,
      ...SMALL,
      ...HERE,
      '--max-steps',
      '12',
      '--run-dir',
      scratch.dir('plain'),
    ]).ended;
    expect(plain.code).toBe(0);

    const directory = scratch.dir('tls');
    const { run, url } = await start(
      'tls',
      'coordinator',
      '--max-steps',
      '12',
      ...COORDINATOR,
      '--tls-ca',
      CA,
      ...CLIENTS,
    );
    expect(url).toMatch(/^https:\/\/127\.0\.0\.1:\d+$/);
    const [, line = ''] = await run.wrote(/workers join with:\n(.*)\n/);
    expect(line).toBe(
      `npx lockstep worker --coordinator ${url} --token-file ${directory}/token --tls-ca ${CA} ${COORDINATOR.join(' ')} ${CLIENTS.join(' ')} --job ${JOB}`,
    );
    const keyFile = join(directory, 'token');
    const ownToken = scratch.dir('worker-token');
    const made = ['token', '--token-file', keyFile, '--scope', 'work', '--expires', '10m', '--out', ownToken];
    expect(await lockstep(made).ended).toMatchObject({ code: 0, stdout: '', stderr: '' });
    const workers = Object.entries({ '127.0.0.2': keyFile, '127.0.0.3': ownToken }).map(([host, token]) =>
      lockstep([
        ...line.split(' ').slice(2, 6),
        token,
        ...CLIENTS,
        '--tls-ca',
        CA,
        ...shows(host, host),
        '--peer-listen',
        `${host}:0`,
        '--local-transport',
        'tcp',
      ]),
    );
    for (const worker of workers) expect(await worker.ended).toMatchObject({ code: 0, signal: null });
    expect((await run.ended).code).toBe(0);
    for (const [i, worker] of workers.entries())
      expect(worker.stdout).toMatch(new RegExp(`^peers reach it at wss://127\\.0\\.0\\.${2 + i}:\\d+/peer$`, 'm'));
    const report = reportIn(directory);
    expect(report.traffic).toEqual([{ transport: 'tcp', bytes: expect.any(Number) as number }]);
    expect(report.digest).toBe(reportIn(scratch.dir('plain')).digest);

    const secrets = [keyFile, ownToken].map((path) => readFileSync(path, 'utf8').trim());
    const said = [run, ...workers].map((one) => one.stdout + one.stderr).join('');
    const kept = readdirSync(directory, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile() && entry.name !== 'token')
      .map((entry) => readFileSync(join(entry.parentPath, entry.name), 'latin1'));
    expect([said, ...kept].some((one) => secrets.some((secret) => one.includes(secret)))).toBe(false);
  });

  it('is started by one command, serves everything over https, and `status` finds it without flags', async () => {
    const secret = file('secret', 'a-secret-of-the-user\n');
    const flags = ['--epochs', '50', ...shows('elsewhere', 'train.example'), '--token-file', secret];
    const { run, url } = await start('runs', 'train', ...flags, '--run-dir', scratch.dir('runs/a'));
    await run.wrote(/^\s+1\/50\s+\d/m);
    // The launcher's workers and `status` know the certificate itself: it needn't name this machine.
    const status = await lockstep(['status'], { cwd: scratch.path }).ended;
    expect([status.code, status.stderr]).toEqual([0, '']);
    expect(status.stdout).toMatch(/w0 .*rank \d/);
    const refused = await lockstep(['status', url, '--tls-ca', CA]).ended;
    expect(refused).toMatchObject({
      code: 2,
      stderr: expect.stringMatching(
        /E_TLS: the coordinator at 127\.0\.0\.1:\d+: its certificate is for other names/,
      ) as string,
    });
    const plain = await lockstep(['status', url.replace('https', 'http')]).ended;
    expect(plain).toMatchObject({ code: 2, stderr: expect.stringContaining('E_TLS') as string });
    expect(plain.stderr).toContain('speaks TLS, and was called without');
    run.child.kill('SIGTERM');
    expect((await run.ended).code).toBe(130);
    expect(processesNaming(scratch.dir('runs/a'))).toEqual([]);
    const traffic = reportIn(scratch.dir('runs/a')).traffic.map((one) => one.transport);
    expect(['shm', 'unix']).toContain(traffic[0]);
  });
});

describe('a worker that does not fit its coordinator', () => {
  let run: LockstepProcess;
  let url = '';
  beforeAll(async () => {
    ({ run, url } = await start('waiting', 'coordinator', ...COORDINATOR));
  });

  const joining = async (coordinator: string, ...flags: string[]): Promise<string> => {
    const ended = await lockstep(['worker', '--coordinator', coordinator, ...flags]).ended;
    return `${ended.code} ${ended.stderr.replace(/\n\s+-> /, ' -> ')}`;
  };

  it('is told what is wrong: authority, address, token; the coordinator goes on waiting', async () => {
    const token = ['--token-file', scratch.dir('waiting/token')];
    expect(await joining(url, ...token, '--tls-ca', OTHER_CA)).toMatch(
      /^2 lockstep: E_TLS: the coordinator at 127\.0\.0\.1:\d+: no authority that is trusted here signed its certificate \(.*\) -> Give --tls-ca the certificate/,
    );
    expect(await joining(url, ...token)).toMatch(/^2 lockstep: E_TLS: .*: no authority that is trusted here/);
    expect(await joining(url.replace('https', 'http'), ...token)).toMatch(
      /^2 lockstep: E_TLS: .*: it speaks TLS, and was called without -> Give its address with https/,
    );
    expect(await joining(url, '--token-file', file('wrong', 'another-token'), '--tls-ca', CA)).toMatch(
      /^1 lockstep: E_UNAUTHORIZED: the coordinator at https:\/\/127\.0\.0\.1:\d+ refused this worker's token -> Give --token-file/,
    );
    expect(await get(`${url}/metrics`, authority.cert)).toMatch(
      /lockstep_workers_refused_total\{run="waiting",code="E_UNAUTHORIZED"\} 1/,
    );
    expect(JSON.parse(await get(`${url}/api/run`, authority.cert))).toMatchObject({ phase: 'gathering' });
    expect(await get(url, authority.cert)).toContain('<title>Lockstep</title>');
    run.child.kill('SIGINT');
    expect((await run.ended).code).toBe(130);
  });

  it('and calls one without TLS, is told that', async () => {
    const plain = await start('bare', 'coordinator');
    expect(await joining(plain.url.replace('http', 'https'), '--tls-ca', CA)).toMatch(
      /^2 lockstep: E_TLS: .*: what answers there does not speak TLS -> Give its address with http:/,
    );
    plain.run.child.kill('SIGINT');
    expect((await plain.run.ended).code).toBe(130);
  });
});
