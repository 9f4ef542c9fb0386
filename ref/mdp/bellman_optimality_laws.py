"""Laws and mutants of Bellman's optimality operator."""

from __future__ import annotations

import numpy as np

from ref.mdp.common_laws import (
    backup_bound,
    deterministic,
    f64,
    model_space,
    q_by_loops,
    quarters,
    ring,
    size,
)
from ref.spec import law, mutant
from ref.spec.cases import dims

ID = "mdp.bellman_optimality"
space = model_space(ID, v=quarters("S"), w=quarters("S"))


@law(
    ID, "L1", closed_form=True, given=space.reach("chancy", "one_state", "no_future"),
    kills=["discounts_the_reward", "transposed", "best_outcome", "worst_action", "best_reward_and_best_value",
           "softened"],
)  # fmt: skip
def best_of_the_actions(impl, c, expect):
    "(T v)(s) = max_a (R(s, a) + gamma sum_t P(t | s, a) v(t)), a number at a time."
    wanted = [max(row) for row in q_by_loops(c.P, c.R, c.v, c.gamma).tolist()]
    expect(impl(c), np.array(wanted), backup_bound(c, c.v), scale=1 + size(c, c.v))


@law(ID, "L2", given=space.reach("chancy"), kills=["undiscounted"], passes_null=["zeros", "constant", "identity"])
def contraction(impl, c, expect):
    "max |T v - T w| <= gamma max |v - w|."
    off = np.max(np.abs(np.subtract(*f64(impl(c), impl(c.replace(v=c.w.astype(c.dtype)))))))
    slack = backup_bound(c, c.v) + backup_bound(c, c.w)
    expect.at_most(off, c.gamma * np.max(np.abs(c.v - c.w)) + slack, "the distance after the step")


@law(ID, "L3", given=space.reach("chancy"), kills=["averse_to_risk"], passes_null=["zeros", "constant", "identity"])
def monotone(impl, c, expect):
    "v <= w gives T v <= T w."
    w = np.maximum(c.v, c.w).astype(c.dtype)
    slack = backup_bound(c, c.v) + backup_bound(c, w)
    expect.at_most(*f64(impl(c), impl(c.replace(v=w)) + slack), "T of the smaller values")


@law(
    ID, "L4", given=space, kills=["transposed", "undiscounted", "largest_in_size"],
)  # fmt: skip
def a_shift_is_discounted(impl, c, expect):
    "T (v + 4) = T v + 4 gamma."
    v, up = f64(impl(c), impl(c.replace(v=(c.v + 4).astype(c.dtype))))
    expect(up - v, np.full(c.S, 4 * c.gamma), backup_bound(c, c.v, c.v + 4) * 2, scale=4 + size(c, c.v))


@law(
    ID, "L5", closed_form=True, given=space.where(A=dims(2, 3), S=dims(1, 3)),
    kills=["mean_of_the_actions", "worst_action", "best_outcome"],
)  # fmt: skip
def best_of_all_policies(impl, c, expect):
    "T v >= T_pi v for every deterministic policy, and in each state one of them attains it."
    P, R, v = f64(c.P, c.R, c.v)
    steps = [np.sum(pi * (R + c.gamma * P @ v), -1) for pi in deterministic(c.S, c.A)]
    expect(impl(c), np.max(steps, 0), backup_bound(c, c.v), scale=1 + size(c, c.v))


# Mutants ---------------------------------------------------------------------------------------------


def alike(gamma=0.5, S=3, A=2, reward=1.0, v=1.0):
    """The default-size test: a ring whose states and actions are all alike."""
    P, R = ring(S, A, reward)
    return lambda: ((P, R, np.full(S, v)), {"gamma": gamma})


@mutant(ID, default_case=alike(gamma=1.0))
def discounts_the_reward(P, R, v, *, gamma):
    "gamma (R + P v)."
    return (gamma * (R + P @ v)).max(1).astype(R.dtype)


@mutant(ID, default_case=alike())
def transposed(P, R, v, *, gamma):
    "The sum over the states that lead here."
    return (R + gamma * np.einsum("tas,t->sa", P, v)).max(1).astype(R.dtype)


@mutant(ID, default_case=alike())
def best_outcome(P, R, v, *, gamma):
    "The best state that can follow, for the mean."
    reach = np.where(P > 0, v, -np.inf).max(-1)
    return (R + gamma * reach).max(1).astype(R.dtype)


@mutant(ID, default_case=alike())
def worst_action(P, R, v, *, gamma):
    "min for max."
    return (R + gamma * P @ v).min(1).astype(R.dtype)


@mutant(ID, default_case=alike())
def mean_of_the_actions(P, R, v, *, gamma):
    "The uniform policy."
    return (R + gamma * P @ v).mean(1).astype(R.dtype)


@mutant(ID, default_case=alike())
def best_reward_and_best_value(P, R, v, *, gamma):
    "max R + gamma max P v: two actions where one is chosen."
    return (R.max(1) + gamma * (P @ v).max(1)).astype(R.dtype)


@mutant(ID, default_case=alike(A=1))
def softened(P, R, v, *, gamma):
    "log sum exp: the soft maximum, log A too large among equals."
    q = R + gamma * P @ v
    m = q.max(1, keepdims=True)
    return (m[:, 0] + np.log(np.exp(q - m).sum(1))).astype(R.dtype)


@mutant(ID, default_case=alike(gamma=1.0))
def undiscounted(P, R, v, *, gamma):
    "gamma is taken and not used."
    return (R + P @ v).max(1).astype(R.dtype)


@mutant(ID, default_case=alike())
def largest_in_size(P, R, v, *, gamma):
    "The action of the largest |q|."
    q = R + gamma * P @ v
    return np.take_along_axis(q, np.argmax(np.abs(q), 1)[:, None], 1)[:, 0].astype(R.dtype)


@mutant(ID, default_case=alike())
def averse_to_risk(P, R, v, *, gamma):
    "The mean less the variance of what follows: not monotone."
    return (R + gamma * (P @ v - (P @ v**2 - (P @ v) ** 2))).max(1).astype(R.dtype)
