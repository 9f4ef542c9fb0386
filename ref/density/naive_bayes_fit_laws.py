"""Laws and mutants of naive Bayes from data."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np

from ref.density.common_laws import WHOLE, roundings
from ref.spec import law, mutant
from ref.spec.cases import Flag, cases, choose, dims, ints, rng

ID = "density.naive_bayes_fit"
space = cases(
    ID,
    N=dims(1, 12, large=200),
    n=dims(0, 5, large=60),
    classes=dims(1, 4),
    x=lambda draw, c: rng(draw).integers(0, 2, (c.N, c.n)).astype(np.float64),
    labels=ints("N", 0, "classes"),
    smoothing=choose(1.0, 0.5, 0.0),
    flags={
        "empty_class": Flag(lambda c: len(set(c.labels.tolist())) < c.classes and c.n > 0,
                            {"N": dims(1, 3), "classes": 4, "n": 2}),
        "uneven": Flag(lambda c: c.classes > 1 and c.n > 1 and len(set(np.bincount(c.labels, minlength=c.classes))) > 1,
                       {"N": dims(5, 12), "classes": dims(2, 4), "n": dims(2, 5)}),
    },
)  # fmt: skip


def near(c, wanted):
    return roundings(c, c.N + 8, np.abs(wanted) + 1)


@law(
    ID, "L1", closed_form=True, given=space.reach("empty_class", "uneven"),
    kills=["smoothing_once", "smoothing_of_the_multinomial", "uniform_prior", "shares_of_all_rows",
           "empty_class_is_zero", "prior_smoothed"],
)  # fmt: skip
def counts_by_loops(impl, c, expect):
    "pi_c = N_c / N, theta_ci = (ones + a) / (N_c + 2 a), 1/2 where that is 0 / 0."
    prior, theta = impl(c)
    a = c.smoothing
    wanted = np.zeros((c.classes, c.n))
    for k in range(c.classes):
        rows = [c.x[r] for r in range(c.N) if c.labels[r] == k]
        for i in range(c.n):
            below = len(rows) + 2 * a
            wanted[k, i] = (sum(float(row[i]) for row in rows) + a) / below if below else 0.5
    shares = np.array([np.sum(c.labels == k) / c.N for k in range(c.classes)])
    expect(prior, shares, near(c, shares), "prior", scale=1.0)
    expect(theta, wanted, near(c, wanted), "theta", scale=1.0)


@law(
    ID, "L2", closed_form=True, given=space.where(classes=1, n=dims(1, 5)),
    kills=["smoothing_once", "smoothing_of_the_multinomial"],
)  # fmt: skip
def all_ones_is_the_rule_of_succession(impl, c, expect):
    "N ones in one class: theta = (N + a) / (N + 2 a), Laplace's (N + 1) / (N + 2) at a = 1."
    now = c.replace(x=np.ones_like(c.x))
    prior, theta = impl(now)
    wanted = np.full((1, c.n), (c.N + c.smoothing) / (c.N + 2 * c.smoothing))
    expect(prior, np.ones(1), near(c, np.ones(1)), "prior")
    expect(theta, wanted, near(c, wanted), "theta")


@law(
    ID, "L3", closed_form=True, given=space.where(smoothing=0.0, n=dims(1, 5)).reach("uneven", "empty_class"),
    kills=["smoothed_anyway", "uniform_prior", "prior_smoothed"],
)  # fmt: skip
def total_probability(impl, c, expect):
    "a = 0: sum_c pi_c theta_ci is the mean of column i; the prior sums to 1."
    prior, theta = (np.asarray(a, np.float64) for a in impl(c))
    wanted = np.asarray(c.x, np.float64).mean(0)
    expect(prior @ theta, wanted, near(c, wanted), "mixed", scale=1.0)
    expect(prior.sum(), 1.0, near(c, 1.0), "sum of the prior")


@law(
    ID, "L4", closed_form=True, dtypes=WHOLE,
    given=space.where(smoothing=0.0, n=dims(1, 4), N=dims(4, 12)).reach("uneven"),
    kills=["smoothed_anyway", "uniform_prior", "shares_of_all_rows"],
)  # fmt: skip
def no_other_numbers_fit_better(impl, c, expect):
    "a = 0: -log p(x, labels) is least, and the sum of the entropies of the class and of each bit given it."
    prior, theta = impl(c)
    best = _loss(c, prior, theta)
    entropy = _entropy(c.labels.tolist())
    for k in set(c.labels.tolist()):
        entropy += sum(_entropy(c.x[c.labels == k, i].tolist()) for i in range(c.n))
    expect(np.asarray(best), np.asarray(entropy), roundings(c, 64 * c.N * (c.n + 1), 1 + entropy), "loss", scale=1.0)
    g = np.random.default_rng(c.N)
    for _ in range(3):
        other, flat = g.random(theta.shape), g.random(prior.shape)
        moved = _loss(c, 0.9 * prior + 0.1 * flat / flat.sum(), 0.9 * theta + 0.1 * other)
        expect.at_most(best, moved + 1e-9, "the loss")


def _entropy(values):
    """Of the list's own frequencies, times its length."""
    return -sum(k * math.log(k / len(values)) for k in Counter(values).values())


