"""Root-mean-square normalisation.

Source: Zhang & Sennrich 2019 (1910.07467) Eq. 4; as LLaMA (2302.13971) uses it, before each sublayer.

    r = sqrt(mean_j x_j^2 + eps)
    y = (x / r) w
    dy / dx = (1 / r) (I - x x^T / (d r^2)) at w = 1, for any eps;   dw = sum over rows of g x / r

Notation
    x[*B d], w -> weight[d]; every row of d channels has its own r.

Conventions
    C1  eps inside the root, added to the mean of squares. Outside (x / (rms + eps)) it is another function;
        the paper has none.
    C2  No mean is subtracted and there is no bias.
    C3  Half-precision rows are normalised in float32, cast back, then multiplied by w, as LLaMA does: a square
        above 65504 is infinite in float16.
    C4  y = (x / r) w. Gemma stores w - 1.

Laws
    L1 equal_magnitudes                     L2 a_scale_leaves_only_its_sign
    L3 the_norm_is_root_d                   L4 a_row_of_zeros_is_zero
    L5 a_row_is_its_own                     L6 gradient_is_the_closed_form
    L7 gradient_is_orthogonal_to_the_row    L8 half_precision_does_not_overflow
"""

from __future__ import annotations

from autodiff import fusable, namespace
from ref.spec import bind, spec
from ref.spec.signature import dtype_name

SIGNATURE = "x[*B d], weight[d] -> [*B d]"


@spec("nn.rms_norm", SIGNATURE, grads=("x", "weight"))
@fusable("nn.rms_norm", tensors=("x", "weight"))
def rms_norm(x, weight, *, eps=1e-5):
    """Each row divided by its root mean square, then scaled a channel at a time.

    Parameters
    ----------
    x : float[*B d]
    weight : float[d]
    eps : float
        Added to the mean of squares.

    Returns
    -------
    float[*B d]

    Raises
    ------
    ValueError
        `weight` has another number of channels, or eps < 0.
    TypeError
        An array is not float, or the dtypes or backends differ.

    Complexity: 4 B d operations.

    >>> import numpy as np
    >>> rms_norm(np.array([3.0, -3.0]), np.array([1.0, 2.0]), eps=0.0)
    array([ 1., -2.])
    """
    bind("rms_norm", SIGNATURE, x=x, weight=weight)
    check_eps("rms_norm", eps)
    xp = namespace(x, weight)
    wide = widened(xp, x)
    r = xp.sqrt(mean(xp, wide * wide) + eps)
    return xp.astype(wide / r, x.dtype) * weight


def check_eps(function, eps):
    """ValueError unless eps is a number >= 0 (C1: it stands under a root)."""
    if not eps >= 0:
        raise ValueError(f"{function}: eps={eps}; needed a number >= 0")


def widened(xp, x):
    """`x` in at least float32 (C3)."""
    return xp.astype(x, xp.float32) if dtype_name(x.dtype) in ("float16", "bfloat16") else x


def mean(xp, x):
    """Mean over the last axis, kept; of no channels, 0."""
    return xp.sum(x, axis=-1, keepdims=True) / max(x.shape[-1], 1)
