"""The velocity of flow matching for Gaussian data, in closed form.

Source: Lipman et al. 2023 (2210.02747) Eq. 8 (the marginal velocity) on the straight path; conditioning of Gaussians.

    x_1 ~ N(m, S), z ~ N(0, I), x_t = (1 - t) z + t x_1, V = t^2 S + (1 - t)^2 I:
    u(x, t) = E[x_1 - z | x_t = x] = m + (t S - (1 - t) I) V^-1 (x - t m)

Notation
    as above; t -> t.

Conventions
    C1  sigma_min = 0, t = 0 noise, t = 1 data, as in `diffusion.flow_path`.
    C2  It is x_0hat - eps of `diffusion.gaussian_model` at (a, b) = (t, 1 - t): every diffusion model is a flow.

Laws
    L1 conditional_mean_by_the_joint         L2 moments_flow_as_the_path_does
    L3 ends_in_closed_form
"""

from __future__ import annotations

from autodiff import namespace
from ref.spec import bind, spec

SIGNATURE = "x[*B d], mean[d], cov[d d] -> [*B d]"


@spec("diffusion.gaussian_velocity", SIGNATURE, grads=("x",))
def gaussian_velocity(x, mean, cov, *, t):
    """u(x, t).

    Parameters
    ----------
    x : float[*B d]
    mean : float[d]
    cov : float[d d]
        Symmetric and positive semidefinite; regular if t = 1.
    t : float
        In [0, 1].

    Returns
    -------
    float[*B d]

    Raises
    ------
    ValueError
        Axes disagree, or a time outside [0, 1].
    TypeError
        An array is not float, or dtypes or backends differ.

    Complexity: d^3 and B d^2.

    >>> import numpy as np
    >>> gaussian_velocity(np.array([[3.0]]), np.array([1.0]), np.array([[4.0]]), t=0.0)
    array([[-2.]])
    """
    d = bind("gaussian_velocity", SIGNATURE, x=x, mean=mean, cov=cov)["d"]
    if not 0 <= t <= 1:
        raise ValueError(f"gaussian_velocity: t={t}; needed a time in [0, 1]")
    xp = namespace(x, mean, cov)
    eye = xp.eye(d, dtype=cov.dtype)
    total = cov * (t * t) + eye * ((1 - t) * (1 - t))
    rows = xp.matrix_transpose(xp.reshape(x - mean * t, (-1, d)))
    w = xp.matrix_transpose(xp.linalg.solve(total, rows))
    return xp.reshape(xp.matmul(w, cov * t - eye * (1 - t)) + mean, tuple(x.shape))
