// A real disk with little room, or none: a tmpfs, mounted by a test that may mount. Where it may not, RLIMIT_FSIZE or a directory
// without permission would be other failures; so such tests say that they can't run.

import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';

function mount(...args: readonly string[]): void {
  execFileSync('mount', args, { stdio: 'pipe' });
}

export const MAY_MOUNT = ((): boolean => {
  const path = mkdtempSync(join(tmpdir(), 'lockstep-mount-'));
  try {
    mount('-t', 'tmpfs', '-o', 'size=64k', 'none', path);
    execFileSync('umount', [path]);
    return true;
  } catch {
    return false;
  } finally {
    rmSync(path, { recursive: true, force: true });
  }
})();

export class SmallDisk {
  readonly path = mkdtempSync(join(tmpdir(), 'lockstep-disk-'));

  private pieces = 0;

  constructor(kibibytes: number) {
    mount('-t', 'tmpfs', '-o', `size=${kibibytes}k`, 'none', this.path);
    onTestFinished(() => {
      execFileSync('umount', ['--lazy', this.path]);
      rmSync(this.path, { recursive: true, force: true });
    });
  }

  /** Takes all the room there is; again, what has become free since. */
  fill(): void {
    const piece = new Uint8Array(4096);
    for (;;) {
      const file = join(this.path, `ballast-${this.pieces}`);
      try {
        writeFileSync(file, piece);
        this.pieces++;
      } catch {
        rmSync(file, { force: true });
        return;
      }
    }
  }

  /** Gives it back. */
  empty(): void {
    while (this.pieces > 0) rmSync(join(this.path, `ballast-${--this.pieces}`));
  }

  setReadOnly(isReadOnly: boolean): void {
    mount('-o', `remount,${isReadOnly ? 'ro' : 'rw'}`, this.path);
  }
}
