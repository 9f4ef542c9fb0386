"""Laws and mutants of predictor-corrector sampling."""

from __future__ import annotations

import numpy as np

from ref.diffusion.common_laws import Recorder
from ref.diffusion.run_stages import Stage
from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, batch, cases, choose, dims, rng

ID = "diffusion.predictor_corrector"


def stages(draw, c):
    """K stages with coefficients of eighths, the last without noise."""
    g = rng(draw)
    found = [
        Stage(float(c.K - k), *(g.integers(1, 9, 2) / 8).tolist(), noise=float(g.integers(1, 5) / 4))
        for k in range(c.K)
    ]
    return [*found[:-1], found[-1]._replace(noise=0.0)]


def bounded(x, t):
    """A score between 1/2 and 1 in every entry, and a quarter of t more: never near 0."""
    return (x * x + 1.0) / (x * x + 2.0) + 0.25 * t


space = cases(
    ID,
    B=batch(1, 3, large=20),
    d=dims(1, 3),
    K=dims(1, 3),
    stages=stages,
    after=lambda draw, c: [*(float(c.K - k - 1) for k in range(c.K - 1)), None],
    alphas=lambda draw, c: None if draw(choose(False, True)) else (rng(draw).integers(4, 9, c.K) / 8).tolist(),
    corrections=dims(0, 2),
    snr=choose(0.25, 0.5),
    norms=choose("each", "mean"),
    noise=lambda draw, c: rng(draw).integers(-8, 9, (c.K * (1 + c.corrections), *c.B, c.d)) / 4.0 + 1.0 / 64,
    score=lambda draw, c: bounded,
    flags={
        "plain": Flag(lambda c: c.corrections == 0, {"corrections": 0}),
        "several": Flag(lambda c: c.corrections > 1 and c.K > 1, {"corrections": 2, "K": dims(2, 3)}),
        "some": Flag(lambda c: 0 not in c.B, {"B": choose((), (3,))}),
    },
)
some = space.where(some=True)


def by_hand(c):
    """(states where the score is asked, with their t; the result), step by step from the algorithm."""
    x, k, seen = np.asarray(c.x, np.float64), 0, []
    alphas = c.alphas or [1.0] * c.K
    for s, t, alpha in zip(c.stages, c.after, alphas, strict=True):
        seen.append((x, s.t))
        x = s.x * x + s.model * bounded(x, s.t)
        if s.noise:
            x, k = x + s.noise * np.asarray(c.noise[k], np.float64), k + 1
        for _ in range(c.corrections if t is not None else 0):
            seen.append((x, t))
            g, z = bounded(x, t), np.asarray(c.noise[k], np.float64)
            k += 1
            norm = [np.linalg.norm(v, axis=-1, keepdims=True) for v in (z, g)]
            norm = [np.full_like(n, n.mean()) for n in norm] if c.norms == "mean" else norm
            e = 2 * alpha * (c.snr * norm[0] / np.maximum(norm[1], 1e-30)) ** 2
            x = x + e * g + np.sqrt(2 * e) * z
    return seen, x


def run(impl, c, expect):
    model = c.score
    recorder = Recorder(lambda x, t, k: model(x, t))
    out = impl(c.replace(score=recorder))
    corrected = sum(t is not None for t in c.after)
    recorder.called(expect, c.K + c.corrections * corrected)
    return recorder.seen, out


def limit(c, *arrays):
    size = max([1.0, *(np.max(np.abs(a), initial=0) for a in arrays)])
    return bounds.rounding(4000 * c.K * (1 + c.corrections), size**3, c.dtype)


@law(
    ID, "L1", closed_form=True, given=some.where(plain=True),
    kills=["noise_at_the_last_step", "one_correction_at_least"],
)  # fmt: skip
def without_corrections_the_predictor(impl, c, expect):
    "corrections = 0: the stages A x + B s + c z, one after the other."
    _, out = run(impl, c, expect)
    wanted = by_hand(c)[1]
    expect(out, wanted, limit(c, wanted), scale=1e9)


@law(
    ID, "L2", closed_form=True, given=some.reach("several"),
    kills=["corrector_first", "corrected_at_the_old_level", "last_stage_corrected", "alpha_ignored", "norms_ignored",
           "one_correction_at_least", "noise_at_the_last_step"],
)  # fmt: skip
def every_step_in_its_place(impl, c, expect):
    """Predictor, then its corrections with the score of the level it leads to, none after the last: every state
    asked, and the result."""
    wanted_seen, wanted = by_hand(c)
    seen, out = run(impl, c, expect)
    reach = limit(c, wanted, *(v for v, _ in wanted_seen))
    for k, ((x, t), (y, s)) in enumerate(zip(seen, wanted_seen, strict=True)):
        expect(float(t), float(s), 1e-6, f"t of call {k}", scale=9.0)
        expect(x, y, reach, f"x at call {k}", scale=1e9)
    expect(out, wanted, reach, scale=1e9)


