// A pass: products of two plain matrices as MatMul. TensorFlow.js calls BatchMatMulV2 for every product, and sends a small one
// through three dimensions of which the first is 1; TensorFlow fuses, lays out and (in bfloat16) accelerates MatMul only.

import { type GraphNode, Outputs } from './nodes.ts';
import { reshape } from './reshape.ts';

/** Same values for the same references; product nodes keep their names, so that nothing that reads them changes. */
export function plainMatrixProducts(nodes: readonly GraphNode[]): GraphNode[] {
  const outputs = new Outputs(nodes);
  return nodes.flatMap((node) => {
    const [output] = node.outputs;
    if (node.operation !== 'BatchMatMulV2' || output === undefined) return [node];
    const shapes = [...node.inputs.map((input) => outputs.of(input).shape), output.shape];
    if (!shapes.every((shape) => shape.slice(0, -2).every((dimension) => dimension === 1))) return [node];

    const added: GraphNode[] = [];
    const matrices = node.inputs.map((input, i) => {
      const { type, shape } = outputs.of(input);
      if (shape.length === 2) return input;
      added.push(...reshape(input, { type, shape: shape.slice(-2) }, `${node.name}_in${i}`, node.layer));
      return `${node.name}_in${i}:0`;
    });
    const { T, adj_x: transposeA, adj_y: transposeB } = node.attributes;
    const isFlat = output.shape.length === 2;
    const product: GraphNode = {
      name: isFlat ? node.name : `${node.name}_flat`,
      operation: 'MatMul',
      inputs: matrices,
      attributes: {
        ...(T && { T }),
        ...(transposeA && { transpose_a: transposeA }),
        ...(transposeB && { transpose_b: transposeB }),
      },
      layer: node.layer,
      outputs: [{ type: output.type, shape: output.shape.slice(-2) }],
    };
    added.push(product);
    if (!isFlat) added.push(...reshape(`${product.name}:0`, output, node.name, node.layer));
    return added;
  });
}
