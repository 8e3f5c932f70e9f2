// Whole runs with --transport nats against a real nats-server, real processes, the real data and TensorFlow.

import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Kvm } from '@nats-io/kv';
import { afterAll, afterEach, describe, expect, it } from 'vitest';
import { connectNats } from '../../nats/connect.ts';
import { makeAuthority, makeCertificate } from '../certificates.ts';
import type { RunReport } from '../../protocol/report.ts';
import type { RunView } from '../../protocol/run-view.ts';
import { lockstep, processesNaming, reportIn, Scratch, type Ended } from './lockstep.ts';
import { serverAt, startNatsServer, type RunningServer } from './nats-server.ts';

const scratch = new Scratch();
const servers: RunningServer[] = [];
afterEach(async () => {
  for (const server of servers.splice(0)) await server.kill();
});
afterAll(() => scratch.remove());

async function startServer(...flags: string[]): Promise<RunningServer> {
  const server = await startNatsServer(...flags);
  servers.push(server);
  return server;
}

const SMALL = ['--train-samples', '1000', '--test-samples', '500', '--seed', '7', '--listen', '127.0.0.1:0'];
const train = (name: string, ...flags: string[]): string[] => [
  'train',
  'cifar10-cnn',
  ...SMALL,
  '--run-dir',
  scratch.dir(name),
  ...flags,
];
const overNats = (server: RunningServer): string[] => ['--transport', 'nats', '--nats-url', server.url];

async function trained(name: string, ...flags: string[]): Promise<RunReport & { readonly output: string }> {
  const ended = await lockstep(train(name, ...flags)).ended;
  expect(ended.stderr).toBe('');
  expect(ended.code).toBe(0);
  return { ...reportIn(scratch.dir(name)), output: ended.stdout };
}

const inOneLine = (text: string): string => text.replaceAll(/[\s│]+/g, ' ');

describe('the same bits', () => {
  it('come over NATS as over WebSocket and from one worker: on servers with and without JetStream, and with messages of 1 KiB', async () => {
    const steps = ['--max-steps', '12'];
    const [alone, overWs] = await Promise.all([
      trained('w1', '--workers', '1', ...steps),
      trained('ws', '--workers', '2', ...steps),
    ]);
    expect(overWs.digest).toBe(alone.digest);
    const withStore = await startServer('--jetstream');
    const small = await startServer('--config', new URL('nats-small.conf', import.meta.url).pathname);
    for (const [name, server, workers] of [
      ['nats', withStore, '2'],
      ['nats-small', small, '3'],
    ] as const) {
      const report = await trained(name, '--workers', workers, ...steps, ...overNats(server));
      expect([name, report.digest]).toEqual([name, alone.digest]);
      expect([report.testLoss, report.testAccuracy, report.finalLoss]).toEqual([
        alone.testLoss,
        alone.testAccuracy,
        alone.finalLoss,
      ]);
      const bucket = server === withStore ? `lockstep-${name}` : null;
      expect(report).toMatchObject({
        transport: 'nats',
        traffic: [{ transport: 'nats', bytes: expect.any(Number) as number }],
        nats: { server: server.url, bucket },
        workersLost: 0,
      });
      // The gradient of 122,570 parameters, float32, half of it sent and half of it got back by each, twelve times over.
      expect(report.traffic[0]?.bytes).toBeGreaterThan(2 * 12 * 122_570 * 4 * 0.9);
      const [first] = readFileSync(join(scratch.dir(name), 'journal.jsonl'), 'utf8').split('\n');
      expect(JSON.parse(first ?? '')).toMatchObject({ kind: 'run', nats: { server: server.url, bucket } });
      const warning = 'the NATS server keeps no copy of the record: it runs without JetStream';
      expect(inOneLine(report.output).split(warning).length - 1).toBe(bucket === null ? 1 : 0);
    }
    const nats = await connectNats(serverAt(withStore.url), 'test');
    const store = await new Kvm(nats.connection).open('lockstep-nats');
    const kept: unknown[] = [];
    for await (const entry of await store.history({ key: 'journal.>' })) kept.push(entry.json());
    const onDisk = readFileSync(join(scratch.dir('nats'), 'journal.jsonl'), 'utf8')
      .trim()
      .split('\n');
    const records = onDisk.map((line) => JSON.parse(line) as { kind: string });
    expect(kept).toEqual(records.filter(({ kind }) => kind !== 'commits'));
    expect((await store.get('membership'))?.json()).toMatchObject({
      generation: 1,
      members: [{ rank: 0 }, { rank: 1 }],
    });
    await nats.close();
  });

  it('come from a run that is interrupted and goes on over NATS from its checkpoint, with more workers', async () => {
    const whole = await trained('whole', '--workers', '1', '--epochs', '2');
    const server = await startServer('--jetstream');
    const run = lockstep(train('broken', '--workers', '2', '--epochs', '2', ...overNats(server)));
    await run.wrote(/^\s+1\/2\s+\d/m);
    run.child.kill('SIGINT');
    expect((await run.ended).code).toBe(130);
    const flags = ['--resume', '--workers', '3', '--run-dir', scratch.dir('broken'), '--listen', '127.0.0.1:0'];
    const resumed = await lockstep(['train', 'cifar10-cnn', ...flags, ...overNats(server)]).ended;
    expect(resumed.stderr).toBe('');
    expect(resumed.code).toBe(0);
    expect(reportIn(scratch.dir('broken'))).toMatchObject({ digest: whole.digest, steps: 32, transport: 'nats' });
  });
});

