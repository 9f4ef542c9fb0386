"""Laws and mutants of exact policy evaluation."""

from __future__ import annotations

import numpy as np

from ref.mdp.common_laws import (
    backup_bound,
    f64,
    model_space,
    policies,
    quarters,
    ring,
    series,
    solve_bound,
    top,
    uniform,
    value_of,
)
from ref.mdp.policy_evaluation import policy_evaluation
from ref.spec import bounds, law, mutant
from ref.spec.cases import choose, dims

ID = "mdp.policy_evaluation"
space = model_space(
    ID,
    policy=policies,
    other=policies,
    mu=lambda draw, c: np.full(c.S, 1 / c.S),
    phi=quarters("S"),
    up=choose(0.5, 0.25, 0.75),
)


@law(
    ID, "L1", closed_form=True, given=space.reach("chancy", "one_state", "no_future", "absorbing"),
    kills=["hundred_sweeps", "transposed", "uniform_actions", "discounts_the_reward", "ridge", "mean_of_the_actions"],
)  # fmt: skip
def discounted_sum_of_rewards(impl, c, expect):
    "v = sum_i (gamma P_pi)^i R_pi, by doubling: 1024 steps."
    expect(impl(c), value_of(c.P, c.R, c.policy, c.gamma), solve_bound(c), scale=1 + top(c))


@law(
    ID, "L2", closed_form=True, given=space.where(kind="stochastic"),
    kills=["hundred_sweeps", "discounts_the_reward", "ridge"],
)  # fmt: skip
def constant_reward(impl, c, expect):
    "Every reward r: v = r / (1 - gamma) everywhere."
    now = c.replace(R=np.full(c.R.shape, 1.5, c.dtype))
    expect(impl(now), np.full(c.S, 1.5 / (1 - c.gamma)), solve_bound(now))


@law(ID, "L3", given=space.reach("chancy"), kills=["transposed", "uniform_actions", "mean_of_the_actions"])  # fmt: skip
def performance_difference(impl, c, expect):
    """mu . (v_new - v_old) = sum_i gamma^i mu . P_new^i u, u(s) = sum_a pi_new(a | s) (q_old(s, a) - v_old(s)): the
    advantages of the old policy along the new one's way."""
    old, new = f64(impl(c), impl(c.replace(policy=c.other.astype(c.dtype))))
    P, R, other, mu = f64(c.P, c.R, c.other, c.mu)
    gain = np.sum(other * (R + c.gamma * P @ old - old[:, None]), -1)
    way = series(c.gamma * np.einsum("sa,sat->st", other, P), gain)
    slack = (solve_bound(c) + backup_bound(c, old)) * 4 / (1 - c.gamma)
    expect(mu @ (new - old), mu @ way, slack, scale=1 + top(c))


@law(
    ID, "L4", closed_form=True, dtypes=("float64",),
    given=space.where(A=1, S=dims(3, 9), gamma=1.0, P=lambda draw, c: walk(c)[0],
                      R=lambda draw, c: walk(c)[1], policy=lambda draw, c: np.ones((c.S, 1))),
    kills=["ends_are_not_taken_out", "hundred_sweeps", "rewards_of_the_ends"],
)  # fmt: skip
def ruin_of_a_gambler(impl, c, expect):
    """gamma = 1 on 0 .. n, up with chance p, down with q, both ends absorbing, 1 for coming to n: v(s) =
    (1 - (q / p)^s) / (1 - (q / p)^n), s / n at p = 1/2; and with 1 a step, s (n - s) steps at p = 1/2, else
    (s - n v(s)) / (q - p)."""
    n, s, ratio = c.S - 1, np.arange(c.S), (1 - c.up) / c.up
    chance = s / n if ratio == 1 else (1 - ratio**s) / (1 - ratio**n)
    few = bounds.rounding(64 * n, n * n * ratio ** (n if ratio > 1 else 0), c.dtype)
    chance = np.where(s == n, 0.0, chance)  # the reward is paid on the way in: the end itself is worth 0
    expect(impl(c), chance, few, "chance to win", scale=1.0)
    each = np.ones((c.S, 1))
    each[[0, -1]] = 0
    wins = np.where(s == n, 1.0, chance)
    steps = s * (n - s) if ratio == 1 else (s - n * wins) / (1 - 2 * c.up)
    expect(impl(c.replace(R=each)), steps, few * n, "steps", scale=float(n))


