import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it, onTestFinished } from 'vitest';
import { latestRun, openRunDirectory, type RunDirectory } from '../../../coordinator/record/run-directory.ts';
import { exitCodeOf, LockstepError } from '../../../protocol/errors.ts';
import { temporaryDirectory } from './temporary.ts';

const HOLDER = fileURLToPath(new URL('hold-process.ts', import.meta.url));

/** Another process that opens the directory; resolves to what it said. */
async function openElsewhere(path: string, mode = 'new'): Promise<{ said: string; child: ChildProcess }> {
  const child = spawn(process.execPath, ['--import', 'tsx', HOLDER, path, mode], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  onTestFinished(() => {
    child.kill('SIGKILL');
  });
  const [line] = (await once(child.stdout, 'data')) as [Buffer];
  return { said: line.toString().trim(), child };
}

async function kill(child: ChildProcess): Promise<void> {
  const end = once(child, 'exit');
  child.kill('SIGKILL');
  await end;
}

function refusal(attempt: () => unknown): LockstepError {
  try {
    attempt();
  } catch (error) {
    if (error instanceof LockstepError) return error;
    throw error;
  }
  throw new Error('it was not refused');
}

function open(path: string, resume = false): RunDirectory {
  const directory = openRunDirectory(path, resume);
  onTestFinished(() => directory.release());
  return directory;
}

/** Everything under a directory, with its content. */
const contentOf = (path: string): string[] =>
  readdirSync(path, { recursive: true, encoding: 'utf8' })
    .toSorted()
    .map((name) => {
      const file = join(path, name);
      return readdirSync(path, { recursive: true, withFileTypes: true }).some(
        (e) => e.isFile() && join(e.parentPath, e.name) === file,
      )
        ? `${name}: ${readFileSync(file, 'utf8')}`
        : name;
    });

describe('who may open a run directory', () => {
  it('a new one is made, with logs/ in it; the endpoint is there until it is released', async () => {
    const path = join(temporaryDirectory(), 'runs', 'job-1');
    const directory = open(path);
    expect(directory.path).toBe(path);
    expect(directory.notices).toEqual([]);
    await directory.writeEndpoint({ url: 'http://127.0.0.1:4242', pid: 77, tokenFile: '/t' });
    expect(JSON.parse(readFileSync(join(path, 'endpoint.json'), 'utf8'))).toEqual({
      url: 'http://127.0.0.1:4242',
      pid: 77,
      tokenFile: '/t',
    });
    await directory.release();
    expect(readdirSync(path)).toEqual(['.term-1', 'logs']);
  });

  it('one whose holder has ended is free, also while nobody has asked yet how it ended', async () => {
    const path = temporaryDirectory();
    // The shell becomes a process that waits for no child.
    const script = '"$0" --import tsx "$1" "$2" new < /dev/null & exec sleep 1000';
    const parent = spawn('sh', ['-c', script, process.execPath, HOLDER, path], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    onTestFinished(() => {
      parent.kill('SIGKILL');
    });
    await once(parent.stdout, 'data');
    const [, pid] = /^\.lock-(\d+)-/.exec(readdirSync(path).find((name) => name.startsWith('.lock-')) ?? '') ?? [];
    await expect.poll(() => readFileSync(`/proc/${pid}/stat`, 'utf8'), { timeout: 10_000 }).toMatch(/\) Z /);
    expect(open(path).notices).toEqual([expect.stringContaining(`process ${pid}) ended without releasing it`)]);
  });

  it('one that a living process holds is refused, naming its pid and where it listens', async () => {
    const path = temporaryDirectory();
    const { said, child } = await openElsewhere(path);
    expect(said).toBe('held');
    writeFileSync(join(path, 'endpoint.json'), JSON.stringify({ url: 'http://127.0.0.1:5151', pid: child.pid }));
    const before = contentOf(path);
    const error = refusal(() => openRunDirectory(path, false));
    expect(error.code).toBe('E_RUN_DIR_IN_USE');
    expect(error.message).toContain(`process ${child.pid}`);
    expect(error.message).toContain('http://127.0.0.1:5151');
    expect(exitCodeOf(error)).toBe(2);
    expect(contentOf(path)).toEqual(before);
  });

  it('one that this very process holds is refused', () => {
    const path = temporaryDirectory();
    open(path);
    expect(refusal(() => openRunDirectory(path, false)).code).toBe('E_RUN_DIR_IN_USE');
  });

  it('one whose holder lives and does not answer is taken from it: the older sees who has it, and takes nothing away at its end', async () => {
    const path = temporaryDirectory();
    const older = openRunDirectory(path, false);
    expect([older.term, older.hung, older.successor()]).toEqual([1, [], null]);
    // Another process, for which this one is the hung holder.
    const { said, child } = await openElsewhere(path, `fences ${process.pid}`);
    expect(said).toBe('held');
    expect(older.successor()).toEqual({ term: 2, host: hostname(), pid: child.pid });
    writeFileSync(join(path, 'endpoint.json'), '{}');
    await older.release();
    expect(existsSync(join(path, 'endpoint.json'))).toBe(true);
    expect(refusal(() => openRunDirectory(path, false)).message).toContain(`process ${child.pid}`);
  });

  it('a killed holder’s lock and endpoint are removed, and that is said', async () => {
    const path = temporaryDirectory();
    const { child } = await openElsewhere(path);
    writeFileSync(join(path, 'endpoint.json'), '{"url":"http://127.0.0.1:5151"}');
    await kill(child);
    const directory = open(path);
    expect(directory.notices).toHaveLength(1);
    expect(directory.notices[0]).toContain(`process ${child.pid}`);
    expect(existsSync(join(path, 'endpoint.json'))).toBe(false);
    expect(readdirSync(path).filter((name) => name.startsWith('.lock-'))).toHaveLength(1);
  });

  it('a lock whose pid lives but began at another time is stale: the pid was used again', () => {
    const path = temporaryDirectory();
    const stale = { pid: process.ppid, started: '1', boot: null, host: hostname() };
    writeFileSync(join(path, `.lock-${process.ppid}-1`), JSON.stringify(stale));
    expect(open(path).notices).toHaveLength(1);
  });

  it('a lock of an earlier boot is stale whatever its pid', () => {
    const path = temporaryDirectory();
    writeFileSync(join(path, '.lock-1-9'), JSON.stringify({ pid: 1, started: null, boot: 'before', host: hostname() }));
    expect(open(path).notices).toHaveLength(1);
  });

  it('a lock of another host can’t be judged from here: refused, with the file to remove', () => {
    const path = temporaryDirectory();
    const lock = join(path, '.lock-4-9');
    writeFileSync(lock, JSON.stringify({ pid: 4, started: '9', boot: 'b', host: 'elsewhere' }));
    const error = refusal(() => openRunDirectory(path, false));
    expect(error.code).toBe('E_RUN_DIR_IN_USE');
    expect(error.message).toContain('host elsewhere');
    expect(error.remedy).toContain(lock);
    expect(existsSync(lock)).toBe(true);
  });

  it('of four that start at once on a dead one’s lock, at most one holds it', async () => {
    const path = temporaryDirectory();
    await kill((await openElsewhere(path)).child);
    const all = await Promise.all([1, 2, 3, 4].map(() => openElsewhere(path)));
    const said = all.map((one) => one.said);
    expect(said.filter((word) => word === 'held').length).toBeLessThanOrEqual(1);
    expect(said.filter((word) => word !== 'held').every((word) => word === 'E_RUN_DIR_IN_USE')).toBe(true);
  });

  it('releasing twice does not take the directory from the one that came after', async () => {
    const path = temporaryDirectory();
    const first = openRunDirectory(path, false);
    await first.release();
    const second = open(path);
    await second.writeEndpoint({ url: 'http://127.0.0.1:1', pid: 1, tokenFile: '/t' });
    await first.release();
    expect(existsSync(join(path, 'endpoint.json'))).toBe(true);
    expect(refusal(() => openRunDirectory(path, false)).code).toBe('E_RUN_DIR_IN_USE');
  });
});

describe('what a run directory holds', () => {
  it.each([['journal.jsonl'], ['report.json']])(
    'one with a %s is not used for a new run, and nothing in it is touched',
    (name) => {
      const path = temporaryDirectory();
      writeFileSync(join(path, name), 'x');
      const error = refusal(() => openRunDirectory(path, false));
      expect(error.code).toBe('E_RUN_DIR_NOT_EMPTY');
      expect(error.remedy).toContain('--resume');
      expect(error.remedy).toContain('--run-dir');
      expect(contentOf(path)).toEqual([`${name}: x`]);
    },
  );

  it('one with checkpoints is opened to resume, and what a killed writer left in it is removed and said', () => {
    const path = temporaryDirectory();
    for (const name of ['step-2', '.step-4.partial-99', '.step-1.deleted', '.step-3.replaced']) {
      mkdirSync(join(path, 'checkpoints', name), { recursive: true });
    }
    const directory = open(path, true);
    // The old step-3 had made room for a new one that never came: it is back.
    expect(readdirSync(join(path, 'checkpoints')).toSorted()).toEqual(['step-2', 'step-3']);
    expect(directory.notices).toEqual(['an unfinished checkpoint of step 4 is removed']);
  });

  it('resuming where no run is, is refused, and no directory is made', () => {
    const path = join(temporaryDirectory(), 'never');
    expect(refusal(() => openRunDirectory(path, true)).code).toBe('E_RUN_NOT_FOUND');
    expect(existsSync(path)).toBe(false);
  });

  it('a path that can’t be a directory is bad input that names it', () => {
    const file = join(temporaryDirectory(), 'file');
    writeFileSync(file, '');
    for (const path of [file, join(file, 'run')]) {
      const error = refusal(() => openRunDirectory(path, false));
      expect(error.message).toContain(path);
      expect(exitCodeOf(error)).toBe(2);
    }
  });
});

describe('the newest run of a job', () => {
  const runIn = (parent: string, name: string): void => {
    mkdirSync(join(parent, name));
    writeFileSync(join(parent, name, 'journal.jsonl'), '');
  };

  it('is found by the time in its name, among the runs of that job only', () => {
    const parent = temporaryDirectory();
    runIn(parent, 'cnn-20260102-000000');
    runIn(parent, 'cnn-20251231-235959');
    runIn(parent, 'cnn-small-20270101-000000');
    runIn(parent, 'cnn-mine');
    mkdirSync(join(parent, 'cnn-20280101-000000'));
    expect(latestRun(parent, 'cnn')).toBe(join(parent, 'cnn-20260102-000000'));
  });

  it('is null when there is none', () => {
    expect(latestRun(temporaryDirectory(), 'cnn')).toBeNull();
    expect(latestRun(join(temporaryDirectory(), 'never'), 'cnn')).toBeNull();
  });
});
