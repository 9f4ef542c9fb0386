"""Incremental mean: an average taken in one value at a time.

Source: Zhao 2025, Mathematical Foundations of Reinforcement Learning, sec. 6.1; Sutton & Barto 2018, sec. 2.4-2.5;
Welford 1962 for the recursion.

    w_k = w_{k-1} + a_k (x_k - w_{k-1}),     a_k = 1 / k unless given

    w_k = prod_j (1 - a_j) w_0 + sum_i a_i prod_{j > i} (1 - a_j) x_i

Notation
    x_k -> values[*B k], a_k -> rates[k], w_0 -> start[*B], w_k -> the result at k; the last axis is time.

Conventions
    C1  a_k = 1 / k is the sample mean of x_1 .. x_k, whatever w_0 is, because a_1 = 1.
    C2  Zhao counts w_{k+1} after x_k; here w_k is the estimate that has seen x_k.
    C3  A constant a in (0, 1] forgets geometrically: weight a (1 - a)^(k - i) on x_i.

Laws
    L1 one_over_k_is_the_sample_mean         L2 any_rates_in_closed_form
    L3 a_constant_rate_forgets_geometrically L4 variance_over_all_signs
    L5 the_next_estimate_needs_no_past       L6 commutes_with_shift_and_scale
"""

from __future__ import annotations

from autodiff import namespace
from ref.spec import bind, spec


@spec("optim.incremental_mean", "values[*B k] -> [*B k]")
def incremental_mean(values, *, rates=None, start=None):
    """The estimate after each value.

    Parameters
    ----------
    values : float[*B k]
        In their order along the last axis.
    rates : float[k], optional
        a_k; 1 / k where not given.
    start : float[*B], optional
        w_0; zeros where not given.

    Returns
    -------
    float[*B k]

    Raises
    ------
    ValueError
        values without axes, or rates or start of another shape.
    TypeError
        An array is not float, or dtypes or backends differ.

    Complexity: 3 operations a value.

    >>> import numpy as np
    >>> incremental_mean(np.array([2.0, 4.0, 9.0]))
    array([2., 3., 5.])
    """
    text = "values[*B k], rates[k], start[*B]"
    count = bind("incremental_mean", text, values=values, rates=rates, start=start)["k"]
    xp = namespace(values, *(x for x in (rates, start) if x is not None))
    w = xp.zeros_like(values[..., :1])[..., 0] if count and start is None else start
    found = []
    for k in range(count):
        a = 1 / (k + 1) if rates is None else rates[k]
        w = w + a * (values[..., k] - w)
        found.append(w)
    return xp.stack(found, axis=-1) if found else xp.zeros_like(values)
