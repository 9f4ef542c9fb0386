"""Laws and mutants of ORPO."""

from __future__ import annotations

import math

import mpmath
import numpy as np

from ref.rl.common_laws import (
    even_pairs,
    pair_cases,
    pair_laws,
    pair_loss,
    pair_mutants,
    policy_mutant,
    scores,
    sigma,
    token_pairs,
)  # fmt: skip
from ref.spec import bounds, law
from ref.spec.cases import Flag, choose

ID = "rl.orpo_loss"
space = pair_cases(
    ID, ref=False, weight=choose(0.25, 1.0, 0.0), nll=choose("sequence", "token"),
    flags={"countable": Flag(lambda c: c.nll == "sequence" or c.count is None)},
).where(countable=True)  # fmt: skip


def odds(a):
    """log(P / (1 - P)) at log P = a."""
    return a - math.log(-math.expm1(a))


def terms(c):
    """-avg_w + weight softplus(log odds of the rejected - of the chosen), pair by pair; slopes by the averages."""
    x, size = scores(c, "mean")
    n = np.sum(c.mask[:, 0], -1)
    share = n * c.P / n.sum() if c.nll == "token" else np.ones(c.P)
    d = np.array([odds(a) - odds(b) for a, b in x])
    losses = np.array([max(-v, 0) + math.log1p(math.exp(-abs(v))) for v in d])
    steep = np.array([[1 / -math.expm1(a), 1 / -math.expm1(b)] for a, b in x])  # d odds / d log P
    pull = -c.weight / (1 + np.exp(d))
    slopes = np.stack([pull * steep[:, 0] - share, -pull * steep[:, 1]], 1)
    sizes = share * size[:, 0] + c.weight * (losses + np.abs(x).sum(-1) + steep.sum(-1) * (1 + size.sum(-1)))
    return -share * x[:, 0] + c.weight * losses, slopes, sizes + np.abs(slopes).sum(-1)


# Mutants ---------------------------------------------------------------------------------------------


def base(lp, mask, *, weight=0.1, nll="sequence", count=None, **edit):
    """(loss, gradient) in plain NumPy."""
    of_odds = edit.pop("odds", lambda a: (a - np.log(-np.expm1(a)), -1 / np.expm1(a)))
    sign, share = edit.pop("sign", 1.0), np.ones(len(lp))
    n = mask[:, 0].sum(-1)
    if edit.pop("nll_is", lambda nll: nll)(nll) == "token":
        share = n * len(lp) / n.sum()

    def f(w, r):
        (ow, sw), (ol, sl) = of_odds(w), of_odds(r)
        d = ow - ol
        pull = -sign * weight * sigma(-d)
        return -share * w + sign * weight * np.logaddexp(0, -d), pull * sw - share, -pull * sl

    return pair_loss(lp, mask, f=f, of="mean", count=count, **edit)


def probable(T=3, **options):
    """Responses with average log-probability below 0."""
    return even_pairs(T, ref=False, **options)


kills = pair_mutants(ID, base, probable(), probable(1))
for name, doc, case, edit in (
    ("log_ratio_for_the_odds", "log P for the log odds.", probable(weight=0.0),
    {"odds": lambda a: (a, np.ones_like(a))}),
    ("odds_subtracted", "- weight: the rejected gains.", probable(weight=0.0), {"sign": -1.0}),
    ("nll_by_sequence", "Each response's mean whatever nll says.", probable(nll="token"),
    {"nll_is": lambda nll: "sequence"}),
    ("odds_by_one_minus_exp", "log(1 - e^a): digits are lost near P = 1.", probable(), {"odds": lambda a: (
        a - np.log((1 - np.exp(a).astype(np.float32)).astype(a.dtype) if a.dtype == np.float64 else 1 - np.exp(a)),
        -1 / np.expm1(a))}),
):  # fmt: skip
    policy_mutant(ID, name, doc, base, default_case=case, value=edit)
kills["L1"] += ["log_ratio_for_the_odds", "odds_subtracted", "nll_by_sequence"]
pair_laws(ID, space, terms, kills, of="mean", junk=("log_probs",), cut={"nll": "sequence"})


@law(ID, "L5", closed_form=True, given=space, kills=["odds_subtracted"])
def equal_odds_leave_the_likelihood(impl, c, expect):
    "Both responses of average log 1/2: log 2 (1 + weight) a pair."
    now = c.replace(log_probs=np.full(c.mask.shape, -math.log(2)).astype(c.dtype))
    wanted = math.log(2) * (1 + c.weight) * c.P / (c.count or c.P)
    expect(impl(now), np.array(wanted), bounds.rounding(4 * c.T + 128, wanted, c.dtype))


@law(ID, "L6", closed_form=True, given=space.where(count=None, nll="sequence", weight=1.0),
    kills=["odds_by_one_minus_exp"])
def near_certain_responses_keep_their_digits(impl, c, expect):
    "log P = -2^-12 and -2^-10: the log odds by 50-digit arithmetic; 1 - e^a has lost twelve bits of them."
    a, b = mpmath.mpf(-(2.0**-12)), mpmath.mpf(-(2.0**-10))
    with mpmath.workdps(50):
        gap = mpmath.log(mpmath.e**a / (1 - mpmath.e**a)) - mpmath.log(mpmath.e**b / (1 - mpmath.e**b))
        wanted = float(-a + mpmath.log(1 + mpmath.e ** (-gap)))
    now = token_pairs(c, np.array([[float(a), float(b)]]))
    expect(impl(now), np.array(wanted), bounds.rounding(64, 1.0, c.dtype))
