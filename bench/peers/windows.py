"""The other end of bench/measure.ts: a process that greets, then measures one window of work for each line on stdin."""

import json
import sys
import time


def say(message):
    print(json.dumps(message), flush=True)


def runs_per_second(step, seconds):
    """Runs `step` for at least `seconds`, after two that do not count (tracing, cold caches)."""
    for _ in range(2):
        step()
    began = time.perf_counter()
    runs = 0
    while True:
        step()
        runs += 1
        elapsed = time.perf_counter() - began
        if elapsed >= seconds:
            return runs / elapsed


def serve(about, rate):
    """Answers each request {work, batch, microbatch, seconds} with `rate(request)`, images a second, until stdin ends."""
    say({"about": about})
    for line in sys.stdin:
        say({"rate": rate(json.loads(line))})
