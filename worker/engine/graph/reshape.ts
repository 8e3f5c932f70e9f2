// A Reshape and the constant that it takes its shape from.

import { DataType, type GraphNode, type OutputInfo } from './nodes.ts';

/** Two nodes; the second, `name`, is `reference` in the shape of `output`. */
export function reshape(reference: string, output: OutputInfo, name: string, layer: string | null): GraphNode[] {
  const shape = { type: DataType.int32, shape: [output.shape.length] };
  return [
    {
      name: `${name}_shape`,
      operation: 'Const',
      inputs: [],
      attributes: {
        dtype: { kind: 'type', value: DataType.int32 },
        value: { kind: 'tensor', value: { ...shape, content: new Uint8Array(Int32Array.from(output.shape).buffer) } },
      },
      layer,
      outputs: [shape],
    },
    {
      name,
      operation: 'Reshape',
      inputs: [reference, `${name}_shape:0`],
      attributes: { T: { kind: 'type', value: output.type }, Tshape: { kind: 'type', value: DataType.int32 } },
      layer,
      outputs: [output],
    },
  ];
}
