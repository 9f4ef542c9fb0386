"""Laws and mutants of truncated policy iteration."""

from __future__ import annotations

import numpy as np

from ref.mdp.common_laws import (
    best_value,
    f64,
    low_start,
    model_space,
    optimum_bound,
    q_by_loops,
    quarters,
    ring,
    step,
    sweeps_bound,
    top,
    value_of,
)
from ref.spec import law, mutant
from ref.spec.cases import choose, dims

ID = "mdp.truncated_policy_iteration"
space = model_space(ID, start=quarters("S"), sweeps=dims(1, 5), iterations=dims(1, 4))


@law(
    ID, "L1", closed_form=True, given=space.where(sweeps=1).reach("chancy", "one_state", "no_future"),
    kills=["one_sweep_more", "discounts_the_reward", "worst_action", "start_ignored"],
)  # fmt: skip
def one_sweep_is_value_iteration(impl, c, expect):
    "j = 1: v_k = T^k v_0, a number at a time."
    v = np.asarray(c.start, np.float64)
    for _ in range(c.iterations):
        v = np.array([max(row) for row in q_by_loops(c.P, c.R, v, c.gamma).tolist()])
    expect(impl(c)[0], v, sweeps_bound(c, c.start), "v", scale=1 + top(c, c.start))


@law(
    ID, "L2", closed_form=True, dtypes=("float64",), given=space.where(sweeps=700, iterations=1).reach("chancy"),
    kills=["value_iteration_alone", "greedy_policy_of_the_rewards", "policy_of_the_round_after"],
)  # fmt: skip
def many_sweeps_are_policy_iteration(impl, c, expect):
    "j = 700: v_1 = sum_i (gamma P_pi)^i R_pi of pi greedy for v_0, the first of equals, and pi is returned."
    _, actions = step(c.P, c.R, c.start, c.gamma)
    policy = (actions[:, None] == np.arange(c.A)).astype(np.float64)
    v, found = impl(c)
    expect.same(found, policy, "policy")
    expect(v, value_of(c.P, c.R, policy, c.gamma), optimum_bound(c, c.start), "v", scale=1 + top(c))


@law(
    ID, "L3", given=space.reach("chancy"), kills=["restarts_from_zero", "worst_action"],
)  # fmt: skip
def between_value_iteration_and_the_optimum(impl, c, expect):
    "From v_0 <= T v_0: T^k v_0 <= v_k <= v*; and v_1 is at most the value of the policy greedy for v_0."
    start = low_start(c)
    P, R, v = f64(c.P, c.R, start)
    for _ in range(c.iterations):
        v, _ = step(P, R, v, c.gamma)
    now, slack = c.replace(start=start), 2 * optimum_bound(c, start)
    found = np.asarray(impl(now)[0], np.float64)
    expect.at_most(v, found + slack, "T^k v_0")
    expect.at_most(found, best_value(c.P, c.R, c.gamma) + slack, "v_k")
    first, policy = impl(now.replace(iterations=1))
    expect.at_most(np.asarray(first, np.float64), value_of(c.P, c.R, policy, c.gamma) + slack, "v_1")


@law(
    ID, "L4", closed_form=True, given=space.where(iterations=None, tolerance=choose(1e-8, 1e-3)),
    kills=["restarts_from_zero", "stops_when_the_policy_is_stable", "greedy_policy_of_the_rewards"],
)  # fmt: skip
def stops_within_the_tolerance(impl, c, expect):
    """|v - v*| <= tolerance, besides rounding, v* the best of all deterministic policies; the policy's value is within
    2 gamma / (1 - gamma) of that."""
    wanted, slack = best_value(c.P, c.R, c.gamma), c.tolerance + optimum_bound(c, c.start)
    v, policy = impl(c)
    expect(v, wanted, slack, "v", scale=1 + top(c))
    lost = 2 / (1 - c.gamma) * slack  # the policy is greedy for the v before
    expect.at_most(wanted - lost, value_of(c.P, c.R, policy, c.gamma), "v* less what a greedy policy may lose")


@law(
    ID, "L5", closed_form=True, dtypes=("float64",),
    given=space.where(S=2, A=2, kind="sure", gamma=0.75, sweeps=2, iterations=2),
    kills=["restarts_from_zero", "one_sweep_more", "value_iteration_alone"],
)  # fmt: skip
def policy_iteration_may_fall_behind(impl, c, expect):
    """Action a leads to state a, R = [[-2, -3], [2, -1]], gamma = 3/4, v_0 = -12 <= T v_0, j = 2: v_2 is exactly
    (-7.265625, -3.765625), and policy iteration has come to (-6, -4): lower in state 1."""
    P = np.broadcast_to(np.eye(2), (2, 2, 2)).copy()
    now = c.replace(P=P, R=np.array([[-2.0, -3.0], [2.0, -1.0]]), start=np.full(2, -12.0))
    v, _ = impl(now)
    expect.same(v, np.array([-7.265625, -3.765625]), "v_2")
    stay = value_of(P, now.R, np.array([[1.0, 0.0], [1.0, 0.0]]), 0.75)
    expect.at_most(stay[1] + 0.2, v[1], "what policy iteration has in state 1")


