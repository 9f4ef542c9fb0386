"""Reverse-time SDE and the family between it and the probability flow.

Source: Anderson 1982 (Stoch. Proc. Appl. 12:313); Song et al. 2021 (2011.13456) Eq. 6, 13 (probability flow); Zhang &
Chen 2023 (2204.13902) sec. 2 for the family in lambda.

    dx = (f x - (1 + lambda^2) / 2 g^2 s(x)) dt + lambda g dw_reverse

    lambda = 1: the reverse SDE; lambda = 0: the probability flow ODE; all have the marginals of the forward SDE

Notation
    f, g -> sde(t).drift, .diffusion; s -> score; lambda -> lam.

Conventions
    C1  The drift is that of dx / dt with t as it is: a sampler walks with dt < 0. Its sign is what libraries got wrong.
    C2  The noise of the reverse path is lambda g sqrt(|dt|) z.
    C3  t has leading axes of x: a time for all, or one an example.

Laws
    L1 drift_by_its_terms                    L2 marginals_are_kept_for_every_lambda
    L3 gradients_are_the_weights
"""

from __future__ import annotations

import math

from ref.diffusion.convert import spread
from ref.spec import bind, spec

SIGNATURE = "x[*S], score[*S], t[*T] -> drift[*S], diffusion[*T]"


@spec("diffusion.reverse_sde", SIGNATURE, grads=("x", "score"))
def reverse_sde(x, score, t, *, sde, lam=1.0):
    """Drift and diffusion at x.

    Parameters
    ----------
    x, score : float[*S]
        The state, and the score of its marginal there.
    t : float[*T]
        Times; *T are leading axes of *S.
    sde : callable
        t -> (drift, diffusion, scale, std), as `diffusion.vp`.
    lam : float
        lambda, at least 0.

    Returns
    -------
    drift : float[*S]
    diffusion : float[*T]

    Raises
    ------
    ValueError
        Shapes that disagree, or lam negative or not finite.
    TypeError
        An array is not float, or dtypes or backends differ.

    Complexity: 2 multiply-adds an entry.

    >>> import numpy as np
    >>> one = np.ones(1)
    >>> reverse_sde(one, one, one, sde=lambda t: (-2.0 * t, 2.0 * t, 1.0, 1.0))
    (array([-6.]), array([2.]))
    """
    bind("reverse_sde", SIGNATURE, x=x, score=score, t=t)
    f, g = sde(t)[:2]
    of_x, of_score, noise = reverse_weights("reverse_sde", f, g, lam)
    of_x, of_score = (spread(w, x, "reverse_sde: t") for w in (of_x, of_score))
    return x * of_x + score * of_score, noise


def reverse_weights(function, f, g, lam):
    """(weight of x, of the score, of dw) for drift f x and diffusion g (numbers or arrays)."""
    if not 0 <= lam < math.inf:
        raise ValueError(f"{function}: lam={lam}; needed a finite number >= 0")
    return f, g * g * (-(1 + lam * lam) / 2), g * lam
