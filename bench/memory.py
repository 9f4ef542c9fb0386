"""Peak memory and time of long attention, each measured alone in a process of its own.

N 16384, causal, forward and backward: no N x N array could hide in these numbers. N 4096 against
the N x N form. Memory is the growth of the process's peak, inputs and torch itself left out.
"""

import argparse
import json
import statistics
import time

from backends.pages import keep_freed_pages
from bench.attention import HEADS, naive, ours, torch_flash
from bench.common import peak_rss, print_table, row, save, start_child

ENGINES = {"ours": ours, "torch flash": torch_flash, "naive": naive}
MODULE = "bench.memory"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--engine", choices=ENGINES)
    parser.add_argument("--length", type=int)
    args = parser.parse_args()
    if args.engine:
        print(json.dumps(alone(args.engine, args.length, args.threads[0])))
        return
    for threads in args.threads:
        seconds, bytes_ = _long(threads, args.rounds)
        work = "attention, N 16384, causal, forward + backward"
        rows = [
            row(work, "torch flash", threads, "s", *seconds, 1.0),
            row(f"{work}, memory", "250 MB", threads, "B", bytes_, 250e6, 1.0),
        ]
        if threads == 2:
            small, large = (start(engine, 4096, 2)["bytes"] for engine in ("ours", "naive"))
            rows.append(row("attention, N 4096, causal, memory", "naive", 2, "B", small, large, 1 / 30))
        print_table(rows)
        save(MODULE, threads, rows)


def _long(threads, rounds):
    """(seconds of ours, of torch), bytes of ours; medians over alternating processes."""
    found = {"ours": [], "torch flash": []}
    for _ in range(rounds):
        for engine, runs in found.items():
            runs.append(start(engine, 16384, threads))
    seconds = [statistics.median(run["seconds"] for run in runs) for runs in found.values()]
    return seconds, max(run["bytes"] for run in found["ours"])


def start(engine, length, threads):
    return start_child(MODULE, threads, "--engine", engine, "--length", str(length), "--threads", str(threads))


def alone(engine, length, threads):
    keep_freed_pages()
    made = ENGINES[engine](length, length, HEADS, True, threads)
    before = peak_rss()
    clock = time.process_time if threads == 1 else time.perf_counter
    begin = clock()
    found = made.parts["backward"](made.parts["forward"](None))
    seconds = clock() - begin
    del found
    return {"seconds": seconds, "bytes": peak_rss() - before}


if __name__ == "__main__":
    main()
