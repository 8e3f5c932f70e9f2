// What is done to a graph between its recording and its loading: the same values afterwards, from other operations.

import type * as TensorFlow from '@tensorflow/tfjs';
import { beforeAll, describe, expect, test } from 'vitest';
import { findTensorflow } from '../../../deploy/setup/tensorflow.ts';
import { engineEnvironment } from '../../../worker/engine/environment.ts';
import { biasGradients } from '../../../worker/engine/graph/bias-gradients.ts';
import { plainMatrixProducts } from '../../../worker/engine/graph/matrix-products.ts';
import { hostFeeds } from '../../../worker/engine/graph/host-feeds.ts';
import { mixedBfloat16 } from '../../../worker/engine/graph/mixed-bfloat16.ts';
import type { GraphNode } from '../../../worker/engine/graph/nodes.ts';
import { reluAfterPooling } from '../../../worker/engine/graph/relu-after-pooling.ts';
import { compile, type GraphPass, trace } from '../../../worker/engine/graph/trace.ts';
import { loadTensorflow, type TensorflowLibrary } from '../../../worker/engine/tensorflow/library.ts';
import { noise } from '../../oracles/formula.ts';

type Tensor = TensorFlow.Tensor;

let library: TensorflowLibrary;
beforeAll(async () => {
  Object.assign(process.env, engineEnvironment(1));
  const { bindingPath, libraryVersion } = findTensorflow();
  library = await loadTensorflow(bindingPath, libraryVersion);
});

const unit = (stream: number, length: number): Float32Array =>
  Float32Array.from(noise(stream, length), (u) => 2 * u - 1);

interface Run {
  /** Of the graph as it was loaded. */
  readonly operations: string[];
  readonly results: Float32Array[];
}

/** Traces `body` of float32 inputs in these shapes, changes the graph by `pass`, and runs it on `values` (or on their bits). */
function run(
  inputs: Readonly<Record<string, { shape: number[]; values: Float32Array }>>,
  body: (tensors: Record<string, Tensor>) => Tensor[],
  pass: GraphPass,
  feed: 'values' | 'bits' = 'values',
): Run {
  const { tf, backend } = library;
  const { binding } = backend;
  const tensors = Object.fromEntries(Object.entries(inputs).map(([name, { shape }]) => [name, tf.zeros(shape)]));
  const traced = trace(library, { inputs: tensors, variables: [], body: () => body(tensors) });
  let loaded: readonly GraphNode[] = [];
  const program = compile(binding, traced, (nodes) => (loaded = pass(nodes)));
  const ids = Object.values(inputs).map(({ shape, values }) =>
    feed === 'values'
      ? binding.createTensor(shape, binding.TF_FLOAT, values)
      : binding.createTensor(shape, binding.TF_INT32, new Int32Array(values.buffer)),
  );
  const outputs = program.run(ids);
  const results = outputs.map(({ id }) => Float32Array.from(binding.tensorDataSync(id)));
  for (const id of [...ids, ...outputs.map((output) => output.id)]) binding.deleteTensor(id);
  program.close();
  return { operations: loaded.map(({ operation }) => operation), results };
}

const asRecorded: GraphPass = (nodes) => nodes;

