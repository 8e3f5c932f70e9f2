import { appendFileSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { headOf, type TraceHead } from '../../../coordinator/core/chrome-trace.ts';
import { openTimelineFile, type TimelineFile } from '../../../coordinator/record/timeline-file.ts';
import { eventsOf } from '../../trace.ts';
import { MAY_MOUNT, SmallDisk } from './small-disk.ts';
import { temporaryDirectory } from './temporary.ts';

const HEAD: TraceHead = { run: 'r1', begunAtUs: 1_000_000, zeroUs: 5000, boot: 'b' };

const lineOf = (ts: number): string => `{"name":"é","ph":"C","pid":1,"tid":1,"ts":${ts},"args":{"loss":1}}`;
const timesIn = (path: string): number[] =>
  eventsOf(readFileSync(path, 'utf8')).flatMap((event) => (event.ph === 'C' ? [event.ts] : []));

const openAt = (path: string, more: Partial<Parameters<typeof openTimelineFile>[0]> = {}): Promise<TimelineFile> =>
  openTimelineFile({ path, head: HEAD, isResumed: false, observe: () => {}, ...more });

/** What a coordinator leaves that is killed. */
async function leftBy(path: string, times: readonly number[], more = {}): Promise<void> {
  const file = await openAt(path, more);
  file.add(times.map(lineOf));
  await file.close(lineOf(0));
  truncateSync(path, readFileSync(path).length - Buffer.byteLength(`${lineOf(0)}\n]\n`));
}

describe('the file of a timeline', () => {
  it('opens with its end missing, and with its end', async () => {
    const path = join(temporaryDirectory(), 't.json');
    await leftBy(path, [1, 2]);
    expect(readFileSync(path, 'utf8').endsWith(',\n')).toBe(true);
    expect(timesIn(path)).toEqual([1, 2]);
    const file = await openAt(path);
    expect(file.zeroUs).toBe(5000);
    file.add([lineOf(3)]);
    await file.close(lineOf(4));
    // Anew: what was there is gone.
    expect((JSON.parse(readFileSync(path, 'utf8')) as unknown[]).length).toBe(3);
    expect(timesIn(path)).toEqual([3, 4]);
  });

  it('is gone on with after a kill within a line, after its end, and where there is none yet', async () => {
    const path = join(temporaryDirectory(), 't.json');
    await leftBy(path, [1, 2], { isResumed: true });
    appendFileSync(path, Buffer.from(lineOf(3)).subarray(0, 11));
    const second = await openAt(path, { isResumed: true });
    second.add([lineOf(4)]);
    await second.close(lineOf(5));
    const third = await openAt(path, { isResumed: true });
    third.add([lineOf(6)]);
    await third.close(lineOf(7));
    expect(timesIn(path)).toEqual([1, 2, 4, 5, 6, 7]);
  });

  it('goes on in the same time: by the machine’s clock, or by the time of day where that is another', async () => {
    const path = join(temporaryDirectory(), 't.json');
    await leftBy(path, [1]);
    const later = { ...HEAD, begunAtUs: 4_000_000, zeroUs: 3_005_123 };
    const same = await openAt(path, { isResumed: true, head: later });
    expect(same.zeroUs).toBe(5000);
    await same.abandon();
    for (const boot of ['another', null]) {
      // Three seconds later by the clock on the wall; this machine's counts from its start, 700 us ago.
      const other = await openAt(path, { isResumed: true, head: { ...HEAD, begunAtUs: 4_000_000, zeroUs: 700, boot } });
      expect(other.zeroUs).toBe(700 - 3_000_000);
      await other.abandon();
    }
    const [, head = ''] = readFileSync(path, 'utf8').split('\n');
    expect(headOf(head.slice(0, -1))).toEqual(HEAD);
  });

  it('of another run, or none at all, is not touched', async () => {
    const path = join(temporaryDirectory(), 't.json');
    await leftBy(path, [1]);
    const before = readFileSync(path);
    await expect(openAt(path, { isResumed: true, head: { ...HEAD, run: 'r2' } })).rejects.toMatchObject({
      code: 'E_USAGE',
      message: `--timeline ${path}: it is the timeline of another run, r1`,
    });
    expect(readFileSync(path)).toEqual(before);
    for (const text of ['thesis', '[\n{"name":"else"},\n']) {
      writeFileSync(path, text);
      await expect(openAt(path, { isResumed: true })).rejects.toMatchObject({
        code: 'E_USAGE',
        message: `--timeline ${path}: it is no timeline`,
      });
      expect(readFileSync(path, 'utf8')).toBe(text);
    }
  });

  it('takes no more than so much, and ends well', async () => {
    const path = join(temporaryDirectory(), 't.json');
    const file = await openAt(path, { maxBytes: 1000 });
    let taken = 0;
    while (file.add([lineOf(taken)])) taken++;
    expect(file.add([lineOf(taken)])).toBe(false);
    await file.close(lineOf(-1));
    expect(timesIn(path)).toEqual([...Array.from({ length: taken }, (_, i) => i), -1]);
    expect(readFileSync(path).length).toBeLessThan(1300);
  });

  it.runIf(MAY_MOUNT)('on a full disk has nothing half written, and all of it once there is room', async () => {
    const disk = new SmallDisk(64);
    const path = join(disk.path, 't.json');
    const seen: boolean[] = [];
    const file = await openAt(path, { observe: (failure) => seen.push(failure === null) });
    disk.fill();
    file.add(Array.from({ length: 100 }, (_, i) => lineOf(i)));
    await expect(file.close(lineOf(-1))).rejects.toThrow('ENOSPC');
    expect(seen).toEqual([true, false]);
    disk.empty();
    expect(timesIn(path)).toEqual([]);
    const again = await openAt(path, { isResumed: true });
    again.add([lineOf(1)]);
    await again.close(lineOf(2));
    expect(timesIn(path)).toEqual([1, 2]);
  });
});
