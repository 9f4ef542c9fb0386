"""Optimizer steps: the in-place forms against the readable ones and against torch, on one thread.

    python -m bench.optimizers [--size 1000000] [--small 300] [--rounds 9]

CPU times, cases alternating in one process: ours in place over the readable form, over torch's fused and foreach steps
(Lion is not in torch), and for a list of small tensors one call over a loop of calls. AdamW's targets stand in
bench/adamw.py; here nothing is judged.
"""

import argparse

import numpy as np

from backends.fused.numpy.lion import lion_
from backends.fused.numpy.sgd import sgd_
from backends.fused.steps import adamw_
from backends.threads import threads
from bench.common import alternating, print_table, row, save, settle_process
from ref.optim.adamw import AdamState, adamw
from ref.optim.lion import LionState, lion
from ref.optim.sgd import SgdState, sgd

ADAMW = {"lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.01}
SGD = {"lr": 1e-3, "momentum": 0.9, "weight_decay": 0.01}
LION = {"lr": 1e-4, "beta1": 0.9, "beta2": 0.99, "weight_decay": 0.01}

# name -> (state arrays, in place, readable)
STEPS = {
    "adamw": (
        2,
        lambda p, g, s: adamw_(p, g, *s, 10, **ADAMW),
        lambda p, g, s: adamw(p, g, AdamState(*s, 9), **ADAMW),
    ),
    "sgd": (1, lambda p, g, s: sgd_(p, g, *s, **SGD), lambda p, g, s: sgd(p, g, SgdState(*s), **SGD)),
    "lion": (1, lambda p, g, s: lion_(p, g, *s, **LION), lambda p, g, s: lion(p, g, LionState(*s), **LION)),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=1_000_000)
    parser.add_argument("--small", type=int, default=300, help="tensors of 1000 elements in the list")
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    settle_process(1)
    rows = []
    with threads(1):
        for name in STEPS:
            rows += _rows(f"{name}, {args.size} numbers", _large(name, args.size), args.rounds)
            rows += _rows(f"{name}, {args.small} tensors of 1000", _list(name, args.small), args.rounds)
    print_table(rows)
    save("bench.optimizers", 1, rows)


def _arrays(slots, size):
    rng = np.random.default_rng(0)
    p, g = (rng.standard_normal(size).astype(np.float32) for _ in range(2))
    return p, g, [np.full(size, 0.01, np.float32) for _ in range(slots)]


def _large(name, size):
    slots, in_place, readable = STEPS[name]
    p, g, s = _arrays(slots, size)
    cases = {"in place": lambda n: [in_place(p, g, s) for _ in range(n)]}
    cases["readable"] = lambda n: [readable(p, g, s) for _ in range(n)]
    return {**cases, **_torch(name, [p], [g])}


def _list(name, count):
    slots, in_place, _ = STEPS[name]
    made = [_arrays(slots, 1000) for _ in range(count)]
    ps, gs = [m[0] for m in made], [m[1] for m in made]
    ss = [[m[2][k] for m in made] for k in range(slots)]
    cases = {"in place": lambda n: [in_place(ps, gs, ss) for _ in range(n)]}
    cases["loop of calls"] = lambda n: [[in_place(*m) for m in made] for _ in range(n)]
    return {**cases, **_torch(name, ps, gs)}


def _torch(name, ps, gs):
    """{engine: case} of torch's optimizer over copies of the arrays; {} where it has none."""
    try:
        import torch
    except ImportError:
        return {}
    torch.set_num_threads(1)
    kinds = {
        "adamw": lambda q, **how: torch.optim.AdamW(q, lr=1e-3, weight_decay=0.01, **how),
        "sgd": lambda q, **how: torch.optim.SGD(q, lr=1e-3, momentum=0.9, weight_decay=0.01, **how),
    }
    cases = {}
    for how in ("fused", "foreach") if name in kinds else ():
        params = [torch.nn.Parameter(torch.tensor(p)) for p in ps]
        for p, g in zip(params, gs, strict=True):
            p.grad = torch.tensor(g)
        step = kinds[name](params, **{how: True}).step
        cases[f"torch {how}"] = lambda n, step=step: [step() for _ in range(n)]
    return cases


def _rows(work, cases, rounds):
    seconds = alternating(cases, 3, rounds)
    mine = seconds.pop("in place")
    return [row(work, peer, 1, "s", mine, theirs, None) for peer, theirs in seconds.items()]


if __name__ == "__main__":
    main()
