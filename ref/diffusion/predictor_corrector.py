"""Predictor-corrector sampling: a step towards the data, then Langevin steps at the new level.

Source: Song et al. 2021 (2011.13456) Algorithm 1; Algorithms 2-5 for its parts.

    for each stage of the predictor:
        x <- the stage (A x + B s(x, t) + c z)
        corrections times at the level it leads to:  x <- langevin_corrector(x, s(x, t'), z)

Notation
    t' -> after[k], where stage k leads to.

Conventions
    C1  Predictor first, as Algorithm 1 is printed; the paper's code corrects first. The last stage is not corrected:
        its level is the data's, where after[-1] is None.
    C2  Any stages that give the score's weights serve: those of `diffusion.reverse_diffusion`, `.ancestral_ve`,
        `.euler_maruyama`, `.probability_flow`.
    C3  Draws: the predictor's (if it has noise), then one a correction, stage by stage.
    C4  corrections = 0 is the predictor alone, no stages after the last.

Laws
    L1 without_corrections_the_predictor     L2 every_step_in_its_place
    L3 corrections_are_langevin_steps
"""

from __future__ import annotations

import operator

from ref.diffusion.langevin_corrector import langevin_corrector
from ref.diffusion.run_stages import check_shape, draws, run_stages
from ref.spec import bind, spec


@spec("diffusion.predictor_corrector", "x[*B d], noise:tree -> [*B d]")
def predictor_corrector(x, noise, *, score, stages, after, snr, corrections=1, alphas=None, norms="each"):
    """The state after all stages.

    Parameters
    ----------
    x : float[*B d]
    noise : sequence of float[*B d], float[k *B d], or generator
        In the order of C3.
    score : callable
        s(x, t) -> float[*B d].
    stages : sequence of Stage
        Of the predictor, for a model that gives the score.
    after : sequence
        Where each stage leads to, what the score is asked with for its corrections; None: no correction there.
    snr : float
        r of the corrector.
    corrections : int
        Langevin steps at each level, at least 0.
    alphas : sequence of float, optional
        alpha of the corrector after each stage (VP); 1 if not given.
    norms : "each" or "mean"

    Returns
    -------
    float[*B d]

    Raises
    ------
    ValueError
        Lengths that differ, corrections < 0, too few draws, or what the corrector or the stages refuse.
    TypeError
        x is not a float array, or corrections is no integer.

    Complexity: 1 + corrections calls of the score a stage.

    >>> import numpy as np
    >>> from ref.diffusion.run_stages import Stage
    >>> z, stages = np.ones((2, 1, 1)), [Stage(2.0, 1.0, 1.0), Stage(1.0, 1.0, 1.0)]
    >>> pull = lambda x, t: -x / t
    >>> predictor_corrector(np.full((1, 1), 8.0), z, score=pull, stages=stages, after=[1.0, None], snr=0.5)
    array([[0.]])
    """
    bind("predictor_corrector", "x[*B d]", x=x)
    stages, after = list(stages), list(after)
    alphas = [1.0] * len(stages) if alphas is None else list(alphas)
    if not len(stages) == len(after) == len(alphas):
        lengths = f"{len(stages)} stages, {len(after)} levels after, {len(alphas)} alphas"
        raise ValueError(f"predictor_corrector: {lengths}; needed the same number of each")
    if operator.index(corrections) < 0:
        raise ValueError(f"predictor_corrector: corrections={corrections}; needed at least 0")
    corrected = sum(t is not None for t in after)
    draw = draws("predictor_corrector", noise, x, sum(bool(s.noise) for s in stages) + corrections * corrected)
    for stage, t, alpha in zip(stages, after, alphas, strict=True):
        taken = [draw()] if stage.noise else None
        x = run_stages(x, taken, stages=[stage], model=score, name="predictor_corrector")
        for _ in range(corrections if t is not None else 0):
            s = score(x, t)
            check_shape("predictor_corrector", "the score", s, x)
            x = langevin_corrector(x, s, draw(), snr=snr, alpha=alpha, norms=norms)
    return x * 1.0
