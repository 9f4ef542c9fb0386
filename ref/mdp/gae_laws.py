"""Laws and mutants of generalised advantage estimation."""

from __future__ import annotations

import numpy as np

from ref.mdp.common_laws import (
    laid,
    rows,
    small_model,
    trajectory_space,
    trip_bound,
    trip_size,
    unrowed,
    value_of,
    ways,
)
from ref.spec import law, mutant
from ref.spec.cases import choose, dims

ID = "mdp.gae"
space = trajectory_space(ID, lam=choose(0.5, 0.0, 1.0, 0.95), seed=dims(0, 999), cut=0)


def each_row(c, *names):
    """The named arrays a row at a time, in float64 (or bool), and the row's flag of having ended at each step."""
    arrays = [rows(c, c[n]) for n in names]
    for row in zip(*arrays, strict=True):
        yield [x.tolist() for x in row]


def deltas(c):
    """delta[rows T], a number at a time."""
    return [
        [r + (0.0 if end else c.gamma * n) - v for r, v, n, end in zip(*row, strict=True)]
        for row in each_row(c, "rewards", "values", "next_values", "terminated")
    ]


@law(
    ID, "L1", closed_form=True, given=space.reach("empty", "ends", "cuts", "time_first"),
    kills=["truncation_is_termination", "chain_runs_through_cuts", "flags_of_the_step_before", "values_shifted_by_one",
           "ppo_papers_exponent", "discount_without_lam", "whitened", "value_before_the_cut", "last_step_ends",
           "always_time_last"],
)  # fmt: skip
def triangular_sum_of_deltas(impl, c, expect):
    "A_t = sum_{j >= t} (gamma lam)^{j - t} delta_j, up to the first done step from t on; the targets are A + V."
    wanted = np.zeros((int(np.prod(c.B)), c.T))
    done = rows(c, c.terminated | c.truncated)
    for i, delta in enumerate(deltas(c)):
        for t in range(c.T):
            for j in range(t, c.T):
                wanted[i, t] += (c.gamma * c.lam) ** (j - t) * delta[j]
                if done[i, j]:
                    break
    advantages, targets = impl(c)
    expect(advantages, unrowed(c, wanted), trip_bound(c), "advantages", scale=trip_size(c))
    expect(targets, unrowed(c, wanted + rows(c, c.values)), trip_bound(c), "targets", scale=trip_size(c))


@law(
    ID, "L2", closed_form=True, given=space.where(lam=1.0, some=True).reach("ends", "cuts"),
    kills=["truncation_is_termination", "chain_runs_through_cuts", "last_step_ends"],
)  # fmt: skip
def lam_one_is_the_return_less_the_value(impl, c, expect):
    """lam = 1, next_values those of the next step inside an episode: A_t + V_t = sum of gamma^i r_{t+i} to the end of
    the episode, and the value there if it was cut."""
    c = c.replace(next_values=unrowed(c, followed(c)))
    wanted = np.zeros((int(np.prod(c.B)), c.T))
    for i, (r, n, end, cut) in enumerate(each_row(c, "rewards", "next_values", "terminated", "truncated")):
        for t in range(c.T):
            for j in range(t, c.T):
                wanted[i, t] += c.gamma ** (j - t) * r[j]
                if end[j] or cut[j] or j == c.T - 1:
                    wanted[i, t] += 0.0 if end[j] else c.gamma ** (j - t + 1) * n[j]
                    break
    advantages, targets = impl(c)
    expect(targets, unrowed(c, wanted), trip_bound(c), "targets", scale=trip_size(c))
    expect(advantages, unrowed(c, wanted - rows(c, c.values)), trip_bound(c), "advantages", scale=trip_size(c))


def followed(c):
    """next_values[rows T] that are the values of the next step wherever an episode goes on."""
    n, v, done = (rows(c, x).copy() for x in (c.next_values, c.values, c.terminated | c.truncated))
    n[:, :-1] = np.where(done[:, :-1], n[:, :-1], v[:, 1:])
    return n


@law(
    ID, "L3", closed_form=True, given=space.where(lam=0.0, some=True).reach("ends", "cuts"),
    kills=["discount_without_lam", "truncation_is_termination", "values_shifted_by_one"],
)  # fmt: skip
def lam_zero_is_delta(impl, c, expect):
    "lam = 0: A_t = r_t + gamma (1 - terminated) V(s_{t+1}) - V(s_t)."
    wanted = unrowed(c, np.array(deltas(c)).reshape(int(np.prod(c.B)), c.T))
    expect(impl(c)[0], wanted, trip_bound(c), scale=trip_size(c))


