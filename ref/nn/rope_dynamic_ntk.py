"""Rotary frequencies, scaled by a base that grows with the length (dynamic NTK).

Source: bloc97 and emozilla 2023, as Peng et al. 2023 (2309.00071, YaRN) sec. 3.1 Def. 1 and sec. 3.3 give them; the
length's formula: `_compute_dynamic_ntk_parameters` of Hugging Face (`rope_type: dynamic`).

    S = s max(l, L) / L - (s - 1)
    base <- base S^{d / (d - 2)},   which is   theta_i <- theta_i S^{-i / (n - 1)}

The fastest pair stays, the slowest turns S times more slowly, those between on a geometric scale. Up to the trained
length nothing changes.

Notation
    theta[n], n = d / 2 pairs; s -> factor; l -> length, tokens now; L -> trained_length.

Conventions
    C1  YaRN's sec. 3.3 has S = max(1, l / L); that is factor 1. At l = s L Hugging Face's S is s^2 - s + 1, not s.
    C2  A single pair (d = 2) is the fastest and stays; d / (d - 2) is infinite there.
    C3  S depends on the length, so keys that were rotated and cached at another length do not fit, and scores past L
        are no function of the distance alone.

Laws
    L1 nothing_changes_up_to_the_trained_length
    L2 the_fastest_stays_the_slowest_is_divided
    L3 every_pair_is_of_the_new_base
"""

from __future__ import annotations

from autodiff import namespace
from ref.nn.rope_linear import check_factor
from ref.spec import bind, spec


@spec("nn.rope_dynamic_ntk", "theta[n] -> [n]")
def rope_dynamic_ntk(theta, *, length, trained_length, factor=1.0):
    """Frequencies for `length` tokens, of a model that was trained on `trained_length`.

    Parameters
    ----------
    theta : float[n]
        Frequencies base^(-i / n), of d = 2 n channels.
    length, trained_length : int
        Tokens.
    factor : float
        At least 1.

    Returns
    -------
    float[n]

    Raises
    ------
    ValueError
        theta has not one axis, factor < 1, or a length < 1.
    TypeError
        theta is not float.

    Complexity: n powers.

    >>> import numpy as np
    >>> rope_dynamic_ntk(np.array([1.0, 0.01]), length=8192, trained_length=2048)
    array([1.    , 0.0025])
    """
    n = bind("rope_dynamic_ntk", "theta[n]", theta=theta)["n"]
    check_factor("rope_dynamic_ntk", factor)
    if not (length >= 1 and trained_length >= 1):
        raise ValueError(
            f"rope_dynamic_ntk: length={length}, trained_length={trained_length}; both must be at least 1"
        )
    xp = namespace(theta)
    stretch = factor * max(length, trained_length) / trained_length - (factor - 1)
    return theta * stretch ** (xp.arange(n, dtype=theta.dtype) * (-1 / max(n - 1, 1)))
