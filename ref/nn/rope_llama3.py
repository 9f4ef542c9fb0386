"""Rotary frequencies of Llama 3.1.

Source: `apply_scaling` of Meta's llama-models, Llama 3.1; Hugging Face (`rope_type: llama3`). Grattafiori et al. 2024
(2407.21783) tell of the raised base alone.

    gamma_i = clip((L / lambda_i - low) / (high - low), 0, 1),     lambda_i = 2 pi / theta_i, tokens a turn
    theta_i <- (1 - gamma_i) theta_i / s + gamma_i theta_i

A pair that turns more than `high` times in L tokens keeps its frequency, one that turns less than `low` times is
divided by s. It is YaRN's ramp over rotations with other ends, and no attention factor.

Notation
    theta[n], n = d / 2 pairs; s -> factor; L -> trained_length; low, high -> low_rotations, high_rotations.

Conventions
    C1  The config calls the ends low_freq_factor and high_freq_factor, and L original_max_position_embeddings.

Laws
    L1 short_waves_stay_long_ones_are_divided   L2 between_them_a_line_in_rotations
"""

from __future__ import annotations

from autodiff import namespace
from ref.nn.rope_linear import check_factor
from ref.nn.rope_yarn import by_parts, rotations_ramp
from ref.spec import bind, spec


@spec("nn.rope_llama3", "theta[n] -> [n]")
def rope_llama3(theta, *, factor=8.0, trained_length=8192, low_rotations=1.0, high_rotations=4.0):
    """Frequencies for a context `factor` times as long.

    Parameters
    ----------
    theta : float[n]
        Frequencies, of d = 2 n channels.
    factor : float
        At least 1.
    trained_length : int
        Tokens before the context was stretched.
    low_rotations, high_rotations : float
        Rotations in that many tokens up to which a pair is interpolated, and from which it stays.

    Returns
    -------
    float[n]

    Raises
    ------
    ValueError
        theta has not one axis, factor < 1, trained_length < 1, or not high_rotations > low_rotations > 0.
    TypeError
        theta is not float.

    Complexity: 8 n operations.

    >>> import numpy as np
    >>> rope_llama3(np.array([1.0, 1e-4]))
    array([1.00e+00, 1.25e-05])
    """
    bind("rope_llama3", "theta[n]", theta=theta)
    check_factor("rope_llama3", factor)
    if not trained_length >= 1:
        raise ValueError(f"rope_llama3: trained_length={trained_length}; needed at least 1")
    if not high_rotations > low_rotations > 0:
        raise ValueError(
            f"rope_llama3: high_rotations={high_rotations}, low_rotations={low_rotations}; needed high > low > 0"
        )
    xp = namespace(theta)
    return by_parts(theta, factor, rotations_ramp(xp, theta, trained_length, low_rotations, high_rotations))
