"""Laws and mutants of the lambda-return."""

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

ID = "mdp.lambda_return"
NAMES = ("rewards", "next_values", "terminated", "truncated")
space = trajectory_space(ID, lam=choose(0.5, 0.0, 1.0, 0.95), seed=dims(0, 999))


def windows(r, n, end, cut, t, gamma):
    """The n-step returns from step t, n = 1 .. steps left in the episode, each summed directly."""
    found = []
    for m in range(t, len(r)):
        total = sum(gamma ** (i - t) * r[i] for i in range(t, m + 1))
        found.append(total + (0.0 if end[m] else gamma ** (m - t + 1) * n[m]))
        if end[m] or cut[m]:
            break
    return found


def mixtures(c, weigh):
    out = np.zeros((int(np.prod(c.B)), c.T))
    for i, (r, n, end, cut) in enumerate(zip(*(rows(c, c[x]) for x in NAMES), strict=True)):
        r, n = r.astype(np.float64), n.astype(np.float64)
        for t in range(c.T):
            found = windows(r, n, end, cut, t, c.gamma)
            out[i, t] = sum(w * g for w, g in zip(weigh(len(found)), found, strict=True))
    return unrowed(c, out)


@law(
    ID, "L1", closed_form=True, given=space.reach("empty", "ends", "cuts", "time_first"),
    kills=["weights_not_made_up", "truncation_is_termination", "runs_through_cuts", "flags_of_the_step_before",
           "rlax_docstring", "values_of_the_state_left", "last_step_ends", "always_time_last"],
)  # fmt: skip
def mixture_of_the_n_step_returns(impl, c, expect):
    "G_t = (1 - lam) sum_{n < m} lam^{n-1} G^{(n)} + lam^{m-1} G^{(m)}, each n-step return summed directly."

    def weigh(m):
        return [(1 - c.lam) * c.lam ** (n - 1) for n in range(1, m)] + [c.lam ** (m - 1)]

    expect(impl(c), mixtures(c, weigh), trip_bound(c), scale=trip_size(c))


@law(
    ID, "L2", closed_form=True, given=space.where(lam=1.0, some=True).reach("ends", "cuts"),
    kills=["truncation_is_termination", "last_step_ends", "rlax_docstring"],
)  # fmt: skip
def lam_one_is_the_whole_return(impl, c, expect):
    "lam = 1: all rewards to the end of the episode, and the value there if it was cut."
    expect(impl(c), mixtures(c, lambda m: [0.0] * (m - 1) + [1.0]), trip_bound(c), scale=trip_size(c))


@law(
    ID, "L3", closed_form=True, given=space.where(lam=0.0, some=True).reach("ends", "cuts"),
    kills=["truncation_is_termination", "values_of_the_state_left"],
)  # fmt: skip
def lam_zero_is_one_step(impl, c, expect):
    "lam = 0: r_t + gamma (1 - terminated) V(s_{t+1})."
    wanted = c.rewards + c.gamma * np.where(c.terminated, 0, c.next_values)
    expect(impl(c), wanted, trip_bound(c), scale=trip_size(c))


@law(ID, "L4", given=space.where(some=True, B=choose((2,), (3,))).reach("time_first"), kills=["always_time_last"],
     passes_null=["zeros", "constant", "identity"])  # fmt: skip
def time_first_or_last(impl, c, expect):
    "The arrays with time on the other axis give the same returns there, bit for bit."
    swapped = c.replace(time_axis=-1 - c.time_axis, N=c.N[::-1], **{n: c[n].T.copy() for n in NAMES})
    expect.same(impl(swapped), impl(c).T)


@law(ID, "L5", given=space.where(ends=True), kills=["ends_by_multiplying"],
     passes_null=["zeros", "constant", "identity"])  # fmt: skip
def what_follows_an_end_is_invisible(impl, c, expect):
    "NaN or infinities in next_values where a step terminated, and other numbers after a done step, change no bit."
    wanted, ended = impl(c), rows(c, c.terminated)
    for junk in (np.nan, np.inf):
        found = impl(c.replace(next_values=np.where(c.terminated, junk, c.next_values).astype(c.dtype)))
        expect.same(found, wanted, f"with {junk}")
    first = np.where(ended.any(1), ended.argmax(1), c.T)[:, None]
    before = np.arange(c.T) <= first
    other = impl(c.replace(rewards=np.where(unrowed(c, before), c.rewards, 7).astype(c.dtype)))
    expect.same(rows(c, other)[before], rows(c, wanted)[before], "up to the first end")


@law(
    ID, "L6", closed_form=True, given=space.where(B=(), T=dims(1, 3), marked="none", time_axis=choose(-1, 0)),
    kills=["values_of_the_state_left", "last_step_ends", "weights_not_made_up"],
)  # fmt: skip
def true_values_stay(impl, c, expect):
    "With v_pi for V, over all ways of a small model: E[G_t | s_t] = v_pi(s_t) at every t, for every lam."
    P, R, policy = small_model(c.seed)
    v = value_of(P, R, policy, 0.75)
    states, actions, chance = ways(P, policy, (0.5, 0.5), c.T)
    now = c.replace(B=(len(states),), gamma=0.75)
    off = np.zeros(actions.shape, bool)
    arrays = {"rewards": R[states[:, :-1], actions], "next_values": v[states[:, 1:]]}
    now = now.replace(**{n: laid(now, x.astype(c.dtype)) for n, x in arrays.items()},
                      terminated=laid(now, off), truncated=laid(now, off.copy()))  # fmt: skip
    now = now.replace(N=now.rewards.shape)
    found = np.asarray(rows(now, impl(now)), np.float64)
    for t in range(c.T):
        for s in np.unique(states[:, t]):
            at = states[:, t] == s
            mean = np.sum((chance * found[:, t])[at]) / np.sum(chance[at])
            expect(mean, np.array(v[s]), 4 * trip_bound(now), f"t = {t}", scale=trip_size(now))


