"""Laws and mutants of Q-learning."""

from __future__ import annotations

import numpy as np

from ref.mdp.common_laws import (
    best_value,
    moved,
    rows_bound,
    small_model,
    table_size,
    transition_space,
    updated,
)
from ref.spec import law, mutant
from ref.spec.cases import dims, rng

ID = "mdp.q_learning"
space = transition_space(ID, seed=dims(0, 999))
some = space.where(k=dims(1, 4), n=dims(1, 3))


@law(
    ID, "L1", closed_form=True, given=space.reach("none", "ends", "twice"),
    kills=["sees_the_row", "last_move_wins", "ends_go_on", "mean_of_the_next_actions", "best_of_the_state_left",
           "same_action_next", "largest_in_size", "undiscounted", "columns_first"],
)  # fmt: skip
def rows_by_hand(impl, c, expect):
    "q(s, a) += rate (r + gamma (1 - terminated) max_b q(s', b) - q(s, a)), q on the right as before the row."
    wanted = moved(c, c.q, lambda q, k, i: max(q[c.next_states[k, i]].tolist()))
    expect(impl(c), wanted, rows_bound(c, c.q), scale=table_size(c, c.q))


@law(
    ID, "L2", closed_form=True, given=space.where(
        k=dims(1, 5), n=6, S=3, A=2, states=lambda draw, c: np.tile(np.repeat([0, 1, 2], 2), (c.k, 1)),
        actions=lambda draw, c: np.tile([0, 1], (c.k, 3)), rates=lambda draw, c: np.ones(c.k),
        next_states=lambda draw, c: np.tile(rng(draw).integers(0, 3, 6), (c.k, 1)),
        rewards=lambda draw, c: np.tile(rng(draw).integers(-8, 9, 6) / 4.0, (c.k, 1)),
        terminated=lambda draw, c: np.zeros((c.k, 6), bool)),
    kills=["sees_the_row", "mean_of_the_next_actions", "same_action_next", "columns_first"],
)  # fmt: skip
def full_sweeps_are_value_iteration(impl, c, expect):
    """Rate 1, every (s, a) once a row, sure outcomes: after k rows max_a q is T^k max_a q_0 of value iteration, exactly
    v_{j+1}(s) = max_a (r(s, a) + gamma v_j(s'))."""
    v = np.asarray(c.q, np.float64).max(1)
    to, r = c.next_states[0].reshape(3, 2), np.asarray(c.rewards[0], np.float64).reshape(3, 2)
    for _ in range(c.k):
        v = (r + c.gamma * v[to]).max(1)
    found = np.asarray(impl(c), np.float64).max(1)
    expect(found, v, rows_bound(c.replace(n=1), c.q), scale=4 * table_size(c, c.q))


@law(
    ID, "L3", closed_form=True, dtypes=("float64",), given=space.where(k=1, n=16, S=2, A=2, gamma=0.75),
    kills=["mean_of_the_next_actions", "best_of_the_state_left", "undiscounted"],
)  # fmt: skip
def optimum_stays_in_the_mean(impl, c, expect):
    """At q* of a small model, chances in quarters, a row of all outcomes as often as their chances say: the moves of
    every entry add up to 0; from q* + 1 everywhere they come to -4 rate (1 - gamma)."""
    P, R, _ = small_model(c.seed)
    q = R + 0.75 * P @ best_value(P, R, 0.75)
    s, a, t = (np.repeat(x.reshape(-1), np.round(4 * P).astype(int).reshape(-1)) for x in np.indices(P.shape))
    now = c.replace(states=s[None], actions=a[None], next_states=t[None], rewards=R[s, a][None], q=q,
                    terminated=np.zeros((1, 16), bool), rates=np.array([0.25]))  # fmt: skip
    expect(impl(now), q, 1e-11, "at q*", scale=1 + np.max(np.abs(q)))
    wanted = q + 1 - 4 * 0.25 * (1 - 0.75)
    expect(impl(now.replace(q=q + 1)), wanted, 1e-11, "from q* + 1", scale=1 + np.max(np.abs(q)))


@law(ID, "L4", given=some.where(ends=True, S=dims(2, 3)), kills=["ends_by_multiplying"],
     passes_null=["zeros", "constant", "identity"])  # fmt: skip
