"""Monte Carlo control with exploring starts.

Source: Sutton & Barto 2018, sec. 5.3; Zhao 2025, Mathematical Foundations of Reinforcement Learning, sec. 5.3,
Algorithm 5.2.

    episode i starts with the given (s_0, a_0), then follows the policy that is greedy for q
    q(s, a) = mean of all returns that followed (s, a) so far, in the first or in every visit of an episode

Notation
    P -> P[S A S], R -> R[S A], q -> q[S A]; starts[n 2] holds (s_0, a_0), noise[n T 2]; the results are q and the
    number of returns counts[S A].

Conventions
    C1  The policy changes after each episode (generalised policy iteration), and returns of older policies stay in the
        mean: it forgets nothing.
    C2  Every (s, a) must start an episode again and again; what is never met keeps the q it had.
    C3  Episodes have T steps, and what lies beyond is not counted.
    C4  First visits by default (Sutton & Barto); the book's efficient use of data is "every".

Laws
    L1 bandit_is_a_sample_mean               L2 means_by_hand
    L3 visits_on_the_state_that_stays        L4 order_of_starts_matters_by_the_policy_alone
"""

from __future__ import annotations

from ref.mdp.control import improve
from ref.mdp.model import check_gamma, check_model
from ref.mdp.monte_carlo import check_visit
from ref.mdp.rollout import check_indices
from ref.spec import bind, spec

SIGNATURE = "P[S A S], R[S A], q[S A], starts:int[n 2], noise[n T 2] -> q[S A], counts:int[S A]"


@spec("mdp.mc_exploring_starts", SIGNATURE, backends=("numpy",))
def mc_exploring_starts(P, R, q, starts, noise, *, gamma, visit="first"):
    """Action values after n episodes with given first states and actions.

    Parameters
    ----------
    P : float[S A S]
        Chances, used to draw outcomes alone.
    R : float[S A]
        Expected rewards.
    q : float[S A]
        What the first policy is greedy for.
    starts : int[n 2]
        First state and first action of each episode.
    noise : float[n T 2]
        Uniform on [0, 1).
    gamma : float
        Discount, 0 <= gamma <= 1.
    visit : "first" or "every"

    Returns
    -------
    q : float[S A]
    counts : int[S A]

    Raises
    ------
    ValueError
        Axes disagree, a row of P is no distribution, noise outside [0, 1), a start that is not there, gamma out of
        range, another word for visit.
    TypeError
        An array of another kind, or float dtypes differ.

    Complexity: n T (S + A + T).

    >>> import numpy as np
    >>> P, R = np.ones((1, 2, 1)), np.array([[0.0, 4.0]])
    >>> mc_exploring_starts(P, R, np.zeros((1, 2)), np.array([[0, 1], [0, 0]]), np.zeros((2, 2, 2)), gamma=0.5)
    (array([[1., 4.]]), array([[2, 2]]))
    """
    name = "mc_exploring_starts"
    sizes = bind(name, SIGNATURE, P=P, R=R, q=q, starts=starts, noise=noise)
    check_model(name, P, R)
    check_gamma(name, gamma)
    check_visit(name, visit)
    check_indices(name, "states of starts", starts[:, 0], sizes["S"])
    check_indices(name, "actions of starts", starts[:, 1], sizes["A"])
    return improve(
        P, R, q, starts[:, None, 0], noise[:, None], gamma=gamma, epsilon=0.0, visit=visit, forget=False,
        first_actions=starts[:, None, 1],
    )  # fmt: skip
