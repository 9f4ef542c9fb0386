"""Classifier-free guidance: the conditional prediction, pushed away from the unconditional one.

Source: Ho & Salimans 2021 (2207.12598) Eq. 6; Dhariwal & Nichol 2021 (2105.05233) Eq. 14 and Saharia et al. 2022
(2205.11487) Eq. 2 for the scale.

    weight:  m = (1 + w) m_c - w m_u
    scale:   m = m_u + s (m_c - m_u),   s = 1 + w

Notation
    m_c -> conditional, m_u -> unconditional.

Conventions
    C1  Two numbers go by the name of guidance. w = 0 and s = 1 are the conditional model, w = -1 and s = 0 the
        unconditional one. The name is an argument: `convention`.
    C2  It holds for eps, x_0, v and the score alike, all being affine in each other at one x, as long as both
        predictions are of one kind.
    C3  The guided score is that of p(x_t) p(c | x_t)^s at each t; the family over t is not a diffusion of one density.

Laws
    L1 landmarks                             L2 scale_is_weight_plus_one
    L3 a_product_of_gaussians                L4 gradients_are_the_weights
"""

from __future__ import annotations

import math

from ref.spec import bind, spec

CONVENTIONS = ("weight", "scale")
SIGNATURE = "conditional[*S], unconditional[*S] -> [*S]"


@spec("diffusion.guided", SIGNATURE, grads=("conditional", "unconditional"))
def guided(conditional, unconditional, *, strength, convention="weight"):
    """The guided prediction.

    Parameters
    ----------
    conditional, unconditional : float[*S]
        Predictions of one kind at the same x and t.
    strength : float
        w or s.
    convention : "weight" or "scale"
        Which of the two it is.

    Returns
    -------
    float[*S]

    Raises
    ------
    ValueError
        Shapes differ, an unknown convention, or a strength that is not finite.
    TypeError
        An array is not float, or dtypes or backends differ.

    Complexity: 2 multiply-adds an entry.

    >>> import numpy as np
    >>> guided(np.array([2.0]), np.array([1.0]), strength=3.0, convention="scale")
    array([4.])
    """
    bind("guided", SIGNATURE, conditional=conditional, unconditional=unconditional)
    if convention not in CONVENTIONS:
        raise ValueError(f"guided: convention={convention!r}; needed one of {CONVENTIONS}")
    if not math.isfinite(strength):
        raise ValueError(f"guided: strength={strength}; needed a finite number")
    s = 1 + strength if convention == "weight" else strength
    return conditional * s + unconditional * (1 - s)
