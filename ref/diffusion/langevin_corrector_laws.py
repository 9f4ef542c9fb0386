"""Laws and mutants of the Langevin corrector."""

from __future__ import annotations

import numpy as np

from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, batch, cases, choose, dims, floats

ID = "diffusion.langevin_corrector"

space = cases(
    ID,
    B=batch(2, 3, large=60),
    d=dims(1, 4),
    x=floats("*B d"),
    score=lambda draw, c: floats("*B d")(draw, c) + 1.0 / 64,
    noise=floats("*B d"),
    snr=choose(0.25, 0.16, 1.0),
    alpha=choose(1.0, 0.5, 0.875),
    norms=choose("each", "mean"),
    flags={
        "none": Flag(lambda c: 0 in c.B, {"B": (0,)}),
        "batch": Flag(lambda c: np.prod(c.B, dtype=int) > 1, {"B": (3,)}),
        "some": Flag(lambda c: 0 not in c.B, {"B": choose((), (3,), (2, 2))}),
    },
)
some = space.where(some=True)


def f64(c):
    return [np.asarray(c[n], np.float64) for n in ("x", "score", "noise")]


def norms(c, v):
    found = np.linalg.norm(v, axis=-1, keepdims=True)
    return np.full_like(found, found.mean()) if c.norms == "mean" and found.size else found


def step(c):
    """e[*B 1], 0 where there is no score."""
    _, s, z = f64(c)
    with np.errstate(all="ignore"):
        e = 2 * c.alpha * (c.snr * norms(c, z) / norms(c, s)) ** 2
    return np.where(norms(c, s) > 0, e, 0.0)


def near(c, e):
    x, s, z = f64(c)
    return bounds.rounding(60 + 8 * c.d, np.abs(x) + e * np.abs(s) + np.sqrt(2 * e) * np.abs(z), c.dtype)


@law(
    ID, "L1", closed_form=True, given=some.where(alpha=1.0, norms="each", x=lambda draw, c: np.zeros((*c.B, c.d))),
    kills=["two_missing", "ratio_not_squared", "norms_squared", "noise_of_the_half_step", "ratio_inverted"],
    passes_null=["mutated"],
)  # fmt: skip
def signal_to_noise_is_the_ratio(impl, c, expect):
    "alpha = 1, from 0: the drift, asked without noise's sign by z and -z, is r times as long as the noise."
    out, other = (np.asarray(impl(c.replace(noise=v)), np.float64) for v in (c.noise, -c.noise))
    drift, spread = (out + other) / 2, (out - other) / 2
    _, s, z = f64(c)
    e = step(c)
    size = np.sqrt(np.sum((e * np.abs(s) + np.sqrt(2 * e) * np.abs(z)) ** 2, -1))
    lengths = [np.linalg.norm(v, axis=-1) for v in (drift, spread)]
    expect(
        lengths[0], c.snr * lengths[1], bounds.rounding(200 + 20 * c.d, size, c.dtype), "length of the drift", scale=1e9
    )
    expect(spread, np.sqrt(2 * e) * z, near(c, e), "the noise", scale=1e9)


@law(
    ID, "L2", closed_form=True, given=space.reach("none", "batch"),
    kills=["two_missing", "ratio_not_squared", "norms_squared", "alpha_ignored", "mean_always", "each_always",
           "noise_of_the_half_step", "ratio_inverted", "downhill"],
)  # fmt: skip
def step_by_the_norms(impl, c, expect):
    "x + e s + sqrt(2 e) z, e = 2 alpha (r |z| / |s|)^2, the norms each sample's or the batch's means."
    x, s, z = f64(c)
    e = step(c)
    expect(impl(c), x + e * s + np.sqrt(2 * e) * z, near(c, e), scale=1e9)


@law(ID, "L3", closed_form=True, given=some.where(norms="each"), kills=["zero_over_zero", "ratio_inverted"],
     passes_null=["identity"])  # fmt: skip