def recorded(c, T, cut=None, terminated=False, start=(0.5, 0.5)):
    """(case, states, actions, chances, P, R, policy, v): all ways of T steps of a small model with its true values.

    With `cut`, every way is cut after that step and a new episode begins in a state of its own choice.
    """
    P, R, policy = small_model(c.seed)
    v = value_of(P, R, policy, 0.75)
    states, actions, chance = ways(P, policy, start, T if cut is None else cut + 1)
    nexts = states[:, 1:]
    states = states[:, :-1]
    if cut is not None:
        more, more_actions, p = ways(P, policy, start, T - cut - 1)
        n, m = len(states), len(more)
        states, actions, nexts = (np.repeat(x, m, 0) for x in (states, actions, nexts))
        states = np.concatenate([states, np.tile(more[:, :-1], (n, 1))], 1)
        actions = np.concatenate([actions, np.tile(more_actions, (n, 1))], 1)
        nexts = np.concatenate([nexts, np.tile(more[:, 1:], (n, 1))], 1)
        chance = np.repeat(chance, m) * np.tile(p, n)
    marks = np.zeros(states.shape, bool)
    if cut is not None:
        marks[:, cut] = True
    off = np.zeros_like(marks)
    now = c.replace(B=(len(states),), T=T, gamma=0.75)
    arrays = {
        "rewards": R[states, actions], "values": v[states], "next_values": v[nexts],
        "terminated": marks if terminated else off, "truncated": off if terminated else marks,
    }  # fmt: skip
    now = now.replace(**{n: laid(now, x).astype(c.dtype) if x.dtype.kind == "f" else laid(now, x)
                         for n, x in arrays.items()})  # fmt: skip
    now = now.replace(N=now.rewards.shape)
    return now, states, actions, nexts, chance, P, R, v


def mean_given(chance, x, at):
    return np.sum((chance * x)[at]) / np.sum(chance[at])


@law(
    ID, "L4", closed_form=True, given=space.where(B=(), T=dims(1, 3), time_axis=choose(-1, 0), marked="none"),
    kills=["discount_without_lam_in_delta", "value_before_the_cut", "last_step_ends"],
)  # fmt: skip
def true_values_give_the_advantage(impl, c, expect):
    "With v_pi for V, over all ways: E[A_t | s_t, a_t] = R + gamma P v - v at every t, for every lam."
    now, states, actions, _, chance, P, R, v = recorded(c, c.T)
    found = np.asarray(rows(now, impl(now)[0]), np.float64)
    advantage = R + 0.75 * P @ v - v[:, None]
    for t in range(c.T):
        for s, a in np.ndindex(*R.shape):
            at = (states[:, t] == s) & (actions[:, t] == a)
            if at.any():
                wanted = np.array(advantage[s, a])
                expect(
                    mean_given(chance, found[:, t], at), wanted, 4 * trip_bound(now), f"t = {t}", scale=trip_size(now)
                )


@law(
    ID, "L5", closed_form=True,
    given=space.where(B=(), T=2, cut=choose(0, 1), time_axis=choose(-1, 0), marked="none"),
    kills=["truncation_is_termination", "values_shifted_by_one", "value_before_the_cut"],
)  # fmt: skip
def a_truncation_is_not_felt(impl, c, expect):
    """With v_pi for V and every way cut after the same step: E[A_t + V(s_t) | s_t] = v_pi(s_t) at every t. The same cut
    marked as terminated is felt: E[A_0 + V(s_0) | s_0] = v_pi - gamma (gamma lam)^cut E[v_pi(s_{cut+1}) | s_0]."""
    now, states, _, nexts, chance, *_, v = recorded(c, c.T, c.cut)
    found = np.asarray(rows(now, impl(now)[1]), np.float64)
    for t in range(c.T):
        for s in (0, 1):
            at = states[:, t] == s
            if at.any():
                wanted = np.array(v[s])
                expect(
                    mean_given(chance, found[:, t], at), wanted, 4 * trip_bound(now), f"t = {t}", scale=trip_size(now)
                )
    ended, *_ = recorded(c, c.T, c.cut, terminated=True)
    found = np.asarray(rows(ended, impl(ended)[1]), np.float64)[:, 0]
    for s in (0, 1):
        at = states[:, 0] == s
        lost = 0.75 * (0.75 * c.lam) ** c.cut * mean_given(chance, v[nexts[:, c.cut]], at)
        expect(mean_given(chance, found, at), np.array(v[s] - lost), 4 * trip_bound(now), "terminated",
               scale=trip_size(now))  # fmt: skip


@law(ID, "L6", given=space.where(some=True, B=choose((2,), (3,))).reach("time_first"), kills=["always_time_last"],
     passes_null=["zeros", "constant", "identity"])  # fmt: skip
