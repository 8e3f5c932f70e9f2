// Records what a function of tensors makes TensorFlow.js's Node backend do: it runs once, eagerly, and each native call becomes
// a node of a graph. Inputs and variables become placeholders, what JavaScript wrote into a tensor becomes a constant, and a
// variable that has another value afterwards becomes an output.
//
// A graph is only as good as what it was made of, so whatever could not be the same in the next run is refused by name: a
// tensor whose values JavaScript looked at, a number drawn outside of the keyed draws, an operation that keeps something, a
// variable that nobody feeds. What looks harmless and changes from run to run (a clock, a counter) shows when two recordings
// are compared: trace.ts does.
//
// Cost: the eager run and some microseconds an operation. Nothing of TensorFlow.js stays changed.

import type * as TensorFlow from '@tensorflow/tfjs';
import { LockstepError } from '../../../protocol/errors.ts';
import { withMathRandom } from '../model/chance.ts';
import { tidily } from '../model/tidy.ts';
import type {
  NativeArray,
  NativeBackend,
  NativeBinding,
  OpAttribute,
  TensorflowLibrary,
} from '../tensorflow/library.ts';
import { type Attribute, DataType, type GraphNode, type TensorValue } from './nodes.ts';
import { completeAttributes, isStateful } from './op-definitions.ts';

type Tensor = TensorFlow.Tensor;

export interface Recording {
  readonly nodes: readonly GraphNode[];
  /** A reference (`node:output`) for each tensor that the body returned. */
  readonly results: readonly string[];
  /** Variables (by their place in the list) that the body changed, and what they became. */
  readonly updates: readonly { readonly variable: number; readonly result: string }[];
}

export interface RecordOptions {
  /** Placeholders; the tensors' values do not matter, their shapes and types do. */
  readonly inputs: Readonly<Record<string, Tensor>>;
  /** Placeholders `variable0`, `variable1`, ...: their values are put back afterwards. */
  readonly variables: readonly TensorFlow.Variable[];
  readonly body: () => readonly Tensor[];
}

export const variableName = (place: number): string => `variable${place}`;

/** Constants of at least so many elements, all alike, are stored as one value. */
const SPLAT_FROM = 16;

function whereOf(layer: string | null): string {
  return layer === null ? 'outside of the layers (a loss or a gradient)' : `in layer '${layer}'`;
}

export function refuse(layer: string | null, what: string): LockstepError {
  return new LockstepError('E_TRACE', `the model cannot be traced into a graph: ${whereOf(layer)}, ${what}`, {
    remedy: 'Change that layer, or run the same step operation by operation with --engine-mode eager (slower).',
  });
}

