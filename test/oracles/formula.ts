// The inputs of the Keras oracles, made by the same formula as in bench/peers/keras_oracle.py, bit for bit.

import { readFileSync } from 'node:fs';

export const Stream = { weights: 1, pixels: 2, labels: 3, image: 4, gradients: 5 } as const;

/** Numbers in [0, 1) with 24 significant bits: a 32-bit integer hash of (stream, index). */
export function noise(stream: number, count: number, start = 0): Float64Array {
  return Float64Array.from({ length: count }, (_, i) => {
    let x = (start + i + Math.imul(stream, 0x9e3779b9)) >>> 0;
    for (let round = 0; round < 2; round++) {
      x = Math.imul(x ^ (x >>> 16), 0x7feb352d);
      x = Math.imul(x ^ (x >>> 15), 0x846ca68b);
      x ^= x >>> 16;
    }
    return (x >>> 8) / 2 ** 24;
  });
}

/** One flat vector for tensors of these shapes, each scaled by its fan-in (vectors: within 0.1 of zero). */
export function formulaWeights(shapes: readonly (readonly number[])[]): Float32Array {
  const lengths = shapes.map((shape) => shape.reduce((product, dimension) => product * dimension, 1));
  const weights = new Float32Array(lengths.reduce((total, length) => total + length, 0));
  let offset = 0;
  shapes.forEach((shape, i) => {
    const length = lengths[i] ?? 0;
    const bound = shape.length < 2 ? 0.1 : Math.sqrt(6 / (length / (shape.at(-1) ?? 1)));
    noise(Stream.weights, length, offset).forEach((u, k) => (weights[offset + k] = (2 * u - 1) * bound));
    offset += length;
  });
  return weights;
}

/** `size` samples of 32 x 32 x 3 pixels with labels, beginning at sample `first`. */
export function formulaBatch(size: number, first: number): { inputs: Float32Array; labels: Int32Array } {
  const pixels = noise(Stream.pixels, size * 3072, first * 3072);
  return {
    // Rounded to float32 where Keras's side does it: after the division.
    inputs: Float32Array.from(pixels, (u) => Math.floor(u * 256) / 255),
    labels: Int32Array.from(noise(Stream.labels, size, first), (u) => Math.floor(u * 10)),
  };
}

/** A tensor as the oracle keeps it: its norm, and every `stride`-th of its values. */
export interface Probe {
  readonly shape: readonly number[];
  readonly norm: number;
  readonly stride: number;
  readonly values: readonly number[];
}

export interface CnnOracle {
  readonly gradient: { samples: number; loss: number; correct: number; tensors: Probe[] };
  readonly training: {
    steps: number;
    samples: number;
    losses: number[];
    finalLoss: number;
    tensors: Probe[];
  };
}

export interface LossOracle {
  readonly probabilities: number[][];
  readonly labels: number[];
  readonly losses: number[];
}

export interface OptimizerOracle {
  readonly count: number;
  readonly steps: number;
  readonly cases: Record<string, { settings: Record<string, number | boolean>; weights: number[] }>;
}

export interface RotationOracle {
  readonly cases: {
    shape: number[];
    flip: boolean;
    degrees: number;
    float32LittleEndian: string;
  }[];
}

/** SHA-256 of the gradients of TensorFlow's GradientTape, float32 little-endian, as one kind of processor computes them. */
export interface TapeOracle {
  /** Maker, family, model and stepping, as /proc/cpuinfo has them. */
  readonly processor: string;
  readonly cases: { samples: number; eager: string; function: string }[];
}

interface Oracles {
  cnn: CnnOracle;
  tape: TapeOracle;
  losses: LossOracle;
  optimizers: OptimizerOracle;
  rotation: RotationOracle;
}

export function readOracle<K extends keyof Oracles>(name: K): Oracles[K] {
  return JSON.parse(readFileSync(new URL(`${name}.json`, import.meta.url), 'utf8')) as Oracles[K];
}
