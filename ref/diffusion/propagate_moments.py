"""Exact mean and covariance of what a sampler makes, for a model that is affine in x.

Source: the stages of `diffusion.run_stages`; moments of an affine map of a Gaussian.

    state (x, l); model at t: K y + k at y = p x + q l
    x' = (A + B p K) x + (C + B q K) l + B k + c z,   l' = p K x + q K l + k
    mean' = M mean + o,   Cov' = M Cov M^T + c^2 (I on x)

Notation
    A, B, C, c, p, q -> Stage.x, .model, .last, .noise, .at_x, .at_last; (K, k) -> model(t); l = 0 at the start.

Conventions
    C1  No sampling: with Gaussian data the model is affine (`diffusion.gaussian_model.affine_model`), so that a
        sampler's error is known to rounding, and its order can be measured.
    C2  A stage with t = None leaves l.

Laws
    L1 by_running_the_sampler_on_a_basis     L2 no_model_is_a_random_walk
    L3 stages_compose                        L4 turned_with_the_data
"""

from __future__ import annotations

from autodiff import namespace
from ref.spec import bind, spec

SIGNATURE = "mean[d], cov[d d] -> mean[d], cov[d d]"


@spec("diffusion.propagate_moments", SIGNATURE)
def propagate_moments(mean, cov, *, stages, model):
    """Moments of x after the stages.

    Parameters
    ----------
    mean : float[d]
    cov : float[d d]
        Of x before them.
    stages : sequence of Stage
    model : callable
        t -> (K[d d], k[d]), what the model says at t: K x + k.

    Returns
    -------
    mean : float[d]
    cov : float[d d]

    Raises
    ------
    ValueError
        Axes disagree, those of the model's included.
    TypeError
        An array is not float, or dtypes or backends differ.

    Complexity: 16 d^3 a stage.

    >>> import numpy as np
    >>> from ref.diffusion.run_stages import Stage
    >>> pull = lambda t: (-np.eye(1), np.ones(1))
    >>> propagate_moments(np.zeros(1), np.eye(1), stages=[Stage(1.0, 1.0, 0.5, noise=2.0)], model=pull)
    (array([0.5]), array([[4.25]]))
    """
    d = bind("propagate_moments", SIGNATURE, mean=mean, cov=cov)["d"]
    xp = namespace(mean, cov)
    eye, zero = xp.eye(d, dtype=cov.dtype), xp.zeros((d, d), dtype=cov.dtype)
    state = xp.concat([mean, mean * 0.0])
    joint = _blocks(xp, cov, zero, zero, zero)
    for s in stages:
        K, k = (zero, mean * 0.0) if s.t is None else model(s.t)
        bind("propagate_moments", "mean[d], K[d d], k[d]", mean=mean, K=K, k=k)
        B = 0.0 if s.t is None else s.model
        below = (zero, eye) if s.t is None else (K * s.at_x, K * s.at_last)
        M = _blocks(xp, eye * s.x + K * (B * s.at_x), eye * s.last + K * (B * s.at_last), *below)
        state = xp.matmul(M, state) + xp.concat([k * B, k])
        joint = xp.matmul(xp.matmul(M, joint), xp.matrix_transpose(M)) + _blocks(xp, eye * s.noise**2, zero, zero, zero)
    return state[:d] * 1.0, joint[:d, :d] * 1.0


def _blocks(xp, a, b, c, d):
    return xp.concat([xp.concat([a, b], axis=1), xp.concat([c, d], axis=1)], axis=0)
