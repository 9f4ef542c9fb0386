"""Derivatives of the elementwise functions, as tables.

A unary row gives the cotangent of ``z = f(x)``, a binary row those of ``z = f(x, y)``. The names
of a rule's parameters say what is kept: ``lambda xp, g, z: g * z`` keeps the output alone.

Where f has no derivative:
  E1  abs at 0: 0, the middle of [-1, 1].
  E2  maximum and minimum at x = y: half to each; against a constant, half.
  E3  clip: 1 inside and on both bounds, as PPO reads it; 0 outside.
  E4  pow: d/dx x^0 = 0 and d/dy 0^y = 0; d/dy of a negative base is NaN, as its log is.
  E5  sqrt at 0: infinite. A norm that is 0 at 0 with gradient 0 is `vector_norm`.
  E6  logaddexp and logsumexp with every term -inf: gradient 0.
  E7  where: the branch not taken gets 0, but a NaN made inside that branch stays a NaN (0 * NaN).
"""

from __future__ import annotations

import cmath
import inspect
import math
from collections.abc import Callable
from typing import Any

from autodiff.primitive import TABLE, Primitive, cast, fit, primitive
from autodiff.tensor import complex_dtype, is_complex, raw


def _safe(xp: Any, z: Any) -> Any:
    return xp.where(z == -math.inf, 0.0, z)


def _abs_dx(xp: Any, g: Any, x: Any) -> Any:
    if not is_complex(x):
        return g * xp.sign(raw(x))
    size = xp.abs(x)
    return g * (xp.conj(x) / xp.where(size == 0.0, 1.0, size))


def _pow_dx(xp: Any, g: Any, x: Any, y: Any) -> Any:
    if isinstance(y, (int, float, complex)):
        return g * 0.0 if y == 0 else g * (x ** (y - 1) * y)
    # Where 1 / x is finite nothing is masked: d/dy of y x^(y - 1) at y = 0 is 1 / x, and not 0.
    tiny = float(xp.finfo(x.dtype).smallest_normal)
    flat = (y == 0.0) & ~(xp.abs(raw(x)) > tiny)
    return xp.where(flat, 0.0, g * (xp.pow(x, xp.where(flat, 1.0, y - 1.0)) * y))


def _pow_dy(xp: Any, g: Any, x: Any, y: Any, z: Any) -> Any:
    if isinstance(x, (int, float, complex)):
        if isinstance(x, complex) or is_complex(z):
            return g * 0.0 if x == 0 else g * z * cmath.log(x)
        return g * 0.0 if x == 0 else g * z * (math.log(x) if x > 0 else math.nan)
    if is_complex(z) and not is_complex(x):
        x = cast(xp, x, z.dtype)  # a negative base has a complex logarithm
    zero = x == 0.0
    return xp.where(zero, 0.0, g * z * xp.log(xp.where(zero, 1.0, x)))


def _share(xp: Any, g: Any, mine: Any, other: Any) -> Any:
    """g where mine wins, g/2 where both do, 0 elsewhere; `mine` and `other` are masks."""
    return g * ((cast(xp, mine, g.dtype) - cast(xp, other, g.dtype) + 1.0) * 0.5)


# --- forms that the array API standard lacks, numerically stable ------------------------------


def sigmoid(xp: Any, x: Any) -> Any:
    e = xp.exp(-xp.abs(x))
    return xp.where(x >= 0, 1.0, e) / (e + 1.0)


def softplus(xp: Any, x: Any) -> Any:
    return xp.maximum(x, 0.0) + xp.log1p(xp.exp(-xp.abs(x)))


def clip(xp: Any, x: Any, min: Any = None, max: Any = None) -> Any:
    return xp.clip(x, min, max)


UNARY: dict[str, Callable] = {
    "exp": lambda xp, g, z: g * z,
    "expm1": lambda xp, g, z: g * (z + 1.0),
    "log": lambda xp, g, x: g / x,
    "log1p": lambda xp, g, x: g / (x + 1.0),
    "sqrt": lambda xp, g, z: g / (z * 2.0),
    "square": lambda xp, g, x: g * (x * 2.0),
    "abs": _abs_dx,
    "sin": lambda xp, g, x: g * xp.cos(x),
    "cos": lambda xp, g, x: -(g * xp.sin(x)),
    "tanh": lambda xp, g, z: g * (1.0 - z * z),
    "sigmoid": lambda xp, g, z: g * (z * (1.0 - z)),
    "softplus": lambda xp, g, z: -(g * xp.expm1(-z)),
    "erf": lambda xp, g, x: g * (xp.exp(-(x * x)) * (2.0 / math.sqrt(math.pi))),
}

BINARY: dict[str, tuple[Callable, Callable]] = {
    "pow": (_pow_dx, _pow_dy),
    "maximum": (
        lambda xp, g, x, y: _share(xp, g, x >= y, y >= x),
        lambda xp, g, x, y: _share(xp, g, y >= x, x >= y),
    ),
    "minimum": (
        lambda xp, g, x, y: _share(xp, g, x <= y, y <= x),
        lambda xp, g, x, y: _share(xp, g, y <= x, x <= y),
    ),
    "logaddexp": (
        lambda xp, g, x, z: g * xp.exp(x - _safe(xp, z)),
        lambda xp, g, y, z: g * xp.exp(y - _safe(xp, z)),
    ),
}

