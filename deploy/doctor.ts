// `lockstep doctor`: what this machine has and what is missing, as a list with marks. It looks, it changes nothing; the engine
// is really loaded, in a process of its own, and says itself what it runs on. Imports nothing that needs the npm packages'
// native parts, so that it works where half of the rest does not.

import { spawn } from 'node:child_process';
import { createServer } from 'node:net';
import { availableParallelism, cpus, totalmem } from 'node:os';
import { statfsSync } from 'node:fs';
import type { DataSetDefinition } from '../jobs/contract.ts';
import type { NatsServer } from '../nats/server.ts';
import { LockstepError } from '../protocol/errors.ts';
import { examineEngines } from './engines.ts';
import { cacheDirectory } from './setup/cache.ts';
import { damagedFiles, dataSetDirectory } from './setup/dataset.ts';
import { findPip } from './setup/fetch.ts';
import {
  findCompiler,
  findTensorflow,
  findUserBinding,
  tensorflowDamage,
  testLoad,
  verifyTensorflow,
} from './setup/tensorflow.ts';
import { gpuRefusal } from './engine-noise.ts';
import { engineEnvironment } from '../worker/engine/environment.ts';
import { bytes } from './terminal/text.ts';
import { nodeProblem } from './bootstrap.mjs';

export interface Finding {
  readonly mark: 'ok' | 'missing' | 'note';
  readonly what: string;
  readonly found: string;
  readonly remedy?: string;
}

/** Disk that a first set-up needs, download and unpacked. */
const SETUP_BYTES = 2.5e9;

export interface DoctorWish {
  readonly natsUrl: NatsServer | null;
  readonly listen: { readonly host: string; readonly port: number };
  readonly dataSets: readonly DataSetDefinition[];
}

function node(): Finding {
  const problem = nodeProblem(process.version);
  return problem === null
    ? { mark: 'ok', what: 'Node', found: process.version }
    : { mark: 'missing', what: 'Node', found: problem, remedy: 'Install Node 24, 22.12 or later, or 20.19 or later.' };
}

function machine(): Finding {
  const found = `${availableParallelism()} cores (${cpus()[0]?.model.trim() ?? 'unknown'}), ${bytes(totalmem())} memory`;
  return { mark: 'ok', what: 'machine', found };
}

function cache(): Finding {
  try {
    const directory = cacheDirectory();
    const { bavail, bsize } = statfsSync(directory);
    const free = bavail * bsize;
    const found = `${directory}, ${bytes(free)} free`;
    return free > SETUP_BYTES || tensorflowDamage() === null
      ? { mark: 'ok', what: 'cache', found }
      : {
          mark: 'missing',
          what: 'cache',
          found,
          remedy: `Free ${bytes(SETUP_BYTES)}, or set LOCKSTEP_CACHE to another disk.`,
        };
  } catch (error) {
    return {
      mark: 'missing',
      what: 'cache',
      found: String(error),
      remedy: 'Set LOCKSTEP_CACHE to a directory that you may write to.',
    };
  }
}

async function tools(): Promise<Finding[]> {
  const installed = tensorflowDamage() === null;
  const compiler = await findCompiler();
  const pip = await findPip();
  return [
    compiler === null
      ? {
          mark: installed ? 'note' : 'missing',
          what: 'C++ compiler',
          found: "none on the PATH (set-up would fetch Zig's)",
          remedy: 'apt-get install g++',
        }
      : { mark: 'ok', what: 'C++ compiler', found: compiler.name },
    pip === null
      ? {
          mark: installed ? 'note' : 'missing',
          what: 'pip',
          found: 'not on the PATH',
          remedy: 'apt-get install python3-pip',
        }
      : { mark: 'ok', what: 'pip', found: pip.join(' ') },
  ];
}

async function engine(): Promise<Finding> {
  const what = 'tensorflow';
  const damage = tensorflowDamage();
  if (damage !== null) return { mark: 'missing', what, found: damage, remedy: 'npm run setup' };
  const bad = await verifyTensorflow();
  if (bad.length > 0) return { mark: 'missing', what, found: `${bad.join(', ')} altered`, remedy: 'npm run setup' };
  try {
    const { bindingPath } = findTensorflow();
    const version = await testLoad(bindingPath);
    const { device } = await realDevice(bindingPath);
    return { mark: 'ok', what, found: `TensorFlow ${version}, ran on ${device}` };
  } catch (error) {
    return {
      mark: 'missing',
      what,
      found: error instanceof Error ? error.message : String(error),
      remedy: 'npm run setup',
    };
  }
}

/** Runs one operation of the engine in a process of its own and asks the result where it lies; with what TensorFlow logged. */
async function realDevice(
  bindingPath: string,
  environment: Readonly<Record<string, string>> = {},
): Promise<{ readonly device: string; readonly log: string }> {
  const script = `
    const b = require(process.argv[1]);
    const a = b.createTensor([2], b.TF_FLOAT, Float32Array.of(1, 2));
    const [sum] = b.executeOp('AddV2', [{ name: 'T', type: b.TF_ATTR_TYPE, value: b.TF_FLOAT }], [a, a], 1);
    const values = b.tensorDataSync(sum.id);
    process.stdout.write(values[0] === 2 && values[1] === 4 ? (b.isUsingGpuDevice() ? 'a GPU' : 'the CPU') : 'wrong');`;
  const child = spawn(process.execPath, ['-e', script, bindingPath], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, ...environment },
  });
  let out = '';
  let log = '';
  child.stdout.on('data', (chunk: Buffer) => (out += chunk.toString()));
  child.stderr.on('data', (chunk: Buffer) => (log += chunk.toString()));
  const code = await new Promise((resolve) => {
    child.on('close', resolve);
  });
  if (code !== 0 || out === 'wrong')
    throw new Error(`an operation of the engine gave ${out === '' ? `exit code ${String(code)}` : out}`);
  return { device: out, log };
}

