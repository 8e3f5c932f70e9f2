"""What TensorFlow itself writes and reads as TensorBoard event files.

    python bench/peers/tensorboard_events.py            the bytes of three events as TensorFlow writes them, in hexadecimal
    python bench/peers/tensorboard_events.py DIR        the scalars of the event files below DIR, as TensorBoard reads them: run, tag, step, value
"""

import os
import sys
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from tensorboard.backend.event_processing import event_accumulator
from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorflow.io import TFRecordWriter

EVENTS = [
    event_pb2.Event(wall_time=1764188400.25, file_version="brain.Event:2"),
    event_pb2.Event(
        wall_time=1764188400.5, step=7, session_log=event_pb2.SessionLog(status=event_pb2.SessionLog.START)
    ),
    event_pb2.Event(
        wall_time=1764188401.0,
        step=300,
        summary=summary_pb2.Summary(
            value=[
                summary_pb2.Summary.Value(tag="loss", simple_value=1.25),
                summary_pb2.Summary.Value(tag="gradient_norm", simple_value=0.1),
            ]
        ),
    ),
]


def write() -> None:
    path = os.path.join(tempfile.mkdtemp(), "events")
    with TFRecordWriter(path) as writer:
        for event in EVENTS:
            writer.write(event.SerializeToString())
    with open(path, "rb") as file:
        print(file.read().hex())


def read(directory: str) -> None:
    for parent, _, files in sorted(os.walk(directory)):
        if not any("tfevents" in name for name in files):
            continue
        found = event_accumulator.EventAccumulator(parent, size_guidance={event_accumulator.SCALARS: 0})
        found.Reload()
        for tag in sorted(found.Tags()["scalars"]):
            for scalar in found.Scalars(tag):
                print(os.path.relpath(parent, directory), tag, scalar.step, repr(scalar.value))


if __name__ == "__main__":
    read(sys.argv[1]) if len(sys.argv) > 1 else write()
