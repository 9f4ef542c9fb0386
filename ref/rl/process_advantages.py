"""Advantages from rewards of steps: process supervision within a group.

Source: Shao et al. 2024 (2402.03300) sec. 4.1.3.

    r~_ij = (r_ij - mean R) / (std R + eps),   R all steps of all responses of the group
    A_it = sum over the steps j of response i that end at t or later of r~_ij

Notation
    r_ij -> rewards[B S] with steps[B S] True for real ones; ends[B S] the place of the last token of step j.

Conventions
    C1  One mean and one deviation over all steps of the group: a response with more steps counts more.
    C2  Equal rewards are told by max == min and give exactly 0. ddof and eps as in `grpo_advantages`.
    C3  A group needs two steps in all; responses may have different numbers of steps, and none.

Laws
    L1 value_is_the_definition              L2 one_step_is_outcome_supervision
    L3 advantages_fall_step_by_step         L4 junk_steps_are_invisible
"""

from __future__ import annotations

from autodiff import namespace
from ref.spec import bind, spec

SIGNATURE = "rewards[B S], steps:bool[B S], ends:int[B S], prompts:int[B], mask:bool[B T]"


@spec("rl.process_advantages", f"{SIGNATURE} -> [B T]")
def process_advantages(rewards, steps, ends, prompts, mask, *, ddof=1, eps=1e-6):
    """Each token's sum of the normalised rewards still to come.

    Parameters
    ----------
    rewards : float[B S]
    steps : bool[B S]
        Which of them are steps; the rest may hold anything.
    ends : int[B S]
        Place of the last token of each step, 0..T - 1.
    prompts : int[B]
        Responses of equal ids are a group.
    mask : bool[B T]
        The responses' own tokens.
    ddof : 0 or 1
    eps : float
        Added to the deviation.

    Returns
    -------
    float[B T]
        0 where masked.

    Raises
    ------
    ValueError
        Shapes that differ, a step's reward that is not finite, an end out of range, a group with fewer than two steps
        (named), another ddof, or eps < 0.
    TypeError
        rewards is not float, steps or mask not bool, or ends or prompts not int.

    Complexity: B S T operations.

    >>> import numpy as np
    >>> r, ends = np.array([[1.0, 0.0], [0.0, 0.0]]), np.array([[0, 1], [0, 1]])
    >>> kept, mask = np.array([[True, True], [True, False]]), np.ones((2, 2), bool)
    >>> process_advantages(r, kept, ends, np.zeros(2, int), mask, ddof=0, eps=0.0).round(3)
    array([[ 0.707, -0.707],
           [-0.707,  0.   ]])
    """
    arrays = {"rewards": rewards, "steps": steps, "ends": ends, "prompts": prompts, "mask": mask}
    T = bind("process_advantages", SIGNATURE, **arrays)["T"]
    xp = namespace(*arrays.values())
    r = xp.where(steps, rewards, 0.0)
    _check(xp, r, steps, ends, T, ddof, eps)
    same = xp.astype(prompts[:, None] == prompts[None, :], rewards.dtype)  # [B B]
    real = xp.astype(steps, rewards.dtype)
    count = _of_group(xp, same, real)
    if bool(xp.any(count < 2)):
        at = int(xp.argmin(count[:, 0]))
        raise ValueError(f"process_advantages: the group of prompt {int(prompts[at])} has fewer than two steps")
    centred = xp.where(steps, r - _of_group(xp, same, r) / count, 0.0)
    s = xp.sqrt(_of_group(xp, same, centred * centred) / (count - ddof)) + eps
    z = xp.where(_equal(xp, same, r, steps), 0.0, centred / xp.where(s > 0, s, 1.0))
    after = xp.astype(ends[:, :, None] >= xp.arange(T)[None, None, :], rewards.dtype)
    return xp.where(mask, xp.sum(z[:, :, None] * after, axis=1), 0.0)


def _of_group(xp, same, x):
    """Sum over all steps of the row's group, [B 1]."""
    return xp.sum(xp.matmul(same, x), axis=1, keepdims=True)


def _equal(xp, same, r, steps):
    """[B 1]: whether all rewards of the row's group are one number."""
    large = xp.finfo(r.dtype).max
    high = xp.max(xp.where(steps, r, -large), axis=1)
    low = xp.min(xp.where(steps, r, large), axis=1)
    top = xp.max(xp.where(same > 0, high[None, :], -large), axis=1, keepdims=True)
    return top == xp.min(xp.where(same > 0, low[None, :], large), axis=1, keepdims=True)


def _check(xp, r, steps, ends, T, ddof, eps):
    if ddof not in (0, 1) or not eps >= 0:
        raise ValueError(f"process_advantages: ddof={ddof}, eps={eps}; needed ddof 0 or 1, eps >= 0")
    if not bool(xp.all(xp.isfinite(r))):
        raise ValueError("process_advantages: the reward of a step is not finite")
    if bool(xp.any(steps & ((ends < 0) | (ends >= T)))):
        raise ValueError(f"process_advantages: ends has a place outside 0..{T - 1}")
