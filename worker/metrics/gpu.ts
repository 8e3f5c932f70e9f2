// How busy this worker's GPU is, by nvidia-smi: asked at most each quarter of a minute, in a process of its own, and only while somebody
// looks at the metrics; what is shown is the last answer. Nothing here waits for it, and a worker without a GPU never asks.

import { execFile } from 'node:child_process';

export interface GpuReading {
  /** Index or UUID, as the process was given it. */
  readonly name: string;
  /** 0 to 1. */
  readonly utilization: number;
  readonly memoryBytes: number;
}

export const GPU_ASK_EVERY_MS = 15_000;
/** An older answer is not shown any more. */
export const GPU_STALE_MS = 60_000;
const ANSWER_LIMIT_MS = 10_000;
const MAX_ANSWER_BYTES = 4096;
const MEBIBYTE = 2 ** 20;

/** The first line of `--query-gpu=utilization.gpu,memory.used --format=csv,noheader,nounits`; null where it says neither (MIG). */
export function gpuReadingOf(answer: string, name: string): GpuReading | null {
  const [utilization, memory] = (answer.split('\n', 1)[0] ?? '').split(',').map((field) => field.trim());
  const [percent, mebibytes] = [Number(utilization), Number(memory)];
  const isRead = utilization !== '' && memory !== '' && percent >= 0 && mebibytes >= 0;
  return isRead ? { name, utilization: percent / 100, memoryBytes: mebibytes * MEBIBYTE } : null;
}

/**
 * @param name as in CUDA_VISIBLE_DEVICES
 * @param now monotonic milliseconds
 * @returns the last answer; null before the first, and when it is out of date
 */
export function watchGpu(name: string, now: () => number, program = 'nvidia-smi'): () => GpuReading | null {
  let last: { readonly reading: GpuReading | null; readonly atMs: number } | null = null;
  let askedAtMs: number | null = null;
  const query = ['--query-gpu=utilization.gpu,memory.used', '--format=csv,noheader,nounits', `--id=${name}`];
  const ask = (): void => {
    askedAtMs = now();
    const limits = { timeout: ANSWER_LIMIT_MS, maxBuffer: MAX_ANSWER_BYTES };
    execFile(program, query, limits, (error, stdout) => {
      last = { reading: error === null ? gpuReadingOf(stdout, name) : null, atMs: now() };
    });
  };
  return () => {
    if (askedAtMs === null || now() - askedAtMs >= GPU_ASK_EVERY_MS) ask();
    return last !== null && now() - last.atMs < GPU_STALE_MS ? last.reading : null;
  };
}
