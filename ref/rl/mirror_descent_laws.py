"""Laws and mutants of policy mirror descent."""

from __future__ import annotations

import math

import numpy as np

from ref.rl.common_laws import dyadics
from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, batch, cases, choose, dims

ID = "rl.mirror_descent"
space = cases(
    ID, B=batch(1, 3), K=dims(1, 5, large=20), tau=choose(0.5, 1.0, 0.125), log_policy=dyadics("*B K", -4, 0, 8),
    rewards=dyadics("*B K", -2, 2, 4),
    flags={"some": Flag(lambda c: 0 not in c.B, {"B": choose((), (2,)), "K": dims(2, 5)}),
    "one": Flag(lambda c: c.K == 1, {"K": 1})},
)  # fmt: skip


def limit(c):
    """Logarithms up to |log pi| + |r| / tau, and K additions."""
    top = 8 + 8 / c.tau
    return bounds.rounding(4 * c.log_policy.shape[-1] + 32, top, c.dtype)


def weights(c, tau=None):
    w = np.exp(np.asarray(c.log_policy, np.float64)) * np.exp(np.asarray(c.rewards, np.float64) / (tau or c.tau))
    return w / w.sum(-1, keepdims=True)


@law(ID, "L1", closed_form=True, given=space.where(some=True).reach("one"),
    kills=["not_normalised", "tau_multiplies", "policy_forgotten", "tau_ignored"])
def weights_times_exponentials(impl, c, expect):
    "pi_i e^(r / tau) over its sum, response by response."
    expect(impl(c), np.log(weights(c)), limit(c), scale=4.0)


@law(ID, "L2", closed_form=True, given=space.where(some=True), kills=["policy_forgotten", "tau_multiplies"])
def n_steps_are_one_of_tau_over_n(impl, c, expect):
    "Three steps: pi_0 e^(3 r / tau) / Z_3."
    now = c
    for _ in range(3):
        now = c.replace(log_policy=impl(now))
    expect(now.log_policy, np.log(weights(c, c.tau / 3)), 8 * limit(c), scale=8.0)


@law(ID, "L3", closed_form=True, given=space.where(some=True), kills=["not_normalised", "exponent_first"],
    passes_null=["zeros", "constant", "identity"])
def a_shift_of_the_rewards_is_invisible(impl, c, expect):
    "Rewards + 2000: the same policy."
    moved = c.replace(rewards=c.rewards + c.dtype.type(2000.0))
    slack = limit(c) + bounds.rounding(8, 2008 / c.tau, c.dtype)
    expect(impl(moved), impl(c), slack + limit(c), scale=2000.0 if c.dtype == np.float32 else 4.0)


@law(ID, "L4", closed_form=True, given=space.where(some=True, B=()), kills=["tau_ignored", "policy_forgotten"])
def no_policy_does_better(impl, c, expect):
    "J(pi) = E_pi r - tau KL(pi | pi_i) is tau log Z - tau KL(pi | pi*): at the result tau log Z, elsewhere less."
    old = np.exp(np.asarray(c.log_policy, np.float64))
    old = old / old.sum()
    r = np.asarray(c.rewards, np.float64)
    log_z = math.log(float(np.sum(old * np.exp(r / c.tau))))
    J = lambda pi: float(np.sum(pi * (r - c.tau * np.log(pi / old))))  # noqa: E731
    best = np.exp(np.asarray(impl(c), np.float64))
    expect(J(best), np.array(c.tau * log_z), 8 * limit(c) * (1 + c.tau), "J at the result", scale=4.0)
    for pi in (old, np.full(c.K, 1 / c.K)):
        kl = float(np.sum(pi * np.log(pi / weights(c))))
        expect(J(pi), np.array(c.tau * (log_z - kl)), 8 * limit(c) * (1 + c.tau), "J elsewhere", scale=4.0)
        expect.at_most(J(pi), J(best) + 8 * limit(c) * (1 + c.tau), "J elsewhere")


@law(ID, "L5", given=space.where(some=True), kills=["floored"], passes_null=[])
def the_impossible_stays_so(impl, c, expect):
    "A response of probability 0 keeps it, whatever its reward; the others are as if it were not there."
    lp, r = c.log_policy.copy(), c.rewards.copy()
    lp[..., -1], r[..., -1] = -np.inf, 1000.0
    found = impl(c.replace(log_policy=lp, rewards=r))
    expect.same(found[..., -1], np.full(c.B, -np.inf), "the impossible")
    fewer = c.replace(log_policy=c.log_policy[..., :-1].copy(), rewards=c.rewards[..., :-1].copy(), K=c.K - 1)
    expect(found[..., :-1], np.log(weights(fewer)), 2 * limit(c), "the others", scale=4.0)


# Mutants ---------------------------------------------------------------------------------------------


def default():
    """The default-size test: equal rewards, a uniform policy, tau 1."""
    return (np.log(np.full(4, 0.25)), np.zeros(4)), {"tau": 1.0}


def plain(log_policy, rewards, *, tau, **edit):
    x = edit.get("x", lambda lp, r, tau: lp + r / tau)(log_policy, rewards, tau)
    if edit.get("raw"):
        return x.astype(log_policy.dtype)
    if edit.get("naive"):
        e = np.exp(log_policy) * np.exp(np.minimum(rewards / tau, 700))
        return np.log(e / e.sum(-1, keepdims=True)).astype(log_policy.dtype)
    x = edit.get("floor", lambda x: x)(x)
    top = x.max(-1, keepdims=True)
    return (x - top - np.log(np.exp(x - top).sum(-1, keepdims=True))).astype(log_policy.dtype)


def _mutant(name, doc, case=None, thread=None, **edit):
    def function(*args, **options):
        return plain(*args, **options, **edit)

    function.__name__, function.__doc__ = name, doc
    mutant(ID, default_case=case or default, thread=thread)(function)


_mutant("not_normalised", "log pi + r / tau.", raw=True)
_mutant("tau_multiplies", "e^(tau r).", x=lambda lp, r, tau: lp + r * tau)
_mutant("tau_ignored", "tau = 1.", x=lambda lp, r, tau: lp + r)
_mutant("policy_forgotten", "softmax(r / tau).", x=lambda lp, r, tau: r / tau)
_mutant("exponent_first", "e^(r / tau) as written: it overflows.", naive=True)
_mutant("floored", "Log-probabilities bounded at -20 before the step.", floor=lambda x: np.maximum(x, -20))
