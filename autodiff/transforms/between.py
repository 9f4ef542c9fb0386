"""Gradients of tensors with respect to tensors, leaves or not, returned and not accumulated."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from autodiff.backward import checked, sweep
from autodiff.hooks import register_hook
from autodiff.space import space_of
from autodiff.tape import enable_grad
from autodiff.tensor import Tensor, _tensor, backend_of, is_complex, raw


def gradients(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    grad_outputs: Any = None,
    *,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    allow_unused: bool = False,
) -> tuple:
    """Sum over the outputs of d(output)/d(input) contracted with its cotangent, for each input.

    torch knows it as ``torch.autograd.grad``. No ``grad`` attribute changes.

    Parameters
    ----------
    outputs, inputs : Tensor or sequence of Tensor
        Results, and tensors that they were made from: leaves, or values in between.
    grad_outputs : array, or sequence of array or None, optional
        A cotangent for each output; None where an output is a single real number.
    retain_graph : bool, optional
        Keep the saved values; by default as `create_graph`.
    create_graph : bool
        Record the backward itself; the gradients are then tensors.
    allow_unused : bool
        Give None for an input that no output depends on, in place of raising.

    Returns
    -------
    tuple of arrays, one an input

    Raises
    ------
    RuntimeError
        An output has no graph, an input is not in it, or the graph was freed.
    ValueError, TypeError
        A cotangent is missing, or has another shape or dtype.

    Examples
    --------
    >>> from autodiff import tensor
    >>> x = tensor([1.0, 2.0], requires_grad=True)
    >>> h = x * x
    >>> gradients((h * h).sum(), [h, x])
    (array([2., 8.]), array([ 4., 32.]))
    """
    outs = list(outputs) if isinstance(outputs, (list, tuple)) else [outputs]
    ins = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
    given = grad_outputs if isinstance(grad_outputs, (list, tuple)) else [grad_outputs]
    given = [None] * len(outs) if grad_outputs is None else list(given)
    if len(given) != len(outs):
        raise ValueError(
            f"gradients: {len(outs)} outputs, {len(given)} grad_outputs; "
            "needs one each"
        )
    for kind, ts in (("output", outs), ("input", ins)):
        for i, t in enumerate(ts):
            if not isinstance(t, Tensor):
                raise TypeError(f"gradients: {kind} {i} is a {type(t).__name__}; needs a Tensor")
            if t.node is None:
                raise RuntimeError(
                    f"gradients: {kind} {i} has no graph; needs one with requires_grad=True"
                )
    seeds = [(t.node, _seed(i, t, g)) for i, (t, g) in enumerate(zip(outs, given, strict=True))]
    free = not (create_graph if retain_graph is None else retain_graph)
    backend = backend_of(*(t.data for t in outs))
    if create_graph:
        seeds = [(n, g if isinstance(g, Tensor) else _tensor(g, None)) for n, g in seeds]
        with enable_grad():
            found = _swept(seeds, space_of(backend), False, ins)
    else:
        found = _swept([(n, raw(g)) for n, g in seeds], backend, free, ins)
    for i, t in enumerate(ins):
        if t.node.seq not in found and not allow_unused:
            raise RuntimeError(
                f"gradients: no output depends on input {i}; allow_unused=True gives None for it"
            )
    return tuple(found.get(t.node.seq) for t in ins)


def _seed(i: int, t: Tensor, g: Any) -> Any:
    if g is not None:
        return checked(g, t.data, f"gradients: grad_outputs {i}")
    if t.data.size != 1 or is_complex(t):
        raise ValueError(
            f"gradients: output {i} is {t.dtype}{t.shape} and needs a cotangent; only a single "
            "real number has 1 as its default"
        )
    return backend_of(t.data).ones_like(t.data)


def _swept(seeds: list, xp: Any, free: bool, ins: list[Tensor]) -> dict:
    """Cotangents by node seq. A sweep stops where it finds one; those on the way are overheard."""
    lowest = min((t.node.seq for t in ins), default=0)
    ends = {t.node.seq: 0 for t in ins if t.is_leaf or t.node.seq == lowest}
    between: dict[int, Any] = {}
    hooks = []
    for t in ins:
        if t.node.seq not in ends:
            hooks.append(register_hook(t, partial(between.__setitem__, t.node.seq)))
    try:
        found = sweep(seeds, xp, free, ends, lowest)
    finally:
        for hook in hooks:
            hook.remove()
    found.update(between)
    for t in ins:
        g = found.get(t.node.seq)
        if g is not None and not isinstance(g, Tensor) and not t.is_leaf:
            # What the sweep took from or passed on to others may be seen by them.
            found[t.node.seq] = backend_of(g).asarray(g, copy=True)
    return found
