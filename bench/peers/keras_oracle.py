"""Writes the fixtures in test/oracles/ that hold Lockstep's engine, optimizers and augmentation against Keras.

    python keras_oracle.py [--out ../../test/oracles]

Everything that goes in is made by a formula (`noise`) that test/oracles/formula.ts computes as well, bit for bit, so that
only Keras's answers need to be stored. One thread, float32, no training data. Takes about 20 seconds.
"""

import argparse
import base64
import json
import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

import keras
import numpy as np
import tensorflow as tf

tf.config.threading.set_intra_op_parallelism_threads(1)
tf.config.threading.set_inter_op_parallelism_threads(1)

# Streams of noise: what each is for.
WEIGHTS, PIXELS, LABELS, IMAGE, GRADIENTS = 1, 2, 3, 4, 5


def noise(stream, count, start=0):
    """`count` numbers in [0, 1), float64 with 24 significant bits: a 32-bit integer hash of (stream, index)."""
    with np.errstate(over="ignore"):
        x = np.arange(start, start + count, dtype=np.uint32) + np.uint32(stream) * np.uint32(0x9E3779B9)
        for _ in range(2):
            x = (x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D)
            x = (x ^ (x >> np.uint32(15))) * np.uint32(0x846CA68B)
            x = x ^ (x >> np.uint32(16))
    return (x >> np.uint32(8)).astype(np.float64) / 2**24


def formula_weights(shapes):
    """One flat noise vector, each tensor scaled by its fan-in (vectors: +-0.1)."""
    tensors, offset = [], 0
    for shape in shapes:
        count = int(np.prod(shape))
        bound = 0.1 if len(shape) < 2 else np.sqrt(6 / (count / shape[-1]))
        u = noise(WEIGHTS, count, offset)
        tensors.append(((2 * u - 1) * bound).astype(np.float32).reshape(shape))
        offset += count
    return tensors


def formula_batch(size, first_sample):
    pixels = np.floor(noise(PIXELS, size * 3072, first_sample * 3072) * 256) / 255
    labels = np.floor(noise(LABELS, size, first_sample) * 10).astype(np.int32)
    return pixels.astype(np.float32).reshape(size, 32, 32, 3), labels


def tutorial_cnn():
    """The tutorial's network without its final softmax: trained from logits."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Conv2D(64, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            layers.Dense(10),
        ]
    )


def loss_and_gradients(model, pixels, labels):
    """Sum of the samples' losses and its gradients."""
    with tf.GradientTape() as tape:
        logits = model(pixels, training=True)
        losses = keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
        total = tf.reduce_sum(losses)
    correct = int(np.sum(np.argmax(logits.numpy(), axis=1) == labels))
    return float(total), correct, tape.gradient(total, model.trainable_variables)


