"""Laws and mutants of Bellman's operator of a policy."""

from __future__ import annotations

import numpy as np

from ref.mdp.bellman_expectation import bellman_expectation
from ref.mdp.common_laws import (
    backup_bound,
    f64,
    model_space,
    policies,
    q_by_loops,
    quarters,
    ring,
    size,
    solve_bound,
    top,
    uniform,
    value_of,
)
from ref.spec import bounds, law, mutant

ID = "mdp.bellman_expectation"
space = model_space(ID, policy=policies, v=quarters("S"), w=quarters("S"))


@law(
    ID, "L1", closed_form=True, given=space.reach("chancy", "one_state", "no_future"),
    kills=["discounts_the_reward", "transposed", "uniform_actions", "best_action", "likeliest_action", "in_place"],
)  # fmt: skip
def mean_over_actions_and_outcomes(impl, c, expect):
    "(T_pi v)(s) = sum_a pi(a | s) (R(s, a) + gamma sum_t P(t | s, a) v(t)), summed a number at a time."
    q = q_by_loops(c.P, c.R, c.v, c.gamma)
    wanted = [sum(float(c.policy[s, a]) * q[s, a] for a in range(c.A)) for s in range(c.S)]
    expect(impl(c), np.array(wanted), backup_bound(c, c.v), scale=1 + size(c, c.v))


@law(ID, "L2", given=space.reach("chancy"), kills=["undiscounted"], passes_null=["zeros", "constant", "identity"])
def contraction(impl, c, expect):
    "max |T v - T w| <= gamma max |v - w|."
    other = c.replace(v=c.w.astype(c.dtype))
    off = np.max(np.abs(np.subtract(*f64(impl(c), impl(other)))))
    slack = backup_bound(c, c.v) + backup_bound(c, c.w)
    expect.at_most(off, c.gamma * np.max(np.abs(c.v - c.w)) + slack, "the distance after the step")


@law(ID, "L3", given=space.reach("chancy"), kills=["averse_to_risk"], passes_null=["zeros", "constant", "identity"])
def monotone(impl, c, expect):
    "v <= w gives T v <= T w."
    w = np.maximum(c.v, c.w).astype(c.dtype)
    slack = backup_bound(c, c.v) + backup_bound(c, w)
    expect.at_most(*f64(impl(c), impl(c.replace(v=w)) + slack), "T of the smaller values")


@law(
    ID, "L4", given=space, kills=["discounts_twice", "transposed", "undiscounted"],
)  # fmt: skip
def a_shift_is_discounted(impl, c, expect):
    "T (v + 4) = T v + 4 gamma."
    v, up = f64(impl(c), impl(c.replace(v=(c.v + 4).astype(c.dtype))))
    expect(up - v, np.full(c.S, 4 * c.gamma), backup_bound(c, c.v, c.v + 4) * 2, scale=4 + size(c, c.v))


@law(
    ID, "L5", closed_form=True, given=space.reach("absorbing"),
    kills=["discounts_the_reward", "best_action", "undiscounted"],
)  # fmt: skip
def the_value_of_the_policy_stays(impl, c, expect):
    "T v = v at v = sum_i (gamma P_pi)^i R_pi."
    v = value_of(c.P, c.R, c.policy, c.gamma)
    found = impl(c.replace(v=v.astype(c.dtype)))
    given = bounds.rounding(2, top(c), c.dtype)  # v itself is rounded
    expect(found, v, backup_bound(c, v) + given, scale=1 + top(c))


@law(
    ID, "L6", closed_form=True, needs=("vjp",), given=space.reach("chancy"),
    kills=["gradient_not_transposed", "gradient_of_the_policy_without_future"],
)  # fmt: skip
def gradient_is_the_transpose(impl, c, expect):
    """Under a cotangent g[S]: dv = gamma P_pi^T g, dR(s, a) = g_s pi(a | s), dpi(a | s) = g_s q(s, a) and
    dP(t | s, a) = gamma g_s pi(a | s) v_t."""
    g = np.cos(1 + np.arange(c.S)).astype(c.dtype)
    P, policy, v, g64 = f64(c.P, c.policy, c.v, g)
    found = impl.vjp(c, g)
    weights = g64[:, None] * policy
    few, scale = solve_bound(c), 1 + c.S * top(c, c.v)
    expect(found["v"], c.gamma * np.einsum("sa,sat->t", weights, P), c.S * few, "dv", scale=scale)
    expect(found["R"], weights, few, "dR", scale=scale)
    expect(found["policy"], g64[:, None] * q_by_loops(c.P, c.R, c.v, c.gamma), few + backup_bound(c, c.v), "dpi",
           scale=scale)  # fmt: skip
    expect(found["P"], c.gamma * weights[..., None] * v, few + backup_bound(c, c.v), "dP", scale=scale)


