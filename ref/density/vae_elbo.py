"""Evidence lower bound of a variational autoencoder on bits: Gaussian encoder, Bernoulli decoder.

Source: Kingma & Welling 2014 (1312.6114) Eq. 2, 3 and 10; networks: appendix C.1 and C.2.

    h = tanh(W_3 x + b_3),   mu = W_4 h + b_4,   log sigma^2 = W_5 h + b_5         q(z | x) = N(mu, sigma^2)
    z = mu + sigma e,   e standard normal                                         the reparametrisation
    l = W_2 tanh(W_1 z + b_1) + b_2,   log p(x | z) = sum_i x_i l_i - log(1 + e^{l_i})
    ELBO = log p(x | z) - KL(q(z | x) || N(0, I)),   E_e ELBO = log p(x) - KL(q(z | x) || p(z | x))

Notation
    x[*B n] of zeros and ones, e -> noise[*B z]; W_1 .. W_5, b_1 .. b_5 as in SHAPES.

Conventions
    C1  One noise a row: an estimate with no bias. Average over rows of the same x for less variance.
    C2  Sums over pixels and over latent coordinates, both in nats. A mean over pixels weighs the divergence n times.
    C3  The divergence is the closed form, which has no noise of its own; the encoder gives log sigma^2.

Laws
    L1 silent_decoder_is_the_divergence_alone
    L2 the_gap_is_the_divergence_from_the_posterior
    L3 the_divergence_has_no_noise          L4 fixed_code_sums_to_one
    L5 networks_written_out                 L6 gradient_is_the_slope
"""

from __future__ import annotations

from autodiff import namespace
from ref.density.bernoulli import bernoulli, check_binary
from ref.density.gaussian_kl import gaussian_kl
from ref.nn.linear import linear
from ref.spec import bind, spec

SHAPES = {
    "encoder.hidden.weight": "E n", "encoder.hidden.bias": "E",
    "encoder.mean.weight": "z E", "encoder.mean.bias": "z",
    "encoder.log_variance.weight": "z E", "encoder.log_variance.bias": "z",
    "decoder.hidden.weight": "D z", "decoder.hidden.bias": "D",
    "decoder.logits.weight": "n D", "decoder.logits.bias": "n",
}  # fmt: skip
SIGNATURE = "x[*B n], noise[*B z], params:tree -> elbo[*B], divergence[*B]"


@spec("density.vae_elbo", SIGNATURE, grads=("params",))
def vae_elbo(x, noise, params):
    """The evidence lower bound of bit strings, at one draw of the noise each.

    Parameters
    ----------
    x : float[*B n]
        Zeros and ones.
    noise : float[*B z]
        Standard normal.
    params : {str: float array}
        Names and axes as in SHAPES.

    Returns
    -------
    elbo : float[*B]
        Nats.
    divergence : float[*B]
        KL(q(z | x) || N(0, I)), a part of it.

    Raises
    ------
    ValueError
        x is not binary, or parameters are missing, unexpected or of other axes.
    TypeError
        An array is not float, or dtypes or backends differ.

    Complexity: B times the number of weights.

    >>> import numpy as np
    >>> params = {name: np.zeros([1 for _ in axes.split()]) for name, axes in SHAPES.items()}
    >>> elbo, divergence = vae_elbo(np.array([1.0]), np.array([0.3]), params)
    >>> print(elbo.round(4), divergence)
    -0.6931 0.0
    """
    _check(x, noise, params)
    check_binary("vae_elbo", x)
    xp = namespace(x, noise, *params.values())

    def layer(y, name):
        return linear(y, params[f"{name}.weight"], params[f"{name}.bias"])

    hidden = xp.tanh(layer(x, "encoder.hidden"))
    mean, log_variance = layer(hidden, "encoder.mean"), layer(hidden, "encoder.log_variance")
    z = mean + xp.exp(0.5 * log_variance) * noise
    logits = layer(xp.tanh(layer(z, "decoder.hidden")), "decoder.logits")
    divergence = gaussian_kl(mean, log_variance)
    return bernoulli(x, logits) - divergence, divergence


def _check(x, noise, params):
    missing, extra = sorted(SHAPES.keys() - params.keys()), sorted(params.keys() - SHAPES.keys())
    if missing or extra:
        raise ValueError(f"vae_elbo: params lack {missing} and have unexpected {extra}")
    text = ", ".join(f"{name.replace('.', '_')}[{axes}]" for name, axes in SHAPES.items())
    given = {name.replace(".", "_"): a for name, a in params.items()}
    bind("vae_elbo", f"x[*B n], noise[*B z], {text}", x=x, noise=noise, **given)
