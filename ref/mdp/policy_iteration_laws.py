"""Laws and mutants of policy iteration."""

from __future__ import annotations

import numpy as np

from ref.mdp.common_laws import (
    best_value,
    f64,
    low_start,
    model_space,
    optimum_bound,
    quarters,
    ring,
    step,
    top,
    value_of,
)
from ref.spec import law, mutant
from ref.spec.cases import choose, dims

ID = "mdp.policy_iteration"
space = model_space(ID, start=quarters("S"), iterations=None)


@law(
    ID, "L1", closed_form=True, given=space.reach("chancy", "one_state", "no_future", "absorbing"),
    kills=["evaluates_by_ten_sweeps", "improves_once", "improves_by_rewards", "worst_action", "transposed"],
)  # fmt: skip
def no_policy_is_better(impl, c, expect):
    "v is the best value of all A^S deterministic policies, in every state; and so T v = v."
    v, _ = impl(c)
    expect(v, best_value(c.P, c.R, c.gamma), optimum_bound(c), scale=1 + top(c))
    P, R, v64 = f64(c.P, c.R, v)
    expect(step(P, R, v64, c.gamma)[0], v64, 2 * optimum_bound(c), "T v", scale=1 + top(c))


@law(ID, "L2", given=space.reach("chancy"), kills=["worst_action", "averages_with_the_last"])
def rises_to_the_optimum(impl, c, expect):
    "v_1 <= v_2 <= v_3 <= v*, whatever v_0 is."
    v = [impl(c.replace(iterations=k))[0] for k in (1, 2, 3)]
    slack = 2 * optimum_bound(c)
    for k in (0, 1):
        expect.at_most(*f64(v[k], v[k + 1] + slack), f"v_{k + 1}")
    expect.at_most(*f64(v[2], best_value(c.P, c.R, c.gamma) + slack), "v_3")


@law(
    ID, "L3", closed_form=True, dtypes=("float64",), given=space.where(iterations=1).reach("chancy"),
    kills=["start_ignored", "improves_by_rewards", "evaluates_by_ten_sweeps", "improves_twice"],
)  # fmt: skip
def first_step_is_the_greedy_policys_value(impl, c, expect):
    "v_1 = sum_i (gamma P_pi)^i R_pi of pi greedy for v_0, the first of equals."
    _, actions = step(c.P, c.R, c.start, c.gamma)
    policy = (actions[:, None] == np.arange(c.A)).astype(np.float64)
    v, found = impl(c)
    expect.same(found, policy, "policy")
    expect(v, value_of(c.P, c.R, policy, c.gamma), optimum_bound(c), "v", scale=1 + top(c))


@law(
    ID, "L4", given=space.where(iterations=choose(None, 1, 2)), kills=["policy_of_the_round_after", "splits_ties"],
)  # fmt: skip
def the_policy_earns_the_value(impl, c, expect):
    "Each row of the policy has a single 1, and its value is v."
    v, policy = impl(c)
    expect.same(np.sort(policy, 1), np.eye(c.A)[[-1] * c.S], "a row of the policy, sorted")
    expect(v, value_of(c.P, c.R, policy, c.gamma), optimum_bound(c), "v", scale=1 + top(c))


@law(
    ID, "L5", given=space.where(iterations=dims(1, 3)).reach("chancy"), kills=["one_sweep_of_evaluation_late"],
)  # fmt: skip
def faster_than_value_iteration(impl, c, expect):
    "From v_0 <= T v_0: T^k v_0 <= v_k."
    start = low_start(c)
    P, R, v = f64(c.P, c.R, start)
    for _ in range(c.iterations):
        v, _ = step(P, R, v, c.gamma)
    found, _ = impl(c.replace(start=start))
    expect.at_most(v, np.asarray(found, np.float64) + 2 * optimum_bound(c, start), "T^k v_0")


@law(
    ID, "L6", given=space.where(kind=choose("stochastic", "sure"), gamma=choose(0.5, 0.75, 0.9)),
    kills=["penalties_are_cut"], passes_null=[],
)  # fmt: skip
def affine_in_the_rewards_of_a_continuing_task(impl, c, expect):
    "v*(2 R - 3) = 2 v*(R) - 3 / (1 - gamma), where no state is absorbing."
    other = c.replace(R=(2 * c.R - 3).astype(c.dtype))
    (v, _), (w, _) = impl(c), impl(other)
    v, w = f64(v, w)
    expect(w, 2 * v - 3 / (1 - c.gamma), 2 * optimum_bound(c) + optimum_bound(other), scale=1 + top(other))


