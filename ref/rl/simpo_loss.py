"""SimPO: average log-probabilities, a target margin, and no reference.

Source: Meng et al. 2024 (2405.14734) Eq. 6.

    L = mean over pairs of -log sigma(beta (avg_w - avg_l) - gamma),   avg = mean log-probability of a response's tokens

Conventions
    C1  gamma is the paper's, compared with beta times the averages. The released script gives gamma / beta.
    C2  Lengths normalise: the mean, never the sum.

Laws
    L1 value_is_the_definition              L2 gradient_is_the_definition
    L3 masked_junk_is_invisible             L4 any_cut_adds_up
    L5 log_two_at_the_target_margin    L6 repeating_a_response_changes_nothing
"""

from __future__ import annotations

from autodiff.ops import softplus
from ref.rl.preference_margin import SIGNATURE, pair_mean, preference_margin
from ref.spec import bind, spec


@spec("rl.simpo_loss", f"{SIGNATURE} -> []", grads=("log_probs",))
def simpo_loss(log_probs, mask, *, beta=2.0, gamma=1.0, count=None):
    """Mean of -log sigma(beta (avg_w - avg_l) - gamma).

    Parameters
    ----------
    log_probs : float[P 2 T]
        Of the tokens of P pairs, the chosen response first.
    mask : bool[P 2 T]
        The responses' own tokens.
    beta, gamma : float
    count : int, optional
        Pairs of the whole batch, where this is a part of one.

    Returns
    -------
    float[]

    Raises
    ------
    ValueError
        Shapes that differ, no pair and no count, count < 1, beta <= 0, gamma < 0, or a response with no kept token.
    TypeError
        An array is not float or mask not bool, or dtypes or backends differ.

    Complexity: 2 P T operations.

    >>> import numpy as np
    >>> lp, mask = np.array([[[-1.0], [-1.5]]]), np.ones((1, 2, 1), bool)
    >>> round(float(simpo_loss(lp, mask)), 6)  # log 2: 2 * .5 - 1 = 0
    0.693147
    """
    bind("simpo_loss", SIGNATURE, log_probs=log_probs, mask=mask)
    if not (beta > 0 and gamma >= 0):
        raise ValueError(f"simpo_loss: beta={beta}, gamma={gamma}; needed beta > 0, gamma >= 0")
    return pair_mean("simpo_loss", softplus(gamma - beta * preference_margin(log_probs, mask, of="mean")), count)
