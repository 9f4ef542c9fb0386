"""Complex numbers: the convention, the primitives that take them, and their parts.

C1  A complex number counts as two reals, and the gradient of a real L with respect to z = x + iy is
    dL/dx + i dL/dy, the direction of steepest ascent: torch's convention. So ``z - lr * z.grad``
    descends as it stands, and a pullback is the adjoint of the derivative J under the real inner
    product Re(sum(conj(v) u)): for a holomorphic f it multiplies by conj(f').
C2  JAX and HIPS autograd give the conjugate: their ``grad(f)(z)`` is ``conj(grad(f)(z))`` here,
    and their pullback is ``conj(pullback(conj(g)))``. jvp is J itself with everybody.
C3  ``grad(f, holomorphic=True)`` is the complex derivative f' with no conjugate, and so are
    the Jacobians with that option.
C4  A real input gets a real gradient, whatever lies between it and the result.
C5  abs and angle have no derivative at 0; both get 0 there.

Inside a sweep cotangents are those of C2, which is why the rules of holomorphic functions are the
real ones and cost nothing more: pairing Re(sum(g u)), J^T without a conjugate. `backward.sweep`
conjugates what goes in and what comes out. A rule of a function that is not holomorphic says where
the conjugate stands.

A primitive that is not named here refuses complex numbers as soon as a derivative is asked for.
"""

from __future__ import annotations

from typing import Any

from autodiff import rules_array, rules_elementwise, rules_linalg, rules_reduce  # noqa: F401
from autodiff.primitive import TABLE, cast, conjugated, fit, primitive
from autodiff.tensor import is_complex

# Their rules hold for complex numbers as they stand, or look for themselves (abs, pow, vecdot).
COMPLEX = frozenset(
    (
        *("abs", "add", "astype", "broadcast_to", "concat", "cos", "cumulative_sum", "divide"),
        *("einsum", "exp", "expand_dims", "expm1", "flip", "getitem", "identity", "log", "log1p"),
        *("matmul", "matrix_transpose", "mean", "multiply", "negative", "permute_dims", "pow"),
        *("prod", "reshape", "roll", "scatter_add", "sin", "sqrt", "square", "squeeze", "stack"),
        *("subtract", "sum", "take", "take_along_axis", "tanh", "tril", "triu", "vecdot", "where"),
    )
)
for _name in COMPLEX:
    TABLE[_name].complex = True


@primitive("conj", kind="linear", complex=True, forward=conjugated)
def conj(xp: Any, g: Any, node: Any) -> tuple:
    return (conjugated(xp, g),)


@primitive(
    "real", kind="linear", complex=True, forward=lambda xp, x: xp.real(x) if is_complex(x) else x
)
def real(xp: Any, g: Any, node: Any) -> tuple:
    return (fit(xp, g, node.edges[0]),)


@primitive(
    "imag",
    kind="linear",
    complex=True,
    forward=lambda xp, x: xp.imag(x) if is_complex(x) else xp.zeros_like(x),
)
def imag(xp: Any, g: Any, node: Any) -> tuple:
    # Im u = Re(-i u); a real u has none, and `fit` keeps the real part of -i g, which is 0.
    g = g if is_complex(g) else cast(xp, g, _complex_of(xp, g.dtype))
    return (fit(xp, g * -1j, node.edges[0]),)


def _complex_of(xp: Any, dtype: Any) -> Any:
    """The complex dtype of two numbers of `dtype`; NumPy has none of two float16."""
    return xp.complex128 if dtype == xp.float64 else xp.complex64


def _join(xp: Any, re: Any, im: Any) -> Any:
    dtype = _complex_of(xp, xp.result_type(re, im))
    re, im = xp.broadcast_arrays(xp.asarray(re), xp.asarray(im))
    if hasattr(re, "view"):
        # As a pair: re + 1j * im would make a NaN of an infinite part.
        parts = xp.stack([re, im], axis=-1)
        pair = xp.astype(parts, xp.real(xp.zeros((), dtype=dtype)).dtype)
        return pair.view(dtype)[..., 0]
    return xp.astype(re, dtype) + xp.astype(im, dtype) * 1j


@primitive("complex", ((), ()), kind="linear", complex=True, forward=_join, labels=("re", "im"))
def complex_(xp: Any, g: Any, node: Any) -> tuple:
    """Re(g (u + i w)) = Re(g) u - Im(g) w."""
    re, im = node.edges
    return (
        None if re is None else fit(xp, xp.real(g), re),
        None if im is None else fit(xp, -xp.imag(g), im),
    )


def _angle(xp: Any, x: Any) -> Any:
    if is_complex(x):
        return xp.atan2(xp.imag(x), xp.real(x))
    return xp.atan2(xp.zeros_like(x), x)


@primitive("angle", ((0,),), kind="derived", complex=True, forward=_angle)
def angle(xp: Any, g: Any, node: Any) -> tuple:
    """d angle = Im(u / z) = Re(-i u / z); 0 along the real line."""
    (z,) = node.saved
    if not is_complex(z):
        return (g * 0.0,)
    zero = z == 0
    g = cast(xp, g, z.dtype)
    return (xp.where(zero, 0.0, g * -1j / xp.where(zero, 1.0, z)),)
