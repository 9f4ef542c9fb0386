"""Laws and mutants of MC Basic."""

from __future__ import annotations

import itertools

import numpy as np

from ref.mdp.common_laws import chain_to_an_end, chances, f64, model_space, ring, sure
from ref.spec import bounds, law, mutant
from ref.spec.cases import choose, dims, rng

ID = "mdp.mc_basic"


def _policy(draw, c):
    return sure(rng(draw), (c.S, c.A))


def _uniform(draw, c):
    return np.floor(rng(draw).random((c.k, c.S, c.A, c.n, c.T)) * 2**10) / 2**10


space = model_space(
    ID, S=dims(1, 3), A=dims(1, 2), policy=_policy, k=dims(1, 3), n=dims(1, 2), T=dims(1, 4), noise=_uniform,
    seed=dims(0, 999), gamma=choose(0.5, 0.75, 1.0, 0.0),
)  # fmt: skip
space = space._replace(flags={n: space.flags[n] for n in ("one_state", "one_action", "absorbing")})


def size(c):
    return c.T * np.max(np.abs(c.R)) + 0.25


def bound(c):
    return bounds.rounding(2 * c.T + c.n + 4, size(c), c.dtype)


def truncated(P, R, policy, gamma, T):
    """R + gamma P T_pi^{T-1} 0: what the first T steps from each (s, a) pay."""
    v = np.zeros(len(R))
    for _ in range(T - 1):
        v = np.sum(policy * (R + gamma * np.einsum("sat,t->sa", P, v)), 1)
    return R + gamma * np.einsum("sat,t->sa", P, v)


def greedy(q):
    return np.eye(q.shape[1])[q.argmax(1)]


@law(
    ID, "L1", closed_form=True, given=space.where(kind="sure", k=1).reach("one_state", "one_action"),
    kills=["one_step_more", "first_action_by_the_policy", "sum_for_the_mean", "undiscounted", "old_policy"],
)  # fmt: skip
def truncated_evaluation_of_sure_models(impl, c, expect):
    "Sure outcomes, one round: q = R + gamma P T_pi^{T-1} 0 from a single episode each, and the policy greedy for q."
    q = truncated(*f64(c.P, c.R, c.policy), c.gamma, c.T)
    found, policy = impl(c)
    expect(found, q, bound(c), "q", scale=size(c))
    clear = np.sort(q, 1)[:, -1:] - q > 2 * np.max(bound(c))  # what cannot be a tie
    expect.same(np.where(clear, policy, 0), np.zeros(q.shape), "chance of actions that are not best")


@law(
    ID, "L2", closed_form=True, dtypes=("float64",), 
    given=space.where(S=2, A=2, k=1, kind="stochastic", T=choose(1, 2, 3)),
    kills=["one_step_more", "noise_of_the_first_step", "first_action_by_the_policy", "undiscounted"],
)  # fmt: skip
def mean_over_all_outcomes(impl, c, expect):
    "Chances in quarters, all 4^T outcomes as episodes: q = R + gamma P T_pi^{T-1} 0, whatever the chances are."
    P = chances(np.random.default_rng(c.seed), (2, 2, 2), 4)
    grid = (np.array(list(itertools.product(range(4), repeat=c.T))) + 0.5) / 4
    noise = np.broadcast_to(grid, (1, 2, 2, *grid.shape)).copy()
    now = c.replace(P=P, noise=noise, n=len(grid))
    q = truncated(P, *f64(c.R, c.policy), c.gamma, c.T)
    expect(impl(now)[0], q, bound(now), scale=size(c))


@law(
    ID, "L3", given=space.where(kind="sure", k=dims(2, 3), gamma=choose(0.5, 0.75)),
    kills=["old_policy", "goes_on_from_the_last_q", "one_step_more", "worst_action"],
)  # fmt: skip
def rounds_are_truncated_policy_iteration(impl, c, expect):
    """Sure outcomes, k rounds: each is a truncated evaluation, begun at 0, of the policy greedy for the one before. The
    rewards are spread apart, so that no rounding decides."""
    R = (c.R + np.arange(c.A) / 64 + np.arange(c.S)[:, None] / 1024).astype(c.dtype)
    (P, r), policy = f64(c.P, R), np.asarray(c.policy, np.float64)
    for _ in range(c.k):
        q = truncated(P, r, policy, c.gamma, c.T)
        policy = greedy(q)
    found, improved = impl(c.replace(R=R))
    expect(found, q, bound(c.replace(R=R)), "q", scale=size(c) + 1)
    clear = np.sort(q, 1)[:, -1:] - q > 1e-4
    expect.same(np.where(clear, improved, 0), np.zeros(q.shape), "chance of actions that are not best")


