// Finds the softmax that a model ends in, so that the loss can be computed from the logits before it. The cross-entropy of
// a softmax, taken in one step from the logits, neither overflows nor loses the small probabilities; the user's model keeps
// its softmax everywhere else (export, prediction).

import type * as TensorFlow from '@tensorflow/tfjs';

type Layer = TensorFlow.layers.Layer;

/** What a layer with a softmax looks like inside; TensorFlow.js does not publish these fields. */
interface LayerInside {
  activation?: { getClassName(): string; apply(x: TensorFlow.Tensor): TensorFlow.Tensor };
  axis?: number;
  call: (inputs: TensorFlow.Tensor | TensorFlow.Tensor[], kwargs: unknown) => unknown;
  layers?: Layer[];
  outputLayers?: Layer[];
  inboundNodes: readonly unknown[];
}

/** Runs a body while the model's last layer gives logits. */
export type WithLogits = <T>(body: () => T) => T;

/** For a model with output [n, classes]; undefined when it does not end in a softmax that Lockstep can take off. */
export function findSoftmaxEnd(model: TensorFlow.LayersModel): WithLogits | undefined {
  const last = lastLayer(model as unknown as LayerInside);
  // A layer used in several places gives its softmax to the others too: leave it on.
  if (last === undefined || last.inside.inboundNodes.length > 1) return undefined;
  const { inside, className } = last;

  if (inside.activation?.getClassName() === 'softmax') {
    const softmax = inside.activation;
    const identity = { getClassName: () => 'logits', apply: (x: TensorFlow.Tensor) => x };
    return (body) => {
      inside.activation = identity;
      try {
        return body();
      } finally {
        inside.activation = softmax;
      }
    };
  }

  // TensorFlow.js gives the layer axis 1 where none is named.
  if (className === 'Softmax' && (inside.axis === 1 || inside.axis === -1)) {
    const stock = inside.call;
    return (body) => {
      inside.call = (inputs) => (Array.isArray(inputs) ? inputs[0] : inputs);
      try {
        return body();
      } finally {
        inside.call = stock;
      }
    };
  }
  return undefined;
}

function lastLayer(model: LayerInside): { inside: LayerInside; className: string } | undefined {
  const outputs = model.outputLayers ?? [];
  // A Sequential's own `outputLayers` is filled from its last layer; nested models are looked into.
  const layer = outputs.length === 1 ? outputs[0] : model.layers?.at(-1);
  if (layer === undefined || outputs.length > 1) return undefined;
  const inside = layer as unknown as LayerInside;
  return inside.layers === undefined ? { inside, className: layer.getClassName() } : lastLayer(inside);
}
