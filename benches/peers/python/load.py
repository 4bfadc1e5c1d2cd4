"""Closed loops of callers in threads, and the words in which a peer is told to run them."""
import json
import math
import os
import sys
import threading
import time

SIZE = 1024


def obey(slice_of):
    """Obeys lines of `CONCURRENCY MILLISECONDS`; answers each with a line of JSON."""
    print("ready", flush=True)
    for line in sys.stdin:
        callers, ms = line.split()
        print(json.dumps(slice_of(int(callers), int(ms) / 1e3)), flush=True)
    os._exit(0)


def in_threads(call, callers, seconds):
    """A slice of as many threads as there are callers."""
    text, latencies, errors = "x" * SIZE, [], []
    begun = time.perf_counter()

    def loop():
        own = []
        try:
            while (sent := time.perf_counter()) < begun + seconds:
                if call(text) != text:
                    raise AssertionError("the answer is not what was sent")
                own.append(time.perf_counter() - sent)
        except Exception as error:
            errors.append(error)
        latencies.extend(own)

    threads = [threading.Thread(target=loop) for _ in range(callers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - begun
    if errors:
        raise errors[0]
    return measured(latencies, took)


def measured(latencies, took):
    latencies.sort()
    at = lambda share: latencies[max(math.ceil(len(latencies) * share), 1) - 1] * 1e6
    return {"calls": len(latencies), "seconds": took, "p50_us": at(0.5), "p99_us": at(0.99)}
