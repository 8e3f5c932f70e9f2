// TensorFlow.js writes some gradients out as several small operations where TensorFlow has one. This puts TensorFlow's own
// back: ReluGrad for relu, BiasAdd and BiasAddGrad for the addition of a bias vector. The mathematics is the same; what is
// left to do per step is less, and a graph made of these operations is one that TensorFlow knows how to optimise.
//
// Changes TensorFlow.js for the whole process, once. Higher-order gradients through relu and bias are given up: Lockstep
// takes first derivatives only. Every replacement is held against stock TensorFlow.js in test/worker/engine.

import type * as TensorFlow from '@tensorflow/tfjs';
import type { Tf } from '../../jobs/contract.ts';
import type { NativeBackend, OpAttribute } from './tensorflow-library.ts';

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
  const { TF_ATTR_TYPE, TF_ATTR_STRING, TF_FLOAT } = backend.binding;
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
