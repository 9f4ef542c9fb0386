"""Running moments: count, mean and variance of all that was ever seen, a batch at a time.

Source: Chan, Golub & LeVeque 1979, Eq. 2.1 (pairwise update); Welford 1962 for batches of one; as PPO-max (2307.04964)
scales rewards by what it has seen.

    n = n_a + n_b,   d = mean_b - mean_a
    mean = mean_a + d n_b / n
    M2 = M2_a + M2_b + d^2 n_a n_b / n           M2 = sum of squares about the mean; variance M2 / (n - ddof)

Conventions
    C1  Whatever the batches, the result is that of all values at once: ranks and micro-batches merge by one formula.
    C2  Sums of squares about the mean, never E x^2 - (E x)^2: of a large mean nothing would be left.
    C3  A masked place does not count and may hold anything, NaN too; a batch without a kept place changes nothing.

Laws
    L1 moments_in_fractions                 L2 any_split_is_the_whole
    L3 a_large_mean_keeps_the_digits        L4 nothing_kept_changes_nothing
"""

from __future__ import annotations

from typing import Any, NamedTuple

from autodiff import namespace
from ref.spec import bind, spec

SIGNATURE = "x[*B], mask:bool[*B]"


class Moments(NamedTuple):
    """count, mean and m2 = sum of squares about the mean, arrays without axes."""

    count: Any
    mean: Any
    m2: Any


@spec("rl.running_moments", f"{SIGNATURE}, state:tree -> state:tree")
def running_moments(x, mask, state):
    """The moments with one more batch in them.

    Parameters
    ----------
    x : float[*B]
    mask : bool[*B]
        Numbers that count.
    state : Moments
        Of what was seen before; Moments(0, 0, 0) at first.

    Returns
    -------
    Moments

    Raises
    ------
    ValueError
        Shapes that differ, or a negative count or m2.
    TypeError
        x is not float or mask not bool.

    Complexity: B operations.

    >>> import numpy as np
    >>> zero = np.zeros(())
    >>> state = running_moments(np.array([1.0, 3.0]), np.array([True, True]), Moments(zero, zero, zero))
    >>> [float(x) for x in running_moments(np.array([5.0]), np.array([True]), state)]
    [3.0, 3.0, 8.0]
    """
    bind("running_moments", SIGNATURE, x=x, mask=mask)
    if not (bool(state[0] >= 0) and bool(state[2] >= 0)):
        raise ValueError(f"running_moments: state has count {state[0]} and m2 {state[2]}; needed both >= 0")
    xp = namespace(x, mask)
    return merge(xp, Moments(*state), moments_of(xp, xp.where(mask, x, 0.0), mask))


def moments_of(xp, kept, mask):
    """Moments of one batch, whose masked places are 0."""
    count = xp.astype(xp.count_nonzero(mask), kept.dtype)
    mean = xp.sum(kept) / xp.where(count > 0, count, 1.0)
    return Moments(count, mean, xp.sum(xp.where(mask, (kept - mean) ** 2, 0.0)))


def merge(xp, a, b):
    """Moments of both together."""
    count = a.count + b.count
    share = b.count / xp.where(count > 0, count, 1.0)
    gap = b.mean - a.mean
    return Moments(count, a.mean + gap * share, a.m2 + b.m2 + gap * gap * a.count * share)
