"""The tutorial's CNN on the real CIFAR-10 with Keras: the program that Lockstep's main job is held against.

    python keras_seed.py --data DIR [--seed 1] [--epochs 10] [--augment off] [--train-samples N] [--test-samples N]

DIR holds the binary version's data_batch_1..5.bin and test_batch.bin. Prints one JSON object: the settings, and by epoch
the training loss, test loss, test accuracy, seconds and images per second.
"""

import argparse
import json
import os
import pathlib
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
import tensorflow as tf

RECORD_BYTES = 1 + 3072


def read_records(paths):
    """Images float32 [n, 32, 32, 3] in 0..1 and labels int32 [n]; a record is a label and three planes of 32 x 32."""
    records = np.concatenate([np.fromfile(p, np.uint8).reshape(-1, RECORD_BYTES) for p in paths])
    planes = records[:, 1:].reshape(-1, 3, 32, 32)
    return planes.transpose(0, 2, 3, 1).astype(np.float32) / 255, records[:, 0].astype(np.int32)


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
            layers.Dense(10),
        ]
    )


def training_batches(images, labels, batch_size, seed, augment):
    """The whole data set shuffled anew each epoch; with `augment`, flipped and rotated batch by batch."""
    data = tf.data.Dataset.from_tensor_slices((images, labels))
    data = data.shuffle(len(images), seed=seed, reshuffle_each_iteration=True).batch(batch_size)
    if augment:
        flip = keras.layers.RandomFlip("horizontal", seed=seed)
        rotate = keras.layers.RandomRotation(10 / 360, seed=seed + 1)
        data = data.map(
            lambda x, y: (rotate(flip(x, training=True), training=True), y),
            num_parallel_calls=tf.data.AUTOTUNE,
        )
    return data.prefetch(tf.data.AUTOTUNE)


class ByEpoch(keras.callbacks.Callback):
    """Times each epoch's training without its evaluation, and evaluates after it."""

    def __init__(self, train_size, test):
        super().__init__()
        self.train_size, self.test, self.rows = train_size, test, []

    def on_epoch_begin(self, epoch, logs=None):
        self.started = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        seconds = time.perf_counter() - self.started
        test_loss, test_accuracy = self.model.evaluate(*self.test, batch_size=250, verbose=0)
        self.rows.append(
            {
                "epoch": epoch + 1,
                "loss": logs["loss"],
                "testLoss": test_loss,
                "testAccuracy": test_accuracy,
                "seconds": seconds,
                "imagesPerSecond": self.train_size / seconds,
            }
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--augment", choices=["on", "off"], default="off")
    parser.add_argument("--threads", type=int, default=0, help="0: as many as there are cores")
    parser.add_argument("--train-samples", type=int)
    parser.add_argument("--test-samples", type=int)
    options = parser.parse_args()

    if options.threads:
        tf.config.threading.set_intra_op_parallelism_threads(options.threads)
        tf.config.threading.set_inter_op_parallelism_threads(options.threads)
    keras.utils.set_random_seed(options.seed)

    images, labels = read_records([options.data / f"data_batch_{i}.bin" for i in range(1, 6)])
    images, labels = images[: options.train_samples], labels[: options.train_samples]
    test = read_records([options.data / "test_batch.bin"])
    test = tuple(part[: options.test_samples] for part in test)

    model = build_model()
    model.compile(
        optimizer=keras.optimizers.Adam(0.001),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    by_epoch = ByEpoch(len(images), test)
    batches = training_batches(images, labels, options.batch_size, options.seed, options.augment == "on")
    model.fit(batches, epochs=options.epochs, verbose=0, callbacks=[by_epoch])
    print(
        json.dumps(
            {
                "program": f"Keras {keras.__version__} on TensorFlow {tf.__version__}",
                "seed": options.seed,
                "augment": options.augment,
                "batchSize": options.batch_size,
                "trainSamples": len(images),
                "testAccuracy": by_epoch.rows[-1]["testAccuracy"],
                "testLoss": by_epoch.rows[-1]["testLoss"],
                "byEpoch": by_epoch.rows,
            }
        )
    )


if __name__ == "__main__":
    main()
