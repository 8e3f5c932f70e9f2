// A TensorFlow graph as values: what a trace makes, passes change, and saved-model.ts encodes. Numbers of data types are those
// of TensorFlow's `DataType` (tensorflow/core/framework/types.proto).

export const DataType = {
  float: 1,
  int32: 3,
  uint8: 4,
  string: 7,
  int64: 9,
  bool: 10,
  bfloat16: 14,
  resource: 20,
} as const;

/** A constant: its bytes little-endian, or one value for all elements. */
export interface TensorValue {
  readonly type: number;
  readonly shape: readonly number[];
  readonly content: Uint8Array | { readonly splat: number };
}

export type Attribute =
  | { readonly kind: 'type'; readonly value: number }
  | { readonly kind: 'int'; readonly value: number }
  | { readonly kind: 'float'; readonly value: number }
  | { readonly kind: 'bool'; readonly value: boolean }
  | { readonly kind: 'string'; readonly value: string }
  | { readonly kind: 'shape'; readonly value: readonly number[] }
  | { readonly kind: 'tensor'; readonly value: TensorValue }
  | { readonly kind: 'types'; readonly value: readonly number[] }
  | { readonly kind: 'ints'; readonly value: readonly number[] }
  | { readonly kind: 'floats'; readonly value: readonly number[] };

export interface GraphNode {
  readonly name: string;
  readonly operation: string;
  /** `node:output`; `^node` is a control input. */
  readonly inputs: readonly string[];
  readonly attributes: Readonly<Record<string, Attribute>>;
  /** The layer that asked for it, for messages; null outside of layers (losses, gradients). */
  readonly layer: string | null;
  readonly outputs: readonly OutputInfo[];
}

export interface OutputInfo {
  readonly type: number;
  readonly shape: readonly number[];
}

/** A pass's view of a graph: what a reference (`node:output`) stands for. */
export class Outputs {
  private readonly nodes = new Map<string, GraphNode>();

  constructor(nodes: readonly GraphNode[] = []) {
    for (const node of nodes) this.add(node);
  }

  add(node: GraphNode): void {
    this.nodes.set(node.name, node);
  }

  of(reference: string): OutputInfo {
    const [name = '', index = '0'] = reference.split(':');
    const output = this.nodes.get(name)?.outputs[Number(index)];
    if (output === undefined) throw new TypeError(`the graph has no ${reference}`);
    return output;
  }

  operationOf(reference: string): string {
    return this.nodes.get(reference.split(':')[0] ?? '')?.operation ?? '';
  }
}
