"""Cost of recording: x * y + z forward, forward and backward, and backward with create_graph.

    python -m bench.recorded_ops [N ...]        one thread, CPU time, cases alternate

Columns are microseconds; ratios are to raw NumPy, which computes the same numbers by hand
(backward: two products and the seed). PyTorch and HIPS autograd are timed when installed. A step
is forward, backward and the reset of the three gradients.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np  # noqa: E402

from autodiff import tensor  # noqa: E402
from bench.common import alternating, settle_allocator  # noqa: E402

Case = Callable[[int], None]


def raw_numpy(x, y, z, one) -> dict[str, Case]:
    def forward(n: int) -> None:
        for _ in range(n):
            x * y + z

    def step(n: int) -> None:
        for _ in range(n):
            x * y + z
            g = one
            g * y, g * x  # noqa: B018  the two products are what is timed

    return {"raw forward": forward, "raw step": step}


def ours(x, y, z, one) -> dict[str, Case]:
    x, y, z = (tensor(a, requires_grad=True) for a in (x, y, z))

    def forward(n: int) -> None:
        for _ in range(n):
            x * y + z

    def step(n: int) -> None:
        for _ in range(n):
            (x * y + z).backward(one)
            x.grad = y.grad = z.grad = None

    def create(n: int) -> None:
        for _ in range(n):
            (x * y + z).backward(one, create_graph=True)
            x.grad = y.grad = z.grad = None

    return {"ours forward": forward, "ours step": step, "ours create_graph": create}


def torch_eager(x, y, z, one) -> dict[str, Case]:
    import torch

    torch.set_num_threads(1)
    x, y, z = (torch.tensor(a, requires_grad=True) for a in (x, y, z))
    one = torch.tensor(one)

    def forward(n: int) -> None:
        for _ in range(n):
            x * y + z

    def step(n: int) -> None:
        for _ in range(n):
            (x * y + z).backward(one)
            x.grad = y.grad = z.grad = None

    return {"torch forward": forward, "torch step": step}


def hips_autograd(x, y, z, one) -> dict[str, Case]:
    from autograd import make_vjp

    def f(args):
        return args[0] * args[1] + args[2]

    pull = make_vjp(f)

    def step(n: int) -> None:
        for _ in range(n):
            pull((x, y, z))[0](one)

    return {"hips step": step}


def measure(size: int) -> dict[str, float]:
    """Median seconds of every case at one size."""
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(size) for _ in range(3)] + [np.ones(size)]
    cases: dict[str, Case] = {}
    for peer in (raw_numpy, ours, torch_eager, hips_autograd):
        try:
            cases |= peer(*arrays)
        except ImportError as missing:
            print(f"  without {peer.__name__}: {missing}")
    repeats = 2000 if size <= 1000 else 200 if size <= 100_000 else 3
    rounds = 40 if size <= 1000 else 30
    fewer = {name: max(repeats // 5, 1) if "hips" in name else repeats for name in cases}
    return alternating(cases, fewer, rounds)


def main(sizes: list[int]) -> None:
    keep = settle_allocator()
    for size in sizes:
        times = measure(size)
        print(f"N = {size}")
        for name, seconds in times.items():
            base = times["raw forward" if "forward" in name else "raw step"]
            print(f"  {name:20s} {seconds * 1e6:10.2f} us   {seconds / base:6.2f} x raw")
        plain = times["ours create_graph"] / times["ours step"]
        print(f"  create_graph step / plain step {plain:.2f}")
        if "torch step" in times:
            for kind in ("forward", "step"):
                ratio = times[f"torch {kind}"] / times[f"ours {kind}"]
                print(f"  torch {kind} / ours {ratio:.2f}")
    del keep


if __name__ == "__main__":
    main([int(n) for n in sys.argv[1:]] or [1, 10, 100, 10_000, 1_000_000])
