"""Generalised advantage estimation on 4096 x 128 steps, time first and time last, against torch's loop over time."""

import functools

import numpy as np

from bench.common import Case, Engine, Ratio, main

SHAPES, GAMMA, LAM = ((4096, 128), (128, 4096)), 0.99, 0.95


@functools.cache
def recording(shape):
    """rewards, values, next_values, terminated, truncated: float32, an end every hundred steps or so."""
    rng = np.random.default_rng(0)
    numbers = [rng.standard_normal(shape, dtype=np.float32) for _ in range(3)]
    return *numbers, rng.random(shape) < 0.01, rng.random(shape) < 0.005


def ours(shape, time_axis, threads):
    from ref.mdp.gae import gae

    arrays = recording(shape)

    def estimate(_=None):
        return gae(*arrays, gamma=GAMMA, lam=LAM, time_axis=time_axis)

    return Engine({"gae": estimate}, lambda: dict(zip(("advantages", "targets"), estimate(), strict=True)))


def torch_loop(shape, time_axis, threads):
    """The loop as PPO programs have it, a step of all environments at a time."""
    import torch

    torch.set_num_threads(threads)
    rewards, values, next_values, terminated, truncated = map(torch.from_numpy, recording(shape))

    @torch.no_grad()
    def estimate(_=None):
        going, on = 1 - terminated.float(), 1 - (terminated | truncated).float()
        r, v, n, go, keep = (x.movedim(time_axis, 0) for x in (rewards, values, next_values, going, on))
        advantages = torch.zeros_like(rewards)
        out, last = advantages.movedim(time_axis, 0), 0
        for t in reversed(range(len(r))):
            delta = r[t] + GAMMA * n[t] * go[t] - v[t]
            out[t] = last = delta + GAMMA * LAM * keep[t] * last
        return advantages, advantages + values

    return Engine(
        {"gae": estimate}, lambda: {k: x.numpy() for k, x in zip(("advantages", "targets"), estimate(), strict=True)}
    )


def case(shape, time_axis, name):
    return Case(
        f"{shape[0]}x{shape[1]} {name}",
        {
            "torch": functools.partial(torch_loop, shape, time_axis),
            "ours": functools.partial(ours, shape, time_axis),
        },
        (Ratio(f"GAE on {shape}, {name} (T {shape[time_axis]})", ("ours", "gae"), ("torch", "gae"), {1: 1.2}),),
        rounds=15,
    )


CASES = [case(shape, axis, name) for shape in SHAPES for axis, name in ((0, "time first"), (-1, "time last"))]

if __name__ == "__main__":
    main("bench.gae", CASES)
