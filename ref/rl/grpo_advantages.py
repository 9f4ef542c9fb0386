"""Advantages of a group: each reward against the others of the same prompt.

Source: Shao et al. 2024 (2402.03300) sec. 4.1.2, outcome supervision; Liu et al. 2025 (2503.20783) without the
deviation; Hu et al. 2025 (2501.03262, REINFORCE++-baseline) with the batch's.

    A_i = (r_i - mean of the group) / (s + eps)
    scale="group": s the group's standard deviation;   "batch": that of all centred rewards;   None: A_i = r_i - mean

Conventions
    C1  ddof 1, eps 1e-6 are verl's; TRL has ddof 1 and eps 1e-4. The paper says std. ddof 0 gives the round numbers:
        binary rewards, k of G right, A = sqrt((G - k) / k) and -sqrt(k / (G - k)).
    C2  Equal rewards are told by max == min, before any arithmetic, and give exactly 0: the computed deviation of three
        rewards .1 is not 0.
    C3  Groups are told by prompt ids, in any order, and have one size G >= 2.
    C4  The result is data. Dividing by s weighs prompts: those almost always (or never) solved weigh more.

Laws
    L1 value_is_the_definition              L2 binary_rewards_in_closed_form
    L3 equal_rewards_give_exactly_zero      L4 affine_invariance
    L5 the_order_of_the_batch_is_free       L6 expected_gradient_without_a_scale
    L7 not_the_policy_gradient_for_three_rewards
"""

from __future__ import annotations

from autodiff import namespace
from ref.spec import bind, spec

SIGNATURE = "rewards[B], prompts:int[B] -> [B]"
SCALES = ("group", "batch", None)


@spec("rl.grpo_advantages", SIGNATURE)
def grpo_advantages(rewards, prompts, *, scale="group", ddof=1, eps=1e-6):
    """Rewards less their group's mean, over a deviation.

    Parameters
    ----------
    rewards : float[B]
    prompts : int[B]
        Rewards of equal ids are a group.
    scale : "group", "batch" or None
        Whose standard deviation divides.
    ddof : 0 or 1
    eps : float
        Added to the deviation.

    Returns
    -------
    float[B]

    Raises
    ------
    ValueError
        No reward, a reward that is not finite, groups of different sizes or of fewer than two (named), an unknown
        scale or ddof, or eps < 0.
    TypeError
        rewards is not float or prompts not int.

    Complexity: B log B operations.

    >>> import numpy as np
    >>> grpo_advantages(np.array([1.0, 0.0, 0.0, 0.0]), np.zeros(4, int), ddof=0, eps=0.0).round(4)
    array([ 1.7321, -0.5774, -0.5774, -0.5774])
    """
    if scale not in SCALES or ddof not in (0, 1) or not eps >= 0:
        raise ValueError(
            f"grpo_advantages: scale={scale!r}, ddof={ddof}, eps={eps}; needed scale of {SCALES}, ddof 0 or 1, "
            "eps >= 0")  # fmt: skip
    r, back = grouped("grpo_advantages", rewards, prompts)
    xp = namespace(rewards)
    G = r.shape[1]
    equal = xp.max(r, axis=1, keepdims=True) == xp.min(r, axis=1, keepdims=True)
    a = xp.where(equal, 0.0, r - xp.mean(r, axis=1, keepdims=True))
    if scale is not None:
        squares = xp.sum(a * a, axis=1, keepdims=True) if scale == "group" else xp.sum(a * a)
        n = G if scale == "group" else r.shape[0] * G
        s = xp.sqrt(squares / (n - ddof)) + eps
        a = a / xp.where(s > 0, s, 1.0)
    return xp.take(xp.reshape(a, (-1,)), back, axis=0)


def grouped(function, rewards, prompts):
    """(rewards[P G] a group a row, int[B] places that lead back); ValueError names what is wrong."""
    B = bind(function, SIGNATURE, rewards=rewards, prompts=prompts)["B"]
    xp = namespace(rewards, prompts)
    if B == 0 or not bool(xp.all(xp.isfinite(rewards))):
        raise ValueError(
            f"{function}: {B} rewards, {'none' if B == 0 else 'one of them not finite'}; needed finite rewards")
    ids, counts = xp.unique_counts(prompts)
    G = int(xp.max(counts))
    if G < 2 or int(xp.min(counts)) != G:
        at = int(xp.argmin(counts))
        raise ValueError(
            f"{function}: prompt {int(ids[at])} has {int(counts[at])} rewards, another has {G}; needed groups of "
            "one size, at least 2")  # fmt: skip
    order = xp.argsort(prompts, stable=True)
    return xp.reshape(xp.take(rewards, order, axis=0), (-1, G)), xp.argsort(order, stable=True)
