"""The tutorial's CIFAR-10 program in Keras: the accuracy and the speed that Lockstep is held against.

    python bench/peers/keras_seed.py --data DIR --seed 1 --epochs 10 --augment off

DIR holds CIFAR-10's official binary files (data_batch_1.bin ... test_batch.bin), e.g. the data directory that
`lockstep doctor` names. Prints one JSON line: test loss and accuracy after each epoch, seconds, images a second.
Needs bench/peers/requirements.txt; uses all cores of the machine unless TensorFlow's own variables say otherwise.
"""

import argparse
import json
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf

RECORD_BYTES = 1 + 3 * 32 * 32


def read_split(directory, names, limit):
    """Pixels uint8 [n, 32, 32, 3] and labels int32 [n] of the named files."""
    raw = np.concatenate([np.fromfile(os.path.join(directory, name), np.uint8) for name in names])
    records = raw.reshape(-1, RECORD_BYTES)[:limit]
    pixels = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(pixels), records[:, 0].astype(np.int32)


def build_model():
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
            layers.Dense(10, activation="softmax"),
        ]
    )


def training_data(pixels, labels, batch, augment, seed):
    """A shuffled, batched tf.data pipeline: every sample once an epoch, reshuffled each epoch."""
    data = tf.data.Dataset.from_tensor_slices((pixels, labels))
    data = data.shuffle(len(labels), seed=seed, reshuffle_each_iteration=True).batch(batch)
    if augment:
        flip = keras.layers.RandomFlip("horizontal", seed=seed)
        rotate = keras.layers.RandomRotation(10 / 360, seed=seed + 1)
        data = data.map(
            lambda x, y: (rotate(flip(x, training=True), training=True), y),
            num_parallel_calls=tf.data.AUTOTUNE,
        )
    return data.prefetch(tf.data.AUTOTUNE)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--augment", choices=["on", "off"], default="off")
    parser.add_argument("--train-samples", type=int, default=50_000)
    parser.add_argument("--test-samples", type=int, default=10_000)
    flags = parser.parse_args()

    keras.utils.set_random_seed(flags.seed)
    names = [f"data_batch_{i}.bin" for i in range(1, 6)]
    pixels, labels = read_split(flags.data, names, flags.train_samples)
    test_pixels, test_labels = read_split(flags.data, ["test_batch.bin"], flags.test_samples)
    train = training_data(pixels.astype(np.float32) / 255, labels, flags.batch_size, flags.augment == "on", flags.seed)
    test = (test_pixels.astype(np.float32) / 255, test_labels)

    model = build_model()
    model.compile(optimizer=keras.optimizers.Adam(0.001), loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    by_epoch = []
    for epoch in range(1, flags.epochs + 1):
        began = time.monotonic()
        fitted = model.fit(train, epochs=1, verbose=0)
        seconds = time.monotonic() - began
        test_loss, test_accuracy = model.evaluate(*test, batch_size=250, verbose=0)
        by_epoch.append(
            {
                "epoch": epoch,
                "loss": fitted.history["loss"][0],
                "testLoss": test_loss,
                "testAccuracy": test_accuracy,
                "seconds": seconds,
                "imagesPerSecond": len(labels) / seconds,
            }
        )
    print(
        json.dumps(
            {
                "program": "keras_seed.py",
                "keras": keras.__version__,
                "tensorflow": tf.__version__,
                "seed": flags.seed,
                "augment": flags.augment,
                "byEpoch": by_epoch,
            }
        )
    )


if __name__ == "__main__":
    main()
