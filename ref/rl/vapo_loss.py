"""VAPO's policy loss: clip-higher over all tokens, and the likelihood of the right answers.

Source: Yue et al. 2025 (2504.05118, VAPO) Eq. 8-10; Seed-Thinking-v1.5 (2504.13914) sec. 4.

    L = (1 / N) sum_it -min(rho A, clip(rho, 1 - eps_low, 1 + eps_high) A) + mu (1 / N+) sum_{i right} sum_t -log pi_t
    N, N+: kept tokens of all, and of the right responses; eps .2, .28; mu .1

Conventions
    C1  Both means are over tokens: responses weigh by their length.
    C2  Without a right response the second term is 0, not 0 / 0.
    C3  A comes of GAE with `vapo_lambdas`, and of a critic that was pretrained on returns.
    C4  count and count_correct are N and N+ of the whole batch, where this is a part of one.

Laws
    L1 value_is_the_definition              L2 gradient_is_the_definition
    L3 masked_junk_is_invisible             L4 masking_is_deleting
    L5 any_cut_adds_up                      L6 right_answers_are_imitated
"""

from __future__ import annotations

from autodiff import namespace
from ref.rl.clipped_surrogate import SIGNATURE, check_policy, clipped_surrogate
from ref.rl.reduce import row_weights
from ref.rl.score_loss import score_loss
from ref.spec import bind, spec

VAPO = f"{SIGNATURE}, correct:bool[B]"


@spec("rl.vapo_loss", f"{VAPO} -> []", grads=("log_probs",))
def vapo_loss(
    log_probs, old_log_probs, advantages, mask, correct, *, eps_low=0.2, eps_high=0.28, mu=0.1, count=None,
    count_correct=None,
):  # fmt: skip
    """Loss of a batch of responses.

    Parameters
    ----------
    log_probs, old_log_probs : float[B T]
    advantages : float[B t]
        t = T, or 1 for one a response.
    mask : bool[B T]
    correct : bool[B]
        Responses whose likelihood is raised.
    eps_low, eps_high : float
        The clip range is 1 - eps_low .. 1 + eps_high.
    mu : float
        Weight of the likelihood term.
    count, count_correct : int, optional
        Kept tokens of the whole batch, and of its right responses (C4).

    Returns
    -------
    float[]

    Raises
    ------
    ValueError
        What `clipped_surrogate` and `reduce` refuse, mu < 0, or count without count_correct.
    TypeError
        An array is not float or mask not bool, or dtypes or backends differ.

    Complexity: one exponential a token.

    >>> import numpy as np
    >>> lp, mask = np.log([[0.5], [0.25]]), np.ones((2, 1), bool)
    >>> found = vapo_loss(lp, lp, np.zeros((2, 1)), mask, np.array([False, True]))
    >>> round(float(found / np.log(4)), 6)
    0.1
    """
    check_policy("vapo_loss", log_probs, old_log_probs, advantages, mask, eps_low, eps_high)
    bind("vapo_loss", "mask:bool[B T], correct:bool[B]", mask=mask, correct=correct)
    if not mu >= 0 or (count is None) != (count_correct is None):
        raise ValueError(f"vapo_loss: mu={mu}, count={count}, count_correct={count_correct}; needed mu >= 0, and both "
                         "counts or neither")  # fmt: skip
    xp = namespace(log_probs, old_log_probs, advantages, mask)
    weights = row_weights("vapo_loss", mask, log_probs.dtype, reduction="token-mean", count=count)
    loss = clipped_surrogate(log_probs, old_log_probs, advantages, mask, weights, eps_low=eps_low, eps_high=eps_high)
    right = mask & correct[:, None]
    n = int(xp.count_nonzero(right)) if count_correct is None else count_correct
    if not (mu and n):
        return loss
    imitation = row_weights("vapo_loss", right, log_probs.dtype, reduction="token-mean", count=n)
    one = xp.ones((log_probs.shape[0], 1), dtype=log_probs.dtype)
    return xp.add(loss, mu * score_loss(log_probs, one, right, imitation))
