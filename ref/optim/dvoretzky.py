"""Dvoretzky's process: an error that shrinks and is disturbed.

Source: Dvoretzky 1956; Zhao 2025, Mathematical Foundations of Reinforcement Learning, sec. 6.3, Theorem 6.2.

    D_{k+1} = (1 - alpha_k) D_k + beta_k eta_k,      alpha_k, beta_k >= 0

    tends to 0 with probability 1 if sum alpha_k = oo, sum alpha_k^2 < oo, sum beta_k^2 < oo, and the noise has mean 0
    and a bounded second moment given the past

    E D_{k+1} = (1 - alpha_k) E D_k          Var D_{k+1} = (1 - alpha_k)^2 Var D_k + beta_k^2 s^2

Notation
    D_1 -> start[*B], alpha_k -> alphas[k], beta_k -> betas[k], eta_k -> noise[*B k], D_{k+1} -> the result at k.

Conventions
    C1  `robbins_monro` on g = c (w - w*) is this with D = w - w*, alpha = c a, beta = -a; `incremental_mean` with
        alpha = beta = 1 / k and D = w - E x.
    C2  What each condition is for: alpha_k = 1 / (k + 1)^2 leaves half of D_1 (the first sum is finite); alpha = beta
        constant leaves a variance of alpha s^2 / (2 - alpha) (the other two are infinite).

Laws
    L1 process_in_closed_form                L2 mean_and_variance_recursions
    L3 each_condition_is_needed              L4 without_noise_it_only_shrinks
    L5 continues_from_where_it_stopped
"""

from __future__ import annotations

from autodiff import namespace
from ref.spec import bind, spec

SIGNATURE = "start[*B], alphas[k], betas[k], noise[*B k] -> [*B k]"


@spec("optim.dvoretzky", SIGNATURE)
def dvoretzky(start, alphas, betas, noise):
    """The process after each step.

    Parameters
    ----------
    start : float[*B]
    alphas, betas : float[k]
        At least 0.
    noise : float[*B k]

    Returns
    -------
    float[*B k]
        D_2 .. D_{k+1}.

    Raises
    ------
    ValueError
        Shapes that do not share *B or k, or an alpha or beta that is negative or not finite.
    TypeError
        An array is not float, or dtypes or backends differ.

    Complexity: 3 operations a step.

    >>> import numpy as np
    >>> dvoretzky(np.array(8.0), np.full(2, 0.5), np.ones(2), np.array([0.0, 1.0]))
    array([4., 3.])
    """
    count = bind("dvoretzky", SIGNATURE, start=start, alphas=alphas, betas=betas, noise=noise)["k"]
    xp = namespace(start, alphas, betas, noise)
    for name, x in (("alphas", alphas), ("betas", betas)):
        if not bool(xp.all((x >= 0) & xp.isfinite(x))):
            raise ValueError(f"dvoretzky: {name} hold a number that is negative or not finite; needed all >= 0")
    D, found = start, []
    for k in range(count):
        D = (1 - alphas[k]) * D + betas[k] * noise[..., k]
        found.append(D)
    return xp.stack(found, axis=-1) if found else xp.zeros_like(noise)
