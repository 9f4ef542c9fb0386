"""EDM's preconditioning: what a raw network is fed with and scaled by, so that it sees and says unit variance.

Source: Karras et al. 2022 (2206.00364) Eq. 7, Table 1, App. B.6.

    D(x, sigma) = c_skip x + c_out F(c_in x, c_noise)

    c_skip = s^2 / (sigma^2 + s^2)          c_out = sigma s / sqrt(sigma^2 + s^2)
    c_in = 1 / sqrt(sigma^2 + s^2)          c_noise = ln(sigma) / 4
    weight = (sigma^2 + s^2) / (sigma s)^2 = 1 / c_out^2

Notation
    s -> sigma_data, the standard deviation of the data; the loss is E[weight |D(x_0 + sigma z) - x_0|^2].

Conventions
    C1  c_skip minimises c_out: the network's errors are amplified least. For data N(0, s^2) the best F is 0.
    C2  The weight makes the loss of F plain: weight c_out^2 = 1.
    C3  c_noise is what the network is told of sigma; it is not defined at sigma = 0.

Laws
    L1 coefficients_of_the_paper             L2 unit_variance_in_and_out
    L3 gaussian_data_need_no_network         L4 the_weight_undoes_the_scale
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from autodiff import namespace
from ref.diffusion.convert import spread
from ref.spec import bind, spec


class Precondition(NamedTuple):
    """The five functions of sigma."""

    skip: Any
    out: Any
    input: Any
    noise: Any
    weight: Any


SIGNATURE = "sigma[*B] -> skip[*B], out[*B], input[*B], noise[*B], weight[*B]"


@spec("diffusion.edm_precondition", SIGNATURE)
def edm_precondition(sigma, *, sigma_data=0.5):
    """c_skip, c_out, c_in, c_noise and the weight.

    Parameters
    ----------
    sigma : float[*B]
        Positive.
    sigma_data : float
        Positive.

    Returns
    -------
    Precondition of float[*B]

    Raises
    ------
    ValueError
        A sigma or sigma_data that is not positive.
    TypeError
        sigma is not a float array.

    Complexity: a root and a logarithm a level.

    >>> import numpy as np
    >>> edm_precondition(np.array([1.0]), sigma_data=1.0).skip
    array([0.5])
    """
    bind("edm_precondition", "sigma[*B]", sigma=sigma)
    if not 0 < sigma_data < math.inf:
        raise ValueError(f"edm_precondition: sigma_data={sigma_data}; needed a positive finite number")
    xp = namespace(sigma)
    if not bool(xp.all(sigma > 0)):
        raise ValueError("edm_precondition: sigma has a number that is not positive; needed all > 0")
    total = sigma * sigma + sigma_data**2
    root = xp.sqrt(total)
    return Precondition(
        skip=sigma_data**2 / total,
        out=sigma * sigma_data / root,
        input=1 / root,
        noise=xp.log(sigma) / 4,
        weight=total / (sigma * sigma_data) ** 2,
    )


def denoiser(network, *, sigma_data=0.5):
    """D(x, sigma) of a raw network F(input, noise); sigma a number or an array of leading axes of x.

    >>> import numpy as np
    >>> denoiser(lambda x, c: 0 * x, sigma_data=1.0)(np.array([4.0]), 1.0)
    array([2.])
    """

    def call(x, sigma):
        xp = namespace(x)
        levels = sigma if hasattr(sigma, "shape") else xp.full((), sigma, dtype=x.dtype)
        c = edm_precondition(levels, sigma_data=sigma_data)
        skip, out, scale = (spread(v, x, "denoiser: sigma") for v in (c.skip, c.out, c.input))
        return x * skip + network(x * scale, c.noise) * out

    return call