def _loss(c, prior, theta):
    total = 0.0
    for row, k in zip(c.x, c.labels, strict=True):
        for p in (prior[k], *(theta[k, i] if row[i] else 1 - theta[k, i] for i in range(c.n))):
            total -= math.log(p) if p > 0 else -math.inf
    return total


# Mutants ---------------------------------------------------------------------------------------------


def default(**options):
    """The default-size test: one class of a hundred thousand rows, half of them ones, one feature."""
    x = (np.arange(100_000) % 2).astype(np.float64)[:, None]
    return lambda: ((x, np.zeros(len(x), np.int64)), {"classes": 1, **options})


def counted(x, labels, C, a, *, below=None, prior=None, empty=0.5):
    """Frequencies, with parts that an edit replaces."""
    count = np.array([np.sum(labels == k) for k in range(C)], np.float64)
    ones = np.array([x[labels == k].sum(0) for k in range(C)], np.float64).reshape(C, x.shape[1]) + a
    under = (count + 2 * a)[:, None] if below is None else below(count, ones)
    theta = np.where(under > 0, ones / np.where(under > 0, under, 1), empty)
    share = count / len(x) if prior is None else prior(count)
    return share.astype(x.dtype), theta.astype(x.dtype)


@mutant(ID, default_case=default())
def smoothing_once(x, labels, *, classes, smoothing=1.0):
    "N_c + a below."
    return counted(x, labels, classes, smoothing, below=lambda count, ones: (count + smoothing)[:, None])


@mutant(ID, default_case=lambda: ((np.eye(2), np.zeros(2, np.int64)), {"classes": 1}))
def smoothing_of_the_multinomial(x, labels, *, classes, smoothing=1.0):
    "N_c + a n below: right for two features."
    return counted(x, labels, classes, smoothing, below=lambda count, ones: (count + smoothing * x.shape[1])[:, None])


@mutant(ID, default_case=default())
def smoothed_anyway(x, labels, *, classes, smoothing=1.0):
    "A tenth is added also at smoothing 0: unseen over many rows."
    return counted(x, labels, classes, smoothing or 0.1)


@mutant(ID, default_case=default())
def uniform_prior(x, labels, *, classes, smoothing=1.0):
    "1 / C: right for classes of equal size."
    return counted(x, labels, classes, smoothing, prior=lambda count: np.full(classes, 1 / classes))


@mutant(ID, default_case=default())
def prior_smoothed(x, labels, *, classes, smoothing=1.0):
    "(N_c + 1) / (N + C)."
    return counted(x, labels, classes, smoothing, prior=lambda count: (count + 1) / (len(x) + classes))


@mutant(ID, default_case=default())
def shares_of_all_rows(x, labels, *, classes, smoothing=1.0):
    "p(x_i, c), over N: right for one class."
    return counted(
        x, labels, classes, smoothing, below=lambda count, ones: np.full((classes, 1), len(x) + 2 * smoothing)
    )


@mutant(ID, default_case=default())
def empty_class_is_zero(x, labels, *, classes, smoothing=1.0):
    "theta 0 for a class without rows."
    return counted(x, labels, classes, smoothing, empty=0.0)
