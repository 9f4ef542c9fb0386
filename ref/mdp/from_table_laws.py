"""Laws and mutants of models from tables."""

from __future__ import annotations

import numpy as np

from ref.mdp.common_laws import best_value, shaped
from ref.spec import law, mutant
from ref.spec.cases import Flag, cases, dims, rng

ID = "mdp.from_table"
ONE = {"dtypes": ("float64",)}


def _table(draw, c):
    """Up to three outcomes of dyadic chances, some of them twice, some of them ends, states that end and live on."""
    g, table = rng(draw), {}
    for s in range(c.S):
        table[s] = {}
        for a in range(c.A):
            few = int(g.integers(1, 4))
            parts = g.multinomial(8, np.full(few, 1 / few)) / 8
            table[s][a] = np.array([(p, g.integers(0, c.S), g.integers(-8, 9) / 4, g.random() < 0.3) for p in parts])
    return table


space = cases(
    ID, S=dims(1, 3), A=dims(1, 2), table=_table, N=lambda draw, c: c.S + 1,
    flags={
        "twice": Flag(lambda c: any(map(_repeats, _lists(c.table))), {"S": 1}),
        "ends": Flag(lambda c: any(o[3] for x in _lists(c.table) for o in x.tolist()), {"S": dims(2, 3)}),
    },
)  # fmt: skip


def _lists(table):
    return [outcomes for row in table.values() for outcomes in row.values()]


def _repeats(outcomes):
    keys = [(t, end) for p, t, _, end in outcomes if p > 0]
    return len(set(keys)) < len(keys)


@law(
    ID, "L1", closed_form=True, given=space.reach("twice", "ends"), **ONE,
    kills=["last_outcome_wins", "ends_are_not_looked_at", "rewards_unweighted", "reward_of_the_last_outcome",
           "terminal_states_are_dead"],
)  # fmt: skip
def outcomes_add_up(impl, c, expect):
    """P(t | s, a) sums the chances of outcomes that lead to t and go on, P(end | s, a) those that terminate, R the
    rewards by their chances; the end is absorbing and pays nothing."""
    P, R = shaped(expect, impl(c), (np.float64, (c.N, c.A, c.N)), (np.float64, (c.N, c.A)))
    for s in range(c.S):
        for a in range(c.A):
            outcomes = c.table[s][a].tolist()
            for t in range(c.S):
                wanted = sum(p for p, to, _, end in outcomes if to == t and not end)
                expect.same(P[s, a, t], np.array(float(wanted)), f"P[{s}, {a}, {t}]")
            expect.same(P[s, a, c.S], np.array(float(sum(p for p, _, _, end in outcomes if end))), f"P[{s}, {a}, end]")
            expect.same(R[s, a], np.array(float(sum(p * r for p, _, r, _ in outcomes))), f"R[{s}, {a}]")
    expect.same(P[c.S], np.tile(np.eye(c.N)[c.S], (c.A, 1)), "P of the end")
    expect.same(R[c.S], np.zeros(c.A), "R of the end")


@law(
    ID, "L2", closed_form=True, given=space.reach("ends"), **ONE,
    kills=["ends_are_not_looked_at", "last_outcome_wins", "terminal_states_are_dead", "the_end_goes_on"],
)  # fmt: skip
def values_end_with_the_episode(impl, c, expect):
    "v(s) = max_a sum p (r + gamma (1 - terminated) v(t)), iterated on the table itself, is v* of the model."
    P, R = shaped(expect, impl(c), (np.float64, (c.N, c.A, c.N)), (np.float64, (c.N, c.A)))
    v = [0.0] * c.S
    for _ in range(60):
        v = [
            max(
                sum(p * (r + 0.5 * (not end) * v[int(t)]) for p, t, r, end in c.table[s][a].tolist())
                for a in range(c.A)
            )
            for s in range(c.S)
        ]
    expect(best_value(P, R, 0.5), np.array([*v, 0.0]), 1e-12, scale=4.0)


@law(ID, "L3", given=space.reach("twice"), **ONE, kills=["last_outcome_wins", "reward_of_the_last_outcome"],
     passes_null=["zeros", "constant", "nan"])  # fmt: skip
def order_of_outcomes_is_immaterial(impl, c, expect):
    "The outcomes of every action backwards, in nested lists: the same model, to the bit (the chances are dyadic)."
    P, R = shaped(expect, impl(c), (np.float64, (c.N, c.A, c.N)), (np.float64, (c.N, c.A)))
    back = [[[tuple(o) for o in c.table[s][a][::-1].tolist()] for a in range(c.A)] for s in range(c.S)]
    Q, r = impl(c.replace(table=back))
    expect.same(Q, P, "P")
    expect.same(r, R, "R")


# Mutants ---------------------------------------------------------------------------------------------


def sure():
    """The default-size test: one outcome an action, none of them an end, no reward."""
    return ({s: {0: [(1.0, 1 - s, 0.0, False)]} for s in range(2)},), {}


def read(table, **edit):
    """The table in plain loops, whose parts an edit replaces."""
    S, A = len(table), len(table[0])
    P, R = np.zeros((S + 1, A, S + 1)), np.zeros((S + 1, A))
    P[S, :, S] = 1
    for s in range(S):
        for a in range(A):
            for p, t, r, end in table[s][a]:
                to = S if edit.get("end", lambda t, end: end)(int(t), end) else int(t)
                P[s, a, to] = edit.get("put", lambda old, p: old + p)(P[s, a, to], p)
                R[s, a] = edit.get("pay", lambda old, p, r: old + p * r)(R[s, a], p, r)
    return P, R


@mutant(ID, default_case=sure)
def last_outcome_wins(table):
    "P[s, a, t] = p."
    return read(table, put=lambda old, p: p)


@mutant(ID, default_case=sure)
def ends_are_not_looked_at(table):
    "terminated is dropped: the goal's live moves are played on."
    return read(table, end=lambda t, end: False)


@mutant(ID, default_case=sure)
def rewards_unweighted(table):
    "The sum of the rewards, not by their chances."
    return read(table, pay=lambda old, p, r: old + r)


@mutant(ID, default_case=sure)
def reward_of_the_last_outcome(table):
    "R[s, a] = r."
    return read(table, pay=lambda old, p, r: r)


@mutant(ID, default_case=sure)
def terminal_states_are_dead(table):
    "A state that some transition ends in is an end for all of them."
    S = len(table)
    ends = {int(t) for s in range(S) for a in range(len(table[0])) for p, t, _, end in table[s][a] if end and p > 0}
    return read(table, end=lambda t, end: t in ends)


@mutant(ID, default_case=sure)
def the_end_goes_on(table):
    "The end leads back to state 0 (the reset of an environment)."
    P, R = read(table)
    if any(end for s in range(len(table)) for a in range(len(table[0])) for _, _, _, end in table[s][a]):
        P[-1] = np.eye(len(P))[0]
    return P, R
