"""Laws and mutants of n-step TD."""

from __future__ import annotations

import numpy as np

from ref.mdp.common_laws import quarters, space_of
from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, choose, dims, rng

ID = "mdp.n_step_td"
NAMES = ("states", "rewards", "next_states", "terminated", "truncated")


def marks(name):
    return lambda draw, c: rng(draw).random(c.T) < (c.chance if c.marked in (name, "both") else 0.0)


def numbers(draw, c):
    return rng(draw).integers(0, c.S, c.T)


fields = dict(
    S=dims(1, 3), T=choose(5, 6, 3, 1, 0), marked=choose("both", "terminated", "truncated", "none"), chance=0.3,
    values=quarters("S"),
    states=numbers, rewards=quarters("T"), next_states=numbers, terminated=marks("terminated"),
    truncated=marks("truncated"), n=dims(1, 4), gamma=choose(0.75, 1.0, 0.5, 0.0), rate=choose(0.5, 0.25, 1.0),
)  # fmt: skip
flags = {
    "none": Flag(lambda c: c.T == 0, {"T": 0}),
    "ends": Flag(lambda c: bool(c.terminated[:-1].any()), {"T": dims(3, 6), "marked": "terminated", "chance": 0.7}),
    "cuts": Flag(lambda c: bool(c.truncated[:-1].any()), {"T": dims(3, 6), "marked": "truncated", "chance": 0.7}),
    "longer": Flag(lambda c: c.n > 1 and c.n < c.T, {"n": dims(2, 3), "T": dims(5, 6), "marked": "none"}),
}
space = space_of(ID, flags, fields)


def size(c):
    return 4 * (c.T + 1) * (np.max(np.abs(c.values)) + np.max(np.abs(c.rewards), initial=0) + 0.25)


def bound(c):
    """An update: 2 n + 4 roundings; an error grows by at most 1 + rate (1 + gamma^n) <= 3 an update."""
    return bounds.rounding((2 * c.n + 4) * (c.T + 1), size(c) * 3.0**c.T, c.dtype)


def in_order(c):
    """[(step, last step of its window, whether a value is looked at)] in the order of the updates."""
    done, begin, found = c.terminated | c.truncated, 0, []
    while begin < c.T:
        end = next((t for t in range(begin, c.T) if done[t]), c.T - 1)
        for i in range(begin, end + 1):  # each window is complete at step i + n - 1, or with the episode
            last = min(i + c.n - 1, end)
            found.append((last, i, not c.terminated[last]))
        begin = end + 1
    return [(i, last, go) for last, i, go in sorted(found, key=lambda x: (x[0], x[1]))]


@law(
    ID, "L1", closed_form=True, given=space.reach("none", "ends", "cuts", "longer"),
    kills=["one_step_more", "values_of_the_start", "tail_left_out", "tail_goes_on_after_an_end",
           "truncation_is_termination", "runs_through_cuts", "value_discounted_once", "backwards"],
)  # fmt: skip
def windows_by_hand(impl, c, expect):
    "Every window summed directly, the updates in the order in which the windows are complete, V as it then is."
    V, r = np.asarray(c.values, np.float64).copy(), np.asarray(c.rewards, np.float64)
    for i, last, go in in_order(c):
        G = sum(c.gamma ** (j - i) * r[j] for j in range(i, last + 1))
        G += c.gamma ** (last - i + 1) * V[c.next_states[last]] if go else 0.0
        V[c.states[i]] += c.rate * (G - V[c.states[i]])
    expect(impl(c), V, bound(c), scale=size(c) * 3.0**c.T)


@law(ID, "L2", closed_form=True, given=space.where(n=1).reach("ends", "cuts"),
     kills=["one_step_more", "truncation_is_termination", "values_of_the_start"])  # fmt: skip
def one_step_is_td0(impl, c, expect):
    "n = 1: V(s) += rate (r + gamma (1 - terminated) V(s') - V(s)), one step after the other."
    V = np.asarray(c.values, np.float64).copy()
    for s, r, t, end in zip(c.states, c.rewards.tolist(), c.next_states, c.terminated, strict=True):
        V[s] += c.rate * (r + (0.0 if end else c.gamma * V[t]) - V[s])
    expect(impl(c), V, bound(c), scale=size(c) * 3.0**c.T)


