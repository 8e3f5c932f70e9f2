// Every file of the record on a disk that is really full: a failure that is told, nothing half there, and all of it once there is room.

import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { RecordAlarms } from '../../../coordinator/core/record-alarms.ts';
import { NO_PROGRESS } from '../../../coordinator/core/progress.ts';
import { writeCheckpoint } from '../../../coordinator/record/checkpoint.ts';
import { openJournal, readJournal, type JournalInput } from '../../../coordinator/record/journal.ts';
import { openMetricsLog } from '../../../coordinator/record/metrics-log.ts';
import { exportModel } from '../../../coordinator/record/model-export.ts';
import { copyReport, writeReport } from '../../../coordinator/record/report.ts';
import type { WriteObserver } from '../../../coordinator/record/retried-lines.ts';
import type { RunConfig } from '../../../protocol/run-config.ts';
import type { RunReport } from '../../../protocol/report.ts';
import { MAY_MOUNT, SmallDisk } from './small-disk.ts';

const generation = (n: number): JournalInput => ({
  t: '2026-11-26T20:00:00.000Z',
  kind: 'generation',
  generation: n,
  members: ['w0'],
  because: 'x'.repeat(3000),
});
const MODEL = {
  topology: '{}',
  layout: [{ name: 'w', shape: [5000], offset: 0, length: 5000, trainable: true }],
  weights: new Float32Array(5000),
};
const REPORT = { schema: 1, job: 'j'.repeat(5000) } as RunReport;

describe('alarms', () => {
  it('are told when they begin and when they are over, and counted in between', () => {
    const alarms = new RecordAlarms();
    expect(alarms.now).toEqual([]);
    expect(alarms.written('journal')).toBeNull();
    expect(alarms.failed('journal', 'ENOSPC')).toMatch(
      /^journal\.jsonl could not be written: ENOSPC; training goes on/,
    );
    expect(alarms.failed('journal', 'EIO')).toBeNull();
    expect(alarms.failed('checkpoint', 'ENOSPC')).toMatch(/^a checkpoint could not be written/);
    expect(alarms.now).toEqual([
      { part: 'journal', failures: 2, because: 'EIO' },
      { part: 'checkpoint', failures: 1, because: 'ENOSPC' },
    ]);
    expect(alarms.written('journal')).toBe('journal.jsonl is written again, after 2 failures');
    expect(alarms.written('checkpoint')).toBe('a checkpoint is written again, after 1 failure');
    expect(alarms.now).toEqual([]);
  });
});

