"""Laws and mutants of Metropolis-adjusted Langevin."""

from __future__ import annotations

import numpy as np

import autodiff
from ref.diffusion.common_laws import DOUBLE
from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, batch, cases, choose, dims, floats, rng

ID = "diffusion.mala"


def quartic(x):
    """ln p = -sum(x^4) / 64 - sum(x^2) / 8."""
    return -autodiff.namespace(x).sum(x * x * x * x / 64 + x * x / 8, axis=-1)


def quartic_score(x):
    return x * x * x * (-1 / 16) - x / 4


space = cases(
    ID,
    B=batch(2, 3, large=60),
    d=dims(1, 3),
    x=floats("*B d"),
    noise=floats("*B d"),
    uniform=lambda draw, c: np.asarray(rng(draw).integers(0, 64, c.B) / 64.0),
    log_density=lambda draw, c: quartic,
    score=lambda draw, c: quartic_score,
    step=choose(0.25, 1.0, 0.0625),
    v=choose(1.0, 0.75, 2.0),
    flags={
        "none": Flag(lambda c: 0 in c.B, {"B": (0,)}),
        "some": Flag(lambda c: 0 not in c.B, {"B": choose((), (3,), (2, 2))}),
    },
)
some = space.where(some=True)


def f64(c, *names):
    return [np.asarray(c[n], np.float64) for n in names]


def proposal(c, x, z):
    return x + c.step * c.score(x) + np.sqrt(2 * c.step) * z


def near(c, x, y):
    """Logarithms of densities and proposals are sums of fourth powers."""
    size = (np.max(np.abs(x), initial=0) + np.max(np.abs(y), initial=0) + 2) ** 4 / min(c.step, 1.0) + 9
    return bounds.rounding(60 * c.d, size, c.dtype)


@law(
    ID, "L1", closed_form=True, dtypes=DOUBLE, given=some.where(values=("normal",)),
    kills=["always_accepted", "without_the_proposals", "proposals_the_other_way", "variance_of_the_half_step",
           "density_the_other_way", "score_of_the_start_for_both"],
    passes_null=["zeros"],
)  # fmt: skip
def detailed_balance(impl, c, expect):
    """p(x) q(x, y) accept(x, y) = p(y) q(y, x) accept(y, x), at every x and its proposal y, for a density that is no
    Gaussian; y is asked again with the noise that proposes x."""
    x, z = f64(c, "x", "noise")
    y = proposal(c, x, z)
    back = (x - y - c.step * c.score(y)) / np.sqrt(2 * c.step)
    forth = np.log(impl(c)[1])
    again = np.log(impl(c.replace(x=y.astype(c.dtype), noise=back.astype(c.dtype)))[1])
    left = c.log_density(x) - np.sum(z**2, -1) / 2 + forth
    right = c.log_density(y) - np.sum(back**2, -1) / 2 + again
    size = np.abs(left) + np.abs(right)
    expect(left, right, 20 * near(c, x, y) * (1 + size / 100), "ln of p q accept", scale=1e12)
    expect.at_most(forth, 0.0, "ln of a probability")


@law(
    ID, "L2", closed_form=True,
    given=some.where(
        log_density=lambda draw, c: lambda x: -autodiff.namespace(x).sum(x * x, axis=-1) / (2 * c.v),
        score=lambda draw, c: lambda x: x * (-1 / c.v),
    ).reach("some"),
    kills=["always_accepted", "without_the_proposals", "proposals_the_other_way", "variance_of_the_half_step"],
)  # fmt: skip
def acceptance_of_a_gaussian(impl, c, expect):
    "p = N(0, v): min(1, exp(-a (|y|^2 - |x|^2) / (4 v^2)))."
    x, z = f64(c, "x", "noise")
    y = (1 - c.step / c.v) * x + np.sqrt(2 * c.step) * z
    ratio = -c.step * (np.sum(y**2, -1) - np.sum(x**2, -1)) / (4 * c.v**2)
    wanted = np.exp(np.minimum(ratio, 0))
    _, probability = impl(c)
    expect(probability, wanted, wanted * near(c, x, y) + bounds.rounding(9, wanted, c.dtype), "probability", scale=1e9)


@law(
    ID, "L3", closed_form=True, given=space.reach("none", "some"),
    kills=["accepted_when_above", "rejected_to_the_proposal", "downhill"],
)  # fmt: skip
def it_moves_where_it_accepts(impl, c, expect):
    "The state is y where uniform < probability, and x to the bit elsewhere; uniform 0 and 1 decide everything."
    x, z = f64(c, "x", "noise")
    y = proposal(c, x, z)
    limit = bounds.rounding(30, np.abs(x) ** 3 + np.abs(x) + np.abs(z) + 1, c.dtype)
    for level in (c.uniform, np.zeros(c.B, c.dtype), np.ones(c.B, c.dtype)):
        state, probability = impl(c.replace(uniform=level))
        taken = (np.asarray(level) < np.asarray(probability))[..., None]
        expect(state, np.where(taken, y, x), np.where(taken, limit, 0.0), "state", scale=1e9)
        expect.at_most(np.asarray(probability), 1.0, "the probability")


