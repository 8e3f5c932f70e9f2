"""Images a second of PyTorch's DistributedDataParallel on the tutorial's CNN: Gloo over loopback, one thread a process, each
process on a core of its own where there are enough; Adam, random data. Prints {"imagesPerSecond": ...}.

    python bench/peers/torch_ddp.py [--processes 2] [--layout channels_last] [--batch-size 64] [--seconds 5]

The batch is the global one: each process takes its share.
"""

import argparse
import datetime
import os
import socket
import time

os.environ["OMP_NUM_THREADS"] = "1"

import torch
import torch.distributed
import torch.multiprocessing
from torch_speed import Training
from windows import say

WARM_UP_STEPS = 30
TIMEOUT = datetime.timedelta(minutes=2)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def train(rank, flags, port):
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[rank % len(cores)]})
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"tcp://127.0.0.1:{port}",
        rank=rank,
        world_size=flags.processes,
        timeout=TIMEOUT,
    )
    training = Training(flags.layout, wrap=torch.nn.parallel.DistributedDataParallel)
    share = flags.batch_size // flags.processes

    def seconds_of(steps):
        torch.distributed.barrier()
        began = time.perf_counter()
        for _ in range(steps):
            training.step(share, share)
        torch.distributed.barrier()
        return time.perf_counter() - began

    seconds_of(WARM_UP_STEPS)
    # All ranks must take equally many steps: rank 0's clock says how many.
    steps = torch.tensor([flags.seconds * WARM_UP_STEPS / seconds_of(WARM_UP_STEPS)])
    torch.distributed.broadcast(steps, 0)
    steps = max(1, round(steps.item()))
    seconds = seconds_of(steps)
    if rank == 0:
        say(
            {
                "torch": torch.__version__,
                "layout": flags.layout,
                "processes": flags.processes,
                "imagesPerSecond": steps * share * flags.processes / seconds,
            }
        )
    torch.distributed.destroy_process_group()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--layout", choices=["nchw", "channels_last"], default="nchw")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=5)
    flags = parser.parse_args()
    torch.multiprocessing.spawn(train, args=(flags, free_port()), nprocs=flags.processes)


if __name__ == "__main__":
    main()
