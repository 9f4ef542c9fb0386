"""Bradley-Terry: the reward model's loss over pairs, with a margin if the annotators gave one.

Source: Bradley & Terry 1952; Ouyang et al. 2022 (2203.02155) Eq. 1; the margin: Touvron et al. 2023 (2307.09288, LLaMA
2) Eq. 2 and its Table 27.

    L = mean of w_p softplus(-(r_w - r_l - m)),   P(w beats l) = sigma(r_w - r_l)

Conventions
    C1  Rewards matter up to a constant (the gauge); centre them elsewhere if a scale is needed.
    C2  LLaMA 2's margins by how clear the choice was (significantly, better, slightly, negligibly): LLAMA2_MARGINS.
    C3  K-wise comparisons of one prompt are `k_wise_loss`; rankings as one event `plackett_luce_loss`.

Laws
    L1 value_is_the_definition              L2 gradient_is_the_definition
    L3 gauge_and_exchange                   L4 far_rewards_stay_finite
"""

from __future__ import annotations

from autodiff import namespace
from autodiff.ops import softplus
from ref.rl.preference_margin import pair_mean
from ref.rl.reduce import data
from ref.spec import bind, spec

SIGNATURE = "chosen[P], rejected[P]"
LLAMA2_MARGINS = {"small": (1.0, 2 / 3, 1 / 3, 0.0), "large": (3.0, 2.0, 1.0, 0.0)}


@spec("rl.bradley_terry_loss", f"{SIGNATURE} -> []", grads=("chosen", "rejected"))
def bradley_terry_loss(chosen, rejected, *, margin=None, count=None):
    """Mean of -log sigma(r_w - r_l - m).

    Parameters
    ----------
    chosen, rejected : float[P]
        Rewards of both responses of each pair.
    margin : float[P], optional
    count : int, optional
        Pairs of the whole batch, where this is a part of one.

    Returns
    -------
    float[]

    Raises
    ------
    ValueError
        Shapes that differ, no pair and no count, count < 1, or a negative margin.
    TypeError
        An array is not float, or dtypes or backends differ.

    Complexity: P operations.

    >>> import numpy as np
    >>> round(float(bradley_terry_loss(np.array([1.0]), np.array([0.0]), margin=np.array([1.0]))), 6)  # log 2
    0.693147
    """
    bind("bradley_terry_loss", f"{SIGNATURE}, margin[P]", chosen=chosen, rejected=rejected, margin=margin)
    xp = namespace(chosen, rejected, margin)
    if margin is not None and bool(xp.any(data(margin) < 0)):
        raise ValueError("bradley_terry_loss: a margin is negative; needed all >= 0")
    gap = xp.subtract(rejected, chosen)
    return pair_mean("bradley_terry_loss", softplus(gap if margin is None else gap + data(margin)), count)
