"""Reward shaping by a potential: other rewards, the same best policies.

Source: Ng, Harada & Russell 1999, Theorem 1; Grzes 2017 for ends.

    R'(s, a) = R(s, a) + gamma sum_t P(t | s, a) phi(t) - phi(s)

    q'_pi = q_pi - phi,   v'_pi = v_pi - phi for every policy: which action is best does not change

Notation
    P -> P[S A S], R -> R[S A], phi -> phi[S]; R' -> the result [S A].

Conventions
    C1  gamma is the discount of the task. Without it in front of phi(t), walking in a circle earns something.
    C2  An absorbing state gets R' = (gamma - 1) phi(s) for ever, which is worth -phi(s): the theorem holds there too.
        A program that stops at the end never pays that; it must take phi = 0 at every end (Grzes 2017), or it rewards
        ending where phi is high. At gamma = 1 the two agree, R' = 0, and v' = v - phi + E phi(end).

Laws
    L1 difference_by_loops                   L2 values_fall_by_the_potential
    L3 best_policies_stay                    L4 a_trip_earns_its_ends_alone
"""

from __future__ import annotations

from autodiff import namespace
from ref.mdp.model import check_gamma, check_model
from ref.spec import bind, spec

SIGNATURE = "P[S A S], R[S A], phi[S] -> [S A]"


@spec("mdp.potential_shaping", SIGNATURE)
def potential_shaping(P, R, phi, *, gamma):
    """The shaped rewards.

    Parameters
    ----------
    P : float[S A S]
        Chances; rows sum to 1.
    R : float[S A]
        Expected rewards.
    phi : float[S]
        Potential of the states.
    gamma : float
        Discount of the task, 0 <= gamma <= 1.

    Returns
    -------
    float[S A]

    Raises
    ------
    ValueError
        Axes disagree, a row of P is no distribution or a reward is not finite (names (s, a)), gamma out of range.
    TypeError
        An array is not float, or dtypes or backends differ.

    Complexity: S^2 A multiply-adds.

    >>> import numpy as np
    >>> P, R = np.array([[[0.0, 1.0]], [[0.0, 1.0]]]), np.zeros((2, 1))
    >>> potential_shaping(P, R, np.array([2.0, 8.0]), gamma=0.5)
    array([[ 2.],
           [-4.]])
    """
    bind("potential_shaping", SIGNATURE, P=P, R=R, phi=phi)
    check_model("potential_shaping", P, R)
    check_gamma("potential_shaping", gamma)
    xp = namespace(P, R, phi)
    return R + (gamma * xp.matmul(P, phi) - phi[:, None])