describe('relu after pooling', () => {
  const images = (values: Float32Array): Record<string, { shape: number[]; values: Float32Array }> => ({
    x: { shape: [2, 4, 6, 3], values },
  });
  /** Value and gradient of a weighted sum of max-pooled relu. */
  const pooled = ({ x }: Record<string, Tensor>): Tensor[] => {
    const { tf } = library;
    const f = (input: Tensor): Tensor =>
      tf.maxPool(tf.relu(input as TensorFlow.Tensor4D), 2, 2, 'valid').mul(tf.tensor(unit(4, 36), [2, 2, 3, 3]));
    const { value, grad } = tf.valueAndGrad(f)(x as Tensor);
    return [value, grad];
  };

  /** With 0 for -0: a weight that is lowered by either is the same weight. */
  const unsigned = (results: Float32Array[]): Float32Array[] => results.map((result) => result.map((x) => x + 0));

  test('moves both, and gives the same bits', () => {
    const plain = run(images(unit(3, 144)), pooled, asRecorded);
    const moved = run(images(unit(3, 144)), pooled, reluAfterPooling);
    expect(plain.operations.filter((name) => /Relu|MaxPool/.test(name))).toEqual([
      'Relu',
      'MaxPool',
      'MaxPoolGrad',
      'ReluGrad',
    ]);
    expect(moved.operations.filter((name) => /Relu|MaxPool/.test(name))).toEqual([
      'MaxPool',
      'Relu',
      'ReluGrad',
      'MaxPoolGrad',
    ]);
    expect(unsigned(moved.results)).toEqual(unsigned(plain.results));
    expect(plain.results[1]?.some((value) => value !== 0)).toBe(true);
  });

  test('also where values are equal, zero or all negative within a window', () => {
    const coarse = unit(5, 144).map((value) => Math.round(2 * value) / 2);
    for (const values of [coarse, coarse.map((value) => -Math.abs(value)), new Float32Array(144)]) {
      const [plain, moved] = [asRecorded, reluAfterPooling].map((pass) => run(images(values), pooled, pass).results);
      expect(unsigned(moved ?? [])).toEqual(unsigned(plain ?? []));
    }
  });

  test("not where something else reads the relu's output", () => {
    const both = ({ x }: Record<string, Tensor>): Tensor[] => {
      const { tf } = library;
      const active = tf.relu(x as TensorFlow.Tensor4D);
      return [tf.maxPool(active, 2, 2, 'valid'), active];
    };
    expect(run(images(unit(3, 144)), both, reluAfterPooling).operations).toEqual(
      run(images(unit(3, 144)), both, asRecorded).operations,
    );
  });
});

describe('bias gradients', () => {
  test("from a flat view of a convolution's slope, to the same bits; a dense layer's as recorded", () => {
    /** Gradients of kernel, bias, matrix and its bias. */
    const gradients = ({ x, k, b, w, c }: Record<string, Tensor>): Tensor[] => {
      const { tf } = library;
      const images = x as TensorFlow.Tensor4D;
      const f = (kernel: Tensor, bias: Tensor, matrix: Tensor, last: Tensor): Tensor => {
        const convolved = tf
          .conv2d(images, kernel as TensorFlow.Tensor4D, 1, 'valid')
          .add(bias)
          .relu();
        return tf
          .matMul(convolved.reshape([8, -1]), matrix as TensorFlow.Tensor2D)
          .add(last)
          .square();
      };
      return tf.grads(f)([k, b, w, c] as Tensor[]);
    };
    const inputs = Object.fromEntries(
      Object.entries({ x: [8, 10, 9, 3], k: [3, 3, 3, 16], b: [16], w: [896, 5], c: [5] }).map(([name, shape], i) => [
        name,
        {
          shape,
          values: unit(
            i + 3,
            shape.reduce((x, y) => x * y, 1),
          ),
        },
      ]),
    );
    const plain = run(inputs, gradients, asRecorded);
    const changed = run(inputs, gradients, biasGradients);
    const count = (operations: string[], name: string): number => operations.filter((other) => other === name).length;
    expect(count(changed.operations, 'BiasAddGrad')).toBe(2);
    expect(count(changed.operations, 'Reshape') - count(plain.operations, 'Reshape')).toBe(1);
    expect(changed.results).toEqual(plain.results);
    expect(changed.results.every((result) => result.some((value) => value !== 0))).toBe(true);
  });
});

describe('plain matrix products', () => {
  const product = (tensors: Record<string, Tensor>): Tensor[] => {
    const { tf } = library;
    return [tf.matMul(tensors['a'] as Tensor, tensors['b'] as Tensor, false, true)];
  };
  const operands = (...shapes: [number[], number[]]): Parameters<typeof run>[0] => ({
    a: {
      shape: shapes[0],
      values: unit(
        6,
        shapes[0].reduce((x, y) => x * y, 1),
      ),
    },
    b: {
      shape: shapes[1],
      values: unit(
        7,
        shapes[1].reduce((x, y) => x * y, 1),
      ),
    },
  });

  for (const [name, a, b] of [
    ['of two dimensions', [3, 5], [4, 5]],
    ['of three, the first of which is 1', [1, 3, 5], [1, 4, 5]],
  ] as const) {
    test(`${name} become MatMul`, () => {
      const inputs = operands([...a], [...b]);
      const plain = run(inputs, product, asRecorded);
      const changed = run(inputs, product, plainMatrixProducts);
      expect(plain.operations).toContain('BatchMatMulV2');
      expect(changed.operations).toContain('MatMul');
      expect(changed.operations).not.toContain('BatchMatMulV2');
      changed.results[0]?.forEach((value, i) => expect(value).toBeCloseTo(plain.results[0]?.[i] ?? Number.NaN, 6));
    });
  }

  test('a batch of products stays one', () => {
    const inputs = operands([2, 3, 5], [2, 4, 5]);
    expect(run(inputs, product, plainMatrixProducts).operations).toContain('BatchMatMulV2');
  });
});

