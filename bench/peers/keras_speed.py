"""Measuring process (windows.py): images a second of Keras's training steps of the tutorial's CNN, Adam included.

    python bench/peers/keras_speed.py [--policy mixed_bfloat16] [--threads 1]

`step` is Keras's own compiled training step, called without `fit` around it, on data that lies in memory: the fastest that
Keras offers. `fit` is `model.fit` on arrays, between its first and its last batch. Microbatches are Keras's
`gradient_accumulation_steps`. Threads 0: as many as TensorFlow likes.
"""

import argparse
import functools
import os
import time


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", default="float32")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


flags = parse()
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
if flags.threads > 0:
    for variable in ["TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"]:
        os.environ[variable] = str(flags.threads)

import keras
import numpy as np
import tensorflow as tf
from windows import runs_per_second, serve

LEARNING_RATE = 1e-5
IMAGES = 1024
FIT_IMAGES = 12_800


def compiled_model(accumulated=1):
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Conv2D(64, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            layers.Dense(10, activation="softmax", dtype="float32"),
        ]
    )
    steps = accumulated if accumulated > 1 else None
    optimizer = keras.optimizers.Adam(LEARNING_RATE, gradient_accumulation_steps=steps)
    model.compile(optimizer, "sparse_categorical_crossentropy")
    return model


def random_data(images):
    random = np.random.default_rng(1)
    return random.random((images, 32, 32, 3), np.float32), random.integers(0, 10, images).astype(np.int32)


class Steps:
    """A model whose bare training step runs over one size of microbatch."""

    def __init__(self, batch, microbatch):
        self.count = batch // microbatch
        pixels, labels = random_data(IMAGES)
        pieces = (pixels.reshape(-1, microbatch, 32, 32, 3), labels.reshape(-1, microbatch))
        self.data = iter(tf.data.Dataset.from_tensor_slices(pieces).repeat())
        self.model = compiled_model(self.count)
        self.model.make_train_function()

    def __call__(self):
        for _ in range(self.count):
            self.model.train_function(self.data)


class FitClock(keras.callbacks.Callback):
    """Times the batches of a `fit`, but for the first ones, and stops it when the window is over."""

    def __init__(self, seconds, skipped=3):
        super().__init__()
        self.seconds, self.skipped, self.batches = seconds, skipped, 0

    def on_train_batch_end(self, batch, logs=None):
        self.batches += 1
        if self.batches == self.skipped:
            self.began = time.perf_counter()
        elif self.batches > self.skipped:
            self.elapsed = time.perf_counter() - self.began
            self.model.stop_training = self.elapsed >= self.seconds

    def batches_per_second(self):
        return (self.batches - self.skipped) / self.elapsed


class Fit:
    def __init__(self):
        self.model = compiled_model()
        self.data = random_data(FIT_IMAGES)

    def rate(self, batch, seconds):
        clock = FitClock(seconds)
        self.model.fit(*self.data, batch_size=batch, epochs=1000, verbose=0, callbacks=[clock])
        return batch * clock.batches_per_second()


# Each sort of work keeps its own model, made when it is first asked for.
steps = functools.cache(Steps)
fit = functools.cache(Fit)


def rate(request):
    batch, microbatch, seconds = request["batch"], request["microbatch"], request["seconds"]
    if request["work"] == "fit":
        return fit().rate(batch, seconds)
    return batch * runs_per_second(steps(batch, microbatch), seconds)


keras.utils.set_random_seed(1)
keras.config.set_dtype_policy(flags.policy)
serve(f"Keras {keras.__version__} on TensorFlow {tf.__version__}, {flags.policy}", rate)
