"""Training a language policy on rewards, by the algorithms of ref.rl: GRPO, PPO, RLOO, DAPO and Kimi k1.5.

    an iteration: responses to a few prompts, in groups -> rewards -> advantages -> steps of Adam on the loss

Which prompts, how long a response may be and what it earns is the Task's; what an advantage is, how a ratio is
clipped, where the KL term stands and what is averaged is the algorithm's: public functions of ref.rl, ref.mdp.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ref.demo.policy import critic_of, log_probs, sample, values
from ref.mdp.gae import gae
from ref.rl.dapo_loss import dapo_loss
from ref.rl.dynamic_sampling import dynamic_sampling
from ref.rl.grpo_advantages import grpo_advantages
from ref.rl.grpo_loss import grpo_loss
from ref.rl.kimi_loss import kimi_loss
from ref.rl.kl_reward import kl_reward, last_kept
from ref.rl.overlong_penalty import overlong_penalty
from ref.rl.ppo_loss import ppo_loss
from ref.rl.reinforce_loss import reinforce_loss
from ref.rl.rloo_advantages import rloo_advantages
from ref.rl.value_loss import value_loss
from ref.rl.whiten import whiten


class Task(NamedTuple):
    """prompts int[n P]; at most `most` tokens of a response, which `end` closes; `reward(tokens, mask, rows)` is
    float32[B], for responses to prompts[rows]."""

    prompts: np.ndarray
    most: int
    end: int
    reward: object


class Plan(NamedTuple):
    """Iterations, prompts in each, responses to each prompt, passes over them; the rate of Adam; the weight of the KL
    divergence from the start (Kimi: tau, from the iteration before); of PPO's critic, the rate and GAE's lambda; how
    many batches DAPO draws at most to fill one."""

    iterations: int = 400
    prompts: int = 16
    group: int = 8
    epochs: int = 2
    lr: float = 3e-4
    beta: float = 1e-3
    critic_lr: float = 1e-3
    lam: float = 0.95
    draws: int = 4


PLANS = {
    "grpo": Plan(),
    "ppo": Plan(),
    "rloo": Plan(epochs=1, lr=5e-4),
    "dapo": Plan(beta=0.0),
    "kimi": Plan(beta=0.05),
}


class Batch(NamedTuple):
    """tokens int[B T]; mask bool[B T] of the responses; rows int[B] of the prompts; rewards float32[B];
    log-probabilities [B T] under the policy that sampled, and under the one at the start."""

    tokens: np.ndarray
    mask: np.ndarray
    rows: np.ndarray
    rewards: np.ndarray
    old: np.ndarray
    start: np.ndarray

    def only(self, kept):
        """The kept rows."""
        return Batch(*(x[kept] for x in self))


class Trainer:
    """A network that an algorithm improves, an iteration at a time."""

    def __init__(self, network, task, algorithm, plan, seed):
        self.network, self.task, self.plan = network.copy(), task, plan
        self.start, self.rng = network.copy(), np.random.default_rng((seed, 1))
        self.critic = critic_of(network, self.rng) if algorithm == "ppo" else None
        self.prepare = LOSSES[algorithm]
        self.collect = self._informative if algorithm == "dapo" else self._batch

    def advance(self):
        """One iteration; returns the mean reward of its responses (of those that were drawn first)."""
        batch, mean = self.collect()
        loss = self.prepare(batch, self.plan, self.critic)
        sizes = self.network.sizes
        for _ in range(self.plan.epochs if batch.rows.size else 0):
            self.network.step(lambda layers: loss(log_probs(layers, sizes, batch.tokens, batch.mask)), self.plan.lr)
        return mean

    def _batch(self):
        """(a Batch of whole groups, its mean reward)."""
        task, plan, network = self.task, self.plan, self.network
        rows = np.repeat(self.rng.choice(len(task.prompts), plan.prompts, replace=False), plan.group)
        tokens, mask = sample(network, task.prompts[rows], task.most, task.end, self.rng)
        rewards = task.reward(tokens, mask, rows)
        old = log_probs(network.layers(), network.sizes, tokens, mask)
        start = log_probs(self.start.layers(), network.sizes, tokens, mask) if plan.beta else np.zeros_like(old)
        return Batch(tokens, mask, rows, rewards, old, start), float(rewards.mean())

    def _informative(self):
        """DAPO's: groups whose rewards differ, from more than one draw where one has too few; possibly none."""
        found, seen, mean = [], np.zeros(0, int), None
        for _ in range(self.plan.draws):
            batch, average = self._batch()
            mean = average if mean is None else mean
            ended = (batch.tokens[:, -self.task.most :] == self.task.end).any(1)
            length = batch.mask.sum(1) + ~ended  # a response that is cut would have gone on
            fine = overlong_penalty(length, longest=self.task.most + 1, cache=1)
            batch = batch._replace(rewards=batch.rewards + fine.astype(np.float32))
            found.append(batch.only(dynamic_sampling(batch.rewards, batch.rows) & ~np.isin(batch.rows, seen)))
            seen = np.concatenate([seen, found[-1].rows])
            if seen.size >= self.plan.prompts * self.plan.group:
                break
        whole = Batch(*(np.concatenate(parts) for parts in zip(*found, strict=True)))
        return whole.only(slice(self.plan.prompts * self.plan.group)), mean


