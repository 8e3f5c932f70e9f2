// Kernels that training needs and TensorFlow.js's WASM backend lacks, or has in a slow form.
//
// - Conv2DBackpropFilter (lacking): a convolution again, of the input with the output's gradient as its filter, the batch taking
//   the channels' place: dW[i, j, c, k] = sum over n, y, x of X[n, y*s + i, x*s + j, c] dY[n, y, x, k].
// - Conv2DBackpropInput, where it is slow (stride 1): the gradient, padded, convolved with the filter turned by 180 degrees.
// - DepthwiseConv2dNativeBackprop{Input,Filter} and UnsortedSegmentSum (an embedding's gradient), lacking: plain loops.
//
// Registered once for the process. Composed kernels make their intermediate tensors in a tidy of their own.

import type * as TensorFlow from '@tensorflow/tfjs';
import type { Tf } from '../../../jobs/contract.ts';

type Tensor4D = TensorFlow.Tensor4D;
type TensorInfo = TensorFlow.TensorInfo;
type Shape4 = [number, number, number, number];

/** The part of the backend that the loops use. */
interface Heap {
  readSync(dataId: TensorFlow.DataId): Float32Array | Int32Array;
  makeOutput(shape: number[], dtype: TensorFlow.DataType): TensorInfo;
  typedArrayFromHeap(info: TensorInfo): Float32Array;
}

interface ConvolutionAttributes {
  readonly strides: [number, number] | number;
  readonly dilations?: [number, number] | number;
  readonly pad: 'valid' | 'same' | number;
  readonly dataFormat?: string;
  readonly dimRoundingMode?: 'floor' | 'round' | 'ceil';
  readonly filterShape: Shape4;
  readonly inputShape: Shape4;
}

type Registered = Parameters<Tf['registerKernel']>[0];

/** Registers them for the backend `wasm`, replacing what is there. */
export function registerTrainingKernels(tf: Tf): void {
  const register = (kernelName: string, kernelFunc: Registered['kernelFunc']): void => {
    if (tf.getKernel(kernelName, 'wasm') !== undefined) tf.unregisterKernel(kernelName, 'wasm');
    tf.registerKernel({ kernelName, backendName: 'wasm', kernelFunc });
  };
  // Operations hand their tensors to the kernel as they are.
  const asTensor = (input: unknown): Tensor4D => {
    if (!(input instanceof tf.Tensor)) throw new TypeError('a kernel was called without its tensor');
    return input as Tensor4D;
  };

  register('Conv2DBackpropFilter', ({ inputs, attrs }) => {
    const { strides, pad, dimRoundingMode, filterShape } = attrs as unknown as ConvolutionAttributes;
    return tf.tidy(() => {
      const [x, dy] = [asTensor(inputs['x']), asTensor(inputs['dy'])];
      const { padInfo, strideHeight, strideWidth } = tf.backend_util.computeConv2DInfo(
        x.shape,
        filterShape,
        strides,
        1,
        pad,
        dimRoundingMode,
      );
      const [height, width, channels, filters] = filterShape;
      const padded = padOf(tf, x, padInfo);
      const gradient = tf.conv2d(
        tf.transpose(padded, [3, 1, 2, 0]),
        tf.transpose(dy, [1, 2, 0, 3]),
        1,
        'valid',
        'NHWC',
        [strideHeight, strideWidth],
      );
      // A stride may leave rows and columns that no window reached: the first ones are the filter's.
      return tf.transpose(tf.slice(gradient, [0, 0, 0, 0], [channels, height, width, filters]), [1, 2, 0, 3]);
    });
  });

  const stockInput = tf.getKernel('Conv2DBackpropInput', 'wasm').kernelFunc;
  register('Conv2DBackpropInput', (parameters) => {
    const { inputs, attrs } = parameters;
    const { strides, pad, dimRoundingMode, inputShape } = attrs as unknown as ConvolutionAttributes;
    const [dy, filter] = [inputs['dy'] as TensorInfo, inputs['filter'] as TensorInfo];
    const info = tf.backend_util.computeConv2DInfo(
      inputShape,
      filter.shape as Shape4,
      strides,
      1,
      pad,
      dimRoundingMode,
    );
    if (info.strideHeight !== 1 || info.strideWidth !== 1) return stockInput(parameters);
    const { filterHeight, filterWidth, inHeight, inWidth, outHeight, outWidth, padInfo } = info;
    const top = filterHeight - 1 - padInfo.top;
    const left = filterWidth - 1 - padInfo.left;
    const bottom = inHeight + filterHeight - 1 - top - outHeight;
    const right = inWidth + filterWidth - 1 - left - outWidth;
    // More padding than the filter is wide: the window would have to begin inside the gradient.
    if (Math.min(top, left, bottom, right) < 0) return stockInput(parameters);
    return tf.tidy(() => {
      const turned = tf.transpose(tf.reverse(asTensor(filter), [0, 1]), [0, 1, 3, 2]);
      return tf.conv2d(padOf(tf, asTensor(dy), { top, left, bottom, right }), turned, 1, 'valid');
    });
  });

  register('DepthwiseConv2dNativeBackpropInput', ({ inputs, attrs, backend }) => {
    const { inputShape } = attrs as unknown as ConvolutionAttributes;
    const [dy, filter] = [inputs['dy'] as TensorInfo, inputs['filter'] as TensorInfo];
    const heap = backend as unknown as Heap;
    const out = heap.makeOutput([...inputShape], 'float32');
    const [gradients, weights] = [heap.readSync(dy.dataId), heap.readSync(filter.dataId)];
    const result = heap.typedArrayFromHeap(out).fill(0);
    forEachProduct(tf, inputShape, filter.shape as Shape4, attrs as unknown as ConvolutionAttributes, (x, w, y) => {
      result[x] = (result[x] as number) + (gradients[y] as number) * (weights[w] as number);
    });
    return out;
  });

  register('DepthwiseConv2dNativeBackpropFilter', ({ inputs, attrs, backend }) => {
    const { filterShape } = attrs as unknown as ConvolutionAttributes;
    const [x, dy] = [inputs['x'] as TensorInfo, inputs['dy'] as TensorInfo];
    const heap = backend as unknown as Heap;
    const out = heap.makeOutput([...filterShape], 'float32');
    const [values, gradients] = [heap.readSync(x.dataId), heap.readSync(dy.dataId)];
    // Summed in float64, rounded once.
    const sums = new Float64Array(filterShape.reduce((a, b) => a * b, 1));
    forEachProduct(tf, x.shape as Shape4, filterShape, attrs as unknown as ConvolutionAttributes, (at, w, y) => {
      sums[w] = (sums[w] as number) + (values[at] as number) * (gradients[y] as number);
    });
    heap.typedArrayFromHeap(out).set(sums);
    return out;
  });

  register('UnsortedSegmentSum', ({ inputs, attrs, backend }) => {
    const [x, ids] = [inputs['x'] as TensorInfo, inputs['segmentIds'] as TensorInfo];
    const { numSegments } = attrs as unknown as { numSegments: number };
    const heap = backend as unknown as Heap;
    const row = x.shape.slice(1);
    const out = heap.makeOutput([numSegments, ...row], 'float32');
    const width = row.reduce((a, b) => a * b, 1);
    const [values, segments] = [heap.readSync(x.dataId), heap.readSync(ids.dataId)];
    const result = heap.typedArrayFromHeap(out).fill(0);
    for (let i = 0; i < segments.length; i++) {
      const segment = segments[i] as number;
      if (segment < 0 || segment >= numSegments) continue;
      for (let k = 0; k < width; k++) {
        const at = segment * width + k;
        result[at] = (result[at] as number) + (values[i * width + k] as number);
      }
    }
    return out;
  });
}

