"""MC Basic: policy iteration whose evaluation is an average over episodes from every state and action.

Source: Zhao 2025, Mathematical Foundations of Reinforcement Learning, sec. 5.2, Algorithm 5.1.

    q_k(s, a) = mean over n episodes of T steps that start with (s, a) and follow pi_k of  sum_{i < T} gamma^i r_i
    pi_{k+1} = greedy(q_k)

    over all episodes: q_k = R + gamma P T_{pi_k}^{T-1} 0, evaluation truncated at T steps and begun at 0

Notation
    P -> P[S A S], R -> R[S A], pi_1 -> policy[S A]; noise[k S A n T], for the outcomes; the results are the last q and
    the policy that is greedy for it.

Conventions
    C1  An episode has T steps. States from which the reward lies further than T steps away are worth 0: values spread
        from the target as T grows, which is the book's lesson on the length of episodes.
    C2  A deterministic policy needs no noise for its actions; a stochastic first policy is an error.
    C3  Of equally good actions the first is taken.

Laws
    L1 truncated_evaluation_of_sure_models   L2 mean_over_all_outcomes
    L3 rounds_are_truncated_policy_iteration L4 sees_as_far_as_an_episode_is_long
"""

from __future__ import annotations

import numpy as np

from ref.mdp.discounted_returns import discounted_returns
from ref.mdp.epsilon_greedy import epsilon_greedy
from ref.mdp.model import check_gamma, check_model, check_rows, first
from ref.mdp.rollout import rollout
from ref.spec import bind, spec

SIGNATURE = "P[S A S], R[S A], policy[S A], noise[k S A n T] -> q[S A], greedy[S A]"


@spec("mdp.mc_basic", SIGNATURE, backends=("numpy",))
def mc_basic(P, R, policy, noise, *, gamma):
    """Action values and a policy after k rounds of episodes from everywhere.

    Parameters
    ----------
    P : float[S A S]
        Chances, used to draw outcomes alone.
    R : float[S A]
        Expected rewards.
    policy : float[S A]
        The first policy, one 1 a row.
    noise : float[k S A n T]
        Uniform on [0, 1); k, n and T at least 1.
    gamma : float
        Discount, 0 <= gamma <= 1.

    Returns
    -------
    q : float[S A]
    greedy : float[S A]

    Raises
    ------
    ValueError
        Axes disagree, a row of P is no distribution, a row of the policy is not deterministic, noise outside [0, 1),
        no round, episode or step, gamma out of range.
    TypeError
        An array is not float, or dtypes differ.

    Complexity: k S A n T (S + A).

    >>> import numpy as np
    >>> P, R = np.ones((1, 2, 1)), np.array([[0.0, 4.0]])
    >>> mc_basic(P, R, np.array([[1.0, 0.0]]), np.zeros((2, 1, 2, 1, 3)), gamma=0.5)
    (array([[3., 7.]]), array([[0., 1.]]))
    """
    sizes = bind("mc_basic", SIGNATURE, P=P, R=R, policy=policy, noise=noise)
    S, A, n, T = (sizes[x] for x in "SAnT")
    check_model("mc_basic", P, R)
    check_rows("mc_basic", "policy", policy)
    check_gamma("mc_basic", gamma)
    at = first(np, policy.max(1) != 1)
    if at:
        raise ValueError(f"mc_basic: policy at s = {at[0]} is {policy[at].tolist()}; needed one action of chance 1")
    if not (sizes["k"] and n and T):
        raise ValueError(f"mc_basic: noise has k={sizes['k']}, n={n}, T={T}; needed at least one of each")
    s, a = (np.repeat(x.reshape(-1), n) for x in np.indices((S, A)))
    for each in noise:
        outcome = each.reshape(S * A * n, T)
        steps = rollout(P, R, policy, s, np.stack([np.zeros_like(outcome), outcome], axis=-1), first_actions=a)
        returns = discounted_returns(steps[2], gamma=gamma)[:, 0]
        q = returns.reshape(S, A, n).mean(axis=-1)
        policy = epsilon_greedy(q)
    return q, policy
