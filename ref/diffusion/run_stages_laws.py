"""Laws and mutants of the loop that runs affine stages."""

from __future__ import annotations

import numpy as np

from ref.diffusion.common_laws import follow, response, shaped_noise
from ref.diffusion.run_stages import Stage
from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, batch, cases, dims, rng

ID = "diffusion.run_stages"


def table(draw, c):
    """k stages with coefficients of eighths; some draw nothing, some evaluate nothing, some off the state."""
    g, found = rng(draw), []
    for k in range(c.k):
        A, B, C, z, p, q = (float(v) for v in g.integers(-8, 9, 6) / 8)
        t = None if g.random() < 0.25 else k + 1
        noise = 0.0 if g.random() < 0.4 else z
        p, q = (p, q) if g.random() < 0.4 else (1.0, 0.0)
        found.append(Stage(t, A, B, C, noise, p, q))
    return found


def drawing(stages):
    return sum(bool(s.noise) for s in stages)


space = cases(
    ID,
    B=batch(2, 3, large=100),
    k=dims(0, 5),
    stages=table,
    extra=dims(0, 2),
    noise=lambda draw, c: shaped_noise(lambda c: drawing(c.stages) + c.extra)(draw, c),
    outputs=shaped_noise(lambda c: c.k + 1),
    model=lambda draw, c: lambda x, t: x * 0.5 + t,
    flags={
        "no_stage": Flag(lambda c: c.k == 0, {"k": 0}),
        "silent": Flag(lambda c: any(s.t is None for s in c.stages), {"k": dims(3, 5)}),
        "off_the_state": Flag(lambda c: any(s.at_last for s in c.stages[1:]), {"k": dims(4, 5)}),
        "noisy": Flag(
            lambda c: drawing(c.stages) > 1 and len({bool(s.noise) for s in c.stages}) > 1, {"k": dims(4, 5)}
        ),
        "some": Flag(lambda c: c.k > 1 and 0 not in c.B, {"k": dims(2, 5), "B": ((2,))}),
    },
)


def rows(stages):
    return [(s.t, s.x, s.model, s.last, s.noise, s.at_x, s.at_last) for s in stages]


@law(
    ID, "L1", closed_form=True, given=space.reach("no_stage", "silent", "off_the_state", "noisy"),
    kills=["no_memory", "memory_of_the_state", "at_ignored", "silent_stages_forget", "noise_squared", "draw_a_stage",
           "model_sees_the_new_state"],
)  # fmt: skip
def the_recursion_by_hand(impl, c, expect):
    """m = model(p x + q l, t); x' = A x + B m + C l + c z; l' = m: every state, every t and the result, output by
    output."""
    follow(impl, c, expect, rows(c.stages))


@law(ID, "L2", closed_form=True, given=space.where(some=True, noisy=True), kills=["noise_squared", "draw_a_stage"])
def affine_in_the_state_and_the_noise(impl, c, expect):
    "With a model g x + h the result is affine: its weights of x and of each draw are products of 2 x 2 matrices."
    gain, shift = 0.5, 2.0
    M, offset, columns = np.eye(2), np.zeros(2), []
    for s in c.stages:
        step = np.array([[s.x, s.last], [0.0, 1.0]])
        push = np.zeros(2)
        if s.t is not None:
            m = np.array([gain * s.at_x, gain * s.at_last])
            step = np.array([[s.x + s.model * m[0], s.last + s.model * m[1]], m])
            push = np.array([s.model * shift, shift])
        M, offset = step @ M, step @ offset + push
        columns = [step @ v for v in columns] + ([np.array([s.noise, 0.0])] if s.noise else [])
    _, (found, weight, draws) = response(impl, c, expect, drawing(c.stages), lambda x, t: x * gain + shift)
    limit = bounds.rounding(64 * c.k, 4.0**c.k, c.dtype)
    expect(found, offset[0], limit, "offset", scale=1e9)
    expect(weight, M[0, 0], limit, "weight of x", scale=1e9)
    expect(draws, np.array([v[0] for v in columns]), limit, "weights of the draws", scale=1e9)


@law(ID, "L3", given=space.where(some=True, noisy=True), kills=["draws_from_the_end"],
     passes_null=["zeros", "constant", "identity"])  # fmt: skip
