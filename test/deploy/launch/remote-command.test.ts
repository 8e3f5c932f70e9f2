// What ssh is started with: a remote command that means what it says to a real shell, whatever is in the names; and why a host could not be
// reached.

import { execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { remoteCommand, sshArguments, unreachableBecause } from '../../../deploy/launch/remote-command.ts';

const NASTY = [
  'a b',
  "it's",
  '$(touch pwned)',
  '`touch pwned`',
  '"; touch pwned; "',
  "'; touch pwned; '",
  'a\\b',
  'a;b&c|d>e<f',
  '*?[x]',
  '~root',
  '-x',
  'ä ö',
  '!!',
  '#no',
];

let place = '';
beforeAll(() => {
  place = mkdtempSync(join(realpathSync(tmpdir()), 'lockstep-quoting-'));
});
afterAll(() => rmSync(place, { recursive: true, force: true }));

/** As sshd does: the user's login shell is given the line. */
function asLoginShell(line: string, shell = 'sh', cwd = place): string {
  return execFileSync(shell, ['-c', line], { cwd, encoding: 'utf8', env: { HOME: place, PATH: process.env['PATH'] } });
}

describe('the remote command', () => {
  it.each(NASTY)('starts the Node and in the directory that are named %s, and does nothing else', (name) => {
    const directory = join(place, name);
    mkdirSync(directory, { recursive: true });
    const node = join(directory, 'node');
    writeFileSync(node, '#!/bin/sh\npwd\nfor word in "$@"; do printf "<%s>" "$word"; done\n', { mode: 0o755 });
    const command = remoteCommand({ directory, node }, ['worker', name]);
    for (const shell of ['sh', 'bash']) {
      expect(asLoginShell(command, shell)).toBe(`${directory}\n<deploy/lockstep.mjs><worker><${name}>`);
    }
    expect(execFileSync('find', [place, '-name', 'pwned'], { encoding: 'utf8' })).toBe('');
  });

  it("finds a directory below the user's home", () => {
    mkdirSync(join(place, 'my lockstep'), { recursive: true });
    expect(asLoginShell(remoteCommand({ directory: '~/my lockstep', node: 'pwd' }, []), 'sh', '/')).toBe(
      `${join(place, 'my lockstep')}\n`,
    );
  });

  it.each([
    ['no such directory', '/no/such', 'node', 72],
    ['no such Node', '/', '/no/such/node', 127],
  ])('with %s ends with a code of its own', (_, directory, node, code) => {
    const { status } = spawnSync('sh', ['-c', remoteCommand({ directory, node }, [])], { stdio: 'ignore' });
    expect(status).toBe(code);
  });
});

describe('the arguments of ssh', () => {
  it("never ask, time out, and let the user's options win; the host can't be taken for one of them", () => {
    const options = { port: 2222, identityFile: 'key', options: ['ConnectTimeout=3'], graceSeconds: 30 };
    const words = sshArguments('ada@gpu1', options, 'true');
    expect(words.slice(0, 3)).toEqual(['-T', '-o', 'ConnectTimeout=3']);
    expect(words.join(' ')).toContain('-p 2222 -i key -o IdentitiesOnly=yes -o BatchMode=yes');
    expect(words.join(' ')).toContain('-o ServerAliveInterval=10 -o ServerAliveCountMax=3');
    expect(words.slice(-3)).toEqual(['--', 'ada@gpu1', 'true']);
  });
});

describe('a host that could not be reached', () => {
  const there = { directory: '/opt/lockstep', node: 'node' };
  it.each([
    [255, 'ssh: Could not resolve hostname gpu9: Name or service not known', true, 'Correct the name.'],
    [
      255,
      'ada@gpu1: Permission denied (publickey).',
      true,
      'Give it your key: ssh-copy-id gpu1; or name one with --ssh-identity-file.',
    ],
    [255, 'Host key verification failed.', true, 'Look at it by hand once: ssh gpu1'],
    [255, 'ssh: connect to host gpu1 port 22: Connection refused', false, 'Try by hand: ssh gpu1 true'],
    [255, 'Timeout, server gpu1 not responding.', false, 'Try by hand: ssh gpu1 true'],
    [72, "sh: 1: cd: can't cd to /opt/lockstep", true, 'Install Lockstep there, or name its place with --remote-dir.'],
    [127, 'sh: 1: exec: node: not found', true, "Name Node's path there with --remote-node."],
    [1, 'something broke', false, "Look at the log of gpu1 in the run's logs/."],
  ])('with code %i and "%s"', (code, line, isFinal, remedy) => {
    expect(unreachableBecause('gpu1', code, [line], there)).toMatchObject({ isFinal, remedy });
  });
});
