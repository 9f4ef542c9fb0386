"""Laws and mutants of the critic's loss."""

from __future__ import annotations

import itertools

import numpy as np

from ref.rl.common_laws import (
    REDUCTIONS,
    any_mask,
    batch_flags,
    by_multiplying,
    dyadics,
    local_mean,
    numerator_only,
    other_reduction,
    plain_weights,
    rows_of,
    weights,
    with_junk,
)  # fmt: skip
from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, cases, choose, dims, none_or

ID = "rl.value_loss"
space = cases(
    ID, B=dims(1, 3, large=6), T=dims(1, 5, large=40), reduction=choose(*REDUCTIONS), count=none_or(3, 8),
    mask=any_mask,
    length=lambda draw, c: 7 if c.reduction == "constant" else None, clip=choose(0.3, 1.2, None),
    half=choose(True, False),
    old_values=dyadics("B T", -2, 2, 8), returns=dyadics("B T", -2, 2, 8),
    flags={**batch_flags(), "clips": Flag(lambda c: c.clip is not None, {"clip": choose(0.3, 1.2)}),
           "smooth": Flag(lambda c: all(abs(a - b) > 1e-3 for a, b, _ in pieces(c) if b is not None))},
)  # fmt: skip
HOW = ("values", "old_values", "returns", "mask")


def pieces(c):
    """[(unclipped, clipped or None, flat)] of the kept tokens, and the scale of the half outside."""
    out = []
    for at in zip(*np.nonzero(c.mask), strict=True):
        v, old, r = (float(c[n][at]) for n in HOW[:3])
        plain = (v - r) ** 2
        if c.clip is None:
            out.append((plain, None, False))
            continue
        moved = min(max(v, old - c.clip), old + c.clip)
        out.append((plain, (moved - r) ** 2, abs(v - old) > c.clip))
    return out


def tokens(c):
    """(values, slopes, sizes) token by token."""
    out = np.zeros((3, *c.mask.shape))
    factor = 0.5 if c.half else 1.0
    for at, (plain, cut, flat) in zip(zip(*np.nonzero(c.mask), strict=True), pieces(c), strict=True):
        v, old, r = (float(c[n][at]) for n in HOW[:3])
        worst = cut is not None and cut > plain
        out[(0, *at)] = factor * (cut if worst else plain)
        out[(1, *at)] = 0.0 if worst and flat else factor * 2 * (v - r)
        out[(2, *at)] = (abs(v) + abs(old) + abs(r) + (c.clip or 0)) ** 2
    return out


def whole(c):
    w = weights(c)[:, None] * np.asarray(c.mask)
    values, slopes, sizes = tokens(c)
    return float(np.sum(w * values)), w * slopes, max(float(np.sum(w * sizes)), 1e-12)


def limit(c, size):
    return bounds.rounding(c.mask.size + 24, size, c.dtype)


@law(ID, "L1", closed_form=True, given=space.reach("masked", "uneven", "empty_row", "clips"),
     kills=["minimum_for_the_maximum", "clip_ignored", "clips_around_the_return", "half_always", "always_token_mean",
            "own_count", "numerator_only"])  # fmt: skip
def value_is_the_definition(impl, c, expect):
    "The larger of the two squared errors, token by token, halved if asked, under the named reduction."
    value, _, size = whole(c)
    expect(impl(c), np.array(value), limit(c, size), scale=size)


@law(ID, "L2", closed_form=True, needs=("vjp",), given=space.where(smooth=True).reach("masked", "clips"),
     kills=["slope_through_the_clip"])  # fmt: skip
def gradient_is_the_definition(impl, c, expect):
    "d loss / d V = V - R a kept token (half=True), but 0 where the clipped error is the larger; masked ones exactly 0."
    _, slopes, size = whole(c)
    found = impl.vjp(c, np.array(1.0, c.dtype))["values"]
    expect(found, slopes, bounds.rounding(32, np.abs(slopes) + 4, c.dtype), "d V", scale=4.0)
    expect.same(found[~c.mask], np.zeros(int((~c.mask).sum())), "d V of the masked")
    expect.holds(size >= 0, "a size")


@law(ID, "L3", needs=("vjp",), given=space.where(masked=True), kills=["masked_by_multiplying"],
    passes_null=["zeros", "constant"])