@law(
    ID, "L3", closed_form=True, given=some.where(several=True, alphas=None, norms="each"),
    kills=["corrector_first", "last_stage_corrected"],
)  # fmt: skip
def corrections_are_langevin_steps(impl, c, expect):
    """A score that says 1 everywhere: each correction of a sample moves it by e + sqrt(2 e) z with e = 2 (r |z|)^2 /
    d."""
    constant = c.replace(score=lambda x, t: x * 0.0 + 1.0)
    out = np.asarray(impl(constant), np.float64)
    x, k = np.asarray(c.x, np.float64), 0
    for s, t in zip(c.stages, c.after, strict=True):
        x = s.x * x + s.model
        if s.noise:
            x, k = x + s.noise * np.asarray(c.noise[k], np.float64), k + 1
        for _ in range(c.corrections if t is not None else 0):
            z = np.asarray(c.noise[k], np.float64)
            e = 2 * (c.snr * np.linalg.norm(z, axis=-1, keepdims=True)) ** 2 / c.d
            x, k = x + e + np.sqrt(2 * e) * z, k + 1
    expect(out, x, limit(c, x, np.full(1, 9.0)), scale=1e9)


# Mutants ---------------------------------------------------------------------------------------------


def still(**options):
    """The default-size test: stages that leave x, a tiny score, no corrections."""
    two = [Stage(2.0, 1.0, 0.0), Stage(1.0, 1.0, 0.0)]
    fields = {"score": lambda x, t: 0 * x + 1e-9, "stages": two, "after": [1.0, None], "snr": 1e-12, "corrections": 0}
    return lambda: ((np.ones((3, 2)), np.ones((4, 3, 2))), {**fields, **options})


def walk(x, noise, *, score, stages, after, snr, corrections=1, alphas=None, norms="each", **edit):
    x, k = np.array(x), 0
    alphas = [1.0] * len(stages) if alphas is None or edit.get("plain") else alphas

    def corrected(x, t, alpha, k):
        g, z = np.asarray(score(x, t), np.float64), np.asarray(noise[k], np.float64)
        norm = [np.linalg.norm(v, axis=-1, keepdims=True) for v in (z, g)]
        mean = norms == "mean" and not edit.get("each")
        norm = [np.full_like(n, n.mean()) for n in norm] if mean else norm
        e = 2 * alpha * (snr * norm[0] / np.maximum(norm[1], 1e-30)) ** 2
        return np.asarray(x + e * g + np.sqrt(2 * e) * z, x.dtype)

    count = max(corrections, edit.get("least", 0))
    for i, (s, t, alpha) in enumerate(zip(stages, after, alphas, strict=True)):
        at = s.t if edit.get("old") and t is not None else t
        if at is None and edit.get("ends"):
            at = s.t
        if edit.get("first") and at is not None:
            for _ in range(count):
                x, k = corrected(x, s.t, alpha, k), k + 1
        x = np.asarray(s.x * x + s.model * np.asarray(score(x, s.t)), x.dtype)
        if (s.noise or (edit.get("noisy") and i == len(stages) - 1)) and k < len(noise):
            x, k = np.asarray(x + (s.noise or 0.5) * noise[k], x.dtype), k + 1
        if not edit.get("first") and at is not None:
            for _ in range(count):
                if k < len(noise):
                    x, k = corrected(x, at, alpha, k), k + 1
    return x


@mutant(ID, default_case=still())
def corrector_first(*args, **options):
    "Corrected before the stage, as the paper's code does."
    return walk(*args, first=True, **options)


@mutant(ID, default_case=still())
def corrected_at_the_old_level(*args, **options):
    "off-by-one: the corrections ask with the t of the stage."
    return walk(*args, old=True, **options)


@mutant(ID, default_case=still())
def last_stage_corrected(*args, **options):
    "The last state is corrected too, with the score of the level before."
    return walk(*args, ends=True, **options)


@mutant(ID, default_case=still())
def alpha_ignored(*args, **options):
    "VP / VE swapped: alpha = 1."
    return walk(*args, plain=True, **options)


@mutant(ID, default_case=still())
def norms_ignored(*args, **options):
    "Each sample's norms always."
    return walk(*args, each=True, **options)


@mutant(ID, default_case=still(after=[None, None]))
def one_correction_at_least(*args, **options):
    "Corrections cannot be turned off."
    return walk(*args, least=1, **options)


@mutant(ID, default_case=still(stages=[], after=[]))
def noise_at_the_last_step(*args, **options):
    "Noise at the last stage."
    return walk(*args, noisy=True, **options)
