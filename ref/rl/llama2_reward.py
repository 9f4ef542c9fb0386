"""LLaMA-2-Chat's reward: safety first, whitened in logits, less the divergence from the start.

Source: Touvron et al. 2023 (2307.09288) sec. 3.2.3, the unnumbered equations of R_c and R~_c, and Eq. 4.

    R_c = R_s if the prompt is a safety prompt or R_s < .15, else R_h
    R~_c = whiten(logit(R_c)),   R = R~_c - beta KL(pi | pi_0)

Notation
    R_s, R_h -> safe[B], helpful[B], the models' scores in (0, 1); KL -> kl[B], of each response.

Conventions
    C1  First the choice, then the logit, then the whitening of the whole batch, then the penalty: whitening each
        model's scores first would compare two scales, penalising first would whiten the penalty away.
    C2  .15 is compared with the safety score itself. beta .01 for 7B and 13B, .005 for 34B and 70B.
    C3  whiten's options (ddof, eps) are its own; the paper gives none.

Laws
    L1 value_is_the_definition              L2 safety_decides_below_the_threshold
    L3 the_penalty_is_not_whitened
"""

from __future__ import annotations

from autodiff import namespace
from ref.rl.whiten import whiten
from ref.spec import bind, spec

SIGNATURE = "helpful[B], safe[B], safety_prompt:bool[B], kl[B] -> [B]"


@spec("rl.llama2_reward", SIGNATURE)
def llama2_reward(helpful, safe, safety_prompt, kl, *, beta=0.01, threshold=0.15, ddof=0, eps=1e-8):
    """The reward of each response of a batch.

    Parameters
    ----------
    helpful, safe : float[B]
        Scores in (0, 1).
    safety_prompt : bool[B]
    kl : float[B]
        Divergence of the policy from its start on each response.
    beta : float
    threshold : float
        Safety scores below it decide.
    ddof, eps
        As `whiten` takes them.

    Returns
    -------
    float[B]

    Raises
    ------
    ValueError
        Shapes that differ, a score outside (0, 1), beta < 0, or what `whiten` refuses.
    TypeError
        An array is not float or safety_prompt not bool, or dtypes or backends differ.

    Complexity: B operations.

    >>> import numpy as np
    >>> h, s, zero = np.array([0.9, 0.5]), np.array([0.1, 0.5]), np.zeros(2)
    >>> llama2_reward(h, s, np.array([False, False]), zero, eps=0.0)  # logits of .1 and .5
    array([-1.,  1.])
    """
    bind("llama2_reward", SIGNATURE, helpful=helpful, safe=safe, safety_prompt=safety_prompt, kl=kl)
    xp = namespace(helpful, safe, safety_prompt, kl)
    if not beta >= 0 or not all(bool(xp.all((x > 0) & (x < 1))) for x in (helpful, safe)):
        raise ValueError(f"llama2_reward: beta={beta}; needed beta >= 0 and all scores in (0, 1)")
    score = xp.where(safety_prompt | (safe < threshold), safe, helpful)
    logit = xp.log(score) - xp.log1p(-score)
    white = whiten(logit[None, :], xp.ones((1, logit.shape[0]), dtype=xp.bool), ddof=ddof, eps=eps)
    return white[0, :] - beta * kl
