// `npm test`: types, lint, format, dead code, then all of vitest, each as a child process; every part runs even when one before it
// fails. Ends with `N passed, N failed` over everything, also when it is interrupted: the part under way is then told and has failed,
// and so has each that did not run. With arguments, which vitest takes as filters, only vitest runs.

import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { lastLine, tallyOfCheck, tallyOfVitest, total, type End, type Tally } from './house/tally.ts';

const CHECKOUT = fileURLToPath(new URL('..', import.meta.url));

/** A tool's own script, run by this Node: no shell, no PATH. */
interface Tool {
  readonly package: string;
  readonly script: string;
  readonly args: readonly string[];
}

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

/** The same as `npm run check`. */
const CHECKS: Readonly<Record<string, Tool>> = {
  types: { package: 'typescript', script: 'bin/tsc', args: ['--noEmit'] },
  lint: { package: 'oxlint', script: 'bin/oxlint', args: ['--type-aware', '--deny-warnings'] },
  format: { package: 'oxfmt', script: 'bin/oxfmt', args: ['--check'] },
  'dead code': { package: 'knip', script: 'bin/knip.js', args: [] },
};

/** Runs the suite, or with `argv` the vitest tests that match it. Resolves to the exit code: 0, or 1 on any failure. */
export async function runTests(argv: readonly string[]): Promise<number> {
  const interrupted = new AbortController();
  const interrupt = (): void => {
    interrupted.abort();
  };
  for (const signal of SIGNALS) process.on(signal, interrupt);

  const tallies: Tally[] = [];
  if (argv.length === 0) {
    for (const [name, tool] of Object.entries(CHECKS)) tallies.push(await runCheck(name, tool, interrupted.signal));
  } else {
    say('Only vitest, with these arguments; types, lint, format and dead code are skipped.');
  }
  tallies.push(await runVitest(argv, interrupted.signal));

  const sum = total(tallies);
  for (const note of sum.notes) say(note);
  say(lastLine(sum));
  for (const signal of SIGNALS) process.off(signal, interrupt);
  return sum.failed === 0 ? 0 : 1;
}

function say(line: string): void {
  process.stdout.write(`${line}\n`);
}

async function runCheck(name: string, tool: Tool, interrupted: AbortSignal): Promise<Tally> {
  const startedMs = performance.now();
  const { end, output } = await runTool(tool, 'kept', interrupted);
  const tally = tallyOfCheck(name, end);
  if (tally.failed > 0) process.stdout.write(output);
  say(
    `${name}: ${tally.failed === 0 ? 'passed' : 'failed'} in ${((performance.now() - startedMs) / 1000).toFixed(1)} s`,
  );
  return tally;
}

async function runVitest(argv: readonly string[], interrupted: AbortSignal): Promise<Tally> {
  const directory = mkdtempSync(join(tmpdir(), 'lockstep-test-'));
  const report = join(directory, 'report.json');
  const reporters = ['--reporter=default', '--reporter=json', `--outputFile.json=${report}`];
  try {
    const vitest: Tool = { package: 'vitest', script: 'vitest.mjs', args: ['run', ...reporters, ...argv] };
    const { end } = await runTool(vitest, 'shown', interrupted);
    return tallyOfVitest(end, readIfThere(report));
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

function readIfThere(file: string): string | null {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return null;
  }
}

/** Never rejects: a tool that cannot even be started has ended with code 127. */
async function runTool(
  tool: Tool,
  output: 'kept' | 'shown',
  interrupted: AbortSignal,
): Promise<{ end: End; output: string }> {
  if (interrupted.aborted) return { end: { signal: 'SIGINT' }, output: '' };
  const script = join(CHECKOUT, 'node_modules', tool.package, tool.script);
  const child = spawn(process.execPath, [script, ...tool.args], {
    cwd: CHECKOUT,
    stdio: output === 'shown' ? ['ignore', 'inherit', 'inherit'] : ['ignore', 'pipe', 'pipe'],
  });
  const chunks: Buffer[] = [];
  const keep = (chunk: Buffer): void => {
    chunks.push(chunk);
  };
  child.stdout?.on('data', keep);
  child.stderr?.on('data', keep);
  return new Promise((resolve) => {
    const tell = (): void => {
      child.kill('SIGINT');
    };
    interrupted.addEventListener('abort', tell, { once: true });
    child.on('error', () => {
      resolve({ end: { code: 127 }, output: '' });
    });
    child.on('close', (code, signal) => {
      interrupted.removeEventListener('abort', tell);
      resolve({ end: code === null ? { signal: String(signal) } : { code }, output: Buffer.concat(chunks).toString() });
    });
  });
}
