"""Laws and mutants of clipping by the global norm."""

from __future__ import annotations

import math

import numpy as np

from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, cases, choose, rng

ID = "optim.clip_by_global_norm"
SHAPES = ((), (1,), (3,), (2, 3), (0,), (1, 2, 2))


def _grads(draw, c):
    g = rng(draw)
    return [np.asarray(g.integers(-64, 65, shape) / 16.0) for shape in c.shapes]


def _below(c):
    return norm_of(c.grads) < 0.9 * c.max_norm


space = cases(
    ID,
    shapes=lambda draw, c: tuple(draw(choose(*SHAPES)) for _ in range(draw(choose(1, 2, 3)))),
    grads=_grads,
    max_norm=choose(1.0, 0.125, 3.0, 1000.0, math.inf),
    eps=choose(0.0),
    flags={
        "below": Flag(_below, {"max_norm": choose(1000.0, math.inf)}),
        "above": Flag(
            lambda c: norm_of(c.grads) > 1.1 * c.max_norm, {"max_norm": choose(1.0, 0.125), "shapes": ((3,), ())}
        ),
        "several": Flag(lambda c: len(c.grads) > 1 and all(np.any(g) for g in c.grads), {"shapes": ((3,), (2, 3))}),
        "nothing": Flag(lambda c: all(g.size == 0 for g in c.grads), {"shapes": ((0,),)}),
    },
)


def norm_of(grads):
    """The norm by exact squares (float64) and a correctly rounded sum."""
    return math.sqrt(math.fsum(float(x) ** 2 for g in grads for x in np.ravel(g)))


def roundings(c):
    return sum(g.size for g in c.grads) + 12


def dtype_of(c):
    return c.grads[0].dtype


def both(impl, c, expect):
    """The clipped list and the norm; a result of another form breaks the law."""
    found = impl(c)
    expect.holds(isinstance(found, tuple) and len(found) == 2, "the result is (gradients, norm)")
    out, norm = found
    expect.holds(isinstance(out, list | tuple) and len(out) == len(c.grads), "one clipped gradient for each")
    for a, g in zip(out, c.grads, strict=True):
        same = isinstance(a, np.ndarray) and a.shape == g.shape and a.dtype == g.dtype
        expect.holds(same, "each keeps its shape and dtype")
    expect.holds(isinstance(norm, np.ndarray | float) and np.ndim(norm) == 0, "one norm")
    return [np.asarray(a, np.float64) for a in out], float(norm)


@law(
    ID, "L1", closed_form=True, given=space.where(shapes=choose(((1,),), ((), (0,)), ((3,), (2, 3)))),
    kills=["always_rescaled", "norm_without_the_root", "silent_eps"],
)  # fmt: skip
def one_entry_is_clamped(impl, c, expect):
    "One entry x, zeros else: it becomes sign(x) min(|x|, c), and n = |x|; x from 2^-20 c to 4 c."
    limit = 1.0 if c.max_norm == math.inf else c.max_norm
    for size in (2.0**-20, 1 / 3, 1.0, 1.5, 4.0):
        grads = [np.zeros(g.shape, g.dtype) for g in c.grads]
        grads[0][(0,) * grads[0].ndim] = -limit * size
        x = float(np.ravel(grads[0])[0])
        out, norm = both(impl, c.replace(grads=grads, max_norm=limit), expect)
        wanted = [g.astype(np.float64) * (min(abs(x), limit) / abs(x)) for g in grads]
        for a, b in zip(out, wanted, strict=True):
            expect(a, b, bounds.rounding(roundings(c), b, dtype_of(c)), scale=limit)
        expect(norm, abs(x), bounds.rounding(roundings(c), x, dtype_of(c)), "norm")
    small = [(g * 2.0**-30).astype(dtype_of(c)) for g in grads]
    out, _ = both(impl, c.replace(grads=small, max_norm=limit * 2.0**-32), expect)
    wanted = -limit * 2.0**-32
    expect(np.ravel(out[0])[0], wanted, bounds.rounding(roundings(c), wanted, dtype_of(c)), "a small limit")


@law(
    ID, "L2", closed_form=True, given=space.where(several=True),
    kills=["each_by_its_own_norm", "sum_of_magnitudes", "mean_of_squares", "first_gradient_alone"],
)  # fmt: skip
def the_norm_is_pythagorean(impl, c, expect):
    "n^2 = sum of x^2 over all entries of all gradients, and the outputs are g min(1, c / n)."
    n = norm_of(c.grads)
    out, norm = both(impl, c, expect)
    expect(norm, n, bounds.rounding(roundings(c), n, dtype_of(c)), "norm")
    for a, g in zip(out, c.grads, strict=True):
        wanted = g.astype(np.float64) * min(1.0, c.max_norm / n)
        expect(a, wanted, bounds.rounding(roundings(c), wanted, dtype_of(c)))


