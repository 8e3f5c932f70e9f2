import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';
import { GPU_ASK_EVERY_MS, GPU_STALE_MS, gpuReadingOf, watchGpu } from '../../../worker/metrics/gpu.ts';

describe('what nvidia-smi says', () => {
  it.each([
    ['37, 1834\n', { name: '0', utilization: 0.37, memoryBytes: 1834 * 1048576 }],
    ['100, 0\n3, 4\n', { name: '0', utilization: 1, memoryBytes: 0 }],
    // An instance of a GPU that is cut up (MIG).
    ['[N/A], [N/A]\n', null],
    ['No devices were found\n', null],
    ['', null],
  ])('%j', (answer, reading) => {
    expect(gpuReadingOf(answer, '0')).toEqual(reading);
  });
});

/** A program that writes its arguments to a file and answers. */
function fakeProgram(answer: string): { path: string; calls: () => string[] } {
  const directory = mkdtempSync(join(tmpdir(), 'lockstep-gpu-'));
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }));
  const path = join(directory, 'nvidia-smi');
  writeFileSync(join(directory, 'calls'), '');
  writeFileSync(path, `#!/bin/sh\necho "$*" >> ${directory}/calls\n${answer}\n`);
  chmodSync(path, 0o755);
  const calls = (): string[] => readFileSync(join(directory, 'calls'), 'utf8').split('\n').slice(0, -1);
  return { path, calls };
}

describe('watching a GPU', () => {
  it('nobody waits: the last answer is shown, the next is asked for when it is due, and an old one is none', async () => {
    const { path, calls } = fakeProgram('echo "50, 2"');
    let nowMs = 1000;
    const gpu = watchGpu('GPU-abc', () => nowMs, path);
    expect(gpu()).toBe(null);
    await expect.poll(gpu).toEqual({ name: 'GPU-abc', utilization: 0.5, memoryBytes: 2 * 1048576 });
    expect(calls()).toEqual(['--query-gpu=utilization.gpu,memory.used --format=csv,noheader,nounits --id=GPU-abc']);
    nowMs += GPU_ASK_EVERY_MS;
    expect(gpu()).not.toBe(null);
    await expect.poll(() => calls().length).toBe(2);
    nowMs += GPU_STALE_MS;
    expect(gpu()).toBe(null);
    // That was asked once more: the program has ended before its directory is removed.
    await expect.poll(() => calls().length).toBe(3);
  });

  it('one that fails is none', async () => {
    const { path, calls } = fakeProgram('exit 9');
    const gpu = watchGpu('0', () => 0, path);
    gpu();
    await expect.poll(() => calls().length).toBe(1);
    expect(gpu()).toBe(null);
  });
});
