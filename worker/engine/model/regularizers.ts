// The regularization losses of a model: scalars that depend on its weights alone. TensorFlow.js's own `calculateLosses` finds
// none of a Sequential's (in 4.22 it looks into the wrong graph), so the layers are walked here, nested models included,
// each layer once.

import type * as TensorFlow from '@tensorflow/tfjs';

interface LayerInside {
  readonly losses?: readonly (() => TensorFlow.Scalar)[];
  readonly layers?: readonly LayerInside[];
}

/** Each computes one scalar loss from the weights as they are when it is called. */
export function regularizersOf(model: TensorFlow.LayersModel): (() => TensorFlow.Scalar)[] {
  const found = new Set<() => TensorFlow.Scalar>();
  const visit = (layer: LayerInside): void => {
    if (layer.layers !== undefined) layer.layers.forEach(visit);
    else layer.losses?.forEach((loss) => found.add(loss));
  };
  visit(model);
  return [...found];
}
