"""Monte Carlo control with epsilon-greedy policies.

Source: Sutton & Barto 2018, sec. 5.4; Zhao 2025, Mathematical Foundations of Reinforcement Learning, sec. 5.4,
Algorithm 5.3.

    round k: n episodes of the policy that is eps-greedy for q;   q(s, a) = mean of the returns that followed (s, a)

    the limit is the best eps-soft policy, v_eps <= v*, which is greedy for its own q; it is not v* for eps > 0

Notation
    P -> P[S A S], R -> R[S A], q -> q[S A], eps -> epsilon; start[k n], noise[k n T 2]; the results are q and the
    number of returns counts[S A].

Conventions
    C1  n = 1 is the book's algorithm: the policy changes after each episode. More episodes a round weigh alike.
    C2  By default returns of older policies stay in the mean; with `forget` a round replaces what it meets, and many
        episodes a round are then policy iteration over eps-soft policies.
    C3  Episodes have T steps, and what lies beyond is not counted.

Laws
    L1 soft_policy_iteration_by_enumeration  L2 limit_is_the_soft_optimum
    L3 means_by_hand                         L4 rounds_of_one_forget_nothing
"""

from __future__ import annotations

from ref.mdp.control import improve
from ref.mdp.model import check_gamma, check_model
from ref.mdp.monte_carlo import check_visit
from ref.spec import bind, spec

SIGNATURE = "P[S A S], R[S A], q[S A], start:int[k n], noise[k n T 2] -> q[S A], counts:int[S A]"


@spec("mdp.mc_epsilon_greedy", SIGNATURE, backends=("numpy",))
def mc_epsilon_greedy(P, R, q, start, noise, *, gamma, epsilon, visit="first", forget=False):
    """Action values after k rounds of n episodes.

    Parameters
    ----------
    P : float[S A S]
        Chances, used to draw outcomes alone.
    R : float[S A]
        Expected rewards.
    q : float[S A]
        What the first policy is eps-greedy for.
    start : int[k n]
        First states.
    noise : float[k n T 2]
        Uniform on [0, 1).
    gamma : float
        Discount, 0 <= gamma <= 1.
    epsilon : float
        0 <= epsilon <= 1.
    visit : "first" or "every"
    forget : bool
        Returns of earlier rounds are dropped where a round brings new ones.

    Returns
    -------
    q : float[S A]
    counts : int[S A]

    Raises
    ------
    ValueError
        Axes disagree, a row of P is no distribution, noise outside [0, 1), a start that is not there, gamma or epsilon
        out of range, another word for visit.
    TypeError
        An array of another kind, or float dtypes differ.

    Complexity: k n T (S + A + T).

    >>> import numpy as np
    >>> P, R = np.ones((1, 2, 1)), np.array([[0.0, 4.0]])
    >>> noise = np.array([[[[0.1, 0.0]], [[0.9, 0.0]]]])
    >>> mc_epsilon_greedy(P, R, np.zeros((1, 2)), np.zeros((1, 2), int), noise, gamma=0.5, epsilon=0.5)
    (array([[0., 4.]]), array([[1, 1]]))
    """
    bind("mc_epsilon_greedy", SIGNATURE, P=P, R=R, q=q, start=start, noise=noise)
    check_model("mc_epsilon_greedy", P, R)
    check_gamma("mc_epsilon_greedy", gamma)
    check_visit("mc_epsilon_greedy", visit)
    return improve(P, R, q, start, noise, gamma=gamma, epsilon=epsilon, visit=visit, forget=forget)