async function dataSet(definition: DataSetDefinition): Promise<Finding> {
  const directory = dataSetDirectory(definition);
  const damages = await damagedFiles(directory, definition.source?.files ?? []);
  return damages.length === 0
    ? { mark: 'ok', what: 'data', found: `${definition.name}, whole, in ${directory}` }
    : { mark: 'missing', what: 'data', found: `${definition.name}: ${damages.join('; ')}`, remedy: 'npm run setup' };
}

function port({ host, port: number }: DoctorWish['listen']): Promise<Finding> {
  const what = 'port';
  return new Promise((resolve) => {
    const server = createServer();
    server.on('error', (error) => {
      resolve({
        mark: 'missing',
        what,
        found: `${host}:${number} cannot be listened on: ${error.message}`,
        remedy: 'Stop what listens there, or use --listen 127.0.0.1:0.',
      });
    });
    server.listen(number, host, () => {
      server.close(() => resolve({ mark: 'ok', what, found: `${host}:${number} is free` }));
    });
  });
}

/** The rungs of the ladder other than `tensorflow`, which is tried for real above. */
async function otherEngines(): Promise<Finding[]> {
  const all = await examineEngines();
  const findings = all
    .filter(({ name }) => name !== 'tensorflow')
    .map(({ name, finding }): Finding =>
      finding.available
        ? { mark: 'ok', what: name, found: finding.detail }
        : { mark: 'note', what: name, found: finding.because, remedy: finding.remedy },
    );
  return Promise.all(findings.map(async (f) => (f.what === 'tensorflow-gpu' && f.mark === 'ok' ? onGpu(f) : f)));
}

/** Tried for real: TensorFlow goes on without a word on the CPU when a library of CUDA's does not load. */
async function onGpu(finding: Finding): Promise<Finding> {
  const remedy = 'npm run setup -- --engine tensorflow-gpu; LD_DEBUG=libs shows which library is not found';
  try {
    const bindingPath =
      tensorflowDamage('gpu') === null ? findTensorflow('gpu').bindingPath : (findUserBinding() ?? '');
    const { device, log } = await realDevice(bindingPath, {
      ...engineEnvironment(1),
      TF_FORCE_GPU_ALLOW_GROWTH: 'true',
      TF_CPP_MIN_LOG_LEVEL: '0',
    });
    if (device === 'a GPU') return { ...finding, found: `${finding.found}: ran there` };
    const why = gpuRefusal(log);
    const found = `${finding.found}, but it ran on ${device}${why === null ? '' : `: ${why}`}`;
    return { mark: 'missing', what: finding.what, found, remedy };
  } catch (error) {
    return {
      mark: 'missing',
      what: finding.what,
      found: error instanceof Error ? error.message : String(error),
      remedy,
    };
  }
}

async function nats(server: NatsServer): Promise<Finding> {
  const what = 'NATS';
  try {
    const { tryNats } = await import('./nats.ts');
    const { version, payloadBytes, hasJetStream } = await tryNats(server);
    const more = hasJetStream ? 'with JetStream' : 'without JetStream (a run keeps its record on disk only)';
    return {
      mark: 'ok',
      what,
      found: `${server.url}, nats-server ${version}, ${bytes(payloadBytes)} a message, ${more}`,
    };
  } catch (error) {
    const found = error instanceof Error ? error.message : String(error);
    const remedy = error instanceof LockstepError ? error.remedy : undefined;
    return { mark: 'missing', what, found, remedy: remedy ?? 'npm install' };
  }
}

/** Who has TensorFlow on a GPU can train without the one on the processor. */
function unlessOnGpu(finding: Finding, others: readonly Finding[]): Finding {
  const runsOnGpu = others.some(({ what, mark }) => what === 'tensorflow-gpu' && mark === 'ok');
  return runsOnGpu && finding.mark === 'missing' ? { ...finding, mark: 'note' } : finding;
}

export async function examine(wish: DoctorWish): Promise<Finding[]> {
  const others = await otherEngines();
  return [
    node(),
    machine(),
    cache(),
    ...(await tools()),
    unlessOnGpu(await engine(), others),
    ...others,
    ...(await Promise.all(wish.dataSets.map(dataSet))),
    await port(wish.listen),
    ...(wish.natsUrl === null ? [] : [await nats(wish.natsUrl)]),
  ];
}

const MARKS = { ok: '✔', missing: '✖', note: '•' } as const;

export function findingsText(findings: readonly Finding[]): string {
  const wide = Math.max(...findings.map((f) => f.what.length));
  return findings
    .map(
      (f) =>
        `${MARKS[f.mark]} ${f.what.padEnd(wide)}  ${f.found}${f.remedy === undefined || f.mark === 'ok' ? '' : `\n  ${' '.repeat(wide)}  → ${f.remedy}`}`,
    )
    .join('\n');
}

/** Prints the list; exit code 0 when training can start here, else 1. */
export async function doctor(wish: DoctorWish): Promise<number> {
  const findings = await examine(wish);
  const isWell = findings.every((f) => f.mark !== 'missing');
  process.stdout.write(
    `${findingsText(findings)}\n\n${isWell ? 'Ready to train: npm start' : 'Not ready: see the remedies above.'}\n`,
  );
  return isWell ? 0 : 1;
}
