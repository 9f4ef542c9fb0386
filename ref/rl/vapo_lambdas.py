"""VAPO's decoupled, length-adaptive lambda: GAE's decay for the policy, by the length of the response.

Source: Yue et al. 2025 (2504.05118, VAPO) Eq. 6-7; Seed-Thinking-v1.5 (2504.13914) sec. 4; decoupled GAE: Yuan et al.
2025 (2503.01491, VC-PPO).

    lambda_policy = 1 - 1 / (alpha len),   lambda_critic = 1
    so that sum_{t >= 0} lambda_policy^t = alpha len: the decay reaches as far as the response, in proportion
    a reward on the last of T tokens reaches the first with weight lambda^(T - 1) (gamma 1, GAE's own recursion)

Conventions
    C1  alpha .05 (the paper's). For len <= 1 / alpha (20) the formula is <= 0, clamped to 0: the advantage is delta.
    C2  The critic's own target is GAE with lambda 1, the Monte Carlo return: CRITIC_LAMBDA. One lambda for both is PPO.

Laws
    L1 one_less_the_inverse_in_fractions    L2 the_geometric_sum_is_alpha_len
    L3 clamped_where_it_would_be_negative
"""

from __future__ import annotations

from autodiff import namespace
from ref.spec import bind, spec

SIGNATURE = "lengths:int[*B] -> [*B]"
CRITIC_LAMBDA = 1.0


@spec("rl.vapo_lambdas", SIGNATURE)
def vapo_lambdas(lengths, *, alpha=0.05):
    """lambda of the policy's GAE for each response.

    Parameters
    ----------
    lengths : int[*B]
        At least 1.
    alpha : float

    Returns
    -------
    float64[*B]

    Raises
    ------
    ValueError
        A length below 1, or alpha <= 0.
    TypeError
        lengths is not int.

    Complexity: B operations.

    >>> import numpy as np
    >>> vapo_lambdas(np.array([10, 40, 200]))
    array([0. , 0.5, 0.9])
    """
    bind("vapo_lambdas", SIGNATURE, lengths=lengths)
    xp = namespace(lengths)
    if not alpha > 0 or bool(xp.any(lengths < 1)):
        raise ValueError(f"vapo_lambdas: alpha={alpha}, lengths {lengths}; needed alpha > 0 and lengths >= 1")
    return xp.clip(1 - 1 / (alpha * xp.astype(lengths, xp.float64)), 0.0, 1.0)
