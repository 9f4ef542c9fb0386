"""Laws and mutants of the discretised Gaussian."""

from __future__ import annotations

import math

import mpmath
import numpy as np

from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, batch, cases, choose, rng

ID = "diffusion.discretized_gaussian"


def grid(c):
    return np.linspace(c.low, c.high, c.bins)


space = cases(
    ID,
    S=batch(2, 3, large=60),
    bins=choose(2, 5, 17, 256),
    low=choose(-1.0, 0.0),
    high=choose(1.0, 2.0),
    x=lambda draw, c: np.asarray(grid(c)[rng(draw).integers(0, c.bins, c.S)]),
    mean=lambda draw, c: np.asarray(rng(draw).integers(-16, 17, c.S) / 8.0),
    std=lambda draw, c: np.asarray(2.0 ** rng(draw).integers(-3, 2, c.S)),
    flags={
        "none": Flag(lambda c: 0 in c.S, {"S": (0, 2)}),
        "some": Flag(lambda c: 0 not in c.S, {"S": choose((), (2,), (3, 2))}),
        "ends": Flag(lambda c: np.any(c.x == c.low) or np.any(c.x == c.high), {"bins": 2}),
    },
)
some = space.where(some=True)


@law(
    ID, "L1", closed_form=True, dtypes=("float64",), given=some.where(S=()).reach("ends"),
    kills=["ends_are_bins_too", "bins_of_one_over_the_count", "density_for_the_bin"],
)  # fmt: skip
def all_bins_together_are_certain(impl, c, expect):
    "The probabilities of all levels sum to 1, for every mean and std."
    n = (c.bins,)
    out = impl(c.replace(x=grid(c), mean=np.full(n, float(c.mean)), std=np.full(n, float(c.std)), S=n))
    expect(np.sum(np.exp(out)), 1.0, bounds.rounding(4000, 1.0, "float64") * c.bins, "sum")


@law(
    ID, "L2", closed_form=True, dtypes=("float64",),
    given=some.where(bins=4097, std=lambda draw, c: np.asarray(2.0 ** rng(draw).integers(0, 2, c.S)),
                     x=lambda draw, c: np.asarray(grid(c)[rng(draw).integers(1, c.bins - 1, c.S)])),
    kills=["bins_of_one_over_the_count", "std_is_a_variance", "mean_ignored", "half_a_bin"],
)  # fmt: skip
def narrow_bins_have_the_density(impl, c, expect):
    "Bins much narrower than std: ln p = ln(2 h) - ln(std sqrt(2 pi)) - (x - mean)^2 / (2 std^2), but for h^2."
    h = (c.high - c.low) / (2 * (c.bins - 1))
    y = (c.x - c.mean) / c.std
    wanted = math.log(2 * h) - np.log(c.std * math.sqrt(2 * math.pi)) - y**2 / 2
    # The next term is h^2 (y^2 - 1) / (6 std^2).
    expect(impl(c), wanted, 1e-7 * (1 + y**2) + 1e-9, "ln p")


@law(
    ID, "L3", closed_form=True, given=some.where(S=(2,)).reach("ends"),
    kills=["floored", "ends_are_bins_too", "std_is_a_variance", "half_a_bin"],
)  # fmt: skip
def tails_to_high_precision(impl, c, expect):
    "mean moved by up to 40 standard deviations: ln p by mpmath, 30 digits."
    far = np.array([40.0, -13.0])
    mean = (np.asarray(c.mean, np.float64) + far * np.asarray(c.std, np.float64)).astype(c.dtype)
    with mpmath.workdps(30):
        wanted, slope = np.array([exact(c, i, mean) for i in range(2)]).T
    u = bounds.u(c.dtype)
    expect(impl(c.replace(mean=mean)), wanted, 64 * u * (slope + np.abs(wanted)) + 64 * u, "ln p")


def exact(c, i, mean):
    """(ln p, how much a rounding of the edges moves it) of entry i."""
    grid_h = mpmath.mpf(c.high - c.low) / (2 * (c.bins - 1))
    # The levels as numbers of the dtype: the edges are around those.
    x, m, s = (mpmath.mpf(float(v)) for v in (c.x[i], mean[i], c.std[i]))
    a, b = (x - grid_h - m) / s, (x + grid_h - m) / s
    tail = lambda z: mpmath.erfc(z / mpmath.sqrt(2)) / 2  # noqa: E731
    if c.x[i] == np.asarray(c.high, c.dtype):
        p = tail(a)
    elif c.x[i] == np.asarray(c.low, c.dtype):
        p = tail(-b)
    else:
        p = tail(a) - tail(b) if a + b > 0 else tail(-b) - tail(-a)
    edge = max(abs(a), abs(b))
    # Edges are off by u |edge|; the log of a tail moves by |edge| + 1 times that, of a difference by 1 / width more.
    return float(mpmath.log(p)), float(edge * (edge + 1 + 1 / min(b - a, 1)) + (edge**2 + 1) / min((b - a), 1))


@law(
    ID,
    "L4",
    dtypes=("float64",),
    given=some.where(low=-1.0, high=1.0),
    kills=["one_sided"],
    passes_null=["zeros", "constant"],
)
def mirrored(impl, c, expect):
    "low = -high: x and mean of the other sign have the same probability."
    other = impl(c.replace(x=(-c.x).copy(), mean=(-c.mean).copy()))
    out = impl(c)
    expect(other, out, bounds.rounding(2000, 1 + np.abs(out) * 1.0, "float64") * c.bins, scale=1e9)


