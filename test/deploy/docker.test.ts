// deploy/docker/: what is in an image is enough to train, and nothing else of the checkout is in it.

import { readFileSync } from 'node:fs';
import { spawn } from 'node:child_process';
import { createServer, type RequestListener, type Server } from 'node:http';
import { createServer as createSecureServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import { LOCKSTEP_VERSION } from '../../deploy/version.ts';
import { MAY_MOUNT } from '../coordinator/record/small-disk.ts';
import { makeCertificate } from '../certificates.ts';
import { node24, NODE_24 } from '../e2e/node24.ts';
import { contextFiles, replay } from './dockerfile.ts';
import { CHECKOUT, need, needProgram, run, trackedFiles } from './tools.ts';

/** Each command has its own; this is for all of them on a busy machine. */
const LIMIT_MS = 300_000;

const fileOf = (device: 'cpu' | 'gpu'): string => join(CHECKOUT, 'deploy', 'docker', `Dockerfile.${device}`);

it('hadolint has nothing to say', (context) => {
  needProgram(context, 'hadolint');
  expect(run('hadolint', [fileOf('cpu'), fileOf('gpu')])).toEqual({ code: 0, stdout: '', stderr: '' });
});

it('the file for GPUs is the other one, but for the engine and what the container toolkit is asked for', () => {
  const lines = (device: 'cpu' | 'gpu'): string[] =>
    readFileSync(fileOf(device), 'utf8')
      .split('\n')
      .filter((line) => !line.startsWith('#'));
  const [cpu, gpu] = [lines('cpu'), lines('gpu')];
  expect(cpu.filter((line) => !gpu.includes(line))).toEqual([
    'RUN node deploy/lockstep.mjs setup --engine tensorflow --job "$JOB"',
    'ENV NODE_ENV=production LOCKSTEP_CACHE=/opt/lockstep-cache',
  ]);
  expect(gpu.filter((line) => !cpu.includes(line))).toEqual([
    'RUN node deploy/lockstep.mjs setup --engine tensorflow-gpu --job "$JOB"',
    'ENV NODE_ENV=production LOCKSTEP_CACHE=/opt/lockstep-cache NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility',
  ]);
});

describe('.dockerignore', () => {
  const ignore = readFileSync(join(CHECKOUT, '.dockerignore'), 'utf8');

  it('leaves the product, and nothing that may be secret or is for developers', () => {
    const places = new Set(contextFiles(trackedFiles(), ignore).map((file) => file.split('/', 1).join('')));
    expect([...places].toSorted((a, b) => a.localeCompare(b))).toEqual([
      '.npmrc',
      'coordinator',
      'deploy',
      'jobs',
      'nats',
      'package-lock.json',
      'package.json',
      'protocol',
      'tsconfig.json',
      'worker',
    ]);
    const secrets = [
      'token',
      'key.pem',
      'deploy/compose/secrets/token',
      'runs/x/token',
      '.git/config',
      'node_modules/a',
    ];
    expect(contextFiles(secrets, ignore)).toEqual([]);
  });
});

describe('the image, replayed in an empty tree', () => {
  it(
    'has all that it needs: it says its version, finds engine and data, and trains, as a user who may write nothing else',
    { timeout: LIMIT_MS },
    async (context) => {
      need(
        context,
        MAY_MOUNT && process.getuid?.() === 0,
        'replaying a Dockerfile wants root, and a kernel that mounts',
      );
      const image = replay(fileOf('cpu'), await node24());
      onTestFinished(() => image.remove());
      expect(image.bases).toEqual([`node:${NODE_24}-bookworm-slim`, `node:${NODE_24}-bookworm-slim`]);
      expect(image.packages).toEqual(['g++', 'python3-pip', 'tini']);
      expect(image.user).toBe('1000:1000');
      expect(image.healthcheck).toContain('/opt/lockstep/deploy/docker/health.mjs');
      const [init, dashes, ...entry] = image.entrypoint;
      expect([init, dashes]).toEqual(['tini', '--']);

      expect(image.run([...entry, '--version'])).toEqual({ code: 0, stdout: `${LOCKSTEP_VERSION}\n`, stderr: '' });
      const doctor = image.run([...entry, 'doctor']).stdout;
      expect(doctor).toMatch(/✔ Node +v24\.21\.0/);
      expect(doctor).toMatch(/✔ tensorflow +TensorFlow 2\.21\.0, ran on the CPU/);
      expect(doctor).toMatch(/✔ data +CIFAR-10, whole, in \/opt\/lockstep-cache\/data/);

      const few = ['--workers', '1', '--max-steps', '2', '--train-samples', '128', '--test-samples', '0'];
      const where = ['--run-dir', '/runs/first', '--listen', '127.0.0.1:0'];
      const trained = image.run([...entry, 'train', 'cifar10-cnn', ...few, ...where]);
      expect([trained.code, trained.stderr]).toEqual([0, '']);
      expect(image.run([...entry, 'verify', '/runs/first']).code).toBe(0);
      // What is of the image can't be written.
      expect(
        image.run(['touch', '/opt/lockstep/x', '/opt/lockstep-cache/x', '/x']).stderr.match(/Permission denied/g),
      ).toHaveLength(3);
    },
  );

  it('a file that .dockerignore keeps away is missed', async (context) => {
    need(context, MAY_MOUNT && process.getuid?.() === 0, 'replaying a Dockerfile wants root, and a kernel that mounts');
    expect(() => replay(join(CHECKOUT, 'test', 'deploy', 'Dockerfile.broken'), process.execPath)).toThrow(
      /COPY test \/opt\/test: .*test is not in the context/,
    );
  });
});

describe('the health check', () => {
  const check = async (server: Server): Promise<{ code: number | null; stderr: string }> => {
    await new Promise<void>((done) => {
      server.listen(0, '127.0.0.1', done);
    });
    onTestFinished(() => void server.close());
    const { port } = server.address() as AddressInfo;
    const child = spawn(process.execPath, [join(CHECKOUT, 'deploy/docker/health.mjs')], {
      env: { ...process.env, LOCKSTEP_LISTEN: `0.0.0.0:${port}` },
    });
    let stderr = '';
    child.stderr.on('data', (chunk: Buffer) => (stderr += chunk.toString()));
    const code = await new Promise<number | null>((done) => {
      child.on('close', done);
    });
    return { code, stderr };
  };
  const answering =
    (status: number): RequestListener =>
    (request, response) => {
      response.writeHead(request.url === '/healthz' ? status : 404).end();
    };

  it('is 0 for a coordinator that answers, with TLS and without', async () => {
    expect(await check(createServer(answering(200)))).toEqual({ code: 0, stderr: '' });
    const { cert, key } = makeCertificate(['elsewhere.example.com'], null);
    expect(await check(createSecureServer({ cert, key }, answering(200)))).toEqual({ code: 0, stderr: '' });
  });

  it('is 1 for anything else, saying what was answered', async () => {
    const { code, stderr } = await check(createServer(answering(503)));
    expect([code, stderr]).toEqual([1, expect.stringMatching(/^port \d+: https: [^]*; http: 503\n$/)]);
  });
});
