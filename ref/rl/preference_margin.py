"""The margin of a preference pair: how much more the policy favours the chosen response than the reference does.

Source: Rafailov et al. 2023 (2305.18290) Eq. 7; Meng et al. 2024 (2405.14734) Eq. 4 without a reference and averaged.

    D = [log pi(y_w) - log ref(y_w)] - [log pi(y_l) - log ref(y_l)],   log pi(y) = sum of its kept tokens, or their mean

Notation
    log_probs[P 2 T], the chosen response at 0 and the rejected at 1 -> D[P].

Conventions
    C1  Pairs stand in one batch, as trainers forward them; both are padded to one T and masked, prompts too.
    C2  of="sum" unless said: with "mean" short and long responses weigh alike and it is another loss (trl #789, #1265,
        torchtune #1291, Liger-Kernel #510).
    C3  ref is data. What is masked may hold anything, NaN too.

Laws
    L1 margin_in_fractions                  L2 sums_add_under_concatenation
    L3 masked_junk_is_invisible             L4 gradient_is_one_a_token
    L5 exchanging_the_pair_negates
"""

from __future__ import annotations

from autodiff import fusable, namespace
from ref.rl.reduce import data
from ref.rl.sequence_log_prob import OF, sequence_log_prob
from ref.spec import bind, spec

SIGNATURE = "log_probs[P 2 T], mask:bool[P 2 T]"


@spec("rl.preference_margin", f"{SIGNATURE} -> [P]", grads=("log_probs",))
@fusable("rl.preference_margin", tensors=("log_probs",))
def preference_margin(log_probs, mask, *, ref_log_probs=None, of="sum"):
    """D of each pair.

    Parameters
    ----------
    log_probs : float[P 2 T]
        Of the tokens of P pairs, the chosen response first.
    mask : bool[P 2 T]
        The responses' own tokens.
    ref_log_probs : float[P 2 T], optional
        Of the reference policy; without it D is the policy's own.
    of : "sum" or "mean"
        Over the tokens of a response.

    Returns
    -------
    float[P]

    Raises
    ------
    ValueError
        Shapes that differ, an unknown `of`, or a response with no kept token whose mean is asked for.
    TypeError
        An array is not float or mask not bool, or dtypes or backends differ.

    Complexity: 2 P T operations.

    >>> import numpy as np
    >>> lp, ref = np.array([[[-1.0, -1.0], [-2.0, -9.0]]]), np.array([[[-1.5, -1.0], [-1.0, -9.0]]])
    >>> preference_margin(lp, np.array([[[True, True], [True, False]]]), ref_log_probs=ref)
    array([1.5])
    """
    signature = f"{SIGNATURE}, ref_log_probs[P 2 T]"
    bind("preference_margin", signature, log_probs=log_probs, mask=mask, ref_log_probs=ref_log_probs)
    if of not in OF:
        raise ValueError(f"preference_margin: of={of!r}; needed one of {', '.join(OF)}")
    xp = namespace(log_probs, mask, ref_log_probs)
    gap = log_probs if ref_log_probs is None else xp.where(mask, log_probs - data(ref_log_probs), 0.0)
    total = sequence_log_prob(gap, mask, of=of)
    return total[:, 0] - total[:, 1]


def pair_mean(function, losses, count):
    """Their sum over the number of pairs, of the whole batch if `count` says so."""
    P = losses.shape[0]
    if (count is None and P < 1) or (count is not None and not count >= 1):
        raise ValueError(f"{function}: P={P} pairs, count={count}; needed a pair, or count >= 1")
    return namespace(losses).sum(losses) / (count or P)
