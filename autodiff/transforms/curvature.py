"""Second order without a matrix: Hessian times vector in three ways, Gauss-Newton times vector."""

from __future__ import annotations

from collections.abc import Callable

from autodiff.transforms.directional import jvp
from autodiff.transforms.reverse import grad, vjp


def _forward_over_reverse(f: Callable, args: tuple, tangents: tuple) -> tuple:
    return jvp(grad(f, argnums=tuple(range(len(args)))), args, tangents)[1]


def _reverse_over_reverse(f: Callable, args: tuple, tangents: tuple) -> tuple:
    # The Hessian is its own transpose, so the pullback of the gradient is H.
    return vjp(grad(f, argnums=tuple(range(len(args)))), *args)[1](tangents)


def _reverse_over_forward(f: Callable, args: tuple, tangents: tuple) -> tuple:
    slope = lambda *xs: jvp(f, xs, tangents)[1]  # noqa: E731
    return grad(slope, argnums=tuple(range(len(args))))(*args)


WAYS = {
    "forward_over_reverse": _forward_over_reverse,
    "reverse_over_reverse": _reverse_over_reverse,
    "reverse_over_forward": _reverse_over_forward,
}


def hvp(
    f: Callable, args: tuple, tangents: tuple, *, mode: str = "forward_over_reverse"
) -> tuple:
    """Hessian of a scalar function times a direction, without the Hessian.

    Parameters
    ----------
    f : callable
        Real trees to a real scalar.
    args, tangents : tuples of trees
        Arguments, and a direction for each.
    mode : str
        "forward_over_reverse": the gradient, differentiated along the direction; least memory.
        "reverse_over_reverse": the gradient, pulled back. "reverse_over_forward": the gradient of
        the slope along the direction. All agree to rounding.

    Returns
    -------
    tuple of trees, one an argument

    Raises
    ------
    ValueError, TypeError
        An unknown mode, a direction of another tree, shape or dtype, f not to a scalar.

    Examples
    --------
    >>> hvp(lambda x: x * x * x, (2.0,), (1.0,))
    (np.float64(12.0),)
    """
    if mode not in WAYS:
        raise ValueError(f"hvp: mode is {mode!r}; needs one of {', '.join(WAYS)}")
    for said, given in (("args", args), ("tangents", tangents)):
        if not isinstance(given, (tuple, list)):
            raise TypeError(
                f"hvp: {said} is a {type(given).__name__}; needs a tuple, one tree an argument"
            )
    return WAYS[mode](f, tuple(args), tuple(tangents))


def ggnvp(f: Callable, args: tuple, tangents: tuple, loss: Callable | None = None) -> tuple:
    """Generalised Gauss-Newton matrix times a direction: J^T H J v, J of f, H of the loss.

    Reference: Schraudolph 2002, Fast curvature matrix-vector products. With a convex loss the
    matrix is positive semidefinite, which the Hessian of ``loss(f(x))`` need not be; the two are
    equal where f is affine, and where the loss has no slope.

    Parameters
    ----------
    f : callable
        The model: trees to a tree.
    args, tangents : tuples of trees
        Arguments of f, and a direction for each.
    loss : callable, optional
        The tree that f returns to a real scalar. By default half the sum of squares, with H = I.

    Returns
    -------
    tuple of trees, one an argument

    Examples
    --------
    >>> import numpy as np
    >>> ggnvp(lambda x: x * x, (np.array([1.0, 3.0]),), (np.array([1.0, 1.0]),))
    (array([ 4., 36.]),)
    """
    args, tangents = tuple(args), tuple(tangents)
    out, moved = jvp(f, args, tangents)
    _, pullback = vjp(f, *args)
    return pullback(moved if loss is None else hvp(loss, (out,), (moved,))[0])
