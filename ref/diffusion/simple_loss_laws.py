"""Laws and mutants of the simple loss."""

from __future__ import annotations

import itertools

import numpy as np

import backends
from ref.diffusion.common_laws import falling, gaussian, leading, over, steps_of
from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, batch, cases, choose, dims

ID = "diffusion.simple_loss"


def zero(x, t):
    return x * 0


space = cases(
    ID,
    S=batch(2, 3, large=50),
    T=leading,
    N=dims(1, 6, large=50),
    alpha_bar=falling,
    t=steps_of,
    model=lambda draw, c: zero,
    prediction=choose("eps", "x0", "v", "score"),
    reduction=choose("mean", "sum"),
    flags={
        "per_example": Flag(
            lambda c: len(c.T) == 1 and len(c.S) > 1 and len(set(c.t.tolist())) > 1,
            {"S": choose((3, 2), (2, 3), (2, 2)), "T": lambda draw, c: c.S[:1], "N": dims(3, 6)},
        ),
        "of_one_entry": Flag(lambda c: len(c.T) == len(c.S), {"T": lambda draw, c: c.S}),
        "some": Flag(lambda c: 0 not in c.S, {"S": choose((), (2,), (3, 2), (2, 2))}),
    },
)
some = space.where(some=True)


def parts(c):
    """(a, b, x_0, eps, x_t) in float64."""
    bar = over(np.asarray(c.alpha_bar, np.float64)[c.t - 1], c.S)
    a, b = bar**0.5, (1 - bar) ** 0.5
    x0, eps = np.asarray(c.x0, np.float64), np.asarray(c.noise, np.float64)
    return a, b, x0, eps, a * x0 + b * eps


def target(c):
    a, b, x0, eps, _ = parts(c)
    return {"eps": eps, "x0": x0, "v": a * eps - b * x0, "score": -eps / b}[c.prediction]


def reduced(c, error):
    """error[*S] over the entries of an example."""
    axes = tuple(range(len(c.T), len(c.S)))
    return np.mean(error, axis=axes) if c.reduction == "mean" else np.sum(error, axis=axes)


def saying(c, values):
    """A model that says `values`, whatever it is asked."""
    values = np.asarray(values, c.dtype)
    return lambda x, t: backends.namespace(x).from_numpy(values)


def size(c):
    """Squared sizes of what is subtracted, reduced as the loss is."""
    a, b, x0, eps, _ = parts(c)
    return reduced(c, (2 + np.abs(target(c)) + (np.abs(x0) + np.abs(eps)) / (a * b)) ** 2)


def room(c):
    """Rounding of target and output, squared and added."""
    return bounds.rounding(100 * max(np.prod(c.S, dtype=int), 1), size(c), c.dtype)


@law(
    ID, "L1", closed_form=True, given=some.reach("per_example", "of_one_entry"),
    kills=["target_is_the_noise", "v_of_the_other_sign", "one_step_late"], passes_null=["zeros"],
)  # fmt: skip
def a_model_that_is_right_loses_nothing(impl, c, expect):
    "eps, x_0, a eps - b x_0 or -eps / b said exactly: loss 0 but for rounding."
    out = impl(c.replace(model=saying(c, target(c))))
    expect(out, np.zeros(c.T), bounds.rounding(100, 1.0, c.dtype) ** 2 * size(c), "loss", scale=1.0)


@law(
    ID, "L2", closed_form=True, given=some.reach("per_example"),
    kills=["halved", "absolute", "summed_always", "mean_of_the_batch", "the_model_sees_x0"],
)  # fmt: skip
def a_constant_error_is_its_square(impl, c, expect):
    """Off by e in every entry: mean e^2, sum e^2 times the entries, e = 1, 2, .. for the examples; the model is asked
    at x_t."""
    e = over(1.0 + np.arange(int(np.prod(c.T, dtype=int))).reshape(c.T), c.S)
    seen = []
    told = saying(c, target(c) + e)

    def model(x, t):
        seen.append(backends.namespace(x).to_numpy(x))
        return told(x, t)

    out = impl(c.replace(model=model))
    expect.holds(len(seen) == 1, "one call of the model")
    expect(seen[0], parts(c)[4], bounds.rounding(20, 1 + np.abs(c.x0) + np.abs(c.noise), c.dtype), "x_t", scale=9.0)
    expect(out, reduced(c, e * e), room(c) * (1 + np.max(e, initial=0)), "loss", scale=1e9)


