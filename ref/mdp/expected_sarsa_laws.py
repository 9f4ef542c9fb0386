"""Laws and mutants of expected Sarsa."""

from __future__ import annotations

import numpy as np

from ref.mdp.common_laws import moved, rows_bound, sure, table_size, transition_space, updated
from ref.spec import law, mutant
from ref.spec.cases import dims, rng

ID = "mdp.expected_sarsa"
space = transition_space(ID)
some = space.where(k=dims(1, 4), n=dims(1, 3))


@law(
    ID, "L1", closed_form=True, given=space.reach("none", "ends", "twice"),
    kills=["sees_the_row", "last_move_wins", "ends_go_on", "best_of_the_next_actions", "uniform_policy",
           "policy_of_the_state_left", "likeliest_action", "undiscounted"],
)  # fmt: skip
def rows_by_hand(impl, c, expect):
    "q(s, a) += rate (r + gamma (1 - terminated) sum_b pi(b | s') q(s', b) - q(s, a)), q as before the row."

    def later(q, k, i):
        t = c.next_states[k, i]
        return sum(float(c.policy[t, b]) * q[t, b] for b in range(c.A))

    expect(impl(c), moved(c, c.q, later), rows_bound(c, c.q), scale=table_size(c, c.q))


@law(
    ID, "L2", closed_form=True, given=space.where(
        k=dims(1, 5), n=6, S=3, A=2, states=lambda draw, c: np.tile(np.repeat([0, 1, 2], 2), (c.k, 1)),
        actions=lambda draw, c: np.tile([0, 1], (c.k, 3)), rates=lambda draw, c: np.ones(c.k),
        next_states=lambda draw, c: np.tile(rng(draw).integers(0, 3, 6), (c.k, 1)),
        rewards=lambda draw, c: np.tile(rng(draw).integers(-8, 9, 6) / 4.0, (c.k, 1)),
        terminated=lambda draw, c: np.zeros((c.k, 6), bool)),
    kills=["sees_the_row", "uniform_policy", "policy_of_the_state_left"],
)  # fmt: skip
def full_sweeps_are_bellmans_operator(impl, c, expect):
    "Rate 1, every (s, a) once a row, sure outcomes: sum_b pi q_k is T_pi^k of sum_b pi q_0, k sweeps of evaluation."
    pi = np.asarray(c.policy, np.float64)
    v = np.sum(pi * c.q, 1)
    to, r = c.next_states[0].reshape(3, 2), np.asarray(c.rewards[0], np.float64).reshape(3, 2)
    for _ in range(c.k):
        v = np.sum(pi * (r + c.gamma * v[to]), 1)
    found = np.sum(pi * np.asarray(impl(c), np.float64), 1)
    expect(found, v, rows_bound(c.replace(n=1), c.q), scale=4 * table_size(c, c.q))


@law(
    ID, "L3", closed_form=True, given=some.where(policy=lambda draw, c: sure(rng(draw), (c.S, c.A))),
    kills=["uniform_policy", "best_of_the_next_actions", "policy_of_the_state_left"],
)  # fmt: skip
def a_sure_policy_looks_its_action_up(impl, c, expect):
    "A policy with one action a state: q(s', pi(s')) follows; of the policy greedy for q, a row is Q-learning."
    act = c.policy.argmax(1)
    wanted = moved(c, c.q, lambda q, k, i: q[c.next_states[k, i], act[c.next_states[k, i]]])
    expect(impl(c), wanted, rows_bound(c, c.q), "a sure policy", scale=table_size(c, c.q))
    names = ("states", "actions", "rewards", "next_states", "terminated", "rates")
    one = c.replace(k=1, policy=np.eye(c.A, dtype=c.dtype)[c.q.argmax(1)], **{n: c[n][:1].copy() for n in names})
    wanted = moved(one, c.q, lambda q, k, i: q[one.next_states[k, i]].max())
    expect(impl(one), wanted, rows_bound(one, c.q), "greedy", scale=table_size(c, c.q))


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
    return lambda: ((np.ones((2, 2)), np.full((2, 2), 0.5), i, i, np.zeros((k, n)), i, i > 0, np.full(k, 0.5)),
                    {"gamma": gamma})  # fmt: skip


def stepped(q, policy, states, actions, rewards, next_states, terminated, rates, *, gamma, mean=None, **edit):
    mean = mean or (lambda q, s, t: policy[t] @ q[t])
    return updated(states, rewards, next_states, terminated, rates, q,
                   lambda q, k, i: mean(q, states[k, i], next_states[k, i]), gamma=gamma, actions=actions,
                   **edit)  # fmt: skip


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
    "(1 - terminated) times the mean: NaN times zero is NaN."
    return stepped(*args, **options, multiplies=True)


@mutant(ID, default_case=settled())
def best_of_the_next_actions(*args, **options):
    "Q-learning."
    return stepped(*args, **options, mean=lambda q, s, t: q[t].max())


@mutant(ID, default_case=settled())
def uniform_policy(*args, **options):
    "The policy is not looked at."
    return stepped(*args, **options, mean=lambda q, s, t: q[t].mean())


@mutant(ID, default_case=settled())
def policy_of_the_state_left(q, policy, *args, **options):
    "pi(b | s) for pi(b | s')."
    return stepped(q, policy, *args, **options, mean=lambda q, s, t: policy[s] @ q[t])


@mutant(ID, default_case=settled())
def likeliest_action(q, policy, *args, **options):
    "The policy's mode for its mean."
    return stepped(q, policy, *args, **options, mean=lambda q, s, t: q[t, policy[t].argmax()])


@mutant(ID, default_case=settled())
def undiscounted(*args, gamma, **options):
    "gamma is taken and not used."
    return stepped(*args, gamma=1.0, **options)
