// One training step of the tutorial's CNN, gradient and Adam, by every system at hand, side by side: Lockstep's engines,
// TensorFlow.js as it comes, Keras, PyTorch. Most on one core, which is how Lockstep's workers run; Keras on all as well.
// And how far that is from what the core can do: a large matrix product by the same library in the same process.
//
// Cost: about six minutes with five repeats; every system's process stays until the end, 7 GB together. No whole jobs, no
// data pipeline, no all-reduce: those are throughput.ts's.

import { fileURLToPath } from 'node:url';
import { join } from 'node:path';
import { engineEnvironment } from '../worker/engine/environment.ts';
import { interleaved, median, pinning, startMeasuring, type Measuring, type WindowRequest } from './measure.ts';
import { NOT_INSTALLED, PEERS, peersPython } from './peers.ts';
import type { BenchOptions } from './run.ts';
import { comparison, type Row } from './table.ts';

const WINDOW_SECONDS = 1.5;
const WARM_UP_SECONDS = 0.3;
/** Forward and backward, multiplications and additions; none for the gradient of the pixels. */
const MFLOP_AN_IMAGE = 25.8;

interface Shape {
  readonly batch: number;
  readonly microbatch: number;
}

const WHOLE: readonly Shape[] = [
  { batch: 64, microbatch: 64 },
  { batch: 256, microbatch: 256 },
];
const CUT: readonly Shape[] = [8, 16, 32].map((microbatch) => ({ batch: 64, microbatch }));

type Work = WindowRequest['work'];

/** What is measured of a system: `step` at every shape unless `whole` batches only. */
interface System {
  readonly name: string;
  readonly runs:
    | { readonly engine: string }
    | { readonly packages: readonly string[]; readonly script: readonly string[] };
  readonly allCores?: boolean;
  /** `step` for whole batches only. */
  readonly wholeOnly?: boolean;
  /** Measured besides `step`, for whole batches. */
  readonly also?: readonly Work[];
}

const keras = (...flags: readonly string[]): System['runs'] => ({
  packages: ['keras', 'tensorflow'],
  script: ['keras_speed.py', ...flags],
});
const torch = (layout: string): System['runs'] => ({
  packages: ['torch'],
  script: ['torch_speed.py', '--layout', layout],
});

const SYSTEMS = {
  stock: { name: 'TensorFlow.js eager (tfjs-node)', runs: { engine: 'stock' } },
  eager: { name: 'Lockstep eager', runs: { engine: 'eager' } },
  graph: { name: 'Lockstep graph', runs: { engine: 'graph' }, also: ['gradient', 'matmul'] },
  mixed: { name: 'Lockstep graph, mixed_bfloat16', runs: { engine: 'mixed' }, also: ['gradient', 'matmul'] },
  wasm: { name: 'Lockstep wasm', runs: { engine: 'wasm' } },
  keras: { name: 'Keras', runs: keras(), also: ['fit'] },
  kerasMixed: { name: 'Keras, mixed_bfloat16', runs: keras('--policy', 'mixed_bfloat16'), also: ['fit'] },
  kerasAll: { name: 'Keras, all cores', runs: keras('--threads', '0'), allCores: true, wholeOnly: true, also: ['fit'] },
  torchNchw: { name: 'PyTorch, NCHW', runs: torch('nchw') },
  torchLast: { name: 'PyTorch, channels_last', runs: torch('channels_last') },
} as const satisfies Record<string, System>;

type Key = keyof typeof SYSTEMS;
const KEYS = Object.keys(SYSTEMS) as Key[];

interface Task extends Shape {
  readonly system: Key;
  readonly work: Work;
}

function tasksOf(system: Key): Task[] {
  const { also = [], wholeOnly = false }: System = SYSTEMS[system];
  const shapes = wholeOnly ? WHOLE : [...WHOLE, ...CUT];
  return [
    ...shapes.map((shape) => ({ system, work: 'step' as const, ...shape })),
    ...also.flatMap((work) => WHOLE.map((shape) => ({ system, work, ...shape }))),
  ];
}

const nameOf = ({ system, work, batch, microbatch }: Task): string => `${system} ${work} ${batch}/${microbatch}`;

/** Median rates by task: images a second, or for `matmul` GFLOP a second; null where the system is not there. */
export type RateOf = (task: Task) => number | null;

