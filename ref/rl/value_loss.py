"""The critic's loss, clipped around the old value or not.

Source: the clipped form is that of Schulman et al. 2017's code (baselines ppo2); no equation of the paper has it.

    L = (1/2) reduction of max((V - R)^2, (clip(V, V_old - clip, V_old + clip) - R)^2)
    without a clip   (1/2) reduction of (V - R)^2

Conventions
    C1  The larger of both (TRL, verl, OpenRLHF, MOSS-RLHF): a value that ran past the clip is not rewarded for it.
        Where the clipped error is the larger one the gradient is 0.
    C2  The half stands outside the maximum (TRL: vf_coef and 0.5; some leave it to the coefficient: half=False).
    C3  V_old and R are data; masked tokens may hold anything.

Laws
    L1 value_is_the_definition              L2 gradient_is_the_definition
    L3 masked_junk_is_invisible             L4 never_below_the_unclipped
    L5 any_cut_adds_up
"""

from __future__ import annotations

from autodiff import namespace
from ref.rl.reduce import data, reduce
from ref.spec import bind, spec

SIGNATURE = "values[B T], old_values[B T], returns[B T], mask:bool[B T] -> []"


@spec("rl.value_loss", SIGNATURE, grads=("values",))
def value_loss(
    values, old_values, returns, mask, *, clip=None, half=True, reduction="token-mean", count=None, length=None,
    empty="refuse",
):  # fmt: skip
    """Squared error of the values, pessimistic about moves beyond the clip.

    Parameters
    ----------
    values, old_values, returns : float[B T]
    mask : bool[B T]
    clip : float, optional
        How far a value may move for credit.
    half : bool
        Whether the factor 1/2 is in the loss (C2).
    reduction, count, length, empty
        As `reduce` takes them.

    Returns
    -------
    float[]

    Raises
    ------
    ValueError
        Shapes that differ, clip <= 0, or what `reduce` refuses.
    TypeError
        An array is not float or mask not bool, or dtypes or backends differ.

    Complexity: B T operations.

    >>> import numpy as np
    >>> one = np.ones((1, 1))
    >>> float(value_loss(2 * one, one, 3 * one, one > 0, clip=0.5))  # (1.5 - 3)^2 / 2
    1.125
    """
    bind("value_loss", SIGNATURE, values=values, old_values=old_values, returns=returns, mask=mask)
    if clip is not None and not clip > 0:
        raise ValueError(f"value_loss: clip={clip}; needed > 0")
    xp = namespace(values, old_values, returns, mask)
    target = data(returns)
    error = xp.where(mask, values - target, 0.0)
    loss = error * error
    if clip is not None:
        old = data(old_values)
        moved = xp.where(mask, xp.subtract(xp.clip(values - old, -clip, clip), target - old), 0.0)
        loss = xp.maximum(loss, moved * moved)
    how = {"reduction": reduction, "count": count, "length": length, "empty": empty}
    return reduce(loss / 2 if half else loss, mask, **how)
