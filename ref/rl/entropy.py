"""Entropy of the policy's distribution at each token, from logits.

Source: Williams & Peng 1991, entropy as a bonus; Schulman et al. 2017 (1707.06347) Eq. 9.

    H = -sum_j p_j log p_j = log Z - sum_j p_j x_j,   p = softmax(x / temperature), Z its normaliser
    dH / dx_j = -p_j (log p_j + H) / temperature

Conventions
    C1  A class at -oo is absent: 0 log 0 = 0, and its gradient is 0.
    C2  At the sampling temperature, like the log-probabilities. Nats.
    C3  Of the distribution, not -log p of the sampled token, whose mean it is but whose gradient it is not.

Laws
    L1 entropy_of_rational_distributions    L2 uniform_logits_give_log_v
    L3 a_class_at_minus_infinity_is_absent  L4 gradient_in_closed_form
    L5 expected_surprise_over_all_classes
"""

from __future__ import annotations

import math

from autodiff import namespace
from ref.spec import bind, spec

SIGNATURE = "logits[*B V] -> [*B]"


@spec("rl.entropy", SIGNATURE, grads=("logits",))
def entropy(logits, *, temperature=1.0):
    """-sum p log p of each row.

    Parameters
    ----------
    logits : float[*B V]
        At least one of a row is finite.
    temperature : float

    Returns
    -------
    float[*B]

    Raises
    ------
    ValueError
        V < 1 or temperature <= 0.
    TypeError
        logits is not float.

    Complexity: V operations a row.

    >>> import numpy as np
    >>> entropy(np.zeros((1, 2))).round(6)
    array([0.693147])
    """
    if bind("entropy", SIGNATURE, logits=logits)["V"] < 1:
        raise ValueError("entropy: V=0 classes; needed at least one")
    if not temperature > 0:
        raise ValueError(f"entropy: temperature={temperature}; needed > 0")
    xp = namespace(logits)
    present = logits > -math.inf
    x = xp.where(present, logits / temperature if temperature != 1 else logits, 0.0)
    top = xp.max(xp.where(present, x, -math.inf), axis=-1, keepdims=True)
    x = x - (top.detach() if hasattr(top, "detach") else top)
    weight = xp.where(present, xp.exp(x), 0.0)
    z = xp.sum(weight, axis=-1)
    return xp.log(z) - xp.sum(weight * x, axis=-1) / z
