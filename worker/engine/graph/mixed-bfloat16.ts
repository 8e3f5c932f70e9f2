// A pass: mixed precision. Convolutions and matrix products, and what lies between them (bias, relu, pooling, reshaping), run in
// bfloat16; everything else stays in float32, above all weights, losses, softmax, statistics, and the gradients that come out.
// A weight is cast where it is used; sums inside a convolution or product are float32 in TensorFlow's kernels.
//
// What Keras does under its policy `mixed_bfloat16` (Micikevicius et al. 2018 for the idea, bfloat16 needs no loss scaling), but
// done to the graph: TensorFlow.js has no bfloat16 to run it eagerly.

import { DataType, type GraphNode, Outputs } from './nodes.ts';

/** Worth a cast of their inputs. */
const COMPUTE = new Set([
  'Conv2D',
  'Conv2DBackpropInput',
  'Conv2DBackpropFilter',
  'DepthwiseConv2dNative',
  'DepthwiseConv2dNativeBackpropInput',
  'DepthwiseConv2dNativeBackpropFilter',
  'MatMul',
  'BatchMatMulV2',
]);

/** Run in bfloat16 where a bfloat16 tensor comes in anyhow; a second input may be a weight, and is cast. */
const FOLLOW = new Set([
  'BiasAdd',
  'BiasAddGrad',
  'Relu',
  'ReluGrad',
  'Relu6',
  'Relu6Grad',
  'MaxPool',
  'MaxPoolGrad',
  'AvgPool',
  'AvgPoolGrad',
  'Reshape',
  'Transpose',
  'Pad',
]);

/** References keep their names and their float32 type: a node that goes to bfloat16 is followed by a cast under its old name. */
export function mixedBfloat16(nodes: readonly GraphNode[]): GraphNode[] {
  const outputs = new Outputs(nodes);
  const result: GraphNode[] = [];
  /** The bfloat16 twin of a float32 reference. */
  const twins = new Map<string, string>();

  const isFloat = (reference: string): boolean => outputs.of(reference).type === DataType.float;
  const isWeight = (reference: string): boolean => ['Placeholder', 'Const'].includes(outputs.operationOf(reference));

  const twinOf = (reference: string, layer: string | null): string => {
    const known = twins.get(reference);
    if (known !== undefined) return known;
    const name = `${reference.replace(':', '_')}_bfloat16`;
    result.push(castNode(name, reference, DataType.float, DataType.bfloat16, outputs.of(reference).shape, layer));
    twins.set(reference, `${name}:0`);
    return `${name}:0`;
  };

  for (const node of nodes) {
    const [output] = node.outputs;
    const { T } = node.attributes;
    const floats = node.inputs.filter(isFloat);
    const follows =
      FOLLOW.has(node.operation) &&
      floats.some((input) => twins.has(input) && !isWeight(input)) &&
      floats.every((input) => twins.has(input) || isWeight(input));
    const isCandidate = T?.kind === 'type' && T.value === DataType.float && output !== undefined;
    if (!isCandidate || !(COMPUTE.has(node.operation) || follows)) {
      result.push(node);
      continue;
    }
    const low: GraphNode = {
      ...node,
      name: `${node.name}_in_bfloat16`,
      inputs: node.inputs.map((input) => (isFloat(input) ? twinOf(input, node.layer) : input)),
      attributes: { ...node.attributes, T: { kind: 'type', value: DataType.bfloat16 } },
      outputs: [{ ...output, type: DataType.bfloat16 }],
    };
    result.push(low, castNode(node.name, `${low.name}:0`, DataType.bfloat16, DataType.float, output.shape, node.layer));
    twins.set(`${node.name}:0`, `${low.name}:0`);
  }
  return result;
}

function castNode(
  name: string,
  input: string,
  from: number,
  to: number,
  shape: readonly number[],
  layer: string | null,
): GraphNode {
  return {
    name,
    operation: 'Cast',
    inputs: [input],
    attributes: { SrcT: { kind: 'type', value: from }, DstT: { kind: 'type', value: to } },
    layer,
    outputs: [{ type: to, shape }],
  };
}
