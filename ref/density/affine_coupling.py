"""Affine coupling: an invertible layer whose Jacobian is triangular.

Source: Dinh, Sohl-Dickstein & Bengio 2017 (Real NVP, 1605.08803) Eq. 6-9; the logarithm of the determinant: Eq. 6.

    h = tanh(W (b * x) + c),   s = (1 - b) * (V_s h + c_s),   t = (1 - b) * (V_t h + c_t)
    y = b * x + (1 - b) * (x exp(s) + t) = x exp(s) + t
    x = (y - t) exp(-s)                                                 s and t of b * y = b * x
    log |det dy / dx| = sum_j s_j

Notation
    x[*B n], b -> mask[n] (True passes unchanged); W, c, V_s, c_s, V_t, c_t as in SHAPES.

Conventions
    C1  True passes; some libraries mark what is changed.
    C2  s is not squashed: the paper's own code bounds it by a scaled tanh.
    C3  With `inverse` the same call goes back, and gives the logarithm of the inverse's determinant: -sum s.

Laws
    L1 silent_networks_scale_and_shift      L2 there_and_back
    L3 log_det_of_the_jacobian              L4 what_passes_keeps_its_bits
    L5 equations_written_out                L6 gradient_is_the_slope
"""

from __future__ import annotations

from autodiff import namespace
from ref.nn.linear import linear
from ref.spec import bind, spec

SHAPES = {
    "hidden.weight": "H n", "hidden.bias": "H",
    "scale.weight": "n H", "scale.bias": "n",
    "shift.weight": "n H", "shift.bias": "n",
}  # fmt: skip
SIGNATURE = "x[*B n], params:tree, mask:bool[n] -> y[*B n], log_det[*B]"


@spec("density.affine_coupling", SIGNATURE, grads=("x", "params"))
def affine_coupling(x, params, mask, *, inverse=False):
    """The layer or its inverse, and the logarithm of its determinant.

    Parameters
    ----------
    x : float[*B n]
    params : {str: float array}
        Names and axes as in SHAPES.
    mask : bool[n]
        True passes unchanged and decides what becomes of the rest.
    inverse : bool

    Returns
    -------
    y : float[*B n]
    log_det : float[*B]
        log |det dy / dx|.

    Raises
    ------
    ValueError
        Parameters are missing, unexpected or of other axes, or the mask has another number of coordinates.
    TypeError
        An array is not float, the mask not bool, or dtypes or backends differ.

    Complexity: 3 B n H multiply-adds.

    >>> import numpy as np
    >>> params = {name: np.zeros([2 for _ in axes.split()]) for name, axes in SHAPES.items()}
    >>> params["shift.bias"] = np.array([5.0, 7.0])
    >>> affine_coupling(np.array([1.0, 2.0]), params, np.array([True, False]))
    (array([1., 9.]), np.float64(0.0))
    """
    check("affine_coupling", x, params, mask)
    xp = namespace(x, *params.values())
    h = xp.tanh(linear(xp.where(mask, x, 0.0), params["hidden.weight"], params["hidden.bias"]))
    s, t = (xp.where(mask, 0.0, linear(h, params[f"{n}.weight"], params[f"{n}.bias"])) for n in ("scale", "shift"))
    if inverse:
        return (x - t) * xp.exp(-s), -xp.sum(s, axis=-1)
    return x * xp.exp(s) + t, xp.sum(s, axis=-1)


def check(function, x, params, mask):
    """Validate a layer's arguments."""
    missing, extra = sorted(SHAPES.keys() - params.keys()), sorted(params.keys() - SHAPES.keys())
    if missing or extra:
        raise ValueError(f"{function}: params lack {missing} and have unexpected {extra}")
    text = ", ".join(f"{name.replace('.', '_')}[{axes}]" for name, axes in SHAPES.items())
    given = {name.replace(".", "_"): a for name, a in params.items()}
    bind(function, f"x[*B n], mask:bool[n], {text}", x=x, mask=mask, **given)
