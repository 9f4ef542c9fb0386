"""Laws and mutants of Robbins-Monro."""

from __future__ import annotations

import itertools

import numpy as np

from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, batch, cases, choose, dims, rng

ID = "optim.robbins_monro"


def line(slope, root):
    """g(w) = slope (w - root)."""
    return lambda w: slope * (w - root)


space = cases(
    ID,
    B=batch(1, 3),
    k=dims(0, 7),
    slope=choose(1.0, 0.5, 2.0),
    root=choose(0.0, 1.5, -4.0),
    rates=lambda draw, c: rng(draw).integers(1, 9, c.k) / 16.0,
    function=lambda draw, c: line(c.slope, c.root),
    flags={
        "some": Flag(lambda c: c.k > 0 and 0 not in c.B, {"k": dims(1, 7), "B": choose((), (2,), (3,))}),
        "none": Flag(lambda c: c.k == 0, {"k": 0}),
    },
)
some = space.where(some=True)


def near(c, top):
    """Four roundings a step, which a step (1 - a slope, at most 1 in size) does not enlarge."""
    return bounds.rounding(6 * max(c.k, 1), 2 * top, c.dtype)


def top_of(c):
    return 2 * (np.max(np.abs(c.start), initial=0) + abs(c.root)) + np.max(np.abs(c.noise), initial=0) * 2 + 1


@law(
    ID, "L1", closed_form=True, given=space.reach("none", "some"),
    kills=["ascends", "noise_ignored", "noise_without_the_rate", "rates_by_k", "constant_rate", "one_behind"],
)  # fmt: skip
def linear_function_in_closed_form(impl, c, expect):
    """g = s (w - w*): w_{k+1} - w* = prod_j (1 - a_j s) (w_1 - w*) - sum_i a_i prod_{j > i} (1 - a_j s) eta_i."""
    a, eta, first = (np.asarray(x, np.float64) for x in (c.rates, c.noise, c.start))
    wanted = np.empty(eta.shape)
    for k in range(1, c.k + 1):
        left = [np.prod(1 - a[i:k] * c.slope) for i in range(k + 1)]
        drift = sum(a[i] * left[i + 1] * eta[..., i] for i in range(k))
        wanted[..., k - 1] = c.root + left[0] * (first - c.root) - drift
    expect(impl(c), wanted, near(c, top_of(c)), scale=top_of(c))


@law(
    ID, "L2", closed_form=True, given=some.where(slope=1.0, rates=lambda draw, c: 1.0 / np.arange(1, c.k + 1)),
    kills=["noise_ignored", "rates_by_k", "ascends"],
)  # fmt: skip
def one_over_k_is_the_sample_mean(impl, c, expect):
    "g = w - w*, a_k = 1 / k: the mean of w* - eta_1 .. w* - eta_k, from any start."
    seen = c.root - np.asarray(c.noise, np.float64)
    wanted = np.cumsum(seen, axis=-1) / np.arange(1, c.k + 1)
    expect(impl(c), wanted, 2 * near(c, top_of(c)), scale=top_of(c))


@law(
    ID, "L3", closed_form=True,
    given=some.where(slope=1.0, rates=lambda draw, c: 1.0 / np.arange(2, c.k + 2) ** 2,
                     noise=lambda draw, c: np.zeros((*c.B, c.k))),
    kills=["constant_rate", "root_of_the_rate", "ascends"],
)  # fmt: skip
def fast_rates_leave_half_of_the_error(impl, c, expect):
    "a_k = 1 / (k + 1)^2, no noise: w_{k+1} - w* = (k + 2) / (2 (k + 1)) (w_1 - w*), half of it in the limit."
    k = np.arange(1, c.k + 1)
    first = np.asarray(c.start, np.float64)[..., None] - c.root
    expect(impl(c), c.root + (k + 2) / (2 * (k + 1)) * first, near(c, top_of(c)), scale=top_of(c))


@law(
    ID,
    "L4",
    closed_form=True,
    given=some.where(k=dims(2, 5), B=(), slope=1.0),
    kills=["noise_ignored", "noise_doubled"],
)
def variance_over_all_signs(impl, c, expect):
    """eta = +s or -s with equal odds, all 2^k of them, from the root: E w = w*, and the variance is s^2 / k at
    a_k = 1 / k, a s^2 / (2 - a) (1 - (1 - a)^(2 k)) at a constant a."""
    k, s = c.k, 2.0
    signs = np.array(list(itertools.product((s, -s), repeat=k)), c.dtype)
    for rates, wanted in (
        (1.0 / np.arange(1, k + 1), s * s / k),
        (np.full(k, 0.25), 0.25 * s * s / 1.75 * (1 - 0.75 ** (2 * k))),
    ):
        now = c.replace(start=np.full(2**k, c.root, c.dtype), rates=rates.astype(c.dtype), noise=signs, B=(2**k,))
        w = np.asarray(impl(now), np.float64)[:, -1]
        size = (abs(c.root) + s + 1) ** 2
        expect(np.mean(w), c.root, bounds.rounding(8 * k, abs(c.root) + s, c.dtype), "mean", scale=1 + abs(c.root))
        expect(np.mean((w - c.root) ** 2), wanted, bounds.rounding(32 * k, size, c.dtype), "variance", scale=1.0)


