"""Laws and mutants of discounted occupancy."""

from __future__ import annotations

import numpy as np

from ref.mdp.common_laws import chances, f64, model_space, policies, ring, series, solve_bound, uniform, value_of
from ref.spec import bounds, law, mutant
from ref.spec.cases import dims, rng

ID = "mdp.occupancy"
space = model_space(
    ID, policy=policies, other=policies, start=lambda draw, c: chances(rng(draw), (c.S,)),
)  # fmt: skip


def bound(c):
    """Of shares: a solve whose solution is at most 1 / (1 - gamma), times 1 - gamma."""
    unit = c.replace(R=np.ones((c.S, c.A)))
    return solve_bound(unit) * (1 - c.gamma) + bounds.rounding(4, 1.0, c.dtype)


@law(
    ID, "L1", closed_form=True, given=space.reach("chancy", "one_state", "no_future"),
    kills=["transposed", "not_normalised", "start_does_not_count", "uniform_start", "undiscounted_visits"],
)  # fmt: skip
def sum_over_time(impl, c, expect):
    "d = (1 - gamma) sum_i gamma^i mu P_pi^i, by doubling: 1024 steps."
    P, policy, mu = f64(c.P, c.policy, c.start)
    wanted = (1 - c.gamma) * series(c.gamma * np.einsum("sa,sat->ts", policy, P), mu)
    expect(impl(c), wanted, bound(c), scale=1.0)


@law(ID, "L2", closed_form=True, given=space, kills=["not_normalised", "ridge"],
     passes_null=["identity"])  # fmt: skip
def is_a_distribution(impl, c, expect):
    "d >= 0 and sum d = 1."
    d = np.asarray(impl(c), np.float64)
    expect(np.sum(d), np.array(1.0), c.S * bound(c), "the sum")
    expect.at_most(-bound(c), d, "0, less rounding")


@law(ID, "L3", closed_form=True, given=space.reach("chancy"), kills=["transposed", "uniform_start", "ridge"])
def rewards_weighted_by_visits(impl, c, expect):
    "d . R_pi / (1 - gamma) = mu . v_pi, v_pi the discounted sum of rewards; and so for the reward 1."
    policy, mu, d = f64(c.policy, c.start, impl(c))
    for R in (np.asarray(c.R, np.float64), np.ones((c.S, c.A))):
        v = value_of(c.P, R, c.policy, c.gamma)
        slack = c.S * bound(c) * np.max(np.abs(R)) / (1 - c.gamma)
        expect(d @ np.sum(policy * R, -1) / (1 - c.gamma), mu @ v, slack, scale=1 + np.max(np.abs(R)) / (1 - c.gamma))


@law(ID, "L4", closed_form=True, given=space.reach("chancy"), kills=["transposed", "start_does_not_count"])
def performance_difference(impl, c, expect):
    """mu . (v_pi - v_old) = d . u / (1 - gamma), u(s) = sum_a pi(a | s) (q_old(s, a) - v_old(s)) for any old policy:
    the lemma of Kakade & Langford."""
    P, R, policy, mu = f64(c.P, c.R, c.policy, c.start)
    old, new = value_of(c.P, c.R, c.other, c.gamma), value_of(c.P, c.R, c.policy, c.gamma)
    gain = np.sum(policy * (R + c.gamma * P @ old - old[:, None]), -1)
    size = np.max(np.abs(gain)) + 1
    d = np.asarray(impl(c), np.float64)
    slack = c.S * bound(c) * size / (1 - c.gamma)
    expect(d @ gain / (1 - c.gamma), mu @ (new - old), slack, scale=size / (1 - c.gamma))


@law(
    ID, "L5", closed_form=True, given=space.where(S=dims(2, 4), A=1, P=lambda draw, c: ring(c.S)[0]),
    kills=["transposed", "start_does_not_count"],
)  # fmt: skip
def ring_in_closed_form(impl, c, expect):
    "Round a ring of n from state 0: d(s) = (1 - gamma) gamma^s / (1 - gamma^n)."
    now = c.replace(start=np.eye(c.S)[0].astype(c.dtype))
    wanted = (1 - c.gamma) * c.gamma ** np.arange(c.S) / (1 - c.gamma**c.S)
    expect(impl(now), wanted, bound(c), scale=1.0)


# Mutants ---------------------------------------------------------------------------------------------


def alike(gamma=0.5, S=3):
    """The default-size test: a ring, from everywhere."""
    return lambda: ((ring(S)[0], uniform(S), np.full(S, 1 / S)), {"gamma": gamma})


def solved(M, start, gamma, share=None):
    share = 1 - gamma if share is None else share
    return (share * np.linalg.solve(np.eye(len(M)) - gamma * M, start)).astype(start.dtype)


def chain(P, policy):
    return np.einsum("sa,sat->st", policy, P)


@mutant(ID, default_case=alike())
def transposed(P, policy, start, *, gamma):
    "Values for visits: no transpose."
    return solved(chain(P, policy), start, gamma)


@mutant(ID, default_case=alike(gamma=0.0))
def not_normalised(P, policy, start, *, gamma):
    "The sum of visits, 1 / (1 - gamma) in all."
    return solved(chain(P, policy).T, start, gamma, 1.0)


@mutant(ID, default_case=alike())
def start_does_not_count(P, policy, start, *, gamma):
    "The visits from the first step on."
    M = chain(P, policy).T
    return solved(M, (M @ start).astype(start.dtype), gamma)


@mutant(ID, default_case=alike())
def uniform_start(P, policy, start, *, gamma):
    "From everywhere, whatever the start is."
    return solved(chain(P, policy).T, np.full_like(start, 1 / len(start)), gamma)


@mutant(ID, default_case=alike())
def undiscounted_visits(P, policy, start, *, gamma):
    "The mean over 1 / (1 - gamma) steps, all alike."
    M, d, total, n = chain(P, policy).T, start, 0 * start, max(1, round(1 / (1 - gamma)))
    for _ in range(n):
        total, d = total + d / n, M @ d
    return total.astype(start.dtype)


@mutant(ID, default_case=alike())
def ridge(P, policy, start, *, gamma):
    "1e-6 on the diagonal, against singular systems."
    M = chain(P, policy).T
    return ((1 - gamma) * np.linalg.solve((1 + 1e-6) * np.eye(len(M)) - gamma * M, start)).astype(start.dtype)
