"""Trees of arrays: dicts, lists, tuples, named tuples and dataclasses, nested; None is an empty tree.

Everything else is a leaf. Dicts keep their own order; two dicts match when their keys do.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import reduce
from typing import Any, NamedTuple

import numpy as np

__all__ = [
    *("TreeDef", "tree_flatten", "tree_leaves", "tree_map", "tree_paths", "tree_reduce"),
    *("tree_structure", "tree_unflatten"),
]


class TreeDef(NamedTuple):
    """Shape of a tree: the class that rebuilds it, the names of its children, their shapes."""

    kind: Any
    keys: tuple
    children: tuple


LEAF = TreeDef("leaf", (), ())
_PLAIN = {float, int, np.ndarray}  # most leaves are one of these


def _open(tree: Any) -> tuple[Any, tuple, tuple] | None:
    """(class, keys, children) of an inner tree, None for a leaf."""
    cls = tree.__class__
    if cls in _PLAIN:
        return None
    if tree is None:
        return None.__class__, (), ()
    if isinstance(tree, dict):
        return cls, tuple(tree), tuple(tree.values())
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return cls, tree._fields, tuple(tree)
    if isinstance(tree, (list, tuple)):
        return cls, tuple(range(len(tree))), tuple(tree)
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        keys = tuple(f.name for f in dataclasses.fields(tree))
        return cls, keys, tuple(getattr(tree, k) for k in keys)
    return None


def _close(kind: Any, keys: tuple, children: Iterable) -> Any:
    if kind is None.__class__:
        return None
    if issubclass(kind, defaultdict):
        return kind(None, zip(keys, children, strict=True))
    if issubclass(kind, dict):
        return kind(zip(keys, children, strict=True))
    if hasattr(kind, "_fields"):
        return kind(*children)
    if issubclass(kind, (list, tuple)):
        return kind(children)
    return kind(**dict(zip(keys, children, strict=True)))


def tree_flatten(tree: Any) -> tuple[list, TreeDef]:
    """Leaves from left to right, and the shape that rebuilds the tree.

    Examples
    --------
    >>> leaves, shape = tree_flatten({"w": 1.0, "b": [2.0, None]})
    >>> leaves
    [1.0, 2.0]
    >>> tree_unflatten(shape, [10.0, 20.0])
    {'w': 10.0, 'b': [20.0, None]}
    """
    leaves: list = []
    return leaves, _flatten(tree, leaves)


def _flatten(tree: Any, leaves: list) -> TreeDef:
    inner = _open(tree)
    if inner is None:
        leaves.append(tree)
        return LEAF
    kind, keys, children = inner
    return TreeDef(kind, keys, tuple(_flatten(c, leaves) for c in children))


def tree_unflatten(treedef: TreeDef, leaves: Iterable) -> Any:
    """The tree of shape `treedef` with these leaves; ValueError when their number is wrong."""
    rest = iter(leaves)
    try:
        tree = _unflatten(treedef, rest)
    except (StopIteration, RuntimeError) as short:
        raise ValueError("tree_unflatten: fewer leaves than the tree has") from short
    if next(rest, rest) is not rest:
        raise ValueError("tree_unflatten: more leaves than the tree has")
    return tree


def _unflatten(treedef: TreeDef, rest: Any) -> Any:
    if treedef is LEAF or treedef == LEAF:
        return next(rest)
    return _close(treedef.kind, treedef.keys, [_unflatten(c, rest) for c in treedef.children])


def tree_map(f: Callable, tree: Any, *rest: Any) -> Any:
    """`f` on every leaf, and on the leaves of `rest` in the same places.

    Raises
    ------
    ValueError
        A tree of `rest` has another shape; the message names the place.

    Examples
    --------
    >>> tree_map(lambda a, b: a + b, {"w": 1, "b": (2,)}, {"w": 10, "b": (20,)})
    {'w': 11, 'b': (22,)}
    """
    return _map(f, (tree, *rest), "")


def _map(f: Callable, trees: tuple, path: str) -> Any:
    inner = [_open(t) for t in trees]
    if inner[0] is None:
        if any(i is not None for i in inner):
            raise ValueError(f"tree_map: a leaf meets a subtree at {path or 'the root'}")
        return f(*trees)
    kind, keys, _ = inner[0]
    for other in inner[1:]:
        if other is None or set(other[1]) != set(keys) or len(other[1]) != len(keys):
            got = "a leaf" if other is None else f"keys {list(other[1])}"
            raise ValueError(
                f"tree_map: {got} at {path or 'the root'}, needed the keys {list(keys)}"
            )
    rows = [dict(zip(i[1], i[2], strict=True)) for i in inner]
    children = [_map(f, tuple(r[k] for r in rows), f"{path}[{k!r}]") for k in keys]
    return _close(kind, keys, children)


def tree_leaves(tree: Any) -> list:
    """The leaves from left to right."""
    return tree_flatten(tree)[0]


def tree_structure(tree: Any) -> TreeDef:
    """The shape of a tree, without its leaves."""
    return tree_flatten(tree)[1]


def tree_reduce(f: Callable, tree: Any, *initial: Any) -> Any:
    """The leaves joined by `f` from the left, after `initial` if it is given.

    Examples
    --------
    >>> tree_reduce(lambda a, b: a + b, {"w": 1, "b": [2, 3]}, 10)
    16
    """
    return reduce(f, tree_leaves(tree), *initial)


def tree_paths(tree: Any) -> list[str]:
    """Name of every leaf, as it would be indexed: ``"['layers'][0]['w']"``."""
    inner = _open(tree)
    if inner is None:
        return [""]
    pairs = zip(inner[1], inner[2], strict=True)
    return [f"[{k!r}]{p}" for k, child in pairs for p in tree_paths(child)]
