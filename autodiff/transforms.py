"""Functional transforms over trees of arrays: grad, value_and_grad, vjp, jvp, hvp, jacobian.

They nest in any order. A result is a Tensor exactly when something outside is being
differentiated with respect to it (an enclosing transform, or a tensor with ``requires_grad`` that
the function closes over); otherwise it is a raw array.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from autodiff.backward import checked, sweep
from autodiff.forward import LIVE, Lifted, dual, new_level
from autodiff.primitive import identity
from autodiff.space import namespace, space_of
from autodiff.tape import Node, enable_grad, leaf, tick
from autodiff.tensor import Dual, Tensor, _tensor, backend_of, is_real, raw
from autodiff.tree import tree_flatten, tree_map, tree_paths, tree_unflatten

__all__ = ["grad", "hvp", "jacobian", "jvp", "value_and_grad", "vjp"]


def _array(x: Any, name: str) -> Any:
    """A leaf of a differentiated argument: a real array or tensor."""
    if isinstance(x, (bool, int, float)):
        x = np.asarray(x)
    if not hasattr(x, "dtype"):
        raise TypeError(f"{name} is a {type(x).__name__}; needs arrays, tensors or floats")
    if not is_real(raw(x)):
        raise TypeError(f"{name} has dtype {x.dtype}; gradients need a real floating dtype")
    return x


def _variable(x: Any) -> Tensor:
    """`x` as a variable of its own, linked to what it came from."""
    if isinstance(x, Tensor):
        if x.node is not None:
            return identity(x)
        if x.__class__ is Dual:
            return dual(x.data, leaf(x.data), x.tangents)
        x = x.data
    return _tensor(x, leaf(x))


def _settled(x: Any) -> Any:
    """A raw array, unless something outside still differentiates `x`."""
    if not isinstance(x, Tensor) or x.node is not None:
        return x
    if x.__class__ is Dual and any(k in LIVE for k in x.tangents):
        return x
    return x.data


def _nodes(x: Any) -> Iterator[Node]:
    """Nodes that a value hangs on: its own and those of its live tangents."""
    if isinstance(x, Tensor):
        if x.node is not None:
            yield x.node
        if x.__class__ is Dual:
            for level, t in x.tangents.items():
                if level in LIVE:
                    yield from _nodes(t)


def _stripped(x: Any) -> Any:
    """`x` off the tape, tangents kept."""
    if x.__class__ is Dual:
        return _settled(dual(x.data, None, {k: _stripped(t) for k, t in x.tangents.items()}))
    return raw(x)


def _outside(values: list, inside: dict, floor: int) -> tuple[bool, bool]:
    """Whether values lead to nodes from before this transform, and whether to live tangents."""
    stack = [n for v in values for n in _nodes(v) if n.seq not in inside]
    forward = any(v.__class__ is Dual for v in values)
    seen = {n.seq for n in stack}
    while stack:
        node = stack.pop()
        if node.seq < floor:
            return True, forward
        edges = [e for e in node.edges if e is not None]
        if isinstance(node.saved, Lifted):
            forward = True
            edges += [n for v in node.saved.kept for n in _nodes(v)]
        for edge in edges:
            if edge.seq not in seen and edge.seq not in inside:
                seen.add(edge.seq)
                stack.append(edge)
    return False, forward


class _Run:
    """One evaluation of f with its variables on the tape; pulls cotangents back."""

    def __init__(self, name: str, f: Callable, args: tuple, argnums: tuple, has_aux: bool):
        self.floor = tick()
        self.aux = None
        leaves, self.shapes = [], []
        call = list(args)
        given: list = []
        with enable_grad():
            for k in argnums:
                flat, shape = tree_flatten(args[k])
                paths = tree_paths(args[k])
                named = zip(flat, paths, strict=True)
                flat = [_array(x, f"{name}: argument {k}{path}") for x, path in named]
                given += flat
                mine = [_variable(x) for x in flat]
                self.shapes.append((shape, len(mine)))
                leaves += mine
                call[k] = tree_unflatten(shape, mine)
            out = f(*call)
        if has_aux:
            out, self.aux = out
        self.leaves = [(v.node.seq, v.data) for v in leaves]
        self.inside = dict.fromkeys((seq for seq, _ in self.leaves), 0)
        self.flat, self.shape = tree_flatten(out)
        # Whether results stay on the tape, and whether they keep tangents.
        self.taped, self.forward = _outside([*given, *self.flat], self.inside, self.floor)
        flat, shape = tree_flatten(self.aux)
        if any(isinstance(x, Tensor) for x in flat):
            flat = [self.result(x, *_outside([x], self.inside, self.floor)) for x in flat]
            self.aux = tree_unflatten(shape, flat)

    @staticmethod
    def result(x: Any, taped: bool, forward: bool) -> Any:
        if taped:
            return _settled(x)
        return _stripped(x) if forward else raw(x)

    def value(self) -> Any:
        return tree_unflatten(self.shape, [self.result(o, self.taped, self.forward) for o in self.flat])

    def pull(self, cotangents: list, free: bool) -> list:
        """A tree of cotangents for each differentiated argument."""
        taped = self.taped or any(True for g in cotangents for _ in _nodes(g))
        create = taped or self.forward or any(g.__class__ is Dual for g in cotangents)
        seeds = []
        for o, g in zip(self.flat, cotangents, strict=True):
            if isinstance(o, Tensor) and o.node is not None:
                if create and not isinstance(g, Tensor):
                    g = _tensor(g, None)
                seeds.append((o.node, g if create else raw(g)))
        found = {}
        if seeds and create:
            with enable_grad():
                space = space_of(backend_of(raw(seeds[0][1])))
                found = sweep(seeds, space, False, self.inside, self.floor)
        elif seeds:
            found = sweep(seeds, backend_of(seeds[0][1]), free, self.inside, self.floor)
        flat = []
        for seq, data in self.leaves:
            g = found.get(seq)
            if g is None:
                flat.append(backend_of(data).zeros_like(data))
            else:
                flat.append(_settled(g) if taped else _stripped(g))
        trees, start = [], 0
        for shape, count in self.shapes:
            trees.append(tree_unflatten(shape, flat[start : start + count]))
            start += count
        return trees


def value_and_grad(f: Callable, argnums: int | tuple = 0, has_aux: bool = False) -> Callable:
    """The function ``(value, gradient)`` of a scalar function.

    Parameters
    ----------
    f : callable
        Returns a scalar; with `has_aux` a pair (scalar, anything).
    argnums : int or tuple of int
        Which positional arguments to differentiate: trees of arrays.
    has_aux : bool
        Whether f returns a pair; the value is then the pair.

    Returns
    -------
    callable
        ``value_and_grad(f)(*args) -> (value, gradient)``; the gradient has the tree of the
        argument, and is a tuple of trees when `argnums` is a tuple.

    Raises
    ------
    ValueError
        f does not return a scalar.
    TypeError
        A differentiated leaf is not a real array.

    Examples
    --------
    >>> import numpy as np
    >>> value_and_grad(lambda p: (p["w"] * p["w"]).sum())({"w": np.array([1.0, 2.0])})
    (np.float64(5.0), {'w': array([2., 4.])})
    """
    nums = (argnums,) if isinstance(argnums, int) else tuple(argnums)

    def call(*args: Any, **options: Any) -> tuple:
        for k in nums:
            if not -len(args) <= k < len(args):
                raise ValueError(f"grad: argnums names argument {k}, {len(args)} arrived")
        at = tuple(k % len(args) for k in nums)
        run = _Run("grad", lambda *a: f(*a, **options), args, at, has_aux)
        if len(run.flat) != 1 or raw(run.flat[0]).__class__ in (str, type(None)):
            raise ValueError(f"grad: f returned {len(run.flat)} arrays; needs one scalar")
        out = run.flat[0]
        if np.shape(raw(out)) if not hasattr(out, "shape") else tuple(out.shape):
            raise ValueError(f"grad: f returned shape {tuple(out.shape)}; needs a scalar, shape ()")
        value = run.value()
        one = backend_of(raw(out)).ones_like(raw(out)) if hasattr(out, "shape") else 1.0
        trees = run.pull([one], free=True)
        gradient = trees[0] if isinstance(argnums, int) else tuple(trees)
        return ((value, run.aux) if has_aux else value), gradient

    return call


def grad(f: Callable, argnums: int | tuple = 0, has_aux: bool = False) -> Callable:
    """The gradient of a scalar function; with `has_aux` the pair (gradient, aux).

    Parameters and errors are those of `value_and_grad`.

    Examples
    --------
    >>> grad(grad(lambda x: x * x * x))(2.0)
    np.float64(12.0)
    """
    both = value_and_grad(f, argnums, has_aux)

    def call(*args: Any, **options: Any) -> Any:
        value, gradient = both(*args, **options)
        return (gradient, value[1]) if has_aux else gradient

    return call


def vjp(f: Callable, *args: Any) -> tuple[Any, Callable]:
    """Value of f, and the function that pulls a cotangent back to its arguments.

    Parameters
    ----------
    f : callable
        Trees of arrays to a tree of arrays.
    *args : trees of arrays

    Returns
    -------
    out : tree
    pullback : callable
        ``pullback(g) -> tuple of trees``, one an argument; g has the tree of out. It may be called
        any number of times.

    Examples
    --------
    >>> import numpy as np
    >>> out, pullback = vjp(lambda x, y: x * y, np.array([1.0, 2.0]), np.array([3.0, 4.0]))
    >>> pullback(np.array([1.0, 10.0]))
    (array([ 3., 40.]), array([ 1., 20.]))
    """
    run = _Run("vjp", f, args, tuple(range(len(args))), False)

    def pullback(g: Any) -> tuple:
        like = tree_unflatten(run.shape, run.flat)
        flat = _matched(g, like, "pullback: g has {} leaves, needed the tree of the output")
        pairs = zip(flat, run.flat, strict=True)
        flat = [checked(x, raw(o), "pullback: g") for x, o in pairs]
        return tuple(run.pull(flat, free=False))

    return run.value(), pullback


def jvp(f: Callable, primals: tuple, tangents: tuple) -> tuple[Any, Any]:
    """Value of f, and its derivative along a direction, in one forward pass.

    Parameters
    ----------
    f : callable
        Trees of arrays to a tree of arrays.
    primals, tangents : tuples of trees
        Arguments, and a direction for each: same trees, shapes and dtypes.

    Returns
    -------
    out, tangent_out : trees

    Examples
    --------
    >>> jvp(lambda x: x * x, (3.0,), (1.0,))
    (np.float64(9.0), np.float64(6.0))
    """
    flat, shape = tree_flatten(tuple(primals))
    said = f"jvp: primals has {len(flat)} leaves, tangents {{}}; needs the same tree"
    directions = _matched(tuple(tangents), tuple(primals), said)
    named = zip(flat, tree_paths(tuple(primals)), strict=True)
    flat = [_array(x, f"jvp: primals{path}") for x, path in named]
    pairs = zip(directions, flat, strict=True)
    directions = [checked(t, raw(x), "jvp: tangent") for t, x in pairs]
    level = new_level(tick)
    LIVE.add(level)
    try:
        pairs = zip(flat, directions, strict=True)
        out = f(*tree_unflatten(shape, [_along(x, t, level) for x, t in pairs]))
    finally:
        LIVE.discard(level)
    leaves, out_shape = tree_flatten(out)
    values = [_settled(_without(o, level)) for o in leaves]
    moved = [_settled(_part(o, level)) for o in leaves]
    return tree_unflatten(out_shape, values), tree_unflatten(out_shape, moved)


def _matched(tree: Any, like: Any, said: str) -> list:
    """Leaves of `tree` in the order of `like`, whose tree it must have; dicts match by key."""
    leaves, shape = tree_flatten(tree)
    if shape == tree_flatten(like)[1]:
        return leaves
    try:
        return tree_flatten(tree_map(lambda _, leaf: leaf, like, tree))[0]
    except ValueError as error:
        raise ValueError(f"{said.format(len(leaves))} ({error})") from None


def _along(x: Any, t: Any, level: int) -> Tensor:
    tangents = dict(x.tangents) if x.__class__ is Dual else {}
    node = x.node if isinstance(x, Tensor) else None
    return dual(raw(x), node, {**tangents, level: t})


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


def hvp(f: Callable, args: tuple, tangents: tuple) -> tuple:
    """Hessian of a scalar function times a direction: the gradient, differentiated forward.

    Parameters
    ----------
    f : callable
    args, tangents : tuples of trees

    Returns
    -------
    tuple of trees, one an argument

    Examples
    --------
    >>> hvp(lambda x: x * x * x, (2.0,), (1.0,))
    (np.float64(12.0),)
    """
    args = tuple(args)
    return jvp(grad(f, argnums=tuple(range(len(args)))), args, tuple(tangents))[1]


def jacobian(f: Callable) -> Callable:
    """Jacobian of a function from one array to one array, shape out.shape + x.shape; row by row.

    Examples
    --------
    >>> import numpy as np
    >>> jacobian(lambda x: x * x)(np.array([1.0, 2.0]))
    array([[2., 0.],
           [0., 4.]])
    """
    def call(x: Any) -> Any:
        out, pullback = vjp(f, x)
        data = raw(out)
        xp = backend_of(data)
        rows = []
        for i in range(data.size):
            one = xp.reshape(xp.astype(xp.arange(data.size) == i, data.dtype), data.shape)
            rows.append(pullback(one)[0])
        shape = (*data.shape, *np.shape(raw(x)))
        if not rows:
            return xp.zeros(shape, dtype=data.dtype)
        ns = namespace(*rows)
        return ns.reshape(ns.stack(rows), shape)

    return call
