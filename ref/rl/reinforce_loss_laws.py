"""Laws and mutants of REINFORCE."""

from __future__ import annotations

import itertools

import numpy as np

from ref.rl.common_laws import (
    Terms,
    dyadics,
    even_batch,
    plain,
    policy_cases,
    policy_laws,
    policy_mutant,
    reduction_mutants,
)  # fmt: skip
from ref.spec import bounds, law
from ref.spec.cases import dims

ID = "rl.reinforce_loss"
OWN = "seq-mean-token-sum"
space = policy_cases(ID, returns=dyadics("B t", -2, 2, 4), baselines=dyadics("B t", -1, 1, 4))


def terms(c):
    """-(R - b) log pi, one by one."""
    values, slopes, sizes = np.zeros((3, *c.mask.shape))
    for i, t in zip(*np.nonzero(c.mask), strict=True):
        at = (i, t if c.returns.shape[1] > 1 else 0)
        a, lp = float(c.returns[at]) - float(c.baselines[at]), float(c.log_probs[i, t])
        values[i, t], slopes[i, t], sizes[i, t] = -a * lp, -a, abs(a) * (1 + abs(lp))
    return Terms(values, slopes, sizes)


# Mutants ---------------------------------------------------------------------------------------------


def base(lp, returns, baselines, mask, *, reduction=OWN, **edit):
    """(loss, gradient) in plain NumPy."""
    a = edit.pop("a", lambda r, b: r - b)(returns, baselines)
    slope = edit.pop("slope", lambda s: s)
    return plain(lp, lp, a, mask, token=lambda ratio, a, lp: (-a * lp, slope(-a)), reduction=reduction, **edit)


def case(reduction=OWN, **more):
    """The default-size test: rows of one length, baselines 0."""
    def make():
        (lp, _, r, mask), _ = even_batch()()
        args = (lp, r, np.zeros_like(r), mask)
        if reduction in ("token-mean", "seq-mean-token-mean"):
            args = tuple(x[:, :1] for x in args)
        return args, more

    return make


def _mutant(name, doc, **edits):
    policy_mutant(ID, name, doc, base, default_case=case(), **edits)


whole, numerator, junk = reduction_mutants(ID, base, case, OWN)
_mutant("baseline_ignored", "R alone.", value={"a": lambda r, b: r})
_mutant("baseline_added", "R + b.", value={"a": lambda r, b: r + b})
_mutant("gradient_ascends", "The gradient of -L.", slope={"slope": lambda s: -s})
policy_mutant(ID, "return_of_the_first_token", "The first token's return for all.", base, default_case=case(),
              value={"a": lambda r, b: (r - b)[:, :1]})  # fmt: skip
policy_laws(
    ID, space, terms, junk=("log_probs",),
    kills={"L1": [*whole, "baseline_ignored", "baseline_added", "return_of_the_first_token"],
    "L2": ["gradient_ascends"],
           "L3": junk, "L4": numerator, "L5": ["mean_of_means"]},
)  # fmt: skip


def outcomes(c):
    """Three responses of one token, pi their probabilities and r their rewards."""
    g = np.random.default_rng(int(np.sum(np.abs(np.asarray(c.log_probs)) * 64)))
    pi = g.integers(1, 9, 3).astype(np.float64)
    return pi / pi.sum(), g.integers(-8, 9, 3) / 4.0


def expected_gradient(impl, c, pi, r, G, baseline):
    """E grad_z of the loss over all 3^G batches of G responses, pi = softmax(z), each with its probability.

    All batches stand in one, under count = G: the loss is a sum over rows.
    """
    at = np.array(list(itertools.product(range(3), repeat=G)))
    b = np.array([baseline(r[group]) for group in at])
    column = lambda x: np.reshape(x, (-1, 1)).astype(c.dtype)  # noqa: E731
    now = c.replace(B=at.size, T=1, t=1, count=G, reduction=OWN, length=None, log_probs=column(np.log(pi[at])),
                    mask=np.ones((at.size, 1), bool), returns=column(r[at]), baselines=column(b))  # fmt: skip
    d = np.asarray(impl.vjp(now, np.array(1.0, c.dtype))["log_probs"], np.float64).reshape(at.shape)
    score = np.eye(3)[at] - pi
    return np.einsum("g,gi,gik->k", np.prod(pi[at], -1), d, score)


@law(ID, "L6", closed_form=True, needs=("vjp",), given=space.where(B=dims(1, 2)), kills=["gradient_ascends"])
def policy_gradient_for_any_baseline(impl, c, expect):
    "Over all batches of two of three responses: E grad L = -grad_z E r = -pi (r - E r), for b = 0 and for b = 1.5."
    pi, r = outcomes(c)
    for b in (0.0, 1.5):
        found = expected_gradient(impl, c, pi, r, 2, lambda r, b=b: np.full(len(r), b))
        wanted = -pi * (r - pi @ r)
        expect(found, wanted, bounds.rounding(128, 8.0, c.dtype), f"b = {b}", scale=1.0)


@law(ID, "L7", closed_form=True, needs=("vjp",), given=space.where(B=dims(1, 2)), kills=["gradient_ascends"])
def the_batch_mean_costs_one_over_b(impl, c, expect):
    "b = the batch's own mean of B rewards: E grad L is (B - 1) / B of the policy gradient."
    pi, r = outcomes(c)
    for G in (2, 3):
        found = expected_gradient(impl, c, pi, r, G, lambda r: np.full(len(r), r.mean()))
        expect(found, -(G - 1) / G * pi * (r - pi @ r), bounds.rounding(256, 8.0, c.dtype), f"B = {G}", scale=1.0)
