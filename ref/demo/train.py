"""Training the language model: batches, schedule, clipping, AdamW, checkpoints that resume to the same bits.

A run is a function of its seed and its length alone. Everything that the next step needs (parameters, moments,
the generator's state, the step) is in the checkpoint, so a killed run resumes to the bits of an unbroken one.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from autodiff import no_grad, tensor
from backends.fused.numpy.adamw import adamw_
from ref.demo import checkpoint_file
from ref.demo.language_model import Config, initial, logits
from ref.losses.softmax_cross_entropy import softmax_cross_entropy


class Plan(NamedTuple):
    """A run: steps, sequences a batch, peak learning rate, share of warm-up, decay, clip, steps a checkpoint."""

    steps: int = 900
    batch: int = 4
    lr: float = 6e-3
    warmup: float = 0.05
    weight_decay: float = 0.1
    max_norm: float = 1.0
    save_every: int = 300
    seed: int = 0
    checkpointed: bool = False


def rate(plan, step):
    """Learning rate of step 0, 1, ...: linear warm-up to lr, then a cosine to a tenth of it."""
    warm = max(1, round(plan.warmup * plan.steps))
    if step < warm:
        return plan.lr * (step + 1) / warm
    done = (step - warm) / max(1, plan.steps - warm)
    return plan.lr * (0.1 + 0.45 * (1 + math.cos(math.pi * done)))


class Run:
    """The state of a training run over `text` (bytes)."""

    def __init__(self, text, config=None, plan=None):
        self.codes = np.frombuffer(text, np.uint8).astype(np.int64)
        self.config, self.plan = config or Config(), plan or Plan()
        if len(self.codes) <= self.config.context:
            raise ValueError(f"Run: text has {len(self.codes)} bytes; more than {self.config.context} are needed")
        self.rng = np.random.default_rng(self.plan.seed)
        values = initial(self.config, self.rng)
        self.params = {name: tensor(a, requires_grad=True) for name, a in values.items()}
        self.moments = {name: (np.zeros(a.size, a.dtype), np.zeros(a.size, a.dtype)) for name, a in values.items()}
        self.step = 0

    def advance(self):
        """One step; returns its loss in bits per byte."""
        T = self.config.context
        starts = self.rng.integers(0, len(self.codes) - T, self.plan.batch)
        window = self.codes[starts[:, None] + np.arange(T + 1)]
        out = logits(self.params, window[:, :-1], self.config, checkpointed=self.plan.checkpointed)
        loss = softmax_cross_entropy(out, window[:, 1:]).mean()
        loss.backward()
        self._update()
        return loss.item() / math.log(2)

    def _update(self):
        grads = {name: p.grad for name, p in self.params.items()}
        norm = math.sqrt(sum(float(np.vdot(g, g)) for g in grads.values()))
        if not math.isfinite(norm):
            bad = next(n for n, g in grads.items() if not np.isfinite(g).all())
            raise FloatingPointError(f"step {self.step}: the gradient of {bad} is not finite")
        shrink = np.float32(min(1.0, self.plan.max_norm / max(norm, 1e-12)))
        lr = rate(self.plan, self.step)
        self.step += 1
        for name, p in self.params.items():
            decay = self.plan.weight_decay if p.ndim == 2 and name != "embedding" else 0.0
            m, v = self.moments[name]
            adamw_(
                p.data.reshape(-1), grads[name].reshape(-1) * shrink, m, v, self.step,
                lr=lr, beta1=0.9, beta2=0.98, eps=1e-8, weight_decay=decay,
            )  # fmt: skip
            p.grad = None

    def save(self, folder):
        """Write a checkpoint; returns its path."""
        arrays = {name: p.data for name, p in self.params.items()}
        for name, (m, v) in self.moments.items():
            arrays |= {f"adam.m.{name}": m, f"adam.v.{name}": v}
        state = {
            "step": self.step,
            "rng": self.rng.bit_generator.state,
            "config": self.config._asdict(),
            "plan": self.plan._asdict(),
        }
        return checkpoint_file.save(folder, arrays, state)

    def resume(self, folder):
        """Take up the newest checkpoint of `folder`, if there is one of the same run; returns whether there was.

        Raises
        ------
        ValueError
            The checkpoint is of another configuration or plan.
        """
        path = checkpoint_file.latest(folder)
        if path is None:
            return False
        found = checkpoint_file.load(path)
        for name, mine in (("config", self.config._asdict()), ("plan", self.plan._asdict())):
            if found.state[name] != mine:
                raise ValueError(f"resume: {path} has {name} {found.state[name]}; this run has {mine}")
        for name, p in self.params.items():
            p.data[...] = found.arrays[name]
            for own, kept in zip(self.moments[name], "mv", strict=True):
                own[...] = found.arrays[f"adam.{kept}.{name}"]
        self.rng.bit_generator.state = found.state["rng"]
        self.step = found.state["step"]
        return True

    def bits_per_byte(self, text, stride=64):
        """Code length of `text`: windows that overlap, each byte scored once, with at least T - stride before it."""
        T, codes = self.config.context, np.frombuffer(text, np.uint8).astype(np.int64)
        total, at = 0.0, 1
        with no_grad():
            while at < len(codes):
                fresh = min(T if at == 1 else stride, len(codes) - at)
                low = max(0, at + fresh - T - 1)
                window = codes[None, low : at + fresh]
                out = logits(self.params, window[:, :-1], self.config)
                losses = softmax_cross_entropy(out, window[:, 1:])
                losses = getattr(losses, "data", losses)
                total += float(np.sum(losses[0, -fresh:], dtype=np.float64))
                at += fresh
        return (total / math.log(2) + 8) / len(codes)  # the first byte costs its 8 bits

    def sample(self, prompt, count, temperature=0.8, seed=0):
        """`prompt` (bytes) and `count` bytes after it, drawn from the model."""
        rng, codes = np.random.default_rng(seed), list(prompt)
        with no_grad():
            for _ in range(count):
                window = np.array(codes[-self.config.context :])[None]
                out = logits(self.params, window, self.config)
                last = np.asarray(getattr(out, "data", out))[0, -1].astype(np.float64) / temperature
                p = np.exp(last - last.max())
                codes.append(int(rng.choice(len(p), p=p / p.sum())))
        return bytes(codes)


def train(run, folder, *, until=None, watch=lambda run, loss: None):
    """Advance `run` to its last step (or `until`), with a checkpoint every `save_every` and at the end."""
    folder = Path(folder)
    last = run.plan.steps if until is None else min(until, run.plan.steps)
    while run.step < last:
        loss = run.advance()
        watch(run, loss)
        if run.step % run.plan.save_every == 0 or run.step == last:
            run.save(folder)
    return run
