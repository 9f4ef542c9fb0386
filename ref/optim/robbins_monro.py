"""Robbins-Monro: the root of a function seen through noise.

Source: Robbins & Monro 1951; Zhao 2025, Mathematical Foundations of Reinforcement Learning, sec. 6.2, Theorem 6.1.

    w_{k+1} = w_k - a_k (g(w_k) + eta_k)

    converges to the root with probability 1 if 0 < c_1 <= g' <= c_2, sum a_k = oo, sum a_k^2 < oo, and the noise has
    mean 0 and a bounded second moment given the past

Notation
    g -> function, w_1 -> start[*B], a_k -> rates[k], eta_k -> noise[*B k], w_{k+1} -> the result at k.

Conventions
    C1  The noise is an argument: a run is a function of it.
    C2  g rises through its root; for one that falls pass -g.
    C3  a_k = 1 / k meets both sums; a constant a violates the second (w stays noisy, its variance a s^2 / (2 - a) for
        g = w - w*), 1 / (k + 1)^2 the first (half of the first error is never made good).
    C4  g(w) = w - x_k with a_k = 1 / k is `incremental_mean`; with g a gradient it is stochastic gradient descent.

Laws
    L1 linear_function_in_closed_form        L2 one_over_k_is_the_sample_mean
    L3 fast_rates_leave_half_of_the_error    L4 variance_over_all_signs
    L5 noise_free_halving_of_a_cubic         L6 the_root_stays
    L7 continues_from_where_it_stopped
"""

from __future__ import annotations

from autodiff import namespace
from ref.spec import bind, spec

SIGNATURE = "start[*B], rates[k], noise[*B k] -> [*B k]"


@spec("optim.robbins_monro", SIGNATURE)
def robbins_monro(start, rates, noise, *, function):
    """The estimates of a root, one a step.

    Parameters
    ----------
    start : float[*B]
    rates : float[k]
    noise : float[*B k]
        Added to what the function says, step by step.
    function : callable
        g, from float[*B] to float[*B].

    Returns
    -------
    float[*B k]
        w_2 .. w_{k+1}.

    Raises
    ------
    ValueError
        Shapes that do not share *B or k, a rate that is not positive and finite, or a function whose result has another
        shape.
    TypeError
        An array is not float, or dtypes or backends differ.

    Complexity: one call of the function and 3 operations a step.

    >>> import numpy as np
    >>> robbins_monro(np.array(0.0), np.array([0.5, 0.5]), np.zeros(2), function=lambda w: w - 8)
    array([4., 6.])
    """
    count = bind("robbins_monro", SIGNATURE, start=start, rates=rates, noise=noise)["k"]
    xp = namespace(start, rates, noise)
    if not bool(xp.all((rates > 0) & xp.isfinite(rates))):
        raise ValueError("robbins_monro: rates hold a number that is not positive and finite; needed all > 0")
    w, found = start, []
    for k in range(count):
        g = function(w)
        if getattr(g, "shape", None) != w.shape:
            raise ValueError(f"robbins_monro: function gave shape {getattr(g, 'shape', None)}; needed {tuple(w.shape)}")
        w = w - rates[k] * (g + noise[..., k])
        found.append(w)
    return xp.stack(found, axis=-1) if found else xp.zeros_like(noise)
