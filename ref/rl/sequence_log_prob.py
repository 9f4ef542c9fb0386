"""Log-probability of a response: the sum of its tokens', or their average, by name.

Source: the chain rule; Rafailov et al. 2023 (2305.18290) Eq. 7 uses the sum, Meng et al. 2024 (2405.14734) Eq. 4 and
Hong et al. 2024 (2403.07691) Eq. 3 the average. trl #789, #1265, torchtune #1291, Liger-Kernel #510 mixed them up.

    sum    log pi(y | x) = sum_{t kept} log pi(y_t | x, y_<t)
    mean   the sum over the number of kept tokens

Conventions
    C1  `of` is "sum" unless said: log pi(y) is the sum, the average is log pi(y)^(1/|y|).
    C2  What is masked may hold anything, NaN too. A row without a kept token has sum 0; its mean is an error.

Laws
    L1 sum_or_mean_in_fractions             L2 sums_add_under_concatenation
    L3 masked_junk_is_invisible             L4 gradient_is_one_or_one_over_n
"""

from __future__ import annotations

from autodiff import fusable, namespace
from ref.spec import bind, spec

SIGNATURE = "log_probs[*B T], mask:bool[*B T] -> [*B]"
OF = ("sum", "mean")


@spec("rl.sequence_log_prob", SIGNATURE, grads=("log_probs",))
@fusable("rl.sequence_log_prob", tensors=("log_probs",))
def sequence_log_prob(log_probs, mask, *, of="sum"):
    """Sum or mean of the kept log-probabilities of each row.

    Parameters
    ----------
    log_probs : float[*B T]
    mask : bool[*B T]
        The response's tokens.
    of : "sum" or "mean"

    Returns
    -------
    float[*B]

    Raises
    ------
    ValueError
        Shapes that differ, an unknown `of`, or a row with no kept token whose mean is asked for.
    TypeError
        log_probs is not float or mask not bool.

    Complexity: T additions a row.

    >>> import numpy as np
    >>> lp, mask = np.array([[-1.0, -2.0, -3.0]]), np.array([[False, True, True]])
    >>> sequence_log_prob(lp, mask), sequence_log_prob(lp, mask, of="mean")
    (array([-5.]), array([-2.5]))
    """
    bind("sequence_log_prob", SIGNATURE, log_probs=log_probs, mask=mask)
    xp = namespace(log_probs, mask)
    total = xp.sum(xp.where(mask, log_probs, 0.0), axis=-1)
    return total if of == "sum" else total / lengths("sequence_log_prob", mask, log_probs.dtype, of)


def lengths(function, mask, dtype, of="mean"):
    """Kept tokens of each row, in `dtype`; ValueError for an unknown `of` or a row of none."""
    if of not in OF:
        raise ValueError(f"{function}: of={of!r}; needed one of {', '.join(OF)}")
    xp = namespace(mask)
    n = xp.count_nonzero(mask, axis=-1)
    if bool(xp.any(n == 0)):
        raise ValueError(f"{function}: a row of the mask keeps no token; a mean needs one")
    return xp.astype(n, dtype)
