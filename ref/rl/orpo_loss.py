"""ORPO: the likelihood of the chosen response, and the ratio of the odds of both.

Source: Hong et al. 2024 (2403.07691) Eq. 3-7.

    log P(y) = mean of its tokens' log-probabilities,   odds = P / (1 - P)
    L = mean over pairs of -log P(y_w) - lambda log sigma(log odds(y_w) - log odds(y_l))

Conventions
    C1  Average log-probabilities in both terms; no reference.
    C2  log(1 - P) is log1mexp(-log P): no 1 - 1 is formed where P is near 1.
    C3  The likelihood term averages each response's tokens, then the pairs. nll="token" is the mean over all tokens of
        the chosen responses (TRL); no cut of a batch then has a count, and `count` is refused.

Laws
    L1 value_is_the_definition              L2 gradient_is_the_definition
    L3 masked_junk_is_invisible             L4 any_cut_adds_up
    L5 equal_odds_leave_the_likelihood
    L6 near_certain_responses_keep_their_digits
"""

from __future__ import annotations

from autodiff import namespace
from autodiff.ops import log1mexp, softplus
from ref.rl.preference_margin import SIGNATURE, pair_mean
from ref.rl.sequence_log_prob import sequence_log_prob
from ref.spec import bind, spec

NLL = ("sequence", "token")


@spec("rl.orpo_loss", f"{SIGNATURE} -> []", grads=("log_probs",))
def orpo_loss(log_probs, mask, *, weight=0.1, nll="sequence", count=None):
    """Mean negative log-likelihood of the chosen, and the weighted log odds ratio loss.

    Parameters
    ----------
    log_probs : float[P 2 T]
        Of the tokens of P pairs, the chosen response first.
    mask : bool[P 2 T]
        The responses' own tokens.
    weight : float
        lambda.
    nll : "sequence" or "token"
        Over what the likelihood is averaged (C3).
    count : int, optional
        Pairs of the whole batch, where this is a part of one.

    Returns
    -------
    float[]

    Raises
    ------
    ValueError
        Shapes that differ, no pair and no count, count < 1, weight < 0, an unknown nll, nll='token' with a count, a
        response with no kept token, or one whose average log-probability is not below 0.
    TypeError
        An array is not float or mask not bool, or dtypes or backends differ.

    Complexity: 2 P T operations.

    >>> import numpy as np
    >>> lp, mask = np.log([[[0.5], [0.5]]]), np.ones((1, 2, 1), bool)
    >>> round(float(orpo_loss(lp, mask)) / float(np.log(2)), 6)
    1.1
    """
    bind("orpo_loss", SIGNATURE, log_probs=log_probs, mask=mask)
    if not weight >= 0 or nll not in NLL or (nll == "token" and count is not None):
        raise ValueError(
            f"orpo_loss: weight={weight}, nll={nll!r}, count={count}; needed weight >= 0 and nll 'sequence', "
            "or 'token' and no count")  # fmt: skip
    xp = namespace(log_probs, mask)
    average = sequence_log_prob(log_probs, mask, of="mean")
    if bool(xp.any(average >= 0)):
        raise ValueError("orpo_loss: a response has average log-probability >= 0; odds need one below 0")
    odds = average - log1mexp(-average)
    ratio = weight * softplus(odds[:, 1] - odds[:, 0])
    if nll == "sequence":
        return pair_mean("orpo_loss", ratio - average[:, 0], count)
    tokens = xp.count_nonzero(mask[:, 0, :])
    return pair_mean("orpo_loss", ratio,
        count) - xp.sum(sequence_log_prob(log_probs[:, 0, :], mask[:, 0, :])) / int(tokens)
