"""Training the language model: batches, schedule, clipping, AdamW, checkpoints that resume to the same bits.

    every step   tokens -> llama -> mean cross-entropy -> gradients, a shard of the batch to a thread
                 g <- g min(1, c / |g|),   AdamW at the rate of a warm-up and a cosine

A run is a function of its text, sizes and plan alone. Everything that the next step needs (parameters, moments, the
generator's state, the step) is in the checkpoint, so a killed run resumes to the bits of an unbroken one. The batch
is always cut into `shards`, whoever computes them, so the bits do not depend on the number of threads either.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from autodiff import value_and_grad
from backends.fused.steps import adamw_
from backends.threads import blas_threads, run_tiles
from ref.demo import bpe, checkpoint_file
from ref.losses.softmax_cross_entropy import softmax_cross_entropy
from ref.models.llama import llama, parameter_shapes
from ref.nn.dropout import dropout
from ref.optim.parameter_groups import parameter_groups
from ref.optim.warmup_cosine import warmup_cosine

START = b"\n"  # a text is scored after a line feed
BITS = 1 / math.log(2)
TEMPERATURES = tuple(1 + k / 20 for k in range(13))


class Plan(NamedTuple):
    """How a model is trained.

    Steps, sequences a batch and tokens a sequence, shards of a batch; peak rate, share of warm-up, share of the peak
    that is left at the end; AdamW's betas and decay, the norm that gradients are clipped to; dropout of activations
    and of merges (the text is encoded anew every `epoch` steps); steps between two checkpoints, seed, recomputation.
    """

    steps: int
    batch: int = 4
    context: int = 128
    shards: int = 2
    lr: float = 4e-3
    warmup: float = 0.05
    final: float = 0.02
    beta1: float = 0.9
    beta2: float = 0.98
    weight_decay: float = 0.1
    max_norm: float = 1.0
    dropout: float = 0.0
    bpe_dropout: float = 0.0
    epoch: int = 500
    save_every: int = 500
    seed: int = 0
    checkpointed: bool = False


def initial(config, rng):
    """{name: float32 array}: embeddings N(0, 0.02^2), matrices N(0, 1 / in), over 2 layers where a branch ends."""
    values = {}
    for name, shape in parameter_shapes(config).items():
        deep = 2 * config.layers if name.endswith(("o_proj.weight", "down_proj.weight")) else 1
        std = 0.02 if name in ("model.embed_tokens.weight", "lm_head.weight") else (deep * shape[-1]) ** -0.5
        values[name] = np.ones(shape) if len(shape) == 1 else rng.standard_normal(shape) * std
    return {name: a.astype(np.float32) for name, a in values.items()}


class Run:
    """The state of a training run over `text` with the tokens of `merges`."""

    def __init__(self, text, merges, config, plan):
        self.text, self.merges, self.config, self.plan = text, np.asarray(merges), config, plan
        self.bytes_of = np.array([len(t) for t in bpe.spelled(self.merges)])
        if config.vocabulary != len(self.bytes_of):
            raise ValueError(f"Run: config has vocabulary={config.vocabulary}, the merges make {len(self.bytes_of)}")
        self.tokens, self.epoch = self._encoded(0), 0
        if len(self.tokens) <= plan.context:
            raise ValueError(f"Run: text has {len(self.tokens)} tokens; more than {plan.context} are needed")
        self.rng = np.random.default_rng(plan.seed)
        self.step, self.curve, self.temperature = 0, [], 1.0
        self._make(initial(config, self.rng))

    def _make(self, values):
        """The parameters and what trains them."""
        # One flat array, the matrices first: AdamW then runs over two slices, with and without decay.
        plain = set(parameter_groups({n: a.shape for n, a in values.items()})["no_decay"])
        order = sorted(values, key=lambda n: n in plain)
        self.flat, self.params = _views(order, values)
        self.gradient, self.slots = _views(order, {n: np.zeros_like(a) for n, a in values.items()})
        self.m, self.v = np.zeros_like(self.flat), np.zeros_like(self.flat)
        self.decayed = sum(values[n].size for n in order if n not in plain)

    def advance(self):
        """One step; returns its loss in bits per byte."""
        with blas_threads(1):  # a threaded product or sum may round another way
            return self._advance()

    def _advance(self):
        plan = self.plan
        window, keeps = self._drawn()
        rows = np.array_split(np.arange(plan.batch), plan.shards)
        found = [None] * len(rows)

        def shard(k):
            found[k] = value_and_grad(self._loss)(self.params, window[rows[k]], keeps[:, rows[k]], window[:, 1:].size)

        run_tiles(shard, range(len(rows)))
        for name, slot in self.slots.items():
            slot[...] = found[0][1][name]
            for _, g in found[1:]:
                slot += g[name]
        self._update()
        return self._noted(float(sum(float(value) for value, _ in found)), window)

    def _drawn(self):
        """(tokens[batch context + 1], dropout's masks) of the next step: the whole batch, drawn alike by every rank."""
        plan = self.plan
        if plan.bpe_dropout and self.step // plan.epoch != self.epoch:
            self.epoch = self.step // plan.epoch
            self.tokens = self._encoded(self.epoch)
        starts = self.rng.integers(0, len(self.tokens) - plan.context, plan.batch)
        window = self.tokens[starts[:, None] + np.arange(plan.context + 1)]
        return window, self._masks(window.shape[0])

    def _noted(self, loss, window):
        """The mean loss of a step in bits per byte, appended to the curve."""
        bits = loss * BITS * window[:, 1:].size / float(self.bytes_of[window[:, 1:]].sum())
        self.curve.append(bits)
        return bits

    def _loss(self, params, window, keeps, count):
        """This shard's part of the mean over the `count` tokens of the batch."""
        drop, recompute = self._drop(keeps), self.plan.checkpointed
        out = llama(params, window[:, :-1], self.config, checkpointed=recompute, drop=drop)
        return softmax_cross_entropy(out, window[:, 1:]).sum() * (1 / count)

    def _drop(self, keeps):
        """`drop(x, site)` by the masks of `_masks`."""
        rate = self.plan.dropout
        return lambda x, site: dropout(x, keeps[site], rate=rate) if rate else x

    def _masks(self, batch):
        """bool[sites batch context channels] of what dropout keeps, drawn for the whole batch."""
        if not self.plan.dropout:
            return np.empty((0, batch), bool)
        shape = (2 * self.config.layers + 1, batch, self.plan.context, self.config.channels)
        drawn = np.frombuffer(self.rng.bytes(math.prod(shape)), np.uint8).reshape(shape)
        return drawn >= round(self.plan.dropout * 256)

    def _update(self):
        plan, g = self.plan, self.gradient
        norm = math.sqrt(float(np.vdot(g, g)))
        if not math.isfinite(norm):
            bad = next((n for n, slot in self.slots.items() if not np.isfinite(slot).all()), "all together")
            raise FloatingPointError(f"step {self.step}: the gradient of {bad} is not finite")
        if norm > plan.max_norm:
            g *= g.dtype.type(plan.max_norm / norm)
        self.step += 1
        lr = self._rate()
        for part, decay in ((slice(self.decayed), plan.weight_decay), (slice(self.decayed, None), 0.0)):
            adamw_(
                [self.flat[part]], [g[part]], [self.m[part]], [self.v[part]], self.step,
                lr=lr, beta1=plan.beta1, beta2=plan.beta2, eps=1e-8, weight_decay=decay,
            )  # fmt: skip

    def _rate(self):
        """Learning rate of step `self.step`."""
        plan = self.plan
        warm = min(max(1, round(plan.warmup * plan.steps)), plan.steps - 1)
        return warmup_cosine(self.step, peak=plan.lr, warmup=warm, total=plan.steps, final=plan.final * plan.lr)

    def _encoded(self, epoch):
        share = self.plan.bpe_dropout
        return bpe.encode(self.merges, self.text, share, np.random.default_rng((self.plan.seed, epoch)))

    def bits_per_byte(self, text):
        """Code length of `text`: every token scored once, with half a window before it or all there is."""
        T, half = self.plan.context, max(1, self.plan.context // 2)
        row = np.concatenate((bpe.encode(self.merges, START), bpe.encode(self.merges, text)))
        starts = range(0, max(len(row) - 1 - T, 0) + half, half)
        nats = [0.0] * len(starts)

        def score(j):
            window, seen = row[starts[j] : starts[j] + T + 1], (T - half if j else 0)
            out = llama(self.params, window[:-1], self.config)[seen:] * np.float32(1 / self.temperature)
            nats[j] = float(np.sum(softmax_cross_entropy(out, window[1 + seen :]), dtype=np.float64))

        run_tiles(score, range(len(starts)))
        return sum(nats) * BITS / len(text)

    def calibrate(self, text):
        """Set the temperature by which `text` is coded best, and return it.

        A model that has seen its text many times is too sure of the next token (Guo et al. 2017, 1706.04599, sec. 4.2);
        one number, chosen on text it was not trained on, takes that back.
        """

        def bits(temperature):
            self.temperature = temperature
            return self.bits_per_byte(text)

        self.temperature = min(TEMPERATURES, key=bits)
        return self.temperature

    def sample(self, prompt, count, temperature=0.8, seed=0):
        """`prompt` and `count` tokens after it, drawn from the model at its own temperature times `temperature`."""
        rng = np.random.default_rng(seed)
        tokens = list(bpe.encode(self.merges, START + prompt))
        for _ in range(count):
            out = llama(self.params, np.array(tokens[-self.plan.context :]), self.config)[-1].astype(np.float64)
            p = np.exp((out - out.max()) / (temperature * self.temperature))
            tokens.append(int(rng.choice(len(p), p=p / p.sum())))
        return bpe.decode(self.merges, tokens)[len(START) :]

    def save(self, folder):
        """Write a checkpoint; returns its path."""
        return checkpoint_file.save(folder, self._arrays(), {
            "step": self.step,
            "rng": self.rng.bit_generator.state,
            "config": self.config._asdict(),
            "plan": self.plan._asdict(),
        })  # fmt: skip

    def _arrays(self):
        state = {"adam.m": self.m, "adam.v": self.v, "merges": self.merges, "curve": np.array(self.curve)}
        return {**self.params, **state}

    def resume(self, folder):
        """Take up the newest checkpoint of `folder`, if there is one; returns whether there was.

        Raises
        ------
        ValueError
            The checkpoint is of another configuration, plan or vocabulary.
        """
        path = checkpoint_file.latest(folder)
        if path is None:
            return False
        state = checkpoint_file.load(path).state
        for name, mine in (("config", self.config._asdict()), ("plan", self.plan._asdict())):
            if state[name] != mine:
                raise ValueError(f"resume: {path} has {name} {state[name]}; this run has {mine}")
        self.curve = [0.0] * state["step"]
        arrays = checkpoint_file.load(path, like=self._arrays()).arrays
        if not np.array_equal(arrays["merges"], self.merges):
            raise ValueError(f"resume: {path} has other merges; this run learned its own from another text")
        for name, own in (*self.params.items(), ("adam.m", self.m), ("adam.v", self.v)):
            own[...] = arrays[name]
        self.curve, self.step = arrays["curve"].tolist(), state["step"]
        self.rng.bit_generator.state = state["rng"]
        return True


def train(run, folder, *, watch=lambda run, bits: None):
    """Advance `run` to its last step, with a checkpoint every `save_every` steps and at the end."""
    folder = Path(folder)
    while run.step < run.plan.steps:
        bits = run.advance()
        watch(run, bits)
        if run.step % run.plan.save_every == 0 or run.step == run.plan.steps:
            run.save(folder)
    return run


def _views(order, values):
    """(one flat copy of all arrays, {name: the view of its part})."""
    flat = np.concatenate([values[n].reshape(-1) for n in order])
    ends = np.cumsum([values[n].size for n in order])
    parts = zip(order, np.split(flat, ends[:-1]), strict=True)
    return flat, {n: part.reshape(values[n].shape) for n, part in parts}
