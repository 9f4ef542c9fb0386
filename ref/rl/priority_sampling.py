"""Prioritised sampling: prompts are drawn in proportion to how often they fail.

Source: Kimi k1.5 (2501.12599) sec. 2.3.4.

    p_i = (1 - s_i) / sum_j (1 - s_j)        s_i = success rate of prompt i

Conventions
    C1  A prompt that always succeeds is never drawn. If all do there is nothing to draw: an error, not 0 / 0.

Laws
    L1 proportion_to_the_failures           L2 mastered_prompts_are_never_drawn
"""

from __future__ import annotations

from autodiff import namespace
from ref.spec import bind, spec

SIGNATURE = "success[n] -> [n]"


@spec("rl.priority_sampling", SIGNATURE)
def priority_sampling(success):
    """The probability of each prompt.

    Parameters
    ----------
    success : float[n]
        Rates in [0, 1].

    Returns
    -------
    float[n]

    Raises
    ------
    ValueError
        A rate outside [0, 1], or none below 1.
    TypeError
        success is not float.

    Complexity: n operations.

    >>> import numpy as np
    >>> priority_sampling(np.array([1.0, 0.5, 0.0]))
    array([0.        , 0.33333333, 0.66666667])
    """
    bind("priority_sampling", SIGNATURE, success=success)
    xp = namespace(success)
    if not bool(xp.all((success >= 0) & (success <= 1))):
        raise ValueError("priority_sampling: a success rate lies outside [0, 1]")
    failure = 1 - success
    total = xp.sum(failure)
    if not bool(total > 0):
        raise ValueError("priority_sampling: no success rate lies below 1; nothing is left to sample")
    return failure / total
