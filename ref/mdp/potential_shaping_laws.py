"""Laws and mutants of potential shaping."""

from __future__ import annotations

import numpy as np

from ref.mdp.common_laws import (
    backup_bound,
    deterministic,
    model_space,
    quarters,
    ring,
    size,
    top,
    value_of,
)
from ref.spec import bounds, law, mutant
from ref.spec.cases import dims, rng

ID = "mdp.potential_shaping"
space = model_space(ID, phi=quarters("S"), way=lambda draw, c: rng(draw).integers(0, c.A, 6))


def bound(c):
    return backup_bound(c, c.phi) + bounds.rounding(4, size(c, c.phi) + np.max(np.abs(c.phi)), c.dtype)


@law(
    ID, "L1", closed_form=True, given=space.reach("chancy", "one_state", "no_future"),
    kills=["without_gamma", "sign", "gamma_on_both", "potential_of_the_likeliest", "replaces_the_reward"],
)  # fmt: skip
def difference_by_loops(impl, c, expect):
    "R'(s, a) = R(s, a) + gamma sum_t P(t | s, a) phi(t) - phi(s), a number at a time."
    wanted = np.asarray(c.R, np.float64).copy()
    for s, a in np.ndindex(*c.R.shape):
        wanted[s, a] += c.gamma * sum(float(c.P[s, a, t]) * float(c.phi[t]) for t in range(c.S)) - float(c.phi[s])
    expect(impl(c), wanted, bound(c), scale=1 + 2 * size(c, c.phi))


@law(
    ID, "L2", closed_form=True, given=space.reach("chancy", "absorbing"),
    kills=["without_gamma", "gamma_on_both", "ends_are_free", "sign"],
)  # fmt: skip
def values_fall_by_the_potential(impl, c, expect):
    "v'_pi = v_pi - phi for every deterministic policy, absorbing states too."
    policies = deterministic(c.S, c.A)
    after = value_of(c.P, impl(c), policies, c.gamma)
    wanted = value_of(c.P, c.R, policies, c.gamma) - np.asarray(c.phi, np.float64)
    expect(after, wanted, bound(c) / (1 - c.gamma), scale=1 + top(c, c.phi))


@law(
    ID, "L3", given=space.where(A=dims(2, 3)).reach("chancy"), kills=["without_gamma", "potential_of_the_likeliest"],
)  # fmt: skip
def best_policies_stay(impl, c, expect):
    "The loss of each policy against the best, v* - v_pi, is what it was."
    policies = deterministic(c.S, c.A)
    before, after = (value_of(c.P, R, policies, c.gamma) for R in (c.R, impl(c)))
    expect(after.max(0) - after, before.max(0) - before, 2 * bound(c) / (1 - c.gamma), scale=1 + top(c, c.phi))


@law(
    ID, "L4", closed_form=True, given=space.where(kind="sure"),
    kills=["without_gamma", "sign", "gamma_on_both"],
)  # fmt: skip
def a_trip_earns_its_ends_alone(impl, c, expect):
    "Along any way s_0 .. s_n: sum_i gamma^i (R' - R) = gamma^n phi(s_n) - phi(s_0)."
    extra = np.asarray(impl(c), np.float64) - np.asarray(c.R, np.float64)
    s, total = 0, 0.0
    for i, a in enumerate(c.way):
        total += c.gamma**i * extra[s, a]
        s = int(np.argmax(c.P[s, a]))
    wanted = c.gamma ** len(c.way) * float(c.phi[s]) - float(c.phi[0])
    expect(np.array(total), np.array(wanted), 6 * bound(c), scale=1 + 2 * top(c, c.phi))


# Mutants ---------------------------------------------------------------------------------------------


def alike(gamma=0.5, S=3, phi=0.0):
    """The default-size test: a ring with one potential everywhere."""
    P, R = ring(S)
    return lambda: ((P, R, np.full(S, phi)), {"gamma": gamma})


@mutant(ID, default_case=alike(gamma=1.0, phi=2.0))
def without_gamma(P, R, phi, *, gamma):
    "phi(t) - phi(s)."
    return (R + P @ phi - phi[:, None]).astype(R.dtype)


@mutant(ID, default_case=alike())
def sign(P, R, phi, *, gamma):
    "phi(s) - gamma phi(t)."
    return (R - gamma * P @ phi + phi[:, None]).astype(R.dtype)


@mutant(ID, default_case=alike(gamma=1.0, phi=2.0))
def gamma_on_both(P, R, phi, *, gamma):
    "gamma (phi(t) - phi(s))."
    return (R + gamma * (P @ phi - phi[:, None])).astype(R.dtype)


@mutant(ID, default_case=alike(phi=2.0))
def potential_of_the_likeliest(P, R, phi, *, gamma):
    "The likeliest next state for the mean."
    return (R + gamma * phi[P.argmax(-1)] - phi[:, None]).astype(R.dtype)


@mutant(ID, default_case=alike())
def ends_are_free(P, R, phi, *, gamma):
    "Nothing is shaped in an absorbing state: whoever ends where phi is high keeps it."
    ends = np.einsum("sas->s", P) == P.shape[1]
    return np.where(ends[:, None], R, R + gamma * P @ phi - phi[:, None]).astype(R.dtype)


@mutant(ID, default_case=lambda: ((ring(3)[0], np.zeros((3, 1)), np.ones(3)), {"gamma": 0.5}))
def replaces_the_reward(P, R, phi, *, gamma):
    "The shaping alone."
    return (gamma * P @ phi - phi[:, None]).astype(R.dtype)
