"""Denoising score matching: the score of the noised density, learned from the noise that was added.

Source: Vincent 2011 (Neural Comp. 23:1661) Eq. 9; Song & Ermon 2019 (1907.05600) Eq. 5-6 for the weight.

    J = E_{x, z}[ w |s(x + b z, b) + z / b|^2 / 2 ],   w = 1, or b^2

    w = 1: J = E |s - grad ln q_b|^2 / 2 + a constant,  q_b the density of x + b z

Notation
    b -> std, one a sample; z -> noise; the term of each sample -> the result.

Conventions
    C1  weighting "none" is Vincent's; "variance" is NCSN's lambda(b) = b^2, under which all levels weigh alike: the
        term is |b s + z|^2 / 2.
    C2  The score gets the noised sample and std. At its best it is that of the noised density, never of the clean one.

Laws
    L1 the_score_of_the_kernel_loses_nothing L2 constant_away_from_explicit
    L3 best_linear_score                     L4 weighting_by_the_variance
"""

from __future__ import annotations

from autodiff import namespace
from ref.diffusion.convert import spread
from ref.diffusion.run_stages import check_shape
from ref.spec import bind, spec

WEIGHTINGS = ("none", "variance")
SIGNATURE = "x[*B d], noise[*B d], std[*B] -> [*B]"


@spec("diffusion.denoising_score_matching", SIGNATURE)
def denoising_score_matching(x, noise, std, *, score, weighting="none"):
    """The term of each sample.

    Parameters
    ----------
    x, noise : float[*B d]
        Clean samples, and standard normal noise.
    std : float[*B]
        b, positive.
    score : callable
        score(x + b z, std) -> float[*B d].
    weighting : "none" or "variance"

    Returns
    -------
    float[*B]

    Raises
    ------
    ValueError
        Shapes that differ, the score's included, an unknown weighting, or a std that is not positive.
    TypeError
        An array is not float, or dtypes or backends differ.

    Complexity: one call of the score.

    >>> import numpy as np
    >>> denoising_score_matching(np.zeros((1, 1)), np.ones((1, 1)), np.array([0.5]), score=lambda x, b: -x)
    array([1.125])
    """
    bind("denoising_score_matching", SIGNATURE, x=x, noise=noise, std=std)
    if weighting not in WEIGHTINGS:
        raise ValueError(f"denoising_score_matching: weighting={weighting!r}; needed one of {WEIGHTINGS}")
    if not bool(namespace(std).all(std > 0)):
        raise ValueError("denoising_score_matching: std has a number that is not positive; needed all > 0")
    b = spread(std, x, "denoising_score_matching: std")
    s = score(x + noise * b, std)
    check_shape("denoising_score_matching", "the score", s, x)
    off = s * b + noise
    total = namespace(off).sum(off * off, axis=-1) / 2
    return total if weighting == "variance" else total / (std * std)
