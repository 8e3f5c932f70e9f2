// A command that computes on its own does so in a process of its own, which has the engine's environment from its start and whose
// library may write to stderr what it likes.

import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { engineEnvironment } from '../worker/engine/environment.ts';
import { isEngineNoise } from './engine-noise.ts';

/** Set in that process. */
const INSIDE = 'LOCKSTEP_ENGINE_PROCESS';
const ENTRY = fileURLToPath(new URL('lockstep.mjs', import.meta.url));

/** Whether this process is one. */
export function isEngineProcess(): boolean {
  return process.env[INSIDE] !== undefined;
}

/** Runs a command line in one; resolves to its exit code. */
export async function inEngineProcess(args: readonly string[]): Promise<number> {
  const child = spawn(process.execPath, [ENTRY, ...args], {
    stdio: ['ignore', 'inherit', 'pipe'],
    env: { ...process.env, ...engineEnvironment(1), [INSIDE]: '1' },
  });
  const lines = createInterface({ input: child.stderr });
  lines.on('line', (line) => {
    if (!isEngineNoise(line)) process.stderr.write(`${line}\n`);
  });
  const code = await new Promise<number | null>((resolve) => {
    child.on('close', resolve);
  });
  return code ?? 1;
}
