// A pass: relu after a maximum pooling instead of before it. Both orders give the same values, and the same gradient: where
// the largest of a window is positive, its place is the same in both; where it is not, relu's gradient is zero in both. Done
// this way round, relu and its gradient read and write a quarter of the floats (for windows of 2 x 2).
//
// Only where nothing else reads the relu's output.

import { DataType, type GraphNode } from './nodes.ts';

interface Place {
  readonly relu: GraphNode;
  readonly pool: GraphNode;
  readonly poolGradient: GraphNode | undefined;
  readonly reluGradient: GraphNode | undefined;
}

/** The pooling and the relu's gradient keep their names, as what the relu and the pooling's gradient become. */
export function reluAfterPooling(nodes: readonly GraphNode[]): GraphNode[] {
  const replacements = new Map<string, GraphNode[]>();
  for (const place of placesIn(nodes)) {
    const { relu, pool, poolGradient, reluGradient } = place;
    const [before = ''] = relu.inputs;
    const pooled = `${pool.name}_before_relu`;
    replacements.set(relu.name, []);
    replacements.set(pool.name, [
      { ...pool, name: pooled, inputs: [before] },
      { ...relu, name: pool.name, inputs: [`${pooled}:0`], outputs: pool.outputs },
    ]);
    if (poolGradient === undefined || reluGradient === undefined) continue;
    const [, , slope = ''] = poolGradient.inputs;
    const masked = `${reluGradient.name}_before_pooling`;
    replacements.set(poolGradient.name, []);
    replacements.set(reluGradient.name, [
      { ...reluGradient, name: masked, inputs: [slope, `${pool.name}:0`], outputs: pool.outputs },
      { ...poolGradient, name: reluGradient.name, inputs: [before, `${pooled}:0`, `${masked}:0`] },
    ]);
  }
  return nodes.flatMap((node) => replacements.get(node.name) ?? [node]);
}

function placesIn(nodes: readonly GraphNode[]): Place[] {
  const readers = new Map<string, GraphNode[]>();
  for (const node of nodes) {
    for (const input of node.inputs) readers.set(input, [...(readers.get(input) ?? []), node]);
  }
  const readersOf = (node: GraphNode): GraphNode[] => readers.get(`${node.name}:0`) ?? [];

  return nodes.flatMap((relu): Place[] => {
    if (relu.operation !== 'Relu' || relu.outputs[0]?.type !== DataType.float) return [];
    const output = `${relu.name}:0`;
    const all = readersOf(relu);
    const [pool, ...otherPools] = all.filter((node) => node.operation === 'MaxPool');
    if (pool === undefined || otherPools.length > 0) return [];
    const poolGradient = all.find(
      ({ operation, inputs }) =>
        operation === 'MaxPoolGrad' && inputs[0] === output && inputs[1] === `${pool.name}:0` && inputs[2] !== output,
    );
    const reluGradient = all.find(
      ({ operation, inputs }) =>
        operation === 'ReluGrad' &&
        poolGradient !== undefined &&
        inputs[0] === `${poolGradient.name}:0` &&
        inputs[1] === output,
    );
    const known = new Set([pool, poolGradient, reluGradient].filter((node) => node !== undefined));
    const isWhole = (poolGradient === undefined) === (reluGradient === undefined);
    const slopeIsPrivate = poolGradient === undefined || readersOf(poolGradient).length === 1;
    return all.every((node) => known.has(node)) && isWhole && slopeIsPrivate
      ? [{ relu, pool, poolGradient, reluGradient }]
      : [];
  });
}