describe('on two machines that reach nothing but the server', () => {
  it('a coordinator prints the line to paste, and workers join by it, with a password that nothing shows', async () => {
    const server = await startServer('--user', 'ann', '--pass', 's3cret%');
    const LOCKSTEP_NATS_URL = server.url.replace('//', '//ann:s3cret%25@');
    const directory = scratch.dir('two');
    const coordinator = lockstep(
      ['coordinator', ...train('two', '--workers', '2', '--max-steps', '4', '--transport', 'nats').slice(1)],
      { env: { LOCKSTEP_NATS_URL } },
    );
    const [line = ''] = await coordinator.wrote(/^npx lockstep worker .*$/m);
    expect(line).toBe(
      `npx lockstep worker --coordinator ${server.url}/two --token-file ${join(directory, 'token')} --job cifar10-cnn`,
    );
    const workers = [0, 1].map(() => lockstep(line.split(' ').slice(2), { env: { LOCKSTEP_NATS_URL } }));
    const ends = await Promise.all([coordinator, ...workers].map(({ ended }) => ended));
    expect(ends.map(({ code }) => code)).toEqual([0, 0, 0]);
    expect(ends[0]?.stderr).toBe('');
    const files = ['report.json', 'journal.jsonl', 'metrics.jsonl'].map((file) =>
      readFileSync(join(directory, file), 'utf8'),
    );
    for (const text of [...ends.flatMap(({ stdout, stderr }) => [stdout, stderr]), ...files])
      expect(text).not.toMatch(/s3cret|ann:/);
  });

  it('a worker without the run’s token is refused, one of another run finds nobody, and the coordinator goes on', async () => {
    const server = await startServer();
    const coordinator = lockstep([
      'coordinator',
      ...train('guarded', '--workers', '1', '--max-steps', '2', ...overNats(server)).slice(1),
    ]);
    const [line = ''] = await coordinator.wrote(/^npx lockstep worker .*$/m);
    writeFileSync(scratch.dir('guess'), 'a-guess\n');
    const worker = (at: string, token: string): Promise<Ended> =>
      lockstep(['worker', '--coordinator', at, '--token-file', token]).ended;
    const guessed = await worker(`${server.url}/guarded`, scratch.dir('guess'));
    expect([guessed.code, guessed.stderr]).toEqual([1, expect.stringContaining('E_UNAUTHORIZED')]);
    const lost = await worker(`${server.url}/another`, join(scratch.dir('guarded'), 'token'));
    expect([lost.code, lost.stderr]).toEqual([1, expect.stringContaining('nobody listens there')]);
    const elsewhere = join(scratch.dir('elsewhere'), 'guarded');
    const again = ['coordinator', 'cifar10-cnn', ...SMALL, '--run-dir', elsewhere, ...overNats(server)];
    const second = await lockstep(again).ended;
    expect([second.code, second.stderr]).toEqual([2, expect.stringContaining('E_RUN_IN_USE')]);
    expect(existsSync(elsewhere)).toBe(false);
    expect((await lockstep(line.split(' ').slice(2)).ended).code).toBe(0);
    expect((await coordinator.ended).code).toBe(0);
  });
});

