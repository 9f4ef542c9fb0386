"""Laws and mutants of the rewards of tokens."""

from __future__ import annotations

import math

import numpy as np

from ref.rl.common_laws import dyadics, filled_mask, log_probs, with_junk
from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, cases, choose, dims

ID = "rl.kl_reward"
space = cases(
    ID, B=dims(1, 3, large=6), T=dims(1, 5, large=40), beta=choose(0.125, 0.0, 2.0),
    kind=choose("k1", "k3", "k2", "abs"),
    mask=filled_mask, scores=dyadics("B", -2, 2, 4), log_probs=log_probs, ref_log_probs=log_probs,
    flags={
        "masked": Flag(lambda c: not np.all(c.mask), {"T": dims(2, 5)}),
        "padded": Flag(lambda c: not np.all(c.mask[:, -1]), {"T": dims(2, 5)}),
        "penalised": Flag(lambda c: c.beta > 0, {"beta": choose(0.125, 2.0)}),
    },
)  # fmt: skip


def penalties(c):
    """beta k, token by token."""
    out = np.zeros(c.mask.shape)
    for at in zip(*np.nonzero(c.mask), strict=True):
        x = float(c.ref_log_probs[at]) - float(c.log_probs[at])
        out[at] = c.beta * {"k1": -x, "k2": x * x / 2, "k3": math.exp(x) - 1 - x, "abs": abs(x)}[c.kind]
    return out


def limit(c):
    return bounds.rounding(32, 2 + c.beta * 32, c.dtype)


@law(ID, "L1", closed_form=True, given=space.reach("masked", "padded", "penalised"),
     kills=["score_at_the_last_column", "score_on_every_token", "penalty_added", "always_k1", "beta_ignored",
     "score_on_the_first"])  # fmt: skip
def value_is_the_definition(impl, c, expect):
    "-beta k on each kept token, the score on the last kept one besides, 0 elsewhere."
    wanted = -penalties(c)
    for i, row in enumerate(np.asarray(c.mask)):
        wanted[i, np.flatnonzero(row)[-1]] += float(c.scores[i])
    found = impl(c)
    expect(found, wanted, limit(c), scale=1.0)
    expect.same(found[~c.mask], np.zeros(int((~c.mask).sum())), "masked")


@law(ID, "L2", closed_form=True, given=space.where(kind="k1"), kills=["score_on_every_token", "penalty_added"])
def rewards_telescope(impl, c, expect):
    "kind k1: a row adds up to score - beta (log pi(y) - log ref(y)), the sums over its kept tokens."
    gap = np.where(c.mask, np.asarray(c.log_probs, np.float64) - c.ref_log_probs, 0).sum(-1)
    found = np.asarray(impl(c), np.float64).sum(-1)
    expect(found, np.asarray(c.scores, np.float64) - c.beta * gap, c.T * limit(c), scale=1.0)


@law(ID, "L3", given=space.where(masked=True), kills=["masked_by_multiplying"],
    passes_null=["zeros", "constant", "identity"])
def masked_junk_is_invisible(impl, c, expect):
    "NaN, inf or 1e30 in masked slots changes no bit."
    expect.same(impl(with_junk(c, "log_probs", "ref_log_probs")), impl(c))


@law(ID, "L4", closed_form=True, given=space.where(penalised=True, kind="k1"), kills=["penalty_added", "beta_ignored"])
def the_bandit_optimum_is_the_gibbs_policy(impl, c, expect):
    """Four responses of one token: at pi* = ref e^(r / beta) / Z every response has the total reward beta log Z, and at
    any other policy the mean is beta log Z - beta KL(pi | pi*)."""
    g = np.random.default_rng(int(np.sum(np.abs(np.asarray(c.log_probs)) * 64)))
    ref, r = g.integers(1, 9, 4).astype(np.float64), g.integers(-8, 9, 4) / 8.0
    ref = ref / ref.sum()
    z = float(np.sum(ref * np.exp(r / c.beta)))
    best = ref * np.exp(r / c.beta) / z
    for pi in (best, np.full(4, 0.25)):
        now = c.replace(B=4, T=1, scores=r.astype(c.dtype), log_probs=np.log(pi)[:, None].astype(c.dtype),
                        ref_log_probs=np.log(ref)[:, None].astype(c.dtype), mask=np.ones((4, 1), bool))  # fmt: skip
        total = np.asarray(impl(now), np.float64)[:, 0]
        kl = float(np.sum(pi * np.log(pi / best)))
        slack = bounds.rounding(64, 2 + c.beta * (8 + 16 / c.beta), c.dtype)
        expect(pi @ total, np.array(c.beta * (math.log(z) - kl)), slack, "mean reward", scale=1.0)
        if pi is best:
            expect(total, np.full(4, c.beta * math.log(z)), slack, "reward at the optimum", scale=1.0)


