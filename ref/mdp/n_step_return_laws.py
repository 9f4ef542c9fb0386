"""Laws and mutants of the n-step return."""

from __future__ import annotations

import numpy as np

from ref.mdp.common_laws import laid, rows, small_model, trajectory_space, trip_bound, trip_size, unrowed, ways
from ref.spec import law, mutant
from ref.spec.cases import choose, dims

ID = "mdp.n_step_return"
NAMES = ("rewards", "next_values", "terminated", "truncated")
space = trajectory_space(ID, n=dims(1, 7), seed=dims(0, 999))


def summed(c, n):
    """Every window, summed directly in float64."""
    out = np.zeros((int(np.prod(c.B)), c.T))
    for i, (r, v, end, cut) in enumerate(zip(*(rows(c, c[x]) for x in NAMES), strict=True)):
        for t in range(c.T):
            for j in range(t, min(t + n, c.T)):
                out[i, t] += c.gamma ** (j - t) * float(r[j])
                if end[j] or cut[j] or j == min(t + n, c.T) - 1:
                    out[i, t] += 0.0 if end[j] else c.gamma ** (j - t + 1) * float(v[j])
                    break
    return unrowed(c, out)


@law(
    ID, "L1", closed_form=True, given=space.reach("empty", "ends", "cuts", "time_first"),
    kills=["one_step_more", "truncation_is_termination", "runs_through_cuts", "flags_of_the_step_before",
           "value_discounted_once", "rlax_docstring", "last_step_ends", "always_time_last",
           "short_windows_have_no_value"],
)  # fmt: skip
def sum_over_the_window(impl, c, expect):
    "sum_{i < m} gamma^i r_{t+i} + gamma^m V, m = n or what is left; no V where the window's last step terminated."
    expect(impl(c), summed(c, c.n), trip_bound(c), scale=trip_size(c))


@law(ID, "L2", closed_form=True, given=space.where(some=True).reach("ends", "cuts"),
     kills=["one_step_more", "truncation_is_termination"])  # fmt: skip
def one_step_and_all_steps(impl, c, expect):
    "n = 1: r_t + gamma (1 - terminated) V(s_{t+1}), and n >= T is n = T, all rewards of the episode."
    one = c.rewards + c.gamma * np.where(c.terminated, 0, c.next_values)
    expect(impl(c.replace(n=1)), one, trip_bound(c), "n = 1", scale=trip_size(c))
    for n in (c.T + 1, 1000):
        expect(impl(c.replace(n=n)), summed(c, max(c.T, 1)), trip_bound(c), f"n = {n}", scale=trip_size(c))


@law(
    ID, "L3", closed_form=True, given=space.where(B=(), T=3, n=choose(3, 2, 1), marked="none", time_axis=choose(-1, 0)),
    kills=["value_discounted_once", "one_step_more", "last_step_ends"],
)  # fmt: skip
def expectation_is_n_backups(impl, c, expect):
    """For any V, over all ways of a small model: E[G_0^{(n)} | s_0] = (T_pi^n V)(s_0), so that the error is at most
    gamma^n max |V - v_pi|."""
    P, R, policy = small_model(c.seed)
    V = np.array([1.5, -2.0])
    states, actions, chance = ways(P, policy, (0.5, 0.5), c.T)
    now = c.replace(B=(len(states),), gamma=0.75)
    off = np.zeros(actions.shape, bool)
    arrays = {"rewards": R[states[:, :-1], actions], "next_values": V[states[:, 1:]]}
    now = now.replace(**{n: laid(now, x.astype(c.dtype)) for n, x in arrays.items()},
                      terminated=laid(now, off), truncated=laid(now, off.copy()))  # fmt: skip
    now = now.replace(N=now.rewards.shape)
    found, wanted = np.asarray(rows(now, impl(now)), np.float64)[:, 0], V
    for _ in range(c.n):
        wanted = np.sum(policy * (R + 0.75 * P @ wanted), -1)
    for s in (0, 1):
        at = states[:, 0] == s
        mean = np.sum((chance * found)[at]) / np.sum(chance[at])
        expect(mean, np.array(wanted[s]), 4 * trip_bound(now), f"from {s}", scale=trip_size(now))


@law(ID, "L4", given=space.where(some=True, B=choose((2,), (3,))).reach("time_first"), kills=["always_time_last"],
     passes_null=["zeros", "constant", "identity"])  # fmt: skip
def time_first_or_last(impl, c, expect):
    "The arrays with time on the other axis give the same returns there, bit for bit."
    swapped = c.replace(time_axis=-1 - c.time_axis, N=c.N[::-1], **{n: c[n].T.copy() for n in NAMES})
    expect.same(impl(swapped), impl(c).T)


