"""Laws and mutants of backward induction."""

from __future__ import annotations

import numpy as np

from ref.mdp.common_laws import deterministic, f64, model_space, quarters, ring, shaped
from ref.spec import bounds, law, mutant
from ref.spec.cases import choose, dims

ID = "mdp.finite_horizon"
space = model_space(
    ID, S=dims(1, 3), A=dims(1, 2), gamma=choose(1.0, 0.5, 0.75, 0.0), final=quarters("S"),
    horizon=lambda draw, c: draw(dims(1, 3 - (c.S == 3)).strategy(False)),
)  # fmt: skip

small = {"kind": "stochastic", "S": dims(2, 3), "A": 2}  # every plan is played: few states and actions
space = space._replace(flags={**space.flags, "chancy": space.flags["chancy"]._replace(build=small)})


def induced(impl, c, expect):
    return shaped(expect, impl(c), (c.dtype, (c.horizon + 1, c.S)), (c.dtype, (c.horizon, c.S, c.A)))


def bound(c):
    return bounds.rounding((c.S + 4) * c.horizon, scale(c), c.dtype)


def scale(c):
    return 1 + c.horizon * np.max(np.abs(c.R)) + np.max(np.abs(c.final))


def plans(c):
    """Values of every plan, [plans S]: a policy for each step, by which action in which state, played out."""
    P, R, final = f64(c.P, c.R, c.final)
    policies = deterministic(c.S, c.A)
    M, r = np.einsum("nsa,sat->nst", policies, P), np.sum(policies * R, -1)
    reach, total = np.eye(c.S)[None], np.zeros((1, c.S))
    for t in range(c.horizon):  # forward in time, from every state at once; each plan so far goes on in every way
        total = (total[:, None] + c.gamma**t * np.einsum("pst,nt->pns", reach, r)).reshape(-1, c.S)
        reach = np.einsum("pst,ntu->pnsu", reach, M).reshape(-1, c.S, c.S)
    return total + c.gamma**c.horizon * reach @ final


@law(
    ID, "L1", closed_form=True, given=space.reach("chancy", "one_state", "no_future"),
    kills=["one_policy_for_all_steps", "final_ignored", "discounts_the_reward", "final_undiscounted", "worst_action"],
)  # fmt: skip
def best_of_all_plans(impl, c, expect):
    "values[h] is the best of all (A^S)^h plans, each played out forward; values[0] = final."
    values, _ = induced(impl, c, expect)
    expect(values[-1], np.max(plans(c), 0), bound(c), "values[h]", scale=scale(c))
    expect.same(values[0], c.final, "values[0]")


@law(
    ID, "L2", given=space.where(A=2, S=2, horizon=dims(2, 3)), kills=["policy_by_time_gone"],
)  # fmt: skip
def the_policy_earns_the_value(impl, c, expect):
    "Played by the clock (policy[h - 1 - t] at step t), the policy earns values[h]; a row has a single 1."
    values, policy = induced(impl, c, expect)
    P, R, total, reach = *f64(c.P, c.R), np.zeros(c.S), np.eye(c.S)
    for t in range(c.horizon):
        pi = np.asarray(policy[c.horizon - 1 - t], np.float64)
        total += c.gamma**t * reach @ np.sum(pi * R, -1)
        reach = reach @ np.einsum("sa,sat->st", pi, P)
    total += c.gamma**c.horizon * reach @ np.asarray(c.final, np.float64)
    expect(values[-1], total, 2 * bound(c), scale=scale(c))
    expect.same(np.sort(policy, -1)[..., -1], np.ones((c.horizon, c.S)), "the largest chance of a row")


