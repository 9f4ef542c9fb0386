"""Laws and mutants of PPO-max's rewards."""

from __future__ import annotations

import math

import numpy as np

from ref.rl.common_laws import dyadics, filled_mask, log_probs
from ref.rl.running_moments import Moments
from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, cases, choose, dims, rng

ID = "rl.ppo_max_reward"


def _seen(draw, c):
    x = rng(draw).integers(-16, 17, c.before) / 8.0
    mean = x.mean() if len(x) else 0.0
    return Moments(np.array(float(len(x))), np.array(mean), np.array(np.sum((x - mean) ** 2)))


space = cases(
    ID, B=dims(2, 4, large=10), T=dims(1, 4, large=20), before=choose(0, 5), mode=choose("normalise", "scale", None),
    clip=choose(None, 0.8, 5.0),
    beta=choose(0.125, 0.0), mask=filled_mask, scores=dyadics("B", -2, 2, 8), log_probs=log_probs,
    ref_log_probs=log_probs, state=_seen,
    flags={
        "spread": Flag(lambda c: math.sqrt(pooled(c)[2] / max(pooled(c)[0] - 1, 1)) > 0.2),
        "off": Flag(lambda c: c.mode is None and c.clip is None, {"mode": None, "clip": None}),
        "masked": Flag(lambda c: not np.all(c.mask), {"T": dims(2, 4)}),
        "clips": Flag(lambda c: c.clip is not None and np.any(np.abs(scaled(c)) > c.clip),
        {"clip": 0.8, "mode": "normalise"}),
    },
).where(spread=True)  # fmt: skip


def pooled(c):
    """Count, mean and M2 of all scores."""
    n0, m0, s0 = (float(v) for v in c.state)
    x = [float(v) for v in c.scores]
    n = n0 + len(x)
    mean = (n0 * m0 + math.fsum(x)) / n
    return n, mean, s0 + n0 * (m0 - mean) ** 2 + math.fsum((v - mean) ** 2 for v in x)


def scaled(c):
    n, mean, m2 = pooled(c)
    s = math.sqrt(m2 / (n - 1))
    r = np.asarray(c.scores, np.float64)
    return {None: r, "scale": r / s, "normalise": (r - mean) / s}[c.mode]


def rewards(c):
    r = scaled(c)
    r = r if c.clip is None else np.clip(r, -c.clip, c.clip)
    out = np.where(c.mask, -c.beta * (np.asarray(c.log_probs, np.float64) - c.ref_log_probs), 0)
    for i, row in enumerate(np.asarray(c.mask)):
        out[i, np.flatnonzero(row)[-1]] += r[i]
    return out


def limit(c):
    return bounds.rounding(8 * c.B + 64, 30.0, c.dtype)


@law(ID, "L1", closed_form=True, given=space.reach("off", "masked", "clips"),
     kills=["normalises_when_scaling", "scales_when_normalising", "clip_ignored", "clips_the_total", "moments_after",
     "deviation_of_the_batch"])  # fmt: skip
def value_is_the_definition(impl, c, expect):
    "The score scaled by the moments of all scores, clipped, on the last kept token; -beta (log pi - log ref) on each."
    expect(impl(c)[0], rewards(c), limit(c), scale=8.0)


@law(ID, "L2", closed_form=True, given=space.where(off=True), kills=["always_scales"])
def each_trick_off_is_plain_ppo(impl, c, expect):
    "No mode and no clip: the score as it is, to the bit, and the plain penalty."
    now = c.replace(beta=0.0)
    wanted = np.zeros(c.mask.shape)
    for i, row in enumerate(np.asarray(c.mask)):
        wanted[i, np.flatnonzero(row)[-1]] = c.scores[i]
    expect.same(impl(now)[0], wanted)


