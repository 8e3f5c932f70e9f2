// A pass: the gradient of a convolution's bias from a flat view of the slope. TensorFlow would fuse it with the gradient of the
// convolution's kernel, and oneDNN's fused sum is slower than the separate one: 7 % of the tutorial's microbatch of 64. The
// view keeps the two apart; the bits are the same.

import { DataType, type GraphNode, Outputs } from './nodes.ts';
import { reshape } from './reshape.ts';

/** Same values for the same references: BiasAddGrad nodes keep their names. */
export function biasGradients(nodes: readonly GraphNode[]): GraphNode[] {
  const outputs = new Outputs(nodes);
  return nodes.flatMap((node) => {
    const [slope = ''] = node.inputs;
    if (node.operation !== 'BiasAddGrad') return [node];
    const { type, shape } = outputs.of(slope);
    // Half-precision is summed elsewhere, and TensorFlow sums it in another order.
    if (shape.length < 3 || type !== DataType.float) return [node];
    const channels = shape.at(-1) ?? 1;
    const rows = shape.slice(0, -1).reduce((product, dimension) => product * dimension, 1);
    const flat = `${node.name}_rows`;
    return [...reshape(slope, { type, shape: [rows, channels] }, flat, node.layer), { ...node, inputs: [`${flat}:0`] }];
  });
}
