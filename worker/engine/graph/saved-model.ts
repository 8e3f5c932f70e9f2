// Encodes a graph as a one-file SavedModel, the only form in which the stock binding takes a graph. Message and field numbers
// are TensorFlow's (tensorflow/core/{framework,protobuf}/*.proto); only what is written is declared.

import protobuf from 'protobufjs/light.js';
import type { Attribute, GraphNode, TensorValue } from './nodes.ts';

export const SERVING_TAG = 'serve';
/** Versions of the GraphDef format that TensorFlow 2.x writes. */
const PRODUCER = 1882;

const list = { rule: 'repeated' } as const;
// protobufjs's type of a field does not know of maps.
const attributeMap = { keyType: 'string', type: 'Attr', id: 5 } as protobuf.IField;
const schema = protobuf.Root.fromJSON({
  nested: {
    Dim: { fields: { size: { type: 'int64', id: 1 } } },
    Shape: { fields: { dim: { ...list, type: 'Dim', id: 2 } } },
    Tensor: {
      fields: {
        dtype: { type: 'int32', id: 1 },
        tensorShape: { type: 'Shape', id: 2 },
        tensorContent: { type: 'bytes', id: 4 },
        floatVal: { ...list, type: 'float', id: 5 },
        intVal: { ...list, type: 'int32', id: 7 },
        boolVal: { ...list, type: 'bool', id: 11 },
      },
    },
    List: {
      fields: {
        i: { ...list, type: 'int64', id: 3 },
        f: { ...list, type: 'float', id: 4 },
        type: { ...list, type: 'int32', id: 6 },
      },
    },
    Attr: {
      oneofs: { value: { oneof: ['list', 's', 'i', 'f', 'b', 'type', 'shape', 'tensor'] } },
      fields: {
        list: { type: 'List', id: 1 },
        s: { type: 'string', id: 2 },
        i: { type: 'int64', id: 3 },
        f: { type: 'float', id: 4 },
        b: { type: 'bool', id: 5 },
        type: { type: 'int32', id: 6 },
        shape: { type: 'Shape', id: 7 },
        tensor: { type: 'Tensor', id: 8 },
      },
    },
    Node: {
      fields: {
        name: { type: 'string', id: 1 },
        op: { type: 'string', id: 2 },
        input: { ...list, type: 'string', id: 3 },
        attr: attributeMap,
      },
    },
    Versions: { fields: { producer: { type: 'int32', id: 1 } } },
    Graph: { fields: { node: { ...list, type: 'Node', id: 1 }, versions: { type: 'Versions', id: 4 } } },
    MetaInfo: { fields: { tags: { ...list, type: 'string', id: 4 } } },
    MetaGraph: { fields: { metaInfoDef: { type: 'MetaInfo', id: 1 }, graphDef: { type: 'Graph', id: 2 } } },
    SavedModel: {
      fields: {
        savedModelSchemaVersion: { type: 'int64', id: 1 },
        metaGraphs: { ...list, type: 'MetaGraph', id: 2 },
      },
    },
  },
});
const SavedModel = schema.lookupType('SavedModel');

const shapeOf = (shape: readonly number[]): object => ({ dim: shape.map((size) => ({ size })) });

function tensorOf({ type, shape, content }: TensorValue): object {
  const start = { dtype: type, tensorShape: shapeOf(shape) };
  if (content instanceof Uint8Array) return { ...start, tensorContent: content };
  // One value stands for all elements.
  if (type === 1) return { ...start, floatVal: [content.splat] };
  return type === 10 ? { ...start, boolVal: [content.splat !== 0] } : { ...start, intVal: [content.splat] };
}

function attributeOf(attribute: Attribute): object {
  switch (attribute.kind) {
    case 'type':
      return { type: attribute.value };
    case 'int':
      return { i: attribute.value };
    case 'float':
      return { f: attribute.value };
    case 'bool':
      return { b: attribute.value };
    case 'string':
      return { s: attribute.value };
    case 'shape':
      return { shape: shapeOf(attribute.value) };
    case 'tensor':
      return { tensor: tensorOf(attribute.value) };
    case 'types':
      return { list: { type: attribute.value } };
    case 'ints':
      return { list: { i: attribute.value } };
    case 'floats':
      return { list: { f: attribute.value } };
  }
}

/** The bytes of `saved_model.pb`. */
export function encodeSavedModel(nodes: readonly GraphNode[]): Uint8Array {
  const node = nodes.map(({ name, operation, inputs, attributes }) => ({
    name,
    op: operation,
    input: inputs,
    attr: Object.fromEntries(Object.entries(attributes).map(([key, value]) => [key, attributeOf(value)])),
  }));
  const message = SavedModel.create({
    savedModelSchemaVersion: 1,
    metaGraphs: [{ metaInfoDef: { tags: [SERVING_TAG] }, graphDef: { node, versions: { producer: PRODUCER } } }],
  });
  return SavedModel.encode(message).finish();
}
