"""Long to short: from many answers to a prompt, the shortest right one, and those it is to be preferred to.

Source: Kimi k1.5 (2501.12599) sec. 2.4: shortest rejection sampling, and pairs for DPO.

    chosen    the shortest right answer of the prompt (the first of several)
    rejected  every wrong answer that is longer, and every right one at least `ratio` times as long as the chosen

Conventions
    C1  ratio 1.5 (the paper's). A prompt without a right answer has chosen -1 and no pair.
    C2  A wrong answer that is not longer is no negative: the pairs are to teach length.

Laws
    L1 by_sorting_the_right_ones            L2 pairs_prefer_short_and_right
"""

from __future__ import annotations

from autodiff import namespace
from ref.spec import bind, spec

SIGNATURE = "lengths:int[P n], correct:bool[P n] -> chosen:int[P], rejected:bool[P n]"


@spec("rl.long2short", SIGNATURE)
def long2short(lengths, correct, *, ratio=1.5):
    """The chosen answer of each prompt, and which are its negatives.

    Parameters
    ----------
    lengths : int[P n]
    correct : bool[P n]
    ratio : float
        How much longer a right answer must be to be rejected, above 1.

    Returns
    -------
    chosen : int[P]
        -1 without a right answer.
    rejected : bool[P n]

    Raises
    ------
    ValueError
        Shapes that differ, n < 1, a negative length, or ratio <= 1.
    TypeError
        lengths is not int or correct not bool.

    Complexity: P n comparisons.

    >>> import numpy as np
    >>> long2short(np.array([[30, 10, 14, 15, 12]]), np.array([[True, True, True, True, False]]))
    (array([1]), array([[ True, False, False,  True,  True]]))
    """
    n = bind("long2short", SIGNATURE, lengths=lengths, correct=correct)["n"]
    xp = namespace(lengths, correct)
    if n < 1 or not ratio > 1 or bool(xp.any(lengths < 0)):
        raise ValueError(f"long2short: n={n}, ratio={ratio}, lengths {lengths}; needed n >= 1, ratio > 1, lengths >= 0")
    beyond = xp.max(lengths) + 1 if lengths.shape[0] else 1
    least = xp.where(correct, lengths, xp.asarray(beyond, dtype=lengths.dtype))
    some = xp.any(correct, axis=1)
    chosen = xp.where(some, xp.argmin(least, axis=1), -1)
    shortest = xp.min(least, axis=1, keepdims=True)
    long = xp.astype(lengths, xp.float64) >= ratio * xp.astype(shortest, xp.float64)
    rejected = some[:, None] & xp.where(correct, long & (lengths > shortest), lengths > shortest)
    return chosen, rejected