@law(ID, "L5", given=space.where(ends=True), kills=["ends_by_multiplying"],
     passes_null=["zeros", "constant", "identity"])  # fmt: skip
def what_follows_an_end_is_invisible(impl, c, expect):
    "NaN or infinities in next_values where a step terminated change no bit."
    wanted = impl(c)
    for junk in (np.nan, np.inf):
        found = impl(c.replace(next_values=np.where(c.terminated, junk, c.next_values).astype(c.dtype)))
        expect.same(found, wanted, f"with {junk}")


# Mutants ---------------------------------------------------------------------------------------------


def constant(T=4, n=2, gamma=0.5, reward=1.0, value=2.0):
    """The default-size test: one episode that is not over, every reward and value the same."""
    no = np.zeros(T, bool)
    return lambda: ((np.full(T, reward), np.full(T, value), no, no.copy()), {"gamma": gamma, "n": n})


def windowed(rewards, next_values, terminated, truncated, *, n, gamma, time_axis=-1, **edit):
    """The windows in plain loops, whose parts an edit replaces."""
    axis = edit.get("axis", 0 if time_axis == 0 else -1)
    r, v, end, cut = (np.moveaxis(x, axis, 0) for x in (rewards, next_values, terminated, truncated))
    end, cut = edit.get("flags", lambda end, cut: (end, cut))(end, cut)
    stop = edit.get("stop", lambda end, cut: end | cut)(end, cut)
    live = edit.get("live", lambda end, v: np.where(end, 0, v))(end, v)
    out, T, n = np.zeros_like(r), len(r), edit.get("count", lambda n: n)(n)
    for t in range(T):
        going = np.ones(r.shape[1:], bool)
        last = min(t + n, T) - 1
        for j in range(t, last + 1):
            out[t] += np.where(going, gamma ** (j - t) * r[edit.get("reward", lambda t, j: j)(t, j)], 0)
            here = going & (stop[j] | (j == last))
            worth = edit.get("worth", lambda m: gamma**m)(j - t + 1) * live[j]
            if edit.get("full", False):
                worth = np.where(stop[j] | (j - t + 1 == n) | (t == j), worth, 0)
            out[t] += np.where(here, worth, 0)
            going &= ~stop[j]
    return np.moveaxis(out, 0, axis).astype(rewards.dtype).copy()


@mutant(ID, default_case=constant())
def one_step_more(*args, **options):
    "n + 1 rewards."
    return windowed(*args, **options, count=lambda n: n + 1)


@mutant(ID, default_case=constant(), thread="cleanrl#448")
def truncation_is_termination(*args, **options):
    "A cut counts as the end of the process."
    return windowed(*args, **options, flags=lambda end, cut: (end | cut, cut))


@mutant(ID, default_case=constant())
def runs_through_cuts(*args, **options):
    "Terminations alone stop a window."
    return windowed(*args, **options, stop=lambda end, cut: end)


@mutant(ID, default_case=constant())
def flags_of_the_step_before(*args, **options):
    "The flags are taken for those of the observation before the step."

    def late(end, cut):
        return tuple(np.concatenate([np.zeros_like(x[:1]), x[:-1]]) for x in (end, cut))

    return windowed(*args, **options, flags=late)


@mutant(ID, default_case=constant(gamma=1.0))
def value_discounted_once(*args, gamma, **options):
    "gamma V for gamma^m V."
    return windowed(*args, gamma=gamma, **options, worth=lambda m: gamma)


@mutant(
    ID, default_case=constant(), thread="rlax's docstring of lambda_returns: r_{t+2} twice in the three-step return"
)
def rlax_docstring(*args, **options):
    "The third reward is the second again."
    return windowed(*args, **options, reward=lambda t, j: j - 1 if j - t == 2 else j)


@mutant(ID, default_case=constant(value=0.0))
def last_step_ends(*args, **options):
    "The last recorded step is taken for the end of the process."
    return windowed(*args, **options, live=lambda end, v: np.where(
        np.concatenate([end[:-1], np.ones_like(end[-1:])]), 0, v))  # fmt: skip


@mutant(ID, default_case=constant(value=0.0))
def short_windows_have_no_value(*args, **options):
    "A window that the end of the recording cuts short ends in nothing."
    return windowed(*args, **options, full=True)


@mutant(ID, default_case=constant())
def always_time_last(*args, time_axis=-1, **options):
    "time_axis is taken and not used."
    return windowed(*args, **options, axis=-1)


@mutant(ID, default_case=constant())
def ends_by_multiplying(*args, **options):
    "(1 - terminated) V(s'): NaN times zero is NaN."
    return windowed(*args, **options, live=lambda end, v: (1 - end.astype(v.dtype)) * v)
