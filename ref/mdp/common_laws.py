"""What the laws of decision processes share: spaces of small models, and values by series and enumeration."""

from __future__ import annotations

import itertools

import numpy as np

from ref.spec import bounds, get
from ref.spec.cases import Flag, batch, cases, choose, dims, ints, rng

GAMMAS = (0.5, 0.0, 0.75, 0.9, 0.9375)


def chances(g, shape, parts=8):
    """Rows along the last axis of multiples of 1 / parts that sum to 1."""
    return g.multinomial(parts, np.full(shape[-1], 1 / shape[-1]), shape[:-1]) / parts


def sure(g, shape):
    """Rows along the last axis with a single 1."""
    return (np.arange(shape[-1]) == g.integers(0, shape[-1], (*shape[:-1], 1))).astype(np.float64)


def draw_P(draw, c):
    """Chances; in an `absorbing` model the last state is one that nothing leaves."""
    P = (sure if c.kind == "sure" else chances)(rng(draw), (c.S, c.A, c.S))
    if c.kind == "absorbing":
        P[-1] = 0
        P[-1, :, -1] = 1
    return P


def draw_R(draw, c):
    R = rng(draw).integers(-8, 9, (c.S, c.A)) / 4.0
    if c.kind == "absorbing":
        R[-1] = 0
    return R


def quarters(*axes):
    """Multiples of 1/4 between -2 and 2 with the named axes."""
    return lambda draw, c: rng(draw).integers(-8, 9, [c[a] for a in axes]) / 4.0


def policies(draw, c):
    return chances(rng(draw), (c.S, c.A))


def model_space(id, **fields):
    """Models of up to four states and three actions; more fields by name, a callable or a strategy each."""
    axes = {
        "S": dims(1, 4),
        "A": dims(1, 3),
        "kind": choose("stochastic", "sure", "absorbing"),
        "gamma": choose(*GAMMAS),
    }
    given = {**axes, **fields}
    given = {**given, "P": given.pop("P", draw_P), "R": given.pop("R", draw_R)}
    flags = {
        "one_state": Flag(lambda c: c.S == 1, {"S": 1}),
        "one_action": Flag(lambda c: c.A == 1, {"A": 1}),
        "no_future": Flag(lambda c: c.gamma == 0, {"gamma": 0.0}),
        "chancy": Flag(
            lambda c: bool(((c.P > 0).sum(-1) > 1).any()) and c.A > 1,
            {"kind": "stochastic", "S": dims(2, 4), "A": dims(2, 3)},
        ),
        "absorbing": Flag(lambda c: c.kind == "absorbing", {"kind": "absorbing"}),
    }
    return cases(id, **given, flags=flags)


# Values said again, in float64 ------------------------------------------------------------------------


def f64(*arrays):
    return tuple(np.asarray(x, np.float64) for x in arrays)


def series(M, r, doublings=10):
    """sum_{i < 2^doublings} M^i r, for M[*B S S] and r[*B S]; (gamma P)^1024 is nothing for gamma <= 15/16."""
    v = r[..., None]
    for _ in range(doublings):
        v = v + M @ v
        M = M @ M
    return v[..., 0]


def value_of(P, R, policy, gamma):
    """v of policy[*B S A], as a discounted sum of expected rewards."""
    P, R, policy = f64(P, R, policy)
    return series(gamma * np.einsum("...sa,sat->...st", policy, P), np.sum(policy * R, -1))


def deterministic(S, A):
    """Every deterministic policy, [A^S S A]."""
    actions = np.array(list(itertools.product(range(A), repeat=S)))
    return (actions[..., None] == np.arange(A)).astype(np.float64)


def best_value(P, R, gamma):
    """v*: the greatest value of all deterministic policies, by enumeration."""
    return value_of(P, R, deterministic(*R.shape), gamma).max(0)


