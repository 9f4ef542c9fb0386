"""pass@k: the chance that one of k samples is right, estimated without bias from n.

Source: Chen et al. 2021 (2107.03374) Eq. 1.

    pass@k = 1 - C(n - c, k) / C(n, k) = 1 - prod_{i = n - c + 1}^{n} (1 - k / i)      c of n samples right

Conventions
    C1  1 - (1 - c / n)^k is biased: it draws with replacement. It is not offered.
    C2  The product of at most n factors in [0, 1]; no binomial is formed.

Laws
    L1 binomials_in_fractions               L2 unbiased_over_all_outcomes
    L3 edges
"""

from __future__ import annotations

from autodiff import namespace
from ref.spec import bind, spec

SIGNATURE = "correct:int[*B] -> [*B]"


@spec("rl.pass_at_k", SIGNATURE)
def pass_at_k(correct, *, n, k):
    """The estimate of each problem.

    Parameters
    ----------
    correct : int[*B]
        Right samples of each problem, 0..n.
    n : int
        Samples of each.
    k : int
        1..n.

    Returns
    -------
    float64[*B]

    Raises
    ------
    ValueError
        1 <= k <= n violated, or a count outside 0..n.
    TypeError
        correct is not int.

    Complexity: B n operations.

    >>> import numpy as np
    >>> pass_at_k(np.array([0, 1, 3]), n=4, k=2)
    array([0. , 0.5, 1. ])
    """
    bind("pass_at_k", SIGNATURE, correct=correct)
    xp = namespace(correct)
    if not 1 <= k <= n or bool(xp.any((correct < 0) | (correct > n))):
        raise ValueError(f"pass_at_k: n={n}, k={k}, correct {correct}; needed 1 <= k <= n and counts 0..n")
    i = xp.arange(1, n + 1, dtype=xp.int64)
    factor = xp.clip(1 - k / xp.astype(i, xp.float64), 0.0, 1.0)
    factors = xp.where(i > n - correct[..., None], factor, 1.0)
    return 1 - xp.prod(factors, axis=-1)
