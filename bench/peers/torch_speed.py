"""Measuring process (windows.py): images a second of PyTorch's training steps of the tutorial's CNN, Adam included.

    python bench/peers/torch_speed.py [--layout channels_last] [--threads 1] [--device cuda [--graph] [--autocast]]

Eager PyTorch on data that lies in memory. Microbatches are backward passes that add up before one Adam step.
On a GPU the data lie in pinned memory of the host and travel step by step, TensorFloat-32 is on as in TensorFlow, and the
clock stops when the GPU is done with all steps of a window. `--graph` replays the step as one CUDA graph.
"""

import argparse

import torch
from windows import runs_per_second, say, serve

LEARNING_RATE = 1e-5
IMAGES = 1024
GPU_IMAGES = 8192


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

    def __init__(self, layout, images=IMAGES, wrap=lambda model: model, device="cpu", graph=False, autocast=False):
        torch.manual_seed(1)
        form = memory_format(layout)
        self.form = form
        self.device = device
        self.autocast = autocast
        self.model = wrap(tutorial_cnn().to(device=device, memory_format=form))
        self.optimizer = torch.optim.Adam(self.model.parameters(), LEARNING_RATE, fused=True, capturable=graph)
        self.loss = torch.nn.CrossEntropyLoss()
        self.pixels = torch.rand(images, 3, 32, 32).contiguous(memory_format=form)
        self.labels = torch.randint(0, 10, (images,))
        if device != "cpu":
            self.pixels = self.pixels.pin_memory()
            self.labels = self.labels.pin_memory()
        self.graphs = {} if graph else None
        self.piece = 0

    def next_piece(self, microbatch):
        self.piece = (self.piece + 1) % (len(self.labels) // microbatch)
        part = slice(self.piece * microbatch, (self.piece + 1) * microbatch)
        return self.pixels[part], self.labels[part]

    def backward(self, pixels, labels, pieces):
        with torch.autocast(self.device, torch.bfloat16, enabled=self.autocast):
            loss = self.loss(self.model(pixels), labels)
        (loss if pieces == 1 else loss / pieces).backward()

    def step(self, batch, microbatch):
        if self.graphs is not None:
            self.replay(batch)
            return
        self.optimizer.zero_grad(set_to_none=True)
        pieces = batch // microbatch
        for _ in range(pieces):
            pixels, labels = self.next_piece(microbatch)
            if self.device != "cpu":
                pixels = pixels.to(self.device, non_blocking=True)
                labels = labels.to(self.device, non_blocking=True)
            self.backward(pixels, labels, pieces)
        self.optimizer.step()

    def replay(self, batch):
        """The whole batch at once, by a CUDA graph that was captured the first time."""
        if batch not in self.graphs:
            self.graphs[batch] = self.capture(batch)
        graph, pixels, labels = self.graphs[batch]
        new_pixels, new_labels = self.next_piece(batch)
        pixels.copy_(new_pixels, non_blocking=True)
        labels.copy_(new_labels, non_blocking=True)
        graph.replay()

    def capture(self, batch):
        pixels = torch.rand(batch, 3, 32, 32, device=self.device).contiguous(memory_format=self.form)
        labels = torch.zeros(batch, dtype=torch.int64, device=self.device)

        def once():
            self.optimizer.zero_grad(set_to_none=True)
            self.backward(pixels, labels, 1)
            self.optimizer.step()

        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                once()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            once()
        return graph, pixels, labels


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layout", choices=["nchw", "channels_last"], default="nchw")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--graph", action="store_true", help="replay a CUDA graph; microbatches are not cut")
    parser.add_argument("--autocast", action="store_true", help="bfloat16 where PyTorch's autocast puts it")
    flags = parser.parse_args()
    torch.set_num_threads(flags.threads)
    on_gpu = flags.device == "cuda"
    if on_gpu and not torch.cuda.is_available():
        say({"missing": f"PyTorch {torch.__version__} finds no GPU"})
        return
    torch.backends.cuda.matmul.allow_tf32 = True
    training = Training(
        flags.layout,
        images=GPU_IMAGES if on_gpu else IMAGES,
        device=flags.device,
        graph=flags.graph,
        autocast=flags.autocast,
    )

    def rate(request):
        batch, microbatch = request["batch"], request["microbatch"]
        done = torch.cuda.synchronize if on_gpu else None
        return batch * runs_per_second(lambda: training.step(batch, microbatch), request["seconds"], done)

    about = f"PyTorch {torch.__version__}, {flags.layout}"
    if on_gpu:
        about += f", {torch.cuda.get_device_name()}"
    serve(about, rate)


if __name__ == "__main__":
    main()
