"""The KL term of a policy loss: an estimator's values, weighed by rows and added.

Source: Shao et al. 2024 (2402.03300) Eq. 3-4, where k3 enters the loss; which gradient each estimator has in
expectation stands with `kl_estimator`.

    L = sum_i w_i sum_{t kept} k(log_probs_it, ref_log_probs_it)

Notation
    w -> weights[B], from `reduce.row_weights`; kind, gradient, old_log_probs, clamp, clamp_value as `kl_estimator`'s.

Conventions
    C1  What is masked may hold anything, NaN too, and changes neither the loss nor a gradient.
    C2  For a reverse KL that is differentiated say kind="k2", or k3 with old_log_probs; plain k3 is GRPO's.

Laws
    L1 value_is_the_definition              L2 gradient_is_the_definition
    L3 masked_junk_is_invisible             L4 masking_is_deleting
"""

from __future__ import annotations

from autodiff import fusable, namespace
from ref.rl.kl_estimator import check_kind, kl_estimator
from ref.rl.reduce import data
from ref.spec import bind, spec

SIGNATURE = "log_probs[B T], ref_log_probs[B T], mask:bool[B T], weights[B]"


@spec("rl.kl_loss", f"{SIGNATURE} -> []", grads=("log_probs",))
@fusable("rl.kl_loss", tensors=("log_probs",))
def kl_loss(
    log_probs, ref_log_probs, mask, weights, *, kind="k3", gradient=None, old_log_probs=None, clamp=None,
    clamp_value=None
):  # fmt: skip
    """Weighted sum of KL estimates over the kept tokens.

    Parameters
    ----------
    log_probs, ref_log_probs : float[B T]
    mask : bool[B T]
    weights : float[B]
        What each kept token of a row weighs.
    kind, gradient, old_log_probs, clamp, clamp_value
        As `kl_estimator` takes them.

    Returns
    -------
    float[]

    Raises
    ------
    ValueError
        Shapes that differ, or what `kl_estimator` refuses.
    TypeError
        An array is not float or mask not bool, or dtypes or backends differ.

    Complexity: one exponential a token.

    >>> import numpy as np
    >>> one = np.ones((1, 1))
    >>> round(float(kl_loss(np.log(one / 2), np.log(one / 4), one > 0, one[0])), 4)
    0.1931
    """
    arrays = {"log_probs": log_probs, "ref_log_probs": ref_log_probs, "mask": mask, "weights": weights}
    bind("kl_loss", f"{SIGNATURE}, old_log_probs[B T]", **arrays, old_log_probs=old_log_probs)
    check_kind("kl_loss", kind, gradient, clamp, clamp_value)
    xp = namespace(log_probs, ref_log_probs, mask, weights, old_log_probs)
    lp, ref = (xp.where(mask, x, 0.0) for x in (log_probs, ref_log_probs))
    old = None if old_log_probs is None else xp.where(mask, old_log_probs, 0.0)
    how = {"gradient": gradient, "old_log_probs": old, "clamp": clamp, "clamp_value": clamp_value}
    return xp.sum(xp.sum(kl_estimator(lp, ref, kind=kind, **how), axis=-1) * data(weights))
