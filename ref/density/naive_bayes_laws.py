"""Laws and mutants of naive Bayes on bits."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from ref.density.common_laws import WHOLE, bits, cotangent, f64, roundings, strings
from ref.spec import law, mutant
from ref.spec.cases import Flag, batch, cases, dims, rng

ID = "density.naive_bayes"


def draw_prior(draw, c):
    """Parts of 16, some of them 0."""
    cuts = np.sort(rng(draw).integers(0, 17, c.C - 1))
    return np.diff(np.concatenate([[0], cuts, [16]])) / 16


space = cases(
    ID,
    B=batch(2, 3, large=60),
    n=dims(0, 5, large=100),
    C=dims(1, 4),
    x=bits,
    prior=draw_prior,
    theta=lambda draw, c: rng(draw).integers(1, 16, (c.C, c.n)) / 16,
    flags={
        "rows": Flag(lambda c: len(c.B) == 2 and min(c.B) > 1 and c.n > 1 and c.C > 1,
                     {"B": (2, 3), "n": dims(2, 5), "C": dims(2, 4)}),
        "uneven": Flag(lambda c: len(set(c.prior.tolist())) > 1 and 0 not in c.prior and c.n > 0,
                       {"prior": lambda draw, c: np.array([1 - (c.C - 1) / 16] + [1 / 16] * (c.C - 1)),
                        "C": dims(2, 4), "n": dims(1, 5)}),
        "no_class": Flag(lambda c: 0 in c.prior, {"C": dims(2, 4), "prior": lambda draw, c: np.eye(c.C)[0]}),
        "some": Flag(lambda c: 0 not in c.B and c.n > 0, {"B": (2,), "n": dims(1, 5)}),
    },
)  # fmt: skip


def log_joint(c, x=None):
    """log p(x, c) in float64, a class and a feature at a time; -inf for a class without prior."""
    x, prior, theta = (np.asarray(a, np.float64) for a in (c.x if x is None else x, c.prior, c.theta))
    with np.errstate(divide="ignore"):
        out = np.broadcast_to(np.log(prior), (*x.shape[:-1], prior.size)).copy()
    for k in range(prior.size):
        for i in range(x.shape[-1]):
            out[..., k] += np.where(x[..., i] == 1, np.log(theta[k, i]), np.log1p(-theta[k, i]))
    return out


def size(c):
    """Sum of the sizes of the logarithms, for the least likely class."""
    theta = np.asarray(c.theta, np.float64)
    return 3 + float(np.max(np.sum(np.abs(np.log(theta)) + np.abs(np.log1p(-theta)), -1), initial=0))


def near(c):
    return roundings(c, c.n + 24, size(c))


@law(
    ID, "L1", closed_form=True, given=space.where(n=dims(0, 4)).reach("rows", "uneven", "no_class"),
    kills=["prior_ignored", "absent_features_ignored", "one_and_zero_swapped", "evidence_without_the_prior"],
)  # fmt: skip
def posterior_by_enumeration(impl, c, expect):
    "p(c | x) = p(x, c) / sum_b p(x, b) in fractions, for each x; and log p(x)."
    posterior, evidence = impl(c)
    wanted, logs = np.zeros((*c.B, c.C)), np.zeros(c.B)
    for at in np.ndindex(*c.B):
        joint = []
        for k in range(c.C):
            p = Fraction(float(c.prior[k]))
            for i in range(c.n):
                t = Fraction(float(c.theta[k, i]))
                p *= t if c.x[at][i] == 1 else 1 - t
            joint.append(p)
        wanted[at] = [float(p / sum(joint)) for p in joint]
        logs[at] = np.log(float(sum(joint)))
    expect(posterior, wanted, near(c) * np.ones(wanted.shape), "posterior", scale=1.0)
    expect(evidence, logs, near(c) * np.ones(c.B), "log evidence", scale=size(c))


@law(
    ID, "L2", closed_form=True, given=space.where(n=dims(0, 7), B=()),
    kills=["evidence_without_the_prior", "absent_features_ignored"],
)  # fmt: skip
def the_evidence_sums_to_one(impl, c, expect):
    "sum over all 2^n strings of p(x) = 1, and the posterior sums to 1 for each."
    posterior, evidence = impl(c.replace(x=strings(c.n, c.dtype), B=(2**c.n,)))
    total = np.exp(np.asarray(evidence, np.float64)).sum()
    expect(total, 1.0, near(c), "sum of p(x)")
    expect(np.asarray(posterior, np.float64).sum(-1), np.ones(2**c.n), near(c), "sum of the posterior")


@law(
    ID, "L3", closed_form=True, dtypes=WHOLE, given=space.where(uneven=True).reach("rows"),
    kills=["prior_ignored", "one_and_zero_swapped", "likelihood_tempered"],
)  # fmt: skip
def log_odds_are_linear(impl, c, expect):
    "log p(a | x) - log p(b | x) = w_0 + sum_i w_i x_i, w_i the difference of the logits of theta."
    posterior, _ = impl(c)
    x, prior, theta = f64(c, "x", "prior", "theta")
    for b in range(1, c.C):
        w = np.log(theta[0] / (1 - theta[0])) - np.log(theta[b] / (1 - theta[b]))
        w0 = np.log(prior[0] / prior[b]) + np.sum(np.log((1 - theta[0]) / (1 - theta[b])))
        wanted = w0 + x @ w
        with np.errstate(divide="ignore"):
            found = np.log(posterior[..., 0]) - np.log(posterior[..., b])
        expect(found, wanted, 4 * near(c) * np.ones(c.B), f"log odds of 0 against {b}", scale=1 + size(c))


@law(ID, "L4", closed_form=True, given=space.where(C=1, prior=np.ones(1)), kills=["absent_features_ignored"])
def one_class_is_independent_bits(impl, c, expect):
    "C = 1: the posterior is 1, and log p(x) = sum_i log theta_i or log(1 - theta_i)."
    posterior, evidence = impl(c)
    x, theta = f64(c, "x", "theta")
    expect(posterior, np.ones((*c.B, 1)), near(c) * np.ones((*c.B, 1)), "posterior")
    wanted = np.sum(np.where(x == 1, np.log(theta[0]), np.log(1 - theta[0])), -1)
    expect(evidence, wanted, near(c) * np.ones(c.B), "log evidence", scale=size(c))


@law(
    ID, "L5", closed_form=True,
    given=space.where(n=dims(1200, 1210), C=2, B=(2,), x=lambda draw, c: np.ones((2, c.n)),
                      prior=np.array([0.75, 0.25]),
                      theta=lambda draw, c: np.where(np.arange(c.n) == 0, [[0.5], [0.25]], 1 / 8) * np.ones((2, 1))),
    kills=["product_of_probabilities"],
)  # fmt: skip
def a_thousand_features(impl, c, expect):
    "All but one feature have 1/8 in both classes: the odds are 3 times 2, the evidence near 8^-n."
    posterior, evidence = impl(c)
    expect(posterior, np.broadcast_to([6 / 7, 1 / 7], (2, 2)), near(c) * np.ones((2, 2)), "posterior", scale=1.0)
    wanted = np.full(2, np.log(7 / 16) - (c.n - 1) * np.log(8))
    expect(evidence, wanted, near(c) * np.ones(2), "log evidence")


@law(
    ID, "L6", closed_form=True, needs=("vjp",), given=space.where(some=True).reach("rows", "uneven"),
    kills=["gradient_of_every_class", "gradient_of_the_best_class"],
)  # fmt: skip
def gradient_is_weighted_by_the_posterior(impl, c, expect):
    "d log p(x) / d theta_ci = p(c | x) (x_i / theta_ci - (1 - x_i) / (1 - theta_ci)), summed over the rows."
    g = cotangent(c, c.B)
    none = np.zeros((*c.B, c.C), c.dtype)
    x, theta = (a.reshape(-1, a.shape[-1]) for a in f64(c, "x", "theta"))
    joint = log_joint(c).reshape(-1, c.C)
    p = np.exp(joint - joint.max(-1, keepdims=True))
    p = p / p.sum(-1, keepdims=True)
    wanted, total = np.zeros(theta.shape), np.zeros(theta.shape)
    for row, weight, share in zip(x, np.asarray(g, np.float64).reshape(-1), p, strict=True):
        term = weight * share[:, None] * (row / theta - (1 - row) / (1 - theta))
        wanted, total = wanted + term, total + np.abs(term) + 16 * abs(weight)
    found = impl.vjp(c, (none, g))["theta"]
    limit = roundings(c, len(x) + 24, total * (1 + size(c)))
    expect(found, wanted, limit, "d theta", scale=float(np.max(total)))


# Mutants ---------------------------------------------------------------------------------------------


def default(C=2):
    """The default-size test: symmetric classes of even odds, as many ones as zeros."""
    theta = np.array([[0.25, 0.75], [0.75, 0.25]])[:C]
    return lambda: ((np.array([[1.0, 0.0], [0.0, 1.0]]), np.full(C, 1 / C), theta), {})


def judged(x, prior, theta, *, terms=None, weigh=True, of_evidence=None):
    """Posterior and evidence with parts that an edit replaces."""
    terms = terms or (lambda x, t: x @ np.log(t).T + (1 - x) @ np.log1p(-t).T)
    with np.errstate(divide="ignore"):
        plain = terms(np.asarray(x, np.float64), np.asarray(theta, np.float64))
        joint = plain + np.log(np.asarray(prior, np.float64)) if weigh else plain - np.log(len(prior))

    def lse(z):
        top = z.max(-1, keepdims=True)
        return (top + np.log(np.exp(z - top).sum(-1, keepdims=True)))[..., 0]

    evidence = lse(joint) if of_evidence is None else of_evidence(plain)
    return np.exp(joint - lse(joint)[..., None]).astype(x.dtype), evidence.astype(x.dtype)


@mutant(ID, default_case=default())
def prior_ignored(x, prior, theta):
    "Even odds before, whatever the prior says."
    return judged(x, prior, theta, weigh=False)


def _fair():
    return (np.array([[1.0, 1.0]]), np.array([0.5, 0.5]), np.array([[0.25, 0.75], [0.75, 0.25]])), {}


@mutant(ID, default_case=_fair)
def absent_features_ignored(x, prior, theta):
    "The multinomial model: only features that are present count."
    return judged(x, prior, theta, terms=lambda x, t: x @ np.log(t).T)


@mutant(ID, default_case=lambda: ((np.ones((2, 1)), np.array([0.5, 0.5]), np.array([[0.5], [0.5]])), {}))
def one_and_zero_swapped(x, prior, theta):
    "theta taken for the probability of a zero."
    return judged(x, prior, theta, terms=lambda x, t: (1 - x) @ np.log(t).T + x @ np.log1p(-t).T)


@mutant(ID, default_case=default(C=1))
def evidence_without_the_prior(x, prior, theta):
    "The likelihoods summed over the classes, not weighed."
    return judged(x, prior, theta, of_evidence=lambda z: np.log(np.exp(z).sum(-1)))


@mutant(ID, default_case=_fair)
def likelihood_tempered(x, prior, theta):
    "The mean over the features for the sum in the posterior."
    right = judged(x, prior, theta)
    soft = judged(
        x, prior, theta, terms=lambda x, t: (x @ np.log(t).T + (1 - x) @ np.log1p(-t).T) / max(x.shape[-1], 1)
    )
    return soft[0], right[1]


@mutant(ID, default_case=default())
def product_of_probabilities(x, prior, theta):
    "Probabilities multiplied: 0 / 0 from 360 features of 1/8 on."
    p = np.prod(np.where(x[..., None, :] == 1, theta, 1 - theta), -1) * prior
    total = p.sum(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(total[..., None] > 0, p / np.where(total > 0, total, 1)[..., None], 1 / len(prior))
        return share.astype(x.dtype), np.log(np.maximum(total, np.finfo(x.dtype).tiny)).astype(x.dtype)


def _vjp_mutant(name, doc, shares):
    def function(x, prior, theta):
        return judged(x, prior, theta)

    def vjp(g, x, prior, theta):
        p = shares(judged(x, prior, theta)[0].astype(np.float64))
        score = x[..., None, :] / theta - (1 - x[..., None, :]) / (1 - theta)
        whole = g[1][..., None, None] * p[..., None] * score
        return {"theta": whole.reshape(-1, *theta.shape).sum(0).astype(x.dtype)}

    function.__name__, function.__doc__ = name, doc
    mutant(ID, vjp=vjp, default_case=default())(function)


_vjp_mutant("gradient_of_every_class", "Each class as if it alone had made the row.", np.ones_like)
_vjp_mutant("gradient_of_the_best_class", "The most probable class takes the row whole (hard assignment).",
            lambda p: (p == p.max(-1, keepdims=True)).astype(np.float64))  # fmt: skip
