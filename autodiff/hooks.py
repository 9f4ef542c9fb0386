"""Hooks on gradients and on saved values.

Hooks lie beside the graph, keyed by node, so that a graph without hooks pays nothing for them.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from autodiff.tape import Held, Node, saving, tick
from autodiff.tensor import Tensor, _tensor, is_complex, raw

ON: dict[int, dict[int, Callable]] = {}  # node seq -> hooks on its gradient
AFTER: dict[int, dict[int, Callable]] = {}  # leaf seq -> hooks after accumulation


class Handle:
    """What registering a hook returns; `remove` takes the hook off again."""

    def __init__(self, undo: Callable):
        self._undo = undo

    def remove(self) -> None:
        self._undo()


def register_hook(t: Tensor, hook: Callable[[Any], Any]) -> Handle:
    """Call `hook` with the whole gradient of `t` in each backward, before it travels on.

    Parameters
    ----------
    t : Tensor
        A leaf or the result of an operation; must require grad.
    hook : callable
        Gets the gradient (a raw array, a Tensor under ``create_graph``). What it returns replaces
        the gradient, unless that is None. It must not write into what it gets.

    Returns
    -------
    Handle
    """
    _need_node(t, "register_hook")
    node = t.node
    if node.seq not in ON:
        ON[node.seq] = {}
        weakref.finalize(node, ON.pop, node.seq, None)
    row = ON[node.seq]
    key = tick()
    row[key] = hook

    def undo() -> None:
        row.pop(key, None)

    return Handle(undo)


def register_post_accumulate_grad_hook(t: Tensor, hook: Callable[[Tensor], None]) -> Handle:
    """Call ``hook(t)`` as soon as a backward has finished ``t.grad`` of the leaf `t`.

    It runs while the rest of the backward is still to come: a distributed reduction can overlap
    with it, an optimizer can step and free the gradient.
    """
    _need_node(t, "register_post_accumulate_grad_hook")
    if not t.is_leaf:
        raise RuntimeError("register_post_accumulate_grad_hook: needs a leaf; use register_hook")
    key = t.node.seq
    if key not in AFTER:
        AFTER[key] = {}
        weakref.finalize(t.node, AFTER.pop, key, None)
    row = AFTER[key]
    place = tick()
    row[place] = hook

    def undo() -> None:
        row.pop(place, None)
        if not row and AFTER.get(key) is row:
            AFTER.pop(key)

    return Handle(undo)


def _need_node(t: Tensor, name: str) -> None:
    if t.node is None:
        raise RuntimeError(f"{name}: this tensor does not require grad, so no gradient comes")


def run_hooks(node: Node, g: Any) -> Any:
    """The gradient after all hooks of a node."""
    if is_complex(node):
        from autodiff.backward import turned

        return turned(_after_hooks(node, turned(g)))
    return _after_hooks(node, g)


def _after_hooks(node: Node, g: Any) -> Any:
    for hook in tuple(ON[node.seq].values()):
        new = hook(g)
        if new is None:
            continue
        if not hasattr(new, "shape"):
            raise TypeError(f"register_hook: the hook returned a {type(new).__name__}, no array")
        if tuple(new.shape) != tuple(g.shape) or new.dtype != g.dtype:
            raise ValueError(
                f"register_hook: the hook returned {new.dtype}{tuple(new.shape)}, "
                f"needed {g.dtype}{tuple(g.shape)}"
            )
        if isinstance(g, Tensor) and not isinstance(new, Tensor):
            new = _tensor(new, None)
        g = new if isinstance(g, Tensor) else raw(new)
    return g


class _Packed(Held):
    def __init__(self, saved: tuple, pack: Callable, unpack: Callable):
        # Python numbers and lifted values have no memory worth packing.
        self.plain = [isinstance(v, Tensor) or not hasattr(v, "shape") for v in saved]
        pairs = zip(saved, self.plain, strict=True)
        self.kept = [v if plain else pack(v) for v, plain in pairs]
        self.unpack = unpack

    def values(self, node: Node) -> tuple:
        pairs = zip(self.kept, self.plain, strict=True)
        return tuple([v if plain else self.unpack(v) for v, plain in pairs])


def saved_tensors_hooks(pack: Callable[[Any], Any], unpack: Callable[[Any], Any]) -> Any:
    """Context: the tape keeps ``pack(array)`` of every array it saves, and fetches by `unpack`.

    Parameters
    ----------
    pack : callable
        Raw array -> anything: a file name, a compressed copy.
    unpack : callable
        What `pack` gave -> raw array.

    Examples
    --------
    >>> from autodiff import tensor
    >>> x = tensor([1.0, 2.0], requires_grad=True)
    >>> kept = []
    >>> with saved_tensors_hooks(lambda a: kept.append(a) or len(kept) - 1, lambda i: kept[i]):
    ...     y = (x * x).sum()
    >>> y.backward()
    >>> len(kept), x.grad
    (2, array([2., 4.]))
    """

    def saver(node: Node, saved: tuple) -> Held | tuple:
        return saved if all(v is None for v in saved) else _Packed(saved, pack, unpack)

    return saving(saver)