# Mutants ---------------------------------------------------------------------------------------------


def alike(gamma=0.5, S=3, A=1, reward=1.0, v=1.0):
    """The default-size test: a ring whose states and actions are all alike."""
    P, R = ring(S, A, reward)
    return lambda: ((P, R, uniform(S, A), np.full(S, v)), {"gamma": gamma})


def chain(P, R, policy):
    return np.einsum("sa,sat->st", policy, P), np.sum(policy * R, -1)


@mutant(ID, default_case=alike(gamma=1.0))
def discounts_the_reward(P, R, policy, v, *, gamma):
    "gamma (R + P v)."
    M, r = chain(P, R, policy)
    return (gamma * (r + M @ v)).astype(R.dtype)


@mutant(ID, default_case=alike())
def transposed(P, R, policy, v, *, gamma):
    "P^T: the states that lead here."
    M, r = chain(P, R, policy)
    return (r + gamma * M.T @ v).astype(R.dtype)


@mutant(ID, default_case=alike(A=2))
def uniform_actions(P, R, policy, v, *, gamma):
    "The policy is not looked at."
    return (R + gamma * P @ v).mean(1)


@mutant(ID, default_case=alike(A=2))
def best_action(P, R, policy, v, *, gamma):
    "The maximum over actions."
    return (R + gamma * P @ v).max(1)


@mutant(ID, default_case=alike(A=2))
def likeliest_action(P, R, policy, v, *, gamma):
    "The policy's mode for its mean."
    return (R + gamma * P @ v)[np.arange(len(v)), np.argmax(policy, 1)]


@mutant(ID, default_case=alike(v=2.0))
def in_place(P, R, policy, v, *, gamma):
    "A Gauss-Seidel sweep: later states see the new values."
    M, r = chain(P, R, policy)
    v = v.copy()
    for s in range(len(v)):
        v[s] = r[s] + gamma * M[s] @ v
    return v


@mutant(ID, default_case=alike(gamma=1.0))
def undiscounted(P, R, policy, v, *, gamma):
    "gamma is taken and not used."
    M, r = chain(P, R, policy)
    return (r + M @ v).astype(R.dtype)


@mutant(ID, default_case=alike(gamma=1.0))
def discounts_twice(P, R, policy, v, *, gamma):
    "gamma^2."
    M, r = chain(P, R, policy)
    return (r + gamma**2 * M @ v).astype(R.dtype)


@mutant(ID, default_case=alike())
def averse_to_risk(P, R, policy, v, *, gamma):
    "The mean less the variance of what follows: not monotone."
    M, r = chain(P, R, policy)
    return (r + gamma * (M @ v - (M @ v**2 - (M @ v) ** 2))).astype(R.dtype)


def _vjp(name, doc, change):
    def function(P, R, policy, v, *, gamma):
        return bellman_expectation(P, R, policy, v, gamma=gamma)

    def vjp(g, P, R, policy, v, *, gamma):
        weights, q = g[:, None] * policy, R + gamma * P @ v
        right = {
            "P": gamma * weights[..., None] * v, "R": weights, "policy": g[:, None] * q,
            "v": gamma * np.einsum("sa,sat->t", weights, P),
        }  # fmt: skip
        return {**right, **{n: x.astype(R.dtype) for n, x in change(g, P, R, policy, gamma).items()}}

    function.__name__, function.__doc__ = name, doc
    mutant(ID, vjp=vjp, default_case=alike())(function)


_vjp("gradient_not_transposed", "dv = gamma P_pi g.",
     lambda g, P, R, policy, gamma: {"v": gamma * chain(P, R, policy)[0] @ g})  # fmt: skip
_vjp("gradient_of_the_policy_without_future", "dpi = g R: what the action leads to is left out.",
     lambda g, P, R, policy, gamma: {"policy": g[:, None] * R})  # fmt: skip
