// A discovery script: what it may do wrong, and hosts that come and go by it, on this machine as the host.

import { chmodSync, mkdtempSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { discover, Fleet } from '../../../deploy/launch/fleet.ts';
import { LockstepError } from '../../../protocol/errors.ts';

let place = '';
beforeAll(() => {
  place = mkdtempSync(join(realpathSync(tmpdir()), 'lockstep-discovery-'));
});
afterAll(() => rmSync(place, { recursive: true, force: true }));

function script(name: string, text: string, mode = 0o755): string {
  const file = join(place, name);
  writeFileSync(file, `#!/bin/sh\n${text}\n`);
  chmodSync(file, mode);
  return file;
}

async function refusal(file: string): Promise<string> {
  try {
    await discover(file);
  } catch (error) {
    if (error instanceof LockstepError) return `${error.code} ${error.message.replaceAll(`${place}/`, '')}`;
    throw error;
  }
  return 'no refusal';
}

describe('a discovery script', () => {
  it('names hosts', async () => {
    const hosts = await discover(script('good', 'echo gpu1:4; echo "# spare"; echo gpu2'));
    expect(hosts.map(({ name, slots }) => [name, slots])).toEqual([
      ['gpu1', 4],
      ['gpu2', null],
    ]);
  });

  it.each([
    [
      'fails',
      'echo no network >&2; exit 3',
      0o755,
      'E_HOSTS --host-discovery-script fails: it ended with code 3: no network',
    ],
    ['not-mine', 'echo gpu1', 0o644, 'E_HOSTS --host-discovery-script not-mine: it cannot be run (EACCES)'],
    [
      'strange',
      'echo "gpu1 gpu2"',
      0o755,
      'E_HOSTS the output of strange:1: "gpu1 gpu2": it is not the name of a host',
    ],
  ])('that %s is refused by its name', async (name, text, mode, said) => {
    expect(await refusal(script(name, text, mode))).toBe(said);
  });
});

describe.skipIf(process.platform !== 'linux')('hosts that a script names', () => {
  it('are connected to, left when they are not named any more, and connected to again', async () => {
    const list = join(place, 'list');
    writeFileSync(list, '');
    const said: string[] = [];
    const fleet = new Fleet({
      hosts: null,
      discovery: { script: script('find', `cat ${list}`), intervalSeconds: 0.2 },
      nprocPerNode: undefined,
      hostsMax: null,
      retryLimit: 0,
      ssh: { port: null, identityFile: null, options: [], graceSeconds: 30 },
      place: { directory: '/', node: 'node' },
      engine: 'wasm',
      adapter: null,
      launch: `the launch of ${process.pid}`,
      start: {
        tls: { cert: null, key: null, ca: null, 'client-ca': null },
        flags: [],
        environment: {},
        restartLimit: 0,
        pin: 'off',
      },
      jobOn: () => 'no-job',
      isShown: false,
      say: (_level, host, message) => said.push(`${host}: ${message}`),
    });
    const slots = async (count: number): Promise<void> => {
      await vi.waitFor(
        () => {
          if (fleet.slots !== count) throw new Error(`${fleet.slots} slots; ${said.join('\n')}`);
        },
        { timeout: 30_000, interval: 20 },
      );
    };
    try {
      await fleet.connect();
      writeFileSync(list, 'localhost:3\n');
      expect(await fleet.gathered(1, () => false)).toBe('gathered');
      expect([fleet.slots, fleet.engineChoice().engine]).toEqual([3, 'wasm']);
      writeFileSync(list, '\n');
      await slots(0);
      writeFileSync(list, 'localhost:2\n');
      await slots(2);
      writeFileSync(list, 'local host\n');
      await vi.waitFor(() => expect(said.at(-1)).toMatch(/^discovery: the output of .*; the hosts stay as they are$/));
      expect(fleet.slots).toBe(2);
    } finally {
      await fleet.end();
    }
  });
});
