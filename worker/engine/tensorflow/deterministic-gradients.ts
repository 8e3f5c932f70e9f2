// Gradients for a GPU, where TensorFlow refuses an operation that has no kernel there which gives the same bits each time: the
// same mathematics from operations that have one. Changes TensorFlow.js for the whole process, once.
//
// One so far: that of the nearest neighbour's image, as upSampling2d makes it. What else is refused, TensorFlow names.

import type * as TensorFlow from '@tensorflow/tfjs';
import type { Tf } from '../../../jobs/contract.ts';

type Tensor4D = TensorFlow.Tensor4D;

interface Resizing {
  readonly alignCorners: boolean;
  readonly halfPixelCenters: boolean;
}

export function useDeterministicGradients(tf: Tf): void {
  const kernelName = 'ResizeNearestNeighbor';
  const stock = tf.getGradient(kernelName);
  tf.unregisterGradient(kernelName);
  tf.registerGradient({
    ...stock,
    gradFunc: (dy, saved, attributes) => {
      const slope = dy as Tensor4D;
      const [images] = saved as [Tensor4D];
      const [n, height, width, channels] = images.shape;
      const [, tall, wide] = slope.shape;
      const { alignCorners, halfPixelCenters } = attributes as unknown as Resizing;
      const isCopied = tall % height === 0 && wide % width === 0 && !alignCorners && !halfPixelCenters;
      if (!isCopied) return stock.gradFunc(dy, saved, attributes);
      // Each pixel was copied to a block, over which its gradient is the sum: along the rows, then along the columns.
      return {
        images: () =>
          slope
            .reshape([n * tall, width, wide / width, channels])
            .sum(2)
            .reshape([n * height, tall / height, width * channels])
            .sum(1)
            .reshape(images.shape),
      };
    },
  });
}