@law(
    ID, "L3", given=space.where(below=True), kills=["always_rescaled"],
)  # fmt: skip
def below_the_limit_every_bit_stays(impl, c, expect):
    "n < c: every bit of every gradient stays."
    out, _ = both(impl, c, expect)
    for a, g in zip(out, c.grads, strict=True):
        expect.same(a, g)


@law(
    ID, "L4", closed_form=True, given=space.where(several=True),
    kills=["each_by_its_own_norm", "each_entry_clamped", "norm_without_the_root"],
)  # fmt: skip
def the_norm_becomes_the_smaller(impl, c, expect):
    "The norm of the outputs is min(n, c)."
    out, _ = both(impl, c, expect)
    wanted = min(norm_of(c.grads), c.max_norm)
    expect(norm_of(out), wanted, bounds.rounding(roundings(c) + 4, wanted, dtype_of(c)), "norm of the outputs")


@law(
    ID, "L5", given=space.where(above=True), kills=["each_entry_clamped", "each_by_its_own_norm"],
    passes_null=["zeros"],
)  # fmt: skip
def direction_is_kept(impl, c, expect):
    "out_i g_j = out_j g_i for all entries i, j, over all gradients; no entry changes its sign."
    out, _ = both(impl, c, expect)
    a = np.concatenate([np.ravel(x) for x in out])
    g = np.concatenate([np.ravel(x) for x in c.grads]).astype(np.float64)
    limit = bounds.rounding(roundings(c), np.abs(np.outer(a, g)), dtype_of(c))
    limit = limit + limit.T
    expect(np.outer(a, g), np.outer(g, a), limit, scale=max(np.max(np.abs(np.outer(a, g))), 1e-30))
    expect.at_most(-(a * g), 0.0, "a turned sign")


@law(ID, "L6", given=space, kills=["silent_eps"], passes_null=["zeros", "constant"])
def clipping_twice_is_clipping_once(impl, c, expect):
    "Clipped gradients stay, to rounding."
    out, _ = both(impl, c, expect)
    again, _ = both(impl, c.replace(grads=[x.astype(dtype_of(c)) for x in out]), expect)
    for a, b in zip(again, out, strict=True):
        expect(a, b, bounds.rounding(roundings(c), b, dtype_of(c)))


@law(
    ID, "L7", given=space.where(several=True), kills=["each_by_its_own_norm", "first_gradient_alone"],
    passes_null=["zeros", "constant"],
)  # fmt: skip
def cutting_the_list_is_immaterial(impl, c, expect):
    "The list in another order, or all entries in one array, gives the same entries."
    out, _ = both(impl, c, expect)
    other, _ = both(impl, c.replace(grads=c.grads[::-1]), expect)
    whole, _ = both(impl, c.replace(grads=[np.concatenate([np.ravel(g) for g in c.grads])]), expect)
    flat = np.concatenate([np.ravel(x) for x in out])
    limit = bounds.rounding(2 * roundings(c), flat, dtype_of(c))
    expect(np.concatenate([np.ravel(x) for x in other[::-1]]), flat, limit, "in another order")
    expect(whole[0], flat, limit, "in one array")


@law(
    ID, "L8", closed_form=True, given=space.reach("nothing"), kills=["divides_by_zero"],
    passes_null=["zeros", "mutated"],
)  # fmt: skip
def zeros_stay_zeros(impl, c, expect):
    "All gradients 0, or empty: n = 0 and they stay."
    grads = [np.zeros(g.shape, g.dtype) for g in c.grads]
    for a in both(impl, c.replace(grads=grads), expect)[0]:
        expect.same(a, np.zeros(a.shape))


@law(
    ID, "L9", closed_form=True, given=space.where(shapes=choose(((3,),), ((2, 3), (1,)))), kills=["squares_overflow"],
)  # fmt: skip
def squares_may_overflow_or_vanish(impl, c, expect):
    "k entries of 2^e, e = +-100 (float64: +-900): n = 2^e sqrt(k), and each becomes c / sqrt(k) where c = 2^(e-1)."
    e, k = 900 if dtype_of(c) == np.float64 else 100, sum(g.size for g in c.grads)
    for x in (2.0**e, 2.0**-e):
        grads = [np.full(g.shape, x, g.dtype) for g in c.grads]
        out, norm = both(impl, c.replace(grads=grads, max_norm=x / 2), expect)
        expect(norm, x * math.sqrt(k), bounds.rounding(roundings(c), x * math.sqrt(k), dtype_of(c)), "norm")
        for a in out:
            wanted = np.full(a.shape, x / 2 / math.sqrt(k))
            expect(a, wanted, bounds.rounding(roundings(c), wanted, dtype_of(c)))


