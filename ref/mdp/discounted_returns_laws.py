"""Laws and mutants of discounted returns."""

from __future__ import annotations

import numpy as np

from ref.mdp.common_laws import rows, trajectory_space, trip_bound, trip_size, unrowed
from ref.spec import bounds, law, mutant
from ref.spec.cases import choose, dims, rng

ID = "mdp.discounted_returns"


def _ended(draw, c):
    return rng(draw).random(c.N) < 0.3 if c.marked in ("both", "truncated") else None


space = trajectory_space(ID, ended=_ended)
space = space._replace(flags={n: space.flags[n] for n in ("empty", "some", "time_first")})


@law(
    ID, "L1", closed_form=True, given=space.reach("empty", "time_first"),
    kills=["from_the_start", "without_the_first_reward", "runs_through_ends", "ends_one_late", "always_time_last",
           "mean_of_the_rewards"],
)  # fmt: skip
def direct_sum(impl, c, expect):
    "G_t = sum_i gamma^i r_{t+i} to the end of the episode, summed forward from each t."
    r = rows(c, c.rewards).astype(np.float64)
    ended = np.zeros(r.shape, bool) if c.ended is None else rows(c, c.ended)
    wanted = np.zeros(r.shape)
    for i, t in np.ndindex(*r.shape):
        for j in range(t, c.T):
            wanted[i, t] += c.gamma ** (j - t) * r[i, j]
            if ended[i, j]:
                break
    expect(impl(c), unrowed(c, wanted), trip_bound(c), scale=trip_size(c))


@law(ID, "L2", closed_form=True, given=space.where(some=True, ended=None, gamma=choose(0.5, 0.75, 0.99)),
     kills=["from_the_start", "without_the_first_reward", "mean_of_the_rewards"])  # fmt: skip
def constant_rewards(impl, c, expect):
    "Rewards 1: G_t = (1 - gamma^{T-t}) / (1 - gamma)."
    left = c.T - np.arange(c.T)
    wanted = np.broadcast_to((1 - c.gamma**left) / (1 - c.gamma), (int(np.prod(c.B)), c.T))
    found = impl(c.replace(rewards=np.ones_like(c.rewards)))
    expect(found, unrowed(c, wanted), bounds.rounding(4 * c.T, c.T, c.dtype), scale=float(c.T))


@law(ID, "L3", given=space.where(some=True, B=choose((2,), (3,))).reach("time_first"), kills=["always_time_last"],
     passes_null=["zeros", "constant", "identity"])  # fmt: skip
def time_first_or_last(impl, c, expect):
    "The rewards with time on the other axis give the same returns there, bit for bit."
    swapped = c.replace(time_axis=-1 - c.time_axis, N=c.N[::-1], rewards=c.rewards.T.copy(),
                        ended=None if c.ended is None else c.ended.T.copy())  # fmt: skip
    expect.same(impl(swapped), impl(c).T)


@law(ID, "L4", given=space.where(T=dims(2, 6), B=(), marked="both"),
     kills=["runs_through_ends", "ends_one_late"], passes_null=["zeros", "constant", "identity"])  # fmt: skip
def episodes_do_not_mix(impl, c, expect):
    "A recording cut apart where an episode ended gives the same bits in two parts."
    k = (c.T + 1) // 2
    whole = c.replace(ended=c.ended | (np.arange(c.T) == k - 1))
    parts = [
        impl(c.replace(rewards=c.rewards[at].copy(), ended=whole.ended[at].copy(), T=n, N=(n,)))
        for at, n in ((slice(0, k), k), (slice(k, None), c.T - k))
    ]
    expect.same(np.concatenate(parts), impl(whole))


# Mutants ---------------------------------------------------------------------------------------------


def single(gamma=0.5, reward=0.0, T=3):
    """The default-size test: one episode without rewards."""
    return lambda: ((np.full(T, reward),), {"gamma": gamma})


def accumulated(rewards, ended=None, *, gamma, time_axis=-1, **edit):
    """The recursion in plain NumPy, whose parts an edit replaces."""
    axis = edit.get("axis", 0 if time_axis == 0 else -1)
    r = np.moveaxis(rewards, axis, 0)
    ended = np.zeros(r.shape, bool) if ended is None else np.moveaxis(ended, axis, 0)
    ended = edit.get("ends", lambda e: e)(ended)
    out, later = np.zeros_like(r), 0.0
    for t in range(len(r) - 1, -1, -1):
        later = out[t] = r[t] + gamma * np.where(ended[t], 0, later)
    out = edit.get("after", lambda out, r: out)(out, r)
    return np.moveaxis(out, 0, axis).astype(rewards.dtype).copy()


@mutant(ID, default_case=single())
def from_the_start(*args, gamma, **options):
    "Discounted from step 0 for every t: gamma^t too small."
    return accumulated(*args, gamma=gamma, **options, after=lambda out, r: (
        out * gamma ** np.arange(len(out), dtype=out.dtype).reshape(-1, *[1] * (out.ndim - 1))))  # fmt: skip


@mutant(ID, default_case=single())
def without_the_first_reward(*args, **options):
    "G_t - r_t."
    return accumulated(*args, **options, after=lambda out, r: out - r)


@mutant(ID, default_case=single(reward=1.0))
def runs_through_ends(*args, **options):
    "ended is taken and not used."
    return accumulated(*args, **options, ends=np.zeros_like)


@mutant(ID, default_case=single(reward=1.0))
def ends_one_late(*args, **options):
    "ended[t] marks the first step of an episode."
    return accumulated(*args, **options, ends=lambda e: np.concatenate([e[1:], np.zeros_like(e[:1])]))


@mutant(ID, default_case=single(reward=1.0))
def always_time_last(*args, time_axis=-1, **options):
    "time_axis is taken and not used."
    return accumulated(*args, **options, axis=-1)


@mutant(ID, default_case=single())
def mean_of_the_rewards(*args, **options):
    "The return of the whole episode, at every step."
    return accumulated(*args, **options, after=lambda out, r: np.broadcast_to(out[:1], out.shape))