def probe(tensor, most=600):
    """A tensor as its norm and at most `most` evenly spaced values."""
    flat = np.asarray(tensor, dtype=np.float32).reshape(-1)
    stride = max(1, -(-flat.size // most))
    return {
        "shape": list(tensor.shape),
        "norm": float(np.sqrt(np.sum(flat.astype(np.float64) ** 2))),
        "stride": stride,
        "values": [float(f"{v:.9g}") for v in flat[::stride]],
    }


def cnn_oracle():
    model = tutorial_cnn()
    model.set_weights(formula_weights([v.shape for v in model.weights]))
    pixels, labels = formula_batch(16, 0)
    loss, correct, gradients = loss_and_gradients(model, pixels, labels)
    gradient = {"samples": 16, "loss": loss, "correct": correct, "tensors": [probe(g.numpy()) for g in gradients]}

    steps, batch = 10, 16
    optimizer = keras.optimizers.Adam(0.001)
    losses = []
    for step in range(steps):
        pixels, labels = formula_batch(batch, step * batch)
        loss, _, gradients = loss_and_gradients(model, pixels, labels)
        losses.append(loss / batch)
        optimizer.apply([g / batch for g in gradients], model.trainable_variables)
    pixels, labels = formula_batch(batch, steps * batch)
    final_loss, final_correct, _ = loss_and_gradients(model, pixels, labels)
    training = {
        "steps": steps,
        "samples": batch,
        "losses": losses,
        "finalLoss": final_loss / batch,
        "tensors": [probe(w) for w in model.get_weights()],
    }
    return {"gradient": gradient, "training": training}


def loss_oracle():
    """Losses of probabilities, among them ones that Keras clips and rows that do not sum to 1."""
    table = [[0.7, 0.2, 0.1], [1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.5, 0.5, 0.5], [1e-9, 0.25, 0.75]]
    labels = [0, 0, 2, 1, 0]
    probabilities = tf.constant(table, tf.float32)
    losses = keras.losses.sparse_categorical_crossentropy(np.array(labels), probabilities, from_logits=False)
    return {"probabilities": table, "labels": labels, "losses": losses.numpy().tolist()}


def optimizer_oracle():
    cases = {
        "adam": (keras.optimizers.Adam, {"learning_rate": 0.001}),
        "adam-other-settings": (
            keras.optimizers.Adam,
            {"learning_rate": 0.02, "beta_1": 0.8, "beta_2": 0.95, "epsilon": 1e-4},
        ),
        "sgd": (keras.optimizers.SGD, {"learning_rate": 0.1}),
        "sgd-momentum": (keras.optimizers.SGD, {"learning_rate": 0.1, "momentum": 0.9}),
        "sgd-nesterov": (keras.optimizers.SGD, {"learning_rate": 0.1, "momentum": 0.9, "nesterov": True}),
    }
    count, steps = 40, 10
    answers = {}
    for name, (kind, settings) in cases.items():
        weights = tf.Variable((2 * noise(WEIGHTS, count) - 1).astype(np.float32))
        optimizer = kind(**settings)
        for step in range(steps):
            gradient = 2 * noise(GRADIENTS, count, step * count) - 1
            # From 1e-8 to 1: small gradients are where epsilon matters.
            gradient *= 10.0 ** -np.floor(noise(GRADIENTS, count, 10_000) * 9)
            optimizer.apply([tf.constant(gradient.astype(np.float32))], [weights])
        answers[name] = {"settings": settings, "weights": [float(f"{v:.9g}") for v in weights.numpy()]}
    return {"count": count, "steps": steps, "cases": answers}


def rotation_oracle():
    cases = []
    for shape, flip, degrees in [
        ((32, 32, 3), False, 0.0),
        ((32, 32, 3), True, 0.0),
        ((32, 32, 3), False, 10.0),
        ((32, 32, 3), True, 10.0),
        ((32, 32, 3), True, -6.543),
        ((7, 12, 1), False, 33.0),
        ((4, 25, 2), True, -90.0),
        ((6, 6, 4), False, 180.0),
    ]:
        height, width, channels = shape
        image = noise(IMAGE, height * width * channels).astype(np.float32).reshape(shape)
        source = image[:, ::-1, :] if flip else image
        layer = keras.layers.RandomRotation(1.0)
        zeros = np.zeros([1], np.float32)
        matrix = layer._compute_affine_matrix(
            center_x=0.5,
            center_y=0.5,
            angle=tf.constant([degrees], tf.float32),
            translate_x=zeros,
            translate_y=zeros,
            scale=zeros + 1,
            shear_x=zeros,
            shear_y=zeros,
            height=height,
            width=width,
        )
        rotated = keras.ops.image.affine_transform(
            source[None], matrix, interpolation=layer.interpolation, fill_mode=layer.fill_mode
        ).numpy()[0]
        cases.append(
            {
                "shape": list(shape),
                "flip": flip,
                "degrees": degrees,
                "float32LittleEndian": base64.b64encode(rotated.astype("<f4").tobytes()).decode(),
            }
        )
    return {"cases": cases}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = pathlib.Path(__file__).parent / "../../test/oracles"
    parser.add_argument("--out", type=pathlib.Path, default=default)
    out = parser.parse_args().out
    made_by = {"tensorflow": tf.__version__, "keras": keras.__version__}
    for name, oracle in {
        "cnn": cnn_oracle,
        "losses": loss_oracle,
        "optimizers": optimizer_oracle,
        "rotation": rotation_oracle,
    }.items():
        path = out / f"{name}.json"
        path.write_text(json.dumps({"madeBy": made_by, **oracle()}) + "\n")
        print(f"{path}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
