"""The other end of bench/measure.ts: a process that greets, then measures one window of work for each line on stdin."""

import json
import sys
import time


def say(message):
    print(json.dumps(message), flush=True)


def runs_per_second(step, seconds, done=None):
    """Runs `step` for at least `seconds`, after two that do not count (tracing, cold caches).

    `done` waits for work that steps have left running, as on a GPU.
    """
    for _ in range(2):
        step()
    if done:
        done()
    began = time.perf_counter()
    runs = 0
    while True:
        step()
        runs += 1
        if time.perf_counter() - began >= seconds:
            if done:
                done()
            return runs / (time.perf_counter() - began)


def serve(about, rate):
    """Answers each request {work, batch, microbatch, seconds} with `rate(request)`, images a second, until stdin ends."""
    say({"about": about})
    for line in sys.stdin:
        say({"rate": rate(json.loads(line))})
