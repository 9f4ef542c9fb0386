"""Laws and mutants of NCSNv2's noise levels."""

from __future__ import annotations

import math

import mpmath
import numpy as np

from ref.diffusion.common_laws import DOUBLE
from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, cases, choose, dims, rng

ID = "diffusion.ncsnv2_sigmas"


def points(draw, c):
    """n points of halves, no two alike."""
    found = rng(draw).integers(-8, 9, (c.n, c.d)) / 2.0
    found[:, 0] = np.arange(c.n) * 3
    return found


space = cases(
    ID,
    n=dims(2, 6),
    d=choose(5, 6, 8, 32, 2, 1),
    data=points,
    smallest=choose(0.01, 0.5, 2.0),
    flags={
        "few_channels": Flag(lambda c: c.d <= 4, {"d": choose(1, 2, 4)}),
        "many_levels": Flag(lambda c: c.d >= 32, {"d": choose(32, 50), "smallest": 0.01}),
    },
)


def largest(c):
    return max(math.dist(a, b) for a in c.data.tolist() for b in c.data.tolist())


def spanned(c, found, expect):
    """ln(sigma_1 / sigma_L), which the levels must span."""
    span = math.log(largest(c) / c.smallest)
    expect(np.log(found[0] / found[-1]), span, 1e-12 * (1 + span), "ln(sigma_1 / sigma_L)")
    return span


def gamma(d):
    root = math.sqrt(2 * d)
    return root / (root - 3) if root > 3 else math.inf


@law(
    ID, "L1", closed_form=True, dtypes=DOUBLE, given=space.reach("few_channels", "many_levels"),
    kills=["spread_of_the_entries", "distance_to_the_mean", "linear_levels", "last_level_missed", "rising"],
)  # fmt: skip
def from_the_largest_distance_down(impl, c, expect):
    """sigma_1 is the largest distance of two points, sigma_L the smallest; sigma_i^2 = sigma_{i-1} sigma_{i+1} in
    between."""
    found = impl(c)
    limit = bounds.rounding(60, largest(c), "float64")
    expect(found[0], largest(c), limit, "sigma_1")
    expect(found[-1], c.smallest, bounds.rounding(60, c.smallest, "float64"), "sigma_L")
    expect(found[1:-1] ** 2, found[:-2] * found[2:], bounds.rounding(200, found[1:-1] ** 2, "float64"), "progression")
    expect.holds(len(found) > 1 and bool(np.all(np.diff(found) < 0)), "they fall")


@law(
    ID, "L2", closed_form=True, dtypes=DOUBLE, given=space.reach("few_channels", "many_levels"),
    kills=["one_level_short", "one_level_more", "ratio_of_one_dimension"],
)  # fmt: skip
def fewest_levels_with_a_small_enough_ratio(impl, c, expect):
    "sigma_1 / sigma_2 <= gamma = sqrt(2 D) / (sqrt(2 D) - 3), and with one level less it would not be (D <= 4: L = 2)."
    found = impl(c)
    steps, span = len(found) - 1, spanned(c, found, expect)
    limit = math.log(gamma(c.d)) * (1 + 1e-8) if c.d > 4 else math.inf
    expect.at_most(np.log(found[:-1] / found[1:]), limit, "ln of a ratio")
    expect.holds(steps == 1 or span / (steps - 1) > math.log(gamma(c.d)) * (1 - 1e-8), "one level less is too few")


@law(
    ID, "L3", closed_form=True, dtypes=DOUBLE, given=space.where(d=choose(5, 6, 8, 32, 50), n=2, smallest=0.01),
    kills=["ratio_of_one_dimension", "overlap_of_three_quarters", "one_level_more"],
)  # fmt: skip
def the_ratio_overlaps_by_half(impl, c, expect):
    """Phi(sqrt(2 D) (g - 1) + 3 g) - Phi(sqrt(2 D) (g - 1) - 3 g) >= 1/2 at the ratio g, and < 1/2 at that of one level
    less, by mpmath."""
    found = impl(c)
    steps, span = len(found) - 1, spanned(c, found, expect)
    overlap = []
    for count in (steps, steps - 1):
        g, root = mpmath.e ** (span / max(count, 1e-9)), mpmath.sqrt(2 * c.d)
        overlap.append(float(mpmath.ncdf(root * (g - 1) + 3 * g) - mpmath.ncdf(root * (g - 1) - 3 * g)))
    expect.at_most(0.5 - overlap[0], 1e-8, "what lacks of 1/2")
    expect.at_most(overlap[1] - 0.5, 1e-8, "the overlap with one level less")


# Mutants ---------------------------------------------------------------------------------------------


def pair(d=2, smallest=1.0):
    """The default-size test: two points, few channels, two levels."""
    data = np.zeros((2, d))
    data[1, 0] = 2.0
    return lambda: ((data,), {"smallest": smallest})


def ladder(data, *, smallest=0.01, **edit):
    points = np.asarray(data, np.float64)
    far = max(np.linalg.norm(a - b) for a in points for b in points)
    first = edit.get("first", lambda points, far: far)(points, far)
    g = edit.get("gamma", gamma)(points.shape[1])
    count = 2 if math.isinf(g) else 1 + max(1, math.ceil(math.log(first / smallest) / math.log(g)))
    count = edit.get("count", lambda n: n)(count)
    t = np.arange(count) / max(count - 1, 1)
    return edit.get("levels", lambda a, b, t: a * (b / a) ** t)(first, smallest, t)


@mutant(ID, default_case=pair())
def spread_of_the_entries(*args, **options):
    "max - min of all entries: the distance along one axis."
    return ladder(
        *args, first=lambda points, far: max(np.max(points) - np.min(points), 1.01 * options["smallest"]), **options
    )


@mutant(ID, default_case=pair())
def distance_to_the_mean(*args, **options):
    "Twice the largest distance to the mean: the same for two points."
    return ladder(*args, first=lambda p, far: 2 * np.max(np.linalg.norm(p - p.mean(0), axis=1)), **options)


@mutant(ID, default_case=pair())
def linear_levels(*args, **options):
    "Equal differences."
    return ladder(*args, levels=lambda a, b, t: a + (b - a) * t, **options)


@mutant(ID, default_case=pair(smallest=2.0 * (1 - 1e-9)))
def last_level_missed(*args, **options):
    "off-by-one: t / L, the smallest is never reached."
    return ladder(*args, levels=lambda a, b, t: a * (b / a) ** (t * (len(t) - 1) / len(t)), **options)


@mutant(ID, default_case=pair(smallest=2.0 * (1 - 1e-9)))
def rising(*args, **options):
    "From the narrowest up."
    return ladder(*args, **options)[::-1].copy()


@mutant(ID, default_case=pair())
def one_level_short(*args, **options):
    "off-by-one: floor for ceil."
    return ladder(*args, count=lambda n: max(n - 1, 2), **options)


@mutant(ID, default_case=pair())
def one_level_more(*args, **options):
    "off-by-one: a level more where there are several."
    return ladder(*args, count=lambda n: n + (n > 2), **options)


@mutant(ID, default_case=pair())
def ratio_of_one_dimension(*args, **options):
    "gamma without sqrt(2 D): 1.6 always where it matters."
    return ladder(*args, gamma=lambda d: 1.6 if d > 4 else math.inf, **options)


@mutant(ID, default_case=pair())
def overlap_of_three_quarters(*args, **options):
    "gamma of another overlap, Phi(-.6745) = 1/4."

    def other(d):
        root = math.sqrt(2 * d)
        return (root - 0.6745) / (root - 3) if root > 3.7 else gamma(d)

    return ladder(*args, gamma=other, **options)
