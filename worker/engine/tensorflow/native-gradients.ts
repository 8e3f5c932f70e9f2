// TensorFlow.js writes some gradients out as several small operations where TensorFlow has one. This puts TensorFlow's own
// back: ReluGrad for relu, BiasAdd and BiasAddGrad for the addition of a bias vector. The mathematics is the same; what is
// left to do per step is less, and a graph made of these operations is one that TensorFlow knows how to optimise. A gather
// leaves the check of its indices to TensorFlow, instead of reading them back first.
//
// Changes TensorFlow.js for the whole process, once. Higher-order gradients through relu and bias are given up: Lockstep
// takes first derivatives only. Every replacement is held against stock TensorFlow.js in test/worker/engine.

import type * as TensorFlow from '@tensorflow/tfjs';
import type { Tf } from '../../../jobs/contract.ts';
import type { NativeBackend, OpAttribute } from './library.ts';

type Tensor = TensorFlow.Tensor;

/** A vector along the last axis, added to a float tensor of higher rank. */
function isBiasAddition(a: Tensor, b: Tensor): boolean {
  return (
    b.shape.length === 1 &&
    a.shape.length > 1 &&
    a.shape.length < 6 &&
    a.shape.at(-1) === b.shape[0] &&
    a.dtype === 'float32' &&
    b.dtype === 'float32'
  );
}

export function useNativeGradients(tf: Tf, backend: NativeBackend): void {
  const { TF_ATTR_TYPE, TF_ATTR_STRING, TF_ATTR_INT, TF_FLOAT, TF_INT32, TF_BOOL } = backend.binding;
  const float: OpAttribute[] = [{ name: 'T', type: TF_ATTR_TYPE, value: TF_FLOAT }];
  const floatChannelsLast: OpAttribute[] = [...float, { name: 'data_format', type: TF_ATTR_STRING, value: 'NHWC' }];

  replaceGradient(tf, {
    kernelName: 'Relu',
    outputsToSave: [true],
    gradFunc: (dy, saved) => ({
      x: () => backend.executeSingleOutput('ReluGrad', float, [single(dy), single(saved)]),
    }),
  });

  const stockKernel = tf.getKernel('Add', 'tensorflow');
  tf.unregisterKernel('Add', 'tensorflow');
  tf.registerKernel({
    ...stockKernel,
    kernelFunc: (parameters) => {
      const { a, b } = parameters.inputs as { a: Tensor; b: Tensor };
      return isBiasAddition(a, b)
        ? backend.executeSingleOutput('BiasAdd', floatChannelsLast, [a, b])
        : stockKernel.kernelFunc(parameters);
    },
  });

  const gather = tf.getKernel('GatherV2', 'tensorflow');
  tf.unregisterKernel('GatherV2', 'tensorflow');
  tf.registerKernel({
    ...gather,
    kernelFunc: ({ inputs, attrs }) => {
      const { x, indices } = inputs as { x: Tensor; indices: Tensor };
      const { axis, batchDims } = attrs as { axis: number; batchDims: number };
      const typed = (name: string, dtype: string): OpAttribute => ({
        name,
        type: TF_ATTR_TYPE,
        value: dtype === 'int32' ? TF_INT32 : dtype === 'bool' ? TF_BOOL : TF_FLOAT,
      });
      return tf.tidy(() =>
        backend.executeSingleOutput(
          'GatherV2',
          [
            { name: 'batch_dims', type: TF_ATTR_INT, value: batchDims },
            typed('Tparams', x.dtype),
            typed('Tindices', indices.dtype),
            typed('Taxis', 'int32'),
          ],
          [x, indices, tf.scalar(axis, 'int32')],
        ),
      );
    },
  });

  const stockGradient = tf.getGradient('Add');
  replaceGradient(tf, {
    kernelName: 'Add',
    inputsToSave: ['a', 'b'],
    gradFunc: (dy, saved, attributes) => {
      const [a, b] = saved as [Tensor, Tensor];
      if (!isBiasAddition(a, b)) return stockGradient.gradFunc(dy, saved, attributes);
      return {
        a: () => single(dy).clone(),
        b: () => backend.executeSingleOutput('BiasAddGrad', floatChannelsLast, [single(dy)]),
      };
    },
  });
}

function replaceGradient(tf: Tf, gradient: TensorFlow.GradConfig): void {
  tf.unregisterGradient(gradient.kernelName);
  tf.registerGradient(gradient);
}

function single(value: Tensor | Tensor[]): Tensor {
  const first = Array.isArray(value) ? value[0] : value;
  if (first === undefined) throw new TypeError('a gradient function was called without its tensor');
  return first;
}