describe.runIf(MAY_MOUNT)('on a full disk', () => {
  const told = (): { seen: (string | null)[]; observe: WriteObserver } => {
    const seen: (string | null)[] = [];
    return { seen, observe: (failure) => seen.push(failure === null ? null : failure.message.slice(0, 6)) };
  };

  it('a journal keeps its records until there is room, in their order; each try is told', async () => {
    const disk = new SmallDisk(64);
    const { seen, observe } = told();
    const journal = await openJournal(disk.path, () => {}, { observe });
    await journal.append(generation(1));
    disk.fill();
    // The first fits into the file's last page, or not; the second can't.
    await Promise.allSettled([journal.append(generation(2)), journal.append(generation(3))]);
    await expect(journal.append(generation(4))).rejects.toThrow('ENOSPC');
    expect(seen.at(-1)).toBe('ENOSPC');
    expect((await readJournal(disk.path)).length).toBeLessThan(4);
    disk.empty();
    await journal.append(generation(5));
    await journal.close();
    expect(seen.at(-1)).toBeNull();
    expect((await readJournal(disk.path)).map((r) => (r.kind === 'generation' ? r.generation : -1))).toEqual([
      1, 2, 3, 4, 5,
    ]);
  });

  it('a journal that is closed on it has no half record, and says that it lacks some', async () => {
    const disk = new SmallDisk(64);
    const journal = await openJournal(disk.path, () => {});
    await journal.append(generation(1));
    disk.fill();
    await Promise.allSettled([journal.append(generation(2)), journal.append(generation(3))]);
    await expect(journal.close()).rejects.toThrow('ENOSPC');
    expect(readFileSync(join(disk.path, 'journal.jsonl'), 'utf8').endsWith('\n')).toBe(true);
    expect(await readJournal(disk.path)).toHaveLength(1);
  });

  it('metrics.jsonl keeps its lines until there is room', async () => {
    const disk = new SmallDisk(64);
    const { seen, observe } = told();
    const log = await openMetricsLog(disk.path, { keepSteps: 0, observe });
    const line = (step: number): Record<string, unknown> => ({ step, text: 'x'.repeat(3000) });
    log.append(line(1));
    await log.flush();
    disk.fill();
    for (const step of [2, 3]) log.append(line(step));
    await log.flush();
    await log.flush();
    expect(seen).toEqual([null, 'ENOSPC', 'ENOSPC']);
    disk.empty();
    log.append(line(4));
    await log.close();
    const steps = readFileSync(join(disk.path, 'metrics.jsonl'), 'utf8').trim().split('\n');
    expect(steps.map((text) => (JSON.parse(text) as { step: number }).step)).toEqual([1, 2, 3, 4]);
    expect(seen.at(-1)).toBeNull();
  });

  it('metrics.jsonl is not cut back to its first steps, and stays as it was: a resumed run can not begin', async () => {
    const disk = new SmallDisk(256);
    const whole = Array.from(
      { length: 30 },
      (_, i) => `${JSON.stringify({ step: i + 1, text: 'x'.repeat(3000) })}\n`,
    ).join('');
    writeFileSync(join(disk.path, 'metrics.jsonl'), whole);
    disk.fill();
    await expect(openMetricsLog(disk.path, { keepSteps: 25 })).rejects.toThrow('ENOSPC');
    disk.empty();
    expect(readdirSync(disk.path)).toEqual(['metrics.jsonl']);
    expect(readFileSync(join(disk.path, 'metrics.jsonl'), 'utf8')).toBe(whole);
  });

  it('report and model are refused, and leave nothing half written: the older ones stay', async () => {
    const disk = new SmallDisk(128);
    await writeReport(disk.path, { ...REPORT, job: 'older' });
    await exportModel(disk.path, { ...MODEL, weights: new Float32Array(5000).fill(7) });
    disk.fill();
    await expect(writeReport(disk.path, REPORT)).rejects.toThrow('ENOSPC');
    await expect(copyReport('elsewhere', join(disk.path, 'copy.json'), REPORT)).rejects.toMatchObject({
      code: 'ENOSPC',
    });
    await expect(exportModel(disk.path, MODEL)).rejects.toThrow('ENOSPC');
    disk.empty();
    expect(readdirSync(disk.path).toSorted()).toEqual(['model', 'report.json']);
    expect(readFileSync(join(disk.path, 'report.json'), 'utf8')).toContain('older');
    const [shard = ''] = readdirSync(join(disk.path, 'model')).filter((name) => name.endsWith('.bin'));
    expect(new Float32Array(readFileSync(join(disk.path, 'model', shard)).buffer, 0, 1)[0]).toBe(7);
  });

  it('a checkpoint is a result, on a full disk and a read-only one; the one before it stays', async () => {
    const disk = new SmallDisk(128);
    const write = (step: number) =>
      writeCheckpoint(disk.path, {
        config: {} as RunConfig,
        state: { step, digest: DIGEST_OF_5000_ZEROS, vectors: [{ name: 'weights', data: new Float32Array(5000) }] },
        progress: NO_PROGRESS,
        layout: MODEL.layout,
        topology: '{}',
      });
    expect(await write(1)).toMatchObject({ ok: true });
    disk.fill();
    expect(await write(2)).toMatchObject({ ok: false, because: expect.stringContaining('ENOSPC') });
    disk.empty();
    disk.setReadOnly(true);
    expect(await write(3)).toMatchObject({ ok: false, because: expect.stringContaining('EROFS') });
    disk.setReadOnly(false);
    expect(readdirSync(join(disk.path, 'checkpoints'))).toEqual(['step-1']);
    expect(existsSync(join(disk.path, 'checkpoints', 'step-1', 'checkpoint.json'))).toBe(true);
  });
});

/** By sha256sum: head -c 20000 /dev/zero | sha256sum. */
const DIGEST_OF_5000_ZEROS = '28b4f41a7f3ee6d8cc87272db6e09c6d3566551fd4d18702b041a21658272a85';
