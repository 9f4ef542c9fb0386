"""Unpadding: the valid slots of a padded batch as one packed row.

Source: flash-attn `bert_padding.unpad_input`; Zeng et al. 2022 (2208.08124) sec. 3.

    indices = the slots b S + s where mask[b, s],   rows = x[indices]
    cu = (0, n_0, n_0 + n_1, ..),   longest = max n_b

`pad` is the inverse. The gradient goes back to the slots it came from, zero in padding.

Notation
    x[B S ..], mask[B S], N valid slots; n_b valid slots of sample b.

Conventions
    C1  The mask is True = valid. Padding may be left or right; a hole within a sample is an error, as attention over
        rows that lost a token would see the wrong neighbours.
    C2  cu is int32 with a leading 0, as flash-attn wants it. A sample without valid slots is an empty segment.
    C3  A row that was packed already holds several samples under one mask: cut it before it comes here.

Laws
    L1 valid_slots_in_order                 L2 left_and_right_padding_agree
    L3 padding_is_invisible
"""

from __future__ import annotations

from typing import Any, NamedTuple

from autodiff import namespace
from ref.spec import bind, spec


class Unpadded(NamedTuple):
    """A packed row and where it came from."""

    rows: Any
    indices: Any
    cu: Any
    longest: int


@spec("nn.unpad", "x[B S d], mask:bool[B S] -> rows:tree, indices:tree, cu:tree, longest:tree")
def unpad(x, mask):
    """The valid slots of x, and the offsets of the samples among them.

    Parameters
    ----------
    x : array[B S ..]
        Any dtype, any number of axes after S.
    mask : bool[B S]
        True is valid.

    Returns
    -------
    Unpadded
        rows[N ..], indices int[N] into the B S slots, cu int32[B + 1], longest.

    Raises
    ------
    ValueError
        x and mask disagree, or a sample's mask has a hole (the message says which and where).
    TypeError
        The mask is not bool.

    Complexity: B S + N d copies.

    >>> import numpy as np
    >>> unpad(np.array([[1.0, 0.0], [2.0, 3.0]]), np.array([[True, False], [True, True]])).rows
    array([1., 2., 3.])
    """
    B, S = (bind("unpad", "mask:bool[B S]", mask=mask)[n] for n in "BS")
    if tuple(x.shape[:2]) != (B, S):
        raise ValueError(f"unpad: x has shape {tuple(x.shape)}, mask has {(B, S)}; x must begin with [B S]")
    xp = namespace(x, mask)
    valid = xp.astype(mask, xp.int32)
    _refuse_holes(xp, valid, S)
    count = xp.sum(valid, axis=1, dtype=xp.int32)
    cu = xp.concat((xp.zeros(1, dtype=xp.int32), xp.cumulative_sum(count, dtype=xp.int32)))
    (indices,) = xp.nonzero(xp.reshape(mask, (-1,)))
    rows = xp.take(xp.reshape(x, (B * S, *x.shape[2:])), indices, axis=0)
    return Unpadded(rows, indices, cu, int(xp.max(count)) if B else 0)


def _refuse_holes(xp, valid, S):
    """A run begins where a valid slot follows none; more than one run is a hole."""
    if S < 2:
        return
    begins = xp.concat((valid[:, :1] > 0, valid[:, 1:] > valid[:, :-1]), axis=1)
    runs = xp.cumulative_sum(xp.astype(begins, xp.int32), axis=1)
    holes = xp.any(runs > 1, axis=1)
    if xp.any(holes):
        b = int(xp.argmax(xp.astype(holes, xp.int32)))
        s = int(xp.argmax(xp.astype(runs[b, :] > 1, xp.int32)))
        raise ValueError(f"unpad: mask of sample {b} has a hole before slot {s}; valid slots must be one run")