def q_by_loops(P, R, v, gamma):
    """R(s, a) + gamma sum_t P(t | s, a) v(t), a number at a time."""
    out = np.zeros(R.shape)
    for s, a in np.ndindex(*R.shape):
        out[s, a] = float(R[s, a]) + gamma * sum(float(P[s, a, t]) * float(v[t]) for t in range(len(v)))
    return out


# Bounds -----------------------------------------------------------------------------------------------


def size(c, *values):
    """The largest number of one backup of the given values."""
    return np.max(np.abs(c.R)) + max([c.gamma * np.max(np.abs(v)) for v in values], default=0.0)


def top(c, *values):
    """The largest value of any policy, or of the given values."""
    return max([np.max(np.abs(c.R)) / (1 - c.gamma), *(float(np.max(np.abs(v))) for v in values)])


def backup_bound(c, *values):
    """S products and sums, A more for a policy, and the discount, its own rounding too."""
    return bounds.rounding(c.S + c.A + 5, size(c, *values), c.dtype)


def sweeps_bound(c, *values):
    """Any number of backups: each adds its roundings and shrinks the earlier ones by gamma."""
    return bounds.rounding(c.S + c.A + 5, top(c, *values) / (1 - c.gamma), c.dtype)


def solve_bound(c, *values):
    """LU with partial pivoting: a backward error of 3 S u times the growth 2^(S - 1), on a matrix of norm 1 + gamma
    whose inverse has norm 1 / (1 - gamma), and the roundings of the matrix and of the right side; of a solution no
    larger than any policy's value, or than the given values."""
    n = 3 * c.S * 2 ** (c.S - 1) * (1 + c.gamma) + c.S + c.A + 5
    return bounds.rounding(n, top(c, *values) / (1 - c.gamma), c.dtype)


# Default-size tests -----------------------------------------------------------------------------------


def ring(S=3, A=1, reward=1.0):
    """(P, R): every action steps round a ring, every reward is the same."""
    P = np.zeros((S, A, S))
    for s in range(S):
        P[s, :, (s + 1) % S] = 1
    return P, np.full((S, A), reward)


def uniform(S=3, A=1):
    return np.full((S, A), 1 / A)


def optimum_bound(c, *values):
    """What a greedy step makes of values that are off by rounding, on top of any number of sweeps."""
    return sweeps_bound(c, *values) + solve_bound(c)


def low_start(c):
    """A constant v with v <= T v: what the worst reward for ever is worth, and the same for every state."""
    return np.full(c.S, np.min(c.R) / (1 - c.gamma) - 0.25).astype(c.dtype)


def step(P, R, v, gamma):
    """(T v, actions of the greedy policy), in float64."""
    q = R + gamma * np.einsum("sat,t->sa", P, v)
    return q.max(1), q.argmax(1)


def chain_to_an_end(S, reward):
    """(P, R): one action from state s to s + 1; the last state is absorbing, every step before it pays `reward`."""
    P, R = np.zeros((S, 1, S)), np.full((S, 1), reward)
    for s in range(S):
        P[s, 0, min(s + 1, S - 1)] = 1
    R[-1] = 0
    return P, R


# Recorded trajectories --------------------------------------------------------------------------------


def laid(c, x):
    """x[*B T] with time on the axis that the case says."""
    return np.ascontiguousarray(np.moveaxis(x, -1, c.time_axis)) if c.time_axis == 0 else x


def rows(c, x):
    """x[*N] as [rows T]."""
    x = np.moveaxis(np.asarray(x), 0, -1) if c.time_axis == 0 else np.asarray(x)
    return x.reshape(int(np.prod(c.B)), c.T)


def unrowed(c, x):
    """[rows T] in the case's layout."""
    return laid(c, np.asarray(x).reshape(*c.B, c.T))


