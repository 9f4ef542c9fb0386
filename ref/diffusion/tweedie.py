"""Tweedie's formula: the expected clean sample, from the score of the noised density.

Source: Robbins 1956; Efron 2011 (JASA 106:1602) Eq. 1.3; Jolicoeur-Martineau et al. 2021 (2009.05475) sec. 3 and Song
et al. 2021 (2011.13456) App. G for the last step of a sampler.

    x = a x_0 + b z:   E[x_0 | x] = (x + b^2 grad ln p(x)) / a

Notation
    grad ln p(x) -> score; a -> scale, b -> std.

Conventions
    C1  One such step without noise at the end removes the noise that is left: NCSN's samples are noisy by sigma_L
        without it. Scores of a Fid change with it, pictures hardly.
    C2  scale and std have leading axes of x.

Laws
    L1 posterior_mean_of_a_gaussian          L2 two_points_are_a_hyperbolic_tangent
    L3 gradients_are_the_coefficients
"""

from __future__ import annotations

from ref.diffusion.convert import spread
from ref.spec import bind, spec

SIGNATURE = "x[*S], score[*S], scale[*T], std[*T] -> [*S]"


@spec("diffusion.tweedie", SIGNATURE, grads=("x", "score"))
def tweedie(x, score, scale, std):
    """E[x_0 | x].

    Parameters
    ----------
    x, score : float[*S]
        Noised samples and the score of their density there.
    scale, std : float[*T]
        a and b; *T are leading axes of *S. a is not 0.

    Returns
    -------
    float[*S]

    Raises
    ------
    ValueError
        Shapes that disagree.
    TypeError
        An array is not float, or dtypes or backends differ.

    Complexity: 2 multiply-adds an entry.

    >>> import numpy as np
    >>> tweedie(np.array([3.0]), np.array([-1.5]), np.array(1.0), np.array(1.0))
    array([1.5])
    """
    bind("tweedie", SIGNATURE, x=x, score=score, scale=scale, std=std)
    a, b = spread(scale, x, "tweedie: scale"), spread(std, x, "tweedie: std")
    return (x + score * (b * b)) / a
