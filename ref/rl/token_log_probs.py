"""Log-probabilities of the tokens of a sequence, from logits: the one place where anything is shifted.

Source: the chain rule log pi(y | x) = sum_t log pi(y_t | x, y_<t); the logits at position t are those of token t + 1
(Radford et al. 2018). trl #3526 and #3067 tell what a packed row leaks.

    log_probs_t = log softmax(logits_{t-1} / temperature)[token_t] where mask_t, else 0

Notation
    logits[*B T V], tokens[*B T], mask[*B T] of the tokens that count (a response's, not a prompt's) -> [*B T].

Conventions
    C1  Everything of a token stands at the token's own place: its mask, its log-probability, its reward, its
        advantage. Only the logits stand one before it, and only this function knows. (Libraries that return T - 1
        values shift masks and rewards by hand wherever they meet them.)
    C2  The first token of a row, and in a packed row of each segment, has no prediction: to count it is an error.
    C3  What does not count is 0, whatever its logits hold (NaN too), and has gradient 0.
    C4  Logits are divided by the sampling temperature: the policy is what was sampled from. A trainer that does not
        divide scores another policy.

Laws
    L1 sequences_add_to_one                 L2 uniform_logits_give_minus_log_v
    L3 the_last_logits_predict_nothing      L4 token_by_token
    L5 junk_outside_is_invisible            L6 gradient_is_one_hot_minus_softmax
"""

from __future__ import annotations

from autodiff import namespace
from ref.losses.softmax_cross_entropy import softmax_cross_entropy
from ref.spec import bind, spec

SIGNATURE = "logits[*B T V], tokens:int[*B T], mask:bool[*B T]"


@spec("rl.token_log_probs", f"{SIGNATURE} -> [*B T]", grads=("logits",))
def token_log_probs(logits, tokens, mask, *, temperature=1.0, segments=None):
    """Log-probability of every token that counts, given those before it.

    Parameters
    ----------
    logits : float[*B T V]
        logits[t] are of the token at t + 1.
    tokens : int[*B T]
        0..V - 1 where they count; padding may hold anything.
    mask : bool[*B T]
        True for the tokens that count.
    temperature : float
        What the logits were divided by when the tokens were sampled.
    segments : int[*B T], optional
        Number of the sample in a packed row: a token is not predicted from another sample.

    Returns
    -------
    float[*B T]
        0 where the mask is False.

    Raises
    ------
    ValueError
        Shapes that differ, a counted token out of range or without a prediction (C2), or temperature <= 0.
    TypeError
        logits is not float, tokens not int or mask not bool.

    Complexity: T V operations a row.

    >>> import numpy as np
    >>> logits = np.log(np.array([[0.5, 0.5], [0.25, 0.75], [0.1, 0.9]]))
    >>> token_log_probs(logits, np.array([0, 1, 0]), np.array([False, True, True]))
    array([ 0.        , -0.69314718, -1.38629436])
    """
    T = bind("token_log_probs", SIGNATURE, logits=logits, tokens=tokens, mask=mask)["T"]
    if not temperature > 0:
        raise ValueError(f"token_log_probs: temperature={temperature}; needed > 0")
    xp = namespace(logits, tokens, mask)
    if T == 0:
        return xp.zeros(tuple(mask.shape), dtype=logits.dtype)
    _check_starts(xp, mask, segments)
    before = logits[..., :-1, :] if temperature == 1 else logits[..., :-1, :] / temperature
    targets = xp.where(mask, tokens, xp.asarray(-1, dtype=tokens.dtype))
    found = -softmax_cross_entropy(before, targets[..., 1:], ignore_index=-1)
    return xp.concat([xp.zeros(mask[..., :1].shape, dtype=logits.dtype), found], axis=-1)


def _check_starts(xp, mask, segments):
    """ValueError if a token counts that has nothing before it (C2)."""
    if segments is not None and tuple(segments.shape) != tuple(mask.shape):
        raise ValueError(f"token_log_probs: segments has shape {tuple(segments.shape)}, mask {tuple(mask.shape)}; "
                         "they must be equal")  # fmt: skip
    if bool(xp.any(mask[..., :1])):
        raise ValueError("token_log_probs: the mask counts the first token of a row, which has no prediction")
    if segments is not None and bool(xp.any(mask[..., 1:] & (segments[..., 1:] != segments[..., :-1]))):
        raise ValueError("token_log_probs: the mask counts the first token of a segment, which has no prediction")