# Mutants ---------------------------------------------------------------------------------------------


def alike(gamma=0.5, S=3, A=2, reward=1.0, start=2.0, **options):
    """The default-size test: a ring whose states and actions are all alike, from its value."""
    P, R = ring(S, A, reward)
    return lambda: ((P, R, np.full(S, start)), {"gamma": gamma, **options})


def improved(P, R, start=None, *, gamma, iterations=None, **edit):
    """Policy iteration in plain NumPy, whose parts an edit replaces."""
    n = np.arange(len(R))
    v, seen, actions = np.zeros(len(R)) if start is None else start, set(), None
    while iterations is None or len(seen) < iterations:
        better = edit.get("choose", lambda q: q.argmax(1))(edit.get("q", lambda v: R + gamma * P @ v)(v))
        if tuple(better) in seen or len(seen) == edit.get("most", -1):
            break
        seen.add(tuple(better))
        actions = better
        v = edit.get("evaluate", _solve)(P[n, actions], R[n, actions], gamma, v)
    policy = edit.get("policy", lambda a, v: np.eye(R.shape[1])[a])(actions, v)
    return v.astype(R.dtype), policy.astype(R.dtype)


def _solve(M, r, gamma, v):
    return np.linalg.solve(np.eye(len(r)) - gamma * M, r)


def _sweeps(count):
    def evaluate(M, r, gamma, v):
        for _ in range(count):
            v = r + gamma * M @ v
        return v

    return evaluate


@mutant(ID, default_case=alike())
def evaluates_by_ten_sweeps(*args, **options):
    "Each evaluation is ten sweeps; it ends when the policy is stable."
    return improved(*args, **options, evaluate=_sweeps(10))


@mutant(ID, default_case=alike(reward=0.0, start=0.0))
def one_sweep_of_evaluation_late(*args, gamma, **options):
    "The value of the round before, discounted once."
    return improved(*args, gamma=gamma, **options, evaluate=lambda M, r, gamma, v: gamma * M @ v)


@mutant(ID, default_case=alike())
def improves_once(*args, **options):
    "One improvement, taken for the last."
    return improved(*args, **options, most=1)


@mutant(ID, default_case=alike())
def improves_twice(*args, iterations=None, **options):
    "One more round than asked."
    return improved(*args, **options, iterations=None if iterations is None else iterations + 1)


@mutant(ID, default_case=alike())
def improves_by_rewards(P, R, start=None, **options):
    "Greedy for the reward of the step alone."
    return improved(P, R, start, **options, q=lambda v: R)


@mutant(ID, default_case=alike(A=1))
def worst_action(*args, **options):
    "argmin."
    return improved(*args, **options, choose=lambda q: q.argmin(1))


@mutant(ID, default_case=alike())
def averages_with_the_last(*args, **options):
    "Half the new value, half the old one, for stability."
    return improved(*args, **options, evaluate=lambda M, r, gamma, v: (v + _solve(M, r, gamma, v)) / 2)


@mutant(ID, default_case=alike())
def transposed(*args, **options):
    "P^T in the evaluation."
    return improved(*args, **options, evaluate=lambda M, r, gamma, v: _solve(M.T, r, gamma, v))


@mutant(ID, default_case=alike(reward=0.0, start=0.0))
def start_ignored(P, R, start=None, **options):
    "From zeros."
    return improved(P, R, None, **options)


@mutant(ID, default_case=alike())
def policy_of_the_round_after(P, R, start=None, *, gamma, **options):
    "The value of one policy with the policy that is greedy for it."
    return improved(P, R, start, gamma=gamma, **options,
                    policy=lambda a, v: np.eye(R.shape[1])[(R + gamma * P @ v).argmax(1)])  # fmt: skip


@mutant(ID, default_case=alike(A=1))
def splits_ties(P, R, start=None, *, gamma, **options):
    "All best actions, in equal shares."

    def policy(a, v):
        q = R + gamma * P @ v
        best = q >= q.max(1, keepdims=True) - 1e-9
        return best / best.sum(1, keepdims=True)

    return improved(P, R, start, gamma=gamma, **options, policy=policy)


@mutant(ID, default_case=alike())
def penalties_are_cut(P, R, start=None, **options):
    "Rewards below -2 are cut there."
    return improved(P, np.maximum(R, -2), start, **options)
