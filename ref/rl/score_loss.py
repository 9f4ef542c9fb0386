"""The score-function loss: log-probabilities weighed by data, as in REINFORCE, RLOO, CISPO and a likelihood.

Source: Williams 1992 (Machine Learning 8) Eq. 4; the ratio as a fixed weight: MiniMax 2025 (2506.13585) Eq. 4-5.

    L = -sum_i w_i sum_{t kept} c_it A_it log pi_it
    c = 1, or with old_log_probs sg(clip(pi / pi_old, low, high))
    d L / d log pi_it = -w_i c_it A_it

Notation
    A -> advantages[B t], t = T or 1; w -> weights[B].

Conventions
    C1  c, A and w are data: the gradient is that of log pi alone, also where the ratio is clipped (none is dropped).
    C2  low and high are bounds of the ratio itself, either may be None.
    C3  What is masked may hold anything, NaN too, and changes neither the loss nor a gradient.

Laws
    L1 value_is_the_definition              L2 gradient_is_the_definition
    L3 masked_junk_is_invisible             L4 masking_is_deleting
"""

from __future__ import annotations

from autodiff import fusable, namespace
from ref.rl.reduce import data
from ref.spec import bind, spec

SIGNATURE = "log_probs[B T], advantages[B t], mask:bool[B T], weights[B]"


@spec("rl.score_loss", f"{SIGNATURE} -> []", grads=("log_probs",))
@fusable("rl.score_loss", tensors=("log_probs",))
def score_loss(log_probs, advantages, mask, weights, *, old_log_probs=None, low=None, high=None):
    """Weighted sum of -c A log pi.

    Parameters
    ----------
    log_probs : float[B T]
    advantages : float[B t]
        t = T, or 1 for one a response.
    mask : bool[B T]
    weights : float[B]
        What each kept token of a row weighs.
    old_log_probs : float[B T], optional
        Weigh by the ratio to this policy, held fixed.
    low, high : float, optional
        Bounds of that ratio.

    Returns
    -------
    float[]

    Raises
    ------
    ValueError
        Shapes that differ, t neither T nor 1, low < 0, or high below low or not positive.
    TypeError
        An array is not float or mask not bool, or dtypes or backends differ.

    Complexity: one exponential a token, or none.

    >>> import numpy as np
    >>> one = np.ones((1, 1))
    >>> float(score_loss(-one, 2 * one, one > 0, one[0]))
    2.0
    """
    arrays = {"log_probs": log_probs, "advantages": advantages, "mask": mask, "weights": weights}
    sizes = bind("score_loss", f"{SIGNATURE}, old_log_probs[B T]", **arrays, old_log_probs=old_log_probs)
    if sizes["t"] not in (1, sizes["T"]):
        raise ValueError(f"score_loss: advantages has t={sizes['t']}; needed T={sizes['T']} or 1")
    if (low is not None and not low >= 0) or (high is not None and not (high > 0 and high >= (low or 0))):
        raise ValueError(f"score_loss: low={low}, high={high}; needed 0 <= low <= high, high > 0")
    xp = namespace(log_probs, advantages, mask, weights, old_log_probs)
    coefficient = xp.where(mask, data(advantages), 0.0)
    if old_log_probs is not None:
        gap = xp.where(mask, data(log_probs) - data(old_log_probs), 0.0)
        coefficient = xp.multiply(coefficient, xp.clip(xp.exp(gap), low, high))
    score = xp.multiply(coefficient, xp.where(mask, log_probs, 0.0))
    return -xp.sum(xp.sum(score, axis=-1) * data(weights))
