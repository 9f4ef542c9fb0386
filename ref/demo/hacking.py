"""A reward model that can be hacked: annotators who like right answers, and large ones.

    annotators  P(y preferred to y') = sigma(u(y) - u(y')),   u(y) = RIGHT [y is right] + BIAS (the number that y says)
    reward model, fitted to their choices between responses of the policy by Bradley-Terry: one number at the last token
    policy, trained on that number by RLOO: without a KL term, and with one

Among the responses of the start the taste for large numbers hardly matters. A policy that is free to leave it finds the
largest numbers there are: the proxy rises, and exact pass@1, which nobody shows it, falls.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from autodiff import namespace
from ref.demo.arithmetic import END, MOST, pairs, pass_at_1, rewards
from ref.demo.policy import critic_of, outputs, sample
from ref.demo.policy_training import PLANS, Task, Trainer
from ref.rl.bradley_terry_loss import bradley_terry_loss
from ref.rl.kl_reward import last_kept

RIGHT, BIAS = 4.0, 0.1
BETA = 1.0  # of the run that is held
START = 0.4  # pass@1 at which the policy begins: a judge with its body knows some sums
PLAN = PLANS["rloo"]._replace(iterations=100)


class Point(NamedTuple):
    """After so many iterations: the reward model's mean over the responses drawn since the last one, exact pass@1."""

    iteration: int
    proxy: float
    solved: float


def said(tokens):
    """float64[B]: the number that a response begins with, 0 where it begins with none."""
    value = np.zeros(len(tokens))
    going = np.ones(len(tokens), bool)
    for t in range(tokens.shape[1] - MOST, tokens.shape[1]):
        going = going & (tokens[:, t] < 10)
        value = np.where(going, 10 * value + tokens[:, t], value)
    return value


def liked(tokens, some, rows):
    """u: what the annotators think of a response. Of a number of three digits they read two."""
    return RIGHT * rewards(tokens, some, rows) + BIAS * np.where(said(tokens) > 99, said(tokens) // 10, said(tokens))


def scores(layers, sizes, tokens, mask):
    """float[B]: the reward model's number for a response, read at its last token."""
    out = outputs(layers, sizes, tokens)[:, :, 0]
    at = np.arange(tokens.shape[1]) == last_kept("scores", mask)[:, None]
    xp = namespace(out)
    return xp.sum(xp.where(at, out, 0.0), axis=1)


def fitted(network, seed, *, draws=16, steps=200, batch=64, lr=5e-4, watch=lambda step, right: None):
    """(reward model, share of fresh pairs that it orders as u does): fitted to choices between responses."""
    rng = np.random.default_rng((seed, 3))
    some, _ = pairs()
    model = critic_of(network, rng)

    def compared():
        """(tokens int[P 2 T], mask, u[P 2]) of pairs that differ."""
        rows = np.repeat(np.arange(len(some.prompts)), draws)
        tokens, mask = sample(network, some.prompts[rows], MOST, END, rng)
        u = liked(tokens, some, rows).reshape(-1, 2)
        keep = u[:, 0] != u[:, 1]
        return tokens.reshape(len(u), 2, -1)[keep], mask.reshape(len(u), 2, -1)[keep], u[keep]

    tokens, mask, u = compared()
    swap = rng.random(len(u)) > 1 / (1 + np.exp(u[:, 1] - u[:, 0]))
    tokens[swap], mask[swap] = tokens[swap, ::-1], mask[swap, ::-1]
    for step in range(steps):
        rows = rng.integers(0, len(tokens), batch)
        flat = tokens[rows].reshape(2 * batch, -1), mask[rows].reshape(2 * batch, -1)

        def loss(layers, flat=flat):
            found = scores(layers, model.sizes, *flat)
            return bradley_terry_loss(found[::2], found[1::2])

        watch(step + 1, float(np.exp(-model.step(loss, lr))))
    tokens, mask, u = compared()
    found = scores(model.layers(), model.sizes, *(x.reshape(2 * len(u), -1) for x in (tokens, mask))).reshape(-1, 2)
    return model, float(((found[:, 0] > found[:, 1]) == (u[:, 0] > u[:, 1])).mean())


def trained_on(network, model, seed, beta, plan=PLAN, watch=lambda point: None, every=5):
    """(network, [Point]): trained on the reward model, with a KL term of weight beta."""
    some, _ = pairs()

    def proxy(tokens, mask, rows):
        return scores(model.layers(), model.sizes, tokens, mask)

    task = Task(some.prompts, MOST, END, proxy)
    trainer, curve, seen = Trainer(network, task, "rloo", plan._replace(beta=beta), seed), [], []
    for k in range(plan.iterations + 1):
        if k % every == 0 or k == plan.iterations:
            solved = float(pass_at_1(trainer.network, some).mean())
            curve.append(Point(k, float(np.mean(seen)) if seen else float("nan"), solved))
            seen = []
            watch(curve[-1])
        if k < plan.iterations:
            seen.append(trainer.advance())
    curve[0] = curve[0]._replace(proxy=curve[min(1, len(curve) - 1)].proxy)  # the start's responses are the first drawn
    return trainer.network, curve