describe('mixed bfloat16', () => {
  const layer = (tensors: Record<string, Tensor>): Tensor[] => {
    const { tf } = library;
    const { x, filter, bias } = tensors as Record<string, TensorFlow.Tensor4D>;
    const f = (w: Tensor, b: Tensor): Tensor =>
      tf.exp(tf.relu(tf.conv2d(x as TensorFlow.Tensor4D, w as TensorFlow.Tensor4D, 1, 'valid').add(b))).mean();
    const { value, grads } = tf.valueAndGrads(f)([filter as Tensor, bias as Tensor]);
    return [value, ...grads];
  };
  const inputs = {
    x: { shape: [2, 6, 6, 8], values: unit(1, 576) },
    filter: { shape: [3, 3, 8, 4], values: unit(2, 288) },
    bias: { shape: [4], values: unit(8, 4) },
  };

  test('casts around convolutions, leaves the rest and all results in float32', () => {
    const plain = run(inputs, layer, asRecorded);
    let nodes: GraphNode[] = [];
    const mixed = run(inputs, layer, (recorded) => (nodes = mixedBfloat16(recorded)));
    const typeOf = (operation: string): unknown =>
      nodes.find((node) => node.operation === operation)?.attributes['T']?.value;
    const [float, bfloat16] = [1, 14];
    expect(['Conv2D', 'BiasAdd', 'Relu', 'Conv2DBackpropFilter'].map(typeOf)).toEqual([
      bfloat16,
      bfloat16,
      bfloat16,
      bfloat16,
    ]);
    // The slope that reaches relu's gradient is float32 here.
    expect(['Exp', 'Mean', 'ReluGrad'].map(typeOf)).toEqual([float, float, float]);
    // bfloat16 has 8 bits: close to float32, and not the same.
    mixed.results.forEach((result, i) => {
      const expected = plain.results[i] ?? new Float32Array(0);
      const scale = Math.max(...expected.map(Math.abs));
      result.forEach((value, k) => expect(Math.abs(value - (expected[k] ?? 0)) / scale).toBeLessThan(0.03));
    });
    expect(mixed.results[1]).not.toEqual(plain.results[1]);
  });
});

describe('host feeds', () => {
  const inputs = { x: { shape: [3, 5], values: unit(3, 15) }, unused: { shape: [2], values: unit(4, 2) } };
  /** A product, the input itself, and a sum of the two: what is read once, more than once, and handed through. */
  const body = ({ x }: Record<string, Tensor>): Tensor[] => {
    const { tf } = library;
    const product = tf.matMul(x as TensorFlow.Tensor2D, x as TensorFlow.Tensor2D, false, true);
    return [product, x as Tensor, (x as Tensor).sum().add(product.sum())];
  };

  test('take the same bits as int32, and give the same results', () => {
    const plain = run(inputs, body, asRecorded);
    const fed = run(inputs, body, hostFeeds, 'bits');
    expect(fed.results).toEqual(plain.results);
    expect(fed.operations.filter((name) => name === 'Bitcast')).toHaveLength(2);
    expect(() => run(inputs, body, hostFeeds, 'values')).toThrow(/int32/);
  });

  test('leave other types alone', () => {
    const { tf } = library;
    const ids = tf.zeros([4], 'int32');
    const traced = trace(library, { inputs: { ids }, variables: [], body: () => [ids.add(ids)] });
    expect(hostFeeds(traced.nodes)).toEqual(traced.nodes);
  });
});
