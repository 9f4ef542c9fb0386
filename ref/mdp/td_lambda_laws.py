"""Laws and mutants of TD(lambda)."""

from __future__ import annotations

import numpy as np

from ref.mdp.common_laws import quarters, space_of
from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, choose, dims, rng

ID = "mdp.td_lambda"


def _recording(draw, c):
    """states: where an episode goes on, the next state; after a done step, any. The rest of the recording with it."""
    g = rng(draw)
    c["next_states"] = g.integers(0, c.S, c.T)
    for name in ("terminated", "truncated"):
        c[name] = g.random(c.T) < (c.chance if c.marked in (name, "both") else 0.0)
    done, states = c.terminated | c.truncated, g.integers(0, c.S, c.T)
    if c.T:
        states[1:] = np.where(done[:-1], states[1:], c.next_states[:-1])
    return states


fields = dict(
    S=dims(1, 3), T=choose(5, 6, 3, 1, 0), marked=choose("both", "terminated", "truncated", "none"), chance=0.3,
    states=_recording,
    values=quarters("S"), rewards=quarters("T"), gamma=choose(0.75, 1.0, 0.5, 0.0), lam=choose(0.5, 1.0, 0.75, 0.0),
    rate=choose(0.25, 0.5), traces=choose("accumulating", "replacing"), online=choose(True, False),
)  # fmt: skip
flags = {
    "none": Flag(lambda c: c.T == 0, {"T": 0}),
    "ends": Flag(lambda c: bool(c.terminated[:-1].any()), {"T": dims(3, 6), "marked": "terminated", "chance": 0.9}),
    "cuts": Flag(lambda c: bool(c.truncated[:-1].any()), {"T": dims(3, 6), "marked": "truncated", "chance": 0.9}),
    "again": Flag(lambda c: len(set(c.states.tolist())) < c.T, {"S": 1, "T": dims(3, 6), "marked": "none"}),
}
space = space_of(ID, flags, fields)
NAMES = ("states", "rewards", "next_states", "terminated", "truncated")


def size(c):
    return 4 * (c.T + 1) * (np.max(np.abs(c.values)) + np.max(np.abs(c.rewards), initial=0) + 0.25)


def bound(c):
    """A step: ten roundings, of moves that a trace of at most T weighs; online an error grows by 1 + rate T a step."""
    growth = (1 + c.rate * c.T) ** c.T if c.online else c.T
    return bounds.rounding(10 * (c.T + 1), size(c) * max(growth, 1), c.dtype)


def episode_starts(c):
    """First step of the episode that each step belongs to."""
    done, out, begin = c.terminated | c.truncated, [], 0
    for t in range(c.T):
        out.append(begin)
        begin = t + 1 if done[t] else begin
    return out


@law(
    ID, "L1", closed_form=True,
    given=space.where(online=False, traces="accumulating").reach("none", "ends", "cuts", "again"),
    kills=["traces_run_through_ends", "truncation_is_termination", "decays_by_lam_alone", "online_always",
           "replacing_always", "trace_set_after_the_move", "ends_go_on"],
)  # fmt: skip
def forward_is_backward(impl, c, expect):
    """Offline, accumulating: V + sum_t rate (G_t - V(s_t)) at s_t, where G_t = sum_n w_n G^{(n)} with w_n = (1 - lam)
    lam^{n-1}, and lam^{m-1} for the longest, mixes the n-step returns of its episode, each summed directly."""
    V, r = np.asarray(c.values, np.float64), np.asarray(c.rewards, np.float64)
    wanted = V.copy()
    for t in range(c.T):
        returns = []
        for m in range(t, c.T):
            total = sum(c.gamma ** (i - t) * r[i] for i in range(t, m + 1))
            returns.append(total + (0.0 if c.terminated[m] else c.gamma ** (m - t + 1) * V[c.next_states[m]]))
            if c.terminated[m] or c.truncated[m]:
                break
        weights = [(1 - c.lam) * c.lam**n for n in range(len(returns) - 1)] + [c.lam ** (len(returns) - 1)]
        wanted[c.states[t]] += c.rate * (sum(w * g for w, g in zip(weights, returns, strict=True)) - V[c.states[t]])
    expect(impl(c), wanted, bound(c), scale=size(c))


