"""Attention against torch's flash path: forward and backward time by N, causal or not.

    python -m bench.attention [--threads 1] [--sizes 256 1024 2048 4096] [--json FILE]
    python -m bench.attention --long            N = 16384, causal: time and memory of ours alone

One thread: CPU time, pinned, the engines alternating in one process. More: wall time, one process
an engine, alternating (two engines in one process would spin on each other's threads). Needs torch
beside the project's own dependencies; `naive` is the N x N form in NumPy. For all engines freed
pages stay with the process (glibc gives big arrays back at once, and the page faults of the next
ones would be half of what is measured).
"""

import argparse
import contextlib
import ctypes
import json
import os
import statistics
import subprocess
import sys
import time

HEADS, WIDTH = 8, 64
ENGINES = ("ours", "torch", "naive")


def main():
    args = _arguments()
    _keep_pages()
    if args.long:
        return _long(args)
    if args.worker:
        return _work(args)
    rows = _in_process(args) if args.threads == 1 else _by_processes(args)
    _report(rows, args)


def _arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 1024, 2048, 4096])
    parser.add_argument("--engines", nargs="+", default=["ours", "torch"], choices=ENGINES)
    parser.add_argument("--masks", nargs="+", default=["full", "causal"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--block-rows", type=int)
    parser.add_argument("--block-cols", type=int)
    parser.add_argument("--json")
    parser.add_argument("--long", action="store_true")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser.parse_args()


def _keep_pages():
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD
        libc.mallopt(-1, (1 << 31) - 1)  # M_TRIM_THRESHOLD


def _in_process(args):
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    rows = []
    for n in args.sizes:
        for mask in args.masks:
            runs = {engine: _make(engine, n, mask == "causal", args) for engine in args.engines}
            times = {engine: ([], []) for engine in runs}
            for turn in range(args.rounds + 1):
                for engine, run in runs.items():
                    sample = _sample(*run, n, time.process_time)
                    for kept, t in zip(times[engine], sample, strict=True):
                        if turn:  # the first warms caches and pages
                            kept.append(t)
            rows += [_row(engine, n, mask, *times[engine]) for engine in runs]
            _print_group(rows[-len(runs) :])
    return rows


def _by_processes(args):
    rows = []
    for n in args.sizes:
        for mask in args.masks:
            times = {engine: ([], []) for engine in args.engines}
            for _ in range(args.rounds):
                for engine in args.engines:
                    command = [sys.executable, "-m", "bench.attention", "--worker", engine]
                    command += ["--sizes", str(n), "--masks", mask, "--threads", str(args.threads)]
                    for flag, value in (("rows", args.block_rows), ("cols", args.block_cols)):
                        command += [] if value is None else [f"--block-{flag}", str(value)]
                    done = subprocess.run(command, check=True, capture_output=True, text=True)
                    for kept, t in zip(times[engine], json.loads(done.stdout), strict=True):
                        kept.append(t)
            rows += [_row(engine, n, mask, *times[engine]) for engine in args.engines]
            _print_group(rows[-len(args.engines) :])
    return rows


def _work(args):
    """One engine in a process of its own: prints [forward, backward] seconds."""
    os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = str(args.threads)
    n = args.sizes[0]
    run = _make(args.worker, n, args.masks[0] == "causal", args)
    samples = [_sample(*run, n, time.perf_counter) for _ in range(4)][1:]
    print(json.dumps([statistics.median(column) for column in zip(*samples, strict=True)]))


def _sample(forward, backward, n, clock):
    repeats = max(1, int(1e6 / n / n))
    start = clock()
    for _ in range(repeats):
        context = forward()
    middle = clock()
    for _ in range(repeats):
        backward(context)
    stop = clock()
    return (middle - start) / repeats, (stop - middle) / repeats


def _make(engine, n, causal, args):
    import numpy as np

    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal((HEADS, n, WIDTH), dtype=np.float32) for _ in range(4)]
    maker = {"ours": _ours, "torch": _torch, "naive": _naive}[engine]
    return maker(*arrays, causal, args)


def _ours(q, k, v, g, causal, args):
    from backends import threads
    from backends.fused.numpy import flash
    from ref.attention.rules import causal as rule

    options = {
        "mask": rule() if causal else None,
        "block_rows": args.block_rows,
        "block_cols": args.block_cols,
    }

    def forward():
        with threads.threads(args.threads):
            return flash.forward(q, k, v, **options)

    def backward(context):
        with threads.threads(args.threads):
            return flash.vjp((g, None), *context, (True,) * 3, q, k, v, **options)

    return forward, backward


def _torch(q, k, v, g, causal, args):
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    torch.set_num_threads(args.threads)
    q, k, v = (torch.from_numpy(x)[None].requires_grad_() for x in (q, k, v))
    g = torch.from_numpy(g)[None]

    def forward():
        with sdpa_kernel([SDPBackend.FLASH_ATTENTION]):
            return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal)

    return forward, lambda o: torch.autograd.grad(o, (q, k, v), g, retain_graph=True)


def _naive(q, k, v, g, causal, args):
    import numpy as np

    scale = np.float32(WIDTH**-0.5)

    def forward():
        s = q @ k.swapaxes(-1, -2) * scale
        if causal:
            s = np.where(np.tri(s.shape[-1], dtype=bool), s, np.float32(-np.inf))
        p = np.exp(s - s.max(-1, keepdims=True))
        p /= p.sum(-1, keepdims=True)
        return p, p @ v

    def backward(context):
        p, o = context
        ds = p * (g @ v.swapaxes(-1, -2) - np.vecdot(g, o)[..., None]) * scale
        return ds @ k, ds.swapaxes(-1, -2) @ q, p.swapaxes(-1, -2) @ g

    return forward, backward


def _long(args):
    """N = 16384, causal, forward and backward: no N x N array could hide in the memory printed."""
    import resource

    n = 16384
    engine = args.engines[0]
    forward, backward = _make(engine, n, True, args)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    backward(forward())
    seconds = time.perf_counter() - start
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(f"{engine}  N {n} causal, {args.threads} threads: {seconds:.2f} s, {peak:.0f} MB")


def _row(engine, n, mask, forward, backward):
    return {
        "engine": engine,
        "n": n,
        "mask": mask,
        "forward_ms": statistics.median(forward) * 1e3,
        "backward_ms": statistics.median(backward) * 1e3,
    }


def _print_group(rows):
    base = next((r for r in rows if r["engine"] == "torch"), rows[0])
    for r in rows:
        f, b = r["forward_ms"], r["backward_ms"]
        print(
            f"N {r['n']:6d} {r['mask']:7s}{r['engine']:6s}"
            f" forward {f:9.2f} ms x{f / base['forward_ms']:.2f}"
            f"   backward {b:9.2f} ms x{b / base['backward_ms']:.2f}",
            flush=True,
        )


def _report(rows, args):
    if args.json:
        with open(args.json, "w") as file:
            json.dump({"threads": args.threads, "rows": rows}, file, indent=1)


if __name__ == "__main__":
    main()
