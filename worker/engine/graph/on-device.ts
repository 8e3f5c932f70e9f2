// A traced graph for a GPU, where each tensor that crosses the bus is a journey of its own and a small model's step is mostly
// journeys: its variables lie on the device as one vector, sent when they change and not at each run, and its float results
// come back as one. (The tutorial's microbatch of 16: bench/RESULTS.md, "On a GPU".)
//
// Memory: on the device the variables twice, as the vector and as what is cut from it.

import type { NativeArray, NativeBinding, OutputTensor } from '../tensorflow/library.ts';
import { hostFeeds } from './host-feeds.ts';
import { type Attribute, DataType, type GraphNode, type OutputInfo, Outputs } from './nodes.ts';
import { loadGraph } from './program.ts';
import { reshape } from './reshape.ts';
import { type GraphPass, type Traced, withOutputs } from './trace.ts';

export interface DeviceProgram {
  /** Puts new variables onto the device: the id of a native int32 [elements], the bits of their floats one after another. */
  readonly load: (variables: number) => void;
  /** @param inputs ids of native tensors, floats as the int32 of the same bits; returns the values of results, then of updates */
  readonly run: (inputs: readonly number[]) => NativeArray[];
  readonly close: () => void;
}

const VARIABLES = 'variables';
const HANDLE = `${VARIABLES}_handle`;
const LOADED = `${VARIABLES}_loaded`;
const FLOATS = 'floats';

const type = (value: number): Attribute => ({ kind: 'type', value });
const elementsOf = ({ shape }: OutputInfo): number => shape.reduce((product, dimension) => product * dimension, 1);

/** A node outside of all layers. */
const node = (
  name: string,
  operation: string,
  inputs: readonly string[],
  attributes: Readonly<Record<string, Attribute>>,
  ...outputs: readonly OutputInfo[]
): GraphNode => ({ name, operation, inputs, attributes, layer: null, outputs });

const integers = (name: string, values: readonly number[], shape: readonly number[]): GraphNode => {
  const info = { type: DataType.int32, shape };
  const content = new Uint8Array(Int32Array.from(values).buffer);
  const value: Attribute = { kind: 'tensor', value: { ...info, content } };
  return node(name, 'Const', [], { dtype: type(DataType.int32), value }, info);
};

/** The variables under their own names, cut from a vector that stays on the device, and what replaces it. */
function variablesOnDevice(placeholders: readonly GraphNode[]): GraphNode[] {
  const infos = placeholders.flatMap(({ outputs }) => outputs);
  const sizes = infos.map(elementsOf);
  const vector = { type: DataType.float, shape: [sizes.reduce((sum, size) => sum + size, 0)] };
  const float = type(DataType.float);
  const shape: Attribute = { kind: 'shape', value: vector.shape };
  const cut = `${VARIABLES}_cut`;
  return [
    node(
      HANDLE,
      'VarHandleOp',
      [],
      { dtype: float, shape, shared_name: { kind: 'string', value: VARIABLES } },
      {
        type: DataType.resource,
        shape: [],
      },
    ),
    node(VARIABLES, 'Placeholder', [], { dtype: float, shape }, vector),
    node(`${VARIABLES}_assign`, 'AssignVariableOp', [`${HANDLE}:0`, `${VARIABLES}:0`], { dtype: float }),
    integers(`${VARIABLES}_none`, [0], []),
    // A run asks for a tensor, and the assignment gives none.
    node(
      LOADED,
      'Identity',
      [`${VARIABLES}_none:0`, `^${VARIABLES}_assign`],
      { T: type(DataType.int32) },
      { type: DataType.int32, shape: [] },
    ),
    node(`${VARIABLES}_value`, 'ReadVariableOp', [`${HANDLE}:0`], { dtype: float }, vector),
    integers(`${VARIABLES}_sizes`, sizes, [sizes.length]),
    integers(`${VARIABLES}_axis`, [0], []),
    node(
      cut,
      'SplitV',
      [`${VARIABLES}_value:0`, `${VARIABLES}_sizes:0`, `${VARIABLES}_axis:0`],
      { T: float, Tlen: type(DataType.int32), num_split: { kind: 'int', value: sizes.length } },
      ...sizes.map((size) => ({ type: DataType.float, shape: [size] })),
    ),
    ...placeholders.flatMap(({ name }, i) => reshape(`${cut}:${i}`, infos[i] as OutputInfo, name, null)),
  ];
}

/** The float outputs of these names, one after another. */
function oneVector(names: readonly string[], outputs: Outputs): GraphNode[] {
  const flat = names.flatMap((name) => {
    const info = outputs.of(`${name}:0`);
    return reshape(`${name}:0`, { ...info, shape: [elementsOf(info)] }, `${name}_flat`, null);
  });
  const length = names.reduce((sum, name) => sum + elementsOf(outputs.of(`${name}:0`)), 0);
  const info = { type: DataType.float, shape: [length] };
  const flatNames = names.map((name) => `${name}_flat:0`);
  // Two at least are what ConcatV2 takes.
  if (flatNames.length < 2) return [...flat, node(FLOATS, 'Identity', flatNames, { T: type(DataType.float) }, info)];
  const attributes: Readonly<Record<string, Attribute>> = {
    T: type(DataType.float),
    Tidx: type(DataType.int32),
    N: { kind: 'int', value: names.length },
  };
  return [
    ...flat,
    integers(`${FLOATS}_axis`, [0], []),
    node(FLOATS, 'ConcatV2', [...flatNames, `${FLOATS}_axis:0`], attributes, info),
  ];
}

/** Loads a trace whose variables, and at least one of whose outputs, are floats. */
export function compileOnDevice(binding: NativeBinding, traced: Traced, pass: GraphPass): DeviceProgram {
  const { nodes, names } = withOutputs(traced);
  const passed = pass(nodes);
  const isVariable = new Set(traced.variableNames);
  const outputs = new Outputs(passed);
  const infos = names.map((name) => outputs.of(`${name}:0`));
  const isFloat = (_: string, i: number): boolean => infos[i]?.type === DataType.float;
  const floats = names.filter(isFloat);
  const others = names.filter((name, i) => !isFloat(name, i));

  const { call, close } = loadGraph(
    binding,
    hostFeeds([
      ...variablesOnDevice(passed.filter(({ name }) => isVariable.has(name))),
      ...passed.filter(({ name }) => !isVariable.has(name)),
      ...oneVector(floats, outputs),
    ]),
  );
  const take = (results: readonly OutputTensor[]): NativeArray[] => {
    try {
      return results.map(({ id }) => binding.tensorDataSync(id));
    } finally {
      for (const { id } of results) binding.deleteTensor(id);
    }
  };
  const run = call(traced.inputNames, [FLOATS, ...others]);
  const load = call([VARIABLES], [LOADED]);
  return {
    load: (id) => void take(load([id])),
    run: (ids) => {
      const [vector, ...rest] = take(run(ids));
      let offset = 0;
      return infos.map((info): NativeArray => {
        if (info.type !== DataType.float) return rest.shift() as NativeArray;
        const start = offset;
        offset += elementsOf(info);
        return (vector as Float32Array).subarray(start, offset);
      });
    },
    close,
  };
}
