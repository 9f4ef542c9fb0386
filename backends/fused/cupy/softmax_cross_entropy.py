"""Cross entropy of a softmax on CUDA, a block a row: kernels of cuda/cross_entropy.cu.

Saved: lse in float32. `loss_and_gradient_` writes the gradient over the logits: where the cotangent is known
in advance (1 / the number of tokens) no second array of the logits' size is ever made.
"""

from backends.fused.cupy._rows import flat, is_whole, launch, threads_for
from backends.kernels import device as devices
from backends.kernels.device import storage

__all__ = ["forward", "loss_and_gradient_", "supports", "vjp"]


def supports(logits, targets, *, z_loss=0.0, ignore_index=None, **others):
    """Whether `forward` takes these: float32, float16 or bfloat16 logits, integer targets, at least one class."""
    return (
        not others and storage(logits.dtype) is not None and targets.dtype.kind in "iu"
        and logits.shape[:-1] == targets.shape and logits.shape[-1] > 0 and devices.current().capability >= (8, 0)
    )  # fmt: skip


def forward(logits, targets, *, z_loss=0.0, ignore_index=None):
    """Loss of every position.

    Parameters
    ----------
    logits : float[*B V]
    targets : int[*B]
    z_loss : float
    ignore_index : int, optional

    Returns
    -------
    loss, (lse,) : float[*B], (float32[rows],)

    Raises
    ------
    ValueError
        A target out of range: read back from the device, one number.
    """
    device = devices.current()
    x, values = _values(device, logits, targets, z_loss, ignore_index)
    _go(device, "cross_entropy", x, values)
    return values["loss"].reshape(targets.shape), (values["lse"],)


def vjp(g, out, saved, needs, logits, targets, *, z_loss=0.0, ignore_index=None):
    """Cotangent of the logits."""
    if not needs[0]:
        return (None,)
    device = devices.current()
    x, values = _values(device, logits, targets, z_loss, ignore_index, checked=True)
    dx = device.xp.empty(x.shape, x.dtype)
    g = device.xp.ascontiguousarray(g).reshape(-1)
    values |= {"lse": saved[0], "g": g, "dx": dx, "whole": values["whole"] and is_whole(device, 0, dx)}
    _go(device, "cross_entropy_vjp", x, values)
    return (dx.reshape(logits.shape),)


def loss_and_gradient_(logits, targets, *, scale=1.0, z_loss=0.0, ignore_index=None):
    """Loss of every position; the logits become scale times their gradient.

    Parameters
    ----------
    logits : float[*B V]
        Contiguous; overwritten.
    targets : int[*B]
    scale : float
        Cotangent of every loss.
    z_loss, ignore_index
        As `forward` takes them.

    Returns
    -------
    float[*B]

    Raises
    ------
    ValueError
        The logits are not contiguous, or a target is out of range.
    """
    device = devices.current()
    if not logits.flags.c_contiguous:
        raise ValueError(f"loss_and_gradient_: logits have strides {logits.strides}; needed contiguous, to be written")
    x, values = _values(device, logits, targets, z_loss, ignore_index)
    _go(device, "cross_entropy_both", x, values | {"dx": x, "scale": scale})
    return values["loss"].reshape(targets.shape)


def _values(device, logits, targets, z_loss, ignore_index, checked=False):
    xp, V = device.xp, logits.shape[-1]
    x, targets = flat(xp, logits), xp.ascontiguousarray(targets, dtype="int64").reshape(-1)
    if not checked:
        _check(targets, V, ignore_index)
    n, size = len(x), x.dtype.itemsize
    return x, {
        "logits": x, "targets": targets, "loss": xp.empty((n,), x.dtype), "lse": xp.empty((n,), "float32"),
        "V": V, "threads": threads_for(V, size), "whole": is_whole(device, V * size, x), "z_loss": z_loss,
        "ignored": 0 if ignore_index is None else ignore_index, "ignores": int(ignore_index is not None),
    }  # fmt: skip


def _check(targets, V, ignore_index):
    odd = (targets < 0) | (targets >= V)
    if ignore_index is not None:
        odd &= targets != ignore_index
    if odd.any():
        ignored = "" if ignore_index is None else f" or ignore_index={ignore_index}"
        raise ValueError(f"softmax_cross_entropy: a target is {int(targets[odd][0])}, logits have V={V} classes; needs "
                         f"0..{V - 1}{ignored}")  # fmt: skip


def _go(device, kernel, x, values):
    if len(x):
        threads = values["threads"]
        launch(device, "cross_entropy", "CrossEntropy", kernel, (len(x),), threads, threads // 4, values, x.dtype)
