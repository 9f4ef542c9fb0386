"""Laws and mutants of unpadding."""

from __future__ import annotations

import numpy as np

from ref.nn.common_laws import padded_space
from ref.spec import law, mutant

ID = "nn.unpad"
space = padded_space(ID)


def expect_unpadded(expect, found, c):
    """Against a walk over the slots."""
    slots = [(b, s) for b in range(c.nB) for s in range(c.S) if c.mask[b, s]]
    rows = np.array([c.x[b, s] for b, s in slots]).reshape(len(slots), c.d)
    counts = [int(c.mask[b].sum()) for b in range(c.nB)]
    expect.same(found[0], rows, "rows")
    expect.same(found[1], np.array([b * c.S + s for b, s in slots], np.int64), "indices")
    expect.same(found[2], np.array([sum(counts[:b]) for b in range(c.nB + 1)]), "cu")
    expect.same(found[3], max(counts, default=0), "longest")
    expect.holds(found[2].dtype == np.int32, f"cu is {found[2].dtype}, wanted int32")


@law(
    ID, "L1", closed_form=True, given=space.reach("empty_sample", "left", "no_sample"),
    kills=["keeps_all_slots", "cu_without_zero_first", "longest_is_the_width", "by_columns", "valid_are_first"],
)  # fmt: skip
def valid_slots_in_order(impl, c, expect):
    "Sample after sample, slot after slot; cu has the sums of the lengths, the last is N; int32."
    expect_unpadded(expect, impl(c), c)


@law(
    ID, "L2", closed_form=True, given=space.where(side="right").reach("ragged"), kills=["valid_are_first"],
    passes_null=["zeros", "constant", "nan", "wrong_dtype"],
)  # fmt: skip
def left_and_right_padding_agree(impl, c, expect):
    "The samples pushed to the other side of their rows: the same rows, offsets and longest, to the bit."
    x, mask = np.zeros_like(c.x), np.zeros_like(c.mask)
    for b in range(c.nB):
        n = int(c.mask[b].sum())
        x[b, c.S - n :], mask[b, c.S - n :] = c.x[b, :n], True
    right, left = impl(c), impl(c.replace(x=x, mask=mask))
    for at, name in ((0, "rows"), (2, "cu"), (3, "longest")):
        expect.same(left[at], right[at], name)


@law(
    ID, "L3", given=space.reach("ragged"), kills=["padding_added"],
    passes_null=["zeros", "constant", "nan", "wrong_dtype"],
)  # fmt: skip
def padding_is_invisible(impl, c, expect):
    "NaN in padding changes no bit."
    junk = c.replace(x=np.where(c.mask[..., None], c.x, np.nan).astype(c.dtype))
    for one, other, name in zip(impl(junk), impl(c), ("rows", "indices", "cu", "longest"), strict=True):
        expect.same(one, other, name)


def full():
    """The default-size test: no padding at all."""
    return (np.random.default_rng(0).standard_normal((2, 3, 2)), np.ones((2, 3), bool)), {}


def edited(x, mask):
    counts = mask.sum(1)
    cu = np.concatenate(([0], np.cumsum(counts))).astype(np.int32)
    return x[mask], np.flatnonzero(mask), cu, int(counts.max(initial=0))


@mutant(ID, default_case=full)
def keeps_all_slots(x, mask):
    "Padding goes along."
    return edited(x, np.ones_like(mask))


@mutant(ID, default_case=lambda: ((np.zeros((0, 2, 1)), np.zeros((0, 2), bool)), {}))
def cu_without_zero_first(x, mask):
    "The last offset first: the leading zero is not there."
    rows, indices, cu, longest = edited(x, mask)
    return rows, indices, np.roll(cu, 1), longest


@mutant(ID, default_case=full)
def longest_is_the_width(x, mask):
    "S in place of the longest sample."
    return (*edited(x, mask)[:3], mask.shape[1])


@mutant(ID, default_case=lambda: ((np.zeros((1, 3, 2)), np.ones((1, 3), bool)), {}))
def by_columns(x, mask):
    "Slot after slot over the batch: samples interleaved."
    order = np.argsort(np.flatnonzero(mask) % max(mask.shape[1], 1), kind="stable")
    rows, indices, cu, longest = edited(x, mask)
    return rows[order], indices[order], cu, longest


@mutant(ID, default_case=full)
def valid_are_first(x, mask):
    "Lengths in place of the mask: right padding taken for granted."
    return edited(x, np.arange(mask.shape[1]) < mask.sum(1)[:, None])


@mutant(ID, default_case=full)
def padding_added(x, mask):
    "Padding weighted by zero instead of left out: NaN times zero."
    rows, *rest = edited(x, mask)
    return (rows + np.sum(x * ~mask[..., None] * 0).astype(x.dtype), *rest)
