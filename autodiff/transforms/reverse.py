"""Reverse mode: value_and_grad, grad, vjp, elementwise_grad."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from autodiff.tensor import backend_of, is_complex, raw
from autodiff.transforms.evaluation import Evaluation, conjugate, fitting, places
from autodiff.tree import tree_unflatten


def _scalar(name: str, flat: list, holomorphic: bool) -> Any:
    """The one scalar that f returned."""
    if len(flat) != 1 or raw(flat[0]).__class__ in (str, type(None)):
        raise ValueError(f"{name}: f returned {len(flat)} arrays; needs one scalar")
    out = flat[0]
    shape = tuple(out.shape) if hasattr(out, "shape") else np.shape(raw(out))
    if shape:
        raise ValueError(f"{name}: f returned shape {shape}; needs a scalar, shape ()")
    if hasattr(out, "dtype") and is_complex(out) != holomorphic:
        needed = "complex, as holomorphic=True says" if holomorphic else (
            "real (holomorphic=True gives the complex derivative of a holomorphic f)"
        )
        raise TypeError(f"{name}: f returned {out.dtype}; the scalar must be {needed}")
    return out


def value_and_grad(
    f: Callable, argnums: int | tuple = 0, has_aux: bool = False, *, holomorphic: bool = False
) -> Callable:
    """The function ``(value, gradient)`` of a scalar function.

    Parameters
    ----------
    f : callable
        Returns a scalar; with `has_aux` a pair (scalar, anything).
    argnums : int or tuple of int
        Which positional arguments to differentiate: trees of arrays.
    has_aux : bool
        Whether f returns a pair; the value is then the pair.
    holomorphic : bool
        f is a holomorphic function to one complex number: the result is df/dz, not a gradient.

    Returns
    -------
    callable
        ``value_and_grad(f)(*args) -> (value, gradient)``; the gradient has the tree of the
        argument, and is a tuple of trees when `argnums` is a tuple.

    Raises
    ------
    ValueError
        f does not return a scalar, or `argnums` names an argument that did not arrive.
    TypeError
        A differentiated leaf is not a floating array, or the scalar is complex.

    Examples
    --------
    >>> import numpy as np
    >>> value_and_grad(lambda p: (p["w"] * p["w"]).sum())({"w": np.array([1.0, 2.0])})
    (np.float64(5.0), {'w': array([2., 4.])})
    """
    return _value_and_grad("value_and_grad", f, argnums, has_aux, holomorphic)


def _value_and_grad(
    name: str, f: Callable, argnums: int | tuple, has_aux: bool, holomorphic: bool
) -> Callable:
    def call(*args: Any, **options: Any) -> tuple:
        at = places(name, argnums, args)
        run = Evaluation(name, lambda *a: f(*a, **options), args, at, has_aux)
        out = _scalar(name, run.flat, holomorphic)
        value = run.value()
        one = backend_of(raw(out)).ones_like(raw(out)) if hasattr(out, "shape") else 1.0
        trees = run.pull([one], free=True)
        if holomorphic:
            trees = [conjugate(tree) for tree in trees]
        gradient = tuple(trees) if isinstance(argnums, (tuple, list)) else trees[0]
        return ((value, run.aux) if has_aux else value), gradient

    return call


def grad(
    f: Callable, argnums: int | tuple = 0, has_aux: bool = False, *, holomorphic: bool = False
) -> Callable:
    """The gradient of a scalar function; with `has_aux` the pair (gradient, aux).

    Parameters and errors are those of `value_and_grad`.

    Examples
    --------
    >>> grad(grad(lambda x: x * x * x))(2.0)
    np.float64(12.0)
    """
    both = _value_and_grad("grad", f, argnums, has_aux, holomorphic)

    def call(*args: Any, **options: Any) -> Any:
        value, gradient = both(*args, **options)
        return (gradient, value[1]) if has_aux else gradient

    return call


def vjp(f: Callable, *args: Any, has_aux: bool = False) -> tuple:
    """Value of f, and the function that pulls a cotangent back to its arguments.

    Parameters
    ----------
    f : callable
        Trees of arrays to a tree of arrays; with `has_aux` to a pair (tree, anything).
    *args : trees of arrays

    Returns
    -------
    out : tree
    pullback : callable
        ``pullback(g) -> tuple of trees``, one an argument; g has the tree of out. It may be called
        any number of times.
    aux : anything
        With `has_aux` alone.

    Raises
    ------
    ValueError, TypeError
        A cotangent's tree, shape or dtype differs from the output's.

    Examples
    --------
    >>> import numpy as np
    >>> out, pullback = vjp(lambda x, y: x * y, np.array([1.0, 2.0]), np.array([3.0, 4.0]))
    >>> pullback(np.array([1.0, 10.0]))
    (array([ 3., 40.]), array([ 1., 20.]))
    """
    run = Evaluation("vjp", f, args, tuple(range(len(args))), has_aux)

    def pullback(g: Any) -> tuple:
        like = tree_unflatten(run.shape, run.flat)
        said = "pullback: g has {} leaves, needed the tree of the output"
        return tuple(run.pull(fitting(g, like, run.flat, "pullback: g", said), free=False))

    return (run.value(), pullback, run.aux) if has_aux else (run.value(), pullback)


def elementwise_grad(
    f: Callable, argnums: int | tuple = 0, has_aux: bool = False, *, holomorphic: bool = False
) -> Callable:
    """The derivative of an elementwise function at every element, in one backward pass.

    It is the gradient of the sum of all outputs, hence for a function that is not elementwise the
    sum of the Jacobian's rows. Parameters and errors are those of `value_and_grad`.

    Examples
    --------
    >>> import numpy as np
    >>> elementwise_grad(lambda x: x * x * x)(np.array([1.0, 2.0]))
    array([ 3., 12.])
    """

    def call(*args: Any, **options: Any) -> Any:
        at = places("elementwise_grad", argnums, args)
        run = Evaluation("elementwise_grad", lambda *a: f(*a, **options), args, at, has_aux)
        ones = [backend_of(raw(o)).ones_like(raw(o)) if hasattr(o, "shape") else 1.0 for o in run.flat]
        if any(is_complex(g) for g in ones if hasattr(g, "dtype")) and not holomorphic:
            raise TypeError(
                "elementwise_grad: f returned complex numbers; needs real ones, or holomorphic=True"
            )
        trees = run.pull(ones, free=True)
        if holomorphic:
            trees = [conjugate(tree) for tree in trees]
        found = tuple(trees) if isinstance(argnums, (tuple, list)) else trees[0]
        return (found, run.aux) if has_aux else found

    return call
