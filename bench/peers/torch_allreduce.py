"""Measuring process (windows.py): milliseconds of PyTorch's all-reduce over Gloo, on loopback, one thread a process.

    python bench/peers/torch_allreduce.py [--processes 2]

Each line on stdin, {"floats": n, "seconds": s}, asks for one window; the answer's `rate` is the median of the milliseconds that a
call took on rank 0, calls following one another.
"""

import argparse
import datetime
import json
import os
import socket
import statistics
import sys
import time

os.environ["OMP_NUM_THREADS"] = "1"

import torch
import torch.distributed
import torch.multiprocessing
from windows import say

# Between two windows the other ranks wait this long at most.
TIMEOUT = datetime.timedelta(hours=2)
CALIBRATION_CALLS = 3


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def window(tensor, calls):
    times = []
    for _ in range(calls):
        began = time.perf_counter()
        torch.distributed.all_reduce(tensor)
        times.append(time.perf_counter() - began)
    return times


def take_part(rank, processes, port, requests):
    torch.set_num_threads(1)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.distributed.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=processes, timeout=TIMEOUT
    )
    probe = torch.full([1000], float(rank + 1))
    torch.distributed.all_reduce(probe)
    assert torch.all(probe == processes * (processes + 1) / 2)
    if rank == 0:
        say({"about": f"PyTorch {torch.__version__}, Gloo over TCP on loopback, {processes} processes"})
    while True:
        # Floats and calls of the next window; 0 floats: no more.
        order = torch.zeros(2, dtype=torch.float64)
        seconds = 0
        if rank == 0:
            line = requests.readline()
            if line:
                request = json.loads(line)
                seconds = request["seconds"]
                order[0] = request["floats"]
        torch.distributed.broadcast(order, 0)
        floats = int(order[0].item())
        if floats == 0:
            break
        tensor = torch.zeros(floats)
        trial = statistics.median(window(tensor, CALIBRATION_CALLS))
        order[1] = max(5, round(seconds / trial))
        torch.distributed.broadcast(order, 0)
        calls = int(order[1].item())
        before = time.process_time()
        times = window(tensor, calls)
        if rank == 0:
            cpu = time.process_time() - before
            say({"rate": 1000 * statistics.median(times), "cpu": 1000 * cpu / calls})
    torch.distributed.destroy_process_group()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=2)
    flags = parser.parse_args()
    port = free_port()
    others = [
        torch.multiprocessing.get_context("spawn").Process(
            target=take_part, args=(rank, flags.processes, port, None), daemon=True
        )
        for rank in range(1, flags.processes)
    ]
    for process in others:
        process.start()
    take_part(0, flags.processes, port, sys.stdin)
    for process in others:
        process.join()


if __name__ == "__main__":
    main()
