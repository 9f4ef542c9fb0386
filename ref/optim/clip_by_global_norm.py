"""Clipping gradients by their global norm.

Source: Pascanu et al. 2013 (1211.5063) Algorithm 1, with one norm over all parameters.

    n = sqrt(sum_i |g_i|^2)           over every entry of every gradient
    g_i <- g_i min(1, c / (n + eps))

Notation
    g_i -> grads[i], c -> max_norm, n -> the second result.

Conventions
    C1  eps = 0. torch adds 1e-6, which shrinks small gradients when c is small too; optax adds nothing.
    C2  Where n + eps <= c every bit stays. c = inf measures and clips nothing.
    C3  Squares are taken of g / max |g|, so n is right where g^2 overflows or vanishes.
    C4  n is of the gradients as they came, before clipping.

Laws
    L1 one_entry_is_clamped                  L2 the_norm_is_pythagorean
    L3 below_the_limit_every_bit_stays       L4 the_norm_becomes_the_smaller
    L5 direction_is_kept                     L6 clipping_twice_is_clipping_once
    L7 cutting_the_list_is_immaterial        L8 zeros_stay_zeros
    L9 squares_may_overflow_or_vanish        L10 eps_is_added_to_the_norm
"""

from __future__ import annotations

from autodiff import namespace
from ref.optim.sgd import check_finite, check_numbers
from ref.spec import bind, spec


@spec("optim.clip_by_global_norm", "grads:tree, max_norm:tree -> grads:tree, norm[]")
def clip_by_global_norm(grads, max_norm, *, eps=0.0):
    """Scale a list of gradients so that their common norm is at most max_norm.

    Parameters
    ----------
    grads : list of float arrays
        Of any shapes, at least one.
    max_norm : float
        Greater than 0; infinity only measures.
    eps : float
        Added to the norm (C1), at least 0.

    Returns
    -------
    (list of float arrays, float[])
        The clipped gradients, and the norm before clipping.

    Raises
    ------
    ValueError
        No gradients, max_norm not greater than 0, eps < 0, or a gradient that is not finite (the message says
        which).
    TypeError
        A gradient is not a float array, or dtypes or backends differ.

    Complexity: three passes over the gradients.

    >>> import numpy as np
    >>> grads, norm = clip_by_global_norm([np.array([3.0]), np.array([4.0])], 2.5)
    >>> grads, float(norm)
    ([array([1.5]), array([2.])], 5.0)
    """
    grads = _check(grads, max_norm, eps)
    xp = namespace(*grads)
    top = _largest(xp, grads)
    unit = xp.where(top == 0, 1.0, top)
    norm = unit * xp.sqrt(sum(xp.sum((g / unit) ** 2) for g in grads))
    over = norm + eps > max_norm
    factor = xp.where(over, max_norm / xp.where(over, norm + eps, 1.0), 1.0) if max_norm < float("inf") else 1.0
    return [g * factor for g in grads], norm


def _largest(xp, grads):
    """max |g| over all entries, 0 where there are none."""
    tops = [xp.max(xp.abs(g)) for g in grads if 0 not in g.shape]
    return xp.max(xp.stack(tops)) if tops else xp.sum(grads[0])


def _check(grads, max_norm, eps):
    function = "clip_by_global_norm"
    grads = list(grads)
    if not grads:
        raise ValueError(f"{function}: grads is empty; needed at least one gradient")
    names = [f"g{i}" for i in range(len(grads))]
    bind(function, ", ".join(f"{n}[*N{n}]" for n in names), **dict(zip(names, grads, strict=True)))
    if not max_norm > 0:
        raise ValueError(f"{function}: max_norm={max_norm}; needed a number > 0")
    check_numbers(function, eps=eps)
    for i, g in enumerate(grads):
        check_finite(function, f"grads[{i}]", g)
    return grads
