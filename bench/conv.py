"""Convolution against torch's conv2d: forward, and forward with backward, by shape.

    python -m bench.conv [--rounds 15] [--only NAME ...]

One thread, CPU time, pinned, the engines alternating in one process; float32. Values and gradients
are compared first. Ratios are ours over torch's. For both engines freed pages stay with the process.
"""

import argparse
import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np  # noqa: E402

from autodiff import tensor  # noqa: E402
from autodiff.convolution import conv, conv_transpose  # noqa: E402
from bench.common import alternating, print_table, row, save, settle_process  # noqa: E402

# name: (x, w, options); the transposed one takes w as [in, out, *K]
SHAPES = {
    "first layer": ((8, 3, 64, 64), (32, 3, 3, 3), {"padding": 1}),
    "3x3, 64 channels": ((8, 64, 28, 28), (64, 64, 3, 3), {"padding": 1}),
    "3x3, stride 2": ((8, 64, 28, 28), (128, 64, 3, 3), {"padding": 1, "stride": 2}),
    "1x1, 256 to 64": ((8, 256, 14, 14), (64, 256, 1, 1), {}),
    "5x5, dilation 2": ((4, 16, 40, 40), (32, 16, 5, 5), {"padding": 4, "dilation": 2}),
    "depthwise 3x3": ((8, 64, 28, 28), (64, 1, 3, 3), {"padding": 1, "groups": 64}),
    "late layer": ((8, 256, 7, 7), (256, 256, 3, 3), {"padding": 1}),
    "3x3, 64 channels, batch 64": ((64, 64, 16, 16), (64, 64, 3, 3), {"padding": 1}),
    "one line": ((8, 32, 1024), (64, 32, 5), {"padding": 2}),
    "transposed 4x4": ((4, 64, 14, 14), (64, 32, 4, 4), {"padding": 1, "stride": 2, "transposed": True}),
}
TARGETS = {("3x3, 64 channels, batch 64", "step"): 2.2}  # the others are reported


def ours(x, w, g, transposed=False, **options):
    call = conv_transpose if transposed else conv
    tx, tw = tensor(x, requires_grad=True), tensor(w, requires_grad=True)

    def forward(n):
        for _ in range(n):
            out = call(tx, tw, **options)
        return out

    def step(n):
        for _ in range(n):
            tx.grad = tw.grad = None
            call(tx, tw, **options).backward(g)
        return tx.grad, tw.grad

    return forward, step


def torch_eager(x, w, g, transposed=False, **options):
    import torch

    torch.set_num_threads(1)
    name = f"conv{'_transpose' if transposed else ''}{x.ndim - 2}d"
    call = getattr(torch.nn.functional, name)
    tx, tw = (torch.from_numpy(a).requires_grad_() for a in (x, w))
    tg = torch.from_numpy(g)

    def forward(n):
        for _ in range(n):
            out = call(tx, tw, **options)
        return out

    def step(n):
        for _ in range(n):
            tx.grad = tw.grad = None
            call(tx, tw, **options).backward(tg)
        return tx.grad, tw.grad

    return forward, step


def check(name, pairs, terms):
    """Both engines agree to float32's rounding of sums of `terms` products."""
    for what, a, b in pairs:
        a, b = np.asarray(a), np.asarray(b)
        # Independent roundings grow like the root of the number of terms; 8 is slack.
        bound = 8 * np.finfo(np.float32).eps * np.sqrt(terms) * np.max(np.abs(b))
        worst = float(np.max(np.abs(a - b)))
        if not worst <= bound:
            raise SystemExit(f"{name}: {what} differs from torch's by {worst:.2g}, allowed {bound:.2g}")


def measure(name, rounds):
    """Median seconds of the four cases; the two engines are compared before."""
    x_shape, w_shape, options = SHAPES[name]
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal(s, dtype=np.float32) for s in (x_shape, w_shape))
    out = (conv_transpose if options.get("transposed") else conv)(
        x, w, **{k: v for k, v in options.items() if k != "transposed"}
    )
    g = rng.standard_normal(out.shape, dtype=np.float32)
    (of, os_), (tf, ts) = ours(x, w, g, **options), torch_eager(x, w, g, **options)
    terms = max(np.prod(w_shape[1:]), np.prod(out.shape) // out.shape[1])
    values = [("the value", of(1).data, tf(1).detach().numpy())]
    grads = zip(("the gradient of x", "the gradient of w"), os_(1), ts(1), strict=True)
    check(name, values + [(what, a, b.numpy()) for what, a, b in grads], terms)
    cases = {"ours forward": of, "torch forward": tf, "ours step": os_, "torch step": ts}
    return alternating(cases, 2, rounds)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", nargs="+", default=list(SHAPES), choices=list(SHAPES))
    args = parser.parse_args()
    settle_process(1)
    rows = []
    for name in args.only:
        t = measure(name, args.rounds)
        for part in ("forward", "step"):
            target = TARGETS.get((name, part))
            rows.append(row(f"conv, {name}, {part}", "torch", 1, "s", t[f"ours {part}"], t[f"torch {part}"], target))
    print_table(rows)
    if len(args.only) == len(SHAPES):
        save("bench.conv", 1, rows)


if __name__ == "__main__":
    main()