@law(
    ID, "L2", closed_form=True, given=space.reach("none", "ends", "cuts", "again"),
    kills=["offline_always", "online_always", "traces_run_through_ends", "replacing_always", "accumulating_always",
           "decays_by_lam_alone", "truncation_is_termination"],
)  # fmt: skip
def online_by_the_direct_trace(impl, c, expect):
    """V_{t+1} = V_t + rate delta_t e_t with the trace by its sum: over the steps i of the episode up to t at s,
    (gamma lam)^{t-i}; replacing takes the last of them alone. Offline the deltas see V_0."""
    V, first = np.asarray(c.values, np.float64).copy(), episode_starts(c)
    start = V.copy()
    for t in range(c.T):
        seen = V.copy() if c.online else start
        follows = 0.0 if c.terminated[t] else c.gamma * seen[c.next_states[t]]
        delta = float(c.rewards[t]) + follows - seen[c.states[t]]
        for s in range(c.S):
            visits = [(c.gamma * c.lam) ** (t - i) for i in range(first[t], t + 1) if c.states[i] == s]
            V[s] += c.rate * delta * (sum(visits) if c.traces == "accumulating" else sum(visits[-1:]))
    expect(impl(c), V, bound(c), scale=size(c))


@law(
    ID, "L3", closed_form=True, given=space.where(S=1, T=dims(2, 6), marked="none", online=False, gamma=1.0, lam=1.0),
    kills=["replacing_always", "accumulating_always"],
    passes_null=["mutated"],  # the values are zeros already
)  # fmt: skip
def visits_on_the_state_that_stays(impl, c, expect):
    """One state, T steps of reward 1, the last one terminates, V = 0, gamma = lam = 1: V becomes rate T with replacing
    traces (the first visit's return), rate T (T + 1) / 2 with accumulating ones (every visit's)."""
    end = np.arange(c.T) == c.T - 1
    now = c.replace(values=np.zeros_like(c.values), rewards=np.ones_like(c.rewards), terminated=end)
    wanted = c.rate * (c.T if c.traces == "replacing" else c.T * (c.T + 1) / 2)
    expect(impl(now), np.array([wanted]), bound(now))


@law(ID, "L4", closed_form=True, given=space.where(lam=0.0).reach("ends", "again"),
     kills=["offline_always", "ends_go_on", "trace_set_after_the_move"])  # fmt: skip
def lam_zero_is_td0(impl, c, expect):
    "lam = 0: each step moves the state that it left, by rate delta."
    V = np.asarray(c.values, np.float64).copy()
    start = V.copy()
    for s, r, t, end in zip(c.states, c.rewards.tolist(), c.next_states, c.terminated, strict=True):
        seen = V if c.online else start
        V[s] += c.rate * (r + (0.0 if end else c.gamma * seen[t]) - seen[s])
    expect(impl(c), V, bound(c), scale=size(c))


@law(ID, "L5", given=space.where(T=dims(2, 6), online=True), kills=["traces_run_through_ends"],
     passes_null=["zeros", "constant", "identity"])  # fmt: skip
def episodes_do_not_mix(impl, c, expect):
    "Online: a recording cut after any step that is marked truncated gives the same bits in two parts."
    k = (c.T + 1) // 2
    c = c.replace(truncated=c.truncated | (np.arange(c.T) == k - 1))
    first, rest = (
        c.replace(T=n, **{x: c[x][at].copy() for x in NAMES}) for at, n in ((slice(0, k), k), (slice(k, None), c.T - k))
    )
    expect.same(impl(rest.replace(values=impl(first))), impl(c))


@law(ID, "L6", given=space.where(T=dims(2, 6), S=dims(2, 3), marked="none"), kills=["ends_by_multiplying"],
     passes_null=["zeros", "constant", "identity"])  # fmt: skip
