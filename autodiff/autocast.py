"""Mixed precision by primitive: products run low, sums of many terms and exponentials run high.

Reference: Micikevicius et al. 2018 (arXiv:1710.03740) sec. 3; the lists follow torch.autocast.

Inside `autocast(dtype)` a primitive casts its floating arguments first:

    LOW    to `dtype`: products of matrices, where nearly all the time and much of the tape goes
    HIGH   to float32: what loses most to rounding or overflows first
    other  nothing: the result has the dtype that the arguments give

C1  The casts are on the tape: float32 weights get float32 gradients, and are their own masters.
C2  The tape keeps what the primitive got: the arguments of a product take 2 bytes an element.
C3  float64 and integers are left alone. A checkpoint inside is run again under the same policy; a
    backward outside the block runs in the dtypes of the forward.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from autodiff.primitive import TABLE
from autodiff.tape import STATE, Interceptor, intercepting
from autodiff.tensor import Tensor, backend_of, raw

__all__ = ["HIGH", "LOW", "autocast"]

LOW = frozenset(("matmul", "einsum", "vecdot"))
HIGH = frozenset(
    (
        *("exp", "expm1", "log", "log1p", "logaddexp", "logsumexp", "softplus", "pow", "square", "sqrt"),
        *("sum", "mean", "prod", "cumulative_sum", "divide"),
    )
)


@contextmanager
def autocast(dtype: Any, policy: Mapping[str, str] | None = None) -> Iterator[None]:
    """Context of this thread: primitives cast their arguments as a policy says.

    Parameters
    ----------
    dtype : dtype
        The low one: `bfloat16` or float16 of the backend "rounded".
    policy : {primitive: "low" | "high" | "as given"}, optional
        What differs from LOW and HIGH.

    Raises
    ------
    ValueError
        A name that no primitive has, or another choice.
    TypeError
        dtype is not floating, or not lower than float32.

    Examples
    --------
    >>> import numpy as np
    >>> from autodiff import tensor
    >>> from backends import get
    >>> xp = get("rounded")
    >>> x = tensor(xp.from_numpy(np.full((1, 1), 257.0, np.float32)), requires_grad=True)
    >>> with autocast(xp.bfloat16):
    ...     y = (x @ x).sum()
    >>> y.backward()
    >>> y.item(), x.grad.dtype
    (65536.0, dtype('float32'))
    """
    caster = _Caster(dtype, _table(policy or {}))
    if getattr(dtype, "kind", None) != "f" or dtype.itemsize > 2:
        raise TypeError(f"autocast: dtype is {dtype}; needed a floating dtype of 2 bytes, as bfloat16 of 'rounded'")
    caster.outer = STATE.interceptor
    with intercepting(caster):
        yield


def _table(policy: Mapping[str, str]) -> dict[str, str]:
    unknown = sorted(policy.keys() - (TABLE.keys() - {"astype"}))
    if unknown:
        raise ValueError(f"autocast: policy names {', '.join(unknown)}, which no primitive that computes is called")
    for name, choice in policy.items():
        if choice not in ("low", "high", "as given"):
            raise ValueError(f"autocast: policy has {choice!r} for {name}; needed 'low', 'high' or 'as given'")
    return dict.fromkeys(LOW, "low") | dict.fromkeys(HIGH, "high") | dict(policy)


class _Caster(Interceptor):
    def __init__(self, dtype: Any, table: dict[str, str]):
        self.dtype, self.table = dtype, table

    def arguments(self, prim: Any, args: tuple) -> tuple:
        choice = self.table.get(prim.name)
        if choice in ("low", "high"):
            args = tuple([self._cast(a, choice) for a in args])
        return super().arguments(prim, args)

    def _cast(self, a: Any, choice: str) -> Any:
        dtype = getattr(raw(a), "dtype", None)
        if getattr(dtype, "kind", None) != "f" or dtype.itemsize > 4:
            return a
        wanted = self.dtype if choice == "low" else backend_of(raw(a)).float32
        if dtype == wanted:
            return a
        return TABLE["astype"](a, dtype=wanted) if isinstance(a, Tensor) else backend_of(a).astype(a, wanted)

    def again(self) -> Interceptor:
        mine = _Caster(self.dtype, self.table)
        mine.outer = super().again()
        return mine
