"""Cost of recording: x * y + z forward; forward, backward and reset; the same with create_graph.

Raw NumPy computes the same numbers by hand (a step: the sum and two products).
"""

from bench.common import Case, Engine, Ratio, main

SMALL, LARGE = (1, 100), (10_000, 1_000_000)
LOOPS = {1: 2000, 100: 2000, 10_000: 100, 1_000_000: 2}


def arrays(size):
    import numpy as np

    rng = np.random.default_rng(0)
    return [*(rng.standard_normal(size) for _ in range(3)), np.ones(size)]


def raw_numpy(size):
    x, y, z, one = arrays(size)
    count = range(LOOPS[size])

    def forward(_):
        for _ in count:
            x * y + z

    def step(_):
        for _ in count:
            x * y + z
            g = one
            g * y, g * x  # noqa: B018  the two products are what is timed

    return Engine({"forward": forward, "step": step}, lambda: {"x": one * y, "y": one * x, "z": one})


def ours(size):
    from autodiff import tensor

    *inputs, one = arrays(size)
    x, y, z = (tensor(a, requires_grad=True) for a in inputs)
    return Engine(_parts(x, y, z, one, LOOPS[size], True), lambda: _gradients(x, y, z, one))


def torch_eager(size):
    import torch

    *inputs, one = map(torch.from_numpy, arrays(size))
    x, y, z = (a.requires_grad_() for a in inputs)
    return Engine(_parts(x, y, z, one, LOOPS[size], False), lambda: _gradients(x, y, z, one))


def _parts(x, y, z, one, loops, create):
    """Both engines have torch's interface, so the loops are the same."""
    count = range(loops)

    def forward(_):
        for _ in count:
            x * y + z

    def step(_):
        for _ in count:
            (x * y + z).backward(one)
            x.grad = y.grad = z.grad = None

    def graph(_):
        for _ in count:
            (x * y + z).backward(one, create_graph=True)
            x.grad = y.grad = z.grad = None

    parts = {"forward": forward, "step": step}
    return {**parts, "create_graph": graph} if create else parts


def _gradients(x, y, z, one):
    x.grad = y.grad = z.grad = None
    (x * y + z).backward(one)
    return {"x": x.grad, "y": y.grad, "z": z.grad}


def hips_autograd(size):
    from autograd import make_vjp

    x, y, z, one = arrays(size)
    pull = make_vjp(lambda args: args[0] * args[1] + args[2])
    count = range(LOOPS[size])

    def step(_):
        for _ in count:
            pull((x, y, z))[0](one)

    return Engine({"step": step}, lambda: dict(zip("xyz", pull((x, y, z))[0](one), strict=True)))


def _case(size):
    small = size in SMALL
    limits = (1.6, 2.2) if small else (1.2, 1.2) if size == 10_000 else (1.15, 1.15)
    against = 1 / 3 if small else 1.0
    rows = [
        *((part, ("numpy", part), limit) for part, limit in zip(("forward", "step"), limits, strict=True)),
        *((part, ("torch", part), against) for part in ("forward", "step")),
    ]
    if small:
        rows += [("step", ("hips", "step"), 0.1), ("create_graph", ("ours", "step"), 1.3)]
    ratios = [Ratio(f"x*y+z, N {size}, {part}", ("ours", part), peer, {1: t}) for part, peer, t in rows]
    makers = {"numpy": raw_numpy, "torch": torch_eager, "ours": ours, **({"hips": hips_autograd} if small else {})}
    engines = {name: lambda _, make=make: make(size) for name, make in makers.items()}
    return Case(f"N {size}", engines, tuple(ratios), rounds=40, loops=LOOPS[size], tolerance=1e-12)


CASES = [_case(size) for size in (*SMALL, *LARGE)]

if __name__ == "__main__":
    main("bench.recorded_ops", CASES)