def time_first_or_last(impl, c, expect):
    "The arrays with time on the other axis give the same advantages and targets there, bit for bit."
    names = ("rewards", "values", "next_values", "terminated", "truncated")
    swapped = c.replace(time_axis=-1 - c.time_axis, N=c.N[::-1], **{n: c[n].T.copy() for n in names})
    for name, x, y in zip(("advantages", "targets"), impl(c), impl(swapped), strict=True):
        expect.same(y, x.T, name)


@law(ID, "L7", given=space.where(ends=True), kills=["ends_by_multiplying"],
     passes_null=["zeros", "constant", "identity"])  # fmt: skip
def what_follows_an_end_is_invisible(impl, c, expect):
    "NaN, infinities or 1e30 in next_values where a step terminated change no bit."
    for junk in (np.nan, np.inf, 1e30):
        other = c.replace(next_values=np.where(c.terminated, junk, c.next_values).astype(c.dtype))
        for name, x, y in zip(("advantages", "targets"), impl(c), impl(other), strict=True):
            expect.same(y, x, f"{name} with {junk}")


@law(
    ID, "L8", given=space.where(T=dims(2, 6), B=(), time_axis=choose(-1, 0)),
    kills=["chain_runs_through_cuts", "flags_of_the_step_before"], passes_null=["zeros", "constant", "identity"],
)  # fmt: skip
def episodes_do_not_mix(impl, c, expect):
    "A recording cut apart after a done step gives the same bits in two parts."
    k = (c.T + 1) // 2
    done = np.arange(c.T) == k - 1
    c = c.replace(truncated=c.truncated | done)
    whole = impl(c)
    names = ("rewards", "values", "next_values", "terminated", "truncated")
    parts = []
    for at in (slice(0, k), slice(k, None)):
        cut = {n: c[n][at].copy() for n in names}
        parts.append(impl(c.replace(**cut, T=len(cut["rewards"]), N=cut["rewards"].shape)))
    for i, name in enumerate(("advantages", "targets")):
        expect.same(np.concatenate([p[i] for p in parts]), whole[i], name)


@law(
    ID, "L9", given=space.where(some=True, B=choose((2,), (3,))), kills=["lam_of_the_first_row"],
    passes_null=["zeros", "constant", "identity"],
)  # fmt: skip
def a_lambda_for_every_row(impl, c, expect):
    "lam as an array, a number a row (and one a step): each row is what it is alone with its own."
    lams = np.linspace(0.25, 1.0, c.B[0]).astype(c.dtype)
    found = impl(c.replace(lam=lams[None, :] if c.time_axis == 0 else lams[:, None]))
    full = impl(c.replace(lam=unrowed(c, np.repeat(lams[:, None], c.T, 1)).copy()))
    names = ("rewards", "values", "next_values", "terminated", "truncated")
    for i in range(c.B[0]):
        alone = impl(c.replace(B=(), N=(c.T,), lam=float(lams[i]), **{n: rows(c, c[n])[i].copy() for n in names}))
        for k in (0, 1):
            expect(rows(c, found[k])[i], alone[k], trip_bound(c), f"row {i}", scale=trip_size(c))
    expect.same(full[0], found[0], "a lambda a step")


# Mutants ---------------------------------------------------------------------------------------------


def constant(T=4, B=(), lam=0.5, gamma=0.5, reward=1.0, value=2.0, **options):
    """The default-size test: one episode that is not over, every reward and value the same."""
    x, no = np.full((*B, T), value), np.zeros((*B, T), bool)
    return lambda: ((np.full((*B, T), reward), x, x.copy(), no, no.copy()), {"gamma": gamma, "lam": lam, **options})


def estimated(rewards, values, next_values, terminated, truncated, *, gamma, lam, time_axis=-1, **edit):
    """GAE in plain NumPy, whose parts an edit replaces."""
    first = edit.get("axis", time_axis) == 0
    r, v, n, end, cut = (
        np.moveaxis(x, 0 if first else -1, 0) for x in (rewards, values, next_values, terminated, truncated)
    )
    lam = np.moveaxis(np.broadcast_to(edit.get("cut_down", lambda x: x)(lam), rewards.shape), 0 if first else -1, 0)
    n = edit.get("next", lambda v, n, end, cut: n)(v, n, end, cut)
    stop = edit.get("stop", lambda end, cut: end)(end, cut)
    delta = edit.get("delta", lambda r, v, n, stop: r + gamma * np.where(stop, 0, n) - v)(r, v, n, stop)
    carry = np.where(edit.get("chain", lambda end, cut: end | cut)(end, cut), 0, edit.get("gl", gamma * lam))
    out, last = np.zeros_like(r), 0.0
    for t in range(len(r) - 1, -1, -1):
        last = delta[t] + carry[t] * last
        out[t] = last
    out = edit.get("after", lambda out, delta: out)(out, delta)
    out = np.moveaxis(out, 0, 0 if first else -1).astype(rewards.dtype).copy()
    return out, out + values


