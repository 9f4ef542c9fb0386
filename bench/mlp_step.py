"""A training step of an MLP (784-512-512-10, batch 128, ReLU), AdamW, against torch eager."""

import functools

import numpy as np

from bench.common import Case, Engine, Ratio, main
from bench.llama_step import BETA1, BETA2, DECAY, EPS, RATE, views

WIDTHS, BATCH = (784, 512, 512, 10), 128


@functools.cache
def start():
    rng = np.random.default_rng(0)
    values = {}
    for i, (fan_in, out) in enumerate(zip(WIDTHS, WIDTHS[1:], strict=False)):
        values[f"w{i}"] = rng.standard_normal((out, fan_in), dtype=np.float32) * np.float32(fan_in**-0.5)
        values[f"b{i}"] = np.zeros(out, np.float32)
    return values, rng.standard_normal((BATCH, WIDTHS[0]), dtype=np.float32), rng.integers(0, WIDTHS[-1], BATCH)


def ours(threads):
    from autodiff import namespace, value_and_grad
    from backends.fused.steps import adamw_
    from backends.threads import threads as thread_count
    from ref.losses.softmax_cross_entropy import softmax_cross_entropy
    from ref.nn.linear import linear

    values, x, y = start()
    flat, params = views(values)
    gradient, slots = views(values)
    m, v = np.zeros_like(flat), np.zeros_like(flat)
    count = iter(range(1, 10**9))

    def loss(params):
        xp = namespace(*params.values())
        h = xp.maximum(linear(x, params["w0"], params["b0"]), 0.0)
        h = xp.maximum(linear(h, params["w1"], params["b1"]), 0.0)
        return xp.mean(softmax_cross_entropy(linear(h, params["w2"], params["b2"]), y))

    def gradients():
        value, found = value_and_grad(loss)(params)
        for name, slot in slots.items():
            slot[...] = found[name]
        return float(value)

    def step(_):
        with thread_count(threads):
            gradients()
            adamw_(flat, gradient, m, v, next(count), lr=RATE, beta1=BETA1, beta2=BETA2, eps=EPS, weight_decay=DECAY)

    return Engine({"step": step}, lambda: {"loss": gradients(), **slots})


def torch_eager(threads):
    import torch
    from torch.nn import functional

    torch.set_num_threads(threads)
    values, x, y = start()
    params = {n: torch.from_numpy(a.copy()).requires_grad_() for n, a in values.items()}
    x, y = torch.from_numpy(x), torch.from_numpy(y)
    optimizer = torch.optim.AdamW(
        params.values(), lr=RATE, betas=(BETA1, BETA2), eps=EPS, weight_decay=DECAY, fused=True
    )

    def gradients():
        optimizer.zero_grad()
        h = torch.relu(functional.linear(x, params["w0"], params["b0"]))
        h = torch.relu(functional.linear(h, params["w1"], params["b1"]))
        loss = functional.cross_entropy(functional.linear(h, params["w2"], params["b2"]), y)
        loss.backward()
        return loss

    def step(_):
        gradients()
        optimizer.step()

    def values_():
        loss = float(gradients().detach())
        return {"loss": loss, **{n: p.grad.numpy().copy() for n, p in params.items()}}

    return Engine({"step": step}, values_)


WORK = f"MLP step ({'-'.join(map(str, WIDTHS))}, B {BATCH})"
CASES = [
    Case(
        "step",
        {"torch": torch_eager, "ours": ours},
        (Ratio(WORK, ("ours", "step"), ("torch", "step"), {1: 0.90, 2: 1.05}),),
        rounds=15,
        samples=30,
    )
]

if __name__ == "__main__":
    main("bench.mlp_step", CASES)
