"""Padding: a packed row laid back into a padded batch.

Source: flash-attn `bert_padding.pad_input`; the inverse of `unpad`.

    x[indices] = rows,   zero elsewhere

The gradient is read at the same slots.

Notation
    rows[N d], indices int[N] into the batch length slots.

Conventions
    C1  Indices rise: two rows in one slot are an error, not a sum and not the last one.

Laws
    L1 rows_lie_in_their_slots              L2 unpadding_gives_them_back
    L3 gradient_is_read_at_the_slots
"""

from __future__ import annotations

from autodiff import namespace
from ref.spec import bind, spec

SIGNATURE = "rows[N d], indices:int[N]"


@spec("nn.pad", f"{SIGNATURE} -> [batch length d]", grads=("rows",))
def pad(rows, indices, *, batch, length):
    """The padded batch whose valid slots are the given rows.

    Parameters
    ----------
    rows : float[N d]
    indices : int[N]
        Slots b length + s, rising, as `unpad` gives them.
    batch, length : int

    Returns
    -------
    float[batch length d]

    Raises
    ------
    ValueError
        rows and indices disagree, or an index does not rise or is no slot (the message says which and where).
    TypeError
        The rows are not float or the indices not int.

    Complexity: batch length (d + log N) operations.

    >>> import numpy as np
    >>> pad(np.array([[5.0], [7.0]]), np.array([0, 3]), batch=2, length=2)[..., 0]
    array([[5., 0.],
           [0., 7.]])
    """
    dims = bind("pad", SIGNATURE, rows=rows, indices=indices)
    N, d, slots = dims["N"], dims["d"], batch * length
    xp = namespace(rows, indices)
    _check(xp, indices, slots)
    # Slots look for their row; those without one read a row of zeros after the last.
    indices = xp.concat((indices, xp.full((1,), slots, dtype=indices.dtype)))
    at = xp.arange(slots, dtype=indices.dtype)
    place = xp.searchsorted(indices, at, side="left")
    place = xp.where(xp.take(indices, place) == at, place, N)
    rows = xp.concat((rows, xp.zeros((1, d), dtype=rows.dtype)), axis=0)
    return xp.reshape(xp.take(rows, place, axis=0), (batch, length, d))


def _check(xp, indices, slots):
    n = indices.shape[0]
    before = xp.concat((xp.full((1,), -1, dtype=indices.dtype), indices[:-1])) if n else indices
    wrong = (indices <= before) | (indices >= slots)
    if xp.any(wrong):
        at = int(xp.argmax(xp.astype(wrong, xp.int32)))
        raise ValueError(
            f"pad: index {int(indices[at])} at place {at}, after {int(before[at])}; needed rising slots below {slots}"
        )
