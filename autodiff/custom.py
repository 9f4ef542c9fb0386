"""Primitives of the user's own.

What a second derivative does is always said, never guessed:

    composite            `custom` differentiates the composite
    differentiable       `custom` runs the vjp on tensors, so that it records itself
    once_differentiable  the first derivative is there, differentiating it again raises
    custom_vjp           JAX's way: fwd and bwd run on tensors, so that both record themselves
    none of these        recording a backward (``create_graph``) raises
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from autodiff.forward import LIVE
from autodiff.opaque import Opaque, form_chosen
from autodiff.tape import Node, tick
from autodiff.tensor import Dual, Tensor, _tensor, backend_of, raw
from autodiff.tree import tree_flatten, tree_unflatten


def custom(
    name: str,
    forward: Callable,
    vjp: Callable,
    *,
    composite: Callable | None = None,
    differentiable: bool = False,
    labels: tuple[str, ...] = ("x", "y", "z"),
) -> Callable:
    """A primitive of the user's own, over real arrays.

    Parameters
    ----------
    name : str
        For messages.
    forward : callable
        ``forward(*arrays, **options) -> (out, saved)`` over raw arrays; out an array or a tuple of
        arrays, saved a tuple of arrays kept besides inputs and outputs.
    vjp : callable
        ``vjp(g, out, saved, needs, *arrays, **options)`` -> a cotangent for each input, None where
        `needs` is False. Decorated with `once_differentiable` it may be used under
        ``create_graph`` without a composite.
    composite : callable, optional
        The same function written with `namespace`: what forward mode and ``create_graph``
        differentiate.
    differentiable : bool
        The vjp itself uses operators and `namespace` alone and keeps nothing besides inputs and
        outputs, so ``create_graph`` may run it on tensors.
    labels : tuple of str
        Names of the inputs.

    Returns
    -------
    callable
        ``f(*tensors_or_arrays, **options)``.

    Raises
    ------
    RuntimeError
        When it is used where only a composite would do: the message says which.
    ValueError
        In the backward: the vjp returned a wrong number of cotangents, shape or dtype.

    Examples
    --------
    >>> import numpy as np
    >>> from autodiff import grad
    >>> cube = custom("cube", lambda x: (x**3, ()), lambda g, y, saved, needs, x: (3 * g * x * x,))
    >>> grad(lambda x: cube(x).sum())(np.array([1.0, 2.0]))
    array([ 3., 12.])
    """

    def run_composite(values: tuple, options: dict) -> Any:
        return composite(*values, **options)

    through = None if composite is None else run_composite
    once = composite is None and getattr(vjp, "once_differentiable", False)
    prim = (_Once if once else Opaque)(name, labels, forward, vjp, through, differentiable)

    def call(*tensors: Any, **options: Any) -> Any:
        if any(t.__class__ is Dual for t in tensors):
            if composite is None:
                raise RuntimeError(f"{name}: forward mode needs a composite")
            return composite(*tensors, **options)
        if composite is not None and form_chosen() == "composite":
            return composite(*tensors, **options)
        return prim(tensors, options)

    call.__name__ = name
    call.primitive = prim
    return call


# --- a first derivative and no second ---------------------------------------------------------


def once_differentiable(vjp: Callable) -> Callable:
    """Decorator of a vjp for `custom`: its result must not be differentiated again.

    Examples
    --------
    >>> from autodiff import tensor
    >>> @once_differentiable
    ... def pull(g, out, saved, needs, x):
    ...     return (3 * g * x * x,)
    >>> cube = custom("cube", lambda x: (x**3, ()), pull)
    >>> x = tensor([1.0, 2.0], requires_grad=True)
    >>> cube(x).sum().backward(create_graph=True)
    >>> x.grad.sum().backward()
    Traceback (most recent call last):
    RuntimeError: cube: its vjp is once differentiable; the gradient of argument 0 (x) ...
    """

    @wraps(vjp)
    def marked(*args: Any, **options: Any) -> Any:
        return vjp(*args, **options)

    marked.once_differentiable = True
    return marked


class _Once(Opaque):
    """The vjp runs on raw arrays also under ``create_graph``; what it gives ends the tape."""

    def _through_composite(self, g: Any, node: Node) -> tuple:
        parts = g if isinstance(g, tuple) else (g,)
        if any(p.__class__ is Dual and any(k in LIVE for k in p.tangents) for p in parts):
            raise RuntimeError(f"{self.name}: forward mode needs a composite")
        plain = tuple(raw(p) for p in parts)
        view = Node()
        view.edges, view.params = node.edges, node.params
        view.saved = tuple(map(raw, node.saved))
        behind = tuple(p.node for p in parts if isinstance(p, Tensor))
        cotangents = self.vjp(None, plain if node.params.outputs else plain[0], view)
        return tuple(
            None if c is None else _tensor(c, _end(self, i, c, behind + node.edges))
            for i, c in enumerate(cotangents)
        )


class _End:
    """Stands where the primitive of a gradient would, and refuses to go on."""

    def __init__(self, form: Opaque, index: int):
        self.name, self.form, self.index = form.name, form, index

    def label(self, position: int, inputs: int) -> str:
        return "input"

    def vjp(self, xp: Any, g: Any, node: Node) -> tuple:
        raise RuntimeError(
            f"{self.name}: its vjp is once differentiable; the gradient of "
            f"{self.form.label(self.index, 99)} cannot be differentiated again, which needs a "
            "composite or a vjp declared differentiable"
        )


def _end(form: Opaque, index: int, like: Any, edges: tuple) -> Node:
    node = Node()
    node.prim = _End(form, index)
    node.edges = edges
    node.saved, node.params = (), None
    node.shape, node.dtype = like.shape, like.dtype
    node.seq = tick()
    return node


# --- JAX's way --------------------------------------------------------------------------------


class custom_vjp:  # noqa: N801  a decorator, spelt as a function
    """Decorator: a function whose reverse mode the user defines; JAX's ``jax.custom_vjp``.

    ``f.defvjp(fwd, bwd)``: fwd takes what f takes and returns (out, residuals), bwd takes
    (residuals, cotangent of out) and returns a cotangent for each argument, None for zero. Both are
    written with `namespace`; a second derivative differentiates them, and not f. Arguments, out and
    residuals are trees. Forward mode raises, as in JAX.

    Examples
    --------
    >>> import numpy as np
    >>> from autodiff import grad
    >>> @custom_vjp
    ... def rounded(x):
    ...     return np.round(x)
    >>> rounded.defvjp(lambda x: (np.round(x), None), lambda _, g: (g,))   # straight through
    >>> grad(lambda x: (rounded(x) * x).sum())(np.array([1.2, 2.9]))
    array([2.2, 5.9])
    """

    def __init__(self, f: Callable):
        self.f, self.name = f, getattr(f, "__name__", "custom_vjp")
        self.__doc__ = f.__doc__ or self.__doc__
        self.__name__ = self.name
        self.fwd: Callable | None = None

    def defvjp(self, fwd: Callable, bwd: Callable) -> None:
        """Set the pair that reverse mode uses."""
        self.fwd, self.bwd = fwd, bwd

    def __call__(self, *args: Any) -> Any:
        flat, shape = tree_flatten(args)
        if not any(isinstance(x, Tensor) for x in flat):
            return self.f(*args)
        if self.fwd is None:
            raise RuntimeError(f"{self.name}: no derivative yet; call {self.name}.defvjp(fwd, bwd)")
        if any(x.__class__ is Dual for x in flat):
            raise RuntimeError(f"{self.name}: custom_vjp defines reverse mode; forward mode has none")
        form = _Rule(self, shape)
        out = form(tuple(flat), {})
        return tree_unflatten(form.out_shape, out)


class _Rule(Opaque):
    """One call of a `custom_vjp`."""

    def __init__(self, owner: custom_vjp, shape: Any):
        # forward and pull are methods: as attributes they would hold this object in a cycle.
        self.name, self.labels, self.composite, self.differentiable = owner.name, (), None, False
        self.owner, self.shape = owner, shape
        self.out_shape = self.kept_shape = None

    def forward(self, *flat: Any) -> tuple:
        out, kept = self.owner.fwd(*tree_unflatten(self.shape, flat))
        leaves, self.out_shape = tree_flatten(out)
        extra, self.kept_shape = tree_flatten(kept)
        return tuple(leaves), tuple(extra)

    def pull(self, g: tuple, out: tuple, extra: tuple, needs: tuple, *flat: Any) -> tuple:
        return self._cotangents(tree_unflatten(self.kept_shape, extra), g, out, flat)

    def _through_composite(self, g: Any, node: Node) -> tuple:
        flat = node.saved[: len(node.edges)]
        out, kept = self.owner.fwd(*tree_unflatten(self.shape, flat))
        return self._cotangents(kept, g, tree_flatten(out)[0], flat)

    def _cotangents(self, kept: Any, g: Any, out: Any, flat: Any) -> tuple:
        pairs = zip(g, out, strict=True)
        g = [backend_of(raw(o)).zeros_like(raw(o)) if p is None else p for p, o in pairs]
        found = self.owner.bwd(kept, tree_unflatten(self.out_shape, g))
        args = tree_unflatten(self.shape, flat)
        if not isinstance(found, tuple) or len(found) != len(args):
            got = f"{len(found)} cotangents" if isinstance(found, tuple) else type(found).__name__
            raise ValueError(
                f"{self.name}: bwd returned {got}, needed a tuple of {len(args)}, one an argument"
            )
        cotangents: list = []
        for k, (c, a) in enumerate(zip(found, args, strict=True)):
            leaves, shape = tree_flatten(a)
            if c is None:
                cotangents += [None] * len(leaves)
                continue
            mine, got = tree_flatten(c)
            if got != shape:
                raise ValueError(f"{self.name}: bwd's cotangent of argument {k} has another tree")
            cotangents += mine
        return tuple(cotangents)
