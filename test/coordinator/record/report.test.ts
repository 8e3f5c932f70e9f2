import { readFileSync, readdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { copyReport, writeReport } from '../../../coordinator/record/report.ts';
import type { RunReport } from '../../../protocol/report.ts';
import { temporaryDirectory } from './temporary.ts';

const REPORT = { schema: 1, job: 'j', digest: null, finalLoss: 0.1 + 0.2 } as RunReport;
const TEXT = '{\n  "schema": 1,\n  "job": "j",\n  "digest": null,\n  "finalLoss": 0.30000000000000004\n}\n';

it('is in the run directory and where --report says, with directories made on the way', async () => {
  const run = temporaryDirectory();
  const further = join(temporaryDirectory(), 'a', 'b', 'r.json');
  await writeReport(run, REPORT);
  await copyReport(run, further, REPORT);
  expect(readFileSync(join(run, 'report.json'), 'utf8')).toBe(TEXT);
  expect(readFileSync(further, 'utf8')).toBe(TEXT);
  expect(readdirSync(run)).toEqual(['report.json']);
});

it('takes the place of an older one', async () => {
  const run = temporaryDirectory();
  writeFileSync(join(run, 'report.json'), 'x'.repeat(10_000));
  await writeReport(run, REPORT);
  expect(readFileSync(join(run, 'report.json'), 'utf8')).toBe(TEXT);
});

it('a --report that can’t be written is bad input that names it; report.json is there', async () => {
  const run = temporaryDirectory();
  const file = join(run, 'file');
  writeFileSync(file, '');
  await writeReport(run, REPORT);
  await expect(copyReport(run, join(file, 'r.json'), REPORT)).rejects.toMatchObject({
    code: 'E_USAGE',
    message: expect.stringContaining(join(file, 'r.json')),
    remedy: expect.stringContaining('report.json'),
  });
  expect(readFileSync(join(run, 'report.json'), 'utf8')).toBe(TEXT);
});

it('a --report that is no plain file, as /dev/stdout, is written to and not replaced', async () => {
  const run = temporaryDirectory();
  const device = join(run, 'device');
  symlinkSync('/dev/null', device);
  await copyReport(run, device, REPORT);
  expect(readFileSync(device, 'utf8')).toBe('');
  expect(readdirSync(run).toSorted()).toEqual(['device']);
});
