import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { cacheDirectory, installDirectory, isSameSecond, openForWriting, withLock } from '../../deploy/setup/cache.ts';

let root = '';
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'lockstep-cache-'));
});
afterEach(() => rmSync(root, { recursive: true, force: true }));

/** The pid of a process that has ended. */
async function deadPid(): Promise<number> {
  const child = spawn(process.execPath, ['-e', '']);
  await new Promise((resolve) => {
    child.on('close', resolve);
  });
  return child.pid ?? 0;
}

describe('cacheDirectory', () => {
  it('is LOCKSTEP_CACHE, else lockstep in XDG_CACHE_HOME, else in ~/.cache', () => {
    expect(cacheDirectory({ LOCKSTEP_CACHE: join(root, 'own'), XDG_CACHE_HOME: root })).toBe(join(root, 'own'));
    expect(cacheDirectory({ XDG_CACHE_HOME: root })).toBe(join(root, 'lockstep'));
  });

  it('that cannot be made is named, with the remedy', () => {
    writeFileSync(join(root, 'file'), '');
    expect(() => cacheDirectory({ LOCKSTEP_CACHE: join(root, 'file', 'cache') })).toThrow(
      expect.objectContaining({
        code: 'E_USAGE',
        message: expect.stringContaining(join(root, 'file', 'cache')) as string,
        remedy: expect.stringContaining('LOCKSTEP_CACHE') as string,
      }) as Error,
    );
  });
});

describe('openForWriting', () => {
  it('makes a directory, and names one that cannot be made', () => {
    openForWriting(join(root, 'a', 'b'));
    expect(existsSync(join(root, 'a', 'b'))).toBe(true);
    writeFileSync(join(root, 'file'), '');
    expect(() => openForWriting(join(root, 'file', 'engine'))).toThrow(
      expect.objectContaining({ code: 'E_USAGE', message: expect.stringContaining('file/engine') as string }) as Error,
    );
  });
});

describe('isSameSecond', () => {
  it.each([
    [1_764_210_000_123.4, 1_764_210_000_000, true],
    [1_764_210_000_999, 1_764_210_001_000, false],
    [1_764_210_000_000, 1_764_209_999_999, false],
  ])('of %d and %d is %s', (a, b, expected) => {
    expect(isSameSecond(a, b)).toBe(expected);
  });
});

describe('installDirectory', () => {
  it('puts a directory in its place whole, replacing what was there', async () => {
    const place = join(root, 'engine', 'x');
    await installDirectory(place, async (staging) => writeFileSync(join(staging, 'a'), '1'));
    await installDirectory(place, async (staging) => writeFileSync(join(staging, 'b'), '2'));
    expect(readdirSync(place)).toEqual(['b']);
    expect(readdirSync(join(root, 'engine'))).toEqual(['x']);
  });

  it('leaves what was there, and nothing half-made, when making fails', async () => {
    const place = join(root, 'x');
    await installDirectory(place, async (staging) => writeFileSync(join(staging, 'good'), ''));
    const failing = installDirectory(place, async (staging) => {
      writeFileSync(join(staging, 'bad'), '');
      throw new Error('no space');
    });
    await expect(failing).rejects.toThrow('no space');
    expect(readdirSync(root)).toEqual(['x']);
    expect(readdirSync(place)).toEqual(['good']);
  });

  it('clears what a killed process left beside it, and nothing of a living one', async () => {
    const dead = await deadPid();
    mkdirSync(join(root, `.x.partial-${dead}`));
    mkdirSync(join(root, `.x.partial-${process.ppid}`));
    await installDirectory(join(root, 'x'), async () => {});
    expect(readdirSync(root).toSorted()).toEqual([`.x.partial-${process.ppid}`, 'x']);
  });
});

describe('withLock', () => {
  it('lets one in at a time', async () => {
    const lock = join(root, 'lock');
    let inside = 0;
    let most = 0;
    const work = async (): Promise<void> => {
      most = Math.max(most, ++inside);
      await new Promise((resolve) => {
        setImmediate(resolve);
      });
      inside--;
    };
    await Promise.all([withLock(lock, work), withLock(lock, work), withLock(lock, work)]);
    expect(most).toBe(1);
    expect(existsSync(lock)).toBe(false);
  });

  it('says whom it waits for', async () => {
    const lock = join(root, 'lock');
    const told: number[] = [];
    let release: () => void = () => {};
    const first = withLock(
      lock,
      () =>
        new Promise<void>((resolve) => {
          release = resolve;
        }),
    );
    const second = withLock(
      lock,
      async () => 'in',
      (pid) => {
        told.push(pid);
        release();
      },
    );
    await first;
    expect(await second).toBe('in');
    expect(told).toEqual([process.pid]);
  });

  it('is taken over from a process that has died, and given back after a failure', async () => {
    const lock = join(root, 'lock');
    writeFileSync(lock, `${await deadPid()}\n`);
    await expect(withLock(lock, () => Promise.reject(new Error('broke')))).rejects.toThrow('broke');
    expect(await withLock(lock, async () => readFileSync(lock, 'utf8'))).toBe(`${process.pid}\n`);
    expect(existsSync(lock)).toBe(false);
  });
});
