"""Whole Jacobians and Hessians of functions over trees.

The result has the tree of the output; at each of its leaves stands the tree of the argument (a
tuple of trees when `argnums` is a tuple), whose leaves have shape ``out.shape + x.shape``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from autodiff.space import namespace
from autodiff.tensor import backend_of, is_complex, raw
from autodiff.transforms.directional import push
from autodiff.transforms.evaluation import Evaluation, chosen, conjugate, leaves_of, places
from autodiff.transforms.reverse import grad
from autodiff.tree import tree_flatten, tree_unflatten


def _unit(like: Any, i: int) -> Any:
    """The array shaped as `like` that is 1 at flat position i and 0 elsewhere."""
    like = raw(like)
    xp = backend_of(like)
    size = math.prod(like.shape)
    return xp.reshape(xp.astype(xp.arange(size) == i, like.dtype), tuple(like.shape))


def _joined(parts: list, count: int, shape: tuple, like: Any) -> Any:
    """`count` parts stacked and reshaped; an empty Jacobian when there is none."""
    if not count:
        return backend_of(raw(like)).zeros(shape, dtype=raw(like).dtype)
    xp = namespace(*parts)
    return xp.reshape(xp.stack(parts), shape)


def _need(name: str, holomorphic: bool, inputs: list, outputs: list) -> None:
    """Jacobians of real functions, or of holomorphic ones; the rest has no one matrix."""
    complex_in = [x.dtype for x in inputs if is_complex(x)]
    complex_out = [x.dtype for x in outputs if hasattr(x, "dtype") and is_complex(x)]
    if holomorphic:
        if len(complex_in) != len(inputs):
            real = next(x.dtype for x in inputs if not is_complex(x))
            raise TypeError(f"{name}: holomorphic=True needs complex arguments; {real} arrived")
    elif complex_in or (complex_out and name != "jacfwd"):
        what = "an argument is" if complex_in else "f returned"
        raise TypeError(
            f"{name}: {what} {(complex_in or complex_out)[0]}; needs real numbers, or "
            "holomorphic=True where f is (jacfwd takes real arguments to complex results)"
        )


def jacrev(
    f: Callable, argnums: int | tuple = 0, has_aux: bool = False, *, holomorphic: bool = False
) -> Callable:
    """Jacobian by reverse mode: one run of f, one sweep for each number of the output.

    Parameters and errors are those of `jacobian`.

    Examples
    --------
    >>> import numpy as np
    >>> jacrev(lambda x: x * x)(np.array([1.0, 2.0]))
    array([[2., 0.],
           [0., 4.]])
    """

    def call(*args: Any, **options: Any) -> Any:
        at = places("jacrev", argnums, args)
        run = Evaluation("jacrev", lambda *a: f(*a, **options), args, at, has_aux)
        inputs = [data for _, data in run.leaves]
        _need("jacrev", holomorphic, inputs, run.flat)
        rows = []
        for k, out in enumerate(run.flat):
            size = math.prod(out.shape) if hasattr(out, "shape") else 1
            pulled = []
            for i in range(size):
                seeds: list = [None] * len(run.flat)
                seeds[k] = _unit(out, i) if hasattr(out, "shape") else 1.0
                pulled.append(tree_flatten(run.pull(seeds, free=False))[0])
            shape = tuple(getattr(out, "shape", ()))
            columns = zip(*pulled, strict=True) if pulled else [()] * len(inputs)
            rows.append(
                [
                    _joined(list(part), size, (*shape, *x.shape), x)
                    for part, x in zip(columns, inputs, strict=True)
                ]
            )
        found = tree_unflatten(run.shape, [_arguments(row, run.shapes, argnums) for row in rows])
        found = conjugate(found) if holomorphic else found
        return (found, run.aux) if has_aux else found

    return call


def _arguments(row: list, shapes: list, argnums: int | tuple) -> Any:
    """One row of blocks as the tree of the argument, or a tuple of such trees."""
    trees, start = [], 0
    for shape, count in shapes:
        trees.append(tree_unflatten(shape, row[start : start + count]))
        start += count
    return tuple(trees) if isinstance(argnums, (tuple, list)) else trees[0]


def jacfwd(
    f: Callable, argnums: int | tuple = 0, has_aux: bool = False, *, holomorphic: bool = False
) -> Callable:
    """Jacobian by forward mode: one pass of f for each number of the arguments.

    Parameters and errors are those of `jacobian`.

    Examples
    --------
    >>> import numpy as np
    >>> jacfwd(lambda x: x * x)(np.array([1.0, 2.0]))
    array([[2., 0.],
           [0., 4.]])
    """

    def call(*args: Any, **options: Any) -> Any:
        at = places("jacfwd", argnums, args)
        g, mine = chosen(f, args, at, options)
        trees = [leaves_of(x, f"jacfwd: argument {k}") for k, x in zip(at, mine, strict=True)]
        shapes = [(shape, len(flat)) for flat, shape in trees]
        inputs = [x for flat, _ in trees for x in flat]
        _need("jacfwd", holomorphic, inputs, [])
        whole = tree_flatten(mine)[1]
        still = [None] * len(inputs)
        # The first run, along nothing, says what f returns; without inputs it is the only one.
        out, _, *aux = push(g, inputs, whole, still, has_aux)
        outputs, out_shape = tree_flatten(out)
        blocks: list[list] = [[] for _ in outputs]
        for k, x in enumerate(inputs):
            size = math.prod(x.shape)
            moved = []
            for j in range(size):
                along = [*still[:k], _unit(x, j), *still[k + 1 :]]
                moved.append(tree_flatten(push(g, inputs, whole, along, has_aux)[1])[0])
            for i, o in enumerate(outputs):
                blocks[i].append(_columns([m[i] for m in moved], o, x))
        rows = [_arguments(row, shapes, argnums) for row in blocks]
        found = tree_unflatten(out_shape, rows)
        return (found, aux[0]) if has_aux else found

    return call


def _columns(parts: list, out: Any, x: Any) -> Any:
    """Tangents of `out`, one for each number of x, as out.shape + x.shape."""
    shape = tuple(getattr(out, "shape", ()))
    like = out if hasattr(out, "shape") else x
    if not parts:
        return _joined(parts, 0, (*shape, *x.shape), like)
    if not hasattr(parts[0], "shape"):
        parts = [backend_of(raw(x)).asarray(p, dtype=raw(x).dtype) for p in parts]
    xp = namespace(*parts)
    return xp.reshape(xp.stack(parts, axis=len(shape)), (*shape, *x.shape))


def jacobian(
    f: Callable,
    argnums: int | tuple = 0,
    has_aux: bool = False,
    *,
    mode: str = "reverse",
    holomorphic: bool = False,
) -> Callable:
    """Jacobian of a function from trees of arrays to a tree of arrays.

    Parameters
    ----------
    f : callable
        With `has_aux` it returns a pair (tree, anything).
    argnums : int or tuple of int
        Which positional arguments to differentiate.
    has_aux : bool
        Whether f returns a pair; the result is then (Jacobian, aux).
    mode : "reverse" or "forward"
        Reverse takes a sweep for each number of the output, forward a pass of f for each of the
        arguments: reverse pays where f gives fewer numbers than it takes.
    holomorphic : bool
        The arguments are complex and f is holomorphic: the entries are complex derivatives.

    Returns
    -------
    callable
        ``jacobian(f)(*args)``: the tree of the output; at each leaf the tree of the argument, with
        leaves of shape ``out.shape + x.shape``.

    Raises
    ------
    ValueError, TypeError
        An unknown mode, `argnums` out of range, a leaf that is not floating, complex numbers
        without `holomorphic`.

    Examples
    --------
    >>> import numpy as np
    >>> jacobian(lambda p: {"y": p["w"] * p["b"]})({"w": np.array([1.0, 2.0]), "b": 3.0})
    {'y': {'w': array([[3., 0.],
           [0., 3.]]), 'b': array([1., 2.])}}
    """
    if mode not in ("reverse", "forward"):
        raise ValueError(f"jacobian: mode is {mode!r}; needs 'reverse' or 'forward'")
    way = jacrev if mode == "reverse" else jacfwd
    return way(f, argnums, has_aux, holomorphic=holomorphic)


def hessian(f: Callable, argnums: int | tuple = 0, has_aux: bool = False) -> Callable:
    """Hessian of a real scalar function: the gradient, differentiated forward.

    Parameters
    ----------
    f : callable
        Trees of real arrays to a scalar; with `has_aux` to a pair (scalar, anything).
    argnums : int or tuple of int
        Which positional arguments to differentiate.

    Returns
    -------
    callable
        ``hessian(f)(*args)``: the tree of the argument; at each leaf x the tree of the argument
        again, with leaves of shape ``x.shape + y.shape``. With `has_aux` the pair (Hessian, aux).

    Raises
    ------
    ValueError, TypeError
        As `grad`.

    Examples
    --------
    >>> import numpy as np
    >>> hessian(lambda x: x[0] * x[0] * x[1])(np.array([1.0, 2.0]))
    array([[4., 2.],
           [2., 0.]])
    """
    return jacfwd(grad(f, argnums, has_aux), argnums, has_aux)
