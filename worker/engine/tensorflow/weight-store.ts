// Where the weights lie that a traced program runs on. On a processor they are native tensors that share the engine's memory
// where they can, fed to each run. On a GPU each program keeps them on the device, and gets them when they have changed.

import type { WeightLayout } from '../engine.ts';
import { compileOnDevice } from '../graph/on-device.ts';
import { compile, type GraphPass, type Traced } from '../graph/trace.ts';
import type { NativeArray, NativeBinding } from './library.ts';

export interface Feed {
  readonly shape: readonly number[];
  readonly values: Float32Array | Int32Array;
}

/** A traced program, run on the weights as they are. */
export interface WeightedProgram {
  /** Returns the values of the trace's results, then of its updates. */
  readonly run: (feeds: readonly Feed[]) => NativeArray[];
  readonly close: () => void;
}

export interface WeightStore {
  /** Loads a trace whose variables are the weights. */
  compile(traced: Traced, pass: GraphPass): WeightedProgram;
  /** To be called when the engine's vector has other values. */
  changed(): void;
  close(): void;
}

/** Makes native tensors, lets `use` have their ids, and deletes them. */
function lend<T>(binding: NativeBinding, make: readonly (() => number)[], use: (ids: readonly number[]) => T): T {
  const ids: number[] = [];
  try {
    for (const one of make) ids.push(one());
    return use(ids);
  } finally {
    for (const id of ids) binding.deleteTensor(id);
  }
}

/** @param slices the weights' parts of the engine's vector */
export function hostStore(binding: NativeBinding, layout: WeightLayout, slices: readonly Float32Array[]): WeightStore {
  let ids: number[] = [];
  const close = (): void => {
    for (const id of ids) binding.deleteTensor(id);
    ids = [];
  };
  return {
    compile: (traced, pass) => {
      const program = compile(binding, traced, pass);
      const make =
        ({ shape, values }: Feed) =>
        (): number =>
          binding.createTensor(shape, values instanceof Float32Array ? binding.TF_FLOAT : binding.TF_INT32, values);
      return {
        run: (feeds) =>
          lend(binding, feeds.map(make), (fed) => {
            const outputs = program.run([...fed, ...ids]);
            try {
              return outputs.map(({ id }) => binding.tensorDataSync(id));
            } finally {
              for (const { id } of outputs) binding.deleteTensor(id);
            }
          }),
        close: program.close,
      };
    },
    changed: () => {
      close();
      ids = layout.entries.map(({ shape }, i) =>
        binding.createTensor(shape, binding.TF_FLOAT, slices[i] as Float32Array),
      );
    },
    close,
  };
}

/** @param weights the engine's vector */
export function deviceStore(binding: NativeBinding, weights: Float32Array): WeightStore {
  let version = 0;
  /** Floats go as the int32 of the same bits (graph/host-feeds.ts). */
  const make =
    ({ shape, values }: Feed) =>
    (): number =>
      binding.createTensor(
        shape,
        binding.TF_INT32,
        values instanceof Int32Array ? values : new Int32Array(values.buffer, values.byteOffset, values.length),
      );
  return {
    compile: (traced, pass) => {
      const program = compileOnDevice(binding, traced, pass);
      let has = -1;
      return {
        run: (feeds) => {
          if (has !== version) {
            lend(binding, [make({ shape: [weights.length], values: weights })], ([id]) => program.load(id as number));
            has = version;
          }
          return lend(binding, feeds.map(make), program.run);
        },
        close: program.close,
      };
    },
    changed: () => {
      version += 1;
    },
    close: () => {},
  };
}
