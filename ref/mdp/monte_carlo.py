"""Monte Carlo prediction, by first visits or by every visit.

Source: Sutton & Barto 2018, sec. 5.1; Singh & Sutton 1996 for the bias; Zhao 2025, Mathematical Foundations of
Reinforcement Learning, sec. 5.3.

    V(s) = mean of the returns that followed visits to s: the first one of each episode, or every one

    first visits are unbiased; every visit of a single episode of the chain that stays with chance p, reward 1 and
    gamma = 1, has the mean (V + 1) / 2

Notation
    states[n T], rewards[n T], lengths[n]: n episodes, of which the first lengths[i] steps count; V -> values[S], the
    number of returns -> counts[S].

Conventions
    C1  A return runs to the episode's end; an episode that was cut is taken for one that ended (`lambda_return` is for
        those).
    C2  A state that was never visited has the value 0 and the count 0.

Laws
    L1 mean_of_direct_sums                   L2 bias_on_the_chain_that_stays
    L3 what_lies_behind_the_end_is_invisible L4 without_return_the_two_agree
"""

from __future__ import annotations

import numpy as np

from ref.mdp.discounted_returns import discounted_returns
from ref.mdp.model import check_count, check_gamma
from ref.mdp.rollout import check_indices
from ref.spec import bind, spec

SIGNATURE = "states:int[n T], rewards[n T], lengths:int[n] -> values:tree, counts:tree"


@spec("mdp.monte_carlo", SIGNATURE, backends=("numpy",))
def monte_carlo(states, rewards, lengths, *, num_states, gamma, visit="first"):
    """Values of a policy, from its episodes alone.

    Parameters
    ----------
    states : int[n T]
        State at each step.
    rewards : float[n T]
        Of each step.
    lengths : int[n]
        Steps of each episode, 0 .. T; what follows is not read.
    num_states : int
        S.
    gamma : float
        Discount, 0 <= gamma <= 1.
    visit : "first" or "every"

    Returns
    -------
    values : float[S]
    counts : int[S]

    Raises
    ------
    ValueError
        Axes disagree, a length or a state out of range, gamma out of range, another word for visit.
    TypeError
        An array of another kind, or num_states is no integer.

    Complexity: n T for every visit, n T^2 for first ones.

    >>> import numpy as np
    >>> stays = np.zeros((1, 3), int), np.ones((1, 3)), np.array([3])
    >>> [monte_carlo(*stays, num_states=1, gamma=1.0, visit=v)[0][0] for v in ("first", "every")]
    [np.float64(3.0), np.float64(2.0)]
    """
    T = bind("monte_carlo", SIGNATURE, states=states, rewards=rewards, lengths=lengths)["T"]
    check_count("monte_carlo", 1, num_states=num_states)
    check_gamma("monte_carlo", gamma)
    check_visit("monte_carlo", visit)
    check_indices("monte_carlo", "lengths", lengths, T + 1)
    counted = np.arange(T) < lengths[:, None]
    check_indices("monte_carlo", "states", states[counted], num_states)
    returns = discounted_returns(np.where(counted, rewards, 0), gamma=gamma)
    if visit == "first":
        counted &= first_visits(np.where(counted, states, -1))
    return means(states[counted], returns[counted], num_states)


def check_visit(function, visit):
    if visit not in ("first", "every"):
        raise ValueError(f"{function}: visit={visit!r}; needed 'first' or 'every'")


def first_visits(index):
    """bool[n T]: no earlier step of the row has the same number."""
    same = index[:, :, None] == index[:, None, :]
    return ~np.any(same & np.tri(index.shape[1], k=-1, dtype=bool), axis=2)


def means(index, values, size):
    """(mean of the values by index, 0 where there is none; how many there are)."""
    counts = np.bincount(index, minlength=size)
    total = np.bincount(index, values, minlength=size)
    return (total / np.maximum(counts, 1)).astype(values.dtype), counts
