// A pass: products of two plain matrices as MatMul. TensorFlow.js calls BatchMatMulV2 for every product, and sends a small one
// through three dimensions of which the first is 1; TensorFlow fuses, lays out and (in bfloat16) accelerates MatMul only.

import { DataType, type GraphNode, Outputs } from './nodes.ts';

/** Same values for the same references; product nodes keep their names, so that nothing that reads them changes. */
export function plainMatrixProducts(nodes: readonly GraphNode[]): GraphNode[] {
  const outputs = new Outputs(nodes);
  return nodes.flatMap((node) => {
    const [output] = node.outputs;
    if (node.operation !== 'BatchMatMulV2' || output === undefined) return [node];
    const shapes = [...node.inputs.map((input) => outputs.of(input).shape), output.shape];
    if (!shapes.every((shape) => shape.slice(0, -2).every((dimension) => dimension === 1))) return [node];

    const added: GraphNode[] = [];
    const reshaped = (reference: string, type: number, shape: readonly number[], name: string): GraphNode => {
      added.push(shapeConstant(`${name}_shape`, shape, node.layer));
      return {
        name,
        operation: 'Reshape',
        inputs: [reference, `${name}_shape:0`],
        attributes: { T: { kind: 'type', value: type }, Tshape: { kind: 'type', value: DataType.int32 } },
        layer: node.layer,
        outputs: [{ type, shape }],
      };
    };
    const matrices = node.inputs.map((input, i) => {
      const { type, shape } = outputs.of(input);
      if (shape.length === 2) return input;
      added.push(reshaped(input, type, shape.slice(-2), `${node.name}_in${i}`));
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
    if (!isFlat) added.push(reshaped(`${product.name}:0`, output.type, output.shape, node.name));
    return added;
  });
}

function shapeConstant(name: string, shape: readonly number[], layer: string | null): GraphNode {
  const value = { type: DataType.int32, shape: [shape.length] };
  return {
    name,
    operation: 'Const',
    inputs: [],
    attributes: {
      dtype: { kind: 'type', value: DataType.int32 },
      value: { kind: 'tensor', value: { ...value, content: new Uint8Array(Int32Array.from(shape).buffer) } },
    },
    layer,
    outputs: [value],
  };
}