@law(
    ID,
    "L5",
    closed_form=True,
    needs=("vjp",),
    dtypes=("float64",),
    given=some.where(bins=choose(5, 17), std=lambda draw, c: np.asarray(2.0 ** rng(draw).integers(-1, 2, c.S))).reach(
        "ends"
    ),
    kills=["std_detached"],
)
def gradients_are_of_the_edges(impl, c, expect):
    """d ln p / d mean = (phi(a) - phi(b)) / (std p), d ln p / d std = (a phi(a) - b phi(b)) / (std p), a and b the
    edges in standard deviations (what reaches to infinity has none there)."""
    found = impl.vjp(c, np.ones(c.S, c.dtype))
    h = (c.high - c.low) / (2 * (c.bins - 1))
    density = lambda z: np.exp(-z * z / 2) / math.sqrt(2 * math.pi)  # noqa: E731
    a, b = (c.x - h - c.mean) / c.std, (c.x + h - c.mean) / c.std
    lowest, highest = c.x == c.low, c.x == c.high
    p = np.where(highest, phi(-a), np.where(lowest, phi(b), np.where(a + b > 0, phi(-a) - phi(-b), phi(b) - phi(a))))
    at_a, at_b = np.where(lowest, 0, density(a)), np.where(highest, 0, density(b))
    size = (1 + np.abs(a) + np.abs(b)) * (at_a + at_b) / (c.std * p) / np.minimum(b - a, 1)
    limit = bounds.rounding(400, size + 1, "float64")
    expect(found["mean"], (at_a - at_b) / (c.std * p), limit, "of the mean", scale=1e9)
    expect(found["std"], (a * at_a - b * at_b) / (c.std * p), limit, "of std", scale=1e9)


# Mutants ---------------------------------------------------------------------------------------------


def middle(bins=5, std=0.1, mean=0.0):
    """The default-size test: a narrow Gaussian in the middle bin."""
    return lambda: ((np.zeros(3), np.full(3, mean), np.full(3, std)), {"bins": bins})


def phi(z):
    return np.array([math.erfc(-v / math.sqrt(2)) / 2 for v in np.ravel(z)]).reshape(np.shape(z))


def binned(x, mean, std, *, bins=256, low=-1.0, high=1.0, **edit):
    """Eq. 13 as code writes it, whose parts an edit replaces; the sharper tail where it matters."""
    h = edit.get("half", (high - low) / (2 * (bins - 1)))
    x64, m, s = (np.asarray(v, np.float64) for v in (x, mean, std))
    s = edit.get("spread", lambda s: s)(s)
    a, b = (x64 - h - m) / s, (x64 + h - m) / s
    up = a + b > 0
    p = np.where(up, phi(-a) - phi(-b), phi(b) - phi(a))
    if edit.get("ends", True):
        p = np.where(x64 > high - (high - low) / (2 * (bins - 1)), phi(-a), p)
        p = np.where(x64 < low + (high - low) / (2 * (bins - 1)), phi(b), p)
    return np.asarray(np.log(np.maximum(p, edit.get("floor", 1e-320))), x.dtype)


@mutant(ID, default_case=middle())
def ends_are_bins_too(*args, **options):
    "The outer bins end at half a bin: the rest of the tails is lost."
    return binned(*args, ends=False, **options)


@mutant(ID, default_case=middle(std=0.01))
def bins_of_one_over_the_count(*args, bins=256, low=-1.0, high=1.0):
    "off-by-one: h = (high - low) / (2 bins)."
    return binned(*args, bins=bins, low=low, high=high, half=(high - low) / (2 * bins))


@mutant(ID, default_case=middle(std=0.01))
def half_a_bin(*args, bins=256, low=-1.0, high=1.0):
    "Half of h: nothing is missing for a Gaussian within it."
    return binned(*args, bins=bins, low=low, high=high, half=(high - low) / (4 * (bins - 1)))


@mutant(ID, default_case=middle(std=1.0))
def std_is_a_variance(*args, **options):
    "sqrt(std)."
    return binned(*args, spread=np.sqrt, **options)


@mutant(ID, default_case=middle())
def mean_ignored(x, mean, std, **options):
    "A Gaussian about 0."
    return binned(x, 0 * mean, std, **options)


@mutant(ID, default_case=middle(bins=4097, std=1.0))
def density_for_the_bin(x, mean, std, *, bins=256, low=-1.0, high=1.0):
    "The density times 2 h."
    h = (high - low) / (2 * (bins - 1))
    return np.asarray(math.log(2 * h) - np.log(std * math.sqrt(2 * math.pi)) - ((x - mean) / std) ** 2 / 2, x.dtype)


@mutant(ID, thread="openai/improved-diffusion losses.py: clamp(min=1e-12)", default_case=middle())
def floored(*args, **options):
    "ln max(p, 1e-12): a tail has no slope."
    return binned(*args, floor=1e-12, **options)


@mutant(ID, default_case=middle())
def one_sided(*args, **options):
    "The highest bin alone reaches to infinity."
    x, low, high, bins = args[0], options.get("low", -1.0), options.get("high", 1.0), options.get("bins", 256)
    out, closed = binned(*args, **options), binned(*args, ends=False, **options)
    return np.where(x < low + (high - low) / (2 * (bins - 1)), closed, out)


def _vjp_of_the_mean(g, x, mean, std, **options):
    e = 1e-6
    slope = (binned(x, mean + e, std, **options) - binned(x, mean - e, std, **options)) / (2 * e)
    return {"mean": g * slope, "std": np.zeros_like(std)}


@mutant(ID, default_case=middle(), vjp=_vjp_of_the_mean)
def std_detached(*args, **options):
    "No gradient into std: a learned variance does not learn."
    return binned(*args, **options)
