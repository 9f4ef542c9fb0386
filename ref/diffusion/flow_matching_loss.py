"""Conditional flow matching loss.

Source: Lipman et al. 2023 (2210.02747) Eq. 9, 23; Theorem 2 for its gradient.

    L = | v(x_t, t) - u |^2,   (x_t, u) of `diffusion.flow_path`

Notation
    v -> velocity; L -> one number an example.

Conventions
    C1  The mean over the entries of an example, as code has it; the paper writes the sum: `reduction`.
    C2  It differs from the loss against E[u | x_t] by a constant, the variance of u given x_t: it does not go to 0.
    C3  velocity gets t as it was given, one time an example; its output may be a Tensor, then so is the loss.

Laws
    L1 a_constant_error_is_its_square        L2 least_at_the_expected_velocity
    L3 asked_on_the_path
"""

from __future__ import annotations

import math

from autodiff import namespace
from ref.diffusion.flow_path import flow_path
from ref.diffusion.run_stages import check_shape
from ref.spec import bind, spec

REDUCTIONS = ("mean", "sum")
SIGNATURE = "data[*S], noise[*S], t[*T] -> [*T]"


@spec("diffusion.flow_matching_loss", SIGNATURE)
def flow_matching_loss(data, noise, t, *, velocity, sigma_min=0.0, reduction="mean"):
    """The loss of each example.

    Parameters
    ----------
    data, noise : float[*S]
    t : float[*T]
        In [0, 1]; *T are leading axes of *S.
    velocity : callable
        v(x_t, t) -> float[*S].
    sigma_min : float
        In [0, 1).
    reduction : "mean" or "sum"
        Over the entries of an example.

    Returns
    -------
    float[*T]

    Raises
    ------
    ValueError
        An unknown reduction, what `flow_path` refuses, or an output of another shape.
    TypeError
        An array is not float, or dtypes or backends differ.

    Complexity: one call of the velocity.

    >>> import numpy as np
    >>> x = np.ones((2, 3))
    >>> flow_matching_loss(x, 0 * x, np.array([0.0, 1.0]), velocity=lambda x, t: 0 * x)
    array([1., 1.])
    """
    bind("flow_matching_loss", SIGNATURE, data=data, noise=noise, t=t)
    if reduction not in REDUCTIONS:
        raise ValueError(f"flow_matching_loss: reduction={reduction!r}; needed one of {REDUCTIONS}")
    x, u = flow_path(data, noise, t, sigma_min=sigma_min)
    v = velocity(x, t)
    check_shape("flow_matching_loss", "the velocity", v, x)
    error = v - u
    lead, rest = tuple(t.shape), math.prod(x.shape[len(t.shape) :])
    xp = namespace(error)
    total = xp.sum(xp.reshape(error * error, (*lead, rest)), axis=-1)
    return total / max(rest, 1) if reduction == "mean" else total