FORWARD = {"sigmoid": sigmoid, "softplus": softplus}


def _positions(rule: Callable, inputs: int) -> tuple[int, ...]:
    names = list(inspect.signature(rule).parameters)[2:]
    return tuple({"x": 0, "y": 1, "z": inputs}[n] for n in names)


def unary(name: str, rule: Callable) -> None:
    (keep,) = _positions(rule, 1)

    def vjp(xp: Any, g: Any, node: Any) -> tuple:
        return (rule(xp, g, node.saved[keep]),)

    forward = FORWARD.get(name)
    TABLE[name] = Primitive(name, vjp, ((keep,),), forward=forward, kind="elementwise")


def binary(name: str, rules: tuple[Callable, Callable]) -> None:
    saves = tuple(_positions(rule, 2) for rule in rules)

    def vjp(xp: Any, g: Any, node: Any) -> tuple:
        out = []
        for edge, rule, keep in zip(node.edges, rules, saves, strict=True):
            if edge is None:
                out.append(None)
            else:
                out.append(fit(xp, rule(xp, g, *[node.saved[k] for k in keep]), edge))
        return tuple(out)

    TABLE[name] = Primitive(name, vjp, saves, kind="elementwise")


for _name, _rule in UNARY.items():
    unary(_name, _rule)
for _name, _rules in BINARY.items():
    binary(_name, _rules)


# --- arithmetic: written out, because most of a tape is made of it -----------------------------


@primitive("add", ((), ()), kind="elementwise")
def add(xp: Any, g: Any, node: Any) -> tuple:
    ex, ey = node.edges
    # Asked here, not in `fit`: a call costs as much as a small sum.
    shape, dtype = g.shape, g.dtype
    gx = gy = g
    if ex is None:
        gx = None
    elif shape != ex.shape or dtype is not ex.dtype:
        gx = fit(xp, g, ex)
    if ey is None:
        gy = None
    elif shape != ey.shape or dtype is not ey.dtype:
        gy = fit(xp, g, ey)
    return gx, gy


@primitive("subtract", ((), ()), kind="elementwise")
def subtract(xp: Any, g: Any, node: Any) -> tuple:
    ex, ey = node.edges
    return None if ex is None else fit(xp, g, ex), None if ey is None else fit(xp, -g, ey)


@primitive("multiply", ((1,), (0,)), kind="elementwise")
def multiply(xp: Any, g: Any, node: Any) -> tuple:
    ex, ey = node.edges
    x, y = node.saved
    gx = gy = None
    if ex is not None:
        gx = g * y
        if gx.shape != ex.shape or gx.dtype is not ex.dtype:
            gx = fit(xp, gx, ex)
    if ey is not None:
        gy = g * x
        if gy.shape != ey.shape or gy.dtype is not ey.dtype:
            gy = fit(xp, gy, ey)
    return gx, gy


@primitive("divide", ((1,), (1, 2)), kind="elementwise")
def divide(xp: Any, g: Any, node: Any) -> tuple:
    """g / y and -(g / y) z: with the quotient z kept, within Baur and Strassen's factor of 5."""
    ex, ey = node.edges
    q = g / node.saved[1]
    gx = None if ex is None else fit(xp, q, ex)
    return gx, None if ey is None else fit(xp, -(q * node.saved[2]), ey)


@primitive("negative", ((),), kind="linear")
def negative(xp: Any, g: Any, node: Any) -> tuple:
    return (-g,)


@primitive("where", ((), (0,), (0,)), kind="elementwise", labels=("condition", "x", "y"))
def where(xp: Any, g: Any, node: Any) -> tuple:
    keep = node.saved[0]
    _, ex, ey = node.edges
    return (
        None,
        None if ex is None else fit(xp, xp.where(keep, g, 0.0), ex),
        None if ey is None else fit(xp, xp.where(keep, 0.0, g), ey),
    )


@primitive("clip", ((0,),), forward=clip, kind="elementwise")
def _clip(xp: Any, g: Any, node: Any) -> tuple:
    x = node.saved[0]
    lo, hi = node.params.get("min"), node.params.get("max")
    if lo is not None:
        g = g * cast(xp, x >= lo, g.dtype)
    if hi is not None:
        g = g * cast(xp, x <= hi, g.dtype)
    return (g,)


def _astype(xp: Any, x: Any, dtype: Any) -> Any:
    if is_complex(x) and not complex_dtype(dtype):
        raise TypeError(f"astype: {x.dtype} to {dtype} would drop the imaginary part; use real(x)")
    return cast(xp, x, dtype)


@primitive("astype", ((),), forward=_astype, kind="linear")
def astype(xp: Any, g: Any, node: Any) -> tuple:
    return (fit(xp, g, node.edges[0]),)
