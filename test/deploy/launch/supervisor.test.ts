// The supervisor of a host as a process, its launcher played by the test: when it ends and its workers with it, and that a second one of the
// same launch never has workers while the first one's live. The workers look for a coordinator that is not there, which keeps them alive.

import { spawn, type ChildProcess } from 'node:child_process';
import { mkdtempSync, readdirSync, realpathSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import {
  CHANNEL_VERSION,
  Lines,
  readFromHost,
  toHostLine,
  type FromHost,
  type Prepare,
  type ToHost,
} from '../../../deploy/launch/channel.ts';
import { LOCKSTEP_VERSION } from '../../../deploy/version.ts';
import { processesNaming } from '../../e2e/lockstep.ts';

const COMMAND = ['--import', import.meta.resolve('tsx'), join(import.meta.dirname, '..', 'cli-process.ts')];
const JOB = join(import.meta.dirname, '..', 'jobs', 'small.ts');
const WAIT = { timeout: 30_000, interval: 20 };
const PREPARE: Prepare = {
  kind: 'prepare',
  version: CHANNEL_VERSION,
  lockstep: LOCKSTEP_VERSION,
  launch: 'to be replaced by each test',
  engine: 'wasm',
  adapter: null,
  slots: 1,
  graceMs: 60_000,
};

let place = '';
beforeAll(() => {
  place = mkdtempSync(join(realpathSync(tmpdir()), 'lockstep-supervisor-'));
});
afterAll(() => rmSync(place, { recursive: true, force: true }));

class Launcher {
  readonly child: ChildProcess;
  readonly heard: FromHost[] = [];
  readonly ended: Promise<number | null>;
  /** Nobody listens there; no other test's workers call it. */
  readonly url: string;

  constructor(launch: string, name: string, wish: Partial<Prepare> = {}) {
    this.url = `http://127.0.0.1:1/${name}`;
    const env = { ...process.env, TMPDIR: place };
    this.child = spawn(process.execPath, [...COMMAND, 'worker', '--launched'], {
      env,
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    const lines = new Lines();
    this.child.stdout?.on('data', (chunk: Buffer) => {
      for (const line of lines.take(chunk)) this.heard.push(...[readFromHost(line) ?? []].flat());
    });
    this.ended = new Promise((resolve) => {
      this.child.once('exit', resolve);
    });
    this.child.stdin?.on('error', () => {});
    this.send({ ...PREPARE, launch, ...wish });
  }

  send(message: ToHost): void {
    this.child.stdin?.write(toHostLine(message));
  }

  async until(kind: FromHost['kind']): Promise<FromHost> {
    return vi.waitFor(() => {
      const found = this.heard.find((message) => message.kind === kind);
      if (found === undefined) throw new Error(`not yet: ${kind}, only ${JSON.stringify(this.heard)}`);
      return found;
    }, WAIT);
  }

  get workers(): number[] {
    return processesNaming(this.url);
  }

  /** Has it start its workers; resolves when they are there. */
  async begun(): Promise<this> {
    await this.until('prepared');
    this.send({
      kind: 'start',
      coordinatorUrl: this.url,
      token: 'a secret of the test',
      tls: { cert: null, key: null, ca: null, 'client-ca': null },
      job: JOB,
      flags: [],
      environment: {},
      engine: 'wasm',
      restartLimit: 3,
      pin: 'off',
    });
    await vi.waitFor(() => {
      if (this.workers.length !== 1) throw new Error(`${this.workers.length} workers, and not one`);
    }, WAIT);
    return this;
  }
}

/** What a test that failed may have left. */
function end(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // It has ended by itself.
  }
}

const started: Launcher[] = [];
afterEach(async () => {
  for (const one of started.splice(0)) {
    if (one.child.exitCode === null && one.child.signalCode === null) one.child.kill('SIGKILL');
    await one.ended;
    for (const pid of one.workers) end(pid);
  }
});

let launches = 0;
function launcher(name: string, launch: string, wish?: Partial<Prepare>): Launcher {
  const one = new Launcher(launch, name, wish);
  started.push(one);
  return one;
}
const secret = (): string => `the launch ${process.pid} ${launches++}`;

describe.skipIf(process.platform !== 'linux')('the supervisor of a host', () => {
  it('ends with its connection, its workers with it, and leaves no secret on the disk', async () => {
    const one = await launcher('cut', secret()).begun();
    expect(readdirSync(place).some((name) => name.startsWith('lockstep-'))).toBe(true);
    one.child.stdin?.end();
    expect(await one.ended).toBe(0);
    expect(one.workers).toEqual([]);
    expect(readdirSync(place).filter((name) => name.startsWith('lockstep-'))).toEqual([]);
  });

  it('ends when it has heard nothing for the grace period, though its connection is there', async () => {
    const one = await launcher('silence', secret(), { graceMs: 3000 }).begun();
    expect(await one.ended).toBe(0);
    expect(one.workers).toEqual([]);
  });

  it('makes room for another one of the same launch, which begins when its workers have ended', async () => {
    const launch = secret();
    const first = await launcher('first', launch).begun();
    const second = launcher('second', launch);
    await second.until('prepared');
    expect(first.workers).toEqual([]);
    await second.begun();
    expect(await first.ended).toBe(0);
  });

  it('stays where one of another launch comes', async () => {
    const first = await launcher('stays', secret()).begun();
    await launcher('other', secret()).begun();
    expect(first.workers).toHaveLength(1);
  });

  it('takes its workers with it when it is killed', async () => {
    const one = await launcher('killed', secret()).begun();
    one.child.kill('SIGKILL');
    await vi.waitFor(() => expect(one.workers).toEqual([]), WAIT);
  });

  it('refuses a launcher of another version', async () => {
    const one = launcher('old', secret(), { lockstep: '0.0.1' });
    expect(await one.until('refused')).toMatchObject({ code: 'E_PROTOCOL_VERSION' });
    expect(await one.ended).toBe(1);
  });

  it('says why it can not start a job', async () => {
    const one = launcher('no-job', secret());
    await one.until('prepared');
    one.send({
      kind: 'start',
      coordinatorUrl: one.url,
      token: 'x',
      tls: { cert: null, key: null, ca: null, 'client-ca': null },
      job: './no-such-job.ts',
      flags: [],
      environment: {},
      engine: 'wasm',
      restartLimit: 0,
      pin: 'off',
    });
    expect(await one.until('refused')).toMatchObject({ code: 'E_JOB_NOT_FOUND' });
    expect(await one.ended).toBe(1);
  });
});