@law(
    ID, "L5", closed_form=True,
    given=some.where(
        k=dims(1, 4), function=lambda draw, c: lambda w: w * w * w, rates=lambda draw, c: np.full(c.k, 0.5)
    ),
    kills=["linearised", "ascends"],
)  # fmt: skip
def noise_free_halving_of_a_cubic(impl, c, expect):
    "g = w^3, a = 1/2, no noise, from 1: w <- w - w^3 / 2, exactly 1/2, 7/16, .. in fractions."
    now = c.replace(start=np.ones(c.B, c.dtype), noise=np.zeros((*c.B, c.k), c.dtype))
    w, wanted = 1.0, []
    for _ in range(c.k):
        w = w - 0.5 * w**3
        wanted.append(w)
    out = impl(now)
    expect(out, np.broadcast_to(wanted, out.shape), bounds.rounding(8 * c.k, 1.0, c.dtype))


@law(ID, "L6", closed_form=True, given=some, kills=["decays_a_little", "one_behind"],
)
def the_root_stays(impl, c, expect):
    "From the root without noise nothing moves, to the bit; one eta at step j moves it by -a_j eta there."
    quiet = np.zeros((*c.B, c.k), c.dtype)
    start = np.full(c.B, c.root, c.dtype)
    expect.same(impl(c.replace(start=start, noise=quiet)), np.full(quiet.shape, c.root), "at the root")
    last = quiet.copy()
    last[..., -1] = 1.0
    moved = np.full(quiet.shape, c.root)
    moved[..., -1] -= float(c.rates[-1])
    expect.same(impl(c.replace(start=start, noise=last)), moved, "one eta at the last step")


@law(ID, "L7", given=some.where(k=dims(3, 7)), kills=["rates_by_k"], passes_null=["zeros", "constant"])
def continues_from_where_it_stopped(impl, c, expect):
    "Cut after any step and taken up from there with the rates and the noise that are left: the same bits."
    whole = impl(c)
    for k in range(1, c.k):
        rest = c.replace(
            start=whole[..., k - 1].copy(), rates=c.rates[k:].copy(), noise=c.noise[..., k:].copy(), k=c.k - k
        )
        expect.same(impl(rest), whole[..., k:], f"from {k}")


# Mutants ---------------------------------------------------------------------------------------------


def at_root(k=4, rate=0.5, start=2.0, slope=1.0):
    """The default-size test: started at the root, no noise."""
    args = np.full(3, start), np.full(k, rate), np.zeros((3, k))
    return lambda: (args, {"function": line(slope, 2.0)})


def path(start, rates, noise, *, function, **edit):
    """The recursion in plain NumPy, whose parts an edit replaces."""
    w, found = np.asarray(start), []
    for k in range(len(rates)):
        a = edit.get("rate", lambda a, k: a)(float(rates[k]), k)
        move = edit.get("move", lambda a, g, eta: a * (g + eta))(a, edit.get("g", function)(w), noise[..., k])
        w = w - move
        found.append(w)
    return (np.stack(found, axis=-1) if found else np.zeros_like(noise)).astype(noise.dtype)


@mutant(ID, default_case=at_root())
def ascends(*args, **options):
    "w + a g."
    return path(*args, move=lambda a, g, eta: -a * (g + eta), **options)


@mutant(ID, default_case=at_root())
def noise_ignored(*args, **options):
    "The function without its noise."
    return path(*args, move=lambda a, g, eta: a * g, **options)


@mutant(ID, default_case=at_root())
def noise_without_the_rate(*args, **options):
    "w - a g - eta."
    return path(*args, move=lambda a, g, eta: a * g + eta, **options)


@mutant(ID, default_case=at_root())
def noise_doubled(*args, **options):
    "Two draws for one."
    return path(*args, move=lambda a, g, eta: a * (g + 2 * eta), **options)


@mutant(ID, default_case=at_root())
def rates_by_k(*args, **options):
    "The k-th rate over k."
    return path(*args, rate=lambda a, k: a / (k + 1), **options)


@mutant(ID, default_case=at_root())
def constant_rate(start, rates, noise, **options):
    "The first rate for ever."
    return path(start, rates, noise, rate=lambda a, k: float(rates[0]), **options)


@mutant(ID, default_case=at_root())
def root_of_the_rate(*args, **options):
    "sqrt(a_k)."
    return path(*args, rate=lambda a, k: a**0.5, **options)


@mutant(ID, default_case=at_root())
def one_behind(start, rates, noise, **options):
    "The estimates before each step."
    out = path(start, rates, noise, **options)
    return np.concatenate([np.asarray(start)[..., None], out[..., :-1]], axis=-1) if len(rates) else out


@mutant(ID, default_case=at_root())
def linearised(start, rates, noise, *, function):
    "The slope at the start for ever: the same for a line."
    start = np.asarray(start)
    slope = (function(start + 1) - function(start - 1)) / 2
    return path(start, rates, noise, function=lambda w: function(start) + slope * (w - start))


@mutant(ID, default_case=at_root())
def decays_a_little(start, rates, noise, **options):
    "A silent weight decay of 1e-7 a step."
    fade = (1 - 1e-7) ** np.arange(1, len(rates) + 1)
    return (path(start, rates, noise, **options) * fade).astype(noise.dtype)
