"""Laws and mutants of TD(0)."""

from __future__ import annotations

import numpy as np

from ref.mdp.common_laws import moved, rows_bound, table_size, transition_space, updated
from ref.spec import bounds, law, mutant
from ref.spec.cases import dims, rng

ID = "mdp.td0"
space = transition_space(ID)
some = space.where(k=dims(1, 4), n=dims(1, 3))


def later(c):
    return lambda V, k, i: V[c.next_states[k, i]]


@law(
    ID, "L1", closed_form=True, given=space.reach("none", "ends", "twice"),
    kills=["sees_the_row", "last_move_wins", "ends_go_on", "moves_the_next_state", "value_of_the_state_left",
           "rate_on_the_target_alone", "undiscounted", "first_rate_for_ever"],
)  # fmt: skip
def rows_by_hand(impl, c, expect):
    "V(s) += a (r + gamma (1 - terminated) V(s') - V(s)), V on the right as before the row, moves of a state added up."
    expect(impl(c), moved(c, c.values, later(c)), rows_bound(c, c.values), scale=table_size(c, c.values))


@law(
    ID, "L2", closed_form=True, given=space.where(
        k=dims(1, 6), n=4, S=2, states=lambda draw, c: np.tile([0, 0, 1, 1], (c.k, 1)),
        next_states=lambda draw, c: np.tile(rng(draw).integers(0, 2, 4), (c.k, 1)),
        terminated=lambda draw, c: np.tile(rng(draw).random(4) < 0.3, (c.k, 1)),
        rewards=lambda draw, c: np.tile(rng(draw).integers(-8, 9, 4) / 4.0, (c.k, 1)),
        rates=lambda draw, c: np.full(c.k, 0.25), gamma=0.75),
    kills=["sees_the_row", "last_move_wins", "ends_go_on"],
)  # fmt: skip
def batch_is_certainty_equivalence(impl, c, expect):
    """The same batch in every row, d(s) steps from s, a constant rate a: V_k - V_ce = (I - a D (I - gamma P^))^k
    (V_0 - V_ce), where P^ and r^ are the counted chances and mean rewards and V_ce = (I - gamma P^)^{-1} r^. So batch
    TD comes to the value of the counted chain, and stays there."""
    P, r = np.zeros((2, 2)), np.zeros(2)
    for s, t, x, end in zip(c.states[0], c.next_states[0], c.rewards[0], c.terminated[0], strict=True):
        P[s, t] += 0.0 if end else 0.5
        r[s] += float(x) / 2
    sure = np.linalg.solve(np.eye(2) - 0.75 * P, r)
    M = np.linalg.matrix_power(np.eye(2) - 0.25 * 2 * (np.eye(2) - 0.75 * P), c.k)
    wanted = sure + M @ (np.asarray(c.values, np.float64) - sure)
    size = 4 * table_size(c, c.values) / 0.25
    few = bounds.rounding(40 * c.k, size, c.dtype)
    expect(impl(c), wanted, few, "after k passes", scale=size)
    expect(impl(c.replace(values=sure.astype(c.dtype))), sure, few, "from the certainty-equivalent values", scale=size)


@law(
    ID, "L3", closed_form=True, given=space.where(
        k=dims(1, 4), n=3, S=3, states=lambda draw, c: np.tile([0, 1, 2], (c.k, 1)),
        rates=lambda draw, c: np.ones(c.k)),
    kills=["sees_the_row", "value_of_the_state_left", "moves_the_next_state"],
)  # fmt: skip
def full_steps_are_sweeps(impl, c, expect):
    "Every state once a row, rate 1: V_{k+1} = r_k + gamma (1 - terminated) V_k(s'), forgetting V_k(s)."
    V = np.asarray(c.values, np.float64)
    for k in range(c.k):
        V = c.rewards[k] + c.gamma * np.where(c.terminated[k], 0, V[c.next_states[k]])
    expect(impl(c), V, rows_bound(c, c.values), scale=table_size(c, c.values) * 4)


