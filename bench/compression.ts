// What compressed gradients cost and bring: accuracy of the tutorial's CNN on CIFAR-10 after a few epochs, bytes a step, and what those
// take on a slow link (slow-link.ts measures it for the forms that are there), for the forms that Lockstep has and, simulated, for
// two that it has not (compressors.ts).

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { engineEnvironment } from '../worker/engine/environment.ts';
import type { Trained } from './compression-process.ts';
import { LINKS, told } from './slow-link.ts';
import { TYPESCRIPT } from './measure.ts';
import type { Row } from './table.ts';

const PROCESS = fileURLToPath(new URL('compression-process.ts', import.meta.url));
const FORMS = ['bf16', 'fp16', 'powersgd-2', 'powersgd-4', 'topk-1', 'topk-10'] as const;
const EPOCHS = 4;
const SAMPLES = 20_000;

async function trained(form: string): Promise<Trained> {
  const args = [PROCESS, '--form', form, '--epochs', String(EPOCHS), '--samples', String(SAMPLES)];
  const child = spawn(process.execPath, [...TYPESCRIPT, ...args], {
    env: { ...process.env, ...engineEnvironment(1) },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let text = '';
  child.stdout.on('data', (chunk: Buffer) => (text += chunk.toString()));
  const [status] = (await once(child, 'close')) as [number | null];
  if (status !== 0) throw new Error(`training with ${form} failed`);
  return JSON.parse(text.trim().split('\n').at(-1) ?? '') as Trained;
}

/** One training a form: there is nothing to repeat, because the same numbers come out. */
export async function compression(): Promise<Row[]> {
  const none = await trained('none');
  const rows: Row[] = [];
  for (const form of FORMS) {
    const result = await trained(form);
    const row = (what: string, unit: string, ours: number, peer: number, ratio: number): void => {
      rows.push({ case: `${form}, ${what}`, ours, peer, peerName: 'float32', ratio, unit, repeats: 1 });
    };
    const [mine, plain] = [100 * (result.accuracies.at(-1) ?? 0), 100 * (none.accuracies.at(-1) ?? 0)];
    row(`accuracy after ${EPOCHS} epochs of ${SAMPLES} samples`, '%', mine, plain, mine / plain);
    row('sent a step by one of two', 'kB', result.bytes / 1000, none.bytes / 1000, none.bytes / result.bytes);
    for (const link of LINKS) {
      const [ms, msPlain] = [result, none].map(({ bytes, rounds }) => told(bytes, rounds, link)) as [number, number];
      row(`as its bytes tell, ${link.title}`, 'ms', ms, msPlain, msPlain / ms);
    }
  }
  return rows;
}
