"""Kimi k1.5's policy loss: mirror descent by a squared surrogate, from samples of the policy before.

Source: Kimi k1.5 (2501.12599) Eq. 3-5 and the gradient after them.

    surrogate  E_{pi_i}[(r - tau log Z - tau log(pi / pi_i))^2], 0 exactly at pi* = pi_i e^{r / tau} / Z
    gradient (ascent), k responses of a prompt:
               (1 / k) sum_j [ grad log pi(y_j) (r_j - b) - (tau / 2) grad (log(pi(y_j) / pi_i(y_j)))^2 ]
    L = mean over prompts and responses of -(r_j - b) log pi(y_j) + (tau / 2) (log pi(y_j) / pi_i(y_j))^2
    b = mean of the k rewards (the paper's), or tau log of the mean of e^{r / tau}, its estimate of tau log Z

Notation
    log pi, log pi_i -> log_probs, old_log_probs[B T]; rewards[B] and prompts[B], groups by equal ids.

Conventions
    C1  dL is -1 / (2 tau) times d surrogate when b = tau log Z. With b = mean r the gradient's zero is not pi* off
        policy: from samples of pi_i the fixed point differs (L7 measures by how much).
    C2  log pi(y) is the sum over the response's tokens.
    C3  r and b are data.

Laws
    L1 value_is_the_definition              L2 gradient_is_the_definition
    L3 masked_junk_is_invisible             L4 any_cut_adds_up
    L5 on_policy_the_gradient_is_reinforce  L6 with_log_z_the_optimum_is_mirror_descent
    L7 with_the_mean_it_is_not
"""

from __future__ import annotations

import math

from autodiff import namespace
from ref.rl.grpo_advantages import grouped
from ref.rl.preference_margin import pair_mean
from ref.rl.reduce import data
from ref.rl.sequence_log_prob import sequence_log_prob
from ref.spec import bind, spec

SIGNATURE = "log_probs[B T], old_log_probs[B T], mask:bool[B T], rewards[B], prompts:int[B] -> []"
BASELINES = ("mean", "log_z")


@spec("rl.kimi_loss", SIGNATURE, grads=("log_probs",))
def kimi_loss(log_probs, old_log_probs, mask, rewards, prompts, *, tau, baseline="mean", count=None):
    """Loss of a batch of groups of responses.

    Parameters
    ----------
    log_probs, old_log_probs : float[B T]
    mask : bool[B T]
        The responses' own tokens.
    rewards : float[B]
    prompts : int[B]
        Responses of equal ids are a group of one prompt.
    tau : float
        Weight of the relative entropy.
    baseline : "mean" or "log_z"
        b of each prompt (C1).
    count : int, optional
        Responses of the whole batch, where this is a part of one (of whole groups).

    Returns
    -------
    float[]

    Raises
    ------
    ValueError
        Shapes that differ, tau <= 0, an unknown baseline, rewards or groups that `grpo_advantages` refuses, count < 1.
    TypeError
        An array is not float, mask not bool or prompts not int, or dtypes or backends differ.

    Complexity: B T operations.

    >>> import numpy as np
    >>> lp, mask = np.log([[0.5], [0.25]]), np.ones((2, 1), bool)
    >>> float(kimi_loss(lp, lp, mask, np.array([1.0, 0.0]), np.zeros(2, int), tau=0.1) / np.log(2))
    -0.25
    """
    arrays = {"log_probs": log_probs, "old_log_probs": old_log_probs, "mask": mask, "rewards": rewards}
    bind("kimi_loss", SIGNATURE, **arrays, prompts=prompts)
    if not tau > 0 or baseline not in BASELINES:
        raise ValueError(f"kimi_loss: tau={tau}, baseline={baseline!r}; needed tau > 0 and one of {BASELINES}")
    xp = namespace(log_probs, old_log_probs, mask, rewards)
    r, back = grouped("kimi_loss", data(rewards), prompts)
    gain = xp.take(xp.reshape(r - _baseline(r, tau, baseline), (-1,)), back, axis=0)
    total = sequence_log_prob(log_probs, mask)
    gap = sequence_log_prob(xp.where(mask, log_probs - data(old_log_probs), 0.0), mask)
    return pair_mean("kimi_loss", xp.multiply(-gain, total) + tau / 2 * gap * gap, count)


def _baseline(r, tau, kind):
    """b[P 1]."""
    xp = namespace(r)
    if kind == "mean":
        return xp.mean(r, axis=1, keepdims=True)
    top = xp.max(r, axis=1, keepdims=True)
    return top + tau * (xp.log(xp.sum(xp.exp((r - top) / tau), axis=1, keepdims=True)) - math.log(r.shape[1]))