def walk(c):
    """(P, R) of the gambler's walk."""
    P = np.zeros((c.S, 1, c.S))
    P[0, 0, 0] = P[-1, 0, -1] = 1
    for s in range(1, c.S - 1):
        P[s, 0, s + 1], P[s, 0, s - 1] = c.up, 1 - c.up
    R = np.zeros((c.S, 1))
    R[-2] = c.up
    return P, R


@law(ID, "L5", given=space, kills=["ridge", "uniform_actions"])
def the_bellman_equation_holds(impl, c, expect):
    "R_pi + gamma P_pi v = v."
    v = impl(c)
    P, R, policy, v64 = f64(c.P, c.R, c.policy, v)
    step = np.sum(policy * (R + c.gamma * P @ v64), -1)
    expect(v, step, 2 * solve_bound(c) + backup_bound(c, v), scale=1 + top(c))


@law(
    ID, "L6", closed_form=True, needs=("vjp",), given=space.reach("chancy"),
    kills=["gradient_not_transposed", "gradient_of_one_step", "gradient_of_the_policy_without_future"],
)  # fmt: skip
def policy_gradient_theorem(impl, c, expect):
    """Of J = mu . v, with the visits d = sum_i gamma^i (P_pi^T)^i mu: dpi(a | s) = d(s) q(s, a), dR(s, a) =
    d(s) pi(a | s), dP(t | s, a) = gamma d(s) pi(a | s) v(t)."""
    mu = np.cos(np.arange(c.S)).astype(c.dtype)
    P, R, policy, mu64 = f64(c.P, c.R, c.policy, mu)
    v = value_of(c.P, c.R, c.policy, c.gamma)
    d = series(c.gamma * np.einsum("sa,sat->ts", policy, P), mu64)
    found, scale = impl.vjp(c, mu), c.S * (1 + top(c)) / (1 - c.gamma)
    # d, at most S / (1 - gamma), comes of a solve too, however small the rewards are.
    few = c.S * solve_bound(c, 1.0) * 4 / (1 - c.gamma) + bounds.rounding(c.S, scale, c.dtype)
    expect(found["policy"], d[:, None] * (R + c.gamma * P @ v), few, "dpi", scale=scale)
    expect(found["R"], d[:, None] * policy, few, "dR", scale=scale)
    expect(found["P"], c.gamma * (d[:, None] * policy)[..., None] * v, few, "dP", scale=scale)


@law(ID, "L7", given=space, kills=["discounts_the_reward", "transposed"])
def shaped_by_a_potential(impl, c, expect):
    "R'(s, a) = R(s, a) + gamma sum_t P(t | s, a) phi(t) - phi(s) lowers v by phi, whatever the policy is."
    P, R, phi = f64(c.P, c.R, c.phi)
    shaped = c.replace(R=(R + c.gamma * P @ phi - phi[:, None]).astype(c.dtype))
    v, after = f64(impl(c), impl(shaped))
    rounded = backup_bound(c, phi) / (1 - c.gamma)  # the shaped rewards are rounded
    expect(v - after, phi, solve_bound(c) + solve_bound(shaped) + rounded, scale=1 + top(shaped))


# Mutants ---------------------------------------------------------------------------------------------


def alike(gamma=0.5, S=3, A=2, reward=1.0):
    """The default-size test: a ring whose states and actions are all alike."""
    P, R = ring(S, A, reward)
    return lambda: ((P, R, uniform(S, A)), {"gamma": gamma})


def chain(P, R, policy):
    return np.einsum("sa,sat->st", policy, P), np.sum(policy * R, -1)


