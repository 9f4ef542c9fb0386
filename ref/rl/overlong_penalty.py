"""Soft overlong punishment: a response is fined as it nears the longest length allowed.

Source: Yu et al. 2025 (2503.14476, DAPO) Eq. 13.

    0                              L <= L_max - L_cache
    ((L_max - L_cache) - L) / L_cache   between
    -1                             L > L_max

Conventions
    C1  The fine is added to the reward. It is continuous: 0 at L_max - L_cache, -1 at L_max.
    C2  The paper's: L_max 20480, L_cache 4096.

Laws
    L1 three_pieces_in_fractions            L2 continuous_and_falling
"""

from __future__ import annotations

from autodiff import namespace
from ref.spec import bind, spec

SIGNATURE = "lengths:int[*B] -> [*B]"


@spec("rl.overlong_penalty", SIGNATURE)
def overlong_penalty(lengths, *, longest=20480, cache=4096):
    """The fine of each response.

    Parameters
    ----------
    lengths : int[*B]
    longest, cache : int
        L_max and L_cache, 0 < cache <= longest.

    Returns
    -------
    float64[*B]

    Raises
    ------
    ValueError
        0 < cache <= longest violated, or a negative length.
    TypeError
        lengths is not int.

    Complexity: B operations.

    >>> import numpy as np
    >>> overlong_penalty(np.array([6, 9, 11]), longest=10, cache=4)
    array([ 0.  , -0.75, -1.  ])
    """
    bind("overlong_penalty", SIGNATURE, lengths=lengths)
    xp = namespace(lengths)
    if not 0 < cache <= longest or bool(xp.any(lengths < 0)):
        raise ValueError(
            f"overlong_penalty: longest={longest}, cache={cache} and lengths {lengths}; needed 0 < cache <= "
            "longest and lengths >= 0")  # fmt: skip
    return xp.clip((longest - cache - xp.astype(lengths, xp.float64)) / cache, -1.0, 0.0)
