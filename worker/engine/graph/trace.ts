// `tf.function` for TensorFlow.js on Node: turns a function of tensors into one TensorFlow graph, run as a single native call.
// It is recorded twice; where the two recordings differ, the function does not do the same thing each time (it counts its
// calls, looks at the clock), and a graph of it would be wrong from its second run on.
//
// A graph is for one shape of its inputs. Tracing costs two eager runs; loading and optimising the graph some 0.1 s more.

import type { NativeBinding, TensorflowLibrary } from '../tensorflow/library.ts';
import { type GraphNode, Outputs, type TensorValue } from './nodes.ts';
import { loadGraph, type Program } from './program.ts';
import { type Recording, type RecordOptions, record, refuse, variableName } from './record.ts';

export interface Traced extends Recording {
  readonly inputNames: readonly string[];
  readonly variableNames: readonly string[];
}

/** Changes a graph before it is loaded: node by node, references kept. */
export type GraphPass = (nodes: readonly GraphNode[]) => readonly GraphNode[];

/** Throws E_TRACE where the function cannot be a graph. */
export function trace(library: TensorflowLibrary, options: RecordOptions): Traced {
  const first = record(library, options);
  const second = record(library, options);
  const changed = first.nodes.findIndex((node, i) => !alike(node, second.nodes[i]));
  const at = changed >= 0 ? changed : first.nodes.length;
  const differing = [first.nodes[at], second.nodes[at]].filter((node) => node !== undefined);
  const [node, other = node] = differing;
  if (node !== undefined && other !== undefined) {
    // Where an operation was left out, the next one stands in its place: either may be the one at fault.
    const where = node.layer === other.layer ? '' : ` (or in layer '${other.layer ?? 'none'}', ${other.operation})`;
    throw refuse(
      node.layer,
      `the operation ${node.operation}${where} is not the same each time: it counts, or looks at a clock`,
    );
  }
  return {
    ...first,
    inputNames: Object.keys(options.inputs),
    variableNames: options.variables.map((_, i) => variableName(i)),
  };
}

/** The trace's graph with its results, then its updates, as nodes of their own, by name. */
export function withOutputs(traced: Traced): { readonly nodes: readonly GraphNode[]; readonly names: string[] } {
  const outputs = [...traced.results, ...traced.updates.map(({ result }) => result)];
  // The same tensor may be asked for twice, or be an input: each output is a node of its own.
  const infos = new Outputs(traced.nodes);
  const named = outputs.map((reference, i): GraphNode => {
    const info = infos.of(reference);
    return {
      name: `output${i}`,
      operation: 'Identity',
      inputs: [reference],
      attributes: { T: { kind: 'type', value: info.type } },
      layer: null,
      outputs: [info],
    };
  });
  return { nodes: [...traced.nodes, ...named], names: named.map(({ name }) => name) };
}

/** Loads a trace; the program takes the inputs' ids, then the variables', and gives the results, then the updates. */
export function compile(binding: NativeBinding, traced: Traced, pass: GraphPass = (nodes) => nodes): Program {
  const { nodes, names } = withOutputs(traced);
  const { call, close } = loadGraph(binding, pass(nodes));
  return { run: call([...traced.inputNames, ...traced.variableNames], names), close };
}

function alike(a: GraphNode, b: GraphNode | undefined): boolean {
  if (b === undefined || a.operation !== b.operation || a.inputs.join() !== b.inputs.join()) return false;
  return Object.entries(a.attributes).every(([key, attribute]) => {
    const other = b.attributes[key];
    if (attribute.kind === 'tensor') return other?.kind === 'tensor' && sameTensor(attribute.value, other.value);
    return JSON.stringify(attribute) === JSON.stringify(other);
  });
}

function sameTensor(a: TensorValue, b: TensorValue): boolean {
  if (a.type !== b.type || a.shape.join() !== b.shape.join()) return false;
  if (a.content instanceof Uint8Array) {
    return b.content instanceof Uint8Array && Buffer.compare(a.content, b.content) === 0;
  }
  return !(b.content instanceof Uint8Array) && Object.is(a.content.splat, b.content.splat);
}
