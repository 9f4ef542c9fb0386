"""Implicit score matching: the Fisher divergence without the score, by parts.

Source: Hyvarinen 2005 (JMLR 6:695) Theorem 1, Eq. 4.

    J = E_p[ |s(x)|^2 / 2 + tr grad s(x) ]    =    E_p[ |s - grad ln p|^2 / 2 ] - E_p[ |grad ln p|^2 / 2 ]

Notation
    the term of each sample -> the result.

Conventions
    C1  It can be negative: it lacks the constant E |grad ln p|^2 / 2.
    C2  The trace is exact: d backward passes (`diffusion.divergence`), through which the loss is differentiated again.

Laws
    L1 linear_score_in_closed_form           L2 least_at_the_mean_and_the_biased_covariance
    L3 a_nonlinear_net_by_its_jacobian       L4 gradient_through_the_trace
"""

from __future__ import annotations

from autodiff import namespace
from ref.diffusion.divergence import divergence
from ref.spec import spec


@spec("diffusion.implicit_score_matching", "x[*B d] -> [*B]", grads=("x",))
def implicit_score_matching(x, *, score):
    """The term of each sample.

    Parameters
    ----------
    x : float[*B d]
    score : callable
        s, from float[*B d] to float[*B d], each sample alone.

    Returns
    -------
    float[*B]

    Raises
    ------
    ValueError
        The score has another shape than x.
    TypeError
        x is not a float array.

    Complexity: one call of the score and d backward passes.

    >>> import numpy as np
    >>> implicit_score_matching(np.array([[3.0, 4.0]]), score=lambda x: -x)
    array([10.5])
    """
    s, trace = divergence(x, field=score, name="implicit_score_matching")
    return namespace(s).sum(s * s, axis=-1) / 2 + trace
