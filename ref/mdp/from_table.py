"""A model from a table of transitions, as gymnasium's toy-text environments keep one (`env.unwrapped.P`).

Source: Towers et al. 2024 (2407.17032), gymnasium's toy_text environments: P[s][a] is a list of (chance, next state,
reward, terminated).

    P(t | s, a) = sum of the chances of the outcomes that lead to t and go on
    P(end | s, a) = sum of the chances of those that terminate
    R(s, a) = sum over outcomes of chance * reward

Notation
    table[s][a] is a list of (p, t, r, terminated); N = S + 1 states with the end -> P[N A N], R[N A].

Conventions
    C1  The last state, N - 1, is the end: absorbing, of reward 0. What terminates goes there, wherever it was said to
        lead: termination belongs to the transition, and the rows of a terminal state may hold live moves (the goal of
        CliffWalking has them).
    C2  An outcome may stand in a list twice (on gymnasium's lake two slips may lead to the same cell): chances add up.
    C3  A time limit is no part of the table (`finite_horizon`).

Laws
    L1 outcomes_add_up                       L2 values_end_with_the_episode
    L3 order_of_outcomes_is_immaterial
"""

from __future__ import annotations

import numpy as np

from ref.mdp.model import check_rows
from ref.spec import spec


@spec("mdp.from_table", "table:tree -> P:tree, R:tree", backends=("numpy",))
def from_table(table):
    """Chances and expected rewards of a table of transitions, with one more state for the end.

    Parameters
    ----------
    table : dict of dict of list, or nested lists
        table[s][a] = [(chance, next state, reward, terminated), ...], states and actions numbered from 0; a list may
        be an array of such rows.

    Returns
    -------
    P : float64[S+1 A S+1]
    R : float64[S+1 A]

    Raises
    ------
    ValueError
        No state or action, numbers of actions differ, a next state that is not there, or chances that are no
        distribution: names (s, a).
    KeyError
        A number of a state or an action is missing.

    Complexity: one pass over the outcomes, and (S + 1)^2 A for the zeros of P.

    >>> P, R = from_table({0: {0: [(0.5, 0, 1.0, False), (0.5, 0, 4.0, True)]}})
    >>> P[0, 0], R
    (array([0.5, 0.5]), array([[2.5],
           [0. ]]))
    """
    S, A = len(table), len(table[0]) if len(table) else 0
    if not (S and A):
        raise ValueError(f"from_table: the table has {S} states and {A} actions; needed at least one of each")
    P, R = np.zeros((S + 1, A, S + 1)), np.zeros((S + 1, A))
    P[S, :, S] = 1
    for s in range(S):
        if len(table[s]) != A:
            raise ValueError(f"from_table: state {s} has {len(table[s])} actions, state 0 has {A}")
        for a in range(A):
            for chance, to, reward, terminated in table[s][a]:
                if not 0 <= to < S or to != int(to):
                    raise ValueError(f"from_table: (s, a) = ({s}, {a}) leads to {to}; needed 0 .. {S - 1}")
                P[s, a, S if terminated else int(to)] += chance
                R[s, a] += chance * reward
    check_rows("from_table", "table", P)
    return P, R
