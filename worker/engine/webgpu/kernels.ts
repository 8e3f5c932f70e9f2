// Programs of TensorFlow.js's WebGPU backend that training can't use as they are, replaced where the backend runs them.
//
// - Matrix products with a long inner dimension and sums over segments (an embedding's gradient) let threads add floats into
//   one place as they come: the same gradient has other bits each time. Here the order is fixed.
// - A transpose of integers or booleans (a mask's, in a recurrent layer) does not compile.
// - Whatever else adds floats as they come is refused by name.
//
// Cost: a sum over n rows into m segments takes n x m comparisons for each column instead of n additions.

import { LockstepError } from '../../../protocol/errors.ts';

/** A shader and its launch, as the backend knows it; `main(index)` runs once a thread. */
interface Program {
  readonly variableNames: readonly string[];
  readonly uniforms?: string;
  readonly workgroupSize: readonly [number, number, number];
  readonly dispatchLayout: { readonly x: readonly number[] };
  readonly dispatch: readonly [number, number, number];
  readonly outputShape: readonly number[];
  readonly shaderKey: string;
  /** The output is written by atomic operations. */
  readonly atomic?: boolean;
  /** Of a scatter: duplicates are added, not overwritten. */
  readonly sumDupeIndices?: boolean;
  readonly transposeA?: boolean;
  readonly transposeB?: boolean;
  getUserCode(): string;
}

interface TensorInfo {
  readonly dataId: object;
  readonly shape: readonly number[];
}

interface Backend {
  runWebGPUProgram: RunProgram;
  readonly tensorMap: { get(dataId: object): { readonly dtype: string } | undefined };
}

type RunProgram = (program: Program, inputs: readonly TensorInfo[], dtype: string, ...rest: unknown[]) => TensorInfo;

/** Threads that share the sum of one element of a matrix product: each takes every 64th term. */
const LANES = 64;

/** Replaces programs of this backend from now on. */
export function replacePrograms(backend: object): void {
  const target = backend as Backend;
  const run = target.runWebGPUProgram.bind(backend);
  target.runWebGPUProgram = (program, inputs, dtype, ...rest) => {
    // A tensor of floats may lie in memory as the integers that it was cast from.
    const [stored] = inputs.map(({ dataId }) => target.tensorMap.get(dataId)?.dtype);
    return run(replacementOf(program, stored, dtype), inputs, dtype, ...rest);
  };
}

function replacementOf(program: Program, stored: string | undefined, dtype: string): Program {
  const { shaderKey, atomic, outputShape } = program;
  if (shaderKey.startsWith('transpose_') && stored !== 'float32') return transposeOfIntegers(program);
  if (atomic !== true || dtype !== 'float32' || program.sumDupeIndices === false) return program;
  if (shaderKey.startsWith('matMulSplitK')) return matrixProduct(program);
  if (shaderKey.startsWith('unsortedSegmentSum')) return segmentSum(outputShape);
  throw new LockstepError('E_NOT_SUPPORTED', `on WebGPU, '${shaderKey}' adds its floats in an order left to chance`, {
    remedy: 'Leave the operation out of the model, or use another engine.',
  });
}

function transposeOfIntegers(program: Program): Program {
  const code = program.getUserCode().replaceAll('setOutputAtIndex(', 'setOutputAtIndexI32(');
  return Object.assign(program, { getUserCode: () => code });
}

/** [1, m, k] x [1, k, n], either transposed: the lanes' partial sums are added as a tree. */
function matrixProduct({ outputShape, transposeA = false, transposeB = false }: Program): Program {
  const elements = outputShape.reduce((product, dimension) => product * dimension, 1);
  const a = transposeA ? 'k * uniforms.dimAOuter + row' : 'row * uniforms.dimInner + k';
  const b = transposeB ? 'column * uniforms.dimInner + k' : 'k * uniforms.dimBOuter + column';
  return {
    variableNames: ['A', 'B'],
    uniforms: 'dimAOuter : i32, dimBOuter : i32, dimInner : i32,',
    workgroupSize: [LANES, 1, 1],
    dispatchLayout: { x: [0, 1, 2] },
    dispatch: [elements, 1, 1],
    outputShape,
    shaderKey: `lockstepMatrixProduct_${transposeA}_${transposeB}`,
    getUserCode: () => `
      var<workgroup> sums : array<f32, ${LANES}>;
      fn main(index : i32) {
        let element = index / ${LANES};
        let lane = i32(localIndex);
        let row = element / uniforms.dimBOuter;
        let column = element % uniforms.dimBOuter;
        var sum = 0.0;
        for (var k = lane; k < uniforms.dimInner; k = k + ${LANES}) {
          sum = sum + A[${a}] * B[${b}];
        }
        sums[lane] = sum;
        workgroupBarrier();
        for (var half = ${LANES / 2}; half > 0; half = half / 2) {
          if (lane < half) {
            sums[lane] = sums[lane] + sums[lane + half];
          }
          workgroupBarrier();
        }
        if (lane == 0) {
          result[element] = sums[0];
        }
      }`,
  };
}

/** x [rows, n] and segment ids [n] to [rows, segments]: one thread an element goes through the ids in order. */
function segmentSum(outputShape: readonly number[]): Program {
  const elements = outputShape.reduce((product, dimension) => product * dimension, 1);
  return {
    variableNames: ['x', 'segmentIds'],
    uniforms: 'numSegments : i32, xSize : i32,',
    workgroupSize: [LANES, 1, 1],
    dispatchLayout: { x: [0, 1] },
    dispatch: [Math.ceil(elements / LANES), 1, 1],
    outputShape,
    shaderKey: 'lockstepSegmentSum',
    getUserCode: () => `
      fn main(index : i32) {
        if (index < uniforms.outShape.x * uniforms.outShape.y) {
          let row = index / uniforms.numSegments;
          let segment = index % uniforms.numSegments;
          let n = uniforms.segmentIdsShape;
          var sum = 0.0;
          for (var i = 0; i < n; i = i + 1) {
            if (i32(segmentIds[i]) == segment) {
              sum = sum + x[row * n + i];
            }
          }
          result[index] = sum;
        }
      }`,
  };
}