@law(
    ID, "L3", closed_form=True, given=some.where(prediction="eps", reduction="mean", S=(4,), T=(4,)),
    kills=["one_step_late", "halved", "the_model_sees_x0"],
)  # fmt: skip
def expected_loss_of_the_exact_model(impl, c, expect):
    """x_0 ~ N(m, s^2), the exact model: E L = alpha_bar s^2 / (alpha_bar s^2 + 1 - alpha_bar), by the four signs of
    x_0 - m = +-s, eps = +-1, which have the first two moments."""
    m, s = 1.5, 0.5
    signs = np.array(list(itertools.product((1, -1), repeat=2)), np.float64)
    for t in range(1, c.N + 1):
        bar = float(c.alpha_bar[t - 1])
        model = gaussian(lambda t, bar=bar: (bar**0.5, (1 - bar) ** 0.5), m, s * s, "eps")
        now = c.replace(x0=(m + s * signs[:, 0]).astype(c.dtype), noise=signs[:, 1].astype(c.dtype), model=model,
                        t=np.full(4, t))  # fmt: skip
        wanted = bar * s * s / (bar * s * s + 1 - bar)
        expect(
            np.mean(np.asarray(impl(now), np.float64)), wanted, bounds.rounding(400, 16, c.dtype), f"t = {t}", scale=1.0
        )


@law(
    ID, "L4", closed_form=True, given=some.where(T=(), reduction="mean"),
    kills=["target_is_the_noise", "v_of_the_other_sign", "one_step_late"],
)  # fmt: skip
def weights_of_the_four_predictions(impl, c, expect):
    """One eps_theta = eps + 1, said as x_0, v or the score: 1 times (1 - alpha_bar) / alpha_bar, 1 / alpha_bar,
    1 / (1 - alpha_bar)."""
    a, b, x0, eps, x = parts(c)
    off = eps + 1
    said = {"eps": off, "x0": (x - b * off) / a, "v": a * off - b * (x - b * off) / a, "score": -off / b}[c.prediction]
    wanted = {"eps": 1 + 0 * a, "x0": b * b / a**2, "v": 1 / a**2, "score": 1 / b**2}[c.prediction]
    out = impl(c.replace(model=saying(c, said)))
    expect(out, np.mean(wanted), room(c) * 4 * (1 + np.max(wanted)), "loss", scale=1e9)


# Mutants ---------------------------------------------------------------------------------------------


def same(shape=(4,), bar=0.5, N=1, **options):
    """The default-size test: the model says the noise itself, 1 for all."""

    def make():
        args = np.zeros(shape), np.full(shape[:1], 1), np.ones(shape), np.full(N, bar)
        return args, {"model": lambda x, t: 0 * x + 1, **options}

    return make


def loss(x0, t, noise, alpha_bar, *, model, prediction="eps", reduction="mean", **edit):
    """Algorithm 1 in plain NumPy, whose parts an edit replaces."""
    bars = np.asarray(alpha_bar, np.float64)
    bar = over(bars[np.minimum(t - 1 + edit.get("shift", 0), len(bars) - 1)], x0.shape)
    a, b = np.sqrt(bar), np.sqrt(1 - bar)
    x = (a * x0 + b * noise).astype(x0.dtype)
    m = model(x0 if edit.get("clean") else x, t)
    goal = {"eps": noise, "x0": x0, "v": edit.get("v", 1) * (a * noise - b * x0), "score": -noise / b}
    error = edit.get("power", np.square)(m - goal[edit.get("goal", prediction)])
    rows = error.reshape(*t.shape, -1)
    kind = edit.get("kind", reduction)
    out = edit.get("factor", 1) * (rows.mean(-1) if kind == "mean" else rows.sum(-1))
    return edit.get("after", lambda y: y)(np.asarray(out, x0.dtype))


@mutant(ID, default_case=same())
def target_is_the_noise(*args, **options):
    "eps is the target of every prediction."
    return loss(*args, goal="eps", **options)


@mutant(ID, default_case=same())
def v_of_the_other_sign(*args, **options):
    "v = b x_0 - a eps."
    return loss(*args, v=-1, **options)


@mutant(ID, default_case=same())
def one_step_late(*args, **options):
    "off-by-one: alpha_bar[t] at step t."
    return loss(*args, shift=1, **options)


@mutant(ID, default_case=same())
def halved(*args, **options):
    "1/2 | . |^2."
    return loss(*args, factor=0.5, **options)


@mutant(ID, default_case=same())
def absolute(*args, **options):
    "| . |: the same for errors of 0 and 1."
    return loss(*args, power=np.abs, **options)


@mutant(ID, default_case=same())
def summed_always(*args, **options):
    "The sum, whatever is asked for: the same for one entry an example."
    return loss(*args, kind="sum", **options)


@mutant(ID, default_case=same())
def mean_of_the_batch(*args, **options):
    "The mean over the batch in every place."
    return loss(*args, after=lambda y: np.full_like(y, np.mean(y)), **options)


@mutant(ID, default_case=same())
def the_model_sees_x0(*args, **options):
    "The model is asked at the clean sample."
    return loss(*args, clean=True, **options)