def trajectory_space(id, **fields):
    """Recordings of up to six steps, side by side, whose episodes end and are cut here and there."""

    def numbers(draw, c):
        return laid(c, rng(draw).integers(-8, 9, (*c.B, c.T)) / 4.0)

    def marks(name):
        def make(draw, c):
            chance = c.chance if c.marked in (name, "both") else 0.0
            return laid(c, rng(draw).random((*c.B, c.T)) < chance)

        return make

    given = {
        "B": batch(1, 3), "T": choose(4, 2, 6, 0, 1, 5),
        "time_axis": choose(-1, 0), "gamma": choose(0.75, 1.0, 0.5, 0.0, 0.99),
        "N": lambda draw, c: (c.T, *c.B) if c.time_axis == 0 else (*c.B, c.T),
        "marked": choose("both", "terminated", "truncated", "none"), "chance": 0.3,
        "rewards": numbers, "values": numbers, "next_values": numbers,
        "terminated": marks("terminated"), "truncated": marks("truncated"),
    }  # fmt: skip
    some, long = {"T": dims(2, 6), "B": choose((), (2,), (3,))}, {"T": dims(3, 6), "chance": 0.6}
    flags = {
        "empty": Flag(lambda c: 0 in c.N, {"T": 0}),
        "some": Flag(lambda c: c.T > 1 and 0 not in c.B, some),
        "ends": Flag(lambda c: bool(inner(c, "terminated").any()), {**long, "marked": "terminated"}),
        "cuts": Flag(lambda c: bool(inner(c, "truncated").any()), {**long, "marked": "truncated"}),
        "time_first": Flag(lambda c: c.time_axis == 0 and len(c.B) == 1 and c.B[0] not in (0, c.T),
                           {"T": dims(2, 6), "time_axis": 0, "B": (3,)}),
    }  # fmt: skip
    positional = get(id).parameters[0]
    names = [n for n in ("rewards", "values", "next_values", "terminated", "truncated") if n not in positional]
    for name in names:
        given.pop(name)
    return space_of(id, flags, {**given, **fields})


def space_of(id, flags, fields):
    """`cases`, in which `values` names kinds of arrays, for algorithms that have an argument of that name."""
    space = cases(id, flags=flags)
    return space._replace(fields={**fields, **space.fields})


def inner(c, name):
    """[rows T-1]: the marks of steps that are not the last."""
    return rows(c, c[name])[:, :-1]


def trip_bound(c):
    """T products and sums, of numbers that a discount shrinks and at most T of which add up."""
    return bounds.rounding(8 * (c.T + 1), trip_size(c), c.dtype)


def trip_size(c):
    sizes = [
        np.max(np.abs(c[n][np.isfinite(c[n])]), initial=0.0) for n in ("rewards", "values", "next_values") if n in c
    ]
    return 2 * (c.T + 1) * (sum(sizes) + 0.25)


def ways(P, policy, start, T):
    """Every way of T steps: (states[n T+1], actions[n T], chances[n]) from each state that `start` gives a chance."""
    states, actions, chance = np.arange(len(start))[:, None], np.zeros((len(start), 0), int), np.asarray(start)
    b, t = np.indices(P.shape[1:]).reshape(2, -1)
    for _ in range(T):
        last = states[:, -1]
        p = chance[:, None] * policy[last][:, b] * P[last][:, b, t]
        way, on = np.nonzero(p)
        states = np.concatenate([states[way], t[on][:, None]], 1)
        actions, chance = np.concatenate([actions[way], b[on][:, None]], 1), p[way, on]
    return states, actions, chance


def small_model(draw_seed, S=2, A=2, parts=4):
    """(P, R, policy) of a small model, by a seed."""
    g = np.random.default_rng(draw_seed)
    return chances(g, (S, A, S), parts), g.integers(-8, 9, (S, A)) / 4.0, chances(g, (S, A), parts)


def shaped(expect, found, *kinds):
    """The results, of which every one must be an array of the (dtype, shape) that is said."""
    fine = isinstance(found, tuple) and len(found) == len(kinds)
    fine = fine and all(
        isinstance(x, np.ndarray) and (x.dtype, x.shape) == k for x, k in zip(found, kinds, strict=True)
    )
    expect.holds(fine, f"the results are arrays of {', '.join(f'{np.dtype(d)}{list(s)}' for d, s in kinds)}")
    return found