@mutant(ID, default_case=constant(), thread="cleanrl#448, RLinf#661")
def truncation_is_termination(*args, **options):
    "done = terminated or truncated, everywhere: a time limit counts as the end of the world."
    return estimated(*args, **options, stop=lambda end, cut: end | cut)


@mutant(ID, default_case=constant(lam=0.0))
def chain_runs_through_cuts(*args, **options):
    "The chain is cut by terminations alone: the next episode's deltas leak into this one."
    return estimated(*args, **options, chain=lambda end, cut: end)


@mutant(ID, default_case=constant(), thread="PettingZoo#1126, mujoco_playground#305")
def values_shifted_by_one(*args, **options):
    "values[t + 1] for next_values[t]: after a cut, the first state of the next episode."
    return estimated(*args, **options, next=lambda v, n, end, cut: np.concatenate([v[1:], n[-1:]]))


@mutant(ID, default_case=constant())
def flags_of_the_step_before(*args, **options):
    "The flags are taken for those of the observation before the step."

    def late(x):
        return np.concatenate([np.zeros_like(x[:1]), x[:-1]])

    return estimated(*args, **options, stop=lambda end, cut: late(end), chain=lambda end, cut: late(end | cut))


@mutant(ID, default_case=constant(), thread="EmbodiChain#610: reward + gamma * value * truncated, as RSL-RL has it")
def value_before_the_cut(*args, **options):
    "A truncated step goes on with the value of the state that it left."

    def before(v, n, end, cut):
        cut = cut.copy()
        if len(cut):
            cut[-1] |= np.any(n[-1] != v[-1])  # the end of the recording too, where it shows
        return np.where(cut & ~end, v, n)

    return estimated(*args, **options, next=before)


@mutant(ID, default_case=constant(lam=0.0), thread="PPO paper (1707.06347) Eq. 11, copied")
def ppo_papers_exponent(*args, gamma, lam, **options):
    "The last delta of a recording weighs (gamma lam)^{T - t + 1}, two powers too small."
    gl = gamma * np.max(lam)

    def after(out, delta):
        T = len(out)
        weights = gl ** np.arange(T - 1, -1, -1.0).reshape(T, *[1] * (out.ndim - 1))
        return out + np.where(np.arange(T).reshape(weights.shape) < T - 1, (gl**2 - 1) * weights * delta[-1:], 0)

    return estimated(*args, gamma=gamma, lam=lam, **options, after=after)


@mutant(ID, default_case=constant(lam=1.0))
def discount_without_lam(*args, gamma, lam, **options):
    "The chain is discounted by gamma alone."
    return estimated(*args, gamma=gamma, lam=lam, **options, gl=gamma)


@mutant(ID, default_case=constant(lam=1.0))
def discount_without_lam_in_delta(*args, gamma, lam, **options):
    "delta = r + gamma lam V' - V: lam where it does not belong."
    return estimated(*args, gamma=gamma, lam=lam, **options,
                     delta=lambda r, v, n, stop: r + gamma * np.max(lam) * np.where(stop, 0, n) - v)  # fmt: skip


@mutant(ID, default_case=constant(value=0.0, reward=0.0))
def whitened(*args, **options):
    "Mean 0 and deviation 1, inside."
    return estimated(*args, **options, after=lambda x, delta: (x - x.mean()) / (x.std() + 1e-8) if x.size else x)


@mutant(ID, default_case=constant(value=0.0))
def last_step_ends(*args, **options):
    "The last recorded step is taken for the end of the process."

    def stop(end, cut):
        return np.concatenate([end[:-1], np.ones_like(end[-1:])])

    return estimated(*args, **options, stop=stop)


@mutant(ID, default_case=constant())
def always_time_last(*args, time_axis=-1, **options):
    "time_axis is taken and not used."
    return estimated(*args, **options, axis=-1)


@mutant(ID, default_case=constant())
def ends_by_multiplying(rewards, values, next_values, terminated, truncated, **options):
    "(1 - terminated) V(s'): NaN times zero is NaN."
    next_values = (1 - terminated.astype(rewards.dtype)) * next_values
    return estimated(rewards, values, next_values, np.zeros_like(terminated), truncated, **options,
                     chain=lambda end, cut: terminated_moved(terminated, options) | cut)  # fmt: skip


def terminated_moved(terminated, options):
    return np.moveaxis(terminated, 0 if options.get("time_axis", -1) == 0 else -1, 0)


@mutant(ID, default_case=constant())
def lam_of_the_first_row(*args, **options):
    "An array of lambdas is cut down to its first number."
    return estimated(*args, **options, cut_down=lambda x: np.asarray(x).reshape(-1)[0])
