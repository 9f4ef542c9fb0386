"""Attention forward and backward against torch's flash path: 8 heads of 64, by length and shape.

`naive` is the N x N form in NumPy, for the N 4096 row; `one query` is a step of decoding over a cache.
"""

import functools

import numpy as np

from bench.common import Case, Engine, Ratio, main

HEADS, WIDTH = 8, 64
LIMITS = {"forward": {1: 1.15, 2: 1.2}, "backward": {1: 0.90, 2: 0.95}, "": {1: 1.0, 2: 1.0}}


def arrays(n, keys, groups):
    rng = np.random.default_rng(0)
    shapes = ((HEADS, n), (groups, keys), (groups, keys), (HEADS, n))
    return [rng.standard_normal((*shape, WIDTH), dtype=np.float32) for shape in shapes]


def _engine(forward, backward, output, gradients):
    def values():
        context = forward(None)
        return {"o": output(context), **dict(zip(("dq", "dk", "dv"), gradients(backward(context)), strict=True))}

    return Engine({"forward": forward, "backward": backward}, values)


def ours(n, keys, groups, causal, threads):
    from backends.fused.numpy import flash
    from backends.threads import threads as thread_count
    from ref.attention.rules import causal as rule

    q, k, v, g = arrays(n, keys, groups)
    options = {"mask": rule() if causal else None}

    def forward(_):
        with thread_count(threads):
            return flash.forward(q, k, v, **options)

    def backward(context):
        with thread_count(threads):
            return flash.vjp((g, None), *context, (True,) * 3, q, k, v, **options)

    return _engine(forward, backward, lambda context: context[0][0], lambda found: found)


def torch_flash(n, keys, groups, causal, threads):
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    torch.set_num_threads(threads)
    q, k, v, g = (torch.from_numpy(x)[None] for x in arrays(n, keys, groups))
    leaves = [x.requires_grad_() for x in (q, k, v)]

    def forward(_):
        with sdpa_kernel([SDPBackend.FLASH_ATTENTION]):
            return torch.nn.functional.scaled_dot_product_attention(
                *leaves, is_causal=causal, enable_gqa=groups != HEADS
            )

    def backward(o):
        return torch.autograd.grad(o, leaves, g)

    return _engine(forward, backward, lambda o: o[0].detach().numpy(), lambda found: [x[0].numpy() for x in found])


def naive(n, keys, groups, causal, threads):
    from backends.threads import threads as thread_count

    q, k, v, g = arrays(n, keys, groups)
    scale = np.float32(WIDTH**-0.5)

    def forward(_):
        with thread_count(threads):
            s = q @ k.swapaxes(-1, -2) * scale
            if causal:
                s = np.where(np.tri(*s.shape[-2:], dtype=bool), s, np.float32(-np.inf))
            p = np.exp(s - s.max(-1, keepdims=True))
            p /= p.sum(-1, keepdims=True)
            return p, p @ v

    def backward(context):
        p, o = context
        with thread_count(threads):
            ds = p * (g @ v.swapaxes(-1, -2) - np.vecdot(g, o)[..., None]) * scale
            return ds @ k, ds.swapaxes(-1, -2) @ q, p.swapaxes(-1, -2) @ g

    return _engine(forward, backward, lambda context: context[1], lambda found: found)


def _case(n, causal, keys=None, groups=HEADS, long=False):
    shape = (n, keys or n, groups, causal)
    name = f"N {n}" + (f" x {keys}" if keys else "") + (f", G {groups}" if groups != HEADS else "")
    name += ", causal" if causal else ""
    engines = {"torch flash": functools.partial(torch_flash, *shape), "ours": functools.partial(ours, *shape)}
    ratios = [
        Ratio(f"attention, {name}, {part or 'both'}", ("ours", part), ("torch flash", part), target)
        for part, target in LIMITS.items()
    ]
    if long:
        engines["naive"] = functools.partial(naive, *shape)
        ratios += [
            Ratio(f"attention, {name}, {part}", ("ours", part), ("naive", part), {2: 1 / times})
            for part, times in (("forward", 3.7), ("backward", 2.2))
        ]
    return Case(name, engines, tuple(ratios), rounds=5 if n > 2048 else 9, absent={1: ("naive",)})


def _decode(keys, groups):
    """One query a head over a cache, forward alone."""
    shape = (1, keys, groups, False)
    name = f"one query, S {keys}" + (f", G {groups}" if groups != HEADS else "")

    def of(make):
        def engine(threads):
            whole = make(*shape, threads)
            return Engine({"forward": whole.parts["forward"]}, lambda: {"o": whole.values()["o"]})

        return engine

    ratio = Ratio(f"attention, {name}", ("ours", "forward"), ("torch flash", "forward"), {1: None, 2: None})
    return Case(name, {"torch flash": of(torch_flash), "ours": of(ours)}, (ratio,), loops=1)


CASES = [
    *(_case(n, causal) for n in (1024, 2048) for causal in (False, True)),
    _case(4096, False),
    _case(4096, True, long=True),
    _case(1000, False, keys=1700),
    _case(2047, True),
    _case(2048, True, groups=2),
    _decode(16384, HEADS),
    _decode(16384, 2),
]

if __name__ == "__main__":
    main("bench.attention", CASES)
