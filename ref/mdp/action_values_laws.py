"""Laws and mutants of action values."""

from __future__ import annotations

import numpy as np

from ref.mdp.action_values import action_values
from ref.mdp.common_laws import backup_bound, f64, model_space, q_by_loops, quarters, ring, size
from ref.spec import bounds, law, mutant

ID = "mdp.action_values"
space = model_space(ID, v=quarters("S"))


@law(
    ID, "L1", closed_form=True, given=space.reach("chancy", "one_state", "no_future"),
    kills=["discounts_the_reward", "transposed", "most_likely_outcome", "value_of_the_state_left",
           "gamma_of_zero_is_one"],
)  # fmt: skip
def sum_over_outcomes(impl, c, expect):
    "q(s, a) = R(s, a) + gamma sum_t P(t | s, a) v(t), summed a number at a time."
    expect(impl(c), q_by_loops(c.P, c.R, c.v, c.gamma), backup_bound(c, c.v), scale=1 + size(c, c.v))


@law(
    ID, "L2", closed_form=True, given=space.where(kind="sure"),
    kills=["discounts_the_reward", "transposed", "value_of_the_state_left"],
)  # fmt: skip
def a_sure_outcome_is_looked_up(impl, c, expect):
    "Where P(t | s, a) = 1: q(s, a) = R(s, a) + gamma v(t)."
    (R, v), to = f64(c.R, c.v), np.argmax(c.P, -1)
    expect(impl(c), R + c.gamma * v[to], backup_bound(c, c.v), scale=1 + size(c, c.v))


@law(ID, "L3", given=space, kills=["negative_values_are_cut"], passes_null=["zeros"])
def linear_in_values_and_rewards(impl, c, expect):
    "-2 v and -2 R give -2 q, bit for bit; and q[R, v] = q[R, 0] + q[0, v]."
    q = impl(c)
    expect.same(impl(c.replace(R=(-2 * c.R).astype(c.dtype), v=(-2 * c.v).astype(c.dtype))), -2 * q, "times -2")
    parts = impl(c.replace(v=0 * c.v)), impl(c.replace(R=0 * c.R))
    expect(sum(f64(*parts)), f64(q)[0], 3 * backup_bound(c, c.v), "sum of the parts", scale=1 + size(c, c.v))


@law(
    ID, "L4", closed_form=True, needs=("vjp",), given=space.reach("chancy"),
    kills=["gradient_without_discount", "gradient_of_the_first_action"],
)  # fmt: skip
def gradient_is_the_transpose(impl, c, expect):
    "Under a cotangent g[S A]: dR = g, dv_t = gamma sum_sa g_sa P(t | s, a), dP(t | s, a) = gamma g_sa v_t."
    g = np.cos(1 + np.arange(c.S * c.A)).reshape(c.S, c.A).astype(c.dtype)
    P, v, g64 = f64(c.P, c.v, g)
    found = impl.vjp(c, g)
    expect.same(found["R"], g, "dR")
    few = bounds.rounding(c.S * c.A + 3, c.S * c.A * (1 + np.max(np.abs(v))), c.dtype)
    expect(found["v"], c.gamma * np.einsum("sa,sat->t", g64, P), few, "dv", scale=c.S * c.A * 4)
    expect(found["P"], c.gamma * g64[..., None] * v, few, "dP", scale=c.S * c.A * 4)


# Mutants ---------------------------------------------------------------------------------------------


def alike(gamma=0.5, S=3, reward=1.0, v=1.0):
    """The default-size test: a ring whose states are all worth the same."""
    P, R = ring(S, 1, reward)
    return lambda: ((P, R, np.full(S, v)), {"gamma": gamma})


@mutant(ID, default_case=alike(gamma=1.0))
def discounts_the_reward(P, R, v, *, gamma):
    "gamma (R + P v)."
    return (gamma * (R + P @ v)).astype(R.dtype)


@mutant(ID, default_case=alike())
def transposed(P, R, v, *, gamma):
    "The sum over the states that lead here."
    return (R + gamma * np.einsum("tas,t->sa", P, v)).astype(R.dtype)


@mutant(ID, default_case=alike())
def most_likely_outcome(P, R, v, *, gamma):
    "The likeliest state for the mean of all."
    return (R + gamma * v[np.argmax(P, -1)]).astype(R.dtype)


@mutant(ID, default_case=alike())
def value_of_the_state_left(P, R, v, *, gamma):
    "v(s), not v(t)."
    return (R + gamma * v[:, None]).astype(R.dtype)


@mutant(ID, default_case=alike())
def gamma_of_zero_is_one(P, R, v, *, gamma):
    "`gamma or 1`."
    return (R + (gamma or 1.0) * (P @ v)).astype(R.dtype)


@mutant(ID, default_case=alike())
def negative_values_are_cut(P, R, v, *, gamma):
    "max(q, 0)."
    return np.maximum(R + gamma * (P @ v), 0).astype(R.dtype)


def _vjp(name, doc, change):
    def function(P, R, v, *, gamma):
        return action_values(P, R, v, gamma=gamma)

    def vjp(g, P, R, v, *, gamma):
        return change(g, P, v, gamma)

    function.__name__, function.__doc__ = name, doc
    mutant(ID, vjp=vjp, default_case=alike())(function)


_vjp("gradient_without_discount", "dv and dP lack gamma.",
     lambda g, P, v, gamma: (g[..., None] * v, g.copy(), np.einsum("sa,sat->t", g, P)))  # fmt: skip
_vjp("gradient_of_the_first_action", "dv of the first action alone.",
     lambda g, P, v, gamma: (
         gamma * g[..., None] * v, g.copy(), gamma * np.einsum("s,st->t", g[:, 0], P[:, 0])))  # fmt: skip
