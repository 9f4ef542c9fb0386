"""Reduction of token losses to one number: the four that the field uses, by name.

Source: Shao et al. 2024 (2402.03300) Eq. 3, seq-mean-token-mean; Liu et al. 2025 (2503.20783) sec. 3.1, constant;
Yu et al. 2025 (2503.14476) Eq. 8, token-mean; the sum is that of the likelihood ratio of a whole response.

    L = sum_i w_i sum_{t kept} loss_it        n_i kept tokens of row i, N = sum n_i, R rows
    token-mean            w_i = 1 / N
    seq-mean-token-mean   w_i = 1 / (R n_i)
    seq-mean-token-sum    w_i = 1 / R
    constant              w_i = 1 / (R length)

Notation
    N or R of a whole batch -> count, where this is a part of one: the parts of any cut then add up to the whole.

Conventions
    C1  Masks are True = keep; what is dropped may hold anything, NaN too, and gets gradient 0.
    C2  The four agree up to a factor where all rows are equally long, and nowhere else. None is a default.
    C3  A row without a kept token: "refuse" (the default) is an error; "drop" takes it out of R (verl); "count" leaves
        it in R with loss 0 (TRL). With `count`, R is given, and such a row adds 0. In token-mean it plays no part.
    C4  Half-precision losses are added in float32 and the result cast back.

Laws
    L1 value_in_fractions                   L2 equal_lengths_make_them_one
    L3 any_cut_adds_up                      L4 masking_is_deleting
    L5 masked_junk_is_invisible             L6 gradient_is_the_weight
    L7 an_empty_row_is_named_dropped_or_counted
"""

from __future__ import annotations

from autodiff import is_tensor, namespace
from ref.nn.rms_norm import widened
from ref.spec import bind, spec

SIGNATURE = "loss[B T], mask:bool[B T] -> []"
REDUCTIONS = ("token-mean", "seq-mean-token-mean", "seq-mean-token-sum", "constant")
EMPTY = ("refuse", "drop", "count")


@spec("rl.reduce", SIGNATURE, grads=("loss",))
def reduce(loss, mask, *, reduction, count=None, length=None, empty="refuse"):
    """Weighted sum of the kept losses, by the named reduction.

    Parameters
    ----------
    loss : float[B T]
    mask : bool[B T]
        True keeps.
    reduction : "token-mean", "seq-mean-token-mean", "seq-mean-token-sum" or "constant"
    count : int, optional
        Kept tokens (token-mean) or rows (the others) of the whole batch, where this is a part of one.
    length : int, optional
        The constant of "constant", which needs it: the longest response allowed.
    empty : "refuse", "drop" or "count"
        What a row without a kept token means (C3).

    Returns
    -------
    float[]

    Raises
    ------
    ValueError
        Unknown reduction or `empty`, shapes that differ, nothing kept and no count, a row with nothing kept (C3),
        count < 1, or "constant" without a length >= 1.
    TypeError
        `loss` is not float or `mask` not bool.

    Complexity: B T additions.

    >>> import numpy as np
    >>> loss, mask = np.array([[1.0, 2.0, 6.0], [5.0, 0.0, 0.0]]), np.array([[True] * 3, [True, False, False]])
    >>> float(reduce(loss, mask, reduction="token-mean")), float(reduce(loss, mask, reduction="seq-mean-token-mean"))
    (3.5, 4.0)
    """
    bind("reduce", SIGNATURE, loss=loss, mask=mask)
    xp = namespace(loss, mask)
    wide = widened(xp, xp.where(mask, loss, 0.0))
    weight = row_weights("reduce", mask, wide.dtype, reduction=reduction, count=count, length=length, empty=empty)
    return xp.astype(xp.sum(xp.sum(wide, axis=-1) * weight), loss.dtype)


def data(x):
    """`x` as a given number: a Tensor without its gradient, an array as it is."""
    return x.detach() if is_tensor(x) else x


def row_weights(function, mask, dtype, *, reduction, count=None, length=None, empty="refuse"):
    """w[B]: what every kept token of row i weighs. `function` is named in the errors."""
    if reduction not in REDUCTIONS:
        raise ValueError(f"{function}: reduction={reduction!r}; needed one of {', '.join(REDUCTIONS)}")
    if empty not in EMPTY:
        raise ValueError(f"{function}: empty={empty!r}; needed one of {', '.join(EMPTY)}")
    if count is not None and not count >= 1:
        raise ValueError(f"{function}: count={count}; needed at least 1")
    if reduction == "constant" and not (length is not None and length >= 1):
        raise ValueError(f"{function}: reduction 'constant' with length={length}; needed a length of at least 1")
    xp = namespace(mask)
    tokens = xp.count_nonzero(mask, axis=-1)
    total = _count(function, xp, tokens, reduction, empty) if count is None else count
    scale = total * (length if reduction == "constant" else 1)
    if reduction == "seq-mean-token-mean":
        return 1 / (xp.where(tokens > 0, xp.astype(tokens, dtype), 1.0) * scale)
    return 1 / (xp.ones(tokens.shape, dtype=dtype) * scale)


def _count(function, xp, tokens, reduction, empty):
    """N or R of this batch alone."""
    filled = tokens > 0
    rows, kept = tokens.shape[0], int(xp.count_nonzero(filled))
    if kept == 0:
        raise ValueError(f"{function}: no position of the mask is kept in {rows} rows; needs one, or count=")
    if reduction == "token-mean":
        return int(xp.sum(tokens))
    if empty == "refuse" and kept < rows:
        row = int(xp.argmin(xp.astype(filled, xp.int64)))
        raise ValueError(
            f"{function}: row {row} of the mask keeps no position; {reduction} needs one, or count=, or empty= "
            "'drop' or 'count'"
        )
    return kept if empty == "drop" else rows
