"""The exact diffusion model of Gaussian data.

Source: Song et al. 2021 (2010.02502) and Karras et al. 2022 (2206.00364) App. B for the general case; conditioning of
Gaussians (Bishop 2006, Eq. 2.113-2.117).

    x_0 ~ N(m, S), x = a x_0 + b z, V = a^2 S + b^2 I, w = V^-1 (x - a m):
    score = -w       eps = b w       x_0 = m + a S w       v = a eps - b x_0

Notation
    a -> scale, b -> std.

Conventions
    C1  What a network would learn of such data at best: E[. | x]. Linear in x, so that every sampler is affine on it.
    C2  x_0 is formed directly, not from the score: nothing is lost as a -> 0.
    C3  S may be singular: b > 0 keeps V regular. b = 0 needs S regular.

Laws
    L1 conditional_mean_by_the_joint         L2 predictions_agree
    L3 one_point_and_unit_data               L4 turned_with_the_data
"""

from __future__ import annotations

from autodiff import namespace
from ref.diffusion.convert import check_prediction
from ref.spec import bind, spec

SIGNATURE = "x[*B d], mean[d], cov[d d] -> [*B d]"


@spec("diffusion.gaussian_model", SIGNATURE, grads=("x",))
def gaussian_model(x, mean, cov, *, scale, std, prediction="score"):
    """What the exact model predicts at x.

    Parameters
    ----------
    x : float[*B d]
    mean : float[d]
    cov : float[d d]
        Symmetric and positive semidefinite.
    scale, std : float
        a and b.
    prediction : "eps", "x0", "v" or "score"

    Returns
    -------
    float[*B d]

    Raises
    ------
    ValueError
        Axes disagree, or an unknown prediction.
    TypeError
        An array is not float, or dtypes or backends differ.

    Complexity: d^3 and B d^2.

    >>> import numpy as np
    >>> gaussian_model(np.array([[3.0]]), np.array([1.0]), np.array([[1.0]]), scale=1.0, std=1.0, prediction="x0")
    array([[2.]])
    """
    d = bind("gaussian_model", SIGNATURE, x=x, mean=mean, cov=cov)["d"]
    check_prediction("gaussian_model", prediction)
    xp = namespace(x, mean, cov)
    total = cov * (scale * scale) + xp.eye(d, dtype=cov.dtype) * (std * std)
    rows = xp.reshape(x - mean * scale, (-1, d))
    w = xp.matrix_transpose(xp.linalg.solve(total, xp.matrix_transpose(rows)))
    if prediction == "score":
        found = w * -1.0
    elif prediction == "eps":
        found = w * std
    else:
        x0 = xp.matmul(w, cov) * scale + mean
        found = x0 if prediction == "x0" else w * (scale * std) - x0 * std
    return xp.reshape(found, tuple(x.shape))


def affine_model(mean, cov, kernel, prediction="score"):
    """t -> (K[d d], k[d]) with the exact model K x + k at (scale, std) = kernel(t), for
    `diffusion.propagate_moments`."""

    def at(t):
        a, b = kernel(t)
        xp, d = namespace(mean, cov), mean.shape[0]
        rows = xp.concat([xp.zeros((1, d), dtype=cov.dtype), xp.eye(d, dtype=cov.dtype)], axis=0)
        found = gaussian_model(rows, mean, cov, scale=a, std=b, prediction=prediction)
        return xp.matrix_transpose(found[1:, :] - found[:1, :]), found[0, :]

    return at