def what_follows_an_end_is_invisible(impl, c, expect):
    "A NaN in the value of a state that only a terminated step leads to stays there."
    here = np.minimum(c.states, c.S - 2)
    nexts = np.append(here[1:], c.S - 1)
    end = np.arange(c.T) == c.T - 1
    values = c.values.copy()
    values[-1] = np.nan
    plain = c.replace(states=here, next_states=np.append(here[1:], 0), terminated=end)
    expect.same(impl(plain.replace(next_states=nexts, values=values))[:-1], impl(plain)[:-1])


# Mutants ---------------------------------------------------------------------------------------------


def settled(T=2, gamma=1.0, lam=0.5, **options):
    """The default-size test: values that are right, of a state that stays and pays nothing."""
    i = np.zeros(T, int)
    return lambda: ((np.ones(2), i, np.zeros(T), i, i > 0, i > 0), {"gamma": gamma, "lam": lam, "rate": 0.5, **options})


def traced(values, states, rewards, next_states, terminated, truncated, *, gamma, lam, rate, traces="accumulating",
           online=True, **edit):  # fmt: skip
    """The backward view in plain loops, whose parts an edit replaces."""
    V, moves, e = values.copy(), np.zeros_like(values), np.zeros_like(values)
    online, traces = edit.get("live", online), edit.get("kind", traces)
    for t in range(len(states)):
        s, to = states[t], next_states[t]
        seen = V if online else values
        end = edit.get("end", lambda end, cut: end)(terminated[t], truncated[t])
        follows = (1 - terminated[t]) * seen[to] if edit.get("multiplies") else 0 if end else seen[to]
        delta = rewards[t] + gamma * follows - seen[s]
        if edit.get("late"):
            step = rate * delta * e
        e[s] = e[s] + 1 if traces == "accumulating" else 1
        if not edit.get("late"):
            step = rate * delta * e
        if online:
            V += step
        else:
            moves += step
        keep = edit.get("keep", lambda end, cut: not (end or cut))(terminated[t], truncated[t])
        e *= edit.get("decay", gamma * lam) if keep else 0
    return V + moves


@mutant(ID, default_case=settled())
def traces_run_through_ends(*args, **options):
    "The traces are never cleared."
    return traced(*args, **options, keep=lambda end, cut: True)


@mutant(ID, default_case=settled(), thread="cleanrl#448")
def truncation_is_termination(*args, **options):
    "A cut counts as the end of the process."
    return traced(*args, **options, end=lambda end, cut: end or cut)


@mutant(ID, default_case=settled())
def ends_go_on(*args, **options):
    "V(s') is added after an end too."
    return traced(*args, **options, end=lambda end, cut: False)


@mutant(ID, default_case=settled())
def ends_by_multiplying(*args, **options):
    "(1 - terminated) V(s'): NaN times zero is NaN."
    return traced(*args, **options, multiplies=True)


@mutant(ID, default_case=settled())
def decays_by_lam_alone(*args, lam, **options):
    "e <- lam e."
    return traced(*args, lam=lam, **options, decay=lam)


@mutant(ID, default_case=settled())
def online_always(*args, **options):
    "online is taken and not used."
    return traced(*args, **options, live=True)


@mutant(ID, default_case=settled())
def offline_always(*args, **options):
    "The moves are made at the end, whatever was asked."
    return traced(*args, **options, live=False)


@mutant(ID, default_case=settled())
def replacing_always(*args, **options):
    "e(s) <- 1, whatever was asked."
    return traced(*args, **options, kind="replacing")


@mutant(ID, default_case=settled())
def accumulating_always(*args, **options):
    "e(s) <- e(s) + 1, whatever was asked."
    return traced(*args, **options, kind="accumulating")


@mutant(ID, default_case=settled())
def trace_set_after_the_move(*args, **options):
    "The state just left has no trace yet when V moves."
    return traced(*args, **options, late=True)