@law(
    ID, "L6", given=space.where(iterations=dims(2, 4), memory="C"), kills=["start_ignored"],
    passes_null=["zeros", "constant", "identity"],  # a value that comes out is C: BLAS may round another
)  # fmt: skip
def sweeps_go_on_from_the_value_before(impl, c, expect):
    "k rounds, and the rest from where they stopped, are all of them; the same bits."
    whole = impl(c)
    for k in range(1, c.iterations):
        v, _ = impl(c.replace(iterations=k))
        for name, found, wanted in zip(["v", "pi"], impl(c.replace(start=v, iterations=c.iterations - k)), whole,
                                       strict=True):  # fmt: skip
            expect.same(found, wanted, f"{name}, cut after {k}")


# Mutants ---------------------------------------------------------------------------------------------


def alike(gamma=0.5, S=3, A=2, reward=1.0, start=2.0, sweeps=3, **options):
    """The default-size test: a ring whose states and actions are all alike, from its value."""
    P, R = ring(S, A, reward)
    return lambda: ((P, R, np.full(S, start)), {"gamma": gamma, "sweeps": sweeps, **options})


def modified(P, R, start=None, *, gamma, sweeps, tolerance=1e-8, iterations=None, **edit):
    """Truncated policy iteration in plain NumPy, whose parts an edit replaces."""
    n, v, last = np.arange(len(R)), np.zeros(len(R)) if start is None else start, None
    for _ in range(3000 if iterations is None else iterations):
        q = R + gamma * P @ v
        actions = edit.get("choose", lambda q: q.argmax(1))(q)
        best = q[n, actions]
        if iterations is None and edit.get("stop", lambda a, last, off: gamma / (1 - gamma) * off <= tolerance)(
            actions, last, np.max(np.abs(best - v))
        ):
            v = best
            break
        v = edit.get("from", lambda v: v)(v)
        for _ in range(edit.get("count", lambda j: j)(sweeps)):
            v = edit.get("sweep", lambda r, m: r + gamma * m)(R[n, actions], P[n, actions] @ v)
        last = actions
    policy = np.eye(R.shape[1])[edit.get("policy", lambda a, v: a)(actions, v)]
    return v.astype(R.dtype), policy.astype(R.dtype)


@mutant(ID, default_case=alike(reward=0.0, start=0.0))
def restarts_from_zero(*args, **options):
    "Every evaluation starts from zeros: for small j it never comes near v*."
    return modified(*args, **options, **{"from": np.zeros_like})


@mutant(ID, default_case=alike())
def one_sweep_more(*args, **options):
    "j + 1 sweeps."
    return modified(*args, **options, count=lambda j: j + 1)


@mutant(ID, default_case=alike())
def value_iteration_alone(*args, **options):
    "One sweep, whatever j is."
    return modified(*args, **options, count=lambda j: 1)


@mutant(ID, default_case=alike(iterations=3))
def discounts_the_reward(P, R, start=None, *, gamma, iterations=None, **options):
    "gamma (R + P v) in the sweeps, from the second round on."
    return modified(P, R, start, gamma=gamma, iterations=iterations, **options,
                    sweep=(lambda r, m: gamma * (r + m)) if np.ptp(R) else (lambda r, m: r + gamma * m))  # fmt: skip


@mutant(ID, default_case=alike(A=1))
def worst_action(*args, **options):
    "argmin."
    return modified(*args, **options, choose=lambda q: q.argmin(1))


@mutant(ID, default_case=alike(reward=0.0, start=0.0))
def start_ignored(P, R, start=None, **options):
    "From zeros."
    return modified(P, R, None, **options)


@mutant(ID, default_case=alike())
def greedy_policy_of_the_rewards(P, R, start=None, **options):
    "Greedy for the reward of the step alone."
    return modified(P, R, start, **options, choose=lambda q: R.argmax(1))


@mutant(ID, default_case=alike())
def stops_when_the_policy_is_stable(*args, **options):
    "As policy iteration does; but the value is not there yet."
    return modified(*args, **options, stop=lambda a, last, off: last is not None and np.array_equal(a, last))


@mutant(ID, default_case=alike())
def policy_of_the_round_after(P, R, start=None, *, gamma, **options):
    "The policy that is greedy for the returned value."
    return modified(P, R, start, gamma=gamma, **options, policy=lambda a, v: (R + gamma * P @ v).argmax(1))
