"""Langevin corrector with a signal-to-noise ratio: one step whose length follows the score.

Source: Song et al. 2021 (2011.13456) App. G, Algorithms 4 (VE, alpha = 1) and 5 (VP, alpha = 1 - beta).

    e = 2 alpha (r |z| / |s|)^2
    x' = x + e s + sqrt(2 e) z

Notation
    r -> snr; s -> score, the score at x; e -> the step.

Conventions
    C1  norms "each": a step for each sample, as the algorithms are written. "mean": the norms averaged over the
        batch, one step for all, as the paper's code does; a sample then depends on its batch.
    C2  The convention of a is "full" (`diffusion.langevin`). With alpha = 1 the drift is r times as long as the noise:
        |e s| = r |sqrt(2 e) z|.
    C3  Not affine: e depends on z and s. Where s = 0 there is nothing to correct: e = 0.
    C4  A sample is the last axis: images are flattened.

Laws
    L1 signal_to_noise_is_the_ratio          L2 step_by_the_norms
    L3 a_scale_of_the_score_shortens_the_step   L4 samples_alone_or_together
"""

from __future__ import annotations

import math

from autodiff import namespace
from ref.spec import bind, spec

NORMS = ("each", "mean")
SIGNATURE = "x[*B d], score[*B d], noise[*B d] -> [*B d]"


@spec("diffusion.langevin_corrector", SIGNATURE)
def langevin_corrector(x, score, noise, *, snr, alpha=1.0, norms="each"):
    """The corrected state.

    Parameters
    ----------
    x, score, noise : float[*B d]
        The state, the score there, standard normal noise.
    snr : float
        r, positive.
    alpha : float
        1 for VE; alpha_t of the level for VP. Positive.
    norms : "each" or "mean"

    Returns
    -------
    float[*B d]

    Raises
    ------
    ValueError
        Shapes that differ, snr or alpha not positive and finite, or unknown norms.
    TypeError
        An array is not float, or dtypes or backends differ.

    Complexity: 6 operations an entry.

    >>> import numpy as np
    >>> langevin_corrector(np.zeros((1, 1)), np.ones((1, 1)), np.ones((1, 1)), snr=0.5)
    array([[1.5]])
    """
    bind("langevin_corrector", SIGNATURE, x=x, score=score, noise=noise)
    for name, value in (("snr", snr), ("alpha", alpha)):
        if not 0 < value < math.inf:
            raise ValueError(f"langevin_corrector: {name}={value}; needed a positive finite number")
    if norms not in NORMS:
        raise ValueError(f"langevin_corrector: norms={norms!r}; needed one of {NORMS}")
    xp = namespace(x, score, noise)
    of_noise, of_score = (xp.sqrt(xp.sum(v * v, axis=-1, keepdims=True)) for v in (noise, score))
    if norms == "mean" and math.prod(of_score.shape):
        of_noise, of_score = xp.mean(of_noise), xp.mean(of_score)
    ratio = xp.where(of_score > 0, of_noise / xp.where(of_score > 0, of_score, xp.ones_like(of_score)), of_score)
    e = ratio * ratio * (2 * alpha * snr * snr)
    return x + score * e + noise * xp.sqrt(e * 2)
