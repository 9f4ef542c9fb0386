"""The exact probability flow of Gaussian data.

Source: Karras et al. 2022 (2206.00364) sec. 2 (the ODE); its solution for a Gaussian, all covariances of one
eigenbasis.

    x_0 ~ N(m, S), V = a^2 S + b^2 I:   x(to) = a' m + V'^(1/2) V^(-1/2) (x - a m)

Notation
    (a, b) -> start, (a', b') -> end: scale and std at the two times.

Conventions
    C1  It holds whatever the times between, and for every SDE with these kernels: the flow depends on the levels alone.
    C2  V and V' commute, so the matrix is symmetric; S is taken apart once.
    C3  The straight path of flow matching is (a, b) = (t, 1 - t).

Laws
    L1 moments_go_to_moments                 L2 it_solves_the_ode
    L3 legs_compose                          L4 diagonal_data_by_the_number
"""

from __future__ import annotations

from autodiff import namespace
from ref.spec import bind, spec

SIGNATURE = "x[*B d], mean[d], cov[d d] -> [*B d]"


@spec("diffusion.gaussian_flow", SIGNATURE)
def gaussian_flow(x, mean, cov, *, start, end):
    """Where the flow takes x.

    Parameters
    ----------
    x : float[*B d]
    mean : float[d]
    cov : float[d d]
        Symmetric and positive semidefinite.
    start, end : (float, float)
        (scale, std) at x and where it goes; start's V is regular.

    Returns
    -------
    float[*B d]

    Raises
    ------
    ValueError
        Axes disagree, or V is singular at the start.
    TypeError
        An array is not float, or dtypes or backends differ.

    Complexity: d^3 and B d^2.

    >>> import numpy as np
    >>> gaussian_flow(np.array([[3.0]]), np.array([1.0]), np.array([[3.0]]), start=(1.0, 1.0), end=(1.0, 0.0))
    array([[2.73205081]])
    """
    bind("gaussian_flow", SIGNATURE, x=x, mean=mean, cov=cov)
    xp = namespace(x, mean, cov)
    values, basis = xp.linalg.eigh(cov)
    values = xp.clip(values, 0.0, None)
    (a, b), (a_to, b_to) = ((float(v) for v in level) for level in (start, end))
    before, after = values * (a * a) + b * b, values * (a_to * a_to) + b_to * b_to
    if not bool(xp.all(before > 0)):
        raise ValueError(f"gaussian_flow: start={start} leaves a singular covariance; needed std > 0 or a regular cov")
    ratio = xp.sqrt(after / before)
    return xp.matmul(xp.matmul(x - mean * a, basis) * ratio, xp.matrix_transpose(basis)) + mean * a_to
