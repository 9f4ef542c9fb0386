"""Whitening under a mask: mean 0 and variance 1 over the kept places.

Source: Schulman et al. 2015 (1506.02438) sec. 6 normalises advantages so; the masked form is that of Ziegler et al.
2019 (1909.08593)'s code, whence TRL's and verl's.

    z = (x - m) / sqrt(v + eps)     eps_at="variance"         m, v: mean and variance over the kept places of the scope
    z = (x - m) / (sqrt(v) + eps)   eps_at="deviation"        v = sum (x - m)^2 / (n - ddof)
    shift_mean=False adds m again

Conventions
    C1  ddof 0 is the population's variance (OpenRLHF), 1 the unbiased one (TRL, verl). eps 1e-8 under the root is TRL's
        and verl's; baselines adds 1e-8 to the deviation.
    C2  scope="batch" is one mean for all rows, "row" one a row. Over ranks or micro-batches give the pooled `moments`
        (`running_moments`): whitening each part by itself is another function.
    C3  A masked place is 0 and may have held anything, NaN too.

Laws
    L1 value_is_the_definition              L2 mean_zero_and_variance_one
    L3 masked_junk_is_invisible             L4 affine_invariance
    L5 parts_under_pooled_moments
"""

from __future__ import annotations

from autodiff import namespace
from ref.rl.running_moments import Moments, moments_of
from ref.spec import bind, spec

SIGNATURE = "x[B T], mask:bool[B T] -> [B T]"
SCOPES = ("batch", "row")
EPS_AT = ("variance", "deviation")


@spec("rl.whiten", SIGNATURE)
def whiten(x, mask, *, shift_mean=True, ddof=1, eps=1e-8, eps_at="variance", scope="batch", moments=None):
    """x less its mean over its deviation, over the kept places.

    Parameters
    ----------
    x : float[B T]
    mask : bool[B T]
    shift_mean : bool
        False keeps the mean.
    ddof : 0 or 1
    eps : float
    eps_at : "variance" or "deviation"
        What eps is added to.
    scope : "batch" or "row"
        Whose mean and variance.
    moments : Moments, optional
        Of the whole batch, where this is a part of one.

    Returns
    -------
    float[B T]
        0 where masked.

    Raises
    ------
    ValueError
        Shapes that differ, fewer than ddof + 1 kept places in a scope, an unknown option, eps < 0, or moments with
        scope "row".
    TypeError
        x is not float or mask not bool.

    Complexity: a few passes over x.

    >>> import numpy as np
    >>> whiten(np.array([[1.0, 3.0, 9.0]]), np.array([[True, True, False]]), ddof=0, eps=0.0)
    array([[-1.,  1.,  0.]])
    """
    bind("whiten", SIGNATURE, x=x, mask=mask)
    if scope not in SCOPES or eps_at not in EPS_AT or ddof not in (0, 1) or not eps >= 0:
        raise ValueError(
            f"whiten: scope={scope!r}, eps_at={eps_at!r}, ddof={ddof}, eps={eps}; needed scope of {SCOPES}, "
            f"eps_at of {EPS_AT}, ddof 0 or 1, eps >= 0")  # fmt: skip
    if moments is not None and scope == "row":
        raise ValueError("whiten: moments given with scope='row'; they are of a whole batch")
    xp = namespace(x, mask)
    kept = xp.where(mask, x, 0.0)
    count, mean, m2 = moments or _moments(xp, kept, mask, scope)
    if bool(xp.any(xp.asarray(count) < ddof + 1)):
        raise ValueError(f"whiten: a {scope} keeps fewer than ddof + 1 = {ddof + 1} places")
    variance = m2 / (count - ddof)
    deviation = xp.sqrt(variance + eps) if eps_at == "variance" else xp.sqrt(variance) + eps
    z = (kept - mean) / deviation
    return xp.where(mask, z if shift_mean else z + mean, 0.0)


def _moments(xp, kept, mask, scope):
    """Count, mean and sum of squares about it, of the batch or of each row."""
    if scope == "batch":
        return moments_of(xp, kept, mask)
    count = xp.astype(xp.count_nonzero(mask, axis=-1, keepdims=True), kept.dtype)
    mean = xp.sum(kept, axis=-1, keepdims=True) / xp.where(count > 0, count, 1.0)
    return Moments(count, mean, xp.sum(xp.where(mask, (kept - mean) ** 2, 0.0), axis=-1, keepdims=True))
