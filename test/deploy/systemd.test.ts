// deploy/systemd/ as systemd reads it, in a tree of its own beside the machine's standard units; and its command lines.

import { chmodSync, cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished, type TestContext } from 'vitest';
import { parseCommand } from '../../deploy/options.ts';
import { CHECKOUT, need, needProgram, run, type Ran } from './tools.ts';

const SOURCE = join(CHECKOUT, 'deploy', 'systemd');
const UNITS = ['lockstep-coordinator.service', 'lockstep-worker@.service'] as const;
const STANDARD = '/lib/systemd/system';
const NAMES = ['lockstep-coordinator.service', 'lockstep-worker@0.service'];

const textOf = (name: string): string => readFileSync(join(SOURCE, name), 'utf8');

/** The root of a tree with our units as `change` leaves them, the additions where they are wished, and a Node that can be executed. */
function tree(
  context: TestContext,
  options: { readonly change?: (text: string) => string; readonly additions?: boolean } = {},
): string {
  needProgram(context, 'systemd-analyze', 'apt-get install systemd');
  need(context, readdirSync('/lib').includes('systemd'), `no ${STANDARD}: apt-get install systemd`);
  const root = mkdtempSync(join(tmpdir(), 'lockstep-systemd-'));
  onTestFinished(() => rmSync(root, { recursive: true }));
  cpSync(STANDARD, join(root, 'usr', STANDARD), { recursive: true, verbatimSymlinks: true });
  const own = join(root, 'etc', 'systemd', 'system');
  mkdirSync(own, { recursive: true });
  for (const unit of UNITS) {
    writeFileSync(join(own, unit), (options.change ?? ((text) => text))(textOf(unit)));
    if (options.additions !== true) continue;
    mkdirSync(join(own, `${unit}.d`));
    const additions = unit.includes('worker') ? ['tls.conf', 'gpu.conf'] : ['tls.conf'];
    for (const name of additions) writeFileSync(join(own, `${unit}.d`, name), textOf(name));
  }
  mkdirSync(join(root, 'usr', 'bin'), { recursive: true });
  writeFileSync(join(root, 'usr', 'bin', 'node'), '#!/bin/sh\n');
  chmodSync(join(root, 'usr', 'bin', 'node'), 0o755);
  return root;
}

const verify = (root: string): Ran =>
  run('systemd-analyze', ['verify', `--root=${root}`, '--recursive-errors=no', ...NAMES]);

describe('systemd-analyze verify', () => {
  it.for([[false], [true]])('finds nothing wrong, with the additions: %s', ([additions = false], context) => {
    expect(verify(tree(context, { additions }))).toEqual({ code: 0, stdout: '', stderr: '' });
  });

  it.for([
    ['a key that there is none of', 'TimeoutStopSec=', 'TimeOutStopSec=', "Unknown key 'TimeOutStopSec'"],
    ['a word that is none', 'Restart=on-failure', 'Restart=on-failur', 'Failed to parse service restart specifier'],
    ['a program that is not there', '/usr/bin/node ', '/usr/bin/nodejs ', 'Command /usr/bin/nodejs is not executable'],
  ])('refuses %s', ([, from = '', to = '', told = ''], context) => {
    const { code, stderr } = verify(tree(context, { change: (text) => text.replaceAll(from, to) }));
    expect([code, stderr]).toEqual([1, expect.stringContaining(told)]);
  });
});

it('systemd-analyze security: little is exposed', (context) => {
  const root = tree(context);
  for (const name of NAMES) {
    // In tenths; a service without any hardening has 96.
    const { code } = run('systemd-analyze', ['security', '--offline=yes', '--threshold=20', `--root=${root}`, name]);
    expect([name, code]).toEqual([name, 0]);
  }
});

it('the command lines are ones that Lockstep takes, with the variables of the documentation', () => {
  const lines = new Map(
    UNITS.flatMap((unit) =>
      [...textOf(unit).matchAll(/^(Exec\w+)=\/usr\/bin\/node \/opt\/lockstep\/deploy\/lockstep\.mjs (.*)$/gm)].map(
        ([, key = '', words = '']): [string, string[]] => [
          `${unit} ${key}`,
          words
            .replaceAll('${LOCKSTEP_JOB}', 'cifar10-cnn')
            .replaceAll('%S', '/var/lib')
            .replaceAll('%d', '/run/credentials/x')
            .split(' '),
        ],
      ),
    ),
  );
  const variables = (file: string): Record<string, string> => {
    const docs = readFileSync(join(CHECKOUT, 'docs/launch-systemd.md'), 'utf8');
    const body = docs.split(`cat > /etc/lockstep/${file} <<END\n`)[1]?.split('\nEND\n')[0] ?? '';
    return Object.fromEntries(body.split('\n').map((line) => line.split('=', 2) as [string, string]));
  };
  const parsed = (name: string, file: string): unknown => parseCommand(lines.get(name) ?? [], variables(file), '0');
  expect(parsed('lockstep-coordinator.service ExecStart', 'coordinator.env')).toMatchObject({
    kind: 'coordinator',
    options: {
      job: 'cifar10-cnn',
      flags: {
        autoResume: true,
        runDir: '/var/lib/lockstep/run',
        workers: 8,
        listen: { host: '0.0.0.0', port: 29_400 },
        tokenFile: '/run/credentials/x/token',
      },
    },
  });
  expect(parsed('lockstep-worker@.service ExecStart', 'worker.env')).toMatchObject({
    kind: 'worker',
    flags: { coordinator: { url: 'https://10.0.0.5:29400' }, termGrace: 45, tokenFile: '/run/credentials/x/token' },
  });
  for (const [unit, file] of [
    ['lockstep-coordinator.service', 'coordinator.env'],
    ['lockstep-worker@.service', 'worker.env'],
  ] as const) {
    expect(parsed(`${unit} ExecStartPre`, file)).toEqual({ kind: 'setup', engine: 'auto', job: 'cifar10-cnn' });
  }
});

it('a worker has the time that --term-grace wishes', () => {
  const seconds = Number(/--term-grace (\d+)/.exec(textOf('lockstep-worker@.service'))?.[1]);
  const minutes = Number(/TimeoutStopSec=(\d+)min/.exec(textOf('lockstep-worker@.service'))?.[1]);
  expect(seconds).toBeGreaterThan(0);
  expect(seconds).toBeLessThan(60 * minutes);
});
