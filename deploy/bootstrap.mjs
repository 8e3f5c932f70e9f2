// What must happen before the first import of a package: check Node, install the npm packages of this checkout, make Node read
// TypeScript. Plain JavaScript of the language's 2015 edition at load time, so that an old Node reads it far enough to be told
// what is wrong. Costs a few milliseconds when there is nothing to do.

import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, unlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const CHECKOUT = dirname(dirname(fileURLToPath(import.meta.url)));

/** Oldest release of each line that is supported; later lines are. */
const OLDEST = { 20: 19, 22: 12 };

/** The reason why this Node cannot run Lockstep; null when it can. */
export function nodeProblem(version) {
  const parts = version.replace(/^v/, '').split('.').map(Number);
  const major = parts[0];
  const minor = parts[1];
  const oldest = OLDEST[major];
  const isSupported = major >= 24 || (oldest !== undefined && minor >= oldest);
  if (isSupported) return null;
  return 'Node ' + version + ' is too old or an unsupported line';
}

/** Ends the process with exit code 2 when this Node is too old. */
export function ensureNode(version) {
  const problem = nodeProblem(version === undefined ? process.version : version);
  if (problem === null) return;
  process.stderr.write(
    'lockstep: E_NODE_VERSION: ' +
      problem +
      '\n  -> Install Node 24, 22.12 or later, or 20.19 or later, and start again.\n',
  );
  process.exit(2);
}

function lockHash(checkout) {
  return createHash('sha256')
    .update(readFileSync(join(checkout, 'package-lock.json')))
    .digest('hex');
}

/** True when node_modules was installed whole from the present package-lock.json. */
export function packagesAreCurrent(checkout) {
  try {
    return readFileSync(join(checkout, 'node_modules', '.lockstep-installed'), 'utf8') === lockHash(checkout);
  } catch (error) {
    return false;
  }
}

function isAlive(pid) {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error.code === 'EPERM';
  }
}

/** Takes the lock, or waits for the living process that holds it; a dead one's is taken over. */
async function takeLock(lock) {
  for (;;) {
    try {
      writeFileSync(lock, String(process.pid), { flag: 'wx' });
      return;
    } catch (error) {
      if (error.code !== 'EEXIST') throw error;
    }
    let pid = Number.NaN;
    try {
      pid = Number(readFileSync(lock, 'utf8'));
    } catch (error) {
      continue;
    }
    if (pid > 0 && isAlive(pid)) {
      await new Promise((resolve) => {
        setTimeout(resolve, 200);
      });
    } else {
      rmSync(lock, { force: true });
    }
  }
}

/** Runs `npm ci` in `checkout` unless its packages are current. A killed one is repaired by the next. */
export async function ensurePackages(checkout) {
  const place = checkout === undefined ? CHECKOUT : checkout;
  if (packagesAreCurrent(place)) return;
  const lock = join(place, '.lockstep-install.lock');
  await takeLock(lock);
  try {
    if (packagesAreCurrent(place)) return;
    const startedAt = Date.now();
    process.stdout.write('setup: npm packages: started\n');
    const ticker = setInterval(() => {
      process.stdout.write('setup: npm packages: ' + Math.round((Date.now() - startedAt) / 1000) + ' s\n');
    }, 5000);
    try {
      await npmCi(place);
    } finally {
      clearInterval(ticker);
    }
    const stamp = join(place, 'node_modules', '.lockstep-installed');
    mkdirSync(dirname(stamp), { recursive: true });
    writeFileSync(stamp + '.new', lockHash(place));
    renameSync(stamp + '.new', stamp);
    process.stdout.write('setup: npm packages: done in ' + Math.round((Date.now() - startedAt) / 1000) + ' s\n');
  } finally {
    unlinkSync(lock);
  }
}

function npmCi(checkout) {
  const npm = process.env.npm_execpath;
  const isScript = npm !== undefined && /\.c?js$/.test(npm) && existsSync(npm);
  const args = ['ci', '--ignore-scripts', '--include=dev', '--no-audit', '--no-fund', '--loglevel=error'];
  const child = isScript
    ? spawn(process.execPath, [npm].concat(args), { cwd: checkout, stdio: ['ignore', 'pipe', 'pipe'] })
    : spawn('npm', args, { cwd: checkout, stdio: ['ignore', 'pipe', 'pipe'] });
  let words = '';
  const keep = (chunk) => {
    words = (words + chunk).slice(-4000);
  };
  child.stdout.on('data', keep);
  child.stderr.on('data', keep);
  return new Promise((resolve) => {
    const fail = (why) => {
      process.stderr.write(
        'lockstep: E_DOWNLOAD: the npm packages could not be installed: ' +
          why +
          "\n  -> Check the network and the registry in npm's settings, then start again.\n",
      );
      rmSync(join(checkout, '.lockstep-install.lock'), { force: true });
      process.exit(1);
    };
    child.on('error', (error) => fail(error.code === 'ENOENT' ? 'npm is not on the PATH' : error.message));
    child.on('close', (code) =>
      code === 0 ? resolve() : fail('npm ci ended with code ' + code + ': ' + words.trim()),
    );
  });
}

/** From here on .ts modules can be imported: by Node itself where it strips types, else through tsx. */
export async function registerTypeScript() {
  if (process.features.typescript) return;
  const esm = await import('tsx/esm/api');
  esm.register();
}

/**
 * From here on .ts files can be required, too: a user's job outside of a package of type "module" is loaded as CommonJS. Not for
 * everybody, because every file of every package is then looked through: a worker's start takes 0.4 s more of its processor.
 */
export async function registerCommonTypeScript() {
  if (process.features.typescript) return;
  const cjs = await import('tsx/cjs/api');
  cjs.register();
}
