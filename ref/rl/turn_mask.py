"""Which tokens of a conversation the policy wrote: the mask of a multi-turn rollout with tools.

Source: the policy gradient theorem is over the policy's own actions; Jin et al. 2025 (2503.09516, Search-R1) sec. 3.2
masks retrieved tokens. What a prompt, a user, a tool or a template wrote is observation.

    mask_t = the turn that token t belongs to is the model's
    last_i = the last token of row i that is the model's, where a reward of the whole rollout stands

Notation
    tokens[B T] laid out turn after turn; lengths[B n] of the turns, by_model[B n] whose they are.

Conventions
    C1  What follows the last turn is padding and is masked. Turns may be empty.
    C2  The token that ends a model's turn is the model's (it sampled it) and belongs to the turn's length; what a
        template adds after it is not.
    C3  With left padding give it as a first turn that is not the model's.
    C4  A row in which the model wrote nothing has last = -1; `kl_reward` refuses it.

Laws
    L1 turn_by_turn                         L2 as_many_tokens_as_the_model_wrote
    L3 cutting_a_turn_in_two_changes_nothing
"""

from __future__ import annotations

from autodiff import namespace
from ref.spec import bind, spec

SIGNATURE = "tokens:int[B T], lengths:int[B n], by_model:bool[B n]"


@spec("rl.turn_mask", f"{SIGNATURE} -> mask:bool[B T], last:int[B]")
def turn_mask(tokens, lengths, by_model):
    """The mask of the model's own tokens, and the last of them.

    Parameters
    ----------
    tokens : int[B T]
        Only their number matters.
    lengths : int[B n]
        Tokens of each turn.
    by_model : bool[B n]
        Turns that the policy sampled.

    Returns
    -------
    mask : bool[B T]
    last : int[B]
        -1 where there is none.

    Raises
    ------
    ValueError
        Shapes that differ, a negative length, or turns longer than T together.
    TypeError
        tokens or lengths is not int, or by_model not bool.

    Complexity: B T n comparisons.

    >>> import numpy as np
    >>> mask, last = turn_mask(np.zeros((1, 6), int), np.array([[2, 1, 1, 1]]), np.array([[False, True, False, True]]))
    >>> mask.astype(int), last
    (array([[0, 0, 1, 0, 1, 0]]), array([4]))
    """
    T = bind("turn_mask", SIGNATURE, tokens=tokens, lengths=lengths, by_model=by_model)["T"]
    xp = namespace(tokens, lengths, by_model)
    ends = xp.cumulative_sum(lengths, axis=-1) if lengths.shape[1] else lengths
    if bool(xp.any(lengths < 0)) or (lengths.shape[1] and bool(xp.any(ends[:, -1] > T))):
        raise ValueError(f"turn_mask: turns of lengths {lengths} in T={T} tokens; needed lengths >= 0 that fit")
    at = xp.arange(T, dtype=lengths.dtype)[None, :, None]
    inside = (at >= (ends - lengths)[:, None, :]) & (at < ends[:, None, :]) & by_model[:, None, :]
    mask = xp.any(inside, axis=-1) if lengths.shape[1] else xp.zeros(tokens.shape, dtype=xp.bool)
    places = xp.where(mask, xp.arange(T, dtype=xp.int64), -1)
    return mask, xp.max(places, axis=-1) if T else xp.full((tokens.shape[0],), -1, dtype=xp.int64)