def solved(M, r, gamma):
    if gamma == 1:
        ends = (np.diag(M) == 1) & (r == 0)
        M, r = np.where(ends[:, None], 0, M), np.where(ends, 0, r)
    return np.linalg.solve(np.eye(len(r)) - gamma * M, r).astype(r.dtype)


@mutant(ID, default_case=alike())
def hundred_sweeps(P, R, policy, *, gamma):
    "100 sweeps: enough at gamma = 1/2."
    M, r = chain(P, R, policy)
    v = 0 * r
    for _ in range(100):
        v = r + gamma * M @ v
    return v.astype(R.dtype)


@mutant(ID, default_case=alike())
def transposed(P, R, policy, *, gamma):
    "P^T."
    M, r = chain(P, R, policy)
    return solved(M.T, r, gamma)


@mutant(ID, default_case=alike())
def uniform_actions(P, R, policy, *, gamma):
    "The policy is not looked at."
    return solved(*chain(P, R, np.full_like(policy, 1 / policy.shape[1])), gamma)


@mutant(ID, default_case=alike(gamma=0.0, reward=0.0))
def discounts_the_reward(P, R, policy, *, gamma):
    "v = gamma (R + P v)."
    M, r = chain(P, R, policy)
    return solved(M, (gamma * r).astype(r.dtype), gamma)


@mutant(ID, default_case=alike(A=1))
def mean_of_the_actions(P, R, policy, *, gamma):
    "Each action's own value (taken for ever), averaged by the policy."
    each = [solved(P[:, a], R[:, a], gamma) for a in range(R.shape[1])]
    return np.sum(policy * np.stack(each, 1), 1).astype(R.dtype)


@mutant(ID, default_case=alike())
def ridge(P, R, policy, *, gamma):
    "1e-6 on the diagonal, against singular systems."
    M, r = chain(P, R, policy)
    ends = (np.diag(M) == 1) & (r == 0) if gamma == 1 else np.zeros(len(r), bool)
    M = np.where(ends[:, None], 0, M)
    return np.linalg.solve((1 + 1e-6) * np.eye(len(r)) - gamma * M, np.where(ends, 0, r)).astype(R.dtype)


@mutant(ID, default_case=alike())
def ends_are_not_taken_out(P, R, policy, *, gamma):
    "gamma = 1 becomes .999, so that nothing is singular."
    return solved(*chain(P, R, policy), min(gamma, 0.999))


@mutant(ID, default_case=alike())
def rewards_of_the_ends(P, R, policy, *, gamma):
    "At gamma = 1 every absorbing state pays what a step into it paid."
    M, r = chain(P, R, policy)
    v = solved(M, r, gamma)
    return np.where(np.diag(M) == 1, M.T @ r, v).astype(R.dtype) if gamma == 1 else v


def _vjp(name, doc, change):
    def function(P, R, policy, *, gamma):
        return policy_evaluation(P, R, policy, gamma=gamma)

    def vjp(g, P, R, policy, *, gamma):
        M, r = chain(P, R, policy)
        v, d = solved(M, r, gamma), np.linalg.solve(np.eye(len(r)) - gamma * M.T, g)
        d, q = change(M, gamma, g, d, v, R + gamma * P @ v, R)
        weights = d[:, None] * policy
        found = {"P": gamma * weights[..., None] * v, "R": weights, "policy": d[:, None] * q}
        return {n: x.astype(R.dtype) for n, x in found.items()}

    function.__name__, function.__doc__ = name, doc
    mutant(ID, vjp=vjp, default_case=alike())(function)


_vjp("gradient_not_transposed", "The adjoint solve without the transpose.",
     lambda M, gamma, g, d, v, q, R: (np.linalg.solve(np.eye(len(g)) - gamma * M, g), q))  # fmt: skip
_vjp("gradient_of_one_step", "Where the policy goes is taken as given: d = mu.",
     lambda M, gamma, g, d, v, q, R: (g, q))  # fmt: skip
_vjp("gradient_of_the_policy_without_future", "d R for d q: REINFORCE with the reward of the step alone.",
     lambda M, gamma, g, d, v, q, R: (d, R))  # fmt: skip
