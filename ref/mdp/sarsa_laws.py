"""Laws and mutants of Sarsa."""

from __future__ import annotations

import numpy as np

from ref.mdp.common_laws import moved, rows_bound, table_size, transition_space, updated
from ref.spec import law, mutant
from ref.spec.cases import choose, dims, rng

ID = "mdp.sarsa"
space = transition_space(ID, pi=lambda draw, c: rng(draw).integers(0, c.A, c.S), parts=choose(1, 3, 2))
some = space.where(k=dims(1, 4), n=dims(1, 3))


@law(
    ID, "L1", closed_form=True, given=space.reach("none", "ends", "twice"),
    kills=["sees_the_row", "last_move_wins", "ends_go_on", "best_of_the_next_actions", "same_action_next",
           "next_action_here", "undiscounted", "columns_first"],
)  # fmt: skip
def rows_by_hand(impl, c, expect):
    "q(s, a) += rate (r + gamma (1 - terminated) q(s', a') - q(s, a)), q on the right as before the row."
    wanted = moved(c, c.q, lambda q, k, i: q[c.next_states[k, i], c.next_actions[k, i]])
    expect(impl(c), wanted, rows_bound(c, c.q), scale=table_size(c, c.q))


@law(
    ID, "L2", closed_form=True, given=space.where(
        k=dims(1, 5), n=6, S=3, A=2,
        states=lambda draw, c: np.tile(np.repeat([0, 1, 2], 2), (c.k, 1)),
        actions=lambda draw, c: np.tile([0, 1], (c.k, 3)),
        rates=lambda draw, c: np.ones(c.k), next_states=lambda draw, c: np.tile(rng(draw).integers(0, 3, 6), (c.k, 1)),
        next_actions=lambda draw, c: c.pi[c.next_states],
        rewards=lambda draw, c: np.tile(rng(draw).integers(-8, 9, 6) / 4.0, (c.k, 1)),
        terminated=lambda draw, c: np.zeros((c.k, 6), bool)),
    kills=["sees_the_row", "best_of_the_next_actions", "same_action_next"],
)  # fmt: skip
def full_sweeps_are_bellmans_operator(impl, c, expect):
    """Rate 1, every (s, a) once a row, sure outcomes, a' of a fixed policy: v_j(s) = q_j(s, pi(s)) follows v_{j+1}(s) =
    r(s, pi(s)) + gamma v_j(s'), k sweeps of evaluation."""
    n = np.arange(3)
    v = np.asarray(c.q, np.float64)[n, c.pi]
    to, r = c.next_states[0].reshape(3, 2)[n, c.pi], np.asarray(c.rewards[0], np.float64).reshape(3, 2)[n, c.pi]
    for _ in range(c.k):
        v = r + c.gamma * v[to]
    found = np.asarray(impl(c), np.float64)[n, c.pi]
    expect(found, v, rows_bound(c.replace(n=1), c.q), scale=4 * table_size(c, c.q))


@law(
    ID, "L3", closed_form=True, given=space.where(k=1, n=4, S=3, A=2),
    kills=["best_of_the_next_actions", "next_action_here", "last_move_wins"],
)  # fmt: skip
def mean_over_next_actions_is_the_expected_update(impl, c, expect):
    """One step, its next action drawn four times as a policy of quarters has it: the moves add up to four times
    rate (r + gamma sum_b pi(b | s') q(s', b) - q(s, a))."""
    one = {n: np.repeat(c[n][:, :1], 4, 1) for n in ("states", "actions", "rewards", "next_states", "terminated")}
    now = c.replace(**one, next_actions=(np.arange(4) < c.parts)[None].astype(int))
    q, (s, a, t) = np.asarray(c.q, np.float64), (int(now[n][0, 0]) for n in ("states", "actions", "next_states"))
    mean = (c.parts * q[t, 1] + (4 - c.parts) * q[t, 0]) / 4
    wanted = q.copy()
    follows = 0.0 if now.terminated[0, 0] else c.gamma * mean
    wanted[s, a] += 4 * float(c.rates[0]) * (float(now.rewards[0, 0]) + follows - q[s, a])
    expect(impl(now), wanted, rows_bound(now, c.q), scale=4 * table_size(c, c.q))


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


# Mutants ---------------------------------------------------------------------------------------------


def settled(gamma=1.0, n=1, k=2):
    """The default-size test: values that are right, of a state that stays and pays nothing."""
    i = np.zeros((k, n), int)
    return lambda: ((np.ones((2, 2)), i, i, np.zeros((k, n)), i, i, i > 0, np.full(k, 0.5)), {"gamma": gamma})


def stepped(q, states, actions, rewards, next_states, next_actions, terminated, rates, *, gamma, next=None, **edit):
    next = next or (lambda q, k, i: q[next_states[k, i], next_actions[k, i]])
    return updated(states, rewards, next_states, terminated, rates, q, next, gamma=gamma, actions=actions, **edit)


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
    "(1 - terminated) q(s', a'): NaN times zero is NaN."
    return stepped(*args, **options, multiplies=True)


@mutant(ID, default_case=settled())
def best_of_the_next_actions(q, s, a, r, t, b, *args, **options):
    "Q-learning."
    return stepped(q, s, a, r, t, b, *args, **options, next=lambda q, k, i: q[t[k, i]].max())


@mutant(ID, default_case=settled())
def same_action_next(q, s, a, r, t, b, *args, **options):
    "q(s', a): the action just taken."
    return stepped(q, s, a, r, t, b, *args, **options, next=lambda q, k, i: q[t[k, i], a[k, i]])


@mutant(ID, default_case=settled())
def next_action_here(q, s, a, r, t, b, *args, **options):
    "q(s, a'): the state just left."
    return stepped(q, s, a, r, t, b, *args, **options, next=lambda q, k, i: q[s[k, i], b[k, i]])


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
