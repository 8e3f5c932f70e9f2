// What the documentation tells people to type: every `lockstep` command line in it is one that the command takes, every file that it names is
// there, every link leads somewhere, and its versions are those of the code.

import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { JOURNAL_SCHEMA } from '../../coordinator/record/journal-schema.ts';
import { CHECKPOINT_SCHEMA } from '../../coordinator/record/checkpoint.ts';
import { parseCommand } from '../../deploy/options.ts';
import { buildProgram } from '../../deploy/options/program.ts';
import { exitCodeOf, LockstepError, type ErrorCode } from '../../protocol/errors.ts';
import { METRICS } from '../../protocol/metrics.ts';
import { PROTOCOL_VERSION } from '../../protocol/messages.ts';
import { REPORT_SCHEMA_VERSION } from '../../protocol/report.ts';
import { CHECKOUT } from './tools.ts';

const read = (name: string): string => readFileSync(join(CHECKOUT, name), 'utf8');
const PAGES = readdirSync(join(CHECKOUT, 'docs'))
  .filter((name) => name.endsWith('.md'))
  .map((name) => `docs/${name}`);
/** Those of ways to launch that this file's neighbours test, and what all have in common. */
const OWN = [
  'compatibility',
  'launch-compose',
  'launch-docker',
  'launch-kubernetes',
  'launch-slurm',
  'launch-systemd',
  'README',
].map((name) => `docs/${name}.md`);

/** The lines of fenced shell code, continuation lines put together, comments left out. */
function shellLines(page: string): string[] {
  const blocks = [...read(page).matchAll(/```sh\n([^]*?)```/g)].map(([, block = '']) => block);
  return blocks.flatMap((block) =>
    block
      .replaceAll(/\\\n\s*/g, ' ')
      .split('\n')
      .map((line) => line.replace(/\s+#.*$/, '').trim())
      .filter((line) => line !== '' && !line.startsWith('#')),
  );
}

/** Lockstep's part of a shell line; null: it has none. */
function commandIn(line: string): string[] | null {
  const found =
    /(?:npx lockstep|lockstep\.mjs|docker run .*lockstep:\w+) (.*)$/.exec(line)?.[1] ??
    /^npm run setup -- (.*)$/.exec(line)?.[1]?.replace(/^/, 'setup ') ??
    /^sbatch .*lockstep\.sbatch (.*)$/.exec(line)?.[1]?.replace(/^/, 'coordinator ');
  return found === undefined ? null : found.split(/\s+/);
}

const COMMANDS = PAGES.flatMap((page) =>
  shellLines(page).flatMap((line) => {
    const words = commandIn(line);
    return words === null ? [] : [[page, words.join(' ')] as const];
  }),
);

it('there are pages, with commands in them', () => {
  expect(PAGES).toEqual(expect.arrayContaining(OWN));
  expect(COMMANDS.length).toBeGreaterThan(5);
});

it.each(COMMANDS)('%s: lockstep %s', (_, line) => {
  expect(() => parseCommand(line.split(' '), {}, '0')).not.toThrow();
});

it('a flag that there is none of would be found', () => {
  expect(() => parseCommand(commandIn('sbatch -N2 deploy/slurm/lockstep.sbatch j --epoch 3') ?? [], {}, '0')).toThrow(
    '--epoch',
  );
});

describe.each(OWN)('%s', (page) => {
  const text = read(page);

  it('names flags that there are', () => {
    const own = new Set(
      buildProgram('0', () => {}).commands.flatMap(({ options }) => options.flatMap(({ long }) => long ?? [])),
    );
    // Not in fenced code, which has others' flags, too: that is parsed above.
    const prose = text
      .replaceAll(/```[^]*?```/g, '')
      .replaceAll(/`(?:docker|systemctl|kubectl|sbatch|helm)[^`]*`/g, '');
    const flags = [...prose.matchAll(/`(--[a-z-]+)/g)].map(([, flag = '']) => flag);
    const others = new Set([
      '--requeue',
      '--signal',
      '--scale',
      '--build-arg',
      '--no-healthcheck',
      '--epochs',
      '--job',
    ]);
    expect(flags.filter((flag) => !own.has(flag) && !others.has(flag))).toEqual([]);
  });

  it('names files that there are', () => {
    const named = [...text.matchAll(/(?:^|[\s`"=(])((?:deploy|test|docs|dashboards|jobs)\/[\w./-]+\w)/gm)].map(
      ([, path = '']) => path,
    );
    const made = ['deploy/compose/secrets', 'deploy/compose/secrets/token'];
    expect(named.filter((path) => !made.includes(path) && !isThere(path))).toEqual([]);
  });

  it('has links that lead somewhere', () => {
    const links = [...text.matchAll(/\]\((?!https?:)([^)#]+)/g)].map(([, link = '']) => join(dirname(page), link));
    expect(links.filter((link) => !isThere(link))).toEqual([]);
  });

  it('names codes and metrics that there are', () => {
    const codes = [...text.matchAll(/\b(E_[A-Z_]+)\b/g)].map(([, code = '']) => code);
    const known = read('protocol/errors.ts');
    expect(codes.filter((code) => !known.includes(`'${code}'`))).toEqual([]);
    const metrics = [...text.matchAll(/`(lockstep_[a-z_]+)`/g)].map(([, name = '']) => name);
    expect(metrics.filter((name) => !(name in METRICS))).toEqual([]);
  });
});

function isThere(path: string): boolean {
  return existsSync(join(CHECKOUT, path));
}

describe('the compatibility policy', () => {
  const text = read('docs/compatibility.md');
  const row = (what: string): string[] =>
    text
      .split('\n')
      .find((line) => line.startsWith(`| ${what}`))
      ?.split('|')
      .map((cell) => cell.trim()) ?? [];

  it.each([
    ['control messages', PROTOCOL_VERSION, 'E_PROTOCOL_VERSION'],
    ['a checkpoint', CHECKPOINT_SCHEMA, 'E_RECORD_VERSION'],
    ['the journal', JOURNAL_SCHEMA, 'E_RECORD_VERSION'],
    ['the report', REPORT_SCHEMA_VERSION, 'E_RECORD_VERSION'],
  ])('has the version of %s that the code has: %d', (what, version, code) => {
    const [, , , now, , refusal] = row(what);
    expect([now, refusal]).toEqual([String(version), `\`${code}\``]);
  });

  it('says of exit codes what they are', () => {
    const exit = (code: ErrorCode): number => exitCodeOf(new LockstepError(code, ''));
    expect([exit('E_PROTOCOL_VERSION'), exit('E_RECORD_VERSION')]).toEqual([1, 2]);
    expect(text).toMatch(/A worker of another version ends with code 1/);
    expect(text).toMatch(/`--resume` on a checkpoint of another version ends with code 2/);
    expect(read('CHANGELOG.md')).toContain(
      `Protocol ${PROTOCOL_VERSION}, checkpoint schema ${CHECKPOINT_SCHEMA}, journal schema ${JOURNAL_SCHEMA}, report schema ${REPORT_SCHEMA_VERSION}.`,
    );
  });
});
