"""Proximal policy optimisation of a small network in gymnasium's environments, by our own engine.

    rollout of H steps of n environments -> GAE -> epochs over minibatches of
    clip loss + c_v mean (V - target)^2 / 2 - c_e entropy, gradients clipped by their global norm, Adam

The losses are rl.ppo_loss and rl.value_loss: a minibatch is one row of tokens, each of which counts. Everything learned
is one flat float32 array, cut into the layers of two networks (policy and value).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from autodiff import namespace, value_and_grad
from backends.threads import blas_threads
from ref.demo import environments
from ref.losses.softmax_cross_entropy import softmax_cross_entropy
from ref.mdp.gae import gae
from ref.mdp.rollout import draw
from ref.nn.linear import linear
from ref.optim.adam import adam
from ref.optim.adamw import start as adam_start
from ref.optim.clip_by_global_norm import clip_by_global_norm
from ref.rl.entropy import entropy
from ref.rl.ppo_loss import ppo_loss
from ref.rl.value_loss import value_loss
from ref.rl.whiten import whiten


class Plan(NamedTuple):
    """Numbers of a run. The rate, the clip range and the weight of the entropy fall to 0 in a straight line, where
    `linear` says so."""

    steps: int = 100_000
    environments: int = 8
    horizon: int = 32
    epochs: int = 20
    minibatch: int = 256
    lr: float = 1e-3
    gamma: float = 0.98
    lam: float = 0.8
    clip: float = 0.2
    value_weight: float = 1.0
    entropy_weight: float = 0.0
    max_norm: float = 0.5
    hidden: int = 64
    linear: bool = True


LAKE = Plan(
    steps=200_000, environments=16, horizon=64, epochs=10, gamma=0.99, lam=0.95, entropy_weight=0.02
)  # fmt: skip
PLANS = {"cartpole": Plan(), "frozenlake": LAKE, "frozenlake8x8": LAKE._replace(steps=600_000)}


class Agent:
    """Policy and value networks of two hidden layers with tanh, and Adam's state."""

    def __init__(self, inputs, actions, hidden, rng):
        self.inputs = inputs
        widths = {"pi": (inputs, hidden, hidden, actions), "v": (inputs, hidden, hidden, 1)}
        last = {"pi": 0.01, "v": 1.0}
        values = {}
        for net, w in widths.items():
            for i, (fan_in, out) in enumerate(zip(w, w[1:], strict=False)):
                scale = np.sqrt(2) if i < 2 else last[net]
                values[f"{net}.{i}.weight"] = scale * _orthogonal(rng, out, fan_in)
                values[f"{net}.{i}.bias"] = np.zeros(out)
        self.flat = np.concatenate([a.reshape(-1) for a in values.values()]).astype(np.float32)
        self.shapes = {n: a.shape for n, a in values.items()}
        self.state = adam_start(self.flat)

    def layers(self, flat):
        """{name: array} cut from the flat one."""
        found, at = {}, 0
        for name, shape in self.shapes.items():
            size = int(np.prod(shape))
            found[name], at = flat[at : at + size].reshape(shape), at + size
        return found

    def observe(self, seen):
        """What the network reads: numbers as they are, a state as a row with a single 1."""
        seen = np.asarray(seen)
        return seen.astype(np.float32) if seen.ndim > 1 else np.eye(self.inputs, dtype=np.float32)[seen]

    def chances(self, x):
        """float[n A] of the actions."""
        e = _network(self.layers(self.flat), "pi", x)
        e = np.exp(e - e.max(1, keepdims=True))
        return e / e.sum(1, keepdims=True)

    def values(self, x):
        """float[n]."""
        return _network(self.layers(self.flat), "v", x)[:, 0]


def _orthogonal(rng, rows, columns):
    q, r = np.linalg.qr(rng.standard_normal((max(rows, columns), min(rows, columns))))
    q = q * np.sign(np.diag(r))
    return q if rows >= columns else q.T


def _network(layers, net, x):
    xp = namespace(x, *layers.values())
    for i in (0, 1, 2):
        x = linear(x, layers[f"{net}.{i}.weight"], layers[f"{net}.{i}.bias"])
        x = xp.tanh(x) if i < 2 else x
    return x