@law(ID, "L5", given=space.where(padded=True, beta=0.0), kills=["score_at_the_last_column"])
def the_score_stands_on_a_kept_token(impl, c, expect):
    "beta 0: the kept rewards of a row add up to its score; three more columns of padding change none of them."
    found = impl(c)
    expect.same(np.where(c.mask, found, 0).sum(-1), c.scores, "kept rewards")
    wider = {n: np.concatenate([c[n], c[n][:, :1].repeat(3, 1)], 1) for n in ("log_probs", "ref_log_probs")}
    mask = np.concatenate([c.mask, np.zeros((c.B, 3), bool)], 1)
    expect.same(impl(c.replace(**wider, mask=mask, T=c.T + 3))[:, : c.T], found, "under more padding")


# Mutants ---------------------------------------------------------------------------------------------


def full_rows(**options):
    """The default-size test: rows without padding, the reference itself."""
    lp = -np.abs(np.random.default_rng(0).standard_normal((2, 3)))
    return lambda: ((np.array([1.0, -1.0]), lp, lp.copy(), np.ones((2, 3), bool)), {"beta": 0.125, **options})


def plain(scores, lp, ref, mask, *, beta, kind="k1", **edit):
    x = edit.get("hide", lambda x, m: np.where(m, x, 0))(ref - lp, mask)
    k = {"k1": -x, "k2": x * x / 2, "k3": np.exp(x) - 1 - x, "abs": np.abs(x)}[edit.get("kind_as", lambda k: k)(kind)]
    last = edit.get("last", lambda m: m.shape[1] - 1 - np.argmax(m[:, ::-1], axis=1))(mask)
    at = edit.get("at", lambda last, T: np.arange(T) == last[:, None])(last, mask.shape[1])
    out = edit.get("sign", -1.0) * edit.get("beta_as", beta) * k + np.where(at, scores[:, None], 0)
    return (np.where(mask, out, 0) if "hide" not in edit else out * mask).astype(lp.dtype)


def _mutant(name, doc, thread=None, case=None, **edit):
    def function(*args, **options):
        return plain(*args, **options, **edit)

    function.__name__, function.__doc__ = name, doc
    mutant(ID, thread=thread, default_case=case or full_rows())(function)


_mutant("score_at_the_last_column", "Reward on a padded token: the last column's, masked away in every padded row.",
        last=lambda m: np.full(len(m), m.shape[1] - 1))  # fmt: skip
_mutant("score_on_every_token", "The score on each token.", at=lambda last, T: np.ones((len(last), T), bool),
    case=lambda: (
    (np.array([1.0]), -np.ones((1, 1)), -np.ones((1, 1)), np.ones((1, 1), bool)), {"beta": 0.5}))  # fmt: skip
_mutant("score_on_the_first", "The score on the first kept token.", last=lambda m: np.argmax(m, axis=1), case=lambda: (
    (np.array([1.0]), -np.ones((1, 1)), -np.ones((1, 1)), np.ones((1, 1), bool)), {"beta": 0.5}))  # fmt: skip
_mutant("penalty_added", "+ beta k: the policy is paid for leaving.", sign=1.0)
_mutant("always_k1", "k1 under every name.", kind_as=lambda k: "k1")
_mutant("beta_ignored", "beta = 1.", beta_as=1.0)
_mutant("masked_by_multiplying", "Times the mask: NaN stays.", hide=lambda x, m: x * m)
