"""Laws and mutants of padding."""

from __future__ import annotations

import numpy as np

from ref.nn.common_laws import cotangent, padded_space
from ref.spec import law, mutant

ID = "nn.pad"
space = padded_space(
    ID, N=lambda draw, c: int(c.mask.sum()), indices=lambda draw, c: np.flatnonzero(c.mask), batch=lambda draw, c: c.nB,
    length=lambda draw, c: c.S,
)  # fmt: skip


@law(
    ID, "L1", closed_form=True, given=space.reach("left", "empty_sample", "no_sample"),
    kills=["right_padded_always", "padding_is_the_last_row", "by_columns"],
)  # fmt: skip
def rows_lie_in_their_slots(impl, c, expect):
    "Row k at slot indices_k, to the bit; exactly zero elsewhere."
    wanted = np.zeros((c.nB * c.S, c.d))
    for k, slot in enumerate(c.indices):
        wanted[slot] = c.rows[k]
    expect.same(impl(c), wanted.reshape(c.nB, c.S, c.d))


@law(
    ID, "L2", given=space.reach("left"), kills=["right_padded_always", "by_columns"],
)  # fmt: skip
def unpadding_gives_them_back(impl, c, expect):
    "x[mask] is the rows, and their sum is the sum of x: nothing lost, nothing doubled."
    c = c.replace(rows=(np.abs(c.rows) + 1).astype(c.dtype))
    x = impl(c)
    expect.same(x[c.mask], c.rows, "x[mask]")
    expect.same(np.count_nonzero(x), c.rows.size, "numbers that are not zero")


@law(ID, "L3", closed_form=True, needs=("vjp",), given=space.reach("left"), kills=["gradient_of_the_first_slots"])
def gradient_is_read_at_the_slots(impl, c, expect):
    "drows_k = g at slot indices_k."
    g = cotangent(c, (c.nB, c.S, c.d))
    expect.same(impl.vjp(c, g)["rows"], g.reshape(-1, c.d)[c.indices], "drows")


def full():
    """The default-size test: no padding at all."""
    return (np.arange(6.0).reshape(6, 1), np.arange(6)), {"batch": 2, "length": 3}


def edited(rows, indices, *, batch, length, slots=lambda i, batch, length: i):
    x = np.zeros((batch * length, rows.shape[1]), rows.dtype)
    x[slots(indices, batch, length)] = rows
    return x.reshape(batch, length, -1) if x.size else x.reshape(batch, length, rows.shape[1])


def _to_the_left(indices, batch, length):
    sample = indices // max(length, 1)
    first = np.searchsorted(sample, sample)
    return sample * length + np.arange(len(indices)) - first


@mutant(ID, default_case=full)
def right_padded_always(rows, indices, **sizes):
    "Each sample from its row's first slot on."
    return edited(rows, indices, **sizes, slots=_to_the_left)


@mutant(ID, default_case=full)
def padding_is_the_last_row(rows, indices, *, batch, length):
    "A gather with clipped places: padding repeats a row."
    if not len(rows):
        return edited(rows, indices, batch=batch, length=length)
    place = np.clip(np.searchsorted(indices, np.arange(batch * length)), 0, len(rows) - 1)
    return rows[place].reshape(batch, length, -1)


@mutant(ID, default_case=lambda: ((np.arange(3.0).reshape(3, 1), np.arange(3)), {"batch": 1, "length": 3}))
def by_columns(rows, indices, **sizes):
    "Slot s batch + b."
    return edited(rows, indices, **sizes, slots=lambda i, B, S: (i % S) * B + i // S).reshape(
        sizes["batch"], sizes["length"], rows.shape[1]
    )


def _first_slots(g, rows, indices, **sizes):
    return (g.reshape(-1, rows.shape[1])[: len(rows)].copy(),)


@mutant(ID, default_case=full, vjp=_first_slots)
def gradient_of_the_first_slots(rows, indices, **sizes):
    "The cotangent of the first N slots."
    return edited(rows, indices, **sizes)
