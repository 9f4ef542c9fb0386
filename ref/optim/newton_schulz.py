"""Newton-Schulz: the polar factor of a matrix by five odd polynomials, nearly.

Source: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks" (kellerjordan.github.io), for
the iteration and its coefficients; Higham 2008, Functions of Matrices, sec. 8.3, for polar factors.

    X_0 = G / (|G|_F + eps)
    A = X X^T,   X <- a X + (b A + c A^2) X        `steps` times, (a, b, c) = (3.4445, -4.7750, 2.0315)

    G = U diag(s) V^T  gives  U diag(phi(phi(... s / (|s| + eps)))) V^T,   phi(x) = a x + b x^3 + c x^5

Notation
    G -> x[*B r c]; singular values s_i, at most min(r, c) of them; the polar factor is U V^T.

Conventions
    C1  The coefficients are those that lift small singular values fastest (by 3.4445 a step), and they do not
        converge: after five steps what was in [0.01, 1] lies in [0.68, 1.21]. (15/8, -5/4, 3/8) converges to 1.
    C2  If r > c the iteration runs on the transpose, so that A is the smaller Gram matrix.
    C3  eps is added to the norm (Jordan et al.: 1e-7); torch divides by max(|G|_F, eps). At eps = 0 a zero matrix
        gives zeros.
    C4  It computes in the dtype of x; the original casts to bfloat16.

Laws
    L1 singular_values_go_through_phi        L2 rank_one_is_its_own_direction
    L3 converging_coefficients_give_the_polar_factor
    L4 no_singular_value_above_the_peak      L5 transposes_commute
    L6 commutes_with_signs_and_rotations     L7 a_power_of_two_scale_is_invisible
    L8 matrices_of_a_batch_are_alone         L9 zero_stays_zero
"""

from __future__ import annotations

import operator

from autodiff import namespace
from ref.optim.sgd import check_finite, check_numbers
from ref.spec import bind, spec

SIGNATURE = "x[*B r c] -> [*B r c]"
COEFFICIENTS = (3.4445, -4.7750, 2.0315)


@spec("optim.newton_schulz", SIGNATURE)
def newton_schulz(x, *, steps=5, coefficients=COEFFICIENTS, eps=1e-7, name="x"):
    """Push the singular values of each matrix towards 1 and keep its singular vectors.

    Parameters
    ----------
    x : float[*B r c]
    steps : int
        At least 0; with 0 the matrix is only normalised.
    coefficients : (float, float, float)
        (a, b, c) of the polynomial (C1).
    eps : float
        Added to the Frobenius norm.
    name : str
        What to call x in a message.

    Returns
    -------
    float[*B r c]

    Raises
    ------
    ValueError
        Fewer than two axes, steps < 0, not three coefficients, eps negative or not finite, or x has NaN or an infinity.
    TypeError
        x is not a float array, or steps is no integer.

    Complexity: 3 matrix products a step, (4 k^2 l + 2 k^3) B operations, k = min(r, c), l = max(r, c).

    >>> import numpy as np
    >>> newton_schulz(np.array([[3.0, 0.0], [0.0, -3.0]]), coefficients=(1.875, -1.25, 0.375)).round(6)
    array([[ 1.,  0.],
           [ 0., -1.]])
    """
    bind("newton_schulz", SIGNATURE, x=x)
    if operator.index(steps) < 0:
        raise ValueError(f"newton_schulz: steps={steps}; needed at least 0")
    if len(coefficients) != 3:
        raise ValueError(f"newton_schulz: {len(coefficients)} coefficients; needed three, (a, b, c)")
    check_numbers("newton_schulz", eps=eps)
    check_finite("newton_schulz", name, x)
    xp = namespace(x)
    a, b, c = coefficients
    tall = x.shape[-2] > x.shape[-1]
    X = xp.matrix_transpose(x) if tall else x
    norm = xp.sqrt(xp.sum(X * X, axis=(-2, -1), keepdims=True)) + eps
    X = X / xp.where(norm == 0, 1.0, norm)
    for _ in range(steps):
        A = X @ xp.matrix_transpose(X)
        X = a * X + (b * A + c * (A @ A)) @ X
    return xp.matrix_transpose(X) if tall else X