function padOf(
  tf: Tf,
  x: Tensor4D,
  { top, left, bottom, right }: { top: number; left: number; bottom: number; right: number },
): Tensor4D {
  if (top + left + bottom + right === 0) return x;
  return tf.pad(x, [
    [0, 0],
    [top, bottom],
    [left, right],
    [0, 0],
  ]);
}

/**
 * Calls `visit(input, weight, output)`, offsets of floats, for each product that a depthwise convolution sums: input
 * [n, h, w, c], filter [fh, fw, c, m], output [n, oh, ow, c * m].
 */
function forEachProduct(
  tf: Tf,
  inputShape: Shape4,
  filterShape: Shape4,
  { strides, dilations, pad, dimRoundingMode }: ConvolutionAttributes,
  visit: (input: number, weight: number, output: number) => void,
): void {
  const info = tf.backend_util.computeConv2DInfo(
    inputShape,
    filterShape,
    strides,
    dilations ?? 1,
    pad,
    dimRoundingMode,
    true,
  );
  const { batchSize, inHeight, inWidth, inChannels, outHeight, outWidth, outChannels, padInfo } = info;
  const multiplier = outChannels / inChannels;
  for (let n = 0; n < batchSize; n++) {
    for (let y = 0; y < outHeight; y++) {
      for (let fy = 0; fy < info.filterHeight; fy++) {
        const inY = y * info.strideHeight + fy * info.dilationHeight - padInfo.top;
        if (inY < 0 || inY >= inHeight) continue;
        for (let x = 0; x < outWidth; x++) {
          const output = ((n * outHeight + y) * outWidth + x) * outChannels;
          for (let fx = 0; fx < info.filterWidth; fx++) {
            const inX = x * info.strideWidth + fx * info.dilationWidth - padInfo.left;
            if (inX < 0 || inX >= inWidth) continue;
            const input = ((n * inHeight + inY) * inWidth + inX) * inChannels;
            const weight = (fy * info.filterWidth + fx) * outChannels;
            for (let c = 0; c < outChannels; c++) visit(input + Math.floor(c / multiplier), weight + c, output + c);
          }
        }
      }
    }
  }
}
