"""Tensor's methods under torch's names: one table, the names that differ written once.

What a name means is torch's, but for these differences, all in NumPy's favour:

  N1  max, min and sort along an axis give the values alone; argmax and argsort give the places.
  N2  var and std divide by n; ``correction=1`` (or ``unbiased=True``) gives torch's default.
  N3  Comparisons, argmax and argsort give raw arrays, and so does ``grad``; ``data`` is the array.
  N4  ``size`` is the number of values, as in NumPy, and ``size()`` the shape, as in torch.
  N5  view copies where the memory cannot be viewed; torch raises.
  N6  In place there are zero_, fill_, copy_, add_, sub_, mul_, div_: each refuses where a gradient
      would be lost.
  N7  ``dim`` and ``keepdim`` may be written ``axis`` and ``keepdims``.

The functions of torch.autograd take their arguments in another order here:

    torch.autograd.grad(outputs, inputs, grad_outputs)    gradients, the same
    functional.jacobian(f, inputs)                        jacobian(f)(*inputs)
    functional.hessian(f, inputs)                         hessian(f)(*inputs)
    functional.vjp(f, inputs, v) -> (out, vjp)            out, pullback = vjp(f, *inputs); pullback(v)
    functional.jvp(f, inputs, v) -> (out, jvp)            jvp(f, inputs, v), tuples both
    functional.hvp(f, inputs, v) -> (out, hvp)            hvp(f, inputs, v), the product alone
    torch.utils.checkpoint.checkpoint(f, *args)           checkpoint, the same
    torch.autograd.detect_anomaly()                       debug()
"""

from __future__ import annotations

from collections.abc import Callable

from autodiff import ops
from autodiff import tensor_methods as made
from autodiff.hooks import register_hook, register_post_accumulate_grad_hook
from autodiff.tensor import backend_of, is_complex, is_real, raw
from autodiff.tensor_methods import reduction, sizes

