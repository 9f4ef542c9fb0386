"""DeepSeek-R1's pipeline in the small: a transformer that thinks before it adds, in tags, and in one language.

    <think> does the sum of the units carry? </think> <answer> the sum </answer>

    1 cold start       likelihood on a few steps of worked examples, whose thoughts are in two languages
    2 reasoning RL     GRPO on accuracy + format + language of the thought
    3 rejection        samples of 2 that earn everything; a fresh model is fine-tuned on them
    4 RL again         GRPO on the same rewards, from 3
    5 distillation     a model of a sixth of the size, fine-tuned on samples of 4 as they come

Rewards are those of ref.rl: they read the text, and nothing but the text.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ref.demo import arithmetic
from ref.demo.policy import Network, Sizes, log_probs, sample
from ref.demo.policy_training import Plan, Task, Trainer
from ref.rl.accuracy_reward import accuracy_reward
from ref.rl.format_reward import format_reward, parse
from ref.rl.language_consistency import language_consistency
from ref.rl.r1_reward import r1_reward
from ref.rl.reduce import reduce
from ref.rl.sequence_log_prob import sequence_log_prob

END, THINK, THOUGHT, ANSWER, ANSWERED = arithmetic.END, 13, 14, 15, 16
SPELLED = (*"0123456789+=", "", "<think>", "</think>", "<answer>", "</answer>", "carry", "plain", "\u9032", "\u7121")
WORDS = np.array([[18, 17], [20, 19]])  # [language, whether it carries]; 0 is English, 1 Chinese
MOST = 9  # a right response has 8 tokens
SIZES = Sizes(vocabulary=len(SPELLED), places=6 + MOST, out=len(SPELLED))
STUDENT = SIZES._replace(channels=32, layers=1)
WEIGHTS = {"accuracy_weight": 1.0, "format_weight": 0.5, "language_weight": 0.5}
PLAN = Plan(prompts=8, group=8, lr=4e-4)


class Budget(NamedTuple):
    """Pass@1 at which the cold start ends and the steps that it may take; iterations of RL, and of the second RL; steps
    of fine-tuning and of distillation; responses that are drawn to each prompt for both."""

    cold: float = 0.15
    cold_steps: int = 600
    iterations: int = 200
    again: int = 50
    steps: int = 250
    distil: int = 400
    draws: int = 8


BUDGET = Budget()


class Report(NamedTuple):
    """Of a model: exact pass@1 (all thoughts of one word) on training and held-out pairs; over one response to each
    training pair, the share that is right, well-formed, and the language consistency of the thoughts."""

    stage: str
    solved: float
    held: float
    right: float
    formed: float
    consistent: float


def text(tokens):
    """What a row of tokens says."""
    return "".join(SPELLED[t] for t in tokens)


def worked(some, language):
    """int[n 8]: right responses to Pairs; language[n] of the thoughts."""
    carries = some.prompts[:, 1] + some.prompts[:, 4] > 9
    row = np.tile([THINK, 0, THOUGHT, ANSWER, 0, 0, ANSWERED, END], (len(carries), 1))
    row[:, 1] = WORDS[language, carries.astype(int)]
    row[:, 4:6] = some.answers[:, :2]
    return row


def task(some):
    """Pairs as a Task: the reward is R1's, of the text of the response."""
    sums = [str(10 * a + b) for a, b in some.answers[:, :2]]

    def reward(tokens, mask, rows):
        texts = [text(t) for t in tokens[:, 6:]]
        return r1_reward(texts, [sums[r] for r in rows], **WEIGHTS).astype(np.float32)

    return Task(some.prompts, MOST, END, reward)


def pass_at_1(network, some):
    """float64[n]: the probability of the right answer after a thought of one word, all four words added up."""
    found = np.zeros(len(some.prompts))
    for word in WORDS.reshape(-1):
        whole = worked(some, 0)
        whole[:, 1] = word
        tokens = np.concatenate([some.prompts, whole], 1)
        mask = np.broadcast_to(np.arange(tokens.shape[1]) >= 6, tokens.shape)
        one = log_probs(network.layers(), network.sizes, tokens, mask).astype(np.float64)
        found += np.exp(sequence_log_prob(one, mask))
    return found


