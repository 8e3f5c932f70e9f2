// A worker's machine without a way out: the real routes of the coordinator, over a network that cuts.

import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { connect, createServer, type AddressInfo } from 'node:net';
import { once } from 'node:events';
import { join } from 'node:path';
import { beforeEach, describe, expect, it, onTestFinished, vi } from 'vitest';
import { startHttp } from '../../coordinator/http/server.ts';
import { damagedFiles, dataSetDirectory, ensureDataSet } from '../../deploy/setup/dataset.ts';
import type { DataSetDefinition } from '../../jobs/contract.ts';
import { keysOf } from '../../protocol/token.ts';
import { temporaryDirectory } from '../coordinator/record/temporary.ts';
import { VIEW } from '../coordinator/http/view.ts';

const TOKEN = 'a-token';
const contents = {
  'train.bin': Buffer.from(Array.from({ length: 300_000 }, (_, i) => (i * 7919) % 251)),
  'test.bin': Buffer.from('0123456789'),
};
const files = Object.entries(contents).map(([name, bytes]) => ({
  name,
  bytes: bytes.length,
  md5: createHash('md5').update(bytes).digest('hex'),
}));
const data: DataSetDefinition = {
  name: 'Numbers',
  source: {
    name: 'num bers',
    files,
    // Nobody listens at port 9.
    sources: [{ kind: 'https', url: 'http://127.0.0.1:9/none' }],
    unpack: () => Promise.reject(new Error('there is no archive')),
  },
  open: () => {
    throw new Error('not opened here');
  },
};

let held: string;
beforeEach(() => {
  held = temporaryDirectory();
  mkdirSync(held, { recursive: true });
  for (const [name, bytes] of Object.entries(contents)) writeFileSync(join(held, name), bytes);
  vi.stubEnv('LOCKSTEP_CACHE', temporaryDirectory());
  onTestFinished(() => {
    vi.unstubAllEnvs();
  });
});

async function coordinator(): Promise<string> {
  const http = await startHttp({
    listen: { host: '127.0.0.1', port: 0 },
    view: () => VIEW,
    metrics: () => Promise.resolve({ contentType: 'text/plain', text: '' }),
    ready: () => ({ ok: true, because: '' }),
    keys: keysOf(TOKEN),
    data: { name: 'num bers', directory: held, files },
  });
  onTestFinished(() => http.close());
  return http.url;
}

/** Where a download lies that is not whole yet. */
const partFile = (): string =>
  join(dataSetDirectory(data), '..', '.num bers.download', 'coordinator', 'train.bin.part');
const sizeOf = (file: string): number => (existsSync(file) ? statSync(file).size : 0);

/**
 * A way there that carries so many bytes of each of its first `cuts` connections, and cuts it when more of the file is on disk than was
 * before; `requests`: the heads that went through it.
 */
