"""Derivatives of more elementwise functions: trigonometric, hyperbolic, special, piecewise constant.

Written as the tables of `rules_elementwise`. Where f has no derivative, or is infinite:
  E10  sign, floor, ceil, round and trunc: 0 everywhere, also on the jumps.
  E11  asin, acos, atanh and acosh at the ends of their ranges: infinite.
  E12  atan2 at (0, 0): NaN, there is no slope; elsewhere on the cut the slope of the angle.
  E13  hypot at (0, 0): 0, as `vector_norm`.
  E14  rsqrt at 0: infinite, and so is the value.
  E15  log1mexp at 0, log(1 - e^-x): the value is -inf and the slope +inf; below 0 both are NaN.
  E16  gammaln and polygamma at 0, -1, -2, ...: the poles, inf or NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from autodiff.primitive import TABLE, primitive
from autodiff.rules_elementwise import FORWARD, binary, unary

# --- forms that the array API standard lacks --------------------------------------------------


def rsqrt(xp: Any, x: Any) -> Any:
    return 1.0 / xp.sqrt(x)


def log1mexp(xp: Any, x: Any) -> Any:
    """log(1 - e^-x) for x >= 0, by the half that keeps its digits (Maechler 2012, eq. 7)."""
    near = x <= math.log(2.0)
    small = xp.log(-xp.expm1(-xp.where(near, x, 1.0)))
    large = xp.log1p(-xp.exp(-xp.where(near, 1.0, x)))
    return xp.where(near, small, large)


UNARY: dict[str, Callable] = {
    "tan": lambda xp, g, z: g * (z * z + 1.0),
    "asin": lambda xp, g, x: g / xp.sqrt((1.0 - x) * (x + 1.0)),
    "acos": lambda xp, g, x: -(g / xp.sqrt((1.0 - x) * (x + 1.0))),
    "atan": lambda xp, g, x: g / (x * x + 1.0),
    "sinh": lambda xp, g, x: g * xp.cosh(x),
    "cosh": lambda xp, g, x: g * xp.sinh(x),
    "asinh": lambda xp, g, x: g / xp.sqrt(x * x + 1.0),
    "acosh": lambda xp, g, x: g / xp.sqrt((x - 1.0) * (x + 1.0)),
    "atanh": lambda xp, g, x: g / ((1.0 - x) * (x + 1.0)),
    "rsqrt": lambda xp, g, z: g * (z * z * z * -0.5),
    "erfc": lambda xp, g, x: g * (xp.exp(-(x * x)) * (-2.0 / math.sqrt(math.pi))),
    "log1mexp": lambda xp, g, x: g / xp.expm1(x),
    "gammaln": lambda xp, g, x: g * TABLE["polygamma"](x, n=0),
}


def _angle_dy(xp: Any, g: Any, x: Any, y: Any) -> Any:
    r = xp.hypot(x, y)
    return g * (y / r / r)


def _angle_dx(xp: Any, g: Any, x: Any, y: Any) -> Any:
    r = xp.hypot(x, y)
    return -(g * (x / r / r))


def _side(xp: Any, g: Any, x: Any, z: Any) -> Any:
    return g * (x / xp.where(z == 0.0, 1.0, z))


BINARY: dict[str, tuple[Callable, Callable]] = {
    # atan2(first, second): the names x, y of a rule stand for the first and the second argument.
    "atan2": (_angle_dy, _angle_dx),
    "hypot": (_side, lambda xp, g, y, z: _side(xp, g, y, z)),
}

FORWARD.update(rsqrt=rsqrt, log1mexp=log1mexp)

for _name, _rule in UNARY.items():
    unary(_name, _rule)
for _name, _rules in BINARY.items():
    binary(_name, _rules)


@primitive(
    "polygamma",
    ((0,),),
    forward=lambda xp, x, n: xp.polygamma(n, x),
    kind="elementwise",
)
def polygamma(xp: Any, g: Any, node: Any) -> tuple:
    return (g * TABLE["polygamma"](node.saved[0], n=node.params["n"] + 1),)


def _nothing(xp: Any, g: Any, node: Any) -> tuple:
    """Zeros, also where g is infinite; a tensor where g is one."""
    return (xp.where(xp.ones(g.shape, dtype=xp.bool), 0.0, g),)


for _name in ("sign", "floor", "ceil", "round", "trunc"):
    primitive(_name, ((),), kind="elementwise")(_nothing)