def report(stage, network, rng):
    """A Report of the network."""
    some, held = arithmetic.pairs()
    tokens, _ = sample(network, some.prompts, MOST, END, rng)
    texts = [text(t) for t in tokens[:, 6:]]
    right = accuracy_reward(texts, [str(10 * a + b) for a, b in some.answers[:, :2]])
    thoughts = [p.think for t in texts if (p := parse(t))]
    one_language = language_consistency(thoughts, script="latin").mean() if thoughts else 0.0
    return Report(stage, float(pass_at_1(network, some).mean()), float(pass_at_1(network, held).mean()),
                  float(right.mean()), float(format_reward(texts).mean()), float(one_language))  # fmt: skip


def likelihood(network, tokens, mask, rng, steps, *, lr=1e-3, batch=64, stop=lambda step: False):
    """Train the network on whole responses, for so many steps or until `stop` says so."""
    for step in range(steps):
        if stop(step):
            break
        rows = rng.integers(0, len(tokens), batch)

        def loss(layers, rows=rows):
            found = log_probs(layers, network.sizes, tokens[rows], mask[rows])
            return -reduce(found, mask[rows], reduction="token-mean")

        network.step(loss, lr)


def drawn(network, draws, rng, accepted=None):
    """(tokens, mask, share): responses to the training prompts; only those that earn `accepted`, if it is given."""
    some, _ = arithmetic.pairs()
    rows = np.repeat(np.arange(len(some.prompts)), draws)
    tokens, mask = sample(network, some.prompts[rows], MOST, END, rng)
    keep = np.ones(len(rows), bool) if accepted is None else task(some).reward(tokens, mask, rows) >= accepted - 1e-6
    return tokens[keep], mask[keep], float(keep.mean())


def pipeline(seed, budget=BUDGET, watch=lambda stage, step, of: None, done=lambda report, share: None):
    """[Report] of the five stages; `watch` is called at every step, `done` after each stage."""
    rng = np.random.default_rng((seed, 4))
    some, _ = arithmetic.pairs()
    reports = []

    def close(stage, network, share=None):
        reports.append(report(stage, network, rng))
        done(reports[-1], share)

    def reinforced(network, stage, iterations, salt):
        trainer = Trainer(network, task(some), "grpo", PLAN._replace(iterations=iterations), seed + salt)
        for k in range(iterations):
            watch(stage, k + 1, iterations)
            trainer.advance()
        return trainer.network

    def tuned(sizes, stage, tokens, mask, steps, stop=lambda network, step: False):
        network = Network(sizes, rng)

        def halt(step):
            watch(stage, step + 1, steps)
            return stop(network, step)

        likelihood(network, tokens, mask, rng, steps, stop=halt)
        return network

    mixed = worked(some, rng.integers(0, 2, len(some.prompts)))
    tokens = np.concatenate([some.prompts, mixed], 1)
    mask = np.broadcast_to(np.arange(tokens.shape[1]) >= 6, tokens.shape)
    model = tuned(SIZES, "cold start", tokens, mask, budget.cold_steps,
                  lambda network, step: step % 5 == 0 and pass_at_1(network, some).mean() >= budget.cold)  # fmt: skip
    close("cold start", model)
    model = reinforced(model, "reasoning RL", budget.iterations, 0)
    close("reasoning RL", model)
    best = sum(WEIGHTS.values())
    tokens, mask, share = drawn(model, budget.draws, rng, best)
    if share == 0:
        raise ValueError("pipeline: no response of the policy earned every reward; needed more iterations of RL")
    model = tuned(SIZES, "rejection sampling", tokens, mask, budget.steps)
    close("rejection sampling", model, share)
    model = reinforced(model, "RL again", budget.again, 1)
    close("RL again", model)
    tokens, mask, _ = drawn(model, budget.draws, rng)
    model = tuned(STUDENT, "distillation", tokens, mask, budget.distil)
    close("distillation", model)
    return reports
