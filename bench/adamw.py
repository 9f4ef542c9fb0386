"""AdamW against torch's fused and foreach forms: 10^7 and 10^8 numbers, and 100 arrays of 10^5."""

import numpy as np

from bench.common import Case, Engine, Ratio, alternating, main, row

OPTIONS = {"lr": 1e-3, "eps": 1e-8, "weight_decay": 0.01}
BETAS = (0.9, 0.999)


def arrays(shapes):
    """A flat parameter and gradient; the parts are those of the shapes."""
    rng = np.random.default_rng(0)
    n = sum(shapes)
    return np.full(n, 0.01, np.float32), rng.standard_normal(n, dtype=np.float32)


def ours(shapes, threads, numpys=False):
    """The step that is compiled where it can be, or NumPy's own passes."""
    from backends.fused import steps
    from backends.fused.numpy import adamw
    from backends.threads import threads as thread_count

    adamw_ = (adamw if numpys else steps).adamw_
    flat, gradient = arrays(shapes)
    m, v = np.zeros_like(flat), np.zeros_like(flat)
    count = iter(range(1, 10**9))

    def step(_=None):
        with thread_count(threads):
            adamw_(flat, gradient, m, v, next(count), beta1=BETAS[0], beta2=BETAS[1], **OPTIONS)

    def values():
        for _ in range(3):
            step()
        return {"param": flat}

    return Engine({"step": step}, values)


def torch_form(shapes, threads, **form):
    import torch

    torch.set_num_threads(threads)
    flat, gradient = arrays(shapes)
    ends = np.cumsum(shapes)[:-1]
    params = [torch.from_numpy(p) for p in np.split(flat, ends)]
    for p, g in zip(params, np.split(gradient, ends), strict=True):
        p.requires_grad_()
        p.grad = torch.from_numpy(g)
    optimizer = torch.optim.AdamW(params, betas=BETAS, **OPTIONS, **form)

    def values():
        for _ in range(3):
            optimizer.step()
        return {"param": flat}

    return Engine({"step": lambda _: optimizer.step()}, values)


def _case(name, shapes, rounds, samples):
    peers = {"fused": {1: 2.0, 2: 1.5}, "foreach": {1: 0.5, 2: 0.5}}
    engines = {
        f"torch {form}": lambda threads, form=form: torch_form(shapes, threads, **{form: True}) for form in peers
    }
    return Case(
        name,
        {
            **engines,
            "ours": lambda threads: ours(shapes, threads),
            "NumPy": lambda threads: ours(shapes, threads, numpys=True),
        },
        (
            *(
                Ratio(f"AdamW, {name}", ("ours", "step"), (f"torch {form}", "step"), target)
                for form, target in peers.items()
            ),
            Ratio(f"AdamW, {name}, not compiled", ("NumPy", "step"), ("torch fused", "step"), {1: None, 2: None}),
        ),
        rounds,
        samples=samples,
    )


CASES = [
    _case("10M", [10**7], 11, 9),
    _case("100M", [10**8], 3, 3),
    _case("100 x 100k", [10**5] * 100, 11, 9),
]

def bandwidth():
    """Bytes a second of ours (28 a number) beside a STREAM triad's (12), alternating; only reported."""
    import torch

    n = 10**7
    step = ours([n], 1).parts["step"]
    torch.set_num_threads(1)
    a, b, c = torch.zeros(n), torch.ones(n), torch.ones(n)
    cases = {"ours": lambda _: step(), "triad": lambda _: torch.add(b, c, alpha=3.0, out=a)}
    seconds = alternating(cases, 1, 11)
    mine, triad = 28 * n / seconds["ours"], 12 * n / seconds["triad"]
    return [row("AdamW, 10M, bytes a second", "STREAM triad", 1, "B/s", mine, triad, None)]


if __name__ == "__main__":
    main("bench.adamw", CASES, extra=bandwidth)