# Mutants ---------------------------------------------------------------------------------------------


def constant(T=4, lam=0.5, gamma=0.5, reward=1.0, value=2.0):
    """The default-size test: one episode that is not over, every reward and value the same."""
    no = np.zeros(T, bool)
    return lambda: ((np.full(T, reward), np.full(T, value), no, no.copy()), {"gamma": gamma, "lam": lam})


def mixed(rewards, next_values, terminated, truncated, *, gamma, lam, time_axis=-1, **edit):
    """The recursion in plain NumPy, whose parts an edit replaces."""
    axis = edit.get("axis", 0 if time_axis == 0 else -1)
    r, n, end, cut = (np.moveaxis(x, axis, 0) for x in (rewards, next_values, terminated, truncated))
    n = edit.get("next", lambda n: n)(n)
    end, cut = edit.get("flags", lambda end, cut: (end, cut))(end, cut)
    live = edit.get("live", lambda end, cut, n: np.where(end, 0, n))(end, cut, n)
    stop = edit.get("stop", lambda end, cut: end | cut)(end, cut)
    out, later = np.zeros_like(r), None
    for t in range(len(r) - 1, -1, -1):
        rest = live[t] if later is None else np.where(stop[t], live[t], (1 - lam) * live[t] + lam * later)
        later = out[t] = r[t] + gamma * rest
    out = edit.get("after", lambda out, r, live, stop: out)(out, r, live, stop)
    return np.moveaxis(out, 0, axis).astype(rewards.dtype).copy()


@mutant(ID, default_case=constant(lam=0.0))
def weights_not_made_up(rewards, next_values, terminated, truncated, *, gamma, lam, time_axis=-1):
    "The last window takes (1 - lam) lam^{m-1} as the others do: the weights sum to 1 - lam^m."
    lack = 1 - lam if lam else 1.0

    def after(out, r, live, stop):
        whole = _whole(r, live, stop, gamma)
        left = np.ones_like(r)
        for t in range(len(r) - 2, -1, -1):
            left[t] = np.where(stop[t], 1.0, lam * left[t + 1])
        return out - (1 - lack) * left * whole

    return mixed(rewards, next_values, terminated, truncated, gamma=gamma, lam=lam, time_axis=time_axis, after=after)


def _whole(r, live, stop, gamma):
    out = np.zeros_like(r)
    for t in range(len(r) - 1, -1, -1):
        out[t] = r[t] + gamma * (live[t] if t == len(r) - 1 else np.where(stop[t], live[t], out[t + 1]))
    return out


@mutant(
    ID, default_case=constant(), thread="rlax's docstring of lambda_returns: r_{t+2} twice in the three-step return"
)
def rlax_docstring(rewards, next_values, terminated, truncated, *, gamma, lam, time_axis=-1):
    "The windows as printed there: the third reward of every window of three and more is the second again."

    def after(out, r, live, stop):
        # A window of three or more steps weighs lam^2 of the mixture; it reads r_{t+1} in the place of r_{t+2}.
        out = out.copy()
        for t in range(len(r) - 2):
            reaches = ~stop[t] & ~stop[t + 1]
            out[t] += np.where(reaches, (gamma * lam) ** 2 * (r[t + 1] - r[t + 2]), 0)
        return out

    return mixed(rewards, next_values, terminated, truncated, gamma=gamma, lam=lam, time_axis=time_axis, after=after)


@mutant(ID, default_case=constant(), thread="cleanrl#448")
def truncation_is_termination(*args, **options):
    "A cut counts as the end of the process."
    return mixed(*args, **options, flags=lambda end, cut: (end | cut, cut))


@mutant(ID, default_case=constant())
def runs_through_cuts(*args, **options):
    "Terminations alone stop the mixture."
    return mixed(*args, **options, stop=lambda end, cut: end)


@mutant(ID, default_case=constant())
def flags_of_the_step_before(*args, **options):
    "The flags are taken for those of the observation before the step."

    def late(end, cut):
        return tuple(np.concatenate([np.zeros_like(x[:1]), x[:-1]]) for x in (end, cut))

    return mixed(*args, **options, flags=late)


@mutant(ID, default_case=constant())
def values_of_the_state_left(*args, **options):
    "V(s_t) for V(s_{t+1}): each value one step late."
    return mixed(*args, **options, next=lambda n: np.concatenate([n[:1], n[:-1]]))


@mutant(ID, default_case=constant(value=0.0))
def last_step_ends(*args, **options):
    "The last recorded step is taken for the end of the process."
    return mixed(*args, **options, live=lambda end, cut, n: np.where(
        np.concatenate([end[:-1], np.ones_like(end[-1:])]), 0, n))  # fmt: skip


@mutant(ID, default_case=constant())
def always_time_last(*args, time_axis=-1, **options):
    "time_axis is taken and not used."
    return mixed(*args, **options, axis=-1)


@mutant(ID, default_case=constant())
def ends_by_multiplying(*args, **options):
    "(1 - terminated) V(s'): NaN times zero is NaN."
    return mixed(*args, **options, live=lambda end, cut, n: (1 - end.astype(n.dtype)) * n)
