"""Explicit score matching: the Fisher divergence, where the score is known.

Source: Hyvarinen 2005 (JMLR 6:695) Eq. 2.

    J = E_p[ |s(x) - grad ln p(x)|^2 / 2 ]

Notation
    grad ln p(x) -> target; the term of each sample -> the result.

Conventions
    C1  A half, and the sum over the d entries: what all forms of score matching share, so that they differ by
        constants.
    C2  One number a sample; the loss is their mean.

Laws
    L1 half_the_square_of_an_error           L2 fisher_divergence_of_gaussians
    L3 gradient_by_the_jacobian
"""

from __future__ import annotations

from autodiff import namespace
from ref.diffusion.run_stages import check_shape
from ref.spec import bind, spec

SIGNATURE = "x[*B d], target[*B d] -> [*B]"


@spec("diffusion.explicit_score_matching", SIGNATURE, grads=("x", "target"))
def explicit_score_matching(x, target, *, score):
    """The term of each sample.

    Parameters
    ----------
    x, target : float[*B d]
        Samples, and the true score there.
    score : callable
        s, from float[*B d] to float[*B d].

    Returns
    -------
    float[*B]

    Raises
    ------
    ValueError
        Shapes that differ, the score's included.
    TypeError
        An array is not float, or dtypes or backends differ.

    Complexity: one call of the score.

    >>> import numpy as np
    >>> explicit_score_matching(np.zeros((1, 2)), np.array([[3.0, 4.0]]), score=lambda x: -x)
    array([12.5])
    """
    bind("explicit_score_matching", SIGNATURE, x=x, target=target)
    s = score(x)
    check_shape("explicit_score_matching", "the score", s, x)
    xp = namespace(s, target)
    off = xp.subtract(s, target)
    return xp.sum(off * off, axis=-1) / 2