@law(
    ID, "L4", closed_form=True, dtypes=DOUBLE, given=some.where(
        B=(), d=1, step=choose(0.5, 1.0), v=choose(1.0, 2.0),
        log_density=lambda draw, c: lambda x: -autodiff.namespace(x).sum(x * x, axis=-1) / (2 * c.v),
        score=lambda draw, c: lambda x: x * (-1 / c.v),
    ),
    kills=["always_accepted", "without_the_proposals"],
    passes_null=["zeros", "identity"],
)  # fmt: skip
def variance_is_left_exactly(impl, c, expect):
    """x ~ N(0, v): E[x'^2] = accept y^2 + (1 - accept) x^2 is v, where ULA has v / (1 - a / (2 v)) in the end; on a
    grid of x and z, where the trapezoid sees the kink of min(1, .) to the order of its step squared."""
    nodes = np.linspace(-7, 7, 113)
    weights = np.exp(-(nodes**2) / 2)
    weights = np.outer(weights, weights).ravel() / weights.sum() ** 2
    x, z = (g.ravel()[:, None] for g in np.meshgrid(np.sqrt(c.v) * nodes, nodes, indexing="ij"))
    _, accept = impl(c.replace(x=x, noise=z, uniform=np.zeros(len(x)), B=(len(x),)))
    y = (1 - c.step / c.v) * x + np.sqrt(2 * c.step) * z
    found = np.sum(weights * (accept * y[:, 0] ** 2 + (1 - accept) * x[:, 0] ** 2))
    expect(found, c.v, (nodes[1] - nodes[0]) ** 2 * c.v / 4, "variance")


# Mutants ---------------------------------------------------------------------------------------------


def flat(uniform=0.5):
    """The default-size test: a flat density, where every proposal is accepted and q is symmetric."""
    options = {"log_density": lambda x: 0 * x.sum(-1), "score": lambda x: 0 * x, "step": 0.5}
    return lambda: ((np.ones((3, 2)), np.ones((3, 2)), np.full(3, uniform)), options)


def adjusted(x, noise, uniform, *, log_density, score, step, **edit):
    drift = edit.get("sign", 1) * step
    y = x + drift * score(x) + np.sqrt(2 * step) * noise
    kept = y - x - drift * score(x)
    back = x - y - drift * score(x if edit.get("frozen") else y)
    four = edit.get("four", 4)
    q = edit.get("q", 1) * (np.sum(kept**2, -1) - np.sum(back**2, -1)) / (four * step)
    ratio = edit.get("p", 1) * (log_density(y) - log_density(x)) + q
    accept = np.exp(np.minimum(ratio, 0)) if not edit.get("always") else np.ones_like(ratio)
    taken = edit.get("decide", np.less)(uniform, accept)[..., None]
    out = np.where(taken, y, edit.get("stay", lambda x, y: x)(x, y))
    return np.asarray(out, x.dtype), np.asarray(accept, x.dtype)


@mutant(ID, default_case=flat())
def always_accepted(*args, **options):
    "ULA."
    return adjusted(*args, always=True, **options)


@mutant(ID, default_case=flat())
def without_the_proposals(*args, **options):
    "min(1, p(y) / p(x)): Metropolis without Hastings."
    return adjusted(*args, q=0, **options)


@mutant(ID, default_case=flat())
def proposals_the_other_way(*args, **options):
    "q(x, y) / q(y, x)."
    return adjusted(*args, q=-1, **options)


@mutant(ID, default_case=flat())
def density_the_other_way(*args, **options):
    "p(x) / p(y)."
    return adjusted(*args, p=-1, **options)


@mutant(ID, default_case=flat())
def variance_of_the_half_step(*args, **options):
    "q of variance a with noise sqrt(2 a)."
    return adjusted(*args, four=2, **options)


@mutant(ID, default_case=flat())
def score_of_the_start_for_both(*args, **options):
    "q(y, x) with the score of x."
    return adjusted(*args, frozen=True, **options)


@mutant(ID, default_case=flat(1.0))
def accepted_when_above(*args, **options):
    "uniform > probability; at probability 1 and uniform 1 neither rule moves."
    return adjusted(*args, decide=np.greater, **options)


@mutant(ID, default_case=flat())
def rejected_to_the_proposal(*args, **options):
    "A rejected step goes half way."
    return adjusted(*args, stay=lambda x, y: (x + y) / 2, **options)


@mutant(ID, default_case=flat())
def downhill(*args, **options):
    "x - a s; still in detailed balance, but with another proposal."
    return adjusted(*args, sign=-1, **options)
