"""IPO: the margin is regressed to a fixed width, so that certain preferences do not drive it to infinity.

Source: Azar et al. 2023 (2310.12036) Eq. 17.

    L = mean over pairs of (D - 1 / (2 tau))^2
    minimiser, both responses drawn from mu:  pi* = ref exp(P(y > mu) / tau) / Z,   P(y > mu) = sum_y' mu(y') P(y > y')

Conventions
    C1  of="sum" is the paper's. TRL averages D over the tokens, of="mean" here: its tau is a token's.
    C2  tau is what libraries call beta.

Laws
    L1 value_is_the_definition              L2 gradient_is_the_definition
    L3 masked_junk_is_invisible             L4 any_cut_adds_up
    L5 zero_at_half_over_tau           L6 the_optimum_in_closed_form
"""

from __future__ import annotations

from ref.rl.dpo_loss import reference_margin
from ref.rl.preference_margin import pair_mean
from ref.spec import spec


@spec("rl.ipo_loss", "log_probs[P 2 T], ref_log_probs[P 2 T], mask:bool[P 2 T] -> []", grads=("log_probs",))
def ipo_loss(log_probs, ref_log_probs, mask, *, tau=0.1, of="sum", count=None):
    """Mean of (D - 1 / (2 tau))^2.

    Parameters
    ----------
    log_probs, ref_log_probs : float[P 2 T]
        Of the tokens of P pairs, the chosen response first.
    mask : bool[P 2 T]
        The responses' own tokens.
    tau : float
    of : "sum" or "mean"
        Over the tokens of a response (C1).
    count : int, optional
        Pairs of the whole batch, where this is a part of one.

    Returns
    -------
    float[]

    Raises
    ------
    ValueError
        Shapes that differ, no pair and no count, count < 1, tau <= 0, or what `preference_margin` refuses.
    TypeError
        An array is not float or mask not bool, or dtypes or backends differ.

    Complexity: 2 P T operations.

    >>> import numpy as np
    >>> lp, mask = np.log([[[0.5], [0.25]]]), np.ones((1, 2, 1), bool)
    >>> float(ipo_loss(lp, lp, mask, tau=0.25))
    4.0
    """
    if not tau > 0:
        raise ValueError(f"ipo_loss: tau={tau}; needed > 0")
    off = reference_margin("ipo_loss", log_probs, ref_log_probs, mask, of=of) - 1 / (2 * tau)
    return pair_mean("ipo_loss", off * off, count)
