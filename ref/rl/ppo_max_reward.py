"""PPO-max's rewards: scaled by running moments, clipped, and penalised a token at a time.

Source: Zheng et al. 2023 (2307.04964) sec. 4.3.1 Eq. 16 and sec. 5; the released script is MOSS-RLHF's train_ppo_zh.sh.

    normalise   s = clip((r - mean) / std, -clip, clip)         mean, std of all scores seen, this batch's included
    scale       s = clip(r / std, -clip, clip)
    then r_t = -beta (log pi_old - log ref) + s on the last kept token (`kl_reward`)

Conventions
    C1  mode None, no clip: plain PPO's `kl_reward`, to the bit.
    C2  paper: normalised and clipped, beta .05; script: scaled, not centred and not clipped, beta .1. PRESETS holds
        both. The paper's section 5 names the tricks, not each number: the clip .8 is that of its ablation [?].
    C3  The moments are updated first, then used. ddof 1, eps under no root: a first batch of one score has no
        deviation and is an error unless mode is None.

Laws
    L1 value_is_the_definition              L2 each_trick_off_is_plain_ppo
    L3 moments_are_those_of_all_scores
"""

from __future__ import annotations

from autodiff import namespace
from ref.rl.kl_reward import SIGNATURE as REWARD
from ref.rl.kl_reward import kl_reward
from ref.rl.running_moments import running_moments
from ref.spec import bind, spec

MODES = (None, "normalise", "scale")
PRESETS = {
    "paper": {"mode": "normalise", "clip": 0.8, "beta": 0.05},
    "script": {"mode": "scale", "clip": None, "beta": 0.1},
}
INPUTS = REWARD.split(" -> ")[0]


@spec("rl.ppo_max_reward", f"{INPUTS}, state:tree -> rewards[B T], state:tree")
def ppo_max_reward(scores, log_probs, ref_log_probs, mask, state, *, mode, clip, beta):
    """Rewards of tokens, and the moments with these scores in them.

    Parameters
    ----------
    scores : float[B]
    log_probs, ref_log_probs : float[B T]
    mask : bool[B T]
        The responses' own tokens.
    state : Moments
        Of all scores before.
    mode : None, "normalise" or "scale"
    clip : float, optional
    beta : float
        Weight of the KL penalty.

    Returns
    -------
    rewards : float[B T]
    state : Moments

    Raises
    ------
    ValueError
        An unknown mode, clip <= 0, fewer than two scores seen in all, scores that were all equal, or what `kl_reward`
        refuses.
    TypeError
        An array is not float or mask not bool, or dtypes or backends differ.

    Complexity: B T operations.

    >>> import numpy as np
    >>> from ref.rl.running_moments import Moments
    >>> zero, one = np.zeros(()), np.ones((2, 1))
    >>> scores = np.array([1.0, 3.0])
    >>> rewards, state = ppo_max_reward(scores, -one, -one, one > 0, Moments(zero, zero, zero), **PRESETS["script"])
    >>> rewards.round(4), float(state.mean)
    (array([[0.7071],
           [2.1213]]), 2.0)
    """
    bind("ppo_max_reward", REWARD, scores=scores, log_probs=log_probs, ref_log_probs=ref_log_probs, mask=mask)
    if mode not in MODES or (clip is not None and not clip > 0):
        raise ValueError(f"ppo_max_reward: mode={mode!r}, clip={clip}; needed a mode of {MODES} and clip > 0 or None")
    xp = namespace(scores, log_probs, ref_log_probs, mask)
    if not bool(xp.all(xp.isfinite(scores))):
        raise ValueError("ppo_max_reward: scores hold a number that is not finite")
    state = running_moments(scores, xp.ones(scores.shape, dtype=xp.bool), state)
    if mode is not None:
        if not bool(state.count >= 2) or not bool(state.m2 > 0):
            raise ValueError(f"ppo_max_reward: {int(state.count)} scores seen, of no deviation; needed two that differ")
        deviation = xp.sqrt(state.m2 / (state.count - 1))
        scores = (scores - state.mean if mode == "normalise" else scores) / deviation
    if clip is not None:
        scores = xp.clip(scores, -clip, clip)
    return kl_reward(scores, log_probs, ref_log_probs, mask, beta=beta), state