@law(ID, "L10", closed_form=True, given=space.where(above=True, eps=choose(1e-6, 0.5)), kills=["eps_ignored"])
def eps_is_added_to_the_norm(impl, c, expect):
    "eps > 0: g c / (n + eps) where n + eps > c; n itself is without eps."
    n = norm_of(c.grads)
    for eps in (c.eps, n):
        out, norm = both(impl, c.replace(eps=eps), expect)
        expect(norm, n, bounds.rounding(roundings(c), n, dtype_of(c)), "norm")
        for a, g in zip(out, c.grads, strict=True):
            wanted = g.astype(np.float64) * (c.max_norm / (n + eps))
            expect(a, wanted, bounds.rounding(roundings(c), wanted, dtype_of(c)))


# Mutants ---------------------------------------------------------------------------------------------


def five(max_norm=1.0, several=True):
    """The default-size test: a 3-4-5 triangle."""
    return lambda: (([np.array([3.0, 4.0]), np.zeros(3)] if several else [np.array([5.0])], max_norm), {})


def clipped(grads, max_norm, *, eps=0.0, norm=norm_of, factor=lambda c, n: min(1.0, c / n) if n else 1.0):
    dtype = np.asarray(grads[0]).dtype
    n = norm(grads)
    return [(g * factor(max_norm, n + eps)).astype(dtype) for g in grads], np.asarray(n, dtype)


@mutant(ID, default_case=five())
def each_by_its_own_norm(grads, max_norm, *, eps=0.0):
    "Each gradient clipped alone."
    return [clipped([g], max_norm, eps=eps)[0][0] for g in grads], clipped(grads, max_norm)[1]


@mutant(ID, default_case=five())
def always_rescaled(grads, max_norm, *, eps=0.0):
    "Without the min(1, .): small gradients grow to the limit."
    return clipped(grads, max_norm, eps=eps, factor=lambda c, n: c / n if n and c < math.inf else 1.0)


@mutant(ID, default_case=lambda: (([np.array([0.6, 0.8])], 0.5), {}))
def norm_without_the_root(grads, max_norm, *, eps=0.0):
    "n^2 for n: the same at n = 1."
    return clipped(grads, max_norm, eps=eps, norm=lambda g: norm_of(g) ** 2)


@mutant(ID, default_case=five(several=False))
def sum_of_magnitudes(grads, max_norm, *, eps=0.0):
    "sum |x| for n."
    return clipped(grads, max_norm, eps=eps, norm=lambda g: sum(float(np.abs(x).sum()) for x in g))


@mutant(ID, default_case=five(several=False))
def mean_of_squares(grads, max_norm, *, eps=0.0):
    "The root of the mean square for n."
    return clipped(grads, max_norm, eps=eps, norm=lambda g: norm_of(g) / math.sqrt(max(1, sum(x.size for x in g))))


@mutant(ID, default_case=five(several=False))
def each_entry_clamped(grads, max_norm, *, eps=0.0):
    "Each entry clamped to [-c, c]."
    return [np.clip(g, -max_norm, max_norm).astype(np.asarray(g).dtype) for g in grads], clipped(grads, max_norm)[1]


@mutant(ID, default_case=five())
def first_gradient_alone(grads, max_norm, *, eps=0.0):
    "The norm of the first gradient."
    return clipped(grads, max_norm, eps=eps, norm=lambda g: norm_of(g[:1]))


@mutant(ID, default_case=five())
def divides_by_zero(grads, max_norm, *, eps=0.0):
    "0 / 0 where there is no gradient."
    return clipped(grads, max_norm, eps=eps, factor=lambda c, n: min(1.0, c / n) if n else math.nan)


@mutant(ID, default_case=five())
def squares_overflow(grads, max_norm, *, eps=0.0):
    "sqrt(sum g g) in the gradients' own dtype."
    return clipped(grads, max_norm, eps=eps, norm=lambda g: float(np.sqrt(sum(np.sum(x * x) for x in g))))


@mutant(ID, default_case=five())
def silent_eps(grads, max_norm, *, eps=0.0):
    "1e-6 in the denominator, asked for or not."
    return clipped(grads, max_norm, eps=eps + 1e-6)


@mutant(ID, default_case=five())
def eps_ignored(grads, max_norm, *, eps=0.0):
    "eps is accepted and dropped."
    return clipped(grads, max_norm)
