"""Exact log-likelihood by the probability flow.

Source: Song et al. 2021 (2011.13456) Eq. 39-40, App. D.2; Chen et al. 2018 (1806.07366) Theorem 1.

    dx / dt = F(x, t) = f x - g^2 s(x, t) / 2
    ln p_0(x(0)) = ln p_T(x(T)) + int_0^T div F(x(t), t) dt,   div F = f d - g^2 div s / 2

    x and the integral by the classical Runge-Kutta method on the given times

Notation
    times from the data (0, or a small t) up to T; div s -> `diffusion.divergence`, exact or by probes.

Conventions
    C1  ln p_T is that of the prior: standard normal if not given. With the SDE's own marginal at T it is exact; a
        standard normal is off by what the schedule leaves.
    C2  Order 4 in the steps. Twice the steps tell the error: a sixteenth is left of it. Near the data steps must be
        small (times dense near 0), where the score is steep.
    C3  Probes are the same at all times (Hutchinson with one vector a trajectory), so the integrand is smooth. The mean
        over probes is unbiased for the integral, the logarithm itself.
    C4  In nats of x as given: dequantisation and a change of units are the caller's (bits per dimension:
        -ln p / (d ln 2) and the logarithm of the units).

Laws
    L1 gaussian_with_its_own_prior           L2 mixture_with_its_own_prior
    L3 fourth_order                          L4 probes_average_to_the_exact_divergence
    L5 the_prior_is_asked_at_the_end
"""

from __future__ import annotations

import math

from autodiff import namespace
from ref.diffusion.divergence import check_probes, divergence
from ref.diffusion.euler_maruyama import check_monotone
from ref.diffusion.run_stages import check_shape, numbers
from ref.spec import bind, spec


@spec("diffusion.ode_log_likelihood", "x[*B d], probes:tree -> log_p[*B], latent[*B d]")
def ode_log_likelihood(x, probes=None, *, score, sde, times, log_prior=None):
    """Log-density of each sample, and where it flows to.

    Parameters
    ----------
    x : float[*B d]
    probes : float[K *B d], optional
        Hutchinson's vectors; the exact divergence if not given.
    score : callable
        s(x, t) -> float[*B d], each sample alone.
    sde : callable
        t -> (drift, diffusion, scale, std), as `diffusion.vp`.
    times : float[K + 1]
        Rising, from the data's end.
    log_prior : callable, optional
        ln p_T: float[*B d] -> float[*B].

    Returns
    -------
    log_p : float[*B]
    latent : float[*B d]

    Raises
    ------
    ValueError
        Times that do not rise, probes or a score or a prior of another shape.
    TypeError
        x is not a float array.

    Complexity: 4 calls of the score a step, each with d (or K) backward passes.

    >>> import numpy as np
    >>> still = lambda t: (0.0, 0.0, 1.0, 0.0)
    >>> ode_log_likelihood(np.zeros((1, 1)), score=lambda x, t: -x, sde=still, times=[0.0, 1.0])
    (array([-0.91893853]), array([[0.]]))
    """
    name = "ode_log_likelihood"
    d = bind(name, "x[*B d]", x=x)["d"]
    if probes is not None:
        check_probes(name, probes, x)
    times = numbers(times)
    if len(times) > 1 and times[1] < times[0]:
        raise ValueError(f"{name}: times[1]={times[1]} after {times[0]}; needed numbers that rise")
    check_monotone(name, times, both=True)

    def slope(y, t):
        f, g = map(float, sde(t)[:2])
        s, div = divergence(y, probes, field=lambda z: score(z, t), name=name)
        return y * f + s * (-g * g / 2), div * (-g * g / 2) + f * d

    total = namespace(x).sum(x, axis=-1) * 0.0
    for t, to in zip(times[:-1], times[1:], strict=True):
        h = to - t
        k1, d1 = slope(x, t)
        k2, d2 = slope(x + k1 * (h / 2), t + h / 2)
        k3, d3 = slope(x + k2 * (h / 2), t + h / 2)
        k4, d4 = slope(x + k3 * h, to)
        x = x + (k1 + (k2 + k3) * 2.0 + k4) * (h / 6)
        total = total + (d1 + (d2 + d3) * 2.0 + d4) * (h / 6)
    prior = standard_normal(x) if log_prior is None else log_prior(x)
    check_shape(name, "the prior", prior, total)
    return total + prior, x


def standard_normal(x):
    """ln N(x; 0, I) over the last axis."""
    return namespace(x).sum(x * x, axis=-1) * -0.5 - x.shape[-1] * math.log(2 * math.pi) / 2