describe('over TLS', () => {
  it('tls:// trains with a server whose authority Node trusts, and refuses one that it does not, or that has no TLS', async () => {
    const authority = makeAuthority();
    const certificate = makeCertificate(['localhost', '127.0.0.1'], authority);
    const files = { 'ca.pem': authority.cert, 'cert.pem': certificate.cert, 'key.pem': certificate.key };
    for (const [name, text] of Object.entries(files)) writeFileSync(scratch.dir(name), text);
    const server = await startServer('--tls', '--tlscert', scratch.dir('cert.pem'), '--tlskey', scratch.dir('key.pem'));
    const secure = `tls://localhost:${new URL(server.url).port}`;
    const plain = await startServer();
    const flags = ['--workers', '2', '--max-steps', '2', '--transport', 'nats', '--nats-url'];
    const env = { NODE_EXTRA_CA_CERTS: scratch.dir('ca.pem') };
    const ended = await lockstep(train('secure', ...flags, secure), { env }).ended;
    expect([ended.code, ended.stderr]).toEqual([0, '']);
    expect(reportIn(scratch.dir('secure'))).toMatchObject({ steps: 2, nats: { server: secure } });
    for (const [url, refusal] of [
      [secure, /E_NATS_UNREACHABLE: .*certificate/],
      [plain.url.replace('nats:', 'tls:'), /E_NATS_UNREACHABLE: .*does not support 'tls'/],
    ] as const) {
      const refused = await lockstep(train('insecure', ...flags, url)).ended;
      expect(refused.stderr).toMatch(refusal);
      expect(refused.code).toBe(2);
    }
  });
});

describe('a failure', () => {
  const begin = async (
    name: string,
    server: RunningServer,
    ...flags: readonly string[]
  ): Promise<{ run: ReturnType<typeof lockstep>; url: string }> => {
    const run = lockstep(train(name, '--workers', '2', '--epochs', '50', ...overNats(server), ...flags));
    const [, url = ''] = await run.wrote(/listening\s+(\S+)/);
    await run.wrote(/^\s+1\/50\s+\d/m);
    return { run, url };
  };

  it('of a worker is survived, as over WebSocket', async () => {
    const { run, url } = await begin('killed', await startServer());
    const view = (await (await fetch(`${url}/api/run`)).json()) as RunView;
    expect(view.transport).toBe('nats');
    const victim = view.workers.find((w) => w.rank === 1);
    process.kill(victim?.pid ?? Number.NaN, 'SIGKILL');
    await run.wrote(/generation 3: 2 workers; w2 joined/);
    run.child.kill('SIGINT');
    const ended = await run.ended;
    expect(ended.code).toBe(130);
    expect(ended.stdout).toContain('killed by SIGKILL');
    expect(reportIn(scratch.dir('killed'))).toMatchObject({ state: 'stopped', workersLost: 1, stepsLost: 0 });
    expect(processesNaming(scratch.dir('killed'))).toEqual([]);
  });

  it('of the server names it, ends the run with 1 when it does not come back in time, and leaves no process', async () => {
    const server = await startServer('--jetstream');
    const { run } = await begin('server-killed', server, '--wait-limit', '1');
    await server.kill();
    const ended = await run.ended;
    expect(ended.code).toBe(1);
    expect(ended.stdout.match(/Root cause/g)).toHaveLength(1);
    expect(inOneLine(ended.stdout)).toContain(
      `E_NATS_LOST: the connection to the NATS server at ${server.url} is lost`,
    );
    expect(reportIn(scratch.dir('server-killed')).state).toBe('failed');
    expect(processesNaming(scratch.dir('server-killed'))).toEqual([]);
  });
});

describe('bad input', () => {
  it('a server that is not there, or lets nobody in, is refused with 2 before anything is started', async () => {
    const gone = await startNatsServer();
    await gone.kill();
    const guarded = await startServer('--auth', 's3cret');
    for (const [url, code] of [
      [gone.url, 'E_NATS_UNREACHABLE'],
      [guarded.url.replace('//', '//a-guess@'), 'E_NATS_REFUSED'],
    ] as const) {
      const ended = await lockstep(train('never', '--transport', 'nats', '--nats-url', url)).ended;
      expect(ended.code).toBe(2);
      expect(ended.stderr).toContain(code);
      expect(ended.stderr).toContain('--nats-url');
      expect(ended.stderr + ended.stdout).not.toContain('a-guess');
      expect(existsSync(scratch.dir('never'))).toBe(false);
    }
  });
});
