"""Laws and mutants of the mean over tokens."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np

from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, batch, cases, choose, draw_bools, none_or

ID = "losses.token_mean"


def _mask(draw, c):
    mask = np.array(draw_bools(draw, c.B))
    if c.count is None and mask.size:
        mask[(0,) * mask.ndim] = True
    return mask


space = cases(
    ID,
    B=batch(2, 4, large=300),
    count=none_or(1, 7),
    mask=_mask,
    values=("dyadic", "normal", "extreme", "huge"),
    flags={
        "allowed": Flag(lambda c: c.count is not None or bool(c.mask.any())),
        "cut": Flag(lambda c: len(c.B) == 2 and min(c.B) > 1, {"B": choose((2, 3), (4, 2))}),
        "nothing_kept": Flag(lambda c: c.count is not None and not c.mask.any(),
                             {"count": 7, "B": choose((0,), (1,), (2,)), "mask": lambda draw, c: np.zeros(c.B, bool)}),
        "some_dropped": Flag(lambda c: c.mask.any() and not c.mask.all(), {"B": choose((4,), (2, 3))}),
        "uneven": Flag(lambda c: len(c.B) == 2 and len(set(np.asarray(c.mask).sum(-1).tolist())) > 1,
                       {"B": choose((2, 3), (3, 4))}),
    },
).where(allowed=True)  # fmt: skip


def total_of(c):
    """Exact sum of the kept losses, and how many they are."""
    kept = [Fraction(float(v)) for v in np.asarray(c.loss)[c.mask]]
    return sum(kept, Fraction(0)), len(kept)


def limit(c):
    """n additions, an absolute value each, and the quotient."""
    kept = np.abs(np.asarray(c.loss, np.float64)[c.mask])
    n = len(kept)
    return bounds.rounding(n + 1, kept.sum() / (c.count or max(n, 1)), c.dtype)


def size(c):
    kept = np.abs(np.asarray(c.loss, np.float64)[c.mask])
    return float(kept.sum() / (c.count or max(len(kept), 1)))


@law(
    ID, "L1", closed_form=True, given=space.where(count=None), kills=["divided_by_all_positions"],
    passes_null=["identity"],
)  # fmt: skip
def equal_losses_are_their_mean(impl, c, expect):
    "loss_i = a: the mean is a, whatever the mask."
    for a in (3.0, -0.5):
        at = c.replace(loss=np.full(c.loss.shape, a, c.dtype))
        expect(impl(at), np.array(a), limit(at), f"mean of {a}")


@law(
    ID, "L2", closed_form=True, given=space.reach("nothing_kept", "some_dropped"),
    kills=["divided_by_all_positions", "count_ignored", "mean_of_means", "eps_in_the_count"],
)  # fmt: skip
def mean_of_the_kept_in_fractions(impl, c, expect):
    "L = sum of the kept losses / count, in exact fractions; 0 where a counted part keeps nothing."
    total, n = total_of(c)
    expect(impl(c), np.array(float(total / (c.count or n))), limit(c), scale=size(c))


@law(
    ID, "L3", given=space.where(count=None, cut=True, uneven=True), kills=["count_ignored", "mean_of_means"],
    passes_null=["zeros"],
)  # fmt: skip
def any_cut_adds_up(impl, c, expect):
    "However a batch is cut into parts, the parts' losses under the whole's count add up to the whole's loss."
    whole, n = impl(c), int(c.mask.sum())
    places = range(1, c.B[0])
    for cuts in (list(k) for r in places for k in itertools.combinations(places, r)):
        parts = [
            impl(c.replace(loss=loss.copy(), mask=mask.copy(), count=n, B=loss.shape)).astype(np.float64)
            for loss, mask in zip(np.split(c.loss, cuts), np.split(c.mask, cuts), strict=True)
        ]
        expect(sum(parts), whole, 2 * limit(c), f"{len(parts)} parts", scale=size(c))


@law(
    ID, "L4", given=space.where(count=None, some_dropped=True), kills=["divided_by_all_positions", "mean_of_means"],
    passes_null=["zeros", "constant", "identity", "cached"],
)  # fmt: skip
def dropping_is_deleting(impl, c, expect):
    "The loss is that of the kept positions alone, in one row."
    alone = c.loss[c.mask]
    deleted = c.replace(loss=alone, mask=np.ones(alone.shape, bool), B=alone.shape)
    expect(impl(c), impl(deleted), 2 * limit(c), scale=size(c))


@law(
    ID, "L5", given=space.where(some_dropped=True), kills=["masked_by_multiplying"],
    passes_null=["zeros", "constant", "cached"],
)  # fmt: skip
def dropped_junk_is_invisible(impl, c, expect):
    "NaN, inf or 1e30 in dropped losses changes no bit."
    junk = np.array([np.nan, np.inf, -np.inf, 1e30])[np.arange(c.loss.size) % 4].reshape(c.loss.shape)
    expect.same(impl(c.replace(loss=np.where(c.mask, c.loss, junk.astype(c.dtype)))), impl(c))


@law(
    ID, "L6", closed_form=True, needs=("vjp",), given=space.reach("some_dropped", "nothing_kept"),
    kills=["gradient_not_divided", "gradient_of_the_dropped"],
)  # fmt: skip
def gradient_is_one_share_a_token(impl, c, expect):
    "dL / dloss_i = 1 / count where kept and 0, exactly, where dropped: tokens of any part weigh the same."
    found, n = impl.vjp(c, np.array(3.0, c.dtype))["loss"], c.count or int(c.mask.sum())
    wanted = np.where(c.mask, 3.0 / n, 0.0)
    expect(found, wanted, bounds.rounding(2, wanted, c.dtype), "d loss")
    expect.same(found[~c.mask], np.zeros(int((~c.mask).sum())), "d loss of the dropped")


@law(
    ID, "L7", closed_form=True, given=space.where(count=None, B=choose((8192,), (3, 4096))),
    kills=["sum_in_half"], dtypes=("float16",), passes_null=["identity", "wrong_dtype"],
)  # fmt: skip
def half_precision_does_not_overflow(impl, c, expect):
    "float16, thousands of equal losses a: the mean is a, though the sum is above 65504."
    for a in (11.0, -60000.0):
        at = c.replace(loss=np.full(c.loss.shape, a, c.dtype))
        expect(impl(at), np.array(a), bounds.rounding(1, a, c.dtype), f"mean of {a}")


# Mutants ---------------------------------------------------------------------------------------------


def equal_rows():
    """The default-size test: rows of equal length, nothing dropped."""
    return (np.random.default_rng(0).standard_normal((3, 4)), np.ones((3, 4), bool)), {}


def _sum(loss, mask):
    return np.where(mask, loss, 0).sum(dtype=loss.dtype)


def _scalar(x, loss):
    return np.asarray(x, loss.dtype)


@mutant(ID, default_case=equal_rows)
def divided_by_all_positions(loss, mask, *, count=None):
    "The mean over positions, the dropped ones too."
    return _scalar(_sum(loss, mask) / (count or max(mask.size, 1)), loss)


@mutant(ID, thread="transformers#34191, #34263, #35121, #35438", default_case=equal_rows)
def count_ignored(loss, mask, *, count=None):
    "Each part divided by its own tokens, then added: mean of means under gradient accumulation."
    return _scalar(_sum(loss, mask) / max(mask.sum(), 1), loss)


@mutant(ID, thread="transformers#34242, torchtitan#2206", default_case=equal_rows)
def mean_of_means(loss, mask, *, count=None):
    "The mean of each row first, then the mean of the rows."
    if mask.ndim < 2 or not mask.size:
        return _scalar(_sum(loss, mask) / (count or max(mask.sum(), 1)), loss)
    rows = np.where(mask, loss, 0).sum(-1) / np.maximum(mask.sum(-1), 1)
    return _scalar(rows.sum() / (len(rows) if count is None else count / max(mask.shape[-1], 1)), loss)


@mutant(ID, default_case=equal_rows)
def eps_in_the_count(loss, mask, *, count=None):
    "sum / (count + 1e-6)."
    return _scalar(_sum(loss, mask) / ((count or mask.sum()) + 1e-6), loss)


@mutant(ID, default_case=equal_rows)
def masked_by_multiplying(loss, mask, *, count=None):
    "Dropped losses times zero: NaN stays."
    return _scalar((loss * mask).sum() / (count or max(mask.sum(), 1)), loss)


@mutant(ID, default_case=equal_rows)
def sum_in_half(loss, mask, *, count=None):
    "The sum in the dtype of the losses: infinite above 65504 in float16."
    return _scalar(_sum(loss, mask) / (count or max(mask.sum(), 1)), loss)


def _vjp_mutant(name, doc, vjp):
    def function(loss, mask, *, count=None):
        return _scalar(_sum(loss, mask) / (count or max(mask.sum(), 1)), loss)

    function.__name__, function.__doc__ = name, doc
    mutant(ID, vjp=vjp, default_case=equal_rows)(function)


_vjp_mutant("gradient_not_divided", "The sum's gradient.",
            lambda g, loss, mask, *, count=None: (np.where(mask, g, 0).astype(loss.dtype),))  # fmt: skip
_vjp_mutant("gradient_of_the_dropped", "1 / count everywhere.",
            lambda g, loss, mask, *, count=None: (
                np.full(loss.shape, g / (count or max(mask.sum(), 1)), loss.dtype),))  # fmt: skip
