// What `lockstep report` reads: real files, some of them damaged.

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it, onTestFinished } from 'vitest';
import { readStory } from '../../../coordinator/record/read-story.ts';

const T = '2026-11-26T20:00:00.000Z';
const step = (n: number, loss: number | null): string =>
  JSON.stringify({ t: T, step: n, samples: 64, seconds: 0.1, loss, accuracy: 0.5, gradientNorm: 1, phases: {} });

function directory(files: Readonly<Record<string, string>>): string {
  const path = mkdtempSync(join(tmpdir(), 'lockstep-story-'));
  onTestFinished(() => rmSync(path, { recursive: true }));
  for (const [name, text] of Object.entries(files)) writeFileSync(join(path, name), text);
  return path;
}

it('reads the journal, each step once as it was last done, and the report', async () => {
  const stopped = { t: T, kind: 'stopped', step: 2, because: 'SIGINT' };
  const found = await readStory(
    directory({
      'journal.jsonl': `${JSON.stringify(stopped)}\n{"t":"${T}","kind":"gener`,
      'metrics.jsonl': `${step(1, 2)}\n${step(2, 1)}\nnot a line\n${step(1, 3)}\n${step(3, null)}\n`,
      'report.json': '{"schema":1,"job":"j"}',
    }),
  );
  expect(found.records).toEqual([stopped]);
  expect(found.steps.map((one) => [one.step, one.loss, one.at])).toEqual([
    [1, 3, Date.parse(T)],
    [2, 1, Date.parse(T)],
    [3, null, Date.parse(T)],
  ]);
  expect(found).toMatchObject({ report: { job: 'j' }, isUnderWay: false, unread: 2 });
});

it('of a run without metrics and report reads what there is', async () => {
  expect(await readStory(directory({ 'journal.jsonl': '' }))).toMatchObject({ records: [], steps: [], report: null });
});

it.each([
  ['no run', {}, 'E_RUN_NOT_FOUND', /has no journal\.jsonl/],
  [
    'no JSON',
    { 'journal.jsonl': '', 'report.json': '{' },
    'E_RECORD_DAMAGED',
    /report\.json is not a report: it is not/,
  ],
  [
    'another schema',
    { 'journal.jsonl': '', 'report.json': '{"schema":2}' },
    'E_RECORD_VERSION',
    /report\.json has schema 2, and this Lockstep reads schema 1/,
  ],
  ['no schema', { 'journal.jsonl': '', 'report.json': '{"schema":"2"}' }, 'E_RECORD_DAMAGED', /its schema is 2, not 1/],
  [
    'a journal of another schema',
    { 'journal.jsonl': '{"kind":"run","schema":2,"of":"the future"}\n{"kind":"future"}\n' },
    'E_RECORD_VERSION',
    /the journal has schema 2, and this Lockstep reads schema 1/,
  ],
])('refuses %s', async (_what, files, code, message) => {
  await expect(readStory(directory(files))).rejects.toMatchObject({
    code,
    message: expect.stringMatching(message) as string,
  });
});
