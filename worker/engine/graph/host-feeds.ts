// A pass: float inputs come in as the int32 of the same bits. The Node binding keeps int32 tensors in the host's memory and
// sends all others to the GPU at once, but a graph's inputs are handed over in the host's memory: a float would travel to the
// GPU, back, and there again, an int32 travels once. In the graph the bits are floats again; Bitcast moves nothing.

import { DataType, type GraphNode } from './nodes.ts';

/** The placeholders keep their names and change their type to int32: feed them the same bytes. */
export function hostFeeds(nodes: readonly GraphNode[]): GraphNode[] {
  const renamed = new Map<string, string>();
  const fed = nodes.flatMap((node): GraphNode[] => {
    const [output] = node.outputs;
    if (node.operation !== 'Placeholder' || output?.type !== DataType.float) return [node];
    const floats = `${node.name}_floats`;
    renamed.set(`${node.name}:0`, `${floats}:0`);
    const type = { kind: 'type', value: DataType.int32 } as const;
    return [
      { ...node, attributes: { ...node.attributes, dtype: type }, outputs: [{ ...output, type: DataType.int32 }] },
      {
        name: floats,
        operation: 'Bitcast',
        inputs: [`${node.name}:0`],
        attributes: { T: type, type: { kind: 'type', value: DataType.float } },
        layer: node.layer,
        outputs: [output],
      },
    ];
  });
  return fed.map((node) =>
    node.operation === 'Bitcast' && renamed.get(node.inputs[0] ?? '') === `${node.name}:0`
      ? node
      : { ...node, inputs: node.inputs.map((input) => renamed.get(input) ?? input) },
  );
}