def train(task, plan, seed, watch=lambda steps, returns: None, stop=lambda agent, steps: False):
    """(agent, curve): a run of `plan.steps` steps; the curve is [(steps, mean return of the last 100 episodes)].

    `watch` is called after each iteration; `stop`, if it says True, ends the run. ValueError if the plan has fewer
    steps than one iteration.
    """
    with blas_threads(1):  # the products are small
        return _train(task, plan, seed, watch, stop)


def _train(task, plan, seed, watch, stop):
    if plan.steps < plan.environments * plan.horizon:
        least = plan.environments * plan.horizon
        raise ValueError(f"train: steps={plan.steps}; needed at least one iteration of {least}")
    rng = np.random.default_rng(seed)
    walkers = environments.walkers(task, plan.environments, seed)
    agent = Agent(walkers.inputs, walkers.actions, plan.hidden, rng)
    curve, taken, per_iteration = [], 0, plan.environments * plan.horizon
    while taken + per_iteration <= plan.steps:
        left = 1 - taken / plan.steps if plan.linear else 1.0
        batch = _collect(agent, walkers, plan, rng)
        for _ in range(plan.epochs):
            order = rng.permutation(per_iteration)
            for rows in np.split(order, range(plan.minibatch, per_iteration, plan.minibatch)):
                _improve(agent, [x[rows] for x in batch], plan, left)
        taken += per_iteration
        curve.append((taken, float(np.mean(walkers.returns[-100:])) if walkers.returns else 0.0))
        watch(taken, walkers.returns)
        if stop(agent, taken):
            break
    walkers.close()
    return agent, curve


def _collect(agent, walkers, plan, rng):
    """(x, actions, logp, advantages, targets), a row a step."""
    T, n = plan.horizon, plan.environments
    x = np.zeros((T, n, agent.inputs), np.float32)
    after, actions = np.zeros_like(x), np.zeros((T, n), np.int64)
    logp, rewards = np.zeros((T, n), np.float32), np.zeros((T, n), np.float32)
    ends = {name: np.zeros((T, n), bool) for name in ("terminated", "truncated")}
    for t in range(T):
        x[t] = agent.observe(walkers.seen)
        p = agent.chances(x[t])
        actions[t] = draw(p, rng.random(n))
        logp[t] = np.log(p[np.arange(n), actions[t]])
        reached, rewards[t], ends["terminated"][t], ends["truncated"][t] = walkers.step(actions[t])
        after[t] = agent.observe(reached)
    flat = x.reshape(T * n, -1)
    values, next_values = (agent.values(z.reshape(T * n, -1)).reshape(T, n) for z in (x, after))
    advantages, targets = gae(rewards, values, next_values, **ends, gamma=plan.gamma, lam=plan.lam, time_axis=0)
    return flat, actions.reshape(-1), logp.reshape(-1), advantages.reshape(-1), targets.reshape(-1)


def _improve(agent, batch, plan, left):
    """One step of Adam on a minibatch."""
    x, actions, logp_old, advantages, targets = batch
    mask = np.ones((1, actions.size), bool)
    white = whiten(advantages[None], mask, ddof=0, eps_at="deviation")
    how = {"eps_low": plan.clip * left, "eps_high": plan.clip * left, "entropy_coef": plan.entropy_weight * left}

    def loss(layers):
        scores = _network(layers, "pi", x)
        logp = -softmax_cross_entropy(scores, actions)[None]
        spread = entropy(scores)[None] if plan.entropy_weight else None
        total = ppo_loss(logp, logp_old[None], white, mask, entropy=spread, reduction="token-mean", **how)
        found = _network(layers, "v", x)[None, :, 0]
        return total + plan.value_weight * value_loss(found, targets[None], targets[None], mask)

    _, found = value_and_grad(loss)(agent.layers(agent.flat))
    gradient = np.concatenate([g.reshape(-1) for g in found.values()])
    (gradient,), _ = clip_by_global_norm([gradient], plan.max_norm)
    agent.flat, agent.state = adam(agent.flat, gradient, agent.state, lr=plan.lr * left, eps=1e-5)


def play(agent, task, episodes, seed, greedy=False):
    """Returns of so many episodes of the agent's policy; of its best actions alone if `greedy`."""
    rng, walkers = np.random.default_rng(seed), environments.walkers(task, min(episodes, 16), seed)
    with blas_threads(1):
        while len(walkers.returns) < episodes:
            p = agent.chances(agent.observe(walkers.seen))
            walkers.step(p.argmax(1) if greedy else draw(p, rng.random(len(p))))
    walkers.close()
    return walkers.returns[:episodes]
