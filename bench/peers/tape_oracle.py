"""Writes test/oracles/tape.json: the bits of TensorFlow's own gradients of the tutorial CNN, as tf.GradientTape gives them.

    python tape_oracle.py [--out ../../test/oracles]

One digest (SHA-256 of the float32 little-endian bytes, in layer order) for each batch size, operation by operation and as one
tf.function. They hold for one kind of processor, which is written down with them: oneDNN chooses its kernels by it. The
network and what goes into it are keras_oracle.py's; the kernels here are called by tf.nn, without Keras. One thread, float32.
"""

import argparse
import hashlib
import json
import pathlib

from keras_oracle import formula_batch, formula_weights
import numpy as np
import tensorflow as tf

SHAPES = [[3, 3, 3, 32], [32], [3, 3, 32, 64], [64], [3, 3, 64, 64], [64], [1024, 64], [64], [64, 10], [10]]


def logits_of(pixels, weights):
    k1, b1, k2, b2, k3, b3, k4, b4, k5, b5 = weights
    conv = lambda x, k, b: tf.nn.relu(tf.nn.bias_add(tf.nn.conv2d(x, k, 1, "VALID"), b))
    x = tf.nn.max_pool2d(conv(pixels, k1, b1), 2, 2, "VALID")
    x = tf.nn.max_pool2d(conv(x, k2, b2), 2, 2, "VALID")
    x = tf.reshape(conv(x, k3, b3), [pixels.shape[0], 1024])
    x = tf.nn.relu(tf.nn.bias_add(tf.matmul(x, k4), b4))
    return tf.nn.bias_add(tf.matmul(x, k5), b5)


def gradients(pixels, labels, weights):
    with tf.GradientTape() as tape:
        tape.watch(weights)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits_of(pixels, weights))
    return tape.gradient(losses, weights)


def digest(tensors):
    bits = hashlib.sha256()
    for tensor in tensors:
        bits.update(np.asarray(tensor).astype("<f4").tobytes())
    return bits.hexdigest()


def processor():
    """Maker, family, model and stepping: what oneDNN chooses its kernels by."""
    lines = pathlib.Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    fields = dict((part.strip() for part in line.split(":", 1)) for line in lines if ":" in line)
    return " ".join(fields.get(name, "?") for name in ["vendor_id", "cpu family", "model", "stepping"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).parent / "../../test/oracles")
    out = parser.parse_args().out
    weights = [tf.constant(w) for w in formula_weights(SHAPES)]
    cases = []
    for size in [1, 7, 16, 64]:
        batch = [tf.constant(a) for a in formula_batch(size, 0)]
        eager, graph = digest(gradients(*batch, weights)), digest(tf.function(gradients)(*batch, weights))
        cases.append({"samples": size, "eager": eager, "function": graph})
        print(size, eager[:16], graph[:16])
    answer = {"madeBy": {"tensorflow": tf.__version__}, "processor": processor(), "cases": cases}
    (out / "tape.json").write_text(json.dumps(answer, indent=2) + "\n")


if __name__ == "__main__":
    main()
