"""TD(0): the value of a policy, learned from single steps.

Source: Sutton 1988; Sutton & Barto 2018, sec. 6.1 and 6.3 (batch); Zhao 2025, Mathematical Foundations of Reinforcement
Learning, sec. 7.1.

    V(s) <- V(s) + a [r + gamma (1 - terminated) V(s') - V(s)]

    batch updating comes to the value of the chain and the rewards that were counted (certainty equivalence)

Notation
    V -> values[S]; s, r, s' -> states, rewards, next_states [k n]; a -> rates[k].

Conventions
    C1  Rows of transitions: all of a row see the values before it, and moves of one state add up (`ref.mdp.updates`).
    C2  terminated: nothing follows, V(s') is not read. A truncated step is an ordinary one here: V(s') is that of the
        state it led to.

Laws
    L1 rows_by_hand                          L2 batch_is_certainty_equivalence
    L3 full_steps_are_sweeps                 L4 rates_of_one_over_k_are_a_mean
    L5 what_follows_an_end_is_invisible      L6 rows_one_after_the_other
"""

from __future__ import annotations

from ref.mdp.updates import check_steps, toward, worth
from ref.spec import bind, spec

INPUTS = "values[S], states:int[k n], rewards[k n], next_states:int[k n], terminated:bool[k n], rates[k]"
SIGNATURE = f"{INPUTS} -> [S]"


@spec("mdp.td0", SIGNATURE)
def td0(values, states, rewards, next_states, terminated, rates, *, gamma):
    """Values after k rows of transitions.

    Parameters
    ----------
    values : float[S]
    states : int[k n]
        State that each step left.
    rewards : float[k n]
    next_states : int[k n]
        State that it led to.
    terminated : bool[k n]
        The process ended with it.
    rates : float[k]
        0 <= rate <= 1.
    gamma : float
        Discount, 0 <= gamma <= 1.

    Returns
    -------
    float[S]

    Raises
    ------
    ValueError
        Axes disagree, a state that is not there, a rate or gamma out of range.
    TypeError
        An array of another kind, or dtypes or backends differ.

    Complexity: k (n + S).

    >>> import numpy as np
    >>> v, no = np.array([0.0, 8.0]), np.zeros((1, 1), bool)
    >>> td0(v, np.array([[0]]), np.array([[2.0]]), np.array([[1]]), no, np.array([0.5]), gamma=0.5)
    array([3., 8.])
    """
    sizes = bind(
        "td0", SIGNATURE, values=values, states=states, rewards=rewards, next_states=next_states,
        terminated=terminated, rates=rates,
    )  # fmt: skip
    xp = check_steps("td0", gamma, rates, sizes, states=states, next_states=next_states)
    v = xp.asarray(values, copy=True)
    for k in range(sizes["k"]):
        later = xp.take(v, next_states[k, :], axis=0)
        target = worth(xp, rewards[k, :], later, terminated[k, :], gamma)
        v = toward(xp, v, states[k, :], target, rates[k])
    return v
