"""Laws and mutants of gradient descent by batches."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np

from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, cases, dims, rng

ID = "optim.minibatch_descent"


def _quarters(draw, c, *axes):
    return rng(draw).integers(-8, 9, [c[a] for a in axes]) / 8.0


space = cases(
    ID,
    n=dims(1, 6),
    d=dims(1, 3),
    o=dims(1, 3),
    k=dims(0, 5),
    m=dims(1, 4),
    X=lambda draw, c: _quarters(draw, c, "n", "d"),
    Y=lambda draw, c: _quarters(draw, c, "n", "o"),
    start=lambda draw, c: _quarters(draw, c, "d", "o"),
    rates=lambda draw, c: rng(draw).integers(1, 9, c.k) / 16.0,
    batches=lambda draw, c: rng(draw).integers(0, c.n, (c.k, c.m)),
    flags={
        "twice": Flag(lambda c: any(len(set(row)) < len(row) for row in c.batches.tolist()), {"n": 2, "m": 3}),
        "none": Flag(lambda c: c.k == 0, {"k": 0}),
    },
)
some = space.where(k=dims(1, 5))
ones = some.where(d=1, X=lambda draw, c: np.ones((c.n, 1)))


def whole(draw, c):
    """Every point in every step, in an order of its own."""
    return np.array([rng(draw).permutation(c.n) for _ in range(c.k)]).reshape(c.k, c.n)


full = some.where(m=lambda draw, c: c.n, batches=whole)


def slack(c):
    """m + d + 6 roundings a step; a step multiplies an error by |I - a H| <= 1 + a d <= 1 + d / 2 (|X| <= 1, a <= 1/2).

    With rates of 1 / k on ones it does not multiply at all.
    """
    size = 2 * (1 + np.max(np.abs(c.start)) * c.d + np.max(np.abs(c.Y)))
    growth = (1 + c.d / 2) ** max(c.k, 1)
    return bounds.rounding((c.m + c.d + 6) * max(c.k, 1), size * growth, c.dtype)


def scale(c):
    return 1 + np.max(np.abs(c.start)) + np.max(np.abs(c.Y), initial=0)


@law(
    ID, "L1", closed_form=True, given=ones.where(rates=lambda draw, c: 1.0 / np.arange(1, c.k + 1)),
    kills=["summed_over_the_batch", "divided_by_n", "ascends", "full_gradient", "twice_the_gradient"],
)  # fmt: skip
def running_mean_of_what_was_drawn(impl, c, expect):
    "X = 1, a_k = 1 / k: W_{k+1} is the mean of the first k batches' means, from any start."
    means = np.asarray(c.Y, np.float64)[c.batches].mean(axis=1)
    wanted = np.cumsum(means, axis=0) / np.arange(1, c.k + 1)[:, None]
    expect(impl(c)[:, 0, :], wanted, slack(c), scale=scale(c))


@law(
    ID, "L2", closed_form=True, given=full,
    kills=["summed_over_the_batch", "constant_rate", "ascends", "weights_of_the_start", "twice_the_gradient"],
)  # fmt: skip
def batch_descent_is_a_matrix_power(impl, c, expect):
    """All points in every step: (W_{k+1}, I) is the product of the matrices [[I - a_j H, a_j X^T Y / n], [0, I]] on
    (W_1, I), H = X^T X / n."""
    X, Y, W = (np.asarray(x, np.float64) for x in (c.X, c.Y, c.start))
    H, r = X.T @ X / c.n, X.T @ Y / c.n
    M = np.eye(c.d + c.o)
    for k, out in enumerate(impl(c)):
        a = float(c.rates[k])
        step = np.block([[np.eye(c.d) - a * H, a * r], [np.zeros((c.o, c.d)), np.eye(c.o)]])
        M = step @ M
        expect(out, M[: c.d] @ np.vstack([W, np.eye(c.o)]), slack(c), f"W after {k + 1}", scale=scale(c))


@law(
    ID, "L3", closed_form=True, given=some.where(n=dims(3, 6), m=dims(1, 3), k=1, o=1),
    kills=["full_gradient", "divided_by_n", "first_of_the_batch", "summed_over_the_batch"],
)  # fmt: skip
def all_subsets_average_to_the_gradient(impl, c, expect):
    """One step by each of the C(n, m) subsets: the mean step is the full gradient's, the variance
    a^2 s^2 / m (n - m) / (n - 1), s^2 the variance of the single gradients over the points."""
    a, m = float(c.rates[0]), min(c.m, c.n)
    X, Y, W = (np.asarray(x, np.float64) for x in (c.X, c.Y, c.start))
    single = X * (X @ W - Y)
    steps = []
    for subset in itertools.combinations(range(c.n), m):
        out = impl(c.replace(batches=np.array([subset]), m=m))
        steps.append(W[:, 0] - np.asarray(out, np.float64)[0, :, 0])
    steps, size = np.array(steps), scale(c)
    expect(steps.mean(0), a * single.mean(0), 2 * slack(c), "mean step", scale=size)
    wanted = a * a * single.var(0) / m * (c.n - m) / (c.n - 1)
    expect(steps.var(0), wanted, 8 * size * slack(c), "variance", scale=size**2)


@law(
    ID, "L4", closed_form=True, given=some.where(n=dims(2, 3), m=dims(1, 3), k=1, o=1).reach("twice"),
    kills=["each_point_once", "full_gradient", "first_of_the_batch"],
)  # fmt: skip
def all_draws_with_replacement(impl, c, expect):
    "One step by each of the n^m draws: the mean step is the full gradient's, the variance a^2 s^2 / m."
    a = float(c.rates[0])
    X, Y, W = (np.asarray(x, np.float64) for x in (c.X, c.Y, c.start))
    single = X * (X @ W - Y)
    steps = []
    for drawn in itertools.product(range(c.n), repeat=min(c.m, 3)):
        out = impl(c.replace(batches=np.array([drawn]), m=len(drawn)))
        steps.append(W[:, 0] - np.asarray(out, np.float64)[0, :, 0])
    steps, size = np.array(steps), scale(c)
    expect(steps.mean(0), a * single.mean(0), 2 * slack(c), "mean step", scale=size)
    expect(steps.var(0), a * a * single.var(0) / min(c.m, 3), 8 * size * slack(c), "variance", scale=size**2)


@law(
    ID, "L5", closed_form=True, given=some.reach("twice"),
    kills=["constant_rate", "each_point_once", "weights_of_the_start", "first_of_the_batch", "targets_by_place"],
)  # fmt: skip
def a_sum_over_the_batch_in_fractions(impl, c, expect):
    "Every step by the definition, a point at a time, in exact fractions."
    F = np.vectorize(lambda x: Fraction(float(x)), otypes=[object])
    X, Y, W = F(c.X), F(c.Y), F(c.start)
    for k, out in enumerate(impl(c)):
        total = np.full(W.shape, Fraction(0))
        for i in c.batches[k]:
            total = total + np.outer(X[i], X[i] @ W - Y[i])
        W = W - Fraction(float(c.rates[k])) / c.m * total
        expect(out, W.astype(np.float64), slack(c), f"W after {k + 1}", scale=scale(c))


@law(
    ID,
    "L6",
    given=some,
    kills=["targets_by_place"],
    passes_null=["zeros", "constant"],
)
def names_of_points_are_immaterial(impl, c, expect):
    "Points in another order and batches renamed with them: the same bits."
    order = np.argsort(np.sin(1 + np.arange(c.n)))
    renamed = np.argsort(order)[c.batches]
    expect.same(impl(c.replace(X=c.X[order], Y=c.Y[order], batches=renamed)), impl(c))


@law(
    ID, "L7", given=space.where(k=dims(2, 5), memory="C").reach("twice"), kills=["constant_rate"],
    passes_null=["zeros", "constant"],  # the path's arrays are C: BLAS may round another layout otherwise
)  # fmt: skip
def continues_from_where_it_stopped(impl, c, expect):
    "Cut after any step and taken up from there with the rates and the batches that are left: the same bits."
    path = impl(c)
    for k in range(1, c.k):
        rest = c.replace(start=path[k - 1].copy(), rates=c.rates[k:].copy(), batches=c.batches[k:].copy(), k=c.k - k)
        expect.same(impl(rest), path[k:], f"from {k}")


# Mutants ---------------------------------------------------------------------------------------------


def solved(n=4, m=4, k=3):
    """The default-size test: a start that already solves the problem."""

    def make():
        g = np.random.default_rng(0)
        X, W = g.standard_normal((n, 2)), g.standard_normal((2, 1))
        return (X, X @ W, W, np.full(k, 0.1), np.tile(np.arange(m), (k, 1))), {}

    return make


def descent(X, Y, start, rates, batches, **edit):
    """The steps in plain NumPy, whose parts an edit replaces."""
    W, found, n = start, [], len(X)
    for k, batch in enumerate(batches):
        batch = edit.get("batch", lambda batch, n: batch)(batch, n)
        y = Y[edit.get("targets", lambda batch: batch)(batch)]
        at = edit.get("at", lambda W, start: W)(W, start)
        total = X[batch].T @ (X[batch] @ at - y)
        a = float(rates[edit.get("place", lambda k: k)(k)])
        W = W - a * total / edit.get("count", lambda m, n: m)(len(batch), n)
        found.append(W)
    return (np.stack(found) if found else np.zeros((0, *start.shape))).astype(start.dtype)


@mutant(ID, default_case=solved())
def summed_over_the_batch(*args):
    "Not divided by the batch's size."
    return descent(*args, count=lambda m, n: 1)


@mutant(ID, default_case=solved())
def divided_by_n(*args):
    "By the number of all points."
    return descent(*args, count=lambda m, n: n)


@mutant(ID, default_case=solved())
def twice_the_gradient(*args):
    "The gradient of the squares without their half."
    return descent(*args, count=lambda m, n: m / 2)


@mutant(ID, default_case=solved())
def ascends(*args):
    "W + a g."
    return descent(*args, count=lambda m, n: -m)


@mutant(ID, default_case=solved())
def full_gradient(*args):
    "All points, whatever was drawn."
    return descent(*args, batch=lambda batch, n: np.arange(n))


@mutant(ID, default_case=solved())
def first_of_the_batch(*args):
    "One point of the batch alone."
    return descent(*args, batch=lambda batch, n: batch[:1])


@mutant(ID, default_case=solved())
def each_point_once(*args):
    "A point drawn twice counts once."
    return descent(*args, batch=lambda batch, n: np.array(sorted(set(batch.tolist()))))


@mutant(ID, default_case=solved())
def targets_by_place(*args):
    "The first m targets, in their order."
    return descent(*args, targets=lambda batch: np.minimum(np.arange(len(batch)), len(args[1]) - 1))


@mutant(ID, default_case=solved())
def constant_rate(*args):
    "The first rate for ever."
    return descent(*args, place=lambda k: 0)


@mutant(ID, default_case=solved())
def weights_of_the_start(*args):
    "Every gradient is taken at the start."
    return descent(*args, at=lambda W, start: start)