@law(
    ID, "L3", closed_form=True, dtypes=("float64",),
    given=space.where(S=3, A=2, kind="sure", gamma=1.0, horizon=4),
    kills=["one_policy_for_all_steps", "policy_by_time_gone"],
)  # fmt: skip
def no_fixed_policy_is_better(impl, c, expect):
    """Two ways from 0: stay and earn 1, or leave for 1, whence 2 pays 5 once on the way and ends in 2. With 4 steps
    to go 0 is worth 1 + 1 + 0 + 5 = 7, and no policy that does not look at the clock earns more than 5."""
    P = np.zeros((3, 2, 3))
    P[0, 0, 0] = P[0, 1, 1] = P[1, :, 2] = P[2, :, 2] = 1
    R = np.array([[1.0, 0.0], [5.0, 5.0], [0.0, 0.0]])
    values, policy = induced(impl, c.replace(P=P, R=R, final=np.zeros(3)), expect)
    expect.same(values[:, 0], np.array([0.0, 1.0, 5.0, 6.0, 7.0]), "worth of state 0")
    expect.same(policy[:, 0, 0], np.array([1.0, 0.0, 1.0, 1.0]), "staying, by the steps left")


@law(ID, "L4", closed_form=True, given=space.where(gamma=0.0), kills=["discounts_the_reward", "worst_action"])
def one_step_is_the_best_reward(impl, c, expect):
    "gamma = 0: every value but the final one is max_a R, exactly."
    values, _ = induced(impl, c, expect)
    expect.same(values[1:], np.broadcast_to(np.max(c.R, 1), (c.horizon, c.S)))


# Mutants ---------------------------------------------------------------------------------------------


def alike(gamma=1.0, S=3, A=2, reward=1.0, horizon=3, final=0.0):
    """The default-size test: a ring whose states and actions are all alike."""
    P, R = ring(S, A, reward)
    return lambda: ((P, R, np.full(S, final)), {"gamma": gamma, "horizon": horizon})


def induction(P, R, final=None, *, horizon, gamma=1.0, **edit):
    """Backward induction in plain NumPy, whose parts an edit replaces."""
    values, policy = [np.zeros(len(R)) if final is None else final], []
    for _ in range(horizon):
        q = edit.get("q", lambda R, m: R + gamma * m)(R, P @ values[-1])
        a = edit.get("choose", lambda q, policy: q.argmax(1))(q, policy)
        values.append(q[np.arange(len(q)), a])
        policy.append(a)
    policy = np.eye(R.shape[1])[np.array(policy)]
    return np.stack(values).astype(R.dtype), policy.astype(R.dtype)


@mutant(ID, default_case=alike())
def one_policy_for_all_steps(*args, **options):
    "The policy that is best with one step to go, for ever."
    return induction(*args, **options, choose=lambda q, policy: policy[0] if policy else q.argmax(1))


@mutant(ID, default_case=alike())
def policy_by_time_gone(*args, **options):
    "policy[t] is what to do at step t."
    values, policy = induction(*args, **options)
    return values, policy[::-1].copy()


@mutant(ID, default_case=alike())
def final_ignored(P, R, final=None, **options):
    "Nothing is left at the end."
    values, policy = induction(P, R, None, **options)
    return np.concatenate([(0 * R[:, 0] if final is None else final)[None], values[1:]]), policy


@mutant(ID, default_case=alike(final=0.0))
def final_undiscounted(P, R, final=None, *, gamma=1.0, **options):
    "The final worth at full price, however far it is."
    final = np.zeros(len(R)) if final is None else final
    values, policy = induction(P, R, (final / gamma if gamma else final).astype(R.dtype), gamma=gamma, **options)
    return np.concatenate([final[None].astype(R.dtype), values[1:]]), policy


@mutant(ID, default_case=alike())
def discounts_the_reward(*args, gamma=1.0, **options):
    "gamma (R + P v)."
    return induction(*args, gamma=gamma, **options, q=lambda R, m: gamma * (R + m))


@mutant(ID, default_case=alike(A=1))
def worst_action(*args, **options):
    "argmin."
    return induction(*args, **options, choose=lambda q, policy: q.argmin(1))
