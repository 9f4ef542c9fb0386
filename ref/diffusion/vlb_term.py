"""One term of the variational bound, in nats.

Source: Ho, Jain & Abbeel 2020 (2006.11239) Eq. 5, 12, 13; Nichol & Dhariwal 2021 (2102.09672) Eq. 4-7.

    t > 1:  L_{t-1} = KL(q(x_{t-1} | x_t, x_0), p(x_{t-1} | x_t))
                    = (ln(v / btilde) + (btilde + (mean_q - mean_p)^2) / v - 1) / 2
    t = 1:  L_0 = -ln p(x_0 | x_1), a density (decoder "gaussian") or a bin of levels ("discretized")

    -ln p(x_0) <= L_0 + .. + L_{T-1} + L_T          (L_T: `diffusion.prior_kl`)

Notation
    v and mean_p of `diffusion.reverse_kernel`; btilde and mean_q of `diffusion.posterior`.

Conventions
    C1  One number an entry: the sum over a sample's entries and over t = 1 .. T, with L_T, bounds its -ln p. In
        training t is drawn and the term multiplied by T.
    C2  With a fixed variance and eps predicted, L_{t-1} is beta^2 / (2 v alpha (1 - alpha_bar)) |eps - eps_theta|^2
        and a constant (Eq. 12), which is 0 for "small".
    C3  At t = 1 v is what `diffusion.reverse_kernel` says there (btilde_2 for "small": btilde_1 = 0).
    C4  With "learned" the model returns (output, mix).
    C5  L_0 of "gaussian" is a density's and may be negative; only "discretized" gives bits of an image.

Laws
    L1 terms_are_divergences_of_gaussians    L2 weight_of_the_noise_error
    L3 the_bound_is_tight_for_gaussian_data  L4 the_first_term_is_a_likelihood
    L5 each_example_has_its_own_step
"""

from __future__ import annotations

import math

from autodiff import namespace
from ref.diffusion.convert import check_prediction
from ref.diffusion.discretized_gaussian import discretized_gaussian
from ref.diffusion.noised import levels, noised
from ref.diffusion.posterior import posterior
from ref.diffusion.reverse_kernel import check_variance, reverse_kernel
from ref.diffusion.run_stages import check_shape
from ref.spec import bind, spec

DECODERS = ("gaussian", "discretized")
SIGNATURE = "x0[*S], t:int[*T], noise[*S], alpha_bar[N] -> [*S]"


@spec("diffusion.vlb_term", SIGNATURE)
def vlb_term(
    x0, t, noise, alpha_bar, *, model, prediction="eps", variance="small", decoder="gaussian", bins=256
):  # fmt: skip
    """The term of each entry at its step.

    Parameters
    ----------
    x0, noise : float[*S]
        Clean samples, and standard normal noise.
    t : int[*T]
        Steps in 1 .. N; *T are leading axes of *S.
    alpha_bar : float[N]
        Of any float dtype.
    model : callable
        model(x_t, t) -> float[*S], or with "learned" a pair of them.
    prediction : "eps", "x0", "v" or "score"
    variance : "small", "large" or "learned"
    decoder : "gaussian" or "discretized"
        What L_0 is.
    bins : int
        Levels of [-1, 1] for "discretized".

    Returns
    -------
    float[*S]

    Raises
    ------
    ValueError
        Unknown names, a step outside 1 .. N, shapes that disagree, or an output of another shape.
    TypeError
        An array is not float (t: int), or x0 and noise differ in dtype.

    Complexity: one call of the model.

    >>> import numpy as np
    >>> right = lambda x, t: 0 * x + 1
    >>> vlb_term(np.zeros(2), np.array([2, 2]), np.ones(2), np.array([0.75, 0.5]), model=right)
    array([0., 0.])
    """
    bind("vlb_term", SIGNATURE, x0=x0, noise=noise, t=t)
    check_prediction("vlb_term", prediction)
    check_variance("vlb_term", variance)
    if decoder not in DECODERS:
        raise ValueError(f"vlb_term: decoder={decoder!r}; needed one of {DECODERS}")
    x = noised(x0, t, noise, alpha_bar)
    output, mix = model(x, t) if variance == "learned" else (model(x, t), None)
    check_shape("vlb_term", "the model's output", output, x)
    mean_p, v = reverse_kernel(output, x, t, alpha_bar, mix, prediction=prediction, variance=variance)
    mean_q, _ = posterior(x0, x, t, alpha_bar)
    xp, wide = namespace(mean_p, v), namespace(alpha_bar)
    now, before = levels("vlb_term", t, alpha_bar, x)
    first = before == 1
    btilde = wide.where(first, wide.ones_like(now), (1 - before) / (1 - now) * (before - now) / before)
    log_btilde, btilde = (wide.astype(y, x.dtype) for y in (wide.log(btilde), btilde))
    gap = mean_p - mean_q
    divergence = (xp.log(v) - log_btilde + (gap * gap + btilde) / v - 1) / 2
    if decoder == "discretized":
        start = -discretized_gaussian(x0, mean_p, xp.sqrt(v), bins=bins)
    else:
        miss = mean_p - x0
        start = (xp.log(v) + math.log(2 * math.pi) + miss * miss / v) / 2
    return xp.where(first, start, divergence)
