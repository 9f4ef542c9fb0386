"""Kimi k1.5's length reward: among the answers to a prompt, short right ones gain and long ones lose.

Source: Kimi k1.5 (2501.12599) sec. 2.3.3.

    lambda_i = 1/2 - (len_i - min) / (max - min)        over the responses of one prompt
    reward   = lambda_i if right, min(0, lambda_i) if wrong;   0 for all if max = min

Conventions
    C1  In [-1/2, 1/2]. A wrong answer is never paid for being short.
    C2  It is added to the answer's reward with a weight, and only after a warm-up without it (the paper's).
    C3  Groups are told by prompt ids, in any order, and may be of any size.

Laws
    L1 value_in_fractions                   L2 shortest_and_longest
    L3 the_order_of_the_batch_is_free
"""

from __future__ import annotations

from autodiff import namespace
from ref.spec import bind, spec

SIGNATURE = "lengths:int[B], correct:bool[B], prompts:int[B] -> [B]"


@spec("rl.length_reward", SIGNATURE)
def length_reward(lengths, correct, prompts):
    """The reward of each response's length.

    Parameters
    ----------
    lengths : int[B]
    correct : bool[B]
    prompts : int[B]
        Responses of equal ids are compared.

    Returns
    -------
    float64[B]

    Raises
    ------
    ValueError
        Shapes that differ, or a negative length.
    TypeError
        lengths or prompts is not int, or correct not bool.

    Complexity: B^2 comparisons.

    >>> import numpy as np
    >>> length_reward(np.array([10, 20, 30]), np.array([True, True, False]), np.zeros(3, int))
    array([ 0.5,  0. , -0.5])
    """
    B = bind("length_reward", SIGNATURE, lengths=lengths, correct=correct, prompts=prompts)["B"]
    xp = namespace(lengths, correct, prompts)
    if bool(xp.any(lengths < 0)):
        raise ValueError(f"length_reward: lengths {lengths}; needed all >= 0")
    n = xp.astype(lengths, xp.float64)
    if B == 0:
        return n
    same = prompts[:, None] == prompts[None, :]
    least = xp.min(xp.where(same, n[None, :], xp.max(n)), axis=1)
    most = xp.max(xp.where(same, n[None, :], xp.min(n)), axis=1)
    flat = most == least
    value = 0.5 - (n - least) / xp.where(flat, 1.0, most - least)
    value = xp.where(correct, value, xp.minimum(value, xp.zeros_like(value)))
    return xp.where(flat, 0.0, value)