METHODS: dict[str, Callable] = {
    # shapes
    "dim": lambda t: t.ndim,
    "numel": lambda t: int(t.size),
    "view": lambda t, *shape: ops.reshape(t, sizes(shape)),
    "reshape": lambda t, *shape: ops.reshape(t, sizes(shape)),
    "view_as": lambda t, other: ops.reshape(t, other.shape),
    "reshape_as": lambda t, other: ops.reshape(t, other.shape),
    "flatten": made.flatten,
    "ravel": made.flatten,
    "permute": lambda t, *axes: ops.permute_dims(t, sizes(axes)),
    "transpose": made.swapped,
    "swapaxes": made.swapped,
    "t": lambda t: made.swapped(t, 0, 1) if t.ndim == 2 else t,
    "movedim": lambda t, source, destination: ops.moveaxis(t, source, destination),
    "squeeze": made.squeeze,
    "unsqueeze": lambda t, dim: ops.expand_dims(t, axis=dim),
    "expand": made.expand,
    "expand_as": lambda t, other: ops.broadcast_to(t, other.shape),
    "repeat": lambda t, *counts: ops.tile(t, sizes(counts)),
    "tile": lambda t, *counts: ops.tile(t, sizes(counts)),
    "repeat_interleave": lambda t, repeats, dim=None: ops.repeat(t, raw(repeats), axis=dim),
    "flip": lambda t, *dims: ops.flip(t, axis=sizes(dims)),
    "roll": lambda t, shifts, dims=None: (
        ops.roll(t, shifts, axis=dims)
        if dims is not None
        else ops.reshape(ops.roll(ops.reshape(t, (-1,)), shifts, axis=0), t.shape)
    ),
    "contiguous": lambda t: t,
    "narrow": lambda t, dim, start, length: made.along(t, dim, slice(start, start + length)),
    "select": lambda t, dim, index: made.along(t, dim, index),
    "unbind": lambda t, dim=0: ops.unstack(t, axis=dim),
    "split": made.split,
    "chunk": made.chunk,
    "tril": lambda t, diagonal=0: ops.tril(t, k=diagonal),
    "triu": lambda t, diagonal=0: ops.triu(t, k=diagonal),
    # reductions
    "amax": reduction(ops.max),
    "amin": reduction(ops.min),
    "argmax": reduction(made.flat("argmax")),
    "argmin": reduction(made.flat("argmin")),
    "all": reduction(made.flat("all")),
    "any": reduction(made.flat("any")),
    "logsumexp": reduction(ops.logsumexp),
    "norm": made.norm,
    "softmax": lambda t, dim=-1: ops.exp(made.log_softmax(t, dim)),
    "log_softmax": made.log_softmax,
    "cumsum": lambda t, dim: ops.cumulative_sum(t, axis=dim),
    "sort": lambda t, dim=-1, descending=False: ops.sort(t, axis=dim, descending=descending),
    "argsort": lambda t, dim=-1, descending=False: backend_of(t.data).argsort(
        t.data, axis=dim, descending=descending
    ),
    **{k: reduction(getattr(ops, k)) for k in ("sum", "mean", "prod", "max", "min", "var", "std")},
    # elementwise
    "neg": lambda t: -t,
    "add": lambda t, other, alpha=1: t + (other if alpha == 1 else other * alpha),
    "sub": lambda t, other, alpha=1: t - (other if alpha == 1 else other * alpha),
    "mul": lambda t, other: t * other,
    "div": lambda t, other: t / other,
    "clamp": lambda t, min=None, max=None: ops.clip(t, min, max),
    "clip": lambda t, min=None, max=None: ops.clip(t, min, max),
    "relu": lambda t: ops.where(t.data > 0, t, 0.0),
    "rsqrt": lambda t: 1.0 / ops.sqrt(t),
    "lerp": lambda t, end, weight: t + (end - t) * weight,
    "where": lambda t, condition, other: ops.where(raw(condition), t, other),
    "masked_fill": lambda t, mask, value: ops.where(raw(mask), value, t),
    "isnan": lambda t: backend_of(t.data).isnan(t.data),
    "isinf": lambda t: backend_of(t.data).isinf(t.data),
    "isfinite": lambda t: backend_of(t.data).isfinite(t.data),
    # places
    "gather": made.gather,
    "take_along_dim": lambda t, indices, dim=-1: ops.take_along_axis(t, indices, axis=dim),
    "scatter_add": made.scatter_add,
    "index_select": lambda t, dim, index: ops.take(t, raw(index), axis=dim),
    "index_add": made.index_add,
    "masked_select": lambda t, mask: t[raw(mask)],
    # products
    "mm": made.product("mm", 2, 2),
    "mv": made.product("mv", 2, 1),
    "bmm": made.product("bmm", 3, 3),
    "dot": made.product("dot", 1, 1),
    "outer": lambda t, other: ops.outer(t, other),
    # dtypes and memory
    "float": made.as_dtype("float32"),
    "double": made.as_dtype("float64"),
    "half": made.as_dtype("float16"),
    "long": made.as_dtype("int64"),
    "int": made.as_dtype("int32"),
    "bool": made.as_dtype("bool"),
    "to": made.to,
    "type_as": lambda t, other: ops.astype(t, other.dtype),
    "cpu": lambda t: t,
    "is_complex": is_complex,
    "is_floating_point": lambda t: is_real(t.data),
    "tolist": made.tolist,
    "clone": made.clone,
    "zero_": lambda t: t._write("zero_", Ellipsis, 0),
    "fill_": lambda t, value: t._write("fill_", Ellipsis, value),
    "copy_": lambda t, value: t._write("copy_", Ellipsis, value),
    # the tape
    "detach_": made.detach_,
    "retain_grad": made.retain_grad,
    "register_hook": register_hook,
    "register_post_accumulate_grad_hook": register_post_accumulate_grad_hook,
}
