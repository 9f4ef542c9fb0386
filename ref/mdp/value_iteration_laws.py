"""Laws and mutants of value iteration."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linprog

from ref.mdp.common_laws import (
    best_value,
    chain_to_an_end,
    f64,
    model_space,
    optimum_bound,
    q_by_loops,
    quarters,
    ring,
    sweeps_bound,
    top,
)
from ref.spec import law, mutant
from ref.spec.cases import choose, dims

ID = "mdp.value_iteration"
space = model_space(ID, start=quarters("S"), iterations=dims(0, 5))
settled = space.where(iterations=None, tolerance=choose(1e-8, 1e-4, 0.1), start=None)


@law(
    ID, "L1", closed_form=True, given=space.reach("chancy", "one_state"),
    kills=["in_place", "one_sweep_more", "start_ignored", "discounts_the_reward", "mean_of_the_actions",
           "worst_action", "stops_early_anyway"],
)  # fmt: skip
def sweeps_by_loops(impl, c, expect):
    "v_{k+1}(s) = max_a (R(s, a) + gamma sum_t P(t | s, a) v_k(t)), a number at a time."
    v = np.asarray(c.start, np.float64)
    for _ in range(c.iterations):
        v = np.array([max(row) for row in q_by_loops(c.P, c.R, v, c.gamma).tolist()])
    expect(impl(c), v, sweeps_bound(c, c.start), scale=1 + top(c, c.start))


@law(ID, "L2", closed_form=True, given=space.where(iterations=dims(1, 5)).reach("chancy"),
     kills=["undiscounted", "discounts_the_reward", "worst_action"])  # fmt: skip
def error_falls_by_gamma_a_sweep(impl, c, expect):
    "max |v_k - v*| <= gamma^k max |v_0 - v*|, v* the best of all deterministic policies; and v* stays."
    v, slack = best_value(c.P, c.R, c.gamma), optimum_bound(c, c.start)
    off = np.max(np.abs(np.asarray(impl(c), np.float64) - v))
    expect.at_most(off, c.gamma**c.iterations * np.max(np.abs(c.start - v)) + slack, "the error after k sweeps")
    expect(impl(c.replace(start=v.astype(c.dtype))), v, optimum_bound(c), "from v*", scale=1 + top(c))


@law(
    ID, "L3", closed_form=True, given=settled.reach("chancy", "absorbing"),
    kills=["stops_at_the_residual", "in_a_hundred_sweeps", "mean_of_the_actions"],
)  # fmt: skip
def stops_within_the_tolerance(impl, c, expect):
    "|v - v*| <= tolerance, besides rounding, v* the best of all deterministic policies."
    expect(impl(c), best_value(c.P, c.R, c.gamma), c.tolerance + optimum_bound(c), scale=1 + top(c))


@law(
    ID, "L4", given=settled.where(kind=choose("stochastic", "sure"), tolerance=1e-10, gamma=choose(0.5, 0.75)),
    kills=["worst_reward_is_zero", "largest_in_size"], passes_null=[],
)  # fmt: skip
def affine_in_the_rewards_of_a_continuing_task(impl, c, expect):
    "v*(2 R - 3) = 2 v*(R) - 3 / (1 - gamma), where no state is absorbing."
    other = c.replace(R=(2 * c.R - 3).astype(c.dtype))
    v, w = f64(impl(c), impl(other))
    slack = 2 * optimum_bound(c) + optimum_bound(other) + 4e-10
    expect(w, 2 * v - 3 / (1 - c.gamma), slack, scale=1 + top(other))


@law(
    ID, "L5", closed_form=True, given=settled.where(S=dims(2, 6), A=1, tolerance=1e-10,
                                  P=lambda draw, c: chain_to_an_end(c.S, 1.0)[0],
                                  R=lambda draw, c: chain_to_an_end(c.S, 1.0)[1]),
    kills=["ends_go_on_paying", "discounts_the_reward"],
)  # fmt: skip
def an_end_does_not_pay_the_shift(impl, c, expect):
    """n steps to an absorbing end, reward r a step: v* = r (1 - gamma^n) / (1 - gamma); so b more a step adds
    b (1 - gamma^n) / (1 - gamma), not b / (1 - gamma)."""
    steps = np.arange(c.S)[::-1]
    for r in (1.0, -0.5):
        now = c.replace(R=chain_to_an_end(c.S, r)[1].astype(c.dtype))
        wanted = r * (1 - c.gamma**steps) / (1 - c.gamma)
        expect(impl(now), wanted, optimum_bound(now) + 1e-10, f"reward {r}", scale=1.0)


@law(
    ID, "L6", closed_form=True, dtypes=("float64",), given=settled.where(tolerance=1e-9).reach("chancy"),
    kills=["mean_of_the_actions", "worst_action"],
)  # fmt: skip
def least_solution_of_the_linear_programme(impl, c, expect):
    "v* is the least v with v(s) >= R(s, a) + gamma sum_t P(t | s, a) v(t) for all (s, a): min sum v, by linprog."
    P, R = f64(c.P, c.R)
    A = (c.gamma * P - np.eye(c.S)[:, None, :]).reshape(-1, c.S)
    found = linprog(np.ones(c.S), A_ub=A, b_ub=-R.reshape(-1), bounds=(None, None), method="highs-ds")
    expect.holds(found.status == 0, "the linear programme has a solution")
    solver = 1e-7 / (1 - c.gamma)  # HiGHS meets its constraints to 1e-7
    expect(impl(c), found.x, solver + 1e-9, scale=1 + top(c))


@law(
    ID, "L7", closed_form=True, given=space.where(S=1, iterations=dims(1, 5)),
    kills=["one_sweep_more", "undiscounted"],
)  # fmt: skip
def one_state_in_closed_form(impl, c, expect):
    "S = 1: v_k = (1 - gamma^k) / (1 - gamma) max_a R + gamma^k v_0."
    k = c.iterations
    wanted = (1 - c.gamma**k) / (1 - c.gamma) * np.max(c.R) + c.gamma**k * float(c.start[0])
    expect(impl(c), np.array([wanted]), sweeps_bound(c, c.start), scale=1 + top(c, c.start))


# Mutants ---------------------------------------------------------------------------------------------


def alike(gamma=0.5, S=3, A=2, reward=1.0, start=2.0, **options):
    """The default-size test: a ring whose states and actions are all alike, from its value."""
    P, R = ring(S, A, reward)
    return lambda: ((P, R, np.full(S, start)), {"gamma": gamma, **options})


def iterated(P, R, start=None, *, gamma, tolerance=1e-8, iterations=None, **edit):
    """Value iteration in plain NumPy, whose parts an edit replaces."""
    v = np.zeros(len(R)) if start is None else start
    factor = edit.get("factor", gamma / (1 - gamma) if gamma < 1 else 1.0)
    for _ in range(edit.get("most", 2000) if iterations is None else iterations):
        last = v
        v = edit.get("sweep", lambda q, v: q.max(1))(edit.get("q", lambda R, M: R + gamma * M)(R, P @ v), v)
        if iterations is None and factor * np.max(np.abs(v - last)) <= tolerance:
            break
    return v.astype(R.dtype)


@mutant(ID, default_case=alike())
def stops_at_the_residual(*args, **options):
    "It stops where the residual, not the error, is within the tolerance."
    return iterated(*args, **options, factor=1.0)


@mutant(ID, default_case=alike())
def in_a_hundred_sweeps(*args, **options):
    "100 sweeps at most."
    return iterated(*args, **options, most=100)


@mutant(ID, default_case=alike(iterations=3))
def in_place(P, R, start=None, *, gamma, iterations=None, **options):
    "Gauss-Seidel: later states see the new values."
    v = (np.zeros(len(R)) if start is None else start).copy()
    for _ in range(2000 if iterations is None else iterations):
        for s in range(len(v)):
            v[s] = np.max(R[s] + gamma * P[s] @ v)
    return v.astype(R.dtype)


@mutant(ID, default_case=alike(iterations=3))
def one_sweep_more(*args, iterations=None, **options):
    "k + 1."
    return iterated(*args, **options, iterations=None if iterations is None else iterations + 1)


@mutant(ID, default_case=alike(reward=0.0, start=0.0, iterations=3))
def start_ignored(P, R, start=None, **options):
    "From zeros."
    return iterated(P, R, None, **options)


@mutant(ID, default_case=alike(iterations=30))
def stops_early_anyway(P, R, start=None, *, gamma, tolerance=0.5, iterations=None):
    "With a number of sweeps given, it still stops once they move little."
    if iterations is None:
        return iterated(P, R, start, gamma=gamma, tolerance=tolerance)
    v = start
    for _ in range(iterations):
        last, v = v, (R + gamma * P @ v).max(1)
        if np.max(np.abs(v - last)) < 0.2:
            break
    return v.astype(R.dtype)


@mutant(ID, default_case=alike(gamma=0.0, reward=0.0, start=0.0))
def discounts_the_reward(*args, gamma, **options):
    "gamma (R + P v)."
    return iterated(*args, gamma=gamma, **options, q=lambda R, M: gamma * (R + M))


@mutant(ID, default_case=alike(gamma=1.0, iterations=4))
def undiscounted(P, R, start=None, *, gamma, iterations=None, **options):
    "gamma is taken and not used."
    return iterated(P, R, start, gamma=1.0, iterations=100 if iterations is None else iterations)


@mutant(ID, default_case=alike())
def mean_of_the_actions(*args, **options):
    "The uniform policy."
    return iterated(*args, **options, sweep=lambda q, v: q.mean(1))


@mutant(ID, default_case=alike())
def worst_action(*args, **options):
    "min for max."
    return iterated(*args, **options, sweep=lambda q, v: q.min(1))


@mutant(ID, default_case=alike())
def largest_in_size(*args, **options):
    "The action of the largest |q|."
    return iterated(
        *args, **options,
        sweep=lambda q, v: np.take_along_axis(q, np.argmax(np.abs(q), 1)[:, None], 1)[:, 0],
    )  # fmt: skip


@mutant(ID, default_case=alike())
def worst_reward_is_zero(P, R, start=None, **options):
    "Rewards below -2 are cut there, as a guard against penalties."
    return iterated(P, np.maximum(R, -2), start, **options)


@mutant(ID, default_case=alike())
def ends_go_on_paying(P, R, start=None, **options):
    "An absorbing state pays the mean reward of the steps into it."
    into = np.einsum("sas->s", P) == P.shape[1]
    paid = np.array([np.mean(R[P[:, :, s] > 0]) if into[s] else 0 for s in range(len(R))])
    return iterated(P, np.where(into[:, None] & (R == 0), paid[:, None], R).astype(R.dtype), start, **options)
