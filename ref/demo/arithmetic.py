"""The arithmetic task: a small transformer learns to add, and what it can do is known exactly.

    prompt  a b + c d =   two numbers of 0..19, two digits each;   response  s t END   their sum

There are 400 prompts. 80 of them, fixed, are held out: no training, by likelihood or by reward, sees them. The right
response is one, so that pass@1 is its probability, a product of three; no sampling stands between a policy and its
score.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ref.demo.policy import Network, Sizes, log_probs, outputs
from ref.demo.policy_training import PLANS, Task, Trainer
from ref.rl.reduce import reduce
from ref.rl.sequence_log_prob import sequence_log_prob

PLUS, EQUALS, END = 10, 11, 12
NUMBERS, MOST = 20, 3  # operands are below NUMBERS, a response has at most MOST tokens
SIZES = Sizes(vocabulary=13, places=6 + MOST, out=13)
HELD_OUT = 80


class Pairs(NamedTuple):
    """Prompts int[n 6] and their right responses int[n 3]."""

    prompts: np.ndarray
    answers: np.ndarray

    def whole(self):
        """(tokens int[n 9], mask bool[n 9] of the responses)."""
        tokens = np.concatenate([self.prompts, self.answers], 1)
        return tokens, np.broadcast_to(np.arange(tokens.shape[1]) >= self.prompts.shape[1], tokens.shape)


def pairs():
    """(training, held out): 320 and 80 Pairs, the same in every run."""
    a, b = np.divmod(np.arange(NUMBERS**2), NUMBERS)
    one = np.full_like(a, 1)
    prompts = np.stack([a // 10, a % 10, PLUS * one, b // 10, b % 10, EQUALS * one], 1)
    answers = np.stack([(a + b) // 10, (a + b) % 10, END * one], 1)
    order = np.random.default_rng(20).permutation(NUMBERS**2)
    held = np.isin(np.arange(NUMBERS**2), order[:HELD_OUT])
    return Pairs(prompts[~held], answers[~held]), Pairs(prompts[held], answers[held])


def pass_at_1(network, some):
    """float64[n]: the exact probability of each right response."""
    tokens, mask = some.whole()
    found = log_probs(network.layers(), network.sizes, tokens, mask).astype(np.float64)
    return np.exp(sequence_log_prob(found, mask))


def rewards(tokens, some, rows):
    """float32[B]: 1 where the response to prompt `rows[i]` is the right one."""
    return (tokens[:, some.prompts.shape[1] :] == some.answers[rows]).all(1).astype(np.float32)


def fine_tuned(seed, until=0.25, steps=1000, lr=1e-3, batch=64, watch=lambda step, solved: None):
    """(network, [(step, pass@1)]): trained by likelihood until its mean pass@1 on the training pairs is `until`."""
    rng = np.random.default_rng(seed)
    training, _ = pairs()
    tokens, mask = training.whole()
    network, curve = Network(SIZES, rng), []
    while True:
        curve.append((network.state.t, float(pass_at_1(network, training).mean())))
        watch(*curve[-1])
        if curve[-1][1] >= until or network.state.t == steps:
            return network, curve
        rows = rng.integers(0, len(tokens), batch)

        def loss(layers, rows=rows):
            found = log_probs(layers, SIZES, tokens[rows], mask[rows])
            return -reduce(found, mask[rows], reduction="token-mean")

        network.step(loss, lr)


def improved(network, algorithm, seed, plan=None, watch=lambda k, solved, held: None, every=10):
    """(network, [(iteration, pass@1 on the training pairs, on the held-out ones)]): trained on its own responses."""
    training, held = pairs()
    plan = plan or PLANS[algorithm]
    task = Task(training.prompts, MOST, END, lambda tokens, mask, rows: rewards(tokens, training, rows))
    trainer, curve = Trainer(network, task, algorithm, plan, seed), []
    for k in range(plan.iterations + 1):
        if k % every == 0 or k == plan.iterations:
            curve.append((k, *(float(pass_at_1(trainer.network, x).mean()) for x in (training, held))))
            watch(*curve[-1])
        if k < plan.iterations:
            trainer.advance()
    return trainer.network, curve


def every_response():
    """(tokens int[K 3], mask bool[K 3]): each response that there is, once; after END stands END."""
    grid = np.indices((13,) * MOST).reshape(MOST, -1).T
    over = np.cumsum(grid == END, 1) - (grid == END) > 0  # an END stands before
    once = ((grid == END) | ~over).all(1)
    return grid[once], ~over[once]


def distribution(network, prompts):
    """float64[n K]: log-probabilities of `every_response` to each prompt; a row's probabilities add up to 1."""
    responses, mask = every_response()
    starts = np.indices((12,) * (MOST - 1)).reshape(MOST - 1, -1).T  # all that may stand before the last token
    found = np.empty((len(prompts), len(responses)))
    for i, prompt in enumerate(prompts):
        rows = np.concatenate([np.broadcast_to(prompt, (len(starts), 6)), starts], 1)
        out = outputs(network.layers(), network.sizes, rows)[:, 5:].astype(np.float64)
        top = out.max(-1, keepdims=True)
        out = out - top - np.log(np.exp(out - top).sum(-1, keepdims=True))
        before = np.minimum(responses[:, : MOST - 1], 11) @ (12 ** np.arange(MOST - 2, -1, -1))
        each = out[before[:, None], np.arange(MOST), responses]
        found[i] = np.where(mask, each, 0).sum(1)
    return found
