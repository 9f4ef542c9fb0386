"""Primitives: what the tape is made of, and how calling one records it.

A primitive is a row: how to compute it on raw arrays, and a rule

    vjp(xp, g, node) -> one cotangent for each input (None where ``node.edges`` is None)

Rules use `xp` and the operators only. In a plain backward `xp` is the backend and everything is a
raw array; under ``create_graph`` `xp` is the tensor namespace and ``g`` and ``node.saved`` are
tensors on their edges, so the same rule records itself. A raw array never stands left of an
operator: write ``g * y``.

``saves[i]`` lists the positions (inputs, then outputs) that the cotangent of input i needs, and
nothing else is kept. `kind` says what forward mode may assume of the tensor inputs:

    "elementwise"   the Jacobian is diagonal, so it is its own transpose: J t is the rule at g = t
    "linear"        linear in the only tensor input: J t = f(t)
    "multilinear"   linear in each: J t is the sum of f with one input replaced by its tangent
    None            J t = d/dg <J^T g, t>, from the rule alone
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from autodiff.tape import SPECIAL, STATE, Node, tick
from autodiff.tensor import Dual, Tensor, _tensor, backend_of, is_real

TABLE: dict[str, Primitive] = {}
SCALARS = frozenset((type(None), bool, int, float, complex))


class Primitive:
    """One row of the table. Called with tensors or raw arrays first, options by keyword."""

    def __init__(
        self,
        name: str,
        vjp: Callable,
        saves: tuple[tuple[int, ...], ...] | str = ((),),
        *,
        forward: Callable | None = None,
        kind: str | None = None,
        jvp: Callable | None = None,
        labels: tuple[str, ...] = ("x", "y", "z"),
    ):
        self.name, self.vjp, self.saves, self.kind, self.jvp = name, vjp, saves, kind, jvp
        self.labels = labels
        self._forward = forward
        self._bound: dict[Any, Callable] = {}
        self._plans: dict[tuple, tuple] = {}

    def bind(self, backend: Any) -> Callable:
        """The function over raw arrays of one backend: by default the backend's own."""
        f = self._forward
        f = getattr(backend, self.name) if f is None else backend.bound(self.name, f)
        return self._bound.setdefault(backend, f)

    def plan(self, needs: tuple[bool, ...]) -> tuple[bool, ...]:
        """Which positions to keep (inputs, then outputs), given which inputs need a cotangent."""
        if self.saves == "others":
            keep = [any(n for j, n in enumerate(needs) if j != i) for i in range(len(needs))]
        else:
            wanted = {k for n, row in zip(needs, self.saves, strict=False) if n for k in row}
            keep = [k in wanted for k in range(max(wanted, default=-1) + 1)]
            # A rule that needs nothing reads nothing; otherwise positions line up.
            keep += [False] * (len(needs) - len(keep) if wanted else 0)
        return self._plans.setdefault(needs, tuple(keep))

    def keep(self, needs: tuple[bool, ...], values: tuple) -> tuple:
        """Of the inputs and outputs what the rule needs; None elsewhere."""
        try:
            plan = self._plans[needs]
        except KeyError:
            plan = self.plan(needs)
        return tuple([v if k else None for v, k in zip(values, plan, strict=False)])

    def label(self, position: int, inputs: int) -> str:
        """Name of a saved value, for messages."""
        if position >= inputs:
            return "output"
        name = self.labels[position] if position < len(self.labels) else "input"
        return f"argument {position} ({name})"

    def __call__(self, *args: Any, **params: Any) -> Any:
        watch = STATE.watch if SPECIAL else None
        if watch is not None:
            args = watch.arguments(self, args)
        raws = []
        edges = []
        backend = None
        tensors = tracked = dual = False
        for a in args:
            if isinstance(a, Tensor):
                tensors = True
                node = a.node
                if node is not None:
                    tracked = True
                if a.__class__ is Dual:
                    dual = True
                a = a.data
                edges.append(node)
            else:
                edges.append(None)
            raws.append(a)
            if a.__class__ not in SCALARS:
                b = backend_of(a)
                if backend is None:
                    backend = b
                elif b is not backend:
                    raise _mixed(self.name, raws)
        if backend is None:
            backend = backend_of(*raws)
        try:
            f = self._bound[backend]
        except KeyError:
            f = self.bind(backend)
        out = f(*raws, **params) if watch is None else watch.run(self, f, raws, params)
        if not tensors:
            return out
        if tracked and SPECIAL and not STATE.grad:
            tracked = False
        if not (tracked or dual):
            return _tensor(out, None)
        if not is_real(out):
            refuse_complex(self.name, out)
            return _tensor(out, None)
        node = None
        if tracked:
            node = record(self, tuple(edges), raws, out, params)
        if dual:
            from autodiff.forward import push

            return push(self, args, params, out, node)
        if node is not None and SPECIAL and STATE.saver is not None:
            node.saved = STATE.saver(node, node.saved)
        return _tensor(out, node)

    def __repr__(self) -> str:
        return f"<primitive {self.name}>"


def record(prim: Any, edges: tuple, raws: list, out: Any, params: Any) -> Node:
    """The node of one result: edges, and of the values what the rule declares."""
    node = Node()
    node.prim = prim
    node.edges = edges
    node.params = params
    node.shape = out.shape
    node.dtype = out.dtype
    node.seq = tick()
    node.saved = prim.keep(tuple([e is not None for e in edges]), (*raws, out))
    return node


def refuse_complex(name: str, out: Any) -> None:
    """A cast to integers ends a gradient on purpose; a complex result would only lose it."""
    if backend_of(out).isdtype(out.dtype, "complex floating"):
        raise TypeError(
            f"{name}: an input requires grad and the result is {out.dtype}; gradients need real "
            "floating dtypes throughout"
        )


def _mixed(name: str, raws: list) -> TypeError:
    try:
        backend_of(*raws)
    except TypeError as error:
        return TypeError(f"{name}: {error}")
    raise AssertionError("unreachable: mixed backends were seen")


def primitive(name: str, saves: tuple | str = ((),), **row: Any) -> Callable:
    """Decorator: registers the rule below it as primitive `name`."""

    def register(vjp: Callable) -> Primitive:
        if name in TABLE:
            raise ValueError(f"primitive: {name!r} is registered already")
        TABLE[name] = Primitive(name, vjp, saves, **row)
        return TABLE[name]

    return register


def cast(xp: Any, x: Any, dtype: Any) -> Any:
    """`x` in another dtype; also for the 0-d scalars that NumPy makes of results."""
    return xp.astype(xp.asarray(x), dtype)


def fit(xp: Any, g: Any, like: Node) -> Any:
    """`g` summed over the axes that broadcasting added or stretched, in the dtype of `like`."""
    shape = like.shape
    if g.shape == shape and g.dtype is like.dtype:
        return g
    if g.shape != shape:
        lead = g.ndim - len(shape)
        ones = (i + lead for i, n in enumerate(shape) if n == 1 and g.shape[i + lead] != 1)
        if axes := (*range(lead), *ones):
            g = xp.sum(g, axis=axes, keepdims=True)
        if lead:
            g = xp.reshape(g, shape)
    if g.dtype != like.dtype:
        g = cast(xp, g, like.dtype)
    return g


@primitive("identity", kind="linear", forward=lambda xp, x: x)
def identity(xp: Any, g: Any, node: Node) -> tuple:
    """A second name for a value: where a transform takes its variable from."""
    return (g,)
