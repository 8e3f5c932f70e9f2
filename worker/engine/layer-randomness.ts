// Chance inside layers (initializers, dropout, noise) as a function of a key. TensorFlow.js draws a fresh seed from
// Math.random wherever a layer names none, so for the length of one call Math.random is a counter-based stream; a layer's
// numbers then depend on the stream's key and on the order of the layers, and on nothing that ran before.
//
// Not covered: a layer that names its own seed keeps it (the same mask in every step, as in stock TensorFlow.js), and
// `tf.multinomial`, whose native kernel seeds itself.

import type { RandomStream } from '../../protocol/random.ts';

/** Runs `body`, synchronously, with every Math.random() taken from `random`; puts Math.random back whatever happens. */
export function withLayerRandomness<T>(random: RandomStream, body: () => T): T {
  const kept = Math.random;
  Math.random = () => random.uniform();
  try {
    return body();
  } finally {
    Math.random = kept;
  }
}
