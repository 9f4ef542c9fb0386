"""Affine flow: a density made of coupling layers over a standard normal, log-determinants exact.

Source: Dinh, Sohl-Dickstein & Bengio 2017 (Real NVP, 1605.08803) Eq. 1-3 and sec. 3.5; Rezende & Mohamed 2015.

    z = f_L(.. f_1(x)),   log p(x) = log N(z; 0, I) + sum_l log |det df_l|
    x = f_1^-1(.. f_L^-1(z)),   z standard normal: a sample

Notation
    x[*B n]; f_l -> layers[l], the parameters of an `affine_coupling`; layer l passes the coordinates of l's parity.

Conventions
    C1  The layers go from data to noise, so that a density is one pass forward; `generate` goes back.
    C2  With two layers every coordinate is changed once. With one, half of them keep the marginal of the base.

Laws
    L1 no_layers_is_the_standard_normal     L2 silent_networks_are_a_gaussian
    L3 it_integrates_to_one                 L4 log_det_of_the_jacobian
    L5 layers_one_after_another             L6 gradient_is_the_slope
"""

from __future__ import annotations

import math

from autodiff import namespace
from ref.density.affine_coupling import affine_coupling
from ref.spec import bind, spec

SIGNATURE = "x[*B n], layers:tree -> log_prob[*B], z[*B n]"


@spec("density.affine_flow", SIGNATURE, grads=("x", "layers"))
def affine_flow(x, layers):
    """Log-density of real vectors, and the noise that they stand for.

    Parameters
    ----------
    x : float[*B n]
    layers : sequence of {str: float array}
        As `affine_coupling` takes them.

    Returns
    -------
    log_prob : float[*B]
        Nats.
    z : float[*B n]

    Raises
    ------
    ValueError
        As `affine_coupling`.
    TypeError
        As `affine_coupling`.

    Complexity: as that of the layers.

    >>> import numpy as np
    >>> affine_flow(np.zeros(2), [])[0].round(4)
    np.float64(-1.8379)
    """
    n = bind("affine_flow", SIGNATURE, x=x)["n"]
    xp = namespace(x, *(a for layer in layers for a in layer.values()))
    log_prob, z = 0.0, x + 0.0
    for level, params in enumerate(layers):
        z, log_det = affine_coupling(z, params, mask_of(xp, n, level))
        log_prob = log_prob + log_det
    return log_prob - 0.5 * xp.sum(z * z, axis=-1) - 0.5 * n * math.log(2 * math.pi), z


def generate(z, layers):
    """The vectors float[*B n] whose noise is z: samples, if z is standard normal.

    >>> import numpy as np
    >>> generate(np.array([0.5, 2.0]), [])
    array([0.5, 2. ])
    """
    n = bind("generate", "z[*B n]", z=z)["n"]
    xp, x = namespace(z, *(a for layer in layers for a in layer.values())), z + 0.0
    for level, params in reversed(list(enumerate(layers))):
        x, _ = affine_coupling(x, params, mask_of(xp, n, level), inverse=True)
    return x


def mask_of(xp, n, level):
    """bool[n]: what layer `level` passes."""
    return xp.arange(n) % 2 == level % 2
