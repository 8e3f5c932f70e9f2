// TensorFlow operations that TensorFlow.js has no name for, as TensorFlow.js functions.

import type * as TensorFlow from '@tensorflow/tfjs';
import type { Draws } from '../model/chance.ts';
import type { CrossEntropy } from '../model/loss.ts';
import type { OpAttribute, TensorflowLibrary } from './library.ts';

type Tensor = TensorFlow.Tensor;

function typesOf({ backend }: TensorflowLibrary, types: Record<string, 'TF_FLOAT' | 'TF_INT32'>): OpAttribute[] {
  const { binding } = backend;
  return Object.entries(types).map(([name, type]) => ({ name, type: binding.TF_ATTR_TYPE, value: binding[type] }));
}

/**
 * Softmax and cross-entropy. TensorFlow has them in one operation, which gives the value and the gradient at once; it has no
 * deterministic kernel for a GPU, and will not run there when only such are allowed.
 */
export function crossEntropyOf(library: TensorflowLibrary): CrossEntropy {
  return library.onGpu ? deterministicCrossEntropy(library) : nativeCrossEntropy(library);
}

function nativeCrossEntropy(library: TensorflowLibrary): CrossEntropy {
  const { tf, backend } = library;
  const attributes = typesOf(library, { T: 'TF_FLOAT', Tlabels: 'TF_INT32' });
  return (logits, labels) => {
    const op = tf.customGrad((x, save) => {
      const [losses, slope] = backend.executeMultipleOutputs(
        'SparseSoftmaxCrossEntropyWithLogits',
        attributes,
        [x as Tensor, labels],
        2,
      ) as [Tensor, Tensor];
      (save as (tensors: Tensor[]) => void)([slope]);
      return {
        value: losses,
        gradFunc: (dy: Tensor, saved: Tensor[]) => (saved[0] as Tensor).mul(dy.expandDims(1)),
      };
    });
    return op(logits) as TensorFlow.Tensor1D;
  };
}

/** By operations whose kernels give the same bits each time on a GPU, too; value and gradient share the softmax. */
function deterministicCrossEntropy(library: TensorflowLibrary): CrossEntropy {
  const { tf, backend } = library;
  const attributes = typesOf(library, { T: 'TF_FLOAT' });
  return (logits, labels) => {
    const op = tf.customGrad((x, save) => {
      const right = tf.oneHot(labels, logits.shape[1] ?? 0, 1, 0, 'float32');
      const logarithms = backend.executeSingleOutput('LogSoftmax', attributes, [x as Tensor]);
      (save as (tensors: Tensor[]) => void)([logarithms.exp().sub(right)]);
      return {
        value: logarithms.mul(right).sum(1).neg(),
        gradFunc: (dy: Tensor, saved: Tensor[]) => (saved[0] as Tensor).mul(dy.expandDims(1)),
      };
    });
    return op(logits) as TensorFlow.Tensor1D;
  };
}

/**
 * Draws by TensorFlow's stateless operations (Philox): the n-th draw of a pass is keyed by `key` + [0, n].
 * @param key int32 [2]
 */
export function statelessDraws(library: TensorflowLibrary, key: Tensor): Draws {
  const { tf, backend } = library;
  const attributes = typesOf(library, { T: 'TF_INT32', dtype: 'TF_FLOAT', Tseed: 'TF_INT32' });
  let draws = 0;
  const draw = (operation: string) => (shape: readonly number[]) => {
    draws++;
    const seed = key.add(tf.tensor1d([0, draws], 'int32'));
    return backend.executeSingleOutput(operation, attributes, [tf.tensor1d([...shape], 'int32'), seed]);
  };
  return {
    uniform: draw('StatelessRandomUniform'),
    normal: draw('StatelessRandomNormal'),
    truncatedNormal: draw('StatelessTruncatedNormal'),
  };
}
