"""Importance ratios of tokens or of whole responses, in log space.

Source: Schulman et al. 2017 (1707.06347) sec. 3, the token's; Zheng et al. 2025 (2507.18071, GSPO) Eq. 7, the
response's with its length normalised.

    token      rho_t = pi(y_t | .) / pi_old(y_t | .)                        of each token
    sequence   s = (pi(y) / pi_old(y))^(1 / n) = exp(mean_t log rho_t)      of each response, n kept tokens
    product    pi(y) / pi_old(y) = exp(sum_t log rho_t)                     of each response

Notation
    log pi -> log_probs, log pi_old -> old_log_probs; a response's ratio stands at each of its kept tokens.

Conventions
    C1  A masked slot has no ratio: 0, whatever stands there (NaN too), and gradient 0.
    C2  pi_old is data: no gradient flows to it.
    C3  The product is unbiased and of a variance that grows with the length; that of GSPO is its n-th root.

Laws
    L1 ratios_by_their_definition           L2 token_ratios_multiply_to_the_product
    L3 expectation_under_the_old_policy     L4 masked_junk_is_invisible
    L5 gradient_is_the_ratio
"""

from __future__ import annotations

from autodiff import namespace
from ref.rl.reduce import data
from ref.rl.sequence_log_prob import lengths
from ref.spec import bind, spec

SIGNATURE = "log_probs[*B T], old_log_probs[*B T], mask:bool[*B T] -> [*B T]"
LEVELS = ("token", "sequence", "product")


@spec("rl.importance_ratio", SIGNATURE, grads=("log_probs",))
def importance_ratio(log_probs, old_log_probs, mask, *, level):
    """pi / pi_old of each token, or of its response.

    Parameters
    ----------
    log_probs, old_log_probs : float[*B T]
    mask : bool[*B T]
    level : "token", "sequence" or "product"

    Returns
    -------
    float[*B T]
        0 where masked.

    Raises
    ------
    ValueError
        Shapes that differ, an unknown level, or at level "sequence" a row with no kept token.
    TypeError
        An array is not float or mask not bool, or dtypes or backends differ.

    Complexity: T exponentials a row, or one.

    >>> import numpy as np
    >>> lp, old, mask = np.log([[0.5, 0.4]]), np.log([[0.25, 0.1]]), np.ones((1, 2), bool)
    >>> importance_ratio(lp, old, mask, level="token"), importance_ratio(lp, old, mask, level="product")
    (array([[2., 4.]]), array([[8., 8.]]))
    """
    bind("importance_ratio", SIGNATURE, log_probs=log_probs, old_log_probs=old_log_probs, mask=mask)
    xp = namespace(log_probs, old_log_probs, mask)
    return xp.where(mask, xp.exp(log_ratio("importance_ratio", log_probs, old_log_probs, mask, level)), 0.0)


def log_ratio(function, log_probs, old_log_probs, mask, level):
    """The logarithm of the ratio, [*B T] at level "token" and [*B 1] else; 0 at masked tokens."""
    if level not in LEVELS:
        raise ValueError(f"{function}: level={level!r}; needed one of {', '.join(LEVELS)}")
    xp = namespace(log_probs, old_log_probs, mask)
    gap = xp.where(mask, log_probs - data(old_log_probs), 0.0)
    if level == "token":
        return gap
    total = xp.sum(gap, axis=-1)
    if level == "sequence":
        total = total / lengths(function, mask, log_probs.dtype)
    return total[..., None]