@law(ID, "L3", closed_form=True, given=space, kills=["moments_of_the_clipped", "sum_of_squares_drifts"])
def moments_are_those_of_all_scores(impl, c, expect):
    "The state that comes out: count, mean and M2 of all scores as they came, unscaled and unclipped."
    found = impl(c)[1]
    for name, a, b in zip(Moments._fields, found, pooled(c), strict=True):
        expect(a, np.array(b), bounds.rounding(8 * c.B + 64, 40.0, c.dtype), name, scale=8.0)


# Mutants ---------------------------------------------------------------------------------------------


def default():
    """The default-size test: standard scores after many that were standard, one token each."""
    x = np.array([1.0, -1.0])
    one = np.ones((2, 1))
    return (x, -one, -one, one > 0, Moments(np.array(2.0), np.array(0.0), np.array(1.0))), {"mode": "normalise",
        "clip": None, "beta": 0.0}


def plain(scores, lp, ref, mask, state, *, mode, clip, beta, **edit):
    def add(state, x):
        n = state[0] + len(x)
        gap = x.mean() - state[1]
        return Moments(*(np.asarray(v, scores.dtype)
            for v in (n, state[1] + gap * len(x) / n,
            state[2] + ((x - x.mean()) ** 2).sum() + gap**2 * state[0] * len(x) / n)))

    new = add(state, scores)
    used = edit.get("used", lambda old, new, x: new)(state, new, scores)
    mode = edit.get("mode_as", lambda m: m)(mode)
    r = scores
    if mode is not None:
        s = np.sqrt(used[2] / max(used[0] - 1, 1))
        r = (r - used[1] if mode == "normalise" else r) / (s if s > 0 else 1)
    total = np.where(mask, -beta * (lp - ref), 0).astype(np.float64)
    if clip is not None and not edit.get("free") and not edit.get("total"):
        r = np.clip(r, -clip, clip)
    last = mask.shape[1] - 1 - np.argmax(mask[:, ::-1], axis=1)
    total[np.arange(len(r)), last] += r
    if clip is not None and edit.get("total"):
        total = np.clip(total, -clip, clip)
    if edit.get("of_clipped"):
        new = add(state, r.astype(scores.dtype))
    if edit.get("half"):
        new = Moments(new[0], new[1], np.asarray(new[2] + 1e-6, scores.dtype))
    return total.astype(lp.dtype), new


def _mutant(name, doc, case=default, **edit):
    def function(*args, **options):
        return plain(*args, **options, **edit)

    function.__name__, function.__doc__ = name, doc
    mutant(ID, default_case=case)(function)


def plainly():
    args, _ = default()
    return args, {"mode": None, "clip": None, "beta": 0.0}


_mutant("normalises_when_scaling", "The mean is taken off too.", mode_as=lambda m: "normalise" if m == "scale" else m)
_mutant("scales_when_normalising", "The mean stays: here it is 0.", mode_as=lambda m: "scale" if m == "normalise"
    else m)
_mutant("clip_ignored", "clip accepted and dropped.", free=True)
_mutant("clips_the_total", "Clipped after the penalty.", total=True)
_mutant("moments_after", "Scaled by what was seen before this batch.", plainly, used=lambda old, new, x: old
    if old[0] > 1 else Moments(*(np.asarray(v) for v in (2.0, 0.0, 1.0))))
_mutant("deviation_of_the_batch", "Scaled by the batch's own moments.", plainly,
    used=lambda old, new, x: Moments(len(x), x.mean(), ((x - x.mean()) ** 2).sum()))
_mutant("always_scales", "Scaled whatever the mode.", mode_as=lambda m: m or "scale", case=lambda: (
    (np.array([1.0, -1.0]), -np.ones((2, 1)), -np.ones((2, 1)), np.ones((2, 1), bool),
    Moments(np.array(2.0), np.array(0.0), np.array(1.0))), {"mode": "scale", "clip": None, "beta": 0.0}))  # fmt: skip
_mutant("moments_of_the_clipped", "The moments of the scaled and clipped scores.", plainly, of_clipped=True)
_mutant("sum_of_squares_drifts", "An eps is added to M2 at every batch: it piles up.", plainly, half=True)
