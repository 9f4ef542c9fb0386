"""Forward mode: jvp, and the linear map at a point on its own: linearize, linear_transpose."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from autodiff.forward import LIVE, dual, new_level
from autodiff.tape import tick
from autodiff.tensor import Dual, Tensor, backend_of, raw
from autodiff.transforms.evaluation import Evaluation, fitting, leaves_of, pair, settled
from autodiff.transforms.reverse import vjp
from autodiff.tree import tree_flatten, tree_map, tree_unflatten


def jvp(f: Callable, primals: tuple, tangents: tuple, has_aux: bool = False) -> tuple:
    """Value of f, and its derivative along a direction, in one forward pass.

    Parameters
    ----------
    f : callable
        Trees of arrays to a tree of arrays; with `has_aux` to a pair (tree, anything).
    primals, tangents : tuples of trees
        Arguments, and a direction for each: same trees, shapes and dtypes.

    Returns
    -------
    out, tangent_out : trees
    aux : anything
        With `has_aux` alone.

    Raises
    ------
    ValueError, TypeError
        primals or tangents is no tuple; a tangent's tree, shape or dtype differs.

    Examples
    --------
    >>> jvp(lambda x: x * x, (3.0,), (1.0,))
    (np.float64(9.0), np.float64(6.0))
    """
    for said, given in (("primals", primals), ("tangents", tangents)):
        if not isinstance(given, (tuple, list)):
            raise TypeError(
                f"jvp: {said} is a {type(given).__name__}; needs a tuple, one tree an argument"
            )
    primals, tangents = tuple(primals), tuple(tangents)
    flat, shape = leaves_of(primals, "jvp: primals")
    said = f"jvp: primals has {len(flat)} leaves, tangents {{}}; needs the same tree"
    directions = fitting(tangents, primals, flat, "jvp: tangents", said)
    return push(f, flat, shape, directions, has_aux)


def push(f: Callable, flat: list, shape: Any, directions: list, has_aux: bool = False) -> tuple:
    """`jvp` on leaves; a direction of None is zero."""
    level = new_level(tick)
    LIVE.add(level)
    try:
        pairs = zip(flat, directions, strict=True)
        out = f(*tree_unflatten(shape, [_along(x, t, level) for x, t in pairs]))
    finally:
        LIVE.discard(level)
    aux: tuple = ()
    if has_aux:
        out, extra = pair("jvp", out)
        aux = (tree_map(lambda x: settled(_without(x, level)), extra),)
    leaves, out_shape = tree_flatten(out)
    values = [settled(_without(o, level)) for o in leaves]
    moved = [settled(_part(o, level)) for o in leaves]
    return tree_unflatten(out_shape, values), tree_unflatten(out_shape, moved), *aux


def _along(x: Any, t: Any, level: int) -> Tensor:
    tangents = dict(x.tangents) if x.__class__ is Dual else {}
    node = x.node if isinstance(x, Tensor) else None
    return dual(raw(x), node, tangents if t is None else {**tangents, level: t})


def _without(x: Any, level: int) -> Any:
    if x.__class__ is not Dual:
        return x
    return dual(x.data, x.node, {k: t for k, t in x.tangents.items() if k != level})


def _part(x: Any, level: int) -> Any:
    t = x.tangents.get(level) if x.__class__ is Dual else None
    if t is not None:
        return t
    data = raw(x)
    return backend_of(data).zeros_like(data) if hasattr(data, "shape") else 0.0


def linearize(f: Callable, *primals: Any) -> tuple[Any, Callable]:
    """Value of f, and its derivative there as a linear function that does not run f again.

    The pullback g -> J^T g is linear, and its own pullback is J: one recorded run serves any
    number of directions.

    Parameters
    ----------
    f : callable
        Trees of arrays to a tree of arrays.
    *primals : trees of arrays

    Returns
    -------
    out : tree
    push : callable
        ``push(*tangents) -> tangent of out``, a tangent for each argument.

    Examples
    --------
    >>> out, push = linearize(lambda x, y: x * y, 2.0, 5.0)
    >>> push(1.0, 0.0), push(0.0, 1.0)
    (np.float64(5.0), np.float64(2.0))
    """
    every = tuple(range(len(primals)))
    run = Evaluation("linearize", f, primals, every)
    zeros = tuple(_zeros(o, "linearize: the output") for o in run.flat)
    numbers = tuple(range(len(zeros)))
    dual_run = Evaluation("linearize", lambda *g: run.pull(list(g), False), zeros, numbers, inner=run)

    def along(*tangents: Any) -> Any:
        said = f"linearize: {{}} tangents for {len(run.leaves)} leaves; needs the primals' tree"
        flat = fitting(tangents, primals, [x for _, x in run.leaves], "linearize: tangents", said)
        return tree_unflatten(run.shape, dual_run.pull(flat, free=False))

    return run.value(), along


def linear_transpose(f: Callable, *primals: Any) -> Callable:
    """The transpose of a linear function; primals say shapes and dtypes alone.

    Returns
    -------
    callable
        ``transpose(g) -> tuple of trees``, one an argument. For complex numbers it is the adjoint.

    Raises
    ------
    ValueError
        f(0) is not 0, so that f is not linear.

    Examples
    --------
    >>> import numpy as np
    >>> linear_transpose(lambda x: 3.0 * x[1:], np.zeros(3))(np.array([1.0, 10.0]))
    (array([ 0.,  3., 30.]),)
    """
    out, pullback = vjp(f, *(_zeros(p, "linear_transpose: primals") for p in primals))
    for x in tree_flatten(out)[0]:
        if bool(backend_of(raw(x)).any(raw(x) != 0)):
            raise ValueError("linear_transpose: f(0) is not 0; needs a linear function")
    return pullback


def _zeros(tree: Any, name: str) -> Any:
    flat, shape = leaves_of(tree, name)
    return tree_unflatten(shape, [backend_of(raw(x)).zeros_like(raw(x)) for x in flat])