@law(
    ID, "L4", closed_form=True, given=some.where(n=1, S=1, terminated=lambda draw, c: np.ones((c.k, 1), bool),
                                                 rates=lambda draw, c: 1.0 / np.arange(1, c.k + 1)),
    kills=["first_rate_for_ever", "rate_on_the_target_alone"],
)  # fmt: skip
def rates_of_one_over_k_are_a_mean(impl, c, expect):
    "One state whose every step ends, a_k = 1 / k: V is the mean of the rewards, whatever it was."
    wanted = np.array([np.mean(np.asarray(c.rewards, np.float64))])
    expect(impl(c), wanted, rows_bound(c, c.values), scale=table_size(c, c.values))


@law(ID, "L5", given=some.where(ends=True, S=dims(2, 3)), kills=["ends_by_multiplying"],
     passes_null=["zeros", "constant", "identity"])  # fmt: skip
def what_follows_an_end_is_invisible(impl, c, expect):
    "A NaN in the value of a state that only terminated steps lead to stays there."
    there = np.where(c.terminated, c.S - 1, np.minimum(c.next_states, c.S - 2))
    here = np.minimum(c.states, c.S - 2)
    plain = c.replace(next_states=np.where(c.terminated, 0, there), states=here)
    values = c.values.copy()
    values[-1] = np.nan
    expect.same(impl(c.replace(next_states=there, states=here, values=values))[:-1], impl(plain)[:-1])


@law(ID, "L6", given=some.where(k=dims(2, 4)), kills=["first_rate_for_ever"],
     passes_null=["zeros", "constant", "identity"])  # fmt: skip
def rows_one_after_the_other(impl, c, expect):
    "k rows are the first ones, and the rest from where they stopped; the same bits."
    names = ("states", "rewards", "next_states", "terminated", "rates")
    whole, j = impl(c), c.k // 2
    parts = [
        c.replace(k=m, **{n: c[n][at].copy() for n in names}) for at, m in ((slice(0, j), j), (slice(j, None), c.k - j))
    ]
    expect.same(impl(parts[1].replace(values=impl(parts[0]))), whole)


# Mutants ---------------------------------------------------------------------------------------------


def settled(gamma=1.0, n=1, k=2):
    """The default-size test: values that are right, of a state that stays and pays nothing."""
    i = np.zeros((k, n), int)
    return lambda: ((np.ones(2), i, np.zeros((k, n)), i, i > 0, np.full(k, 0.5)), {"gamma": gamma})


def stepped(values, states, rewards, next_states, terminated, rates, *, gamma, **edit):
    follow = edit.pop("follow", next_states)
    return updated(states, rewards, next_states, terminated, rates, values, lambda V, k, i: V[follow[k, i]],
                   gamma=gamma, **edit)  # fmt: skip


@mutant(ID, default_case=settled())
def sees_the_row(*args, **options):
    "Transitions of a row see the moves before them."
    return stepped(*args, **options, in_row=True)


@mutant(ID, default_case=settled())
def last_move_wins(*args, **options):
    "V[states] += moves, which NumPy buffers: of two moves of a state the last one stays."
    return stepped(*args, **options, last_wins=True)


@mutant(ID, default_case=settled())
def ends_go_on(*args, **options):
    "terminated is taken and not used."
    return stepped(*args, **options, end=lambda e: False)


@mutant(ID, default_case=settled())
def ends_by_multiplying(*args, **options):
    "(1 - terminated) V(s'): NaN times zero is NaN."
    return stepped(*args, **options, multiplies=True)


@mutant(ID, default_case=settled())
def moves_the_next_state(*args, **options):
    "V(s') is moved."
    return stepped(*args, **options, at=lambda s, t: t)


@mutant(ID, default_case=settled())
def value_of_the_state_left(values, states, *args, **options):
    "r + gamma V(s)."
    return stepped(values, states, *args, **options, follow=states)


@mutant(ID, default_case=lambda: ((np.zeros(2), *settled()()[0][1:]), {"gamma": 1.0}))
def rate_on_the_target_alone(*args, **options):
    "V + a target."
    return stepped(*args, **options, move=lambda rate, target, old: rate * target)


@mutant(ID, default_case=settled())
def undiscounted(*args, gamma, **options):
    "gamma is taken and not used."
    return stepped(*args, gamma=1.0, **options)


@mutant(ID, default_case=settled())
def first_rate_for_ever(values, states, rewards, next_states, terminated, rates, **options):
    "rates[0] in every row."
    return stepped(values, states, rewards, next_states, terminated, np.full_like(rates, rates[0] if len(rates) else 0),
                   **options)  # fmt: skip
