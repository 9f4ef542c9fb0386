"""The digits' diffusion model: a training step (batch 128), and 1000 digits by 50 DDIM steps, against torch eager.

Ours is the readable network of ref/demo/digits_net.py under diffusion.simple_loss and diffusion.ddim, the update as
ref/demo/diffusion.py makes it: AdamW without decay, then the moving average. The peer is the same in torch's own words,
with its fused AdamW.
"""

import functools

import numpy as np

from bench.common import Case, Engine, Ratio, main
from bench.llama_step import views
from ref.demo import digits_net
from ref.demo.diffusion import T, schedule
from ref.demo.digits import CLASSES, PIXELS, asked

BATCH, SAMPLES, STEPS = 128, 1000, 50
RATE, BETA1, BETA2, EPS, KEPT = 1e-3, 0.9, 0.999, 1e-8, 0.995


@functools.cache
def start():
    """{name: parameter}, images, labels, steps and noise of a batch, noise to sample from; the same for all engines."""
    rng = np.random.default_rng(0)
    values = digits_net.initial(rng)
    batch = rng.uniform(-1, 1, (BATCH, PIXELS)).astype(np.float32), rng.integers(0, CLASSES, BATCH)
    drawn = rng.integers(1, T + 1, BATCH), rng.standard_normal((BATCH, PIXELS), dtype=np.float32)
    return values, *batch, *drawn, rng.standard_normal((SAMPLES, PIXELS), dtype=np.float32)


def visited():
    from ref.diffusion.timesteps import timesteps

    return timesteps(T, STEPS, spacing="linspace")


# A training step --------------------------------------------------------------------------------------


def our_step(threads):
    from autodiff import value_and_grad
    from backends.fused.numpy.ema import ema_
    from backends.fused.steps import adamw_
    from backends.threads import threads as thread_count
    from ref.demo.diffusion import model
    from ref.diffusion.simple_loss import simple_loss

    values, x, labels, t, noise, _ = start()
    flat, params = views(values)
    gradient, slots = views(values)
    m, v, average = np.zeros_like(flat), np.zeros_like(flat), flat.copy()
    count, bars = iter(range(1, 10**9)), schedule()

    def loss(params):
        return simple_loss(x, t, noise, bars, model=model(params, labels)).mean()

    def gradients():
        value, found = value_and_grad(loss)(params)
        for name, slot in slots.items():
            slot[...] = found[name]
        return float(value)

    def step(_):
        with thread_count(threads):
            gradients()
            adamw_(flat, gradient, m, v, next(count), lr=RATE, beta1=BETA1, beta2=BETA2, eps=EPS, weight_decay=0.0)
            ema_(average, flat, decay=KEPT)

    return Engine({"step": step}, lambda: {"loss": gradients(), **{n: a.copy() for n, a in slots.items()}})


def torch_step(threads):
    import torch

    torch.set_num_threads(threads)
    values, *arrays = start()
    params = {n: torch.from_numpy(a.copy()).requires_grad_() for n, a in values.items()}
    x, labels, t, noise, _ = (torch.from_numpy(a) for a in arrays)
    bars = torch.from_numpy(schedule())
    optimizer = torch.optim.AdamW(params.values(), lr=RATE, betas=(BETA1, BETA2), eps=EPS, weight_decay=0.0, fused=True)
    average = [p.detach().clone() for p in params.values()]

    def gradients():
        optimizer.zero_grad()
        now = bars[t - 1][:, None]
        noisy = now.sqrt().float() * x + (1 - now).sqrt().float() * noise
        loss = ((torch_network(noisy, t.float(), labels, params) - noise) ** 2).mean()
        loss.backward()
        return loss

    def step(_):
        gradients()
        optimizer.step()
        torch._foreach_lerp_(average, [p.detach() for p in params.values()], 1 - KEPT)

    def values_():
        loss = float(gradients().detach())
        return {"loss": loss, **{n: p.grad.numpy().copy() for n, p in params.items()}}

    return Engine({"step": step}, values_)


def torch_network(x, t, labels, p):
    """ref/demo/digits_net.py in torch."""
    import torch
    from torch.nn import functional as f

    half = digits_net.EMBEDDED // 2
    frequencies = torch.exp(torch.arange(half) * (-np.log(1e4) / (half - 1))).float()
    angles = t[:, None] * (digits_net.TURNS / T) * frequencies
    s = torch.cat([angles.sin(), angles.cos()], 1)
    named = f.embedding(labels, p["class.weight"])
    h = f.linear(x, p["in.weight"], p["in.bias"]) + f.linear(s, p["time.weight"], p["time.bias"])
    h = h + f.linear(named, p["label.weight"], p["label.bias"])
    for k in range(digits_net.BLOCKS):
        b = f"block.{k}"
        n = f.layer_norm(h, h.shape[1:], p[f"{b}.norm.weight"], p[f"{b}.norm.bias"])
        n = f.silu(f.linear(n, p[f"{b}.1.weight"], p[f"{b}.1.bias"]))
        h = h + f.linear(n, p[f"{b}.2.weight"], p[f"{b}.2.bias"])
    return f.linear(h, p["out.weight"], p["out.bias"])


# Sampling ---------------------------------------------------------------------------------------------


def our_samples(threads):
    from backends.threads import threads as thread_count
    from ref.demo.diffusion import model
    from ref.diffusion.ddim import ddim

    values, *_, noise = start()
    bars, steps, labels = schedule(), visited(), asked(SAMPLES)

    def sample(_=None):
        with thread_count(threads):
            return ddim(noise, model=model(values, labels), alpha_bar=bars, steps=steps)

    return Engine({"": sample}, lambda: {"samples": sample()})


def torch_samples(threads):
    import torch

    torch.set_num_threads(threads)
    values, *_, noise = start()
    params = {n: torch.from_numpy(a) for n, a in values.items()}
    labels, start_at = torch.from_numpy(asked(SAMPLES)), torch.from_numpy(noise)
    bars, steps = schedule(), visited()[::-1].tolist()

    @torch.no_grad()
    def sample(_=None):
        x = start_at
        for t, s in zip(steps, [*steps[1:], 0], strict=True):
            now, before = float(bars[t - 1]), float(bars[s - 1]) if s else 1.0
            eps = torch_network(x, torch.full((1,), float(t)), labels, params)
            x0 = (x - (1 - now) ** 0.5 * eps) / now**0.5
            x = before**0.5 * x0 + (1 - before) ** 0.5 * eps
        return x

    return Engine({"": sample}, lambda: {"samples": sample().numpy()})


SIDES = (("ours", ""), ("torch", ""))
CASES = [
    Case(
        "step",
        {"torch": torch_step, "ours": our_step},
        (Ratio(f"DDPM step of the digits net, B {BATCH}", *SIDES, {1: 1.1}),),
        rounds=25,
    ),
    Case(
        "sampling",
        {"torch": torch_samples, "ours": our_samples},
        (Ratio(f"{SAMPLES} digits, {STEPS} DDIM steps", *SIDES, {1: 1.1}),),
        rounds=7,
        tolerance=1e-3,  # fifty steps of an untrained net
    ),
]

if __name__ == "__main__":
    main("bench.diffusion", CASES)
