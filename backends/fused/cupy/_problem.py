"""One call of attention, its options sorted into what the kernels take.

A rule that is a band (row i sees columns i + low .. i + high) stays two integers; so does a bias
-slope_h |i + S - T - j|. Any other rule becomes an array over rows and columns, on the device.

Protocol of a rule, besides `tile` and `columns`: `band(T, S) -> (low, high)` with None for no limit;
`distance_slopes(H) -> sequence of H` for a bias of the above form.
"""

import math
from typing import Any, NamedTuple

from backends.kernels.device import storage

__all__ = ["FAR", "Problem", "adjacent", "flattened", "problem"]

FAR = 1 << 30  # no limit: farther than any pair of rows, and sums of it stay in 32 bits


class Problem(NamedTuple):
    """Arrays are [B H T d] and so on, or packed [1 H N d] with cu_q, cu_k."""

    q: Any
    k: Any
    v: Any
    storage: int
    low: int
    high: int
    bottom_right: int
    mask: Any  # uint8 array, broadcast to [B H T S], or None
    bias: Any  # float32 array, the same, or None
    slopes: Any  # float32[H] or None
    softcap: float
    scale: float
    dropout: tuple  # (rate, seed); rate 0: none
    cu_q: Any = None
    cu_k: Any = None
    longest: tuple = ()  # (rows, keys) of the longest segment

    @property
    def B(self):
        """Batch entries, or segments."""
        return self.q.shape[0] if self.cu_q is None else self.cu_q.shape[0] - 1

    @property
    def T(self):
        """Rows of the longest entry."""
        return self.q.shape[2] if self.cu_q is None else self.longest[0]

    @property
    def S(self):
        """Keys of the longest entry."""
        return self.k.shape[2] if self.cu_q is None else self.longest[1]

    @property
    def window(self):
        """Whether the band has a lower edge."""
        return self.low > -FAR


def problem(xp, q, k, v, *, mask=None, bias=None, softcap=None, scale=None, dropout=(0.0, 0)):
    """The problem of dense arrays q[*B H T d], k[*B G S d], v[*B G S e].

    Raises
    ------
    ValueError
        Axes disagree.
    TypeError
        A dtype that no kernel takes, or a mask that is not bool.
    """
    check(q, k, v, softcap)
    T, S, H = q.shape[-2], k.shape[-2], q.shape[-3]
    full = (*q.shape[:-2], T, S)
    low, high, mask = _mask(xp, mask, T, S)
    bias, slopes = _bias(xp, bias, H, T, S)
    flat = [flattened(x, 3) for x in (q, k, v)]
    return Problem(
        *map(adjacent, flat), storage(q.dtype), low, high, 0,
        _spread(xp, "mask", mask, full), _spread(xp, "bias", bias, full), slopes, softcap or 0.0,
        1 / math.sqrt(max(q.shape[-1], 1)) if scale is None else float(scale), dropout,
    )  # fmt: skip


def flattened(x, kept):
    """x with all axes before the last `kept` made one."""
    return x.reshape(math.prod(x.shape[:-kept]), *x.shape[-kept:])


def adjacent(x):
    """`x`, copied unless its channels are adjacent."""
    fits = x.shape[-1] <= 1 or x.strides[-1] == x.itemsize
    return x if fits and all(s >= 0 for s in x.strides) else x.copy()


def check(q, k, v, softcap, function="flash"):
    """Axes and dtypes of dense q, k, v."""
    if not q.dtype == k.dtype == v.dtype or storage(q.dtype) is None:
        raise TypeError(f"{function}: q, k, v are {q.dtype}, {k.dtype}, {v.dtype}; needs all float32, "
                        "all float16 or all bfloat16")  # fmt: skip
    if min(q.ndim, k.ndim, v.ndim) < 3:
        raise ValueError(f"{function}: shapes {q.shape}, {k.shape}, {v.shape}; needs q[*B H T d], k[*B G S d], "
                         "v[*B G S e]")  # fmt: skip
    *batch, H, _, d = q.shape
    G = k.shape[-3]
    if [*k.shape[:-3]] != batch or k.shape[-1] != d:
        raise ValueError(f"{function}: k has shape {k.shape}, q has {q.shape}; needs k[*B G S d]")
    if v.shape[:-1] != k.shape[:-1]:
        raise ValueError(f"{function}: v has shape {v.shape}, k has {k.shape}; needs v[*B G S e]")
    if (H % G if G else H) != 0:
        raise ValueError(f"{function}: q has H={H} heads, k has G={G}; G must divide H")
    if softcap is not None and not softcap > 0:
        raise ValueError(f"{function}: softcap={softcap}; needed a number > 0, or None")


def _mask(xp, mask, T, S):
    """(low, high, array or None) of a mask."""
    if mask is None:
        return -FAR, FAR, None
    if hasattr(mask, "band"):
        band = mask.band(T, S)
        if band is not None:
            low, high = band
            return (-FAR if low is None else low), (FAR if high is None else high), None
    if hasattr(mask, "tile"):
        mask = mask.tile(xp, xp.arange(T), xp.arange(S), T, S)
    if mask.dtype != bool:
        raise TypeError(f"flash: mask is {mask.dtype}; needed bool, True = keep")
    return -FAR, FAR, mask.view("uint8")


def _bias(xp, bias, H, T, S):
    """(float32 array or None, slopes or None) of a bias."""
    if bias is None:
        return None, None
    if hasattr(bias, "distance_slopes"):
        return None, xp.asarray(bias.distance_slopes(H), dtype="float32")
    if hasattr(bias, "tile"):
        bias = bias.tile(xp, xp.arange(T), xp.arange(S), T, S)
    return bias.astype("float32", copy=False), None


def _spread(xp, name, x, full):
    if x is None:
        return None
    try:
        wide = xp.broadcast_to(x, full)
    except ValueError:
        raise ValueError(
            f"flash: {name} has shape {x.shape}; it must broadcast to [*B H T S] = {full}"
        ) from None
    return flattened(wide, 3)