async function cuttingWay(to: string, cuts: number, afterBytes: number): Promise<{ url: string; requests: string[] }> {
  const requests: string[] = [];
  let left = cuts;
  const server = createServer((near) => {
    const far = connect(Number(new URL(to).port), '127.0.0.1');
    const isCut = left-- > 0;
    const had = sizeOf(partFile());
    let passed = 0;
    near.on('data', (chunk: Buffer) => {
      requests.push(chunk.toString('latin1').toLowerCase());
      far.write(chunk);
    });
    far.on('data', (chunk: Buffer) => {
      near.write(isCut ? chunk.subarray(0, Math.max(0, afterBytes - passed)) : chunk);
      passed += chunk.length;
    });
    const look = setInterval(() => {
      if (isCut && passed >= afterBytes && sizeOf(partFile()) > had) near.destroy();
    }, 2);
    near.on('close', () => clearInterval(look));
    for (const [one, other] of [
      [near, far],
      [far, near],
    ] as const) {
      one.on('error', () => other.destroy());
      one.on('close', () => other.destroy());
    }
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  onTestFinished(() => void server.close());
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, requests };
}

const ensure = async (
  url: string,
  from: 'auto' | 'coordinator',
  token = TOKEN,
  tell: (line: string) => void = () => {},
): Promise<void> => ensureDataSet(data, tell, () => {}, { from, coordinator: { url, token, tls: null } });

describe('a data set from the coordinator', () => {
  it('is taken when no source can be reached, and goes on where a cut download ended', async () => {
    const { url, requests } = await cuttingWay(await coordinator(), 2, 100_000);
    const said: string[] = [];
    await ensure(url, 'auto', TOKEN, (line) => said.push(line));
    expect(await damagedFiles(dataSetDirectory(data), files)).toEqual([]);
    const ranges = requests.map((head) => /range: bytes=(\d+)-/.exec(head)?.[1] ?? null);
    // Of the first file three requests, the second from where the first was cut, and of the second file one.
    expect(ranges).toEqual([null, expect.any(String), expect.any(String), null]);
    expect([Number(ranges[1]), Number(ranges[2])]).toSatisfy(([a, b]: number[]) => 0 < (a ?? 0) && (a ?? 0) < (b ?? 0));
    expect(requests[1]).toContain(`if-range: "${files[0]?.md5}"`);
    expect(said.join('\n')).toMatch(/127\.0\.0\.1:9.*the coordinator is asked/s);
  });

  it('goes on with what a process that is gone had got of it', async () => {
    const url = await coordinator();
    const cut = await cuttingWay(url, 99, 60_000);
    const place = partFile();
    mkdirSync(join(place, '..'), { recursive: true });
    writeFileSync(place, contents['train.bin'].subarray(0, 250_000));
    await ensure(cut.url, 'coordinator');
    expect(cut.requests[0]).toContain('range: bytes=250000-');
    expect(readFileSync(join(dataSetDirectory(data), 'train.bin')).equals(contents['train.bin'])).toBe(true);
    expect(existsSync(join(place, '..'))).toBe(false);
  });

  it('is not believed: a file that is not as published is refused by its hash, and nothing of it is in the cache', async () => {
    const changed = Buffer.from(contents['train.bin']);
    changed[5] = 255 - (changed[5] ?? 0);
    writeFileSync(join(held, 'train.bin'), changed);
    await expect(ensure(await coordinator(), 'coordinator')).rejects.toMatchObject({ code: 'E_HASH' });
    expect(existsSync(dataSetDirectory(data))).toBe(false);
  });

  it('is for who shows the token, and only what the job names is served', async () => {
    const url = await coordinator();
    await expect(ensure(url, 'coordinator', 'a-guess')).rejects.toMatchObject({ code: 'E_UNAUTHORIZED' });
    const headers = { authorization: `Bearer ${TOKEN}` };
    writeFileSync(join(held, 'secret'), 'x');
    const status = async (path: string, more: RequestInit = {}): Promise<number> =>
      (await fetch(`${url}/data/${path}`, { headers, ...more })).status;
    expect(await status('num%20bers/test.bin')).toBe(200);
    expect(await status('num%20bers/test.bin', { headers: {} })).toBe(401);
    expect(await status('num%20bers/secret')).toBe(404);
    expect(await status('num%20bers/..%2ftest.bin')).toBe(404);
    expect(await status('other/test.bin')).toBe(404);
    expect(await status('num%20bers/test.bin', { headers: { ...headers, range: 'bytes=10-' } })).toBe(416);
    const part = await fetch(`${url}/data/num%20bers/test.bin`, { headers: { ...headers, range: 'bytes=3-5' } });
    expect([part.status, part.headers.get('content-range'), await part.text()]).toEqual([206, 'bytes 3-5/10', '345']);
    rmSync(join(held, 'test.bin'));
    expect(await status('num%20bers/test.bin')).toBe(404);
  });

  it('over NATS is said not to be served', async () => {
    await expect(
      ensureDataSet(
        data,
        () => {},
        () => {},
        { from: 'coordinator', coordinator: null },
      ),
    ).rejects.toMatchObject({
      code: 'E_DOWNLOAD',
      message: expect.stringContaining('over NATS it serves no files') as string,
    });
  });
});
