"""KTO: responses judged one by one, against the average divergence from the reference.

Source: Ethayarajh et al. 2024 (2402.01306) Eq. 8.

    D_y = log pi(y) - log ref(y)
    desirable    lambda_D (1 - sigma(beta (D_y - z0)))
    undesirable  lambda_U (1 - sigma(beta (z0 - D_y)))
    z0 = max(0, mean over mismatched pairs (x, y') of log pi(y' | x) - log ref(y' | x)), held fixed
    L = mean over responses

Notation
    mismatched[M S], ref_mismatched[M S], mismatched_mask[M S]: responses scored under other prompts.

Conventions
    C1  z0 is data, never below 0, and one number for the batch. Over ranks it is that of all of them: give it as z0.
    C2  lambda_D n_D and lambda_U n_U should be of one size; both are 1 unless said.
    C3  Sums over a response's tokens, as in DPO.

Laws
    L1 value_is_the_definition              L2 gradient_is_the_definition
    L3 masked_junk_is_invisible             L4 any_cut_adds_up
    L5 half_at_the_reference           L6 z0_is_the_clipped_mean_of_the_mismatched
"""

from __future__ import annotations

from autodiff import namespace
from autodiff.ops import sigmoid
from ref.rl.preference_margin import pair_mean
from ref.rl.reduce import data
from ref.rl.sequence_log_prob import sequence_log_prob
from ref.spec import bind, spec

SIGNATURE = (
    "log_probs[B T], ref_log_probs[B T], mask:bool[B T], desirable:bool[B], mismatched[M S], ref_mismatched[M S], "
    "mismatched_mask:bool[M S]"
)


@spec("rl.kto_loss", f"{SIGNATURE} -> []", grads=("log_probs",))
def kto_loss(
    log_probs, ref_log_probs, mask, desirable, mismatched=None, ref_mismatched=None, mismatched_mask=None, *, beta=0.1,
    lambda_d=1.0, lambda_u=1.0, z0=None, count=None,
):  # fmt: skip
    """Mean of the responses' losses.

    Parameters
    ----------
    log_probs, ref_log_probs : float[B T]
    mask : bool[B T]
        The responses' own tokens.
    desirable : bool[B]
    mismatched, ref_mismatched : float[M S], optional
        Log-probabilities of responses under prompts that are not theirs; needed unless z0 is given.
    mismatched_mask : bool[M S], optional
    beta, lambda_d, lambda_u : float
    z0 : float, optional
        The reference point, if it is known (C1).
    count : int, optional
        Responses of the whole batch, where this is a part of one.

    Returns
    -------
    float[]

    Raises
    ------
    ValueError
        Shapes that differ, neither z0 nor mismatched pairs or both, no response and no count, count < 1, beta <= 0, a
        negative lambda, or z0 < 0.
    TypeError
        An array is not float or a mask not bool, or dtypes or backends differ.

    Complexity: B T + M S operations.

    >>> import numpy as np
    >>> lp, one = np.log([[0.5], [0.25]]), np.ones((2, 1), bool)
    >>> float(kto_loss(lp, lp, one, np.array([True, False]), z0=0.0))
    0.5
    """
    arrays = {"log_probs": log_probs, "ref_log_probs": ref_log_probs, "mask": mask, "desirable": desirable}
    others = {"mismatched": mismatched, "ref_mismatched": ref_mismatched, "mismatched_mask": mismatched_mask}
    bind("kto_loss", SIGNATURE, **arrays, **others)
    given = [x is not None for x in others.values()]
    if any(given) != all(given) or any(given) == (z0 is not None):
        raise ValueError("kto_loss: needed z0, or mismatched, ref_mismatched and mismatched_mask")
    if not (beta > 0 and lambda_d >= 0 and lambda_u >= 0 and (z0 is None or z0 >= 0)):
        raise ValueError(
            f"kto_loss: beta={beta}, lambda_d={lambda_d}, lambda_u={lambda_u}, z0={z0}; needed beta > 0 and "
            "the others >= 0")  # fmt: skip
    xp = namespace(log_probs, ref_log_probs, mask, desirable)
    if z0 is None:
        z0 = reference_point(data(mismatched), data(ref_mismatched), mismatched_mask)
    D = sequence_log_prob(xp.where(mask, log_probs - data(ref_log_probs), 0.0), mask)
    gain = xp.where(desirable, D - z0, z0 - D)
    weight = xp.where(desirable, lambda_d, xp.full(desirable.shape, lambda_u, dtype=log_probs.dtype))
    return pair_mean("kto_loss", xp.multiply(weight, sigmoid(-beta * gain)), count)


def reference_point(mismatched, ref_mismatched, mask):
    """z0: mean log-ratio of the mismatched responses, not below 0; 0 where there are none."""
    xp = namespace(mismatched, ref_mismatched, mask)
    if mismatched.shape[0] == 0:
        return 0.0
    total = sequence_log_prob(xp.where(mask, mismatched - ref_mismatched, 0.0), mask)
    return max(0.0, float(xp.mean(total)))