/** Everything that the rates say of Lockstep beside the others. Where a system of ours is not there, it has no rows. */
export function rowsOf(rateOf: RateOf, repeats: number): Row[] {
  const rows: Row[] = [];
  const add = (title: string, ours: number | null, peer: number | null, peerName: string, unit = 'images/s'): void => {
    if (ours === null) return;
    rows.push(comparison({ case: title, unit, repeats }, ours, peer, peerName, NOT_INSTALLED));
  };
  const STEPS: readonly (readonly [Key, Key])[] = [
    ['graph', 'stock'],
    ['graph', 'keras'],
    ['graph', 'torchNchw'],
    ['graph', 'torchLast'],
    ['mixed', 'kerasMixed'],
    ['mixed', 'graph'],
    ['eager', 'stock'],
  ];
  const FITS: readonly (readonly [Key, Key])[] = [
    ['graph', 'keras'],
    ['mixed', 'kerasMixed'],
    ['graph', 'kerasAll'],
  ];
  for (const shape of [...WHOLE, ...CUT]) {
    const { batch, microbatch } = shape;
    const whole = microbatch === batch;
    const title = (system: Key): string =>
      `${SYSTEMS[system].name}, batch ${batch}${whole ? '' : ` in microbatches of ${microbatch}`}`;
    const step = (system: Key): number | null => rateOf({ system, work: 'step', ...shape });
    for (const [ours, peer] of STEPS) add(title(ours), step(ours), step(peer), SYSTEMS[peer].name);
    if (whole) {
      add(title('graph'), step('graph'), step('kerasAll'), SYSTEMS.kerasAll.name);
      for (const [ours, peer] of FITS) {
        add(title(ours), step(ours), rateOf({ system: peer, work: 'fit', ...shape }), `${SYSTEMS[peer].name}, fit`);
      }
    } else {
      for (const ours of ['graph', 'mixed'] as const) {
        const uncut = rateOf({ system: ours, work: 'step', batch, microbatch: batch });
        add(title(ours), step(ours), uncut, `the same, batch ${batch} in one piece`);
      }
    }
    const wasm = step('wasm');
    if (wasm !== null) {
      const none = 'TensorFlow.js wasm (it cannot train this model: kernels of its backward pass are missing)';
      rows.push({
        case: title('wasm'),
        ours: wasm,
        peer: null,
        peerName: none,
        ratio: null,
        unit: 'images/s',
        repeats,
      });
    }
  }
  const PRODUCT = '1024x1024x1024 MatMul';
  for (const shape of WHOLE) {
    const product = (system: Key): number | null => rateOf({ system, work: 'matmul', ...shape });
    for (const [system, type] of [
      ['graph', 'float32'],
      ['mixed', 'bfloat16'],
    ] as const) {
      const title = `${SYSTEMS[system].name}, batch ${shape.batch}`;
      const step = rateOf({ system, work: 'step', ...shape });
      const gradient = rateOf({ system, work: 'gradient', ...shape });
      add(`${title}, gradient without Adam`, gradient, step, 'the same, whole step');
      const gigaflops = step === null ? null : (step * MFLOP_AN_IMAGE) / 1000;
      const limit = product(system);
      add(`${title}, ${MFLOP_AN_IMAGE} MFLOP an image`, gigaflops, limit, `${type} ${PRODUCT}`, 'GFLOP/s');
    }
    // Whether this core gains by bfloat16 at all: not all that have the instructions do.
    if (shape === WHOLE[0]) add(`bfloat16 ${PRODUCT}`, product('mixed'), product('graph'), 'in float32', 'GFLOP/s');
  }
  return rows;
}

const ENGINE_PROCESS = fileURLToPath(new URL('engine-process.ts', import.meta.url));

function commandOf(system: System): readonly string[] | null {
  const { runs } = system;
  if ('engine' in runs) return [process.execPath, '--import', import.meta.resolve('tsx'), ENGINE_PROCESS, runs.engine];
  const python = peersPython(...runs.packages);
  const [script = '', ...flags] = runs.script;
  return python === null ? null : [python, join(PEERS, script), ...flags];
}

const tell = (line: string): void => {
  process.stderr.write(`${line}\n`);
};

async function start(system: System, pinned: readonly string[]): Promise<Measuring | null> {
  const command = commandOf(system);
  if (command === null) {
    tell(`${system.name}: ${NOT_INSTALLED}`);
    return null;
  }
  const environment = 'engine' in system.runs ? engineEnvironment(1) : {};
  const measuring = await startMeasuring([...(system.allCores === true ? [] : pinned), ...command], environment);
  if ('missing' in measuring) {
    tell(`${system.name}: ${measuring.missing}`);
    return null;
  }
  tell(`${system.name}: ${measuring.about}`);
  return measuring;
}

export async function engine(options: BenchOptions): Promise<Row[]> {
  const { repeats = 5 } = options;
  const pinned = pinning();
  tell(pinned === null ? 'no taskset here: one thread each, not pinned' : `one-core systems: ${pinned.join(' ')}`);
  const processes = new Map<Key, Measuring>();
  try {
    for (const key of KEYS) {
      const measuring = await start(SYSTEMS[key], pinned ?? []);
      if (measuring !== null) processes.set(key, measuring);
    }
    const order = new Map([...WHOLE, ...CUT].map(({ batch, microbatch }, i) => [`${batch}/${microbatch}`, i]));
    const place = ({ batch, microbatch }: Task): number => order.get(`${batch}/${microbatch}`) ?? 0;
    // What is compared is measured close together: by shape, then by system.
    const tasks = [...processes.keys()].flatMap(tasksOf).toSorted((a, b) => place(a) - place(b));
    const rates = new Map<string, number[]>();
    const measure = async (task: Task, seconds: number): Promise<number> =>
      (await processes.get(task.system)?.rate({ ...task, seconds })) ?? Number.NaN;
    tell('warming up');
    for (const task of tasks) await measure(task, WARM_UP_SECONDS);
    for (const [i, task] of interleaved(tasks, repeats).entries()) {
      if (i % tasks.length === 0) tell(`round ${i / tasks.length + 1} of ${repeats}`);
      const name = nameOf(task);
      rates.set(name, [...(rates.get(name) ?? []), await measure(task, WINDOW_SECONDS)]);
    }
    return rowsOf((task) => {
      const found = rates.get(nameOf(task));
      return found === undefined ? null : median(found);
    }, repeats);
  } finally {
    for (const measuring of processes.values()) measuring.stop();
  }
}