@law(
    ID, "L3", closed_form=True, given=space.where(T=dims(1, 6), marked="none", n=choose(6, 20)),
    kills=["tail_left_out", "tail_goes_on_after_an_end"],
)  # fmt: skip
def long_windows_are_monte_carlo(impl, c, expect):
    "n >= T and an end with the last step: V(s_t) += rate (sum of all rewards to come - V(s_t)), from the first on."
    V, r = np.asarray(c.values, np.float64).copy(), np.asarray(c.rewards, np.float64)
    for t in range(c.T):
        G = sum(c.gamma ** (j - t) * r[j] for j in range(t, c.T))
        V[c.states[t]] += c.rate * (G - V[c.states[t]])
    found = impl(c.replace(terminated=np.arange(c.T) == c.T - 1))
    expect(found, V, bound(c), scale=size(c) * 3.0**c.T)


@law(ID, "L4", given=space.where(T=dims(2, 6)), kills=["runs_through_cuts"],
     passes_null=["zeros", "constant", "identity"])  # fmt: skip
def episodes_do_not_mix(impl, c, expect):
    "A recording cut after a step that is marked truncated gives the same bits in two parts."
    k = (c.T + 1) // 2
    c = c.replace(truncated=c.truncated | (np.arange(c.T) == k - 1))
    first, rest = (
        c.replace(T=n, **{x: c[x][at].copy() for x in NAMES}) for at, n in ((slice(0, k), k), (slice(k, None), c.T - k))
    )
    expect.same(impl(rest.replace(values=impl(first))), impl(c))


# Mutants ---------------------------------------------------------------------------------------------


def settled(T=2, n=2, gamma=1.0):
    """The default-size test: values that are right, of a state that stays and pays nothing."""
    i = np.zeros(T, int)
    return lambda: ((np.ones(2), i, np.zeros(T), i, i > 0, i > 0), {"n": n, "gamma": gamma, "rate": 0.5})


def windowed(values, states, rewards, next_states, terminated, truncated, *, n, gamma, rate, **edit):
    """The algorithm in plain loops, whose parts an edit replaces."""
    V, begin, T = values.copy(), 0, len(states)
    n = edit.get("count", lambda n: n)(n)
    for t in range(T):
        over = edit.get("over", lambda end, cut: end or cut)(terminated[t], truncated[t]) or t == T - 1
        until = t if over and edit.get("tail", True) else t - n + 1
        todo = list(range(max(begin, t - n + 1), until + 1))
        for i in todo[::-1] if edit.get("backwards") else todo:
            end = edit.get("end", lambda end, cut, i: end)(terminated[t], truncated[t], t - i + 1 < n)
            seen = values if edit.get("start") else V
            power = edit.get("power", lambda m: gamma**m)(t - i + 1)
            G = sum(gamma ** (j - i) * rewards[j] for j in range(i, t + 1)) + (
                0 if end else power * seen[next_states[t]]
            )
            V[states[i]] += rate * (G - V[states[i]])
        begin = t + 1 if over else begin
    return V


@mutant(ID, default_case=settled())
def one_step_more(*args, **options):
    "n + 1 rewards."
    return windowed(*args, **options, count=lambda n: n + 1)


@mutant(ID, default_case=settled())
def values_of_the_start(*args, **options):
    "The targets are those of the first values."
    return windowed(*args, **options, start=True)


@mutant(ID, default_case=settled())
def tail_left_out(*args, **options):
    "The last n - 1 states of an episode are never updated."
    return windowed(*args, **options, tail=False)


@mutant(ID, default_case=settled())
def tail_goes_on_after_an_end(*args, **options):
    "The short windows of the tail end in a value, after an end too."
    return windowed(*args, **options, end=lambda end, cut, short: end and not short)


@mutant(ID, default_case=settled(), thread="cleanrl#448")
def truncation_is_termination(*args, **options):
    "A cut counts as the end of the process."
    return windowed(*args, **options, end=lambda end, cut, short: end or cut)


@mutant(ID, default_case=settled())
def runs_through_cuts(*args, **options):
    "Terminations alone end an episode."
    return windowed(*args, **options, over=lambda end, cut: bool(end))


@mutant(ID, default_case=settled())
def value_discounted_once(*args, gamma, **options):
    "gamma V for gamma^n V."
    return windowed(*args, gamma=gamma, **options, power=lambda m: gamma)


@mutant(ID, default_case=settled())
def backwards(*args, **options):
    "The tail from the last state back."
    return windowed(*args, **options, backwards=True)
