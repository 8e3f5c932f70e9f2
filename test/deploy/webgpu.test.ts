// Set-up of the webgpu engine's library, with a small package and an npm of the test's own: nothing leaves this machine.

import { createHash } from 'node:crypto';
import {
  appendFileSync,
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { arch, platform, tmpdir } from 'node:os';
import { join } from 'node:path';
import { create } from 'tar';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { ensureWebgpu, findWebgpu, verifyWebgpu, webgpuDamage } from '../../deploy/setup/webgpu.ts';

const HERE = platform() === 'darwin' ? 'darwin-universal' : `${platform()}-${arch()}`;

let root = '';
let integrity = '';
let tried: string[] = [];

beforeEach(async () => {
  root = mkdtempSync(join(tmpdir(), 'lockstep-webgpu-'));
  tried = [];
  const make = (path: string, content: string): void => {
    mkdirSync(join(root, path, '..'), { recursive: true });
    writeFileSync(join(root, path), content);
  };
  make(`package/dist/${HERE}/dawn.node`, "this platform's library");
  make(`package/dist/${HERE}/beside.dll`, 'what it needs');
  make('package/dist/other-platform/dawn.node', "another's");
  make('package/index.js', 'not needed');
  make('package/LICENSE.md', 'the license');
  const archive = join(root, 'archive.tgz');
  await create({ gzip: true, file: archive, cwd: root }, ['package']);
  integrity = `sha512-${createHash('sha512').update(readFileSync(archive)).digest('base64')}`;
  make(
    'bin/npm',
    `#!${process.execPath}
if (process.argv.includes('--version')) process.exit(0);
require('node:fs').copyFileSync(${JSON.stringify(archive)}, 'webgpu.tgz');
require('node:fs').appendFileSync(${JSON.stringify(join(root, 'asked'))}, process.argv.slice(2).join(' ') + '\\n');`,
  );
  chmodSync(join(root, 'bin', 'npm'), 0o755);
  vi.stubEnv('PATH', join(root, 'bin'));
  vi.stubEnv('npm_execpath', undefined);
  vi.stubEnv('LOCKSTEP_CACHE', join(root, 'cache'));
});
afterEach(() => {
  vi.unstubAllEnvs();
  rmSync(root, { recursive: true, force: true });
});

const timesFetched = (): number =>
  existsSync(join(root, 'asked')) ? readFileSync(join(root, 'asked'), 'utf8').trim().split('\n').length : 0;

const ensure = async (
  told: string[] = [],
  { platforms = [HERE], testLoad }: { platforms?: string[]; testLoad?: () => Promise<void> } = {},
): ReturnType<typeof ensureWebgpu> =>
  ensureWebgpu(
    (line) => told.push(line),
    () => {},
    {
      dawn: { source: { kind: 'npm', package: 'webgpu', version: '0.6.2', integrity }, platforms },
      testLoad:
        testLoad ??
        (async (path) => {
          tried.push(readFileSync(path, 'utf8'));
        }),
    },
  );

const engines = (): string[] => readdirSync(join(root, 'cache', 'engine'));

describe('ensureWebgpu', () => {
  it("keeps this platform's library, what lies beside it, and the license; and tries the library", async () => {
    const { directory, dawnPath, dawnVersion } = await ensure();
    expect(readdirSync(directory).toSorted()).toEqual(['LICENSE.md', 'beside.dll', 'dawn.node', 'manifest.json']);
    expect(readFileSync(dawnPath, 'utf8')).toBe("this platform's library");
    expect(dawnVersion).toBe('0.6.2');
    expect(tried).toEqual(["this platform's library"]);
    expect(engines()).toEqual([`webgpu-dawn-0.6.2-${platform()}-${arch()}`]);
    expect(readFileSync(join(root, 'asked'), 'utf8')).toBe('pack webgpu@0.6.2 --silent --ignore-scripts\n');
  });

  it('fetches once, and then no more', async () => {
    await ensure();
    await ensure();
    expect(timesFetched()).toBe(1);
    expect(webgpuDamage()).toBe(null);
    expect(await verifyWebgpu()).toEqual([]);
    expect(findWebgpu()).toEqual(await ensure());
  });

  const damages: Record<string, { harm: (directory: string) => void; words: string }> = {
    'a missing file': { harm: (d) => rmSync(join(d, 'beside.dll')), words: 'beside.dll is missing' },
    'a longer file': {
      harm: (d) => appendFileSync(join(d, 'dawn.node'), '!'),
      words: 'dawn.node has 24 bytes instead of 23',
    },
    'a file of another time': {
      harm: (d) => utimesSync(join(d, 'dawn.node'), 1, 1),
      words: 'dawn.node was changed after it was installed',
    },
    'a manifest that cannot be read': {
      harm: (d) => writeFileSync(join(d, 'manifest.json'), '{'),
      words: 'its manifest is missing or unreadable',
    },
  };
  for (const [what, { harm, words }] of Object.entries(damages)) {
    it(`finds ${what}, refuses to use it, and repairs it`, async () => {
      const { directory, dawnPath } = await ensure();
      harm(directory);
      expect(webgpuDamage()).toBe(words);
      expect(findWebgpu).toThrow(
        expect.objectContaining({
          code: 'E_ENGINE_UNAVAILABLE',
          message: expect.stringContaining(words) as string,
          remedy: 'Run `npm run setup -- --engine webgpu`.',
        }) as Error,
      );
      const told: string[] = [];
      await ensure(told);
      expect(told[0]).toBe(`repairing the webgpu library: ${words}`);
      expect(webgpuDamage()).toBe(null);
      expect(readFileSync(dawnPath, 'utf8')).toBe("this platform's library");
    });
  }

  it('says which file has other bytes, though its size and time are right', async () => {
    const { directory, dawnPath } = await ensure();
    const { files } = JSON.parse(readFileSync(join(directory, 'manifest.json'), 'utf8')) as {
      files: { name: string; mtimeMs: number }[];
    };
    const at = (files.find(({ name }) => name === 'dawn.node')?.mtimeMs ?? 0) / 1000;
    writeFileSync(dawnPath, "This platform's library");
    utimesSync(dawnPath, at, at);
    expect(await verifyWebgpu()).toEqual(['dawn.node']);
  });

  it('leaves nothing behind when the library does not load, or the package is not the published one', async () => {
    const broken = ensure([], {
      testLoad: async () => {
        throw new Error('GLIBC_2.99 not found');
      },
    });
    await expect(broken).rejects.toThrow('GLIBC_2.99 not found');
    expect(engines()).toEqual([]);
    integrity = 'sha512-AAAA';
    await expect(ensure()).rejects.toMatchObject({ code: 'E_HASH' });
    expect(engines()).toEqual([]);
    expect(webgpuDamage()).toBe('it is not installed');
  });

  it('refuses a platform that the package has no library for, before it fetches', async () => {
    await expect(ensure([], { platforms: ['plan9-x64'] })).rejects.toMatchObject({ code: 'E_ENGINE_UNAVAILABLE' });
    expect(timesFetched()).toBe(0);
  });
});