/** Throws E_TRACE. */
export function record(library: TensorflowLibrary, { inputs, variables, body }: RecordOptions): Recording {
  const { tf, backend } = library;
  const { binding } = backend;
  const nodes: GraphNode[] = [];
  /** Where each native tensor comes from, and its data type. */
  const sources = new Map<number, string>();
  const types = new Map<number, number>();
  const layers: string[] = [];
  const layer = (): string | null => layers.at(-1) ?? null;

  const add = (node: Omit<GraphNode, 'name' | 'layer'>, name = `n${nodes.length}_${node.operation}`): string => {
    nodes.push({ ...node, name, layer: layer() });
    return name;
  };
  const placeholder = (name: string, tensor: Tensor): void => {
    const [id = -1] = backend.getInputTensorIds([tensor]);
    const type = nativeType(backend, tensor);
    const attributes: Record<string, Attribute> = {
      dtype: { kind: 'type', value: type },
      shape: { kind: 'shape', value: tensor.shape },
    };
    sources.set(
      id,
      `${add({ operation: 'Placeholder', inputs: [], attributes, outputs: [{ type, shape: tensor.shape }] }, name)}:0`,
    );
    types.set(id, type);
  };
  const constant = (id: number, value: TensorValue): void => {
    const attributes: Record<string, Attribute> = {
      dtype: { kind: 'type', value: value.type },
      value: { kind: 'tensor', value },
    };
    sources.set(id, `${add({ operation: 'Const', inputs: [], attributes, outputs: [value] })}:0`);
    types.set(id, value.type);
  };

  Object.entries(inputs).forEach(([name, tensor]) => placeholder(name, tensor));
  variables.forEach((variable, place) => placeholder(variableName(place), variable));
  const idOf = (tensor: Tensor): number => backend.getInputTensorIds([tensor])[0] ?? -1;
  const idsBefore = variables.map(idOf);
  const strangers = new Map(
    Object.values(tf.engine().state.registeredVariables).map((variable) => [idOf(variable), variable]),
  );

  /** A tensor that was made before the recording: a constant, unless it is a variable. */
  const captured = (id: number, tensor: Tensor): void => {
    const stranger = strangers.get(id);
    if (stranger !== undefined) {
      throw refuse(layer(), `the variable '${stranger.name}' is used, which is not a weight of the model`);
    }
    constant(id, valueOf(tensor.shape, nativeType(backend, tensor), binding.tensorDataSync(id)));
  };

  const execute: NativeBinding['executeOp'] = (operation, ...rest) => {
    try {
      return binding.executeOp(operation, ...rest);
    } catch (cause) {
      // TensorFlow's words where only deterministic kernels are allowed, and a GPU has none.
      if (!(cause instanceof Error && /determinis/i.test(cause.message))) throw cause;
      throw new LockstepError(
        'E_NOT_SUPPORTED',
        `${whereOf(layer())}, TensorFlow has no kernel for ${operation} on a GPU that gives the same bits each time`,
        { remedy: 'Change what the model does there, or train it with --engine tensorflow.', cause },
      );
    }
  };

  const recorded: Pick<NativeBinding, 'executeOp' | 'createTensor' | 'tensorDataSync'> = {
    executeOp: (operation, attributes, ids, outputCount) => {
      const outputs = execute(operation, attributes, ids, outputCount);
      if (isStateful(operation) === true) throw refuse(layer(), `the operation ${operation} keeps a state of its own`);
      const given = Object.fromEntries(attributes.map((a) => [a.name, attributeOf(binding, a, layer())]));
      const complete = completeAttributes(
        operation,
        given,
        ids.map((id) => types.get(id) ?? 0),
      );
      if (typeof complete === 'string') {
        throw refuse(layer(), `the operation ${operation} does not say its attribute ${complete}`);
      }
      const name = add({
        operation,
        inputs: ids.map((id) => sources.get(id) ?? ''),
        attributes: complete,
        outputs: outputs.map(({ dtype, shape }) => ({ type: dtype, shape: [...shape] })),
      });
      outputs.forEach(({ id, dtype }, i) => {
        sources.set(id, `${name}:${i}`);
        types.set(id, dtype);
      });
      return outputs;
    },
    createTensor: (shape, type, values) => {
      const id = binding.createTensor(shape, type, values);
      if (type === DataType.string) throw refuse(layer(), 'a tensor of strings is made');
      constant(id, valueOf(shape, type, values));
      return id;
    },
    tensorDataSync: (id) => {
      if (!sources.has(id)) return binding.tensorDataSync(id);
      throw refuse(layer(), 'JavaScript reads the values of a tensor, so that what follows depends on the data');
    },
  };
  // All else of the binding, which is not enumerable, is inherited.
  const recording = Object.create(
    binding,
    Object.fromEntries(Object.entries(recorded).map(([name, value]) => [name, { value }])),
  ) as NativeBinding;

  const idsOf = backend.getInputTensorIds.bind(backend);
  // Called on whichever layer it was called on.
  const apply = Reflect.get(tf.layers.Layer.prototype, 'apply');
  const before = variables.map((variable) => tf.keep(variable.clone()));
  backend.binding = recording;
  backend.getInputTensorIds = (tensors) => {
    const ids = idsOf(tensors);
    tensors.forEach((tensor, i) => {
      const id = ids[i] ?? -1;
      if (!sources.has(id)) captured(id, tensor);
    });
    return ids;
  };
  tf.layers.Layer.prototype.apply = function applyNamed(this: TensorFlow.layers.Layer, ...args) {
    layers.push(this.name);
    try {
      return Reflect.apply(apply, this, args);
    } finally {
      layers.pop();
    }
  };
  const drawn = (): never => {
    throw refuse(layer(), 'Math.random is called: a trace would use that one number for ever');
  };
  try {
    return withMathRandom(drawn, () =>
      tidily(tf, () => {
        const results = body().map((tensor) => sources.get(idOf(tensor)) ?? '');
        const updates = variables.flatMap((variable, place) => {
          const id = idOf(variable);
          return id === idsBefore[place] ? [] : [{ variable: place, result: sources.get(id) ?? '' }];
        });
        return { nodes, results, updates };
      }),
    );
  } finally {
    backend.binding = binding;
    // The backend's own is its class's again.
    delete (backend as { getInputTensorIds?: unknown }).getInputTensorIds;
    tf.layers.Layer.prototype.apply = apply;
    variables.forEach((variable, place) => {
      const kept = before[place];
      if (kept === undefined) return;
      if (idOf(variable) !== idsBefore[place]) variable.assign(kept);
      kept.dispose();
    });
  }
}

function nativeType(backend: NativeBackend, tensor: Tensor): number {
  return backend.tensorMap.get(tensor.dataId)?.dtype ?? 0;
}

type Values = ArrayLike<number> | NativeArray;

function valueOf(shape: readonly number[], type: number, values: Values): TensorValue {
  const typed = typedArrayOf(type, values);
  if (typed.length >= SPLAT_FROM && (type === DataType.float || type === DataType.int32 || type === DataType.bool)) {
    const first = typed[0] as number;
    // Object.is: a zero has a sign.
    if (typed.every((value) => Object.is(value, first))) return { type, shape, content: { splat: first } };
  }
  return { type, shape, content: Uint8Array.from(Buffer.from(typed.buffer, typed.byteOffset, typed.byteLength)) };
}

function typedArrayOf(type: number, values: Values): Float32Array | Int32Array | Uint8Array {
  if (values instanceof Float32Array || values instanceof Int32Array || values instanceof Uint8Array) return values;
  if (type === DataType.float) return Float32Array.from(values);
  return type === DataType.int32 ? Int32Array.from(values) : Uint8Array.from(values);
}

function attributeOf(binding: NativeBinding, { name, type, value }: OpAttribute, layer: string | null): Attribute {
  const numbers = typeof value === 'object' ? Array.from(value) : null;
  switch (type) {
    case binding.TF_ATTR_STRING:
      if (typeof value === 'string') return { kind: 'string', value };
      break;
    case binding.TF_ATTR_INT:
      return numbers === null ? { kind: 'int', value: Number(value) } : { kind: 'ints', value: numbers };
    case binding.TF_ATTR_FLOAT:
      return numbers === null ? { kind: 'float', value: Number(value) } : { kind: 'floats', value: numbers };
    case binding.TF_ATTR_BOOL:
      if (numbers === null) return { kind: 'bool', value: Boolean(value) };
      break;
    case binding.TF_ATTR_TYPE:
      return numbers === null ? { kind: 'type', value: Number(value) } : { kind: 'types', value: numbers };
    case binding.TF_ATTR_SHAPE:
      if (numbers !== null) return { kind: 'shape', value: numbers };
      break;
  }
  throw refuse(layer, `the attribute ${name} of an operation cannot be written into a graph`);
}
