"""The tape: nodes, the clock that orders them, grad mode, and the record of in-place writes.

A node remembers how one result came about: its primitive, the nodes of its inputs (`edges`, None
where an input needs no gradient) and the raw arrays that the primitive's rule declares. It never
holds the tensor it made, so a graph has no strong cycle and dies with its output.

One clock (`tick`) stamps nodes and in-place writes alike. Nodes are swept from the latest to the
earliest, which is a topological order and the same in every run; and a saved array was changed
after the forward pass exactly when its storage carries a later stamp than the node.
"""

from __future__ import annotations

import threading
import weakref
from _thread import get_ident
from collections.abc import Callable
from contextlib import ContextDecorator
from itertools import count
from typing import Any

tick = count(1).__next__


class Node:
    """One recorded result.

    ``saved`` lines up with the inputs, then the outputs; None where the rule keeps nothing. The
    whole of ``saved`` is None once a backward has freed it, and another class than tuple when the
    values must be fetched first (a `Held`).
    """

    # Created by Node() and filled in place: a Python __init__ would double the time of a small op.
    __slots__ = ("prim", "edges", "saved", "params", "shape", "dtype", "seq", "__weakref__")


class Leaf(Node):
    """Where gradients arrive: `tensor` is a weak reference to the tensor that holds them."""

    __slots__ = ("tensor",)


def leaf(data: Any, tensor: Any = None) -> Leaf:
    node = Leaf()
    node.prim = node.params = None
    node.edges = node.saved = ()
    node.shape = data.shape
    node.dtype = data.dtype
    node.seq = tick()
    node.tensor = _nobody if tensor is None else weakref.ref(tensor)
    return node


def _nobody() -> None:
    return None


# --- modes, one set a thread ------------------------------------------------------------------


class _State(threading.local):
    grad = True
    saver: Callable | None = None  # (node, saved) -> what the node keeps instead
    watch: Any = None  # told of every operation, node and cotangent (see `debug`)
    interceptor: Interceptor | None = None  # stands around every call of a primitive


STATE = _State()
# Threads whose mode is not the default. Empty nearly always, so an op asks one question only.
SPECIAL: set[int] = set()


def _settle() -> None:
    if STATE.grad and STATE.saver is None and STATE.watch is None and STATE.interceptor is None:
        SPECIAL.discard(get_ident())
    else:
        SPECIAL.add(get_ident())


class _Mode(ContextDecorator):
    """Sets one field of this thread's state, and puts the old value back."""

    def __init__(self, field: str, value: Any):
        self.field, self.value, self.before = field, value, []

    def _recreate_cm(self):
        return _Mode(self.field, self.value)

    def __enter__(self):
        self.before.append(getattr(STATE, self.field))
        setattr(STATE, self.field, self.value)
        _settle()
        return self

    def __exit__(self, *error):
        setattr(STATE, self.field, self.before.pop())
        _settle()


def no_grad() -> _Mode:
    """Context or decorator of this thread: operations record nothing."""
    return _Mode("grad", False)


def enable_grad() -> _Mode:
    """Context or decorator of this thread: operations record, also inside `no_grad`."""
    return _Mode("grad", True)


def grad_enabled() -> bool:
    """Whether operations of this thread record."""
    return STATE.grad


def saving(saver: Callable | None) -> _Mode:
    """Context: every node of this thread keeps ``saver(node, saved)`` in place of ``saved``."""
    return _Mode("saver", saver)


def watching(watch: Any) -> _Mode:
    """Context: operations and sweeps of this thread report to `watch`."""
    return _Mode("watch", watch)


TRACES: dict[int, str] = {}  # node seq -> where its forward was called, in debug mode


def called_at(node: Node) -> str:
    """The end of a message: where the forward was called, if that is known."""
    where = TRACES.get(node.seq)
    return "" if where is None else f"; its forward was called at\n{where}"


class Interceptor:
    """Stands around the primitives called in a block; several nest, `outer` being the next one out."""

    outer: Interceptor | None = None

    def arguments(self, prim: Any, args: tuple) -> tuple:
        """What the primitive is called with instead."""
        return args if self.outer is None else self.outer.arguments(prim, args)

    def run(self, prim: Any, f: Callable, raws: Any, params: dict) -> Any:
        """What ``f(*raws, **params)`` returns, or is taken to return."""
        return f(*raws, **params) if self.outer is None else self.outer.run(prim, f, raws, params)

    def again(self) -> Interceptor | None:
        """The interceptor under which a checkpoint made here is run again."""
        return None if self.outer is None else self.outer.again()


def intercepting(interceptor: Interceptor | None) -> _Mode:
    """Context: `interceptor` stands around every call of a primitive of this thread."""
    return _Mode("interceptor", interceptor)


# --- saved values that are not plainly there --------------------------------------------------


class Held:
    """Saved values that must be fetched: packed by hooks, dropped by a checkpoint, or lifted."""

    def values(self, node: Node) -> tuple:
        """What the node saved; forward-mode tangents, where there were any, still attached."""
        raise NotImplementedError

    def without_tangents(self, node: Node) -> tuple:
        """The same for a sweep over raw arrays, where tangents would be dropped."""
        return self.values(node)

    def arrays(self) -> list:
        """Arrays that this object keeps alive."""
        return []


# --- in-place writes --------------------------------------------------------------------------


class _Writes:
    """When each storage was last written through a tensor, and how often (its version)."""

    def __init__(self):
        self.last = 0
        self.stamps: dict[int, tuple[int, int, Any]] = {}

    def stamp(self, array: Any) -> None:
        store = storage(array)
        key = id(store)
        version = self.version(array) + 1
        forget = weakref.ref(store, lambda _, key=key: self.stamps.pop(key, None))
        self.last = tick()
        self.stamps[key] = (self.last, version, forget)

    def version(self, array: Any) -> int:
        return self.stamps.get(id(storage(array)), (0, 0, None))[1]

    def check(self, node: Node, saved: tuple) -> None:
        for i, value in enumerate(saved):
            stamp, version, _ = self.stamps.get(id(storage(value)), (0, 0, None))
            if stamp > node.seq:
                raise RuntimeError(
                    f"backward of {node.prim.name}: its saved {node.prim.label(i, len(node.edges))}"
                    f" of shape {tuple(value.shape)} was changed in place after the forward pass "
                    f"(now at version {version}); write before the forward or after the backward"
                    f"{called_at(node)}"
                )
        for name, value in _options(node):
            stamp, version, _ = self.stamps.get(id(storage(value)), (0, 0, None))
            if stamp > node.seq:
                raise RuntimeError(
                    f"backward of {node.prim.name}: its option {name} of shape "
                    f"{tuple(value.shape)} was changed in place after the forward pass (now at "
                    f"version {version}); write before the forward or after the backward"
                    f"{called_at(node)}"
                )


def _options(node: Node) -> list[tuple[str, Any]]:
    """Arrays among the options of a node: indices, labels, masks."""
    params = getattr(node, "params", None)
    params = getattr(params, "options", params)
    if not isinstance(params, dict):
        return []
    rows = [(k, v if isinstance(v, tuple) else (v,)) for k, v in params.items()]
    return [(k, part) for k, parts in rows for part in parts if hasattr(part, "shape")]


WRITES = _Writes()


def storage(array: Any) -> Any:
    """The array that owns the memory: views of one array share it."""
    array = getattr(array, "_array", array)  # array-api-strict wraps a NumPy array
    while (base := getattr(array, "base", None)) is not None and hasattr(base, "shape"):
        array = base
    return array
