"""Laws and mutants of Langevin dynamics."""

from __future__ import annotations

import math

import numpy as np

from ref.diffusion.common_laws import DOUBLE, follow, moments, response, shaped_noise
from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, batch, cases, choose, dims

ID = "diffusion.langevin"

space = cases(
    ID,
    B=batch(2, 3, large=60),
    steps=dims(0, 5, large=20),
    step=choose(0.25, 0.0625, 1.0),
    convention=choose("full", "half"),
    v=choose(1.0, 0.75, 4.0),
    noise=shaped_noise(lambda c: c.steps),
    outputs=shaped_noise(lambda c: c.steps + 1),
    score=lambda draw, c: lambda x: x * -0.5,
    flags={
        "no_step": Flag(lambda c: c.steps == 0, {"steps": 0}),
        "several": Flag(lambda c: c.steps > 1, {"steps": dims(2, 5)}),
        "some": Flag(lambda c: 0 not in c.B, {"B": choose((), (3,))}),
    },
)
some = space.where(some=True)


def gain(c):
    """(weight of the score, of the noise) by name."""
    return (c.step, math.sqrt(2 * c.step)) if c.convention == "full" else (c.step / 2, math.sqrt(c.step))


def with_score(impl, c):
    """`impl` for laws that hand in a model(x, t): the score is that at any t."""

    def call(case):
        model = case["model"]
        return impl(case.replace(score=lambda x: model(x, 0)))

    return call


@law(
    ID,
    "L1",
    closed_form=True,
    given=space.reach("no_step", "several"),
    kills=[
        "noise_of_the_half_step",
        "against_the_score",
        "quiet_at_the_end",
        "conventions_swapped",
        "step_for_its_root",
        "score_of_the_start",
    ],
)
def each_step_by_its_convention(impl, c, expect):
    "full: x + a s + sqrt(2 a) z; half: x + a s / 2 + sqrt(a) z; noise at every step; the score asked at each state."
    drift, spread = gain(c)
    follow(with_score(impl, c), c, expect, [(0, 1.0, drift, 0.0, spread)] * c.steps)


def affine_moments(impl, c, expect, variance):
    model = lambda x, t: (x - 1.5) * (-1 / c.v)  # noqa: E731
    _, parts = response(with_score(impl, c), c, expect, c.steps, model, calls=c.steps)
    return moments(parts, 0.0, variance)


@law(
    ID, "L2", closed_form=True, dtypes=DOUBLE, given=some.where(several=True),
    kills=["noise_of_the_half_step", "against_the_score", "conventions_swapped", "quiet_at_the_end"],
)  # fmt: skip
def variance_recursion_on_a_gaussian(impl, c, expect):
    """N(m, v): each step takes mean - m to (1 - h / v) of it and the variance C to (1 - h / v)^2 C + 2 h, h = a or a
    / 2."""
    h = gain(c)[0]
    r = 1 - h / c.v
    mean, variance = affine_moments(impl, c, expect, 3.0)
    C = 3.0
    for _ in range(c.steps):
        C = r * r * C + 2 * h
    expect(mean, 1.5 + r**c.steps * (0.0 - 1.5), bounds.rounding(100, 8.0, "float64"), "mean", scale=8.0)
    expect(variance, C, bounds.rounding(400, 9.0 + C, "float64"), "variance")


@law(
    ID, "L3", closed_form=True, dtypes=DOUBLE, given=some.where(several=True),
    kills=["noise_of_the_half_step", "conventions_swapped", "step_for_its_root", "quiet_at_the_end"],
)  # fmt: skip
def stationary_variance(impl, c, expect):
    "v / (1 - a / (2 v)) (full) or v / (1 - a / (4 v)) (half) stays what it is, and is more than v."
    settled = c.v / (1 - c.step / ((2 if c.convention == "full" else 4) * c.v))
    _, variance = affine_moments(impl, c, expect, settled)
    expect(variance, settled, bounds.rounding(400, 9.0 + settled, "float64"), "variance")


@law(ID, "L4", given=some.where(convention="half"), kills=["conventions_swapped"],
     passes_null=["zeros", "constant", "identity"])  # fmt: skip
def half_is_full_with_half_the_step(impl, c, expect):
    "The step a of half is the step a / 2 of full."
    other = impl(c.replace(convention="full", step=c.step / 2))
    expect(impl(c), np.asarray(other, np.float64), bounds.rounding(40 * (c.steps + 1), 30.0, c.dtype), scale=99.0)


# Mutants ---------------------------------------------------------------------------------------------


def still(steps=2, **options):
    """The default-size test: no score, no noise."""
    return lambda: (
        (np.ones(3), np.zeros((steps, 3))),
        {"score": lambda x: 0 * x, "step": 0.5, "steps": steps, **options},
    )


def walk(x, noise, *, score, step, steps, convention="full", **edit):
    h = step if edit.get("kind", convention) == "full" else step / 2
    x = first = np.array(x)
    for k in range(steps):
        s = score(first if edit.get("frozen") else x)
        z = noise[k] if not (edit.get("quiet") and k == steps - 1) else 0
        x = np.asarray(x + edit.get("sign", 1) * h * s + edit.get("spread", lambda h: math.sqrt(2 * h))(h) * z, x.dtype)
    return x


@mutant(ID, default_case=still())
def noise_of_the_half_step(*args, **options):
    "a s with sqrt(a) z: the drift of one convention, the noise of the other."
    return walk(*args, spread=math.sqrt, **options)


@mutant(ID, default_case=still())
def step_for_its_root(*args, **options):
    "2 a z."
    return walk(*args, spread=lambda h: 2 * h, **options)


@mutant(ID, default_case=still())
def against_the_score(*args, **options):
    "x - a s: downhill."
    return walk(*args, sign=-1, **options)


@mutant(ID, default_case=still())
def quiet_at_the_end(*args, **options):
    "No noise at the last step."
    return walk(*args, quiet=True, **options)


@mutant(ID, default_case=still())
def conventions_swapped(*args, convention="full", **options):
    "half read as full and full as half."
    return walk(*args, kind="half" if convention == "full" else "full", **options)


@mutant(ID, default_case=still())
def score_of_the_start(*args, **options):
    "The score is asked once."
    return walk(*args, frozen=True, **options)