def draws_are_taken_in_order(impl, c, expect):
    "A list of draws, an array and a generator give the same bits; draws past the last that is taken change nothing."
    needed = drawing(c.stages)
    wanted = impl(c)
    expect.same(impl(c.replace(noise=[c.noise[i].copy() for i in range(needed)])), wanted, "from a list")
    junk = np.concatenate([c.noise[:needed], np.full((2, *c.B), 99.0, c.dtype)])
    expect.same(impl(c.replace(noise=junk)), wanted, "with more draws")
    expect.same(impl(c.replace(noise=Replay(c.noise))), wanted, "from a generator")


class Replay:
    """A generator that gives the rows of an array."""

    def __init__(self, rows):
        self.rows, self.k = np.array(rows, np.float64), 0

    def standard_normal(self, shape):
        self.k += 1
        return self.rows[self.k - 1]


@law(
    ID, "L4", given=space.where(some=True, stages=lambda draw, c: [s._replace(last=0.0, at_x=1.0, at_last=0.0)
                                                                  for s in table(draw, c)]),
    kills=["draws_from_the_end"], passes_null=["zeros", "constant", "identity"],
)  # fmt: skip
def stages_compose(impl, c, expect):
    "Without memory, the first stages and then the rest from where they stopped: the bits of all at once."
    whole, cut = impl(c), c.k // 2
    head = [*c.stages[:cut]]
    middle = impl(c.replace(stages=head, noise=c.noise.copy()))
    rest = c.replace(x=middle, stages=[*c.stages[cut:]], noise=c.noise[drawing(head) :].copy())
    expect.same(impl(rest), whole, "in two parts")


# Mutants ---------------------------------------------------------------------------------------------


def still(k=2, noise=0.0, **stage):
    """The default-size test: stages that leave x, whose model says 0."""

    def make():
        stages = [Stage(1, noise=noise, **stage)] * k
        return (np.ones(3), np.ones((k, 3))), {"stages": stages, "model": lambda x, t: 0 * x}

    return make


def loop(x, noise, *, stages, model, **edit):
    """The loop in plain NumPy, whose parts an edit replaces."""
    draws, last = edit.get("draws", lambda noise: noise)(noise), np.zeros_like(x)
    taken = 0
    for k, s in enumerate(stages):
        m = last
        if s.t is not None:
            at = x * s.at_x + last * s.at_last if edit.get("at", True) else x
            if edit.get("ahead"):
                at = x * s.x
            m = np.asarray(model(at, s.t))
        moved = x * s.x + (m * s.model if s.t is not None else 0) + last * s.last
        if s.noise or edit.get("draw_always"):
            i = k if edit.get("draw_always") else taken
            z = draws[i] if i < len(draws) else np.zeros_like(x)
            moved = moved + edit.get("spread", lambda c: c)(s.noise) * np.asarray(z)
            taken += 1
        last = edit.get("keep", lambda x, m, last: m)(x, m, last)
        if s.t is None and edit.get("forget"):
            last = np.zeros_like(x)
        x = np.asarray(moved, x.dtype)
    return x if stages else x.copy()


@mutant(ID, default_case=still())
def no_memory(*args, **options):
    "l is 0 for ever."
    return loop(*args, keep=lambda x, m, last: np.zeros_like(x), **options)


@mutant(ID, default_case=still())
def memory_of_the_state(*args, **options):
    "l' = x."
    return loop(*args, keep=lambda x, m, last: x, **options)


@mutant(ID, default_case=still())
def at_ignored(*args, **options):
    "The model is always asked at x: a two-stage method becomes two Euler steps."
    return loop(*args, at=False, **options)


@mutant(ID, default_case=still())
def silent_stages_forget(*args, **options):
    "A stage that evaluates nothing clears l."
    return loop(*args, forget=True, **options)


@mutant(ID, default_case=still(noise=1.0))
def noise_squared(*args, **options):
    "The variance for the deviation."
    return loop(*args, spread=lambda c: c * abs(c), **options)


@mutant(ID, default_case=still(noise=1.0))
def draw_a_stage(*args, **options):
    "Draw k belongs to stage k, whether it is used or not."
    return loop(*args, draw_always=True, **options)


@mutant(ID, default_case=still(noise=1.0))
def draws_from_the_end(*args, **options):
    "Draws are popped."
    return loop(*args, draws=lambda noise: [] if noise is None else list(noise)[::-1]
                if not hasattr(noise, "standard_normal") else [noise.standard_normal(args[0].shape)] * 9,
                **options)  # fmt: skip


@mutant(ID, default_case=still())
def model_sees_the_new_state(*args, **options):
    "The model is asked at A x."
    return loop(*args, ahead=True, **options)
