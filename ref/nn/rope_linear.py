"""Rotary frequencies, scaled linearly (position interpolation).

Source: Chen et al. 2023 (2306.15595) Eq. 3; kaiokendev 2023 ("SuperHOT").

    theta_i <- theta_i / s,    s = L' / L

A context of L' = s L tokens then turns each pair as far as L tokens did in training; neighbours lie s times closer.

Notation
    theta[n], n = d / 2 pairs; s -> factor; L, L' tokens in training and now.

Conventions
    C1  The paper divides positions, Hugging Face (`rope_type: linear`) frequencies: the same angles.

Laws
    L1 every_angle_is_a_fraction            L2 stretched_positions_meet_the_old_angles
"""

from __future__ import annotations

from ref.spec import bind, spec


@spec("nn.rope_linear", "theta[n] -> [n]")
def rope_linear(theta, *, factor):
    """Frequencies for a context `factor` times as long.

    Parameters
    ----------
    theta : float[n]
        Frequencies, of d = 2 n channels.
    factor : float
        At least 1.

    Returns
    -------
    float[n]

    Raises
    ------
    ValueError
        theta has not one axis, or factor < 1.
    TypeError
        theta is not float.

    Complexity: n operations.

    >>> import numpy as np
    >>> rope_linear(np.array([1.0, 0.01]), factor=4.0)
    array([0.25  , 0.0025])
    """
    bind("rope_linear", "theta[n]", theta=theta)
    check_factor("rope_linear", factor)
    return theta / factor


def check_factor(function, factor):
    """Refuse a factor that shortens the context."""
    if not factor >= 1:
        raise ValueError(f"{function}: factor={factor}; needed at least 1")
