"""Measuring process (windows.py): images a second of PyTorch's training steps of the tutorial's CNN, Adam included.

    python bench/peers/torch_speed.py [--layout channels_last] [--threads 1]

Eager PyTorch on data that lies in memory. Microbatches are backward passes that add up before one Adam step.
"""

import argparse

import torch
from windows import runs_per_second, serve

LEARNING_RATE = 1e-5
IMAGES = 1024


def tutorial_cnn():
    nn = torch.nn
    return nn.Sequential(
        nn.Conv2d(3, 32, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(64, 64, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(1024, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )


def memory_format(layout):
    return torch.channels_last if layout == "channels_last" else torch.contiguous_format


class Training:
    """The model, Adam, and `images` random images whose pieces the steps take turns with."""

    def __init__(self, layout, images=IMAGES, wrap=lambda model: model):
        torch.manual_seed(1)
        form = memory_format(layout)
        self.model = wrap(tutorial_cnn().to(memory_format=form))
        self.optimizer = torch.optim.Adam(self.model.parameters(), LEARNING_RATE, fused=True)
        self.loss = torch.nn.CrossEntropyLoss()
        self.pixels = torch.rand(images, 3, 32, 32).contiguous(memory_format=form)
        self.labels = torch.randint(0, 10, (images,))
        self.piece = 0

    def step(self, batch, microbatch):
        self.optimizer.zero_grad(set_to_none=True)
        pieces = batch // microbatch
        for _ in range(pieces):
            self.piece = (self.piece + 1) % (len(self.labels) // microbatch)
            part = slice(self.piece * microbatch, (self.piece + 1) * microbatch)
            loss = self.loss(self.model(self.pixels[part]), self.labels[part])
            (loss if pieces == 1 else loss / pieces).backward()
        self.optimizer.step()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layout", choices=["nchw", "channels_last"], default="nchw")
    parser.add_argument("--threads", type=int, default=1)
    flags = parser.parse_args()
    torch.set_num_threads(flags.threads)
    training = Training(flags.layout)

    def rate(request):
        batch, microbatch = request["batch"], request["microbatch"]
        return batch * runs_per_second(lambda: training.step(batch, microbatch), request["seconds"])

    serve(f"PyTorch {torch.__version__}, {flags.layout}", rate)


if __name__ == "__main__":
    main()
