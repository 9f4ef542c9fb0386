"""Muon on one hidden matrix of 1024 x 4096: against the same fp32 iteration in torch, and torch.optim.Muon in bf16."""

import numpy as np

from bench.common import Case, Engine, Ratio, main

ROWS, COLUMNS = 1024, 4096
OPTIONS = {"lr": 1e-3, "weight_decay": 0.1, "momentum": 0.95}
A, B, C = 3.4445, -4.7750, 2.0315
EPS = 1e-7


def arrays():
    rng = np.random.default_rng(0)
    return [rng.standard_normal((ROWS, COLUMNS), dtype=np.float32) * np.float32(s) for s in (0.02, 1.0)]


def ours(threads):
    from backends.fused.numpy.muon import muon_
    from backends.threads import threads as thread_count
    from ref.optim.muon import COEFFICIENTS, SCALES

    param, grad = arrays()
    velocity, factor = np.zeros_like(param), SCALES["moonlight"](*param.shape)

    def step(_=None):
        with thread_count(threads):
            muon_(param, grad, velocity, nesterov=True, factor=factor, steps=5, coefficients=COEFFICIENTS, eps=EPS,
                  **OPTIONS)  # fmt: skip

    def values():
        step()
        return {"param": param}

    return Engine({"step": step}, values)


def torch_fp32(threads):
    """Written out, with addmm, which adds as it multiplies."""
    import torch

    torch.set_num_threads(threads)
    param, grad = (torch.from_numpy(x) for x in arrays())
    velocity = torch.zeros_like(param)
    scale = 0.2 * max(ROWS, COLUMNS) ** 0.5

    @torch.no_grad()
    def step(_=None):
        velocity.mul_(OPTIONS["momentum"]).add_(grad)
        X = grad.add(velocity, alpha=OPTIONS["momentum"])
        X.div_(X.norm() + EPS)
        for _ in range(5):
            gram = X @ X.T
            X = torch.addmm(X, torch.addmm(gram, gram, gram, beta=B, alpha=C), X, beta=A)
        param.mul_(1 - OPTIONS["lr"] * OPTIONS["weight_decay"]).add_(X, alpha=-OPTIONS["lr"] * scale)

    def values():
        step()
        return {"param": param.numpy()}

    return Engine({"step": step}, values)


def torch_bf16(threads):
    import torch

    torch.set_num_threads(threads)
    param, grad = (torch.from_numpy(x) for x in arrays())
    param.requires_grad_()
    param.grad = grad
    optimizer = torch.optim.Muon([param], adjust_lr_fn="match_rms_adamw", **OPTIONS)
    # Another rounding: its values are not compared.
    return Engine({"step": lambda _: optimizer.step()}, dict)


WORK = f"Muon, {ROWS} x {COLUMNS}"
CASES = [
    Case(
        "fp32",
        {"torch fp32": torch_fp32, "ours": ours},
        (Ratio(WORK, ("ours", "step"), ("torch fp32", "step"), {1: 1.1, 2: 1.1}),),
        rounds=5,
        tolerance=1e-3,
    ),
    # Minutes a step where the processor has no bf16 products: once is enough.
    Case(
        "bf16",
        {"torch.optim.Muon bf16": torch_bf16, "ours": ours},
        (Ratio(WORK, ("ours", "step"), ("torch.optim.Muon bf16", "step"), {1: None}),),  # another work: only reported
        rounds=1,
        tolerance=None,
    ),
]

if __name__ == "__main__":
    main("bench.muon", CASES)