# The losses: each takes a Batch and gives a function of the log-probabilities ---------------------------


def grpo(batch, plan, critic):
    """Advantages of groups, the clip, k3 in the loss, a response's tokens averaged."""
    advantages = grpo_advantages(batch.rewards, batch.rows)[:, None]
    return lambda found: grpo_loss(found, batch.old, advantages, batch.mask, ref_log_probs=batch.start, beta=plan.beta)


def dapo(batch, plan, critic):
    """Advantages of groups, the clip with its higher bound, a mean over all tokens, no KL."""
    if not batch.rows.size:
        return None
    advantages = grpo_advantages(batch.rewards, batch.rows)[:, None]
    return lambda found: dapo_loss(found, batch.old, advantages, batch.mask)


def rloo(batch, plan, critic):
    """Each response's reward, less the KL penalty, against the others of its group; no ratio, for one pass."""
    paid = kl_reward(batch.rewards, batch.old, batch.start, batch.mask, beta=plan.beta).sum(1)
    advantages = rloo_advantages(paid, batch.rows)[:, None]
    return lambda found: reinforce_loss(found, advantages, np.zeros_like(advantages), batch.mask)


def kimi(batch, plan, critic):
    """Mirror descent from the policy that sampled."""
    return lambda found: kimi_loss(found, batch.old, batch.mask, batch.rewards, batch.rows, tau=plan.beta)


def ppo(batch, plan, critic):
    """The clip over tokens, with GAE from a critic and a KL penalty in the rewards; the critic learns GAE's targets."""
    raw, targets = valued(batch, plan, critic)

    def error(layers):
        return value_loss(values(layers, critic.sizes, batch.tokens), targets, targets, batch.mask)

    for _ in range(plan.epochs):
        critic.step(error, plan.critic_lr)
    advantages = whiten(raw, batch.mask)
    return lambda found: ppo_loss(found, batch.old, advantages, batch.mask, reduction="token-mean")


def valued(batch, plan, critic):
    """(advantages, targets) [B T] by GAE: the episode ends with the last token that counts."""
    paid = kl_reward(batch.rewards, batch.old, batch.start, batch.mask, beta=plan.beta)
    before = values(critic.layers(), critic.sizes, batch.tokens)
    after = np.concatenate([before[:, 1:], np.zeros_like(before[:, :1])], 1)
    ends = np.arange(before.shape[1]) == last_kept("valued", batch.mask)[:, None]
    return gae(paid, before, after, ends, np.zeros_like(ends), gamma=1.0, lam=plan.lam)


LOSSES = {"grpo": grpo, "ppo": ppo, "rloo": rloo, "dapo": dapo, "kimi": kimi}
