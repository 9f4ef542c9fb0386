"""Laws and mutants of iterative policy evaluation."""

from __future__ import annotations

import numpy as np

from ref.mdp.common_laws import (
    f64,
    model_space,
    policies,
    quarters,
    ring,
    sweeps_bound,
    top,
    uniform,
    value_of,
)
from ref.spec import law, mutant
from ref.spec.cases import Flag, dims

ID = "mdp.iterative_evaluation"
space = model_space(ID, policy=policies, start=quarters("S"), sweeps=dims(0, 6))
space = space._replace(flags={**space.flags, "none": Flag(lambda c: c.sweeps == 0, {"sweeps": 0})})


def chain(c):
    P, R, policy = f64(c.P, c.R, c.policy)
    return c.gamma * np.einsum("sa,sat->st", policy, P), np.sum(policy * R, -1)


@law(
    ID, "L1", closed_form=True, given=space.reach("chancy", "one_state", "no_future", "none"),
    kills=["in_place", "one_sweep_more", "start_ignored", "discounts_the_reward", "uniform_actions",
           "until_it_settles"],
)  # fmt: skip
def sum_of_the_first_rewards(impl, c, expect):
    "v_k = sum_{i < k} (gamma P_pi)^i R_pi + (gamma P_pi)^k v_0, by powers of the matrix."
    M, r = chain(c)
    powers = [np.linalg.matrix_power(M, i) for i in range(c.sweeps + 1)]
    wanted = sum((m @ r for m in powers[:-1]), powers[-1] @ np.asarray(c.start, np.float64))
    expect(impl(c), wanted, sweeps_bound(c, c.start), scale=1 + top(c, c.start))


@law(
    ID, "L2", given=space.where(sweeps=dims(1, 6)).reach("chancy"), kills=["undiscounted", "discounts_the_reward"],
)  # fmt: skip
def error_falls_by_gamma_a_sweep(impl, c, expect):
    "max |v_k - v_pi| <= gamma^k max |v_0 - v_pi|, v_pi the whole sum; and from v_pi nothing moves."
    v, slack = value_of(c.P, c.R, c.policy, c.gamma), sweeps_bound(c, c.start)
    off = np.max(np.abs(np.asarray(impl(c), np.float64) - v))
    expect.at_most(off, c.gamma**c.sweeps * np.max(np.abs(c.start - v)) + slack, "the error after k sweeps")
    expect(impl(c.replace(start=v.astype(c.dtype))), v, sweeps_bound(c), "from v_pi", scale=1 + top(c))


@law(ID, "L3", given=space.where(sweeps=dims(1, 6)), kills=["one_sweep_more"],
     passes_null=["zeros", "constant", "identity"])  # fmt: skip
def sweeps_add_up(impl, c, expect):
    "j sweeps, and k - j more from where they stopped, are k sweeps; the same bits."
    whole = impl(c)
    for j in range(c.sweeps + 1):
        expect.same(impl(c.replace(start=impl(c.replace(sweeps=j)), sweeps=c.sweeps - j)), whole, f"cut after {j}")


@law(ID, "L4", given=space.where(sweeps=dims(1, 6)), kills=["momentum"])
def rises_from_below(impl, c, expect):
    "From a constant v_0 <= T_pi v_0 every sweep rises, and none above v_pi."
    start = np.full(c.S, np.min(c.R) / (1 - c.gamma) - 0.25).astype(c.dtype)
    now, slack = c.replace(start=start), sweeps_bound(c, start)
    v = [np.asarray(impl(now.replace(sweeps=k)), np.float64) for k in (c.sweeps, c.sweeps + 1)]
    expect.at_most(v[0], v[1] + slack, "v_k")
    expect.at_most(v[1], value_of(c.P, c.R, c.policy, c.gamma) + slack, "v_{k+1}")


# Mutants ---------------------------------------------------------------------------------------------


def alike(gamma=0.5, S=3, A=2, reward=1.0, start=2.0, sweeps=3):
    """The default-size test: a ring whose states and actions are all alike, from its value."""
    P, R = ring(S, A, reward)
    return lambda: ((P, R, uniform(S, A), np.full(S, start)), {"gamma": gamma, "sweeps": sweeps})


def swept(P, R, policy, start, *, gamma, sweeps, **edit):
    """The sweeps in plain NumPy, whose parts an edit replaces."""
    M, r, v = np.einsum("sa,sat->st", policy, P), np.sum(policy * R, -1), start.copy()
    for _ in range(sweeps):
        v = edit.get("sweep", lambda M, r, v, gamma: r + gamma * M @ v)(M, r, v, gamma)
    return v.astype(R.dtype)


@mutant(ID, default_case=alike())
def in_place(*args, **options):
    "Gauss-Seidel: later states see the new values."

    def sweep(M, r, v, gamma):
        v = v.copy()
        for s in range(len(v)):
            v[s] = r[s] + gamma * M[s] @ v
        return v

    return swept(*args, **options, sweep=sweep)


@mutant(ID, default_case=alike())
def one_sweep_more(*args, sweeps, **options):
    "k + 1."
    return swept(*args, sweeps=sweeps + 1, **options)


@mutant(ID, default_case=alike(reward=0.0, start=0.0))
def start_ignored(P, R, policy, start, **options):
    "From zeros."
    return swept(P, R, policy, 0 * start, **options)


@mutant(ID, default_case=alike(gamma=0.0, reward=0.0))
def discounts_the_reward(*args, **options):
    "gamma (R + P v)."
    return swept(*args, **options, sweep=lambda M, r, v, gamma: gamma * (r + M @ v))


@mutant(ID, default_case=alike())
def uniform_actions(P, R, policy, start, **options):
    "The policy is not looked at."
    return swept(P, R, np.full_like(policy, 1 / policy.shape[1]), start, **options)


@mutant(ID, default_case=alike())
def until_it_settles(*args, sweeps, **options):
    "500 sweeps, whatever was asked."
    return swept(*args, sweeps=500 if sweeps else 0, **options)


@mutant(ID, default_case=alike(gamma=1.0))
def undiscounted(*args, gamma, **options):
    "gamma is taken and not used."
    return swept(*args, gamma=1.0, **options)


@mutant(ID, default_case=alike())
def momentum(*args, **options):
    "1.5 times the change, to get there sooner: it overshoots."
    return swept(*args, **options, sweep=lambda M, r, v, gamma: v + 1.5 * (r + gamma * M @ v - v))