@law(
    ID, "L4", closed_form=True, given=space.where(
        S=dims(2, 5), A=1, k=1, n=1, P=lambda draw, c: chain_to_an_end(c.S, 1.0)[0],
        R=lambda draw, c: np.eye(c.S)[:, -2:-1] * 1.0, policy=lambda draw, c: np.ones((c.S, 1))),
    kills=["one_step_more", "goes_on_for_ever"],
)  # fmt: skip
def sees_as_far_as_an_episode_is_long(impl, c, expect):
    "A corridor that pays 1 on the last step: q = gamma^d from d steps before it if T > d, else 0."
    d = c.S - 2 - np.arange(c.S)
    wanted = np.where((d >= 0) & (d < c.T), c.gamma ** np.maximum(d, 0.0), 0.0)
    expect(impl(c)[0][:, 0], wanted, bound(c), scale=1.0)


# Mutants ---------------------------------------------------------------------------------------------


def alike(T=2, k=2, gamma=0.5, reward=0.0):
    """The default-size test: a ring without rewards."""
    P, R = ring(3, 1, reward)
    return lambda: ((P, R, np.ones((3, 1)), np.zeros((k, 3, 1, 1, T))), {"gamma": gamma})


def drawn(chance, u):
    return int(np.sum(np.cumsum(chance) <= u))


def sampled(P, R, policy, noise, *, gamma, **edit):
    """MC Basic in plain loops, whose parts an edit replaces."""
    S, A = R.shape
    q = np.zeros((S, A))
    for k in range(len(noise)):
        last, q = q, np.zeros((S, A))
        for s, a in np.ndindex(S, A):
            found = []
            for u in noise[k, s, a]:
                at, act, total = s, edit.get("first", lambda s, a, policy: a)(s, a, policy), 0.0
                steps = edit.get("steps", lambda T: T)(len(u))
                for t in range(steps):
                    total += edit.get("power", lambda t: gamma**t)(t) * R[at, act]
                    at = drawn(P[at, act], u[edit.get("look", lambda t, T: min(t, T - 1))(t, len(u))])
                    act = int(policy[at].argmax())
                found.append(total + edit.get("rest", lambda last, at, act: 0.0)(last, at, act) * gamma**steps)
            q[s, a] = edit.get("mean", np.mean)(found)
        if edit.get("improve", True):
            policy = np.eye(A)[edit.get("choose", lambda q: q.argmax(1))(q)]
    return q.astype(R.dtype), policy.astype(R.dtype)


@mutant(ID, default_case=alike())
def one_step_more(*args, **options):
    "T + 1 rewards."
    return sampled(*args, **options, steps=lambda T: T + 1)


@mutant(ID, default_case=alike())
def goes_on_for_ever(*args, **options):
    "Episodes of 50 steps, whatever T is."
    return sampled(*args, **options, steps=lambda T: 50)


@mutant(ID, default_case=alike())
def first_action_by_the_policy(*args, **options):
    "The first action is the policy's: q(s, a) = v(s)."
    return sampled(*args, **options, first=lambda s, a, policy: int(policy[s].argmax()))


@mutant(ID, default_case=alike())
def sum_for_the_mean(*args, **options):
    "The returns of the episodes are added up."
    return sampled(*args, **options, mean=np.sum)


@mutant(ID, default_case=alike())
def undiscounted(*args, **options):
    "gamma is taken and not used."
    return sampled(*args, **options, power=lambda t: 1.0)


@mutant(ID, default_case=alike())
def old_policy(*args, **options):
    "The policy is never improved."
    return sampled(*args, **options, improve=False)


@mutant(ID, default_case=alike())
def worst_action(*args, **options):
    "argmin."
    return sampled(*args, **options, choose=lambda q: q.argmin(1))


@mutant(ID, default_case=alike())
def goes_on_from_the_last_q(*args, **options):
    "A return goes on with the q of the round before: truncated policy iteration, which this is not."
    return sampled(*args, **options, rest=lambda last, at, act: last[at, act])


@mutant(ID, default_case=alike())
def noise_of_the_first_step(*args, **options):
    "One draw for all steps of an episode."
    return sampled(*args, **options, look=lambda t, T: 0)