# Rows of transitions ----------------------------------------------------------------------------------


def transition_space(id, **fields):
    """Up to four rows of up to three transitions over three states and two actions, by the algorithm's names."""
    row = ints("k n", 0, "S"), ints("k n", 0, "A")
    given = {
        "k": choose(2, 3, 0), "n": choose(2, 3, 0, 1), "S": choose(3, 2, 1), "A": choose(2, 1),
        "gamma": choose(0.75, 1.0, 0.5, 0.0),
        **fields, "values": quarters("S"), "q": quarters("S", "A"), "policy": policies,
        "states": row[0], "actions": row[1],
        "rewards": quarters("k", "n"), "next_states": row[0], "next_actions": row[1],
        "terminated": lambda draw, c: rng(draw).random((c.k, c.n)) < 0.3,
        "rates": lambda draw, c: rng(draw).integers(0, 5, c.k) / 4.0,
    }  # fmt: skip
    positional = get(id).parameters[0]
    drop = {"values", "q", "policy", "actions", "next_actions"} - set(positional)
    flags = {
        "none": Flag(lambda c: c.k * c.n == 0, {"k": 0}),
        "ends": Flag(lambda c: bool(c.terminated.any()), {"k": dims(2, 4), "n": dims(2, 3)}),
        "twice": Flag(_twice, {"S": 1, "A": 1, "k": dims(1, 4), "n": dims(2, 3)}),
    }
    return space_of(id, flags, {n: f for n, f in given.items() if n not in drop})


def _twice(c):
    """Some row meets an entry twice."""
    index = c.states * c.A + (c.actions if "actions" in c else 0)
    return any(len(set(row)) < len(row) for row in index.tolist())


def rows_bound(c, table):
    """A row: two roundings a transition and one more an entry; rates up to 1 and n moves on one entry let an error
    grow by at most 1 + n (1 + gamma)."""
    growth = (2 + 2 * max(c.n, 1)) ** c.k
    return bounds.rounding(8 * max(c.n, 1) * (c.k + 1), growth * table_size(c, table), c.dtype)


def table_size(c, table):
    return 2 + np.max(np.abs(table), initial=0) + np.max(np.abs(c.rewards), initial=0)


def moved(c, table, later):
    """The rows by hand in float64: later(table, k, i) is what follows transition i of row k, if it did not end."""
    table = np.asarray(table, np.float64).copy()
    for k in range(c.k):
        before = table.copy()
        for i in range(c.n):
            at = (c.states[k, i], c.actions[k, i]) if "actions" in c else (c.states[k, i],)
            follows = 0.0 if c.terminated[k, i] else later(before, k, i)
            table[at] += float(c.rates[k]) * (float(c.rewards[k, i]) + c.gamma * follows - before[at])
    return table


def updated(states, rewards, next_states, terminated, rates, table, later, *, gamma, actions=None, **edit):
    """The update of mutants: rows in plain loops, whose parts an edit replaces."""
    out = np.asarray(table).copy()
    for k in range(len(rates)):
        before = out if edit.get("in_row") else out.copy()
        for i in range(states.shape[1]):
            at = edit.get("at", lambda s, t: s)(states[k, i], next_states[k, i])
            at = (at,) if actions is None else (at, actions[k, i])
            end = edit.get("end", lambda e: e)(terminated[k, i])
            follows = 0.0 if end else later(before, k, i)
            if edit.get("multiplies"):
                follows = (1 - terminated[k, i]) * later(before, k, i)
            target = edit.get("target", lambda r, v: r + gamma * v)(rewards[k, i], follows)
            rate = edit.get("rate", lambda a: a)(rates[k])
            move = edit.get("move", lambda rate, target, old: rate * (target - old))(rate, target, before[at])
            out[at] = (before[at] if edit.get("last_wins") else out[at]) + move
    return out.astype(table.dtype)
