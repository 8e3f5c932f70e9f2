// Set-up as a person sees it: a task a line with its progress, and nothing at all when everything is there.

import { Listr } from 'listr2';
import type { DataSetDefinition } from '../../jobs/contract.ts';
import { damagedFiles, dataSetDirectory, ensureDataSet } from './dataset.ts';
import { DAWN_VERSION, ensureWebgpu, WEBGPU_BYTES, webgpuDamage } from './webgpu.ts';
import {
  ensureTensorflow,
  findUserBinding,
  TENSORFLOW_VERSION,
  tensorflowCost,
  tensorflowDamage,
  type TensorflowDevice,
} from './tensorflow.ts';

/** Seconds between two lines of progress when the output is no terminal. */
const PLAIN_PROGRESS_SECONDS = 5;

interface Step {
  readonly title: string;
  /** Bytes that will be fetched, for the percentage; null when it is not known. */
  readonly bytes: number | null;
  readonly run: (tell: (line: string) => void, progress: (bytes: number) => void) => Promise<void>;
}

const gigabytes = (bytes: number): string => `${(bytes / 1e9).toFixed(1)} GB`;

function tensorflowStep(device: TensorflowDevice, title: string): Step | null {
  if (tensorflowDamage(device) === null) return null;
  const { bytes, diskBytes } = tensorflowCost(device);
  return {
    title: `${title} (${gigabytes(bytes)} to fetch, up to ${gigabytes(diskBytes)} on disk)`,
    bytes,
    run: async (tell, progress) => {
      await ensureTensorflow(tell, progress, device);
    },
  };
}

/** By engine: what must be installed, null when it is there. An engine without an entry needs nothing but the npm packages. */
const engineSteps: Readonly<Record<string, () => Step | null>> = {
  tensorflow: () => tensorflowStep('cpu', `TensorFlow ${TENSORFLOW_VERSION} (CPU): library and Node binding`),
  // Who has installed @tensorflow/tfjs-node-gpu has a library already.
  'tensorflow-gpu': () =>
    findUserBinding() === null
      ? tensorflowStep('gpu', `TensorFlow ${TENSORFLOW_VERSION} (CUDA 12): libraries and Node binding`)
      : null,
  webgpu: () =>
    webgpuDamage() === null
      ? null
      : {
          title: `Dawn ${DAWN_VERSION} (WebGPU): Node addon`,
          bytes: WEBGPU_BYTES,
          run: async (tell, progress) => {
            await ensureWebgpu(tell, progress);
          },
        },
};

/** Sets up what is missing for training with these. Throws what the step that failed throws. */
export async function setUp(wish: {
  readonly dataSet: DataSetDefinition | null;
  /** The engine whose library is needed. */
  readonly engine: string;
  /** One JSON object a line instead of text. */
  readonly json?: boolean;
}): Promise<void> {
  const steps: Step[] = [];
  const engineStep = engineSteps[wish.engine]?.();
  if (engineStep) steps.push(engineStep);
  const { dataSet } = wish;
  if (dataSet?.source !== undefined) {
    const damages = await damagedFiles(dataSetDirectory(dataSet), dataSet.source.files);
    if (damages.length > 0) {
      steps.push({ title: dataSet.name, bytes: null, run: (tell, progress) => ensureDataSet(dataSet, tell, progress) });
    }
  }
  if (steps.length === 0) return;
  if (process.stdout.isTTY && wish.json !== true) await showTasks(steps);
  else await showLines(steps, wish.json === true);
}

function amount(fetched: number, total: number | null): string {
  // A client may hold what it fetched twice for a moment: in its temporary files and in place.
  const bytes = total === null ? fetched : Math.min(fetched, total);
  const megabytes = `${(bytes / 1e6).toFixed(0)} MB`;
  return total === null
    ? megabytes
    : `${megabytes} of ${(total / 1e6).toFixed(0)} (${Math.min(100, Math.floor((100 * bytes) / total))} %)`;
}

async function showTasks(steps: readonly Step[]): Promise<void> {
  const tasks = steps.map((step) => ({
    title: step.title,
    task: async (_context: unknown, task: { output: string; title: string }): Promise<void> => {
      const startedAt = performance.now();
      await step.run(
        (line) => {
          task.output = line;
        },
        (bytes) => {
          task.output = `fetching: ${amount(bytes, step.bytes)}`;
        },
      );
      task.title = `${step.title} (${((performance.now() - startedAt) / 1000).toFixed(0)} s)`;
    },
  }));
  await new Listr(tasks, { rendererOptions: { showErrorMessage: false } }).run();
}

async function showLines(steps: readonly Step[], json: boolean): Promise<void> {
  for (const step of steps) {
    const startedAt = performance.now();
    const say = (line: string): void => {
      const record = { level: 'info', time: new Date().toISOString(), kind: 'set-up', step: step.title, msg: line };
      process.stdout.write(json ? `${JSON.stringify(record)}\n` : `setup: ${step.title}: ${line}\n`);
    };
    let toldAt = startedAt;
    say('started');
    await step.run(say, (bytes) => {
      if (performance.now() - toldAt < 1000 * PLAIN_PROGRESS_SECONDS) return;
      toldAt = performance.now();
      say(amount(bytes, step.bytes));
    });
    say(`done in ${((performance.now() - startedAt) / 1000).toFixed(0)} s`);
  }
}
