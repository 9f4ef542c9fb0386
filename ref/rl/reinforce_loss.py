"""REINFORCE with a baseline.

Source: Williams 1992 (Machine Learning 8) Eq. 4; over responses: Ahmadian et al. 2024 (2402.14740) Eq. 5-6.

    L = -reduction of (R - b) log pi_t,   E grad L = -grad E R for any b that the response does not change

Notation
    R -> returns[B t], b -> baselines[B t], t = T (of tokens, as return-to-go) or 1 (of responses).

Conventions
    C1  R and b are data. b = the mean of the batch, its own R included, scales the expected gradient by (B - 1) / B;
        the mean of the others (`rloo_advantages`) leaves it.
    C2  log pi(y) is the sum over its tokens: seq-mean-token-sum is the policy gradient of E R. The other reductions
        weigh responses by their length.

Laws
    L1 value_is_the_definition              L2 gradient_is_the_definition
    L3 masked_junk_is_invisible             L4 masking_is_deleting
    L5 any_cut_adds_up                      L6 policy_gradient_for_any_baseline
    L7 the_batch_mean_costs_one_over_b
"""

from __future__ import annotations

from autodiff import namespace
from ref.rl.reduce import data, row_weights
from ref.rl.score_loss import score_loss
from ref.spec import bind, spec

SIGNATURE = "log_probs[B T], returns[B t], baselines[B t], mask:bool[B T]"


@spec("rl.reinforce_loss", f"{SIGNATURE} -> []", grads=("log_probs",))
def reinforce_loss(
    log_probs, returns, baselines, mask, *, reduction="seq-mean-token-sum", count=None, length=None, empty="refuse"
):  # fmt: skip
    """Score-function loss of a batch of responses.

    Parameters
    ----------
    log_probs : float[B T]
    returns, baselines : float[B t]
        t = T, or 1 for one a response.
    mask : bool[B T]
    reduction, count, length, empty
        As `reduce` takes them.

    Returns
    -------
    float[]

    Raises
    ------
    ValueError
        Shapes that differ, t neither T nor 1, or what `reduce` refuses.
    TypeError
        An array is not float or mask not bool, or dtypes or backends differ.

    Complexity: B T operations.

    >>> import numpy as np
    >>> one = np.ones((1, 1))
    >>> float(reinforce_loss(-one, 3 * one, one, one > 0))
    2.0
    """
    bind("reinforce_loss", SIGNATURE, log_probs=log_probs, returns=returns, baselines=baselines, mask=mask)
    how = {"reduction": reduction, "count": count, "length": length, "empty": empty}
    weights = row_weights("reinforce_loss", mask, log_probs.dtype, **how)
    xp = namespace(returns, baselines)
    return score_loss(log_probs, xp.subtract(data(returns), data(baselines)), mask, weights)