def a_scale_of_the_score_shortens_the_step(impl, c, expect):
    "Score 0 moves nothing, to the bit; score times 4 has a sixteenth of e: a quarter of the drift and of the noise."
    expect.same(impl(c.replace(score=np.zeros_like(c.score))), c.x, "without a score")
    x = np.zeros_like(c.x)
    near_out, far_out = (
        np.asarray(impl(c.replace(x=x, score=(k * c.score).astype(c.dtype))), np.float64) for k in (1, 4)
    )
    expect(4 * far_out, near_out, 4 * near(c.replace(x=x), step(c)), "score times 4", scale=1e9)


@law(ID, "L4", given=some.where(batch=True, norms="each"), kills=["mean_always"],
     passes_null=["zeros", "constant", "identity"])  # fmt: skip
def samples_alone_or_together(impl, c, expect):
    "norms each: a sample alone has the bits it has in the batch."
    out = impl(c)
    for i in range(c.B[0]):
        cut = {n: c[n][i : i + 1].copy() for n in ("x", "score", "noise")}
        expect.same(impl(c.replace(**cut, B=(1, *c.B[1:]))), out[i : i + 1], f"sample {i}")


# Mutants ---------------------------------------------------------------------------------------------


def quiet():
    """The default-size test: no noise, hence no step."""
    return lambda: ((np.ones((3, 2)), np.ones((3, 2)), np.zeros((3, 2))), {"snr": 0.25})


def correct(x, score, noise, *, snr, alpha=1.0, norms="each", **edit):
    def norm(v):
        found = edit.get("norm", lambda v: np.sqrt(np.sum(v * v, -1, keepdims=True)))(np.asarray(v, np.float64))
        kind = edit.get("kind", norms)
        return np.full_like(found, found.mean()) if kind == "mean" and found.size else found

    of_z, of_s = norm(noise), norm(score)
    safe = np.where(of_s > 0, of_s, edit.get("tiny", np.inf))
    ratio = edit.get("ratio", lambda z, s: z / s)(of_z, safe)
    e = edit.get("two", 2) * (1.0 if edit.get("plain") else alpha) * edit.get("power", lambda r: r * r)(snr * ratio)
    moved = x + edit.get("sign", 1) * e * score + edit.get("spread", lambda e: np.sqrt(2 * e))(e) * noise
    return np.asarray(moved, x.dtype)


@mutant(ID, default_case=quiet())
def two_missing(*args, **options):
    "e = alpha (r |z| / |s|)^2."
    return correct(*args, two=1, **options)


@mutant(ID, default_case=quiet())
def ratio_not_squared(*args, **options):
    "e = 2 alpha r |z| / |s|."
    return correct(*args, power=lambda r: r, **options)


@mutant(ID, default_case=quiet())
def norms_squared(*args, **options):
    "Sums of squares for norms."
    return correct(*args, norm=lambda v: np.sum(v * v, -1, keepdims=True), **options)


@mutant(ID, default_case=quiet())
def alpha_ignored(*args, **options):
    "VP / VE swapped: VE's step for VP."
    return correct(*args, plain=True, **options)


@mutant(ID, default_case=quiet())
def mean_always(*args, norms="each", **options):
    "The batch's mean norms always, as the paper's code."
    return correct(*args, kind="mean", **options)


@mutant(ID, default_case=quiet())
def each_always(*args, norms="each", **options):
    "Each sample's norms always."
    return correct(*args, kind="each", **options)


@mutant(ID, default_case=quiet())
def noise_of_the_half_step(*args, **options):
    "sqrt(e) z."
    return correct(*args, spread=np.sqrt, **options)


@mutant(ID, default_case=quiet())
def ratio_inverted(*args, **options):
    "r |s| / |z|."
    return correct(*args, ratio=lambda z, s: np.where(z > 0, np.where(np.isfinite(s), s, 0) / np.where(z > 0, z, 1), 0),
                   **options)  # fmt: skip


@mutant(ID, default_case=quiet())
def downhill(*args, **options):
    "x - e s."
    return correct(*args, sign=-1, **options)


@mutant(ID, default_case=quiet())
def zero_over_zero(*args, **options):
    "|s| kept from 0 by 1e-3: a long step of noise where there is no score."
    return correct(*args, tiny=1e-3, **options)
