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
    "derived"       J t = d/dg <J^T g, t>, from the rule alone

A row says its `kind` and what it saves, or it is refused; tests/autodiff hold every row of `TABLE`
to every law of the engine, and PRIMITIVES.md lists them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from autodiff.tape import SPECIAL, STATE, Node, tick
from autodiff.tensor import Dual, Tensor, _tensor, backend_of, is_complex, is_real

KINDS = ("elementwise", "linear", "multilinear", "derived")


class Table(dict):
    """Primitives by name. What forward mode and the tape rely on is checked at the door."""

    def __setitem__(self, name: str, row: Primitive) -> None:
        if name in self:
            raise ValueError(f"primitive: {name!r} is registered already")
        if row.kind not in KINDS:
            raise ValueError(
                f"primitive: {name!r} has kind {row.kind!r}; needed one of {', '.join(KINDS)}"
            )
        if row.saves != "others" and not (
            isinstance(row.saves, tuple)
            and all(isinstance(r, tuple) and all(type(k) is int for k in r) for r in row.saves)
        ):
            raise TypeError(
                f"primitive: {name!r} saves {row.saves!r}; needed a tuple of positions for each "
                "input, or 'others'"
            )
        super().__setitem__(name, row)


TABLE = Table()
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
        complex: bool = False,  # noqa: A002  whether the rule holds for complex numbers
    ):
        self.name, self.vjp, self.saves, self.kind, self.jvp = name, vjp, saves, kind, jvp
        self.labels = labels
        self.complex = complex
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
        between = STATE.interceptor if SPECIAL else None
        if between is not None:
            args = between.arguments(self, args)
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
                    raise _mixed(self, raws)
        if backend is None:
            backend = backend_of(*raws)
        try:
            f = self._bound[backend]
        except KeyError:
            f = self.bind(backend)
        out = f(*raws, **params) if between is None else between.run(self, f, raws, params)
        if not tensors:
            return out
        if SPECIAL and STATE.watch is not None:
            STATE.watch.made(self, raws, (out,))
        if tracked and SPECIAL and not STATE.grad:
            tracked = False
        if not (tracked or dual):
            return _tensor(out, None)
        if not self.complex:
            refuse_complex(self.name, *raws, out)
        if not is_real(out) and not is_complex(out):
            return _tensor(out, None)  # a cast to integers ends a gradient on purpose
        node = None
        if tracked:
            node = record(self, tuple(edges), raws, out, params)
            if SPECIAL and STATE.watch is not None:
                STATE.watch.recorded(node)
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


def refuse_complex(name: str, *values: Any) -> None:
    """TypeError when a value is complex: the rule of `name` holds for real numbers alone."""
    for x in values:
        if hasattr(x, "dtype") and is_complex(x):
            raise TypeError(
                f"{name}: got {x.dtype}, and its derivative is known for real numbers alone; "
                "autodiff.rules_complex names what takes complex ones"
            )


def _mixed(prim: Primitive, raws: list) -> TypeError:
    try:
        backend_of(*raws)
    except TypeError as error:
        return TypeError(f"{prim.name}: {prim.label(len(raws) - 1, 99)}: {error}")
    raise AssertionError("unreachable: mixed backends were seen")


def primitive(name: str, saves: tuple | str = ((),), **row: Any) -> Callable:
    """Decorator: registers the rule below it as primitive `name`."""

    def register(vjp: Callable) -> Primitive:
        TABLE[name] = Primitive(name, vjp, saves, **row)
        return TABLE[name]

    return register


def cast(xp: Any, x: Any, dtype: Any) -> Any:
    """`x` in another dtype; also for the 0-d scalars that NumPy makes of results."""
    return xp.astype(xp.asarray(x), dtype)


def conjugated(xp: Any, x: Any) -> Any:
    """`x` conjugated; a real `x` is its own."""
    return xp.conj(x) if is_complex(x) else x


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
        if is_complex(g) and not is_complex(like):
            g = xp.real(g)
        g = cast(xp, g, like.dtype)
    return g


@primitive("identity", kind="linear", forward=lambda xp, x: x)
def identity(xp: Any, g: Any, node: Node) -> tuple:
    """A second name for a value: where a transform takes its variable from."""
    return (g,)