def what_follows_an_end_is_invisible(impl, c, expect):
    "A NaN in the row of a state that only terminated steps lead to stays there."
    there = np.where(c.terminated, c.S - 1, np.minimum(c.next_states, c.S - 2))
    here = np.minimum(c.states, c.S - 2)
    plain = c.replace(next_states=np.where(c.terminated, 0, there), states=here)
    q = c.q.copy()
    q[-1] = np.nan
    expect.same(impl(c.replace(next_states=there, states=here, q=q))[:-1], impl(plain)[:-1])


@law(ID, "L5", given=some.where(k=dims(2, 4)), kills=["first_rate_for_ever"],
     passes_null=["zeros", "constant", "identity"])  # fmt: skip
def rows_one_after_the_other(impl, c, expect):
    "k rows are the first ones, and the rest from where they stopped; the same bits."
    names = ("states", "actions", "rewards", "next_states", "terminated", "rates")
    whole, j = impl(c), c.k // 2
    first, rest = (
        c.replace(k=m, **{n: c[n][at].copy() for n in names}) for at, m in ((slice(0, j), j), (slice(j, None), c.k - j))
    )
    expect.same(impl(rest.replace(q=impl(first))), whole)


# Mutants ---------------------------------------------------------------------------------------------


def settled(gamma=1.0, n=1, k=2):
    """The default-size test: values that are right, of a state that stays and pays nothing."""
    i = np.zeros((k, n), int)
    return lambda: ((np.ones((2, 2)), i, i, np.zeros((k, n)), i, i > 0, np.full(k, 0.5)), {"gamma": gamma})


def stepped(q, states, actions, rewards, next_states, terminated, rates, *, gamma, best=None, **edit):
    best = best or (lambda q, k, i: q[next_states[k, i]].max())
    return updated(states, rewards, next_states, terminated, rates, q, best, gamma=gamma, actions=actions, **edit)


@mutant(ID, default_case=settled())
def sees_the_row(*args, **options):
    "Transitions of a row see the moves before them."
    return stepped(*args, **options, in_row=True)


@mutant(ID, default_case=settled())
def last_move_wins(*args, **options):
    "q[states, actions] += moves, which NumPy buffers: of two moves of an entry the last one stays."
    return stepped(*args, **options, last_wins=True)


@mutant(ID, default_case=settled())
def ends_go_on(*args, **options):
    "terminated is taken and not used."
    return stepped(*args, **options, end=lambda e: False)


@mutant(ID, default_case=settled())
def ends_by_multiplying(*args, **options):
    "(1 - terminated) max q: NaN times zero is NaN."
    return stepped(*args, **options, multiplies=True)


@mutant(ID, default_case=settled())
def mean_of_the_next_actions(q, s, a, r, t, *args, **options):
    "Expected Sarsa of the uniform policy."
    return stepped(q, s, a, r, t, *args, **options, best=lambda q, k, i: q[t[k, i]].mean())


@mutant(ID, default_case=settled())
def best_of_the_state_left(q, s, a, r, t, *args, **options):
    "max_b q(s, b)."
    return stepped(q, s, a, r, t, *args, **options, best=lambda q, k, i: q[s[k, i]].max())


@mutant(ID, default_case=settled())
def same_action_next(q, s, a, r, t, *args, **options):
    "q(s', a): the action just taken."
    return stepped(q, s, a, r, t, *args, **options, best=lambda q, k, i: q[t[k, i], a[k, i]])


@mutant(ID, default_case=settled())
def largest_in_size(q, s, a, r, t, *args, **options):
    "max |q|."
    return stepped(q, s, a, r, t, *args, **options, best=lambda q, k, i: np.abs(q[t[k, i]]).max())


@mutant(ID, default_case=settled())
def undiscounted(*args, gamma, **options):
    "gamma is taken and not used."
    return stepped(*args, gamma=1.0, **options)


@mutant(ID, default_case=settled())
def columns_first(q, states, actions, *args, **options):
    "Entry a S + s of the flat table."
    S, A = q.shape
    flat = actions * S + states
    return stepped(q, flat // A, flat % A, *args, **options)


@mutant(ID, default_case=settled())
def first_rate_for_ever(q, s, a, r, t, end, rates, **options):
    "rates[0] in every row."
    return stepped(q, s, a, r, t, end, np.full_like(rates, rates[0] if len(rates) else 0), **options)
