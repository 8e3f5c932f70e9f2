import { appendFileSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import {
  jobChangesIn,
  lastGenerationIn,
  openJournal,
  readJournal,
  wholeRecords,
  type JournalInput,
} from '../../../coordinator/record/journal.ts';
import { CONFIG } from '../config.ts';
import { temporaryDirectory } from './temporary.ts';

const T = '2026-11-23T16:00:00.000Z';
const DIGEST = 'd'.repeat(64);
const generation = (n: number): JournalInput => ({
  t: T,
  kind: 'generation',
  generation: n,
  members: ['w0'],
  because: 'ready',
});

async function written(records: readonly JournalInput[]): Promise<string> {
  const directory = temporaryDirectory();
  const journal = await openJournal(directory, () => {});
  for (const record of records) await journal.append(record);
  await journal.close();
  return directory;
}

const fileIn = (directory: string): string => join(directory, 'journal.jsonl');

describe('changes of the job', () => {
  const begun = (
    resumedFromStep: number | null,
    job: string,
    jobChangedFrom?: string,
  ): JournalInput & { kind: 'run' } => ({
    t: T,
    kind: 'run',
    lockstep: '0.1.0',
    resumedFromStep,
    jobChangedFrom,
    config: { ...CONFIG, job: { kind: 'built-in', name: 'j', sha256: job.repeat(64) } },
  });
  const [a, b, c] = ['a'.repeat(64), 'b'.repeat(64), 'c'.repeat(64)];
  it.each<[string, (JournalInput & { kind: 'run' })[], { step: number; from: string; to: string }[]]>([
    ['none in a run that is resumed as it was', [begun(null, 'a'), begun(3, 'a')], []],
    [
      'each where it came',
      [begun(null, 'a'), begun(3, 'b', a), begun(5, 'b'), begun(7, 'c', b)],
      [
        { step: 3, from: a, to: b },
        { step: 7, from: b, to: c },
      ],
    ],
    ['none that the run went back before', [begun(null, 'a'), begun(5, 'b', a), begun(3, 'a')], []],
    [
      'one at the same step takes the place of the other',
      [begun(null, 'a'), begun(3, 'b', a), begun(3, 'c', a)],
      [{ step: 3, from: a, to: c }],
    ],
  ])('%s', async (_, records, changes) => {
    expect(jobChangesIn(await readJournal(await written(records)))).toEqual(changes);
  });
});

describe('a journal of another schema', () => {
  // As a later version may write it: nothing but kind and schema is as it is now.
  const later = '{"kind":"run","schema":2,"begun":"2031"}\n{"kind":"later"}\n';
  const refusal = {
    code: 'E_RECORD_VERSION',
    message: 'the journal has schema 2, and this Lockstep reads schema 1',
  };

  it('is refused by whoever would go on from it', async () => {
    const directory = temporaryDirectory();
    writeFileSync(fileIn(directory), later);
    await expect(readJournal(directory)).rejects.toMatchObject(refusal);
    await expect(wholeRecords(directory)).rejects.toMatchObject(refusal);
    expect(readFileSync(fileIn(directory), 'utf8')).toBe(later);
  });

  it('is schema 1 where it says nothing', async () => {
    const directory = temporaryDirectory();
    const begun = { t: T, kind: 'run', lockstep: '0.1.0', resumedFromStep: null, config: CONFIG };
    writeFileSync(fileIn(directory), `${JSON.stringify(begun)}\n`);
    expect(await wholeRecords(directory)).toEqual([begun]);
  });
});

describe('the journal', () => {
  it('is one JSON object a line, in the order of appending, and reads back as it was given', async () => {
    const records: JournalInput[] = [
      generation(1),
      { t: T, kind: 'commits', generation: 1, from: 1, to: 3, digest: null },
      { t: T, kind: 'epoch', step: 3, epoch: 1, digest: DIGEST, loss: 1.5, testLoss: null, testAccuracy: null },
      { t: T, kind: 'checkpoint', step: 3, digest: DIGEST, directory: 'checkpoints/step-3' },
      { t: T, kind: 'stopped', step: 3, because: 'Ctrl-C' },
      { t: T, kind: 'finished', step: 6, digest: DIGEST },
      {
        t: T,
        kind: 'failed',
        step: 6,
        cause: {
          who: 'w0',
          rank: 0,
          host: 'h',
          pid: 1,
          exitCode: null,
          signal: 'SIGKILL',
          code: null,
          message: 'killed by SIGKILL',
          lastLines: ['a'],
          logFile: null,
        },
      },
    ];
    const directory = await written(records);
    expect(readFileSync(fileIn(directory), 'utf8').split('\n')[0]).toBe(
      '{"t":"2026-11-23T16:00:00.000Z","kind":"generation","generation":1,"members":["w0"],"because":"ready"}',
    );
    expect(await readJournal(directory)).toEqual(records);
  });

  it('has the last generation by its number, in whatever record it stands, and for a journal that is damaged or not there', async () => {
    const directory = await written([
      generation(1),
      generation(3),
      { t: T, kind: 'commits', generation: 4, from: 1, to: 2, digest: null },
      generation(2),
    ]);
    appendFileSync(fileIn(directory), 'garbage\n');
    expect(await wholeRecords(directory)).toHaveLength(4);
    expect(lastGenerationIn(await wholeRecords(directory))).toBe(4);
    expect(lastGenerationIn(await wholeRecords(temporaryDirectory()))).toBe(0);
  });

  it('a record is in the file when its append resolves, also when many are appended at once', async () => {
    const directory = temporaryDirectory();
    const journal = await openJournal(directory, () => {});
    const seen = await Promise.all(
      Array.from({ length: 200 }, async (_, n) => {
        await journal.append(generation(n));
        return readFileSync(fileIn(directory), 'utf8').includes(`"generation":${n},`);
      }),
    );
    expect(seen.every(Boolean)).toBe(true);
    await journal.close();
    expect((await readJournal(directory)).map((r) => (r.kind === 'generation' ? r.generation : -1))).toEqual(
      Array.from({ length: 200 }, (_, n) => n),
    );
  });

  it('closing waits for what was appended', async () => {
    const directory = temporaryDirectory();
    const journal = await openJournal(directory, () => {});
    void journal.append(generation(1));
    void journal.append(generation(2));
    await journal.close();
    expect(await readJournal(directory)).toHaveLength(2);
  });

  it.each([
    ['within a record', '{"t":"2026'],
    ['with a record that is not JSON', '{"t":"20\u0000\u0000\n'],
  ])('a last line torn %s is cut off and said when it is opened, and what follows is whole', async (_, tail) => {
    const directory = await written([generation(1)]);
    appendFileSync(fileIn(directory), tail);
    expect(await readJournal(directory)).toHaveLength(1);
    const warnings: string[] = [];
    const journal = await openJournal(directory, (message) => warnings.push(message));
    expect(warnings).toHaveLength(1);
    expect(warnings[0]).toContain(`${tail.length} bytes`);
    await journal.append(generation(2));
    await journal.close();
    expect(await readJournal(directory)).toEqual([generation(1), generation(2)]);
  });

  it('a whole journal is opened without a word', async () => {
    const directory = await written([generation(1)]);
    const warnings: string[] = [];
    await (await openJournal(directory, (message) => warnings.push(message))).close();
    expect(warnings).toEqual([]);
  });

  it.each([
    ['not JSON', 'garbage'],
    ['of no known kind', '{"t":"2026-11-23T16:00:00.000Z","kind":"gossip"}'],
  ])('a line in the middle that is %s is refused by its number', async (_, line) => {
    const directory = await written([generation(1), generation(2)]);
    const lines = readFileSync(fileIn(directory), 'utf8').split('\n');
    writeFileSync(fileIn(directory), [lines[0], line, lines[1], ''].join('\n'));
    await expect(readJournal(directory)).rejects.toMatchObject({
      code: 'E_CHECKPOINT_CORRUPT',
      message: expect.stringContaining('line 2'),
    });
  });
});