def masked_junk_is_invisible(impl, c, expect):
    "NaN, inf or 1e30 in masked slots changes no bit, neither of the loss nor of the gradient."
    other, g = with_junk(c, *HOW[:3]), np.array(1.0, c.dtype)
    expect.same(impl(other), impl(c), "loss beside junk")
    expect.same(impl.vjp(other, g)["values"], impl.vjp(c, g)["values"], "d V beside junk")


@law(ID, "L4", closed_form=True, given=space.where(clips=True, some=True), kills=["minimum_for_the_maximum"],
     passes_null=["zeros", "constant", "identity", "cached"])  # fmt: skip
def never_below_the_unclipped(impl, c, expect):
    "The clip only adds: at least the plain squared error, and equal to it while no value has moved beyond the clip."
    _, _, size = whole(c)
    plain = impl(c.replace(clip=None)).astype(np.float64)
    expect.at_most(plain - limit(c, size), impl(c), "the unclipped loss")
    near = c.replace(old_values=c.values.copy())
    expect(impl(near), plain, limit(c, whole(near)[2]), "values that did not move", scale=whole(near)[2])


@law(ID, "L5", given=space.where(count=None, uneven=True), kills=["own_count"], passes_null=["zeros", "cached"])
def any_cut_adds_up(impl, c, expect):
    "However the rows are cut, the parts under the whole's count add up to the whole."
    n = int(np.sum(c.mask)) if c.reduction == "token-mean" else c.B
    _, _, size = whole(c)
    for cuts in (k for r in range(1, c.B) for k in itertools.combinations(range(1, c.B), r)):
        parts = [rows_of(c, rows).replace(count=n) for rows in np.split(np.arange(c.B), cuts)]
        expect(np.array(sum(float(impl(p)) for p in parts)), impl(c), 4 * limit(c, size), f"{len(parts)} parts",
            scale=size)


# Mutants ---------------------------------------------------------------------------------------------


def unmoved(**options):
    """The default-size test: values that have not moved, nothing masked."""
    v = np.random.default_rng(0).standard_normal((3, 4))
    return lambda: ((v, v.copy(), v - 0.5, np.ones((3, 4), bool)),
                    {"clip": 0.2, "reduction": "token-mean", **options})  # fmt: skip


def base(v, old, r, mask, *, clip=None, half=True, reduction="token-mean", count=None, length=None, empty="refuse",
    **edit):
    hide = edit.get("hide", lambda x, mask: np.where(mask, x, 0))
    w = edit.get("weights", plain_weights)(mask, reduction, count, length, empty)[:, None]
    plain = hide((v - r) ** 2, mask)
    loss, slope = plain, 2 * hide(v - r, mask)
    if clip is not None and not edit.get("free"):
        centre = r if edit.get("around_return") else old
        moved = hide((np.clip(v, centre - clip, centre + clip) - r) ** 2, mask)
        loss = edit.get("pick", np.maximum)(plain, moved)
        if not edit.get("open"):
            slope = np.where((moved > plain) & (np.abs(v - old) > clip), 0, slope)
    factor = 0.5 if edit.get("half_as", half) else 1.0
    return np.asarray(factor * np.sum(loss * w), v.dtype), (factor * slope * w).astype(v.dtype)


def _mutant(name, doc, thread=None, case=None, slope=None, **edit):
    def function(*args, **options):
        return base(*args, **options, **edit)[0]

    def vjp(g, *args, **options):
        return (g * base(*args, **options, **edit, **(slope or {}))[1],)

    function.__name__, function.__doc__ = name, doc
    mutant(ID, vjp=vjp, thread=thread, default_case=case or unmoved())(function)


_mutant("minimum_for_the_maximum", "The smaller of both errors: a value is rewarded for running past the clip.",
    pick=np.minimum)
_mutant("clip_ignored", "clip accepted and dropped.", free=True)
_mutant("clips_around_the_return", "V clipped around R.", around_return=True, case=unmoved(clip=1.0))
_mutant("half_always", "1/2 whatever half says.", half_as=True)
_mutant("always_token_mean", "Token-mean under every name.", weights=other_reduction("token-mean"))
_mutant("own_count", "The micro-batch's own count.", "transformers#34191", weights=local_mean)
_mutant("numerator_only", "Masked tokens leave the sum and stay in the count.", "trl#6439", weights=numerator_only)
_mutant("masked_by_multiplying", "Times the mask: NaN stays.", hide=by_multiplying)
_mutant("slope_through_the_clip", "The gradient flows where the clipped error is the larger.", slope={"open": True})
