"""One evaluation of a function with its variables on the tape, and what may leave it.

Nothing leaks: a value goes out with a node only where it leads to nodes from before the transform,
with tangents only where their level still runs, and as a raw array otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from operator import index
from typing import Any

import numpy as np

from autodiff.backward import checked, sweep
from autodiff.forward import LIVE, Lifted, dual
from autodiff.primitive import identity
from autodiff.space import space_of
from autodiff.tape import Node, enable_grad, leaf, tick
from autodiff.tensor import Dual, Tensor, _tensor, backend_of, is_complex, is_real, raw
from autodiff.tree import tree_flatten, tree_map, tree_paths, tree_unflatten

# --- arguments --------------------------------------------------------------------------------


def places(name: str, argnums: int | tuple, args: tuple) -> tuple[int, ...]:
    """Which positional arguments `argnums` names, counted from the front.

    Raises
    ------
    ValueError, TypeError
        `argnums` names an argument that did not arrive, names one twice, or is no integer.
    """
    found = []
    for k in argnums if isinstance(argnums, (tuple, list)) else (argnums,):
        try:
            k = index(k)
        except TypeError:
            raise TypeError(
                f"{name}: argnums is {argnums!r}; needs an int or a tuple of them"
            ) from None
        if not -len(args) <= k < len(args):
            raise ValueError(f"{name}: argnums names argument {k}, {len(args)} arrived")
        found.append(k % len(args))
    if len(set(found)) != len(found):
        raise ValueError(f"{name}: argnums {argnums} names an argument twice")
    return tuple(found)


def chosen(f: Callable, args: tuple, at: tuple[int, ...], options: dict) -> tuple[Callable, tuple]:
    """f as a function of the arguments at `at` alone, and those arguments."""

    def of_chosen(*xs: Any) -> Any:
        full = list(args)
        for k, x in zip(at, xs, strict=True):
            full[k] = x
        return f(*full, **options)

    return of_chosen, tuple(args[k] for k in at)


def numeric(x: Any, name: str) -> Any:
    """A leaf of a differentiated argument: an array or tensor with a gradient."""
    if isinstance(x, (bool, int, float, complex)):
        x = np.asarray(x, dtype=None if isinstance(x, complex) else float)
    if not hasattr(x, "dtype"):
        raise TypeError(f"{name} is a {type(x).__name__}; needs arrays, tensors or floats")
    if not is_real(raw(x)) and not is_complex(x):
        raise TypeError(
            f"{name} has dtype {x.dtype}; gradients need a floating dtype, real or complex"
        )
    return x


def leaves_of(tree: Any, name: str) -> tuple[list, Any]:
    """Leaves of a differentiated argument, each `numeric`, and the shape of its tree."""
    flat, shape = tree_flatten(tree)
    try:
        return [numeric(x, name) for x in flat], shape
    except TypeError:
        for x, path in zip(flat, tree_paths(tree), strict=True):
            numeric(x, f"{name}{path}")  # raises where the first did, and names the leaf
        raise


def matched(tree: Any, like: Any, said: str) -> list:
    """Leaves of `tree` in the order of `like`, whose tree it must have; dicts match by key."""
    leaves, shape = tree_flatten(tree)
    if shape == tree_flatten(like)[1]:
        return leaves
    try:
        return tree_flatten(tree_map(lambda _, leaf: leaf, like, tree))[0]
    except ValueError as error:
        raise ValueError(f"{said.format(len(leaves))} ({error})") from None


def fitting(given: Any, like: Any, flat: list, name: str, said: str) -> list:
    """Leaves of `given`, each `checked` against that of the tree `like`, whose leaves are `flat`."""
    leaves = matched(given, like, said)
    try:
        return [checked(g, raw(x), name) for g, x in zip(leaves, flat, strict=True)]
    except (TypeError, ValueError):
        for g, x, path in zip(leaves, flat, tree_paths(like), strict=True):
            checked(g, raw(x), f"{name}{path}")
        raise


def pair(name: str, out: Any) -> tuple:
    """What a function with has_aux=True returned: (out, aux)."""
    if not isinstance(out, tuple) or len(out) != 2:
        got = f"{len(out)} values" if isinstance(out, tuple) else f"a {type(out).__name__}"
        raise TypeError(f"{name}: f returned {got}; has_aux=True needs the pair (out, aux)")
    return out


def conjugate(tree: Any) -> Any:
    """Every complex leaf of a tree conjugated."""
    from autodiff.ops import conj

    return tree_map(lambda x: conj(x) if is_complex(x) else x, tree)


# --- what is still differentiated -------------------------------------------------------------


def variable(x: Any) -> Tensor:
    """`x` as a variable of its own, linked to what it came from."""
    if isinstance(x, Tensor):
        if x.node is not None:
            return identity(x)
        if x.__class__ is Dual:
            return dual(x.data, leaf(x.data), x.tangents)
        x = x.data
    return _tensor(x, leaf(x))


def settled(x: Any) -> Any:
    """A raw array, unless something outside still differentiates `x`."""
    if not isinstance(x, Tensor) or x.node is not None:
        return x
    if x.__class__ is Dual and any(k in LIVE for k in x.tangents):
        return x
    return x.data


def stripped(x: Any) -> Any:
    """`x` off the tape, tangents kept."""
    if x.__class__ is Dual:
        return settled(dual(x.data, None, {k: stripped(t) for k, t in x.tangents.items()}))
    return raw(x)


def nodes(x: Any) -> Iterator[Node]:
    """Nodes that a value hangs on: its own and those of its live tangents."""
    if isinstance(x, Tensor):
        if x.node is not None:
            yield x.node
        if x.__class__ is Dual:
            for level, t in x.tangents.items():
                if level in LIVE:
                    yield from nodes(t)


def outside(values: list, inside: dict, floor: int) -> tuple[bool, bool]:
    """Whether values lead to nodes from before this transform, and whether to live tangents."""
    stack = [n for v in values for n in nodes(v) if n.seq not in inside]
    forward = any(v.__class__ is Dual for v in values)
    seen = {n.seq for n in stack}
    while stack:
        node = stack.pop()
        if node.seq < floor:
            return True, forward
        edges = node.edges
        if node.saved.__class__ is not tuple and isinstance(node.saved, Lifted):
            forward = True
            edges = (*edges, *[n for v in node.saved.reach() for n in nodes(v)])
        for edge in edges:
            if edge is not None and (seq := edge.seq) not in seen and seq not in inside:
                seen.add(seq)
                stack.append(edge)
    return False, forward


# --- the evaluation ---------------------------------------------------------------------------


class Evaluation:
    """One run of f with its variables on the tape; pulls cotangents back.

    `inner` is an evaluation that f itself pulls through, and that is not outside for its results.
    """

    def __init__(
        self,
        name: str,
        f: Callable,
        args: tuple,
        at: tuple[int, ...],
        has_aux: bool = False,
        inner: Evaluation | None = None,
    ):
        self.floor = tick()
        self.aux = None
        leaves, self.shapes = [], []
        call = list(args)
        given: list = []
        with enable_grad():
            for k in at:
                flat, shape = leaves_of(args[k], f"{name}: argument {k}")
                given += flat
                mine = [variable(x) for x in flat]
                self.shapes.append((shape, len(mine)))
                leaves += mine
                call[k] = tree_unflatten(shape, mine)
            out = f(*call)
        if has_aux:
            out, self.aux = pair(name, out)
        self.leaves = [(v.node.seq, v.data) for v in leaves]
        self.inside = dict.fromkeys((seq for seq, _ in self.leaves), 0)
        self.flat, self.shape = tree_flatten(out)
        since = self.floor
        if inner is not None:
            self.inside |= inner.inside
            since = inner.floor
            given += inner.given
        self.given = given
        # Whether results stay on the tape, and whether they keep tangents.
        self.taped, self.forward = outside([*given, *self.flat], self.inside, since)
        flat, shape = tree_flatten(self.aux)
        if any(isinstance(x, Tensor) for x in flat):
            flat = [self.result(x, *outside([x], self.inside, since)) for x in flat]
            self.aux = tree_unflatten(shape, flat)

    @staticmethod
    def result(x: Any, taped: bool, forward: bool) -> Any:
        if taped:
            return settled(x)
        return stripped(x) if forward else raw(x)

    def value(self) -> Any:
        flat = [self.result(o, self.taped, self.forward) for o in self.flat]
        return tree_unflatten(self.shape, flat)

    def pull(self, cotangents: list, free: bool) -> list:
        """A tree of cotangents for each differentiated argument; None is a zero cotangent."""
        taped = self.taped or any(True for g in cotangents for _ in nodes(g))
        create = taped or self.forward or any(g.__class__ is Dual for g in cotangents)
        seeds = []
        for o, g in zip(self.flat, cotangents, strict=True):
            if g is not None and isinstance(o, Tensor) and o.node is not None:
                if create and not isinstance(g, Tensor):
                    g = _tensor(g, None)
                seeds.append((o.node, g if create else raw(g)))
        found: Any = {}
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
                flat.append(settled(g) if taped else stripped(g))
        trees, start = [], 0
        for shape, count in self.shapes:
            trees.append(tree_unflatten(shape, flat[start : start + count]))
            start += count
        return trees
