"""Greedy and epsilon-greedy policies.

Source: Sutton & Barto 2018, sec. 2.2 and 5.4; Zhao 2025, Mathematical Foundations of Reinforcement Learning, sec. 5.4;
Singh & Yee 1994 for the loss of a greedy policy.

    pi(a | s) = 1 - eps (A - 1) / A   for the first best action,   eps / A for each other

    v greedy for v_hat loses at most 2 gamma e / (1 - gamma), e = max |v_hat - v*|

Notation
    q -> q[*B A], eps -> epsilon; pi -> the result [*B A].

Conventions
    C1  Exploring draws from all A actions, the best one too, so that this has the chance 1 - eps + eps / A. Programs
        that explore among the others alone (1 - eps and eps / (A - 1)) are A / (A - 1) times as curious.
    C2  Of equally good actions the first is the best one (argmax); none shares.
    C3  eps = 0 is the greedy policy, eps = 1 the uniform one.

Laws
    L1 shares_in_closed_form                 L2 order_alone_decides
    L3 loss_of_a_greedy_policy               L4 improves_every_soft_policy
"""

from __future__ import annotations

from autodiff import namespace
from ref.spec import bind, spec

SIGNATURE = "q[*B A] -> [*B A]"


@spec("mdp.epsilon_greedy", SIGNATURE)
def epsilon_greedy(q, epsilon=0.0):
    """The policy that is greedy but for a share epsilon of uniform draws.

    Parameters
    ----------
    q : float[*B A]
        Action values.
    epsilon : float
        0 <= epsilon <= 1.

    Returns
    -------
    float[*B A]

    Raises
    ------
    ValueError
        No action, or epsilon out of range.
    TypeError
        q is not float.

    Complexity: B A.

    >>> import numpy as np
    >>> epsilon_greedy(np.array([[1.0, 3.0], [2.0, 2.0]]), 0.5)
    array([[0.25, 0.75],
           [0.75, 0.25]])
    """
    A = bind("epsilon_greedy", SIGNATURE, q=q)["A"]
    if not A:
        raise ValueError("epsilon_greedy: q has A=0 actions; needed at least one")
    if not 0 <= epsilon <= 1:
        raise ValueError(f"epsilon_greedy: epsilon={epsilon}; needed 0 <= epsilon <= 1")
    xp = namespace(q)
    best = xp.arange(A) == xp.argmax(q, axis=-1, keepdims=True)
    return xp.where(best, xp.asarray(1 - epsilon + epsilon / A, dtype=q.dtype), xp.asarray(epsilon / A, dtype=q.dtype))
