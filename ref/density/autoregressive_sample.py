"""Sampling an autoregressive model: bit after bit, each from one uniform number.

Source: ancestral sampling, Bishop 2006 sec. 8.1.2; for NADE, Larochelle & Murray 2011 sec. 2.

    in the order:  x_i = 1 if u_i < sigma(l_i(x_<i)), else 0

Notation
    u[*B n] uniform in [0, 1), l -> conditional(x): logits of all bits, of which that of bit i reads earlier bits alone.

Conventions
    C1  u_i belongs to bit i, whatever the order: another order of visits draws from other numbers nowhere.
    C2  Bits not drawn yet are 0 when the model is asked. It is asked n times: one pass for all bits would give each its
        probability under the zero string.

Laws
    L1 a_grid_of_numbers_has_the_model      L2 independent_bits_are_thresholds
    L3 the_sample_is_its_own_threshold      L4 the_model_is_asked_about_bits
"""

from __future__ import annotations

import operator

from autodiff import namespace
from autodiff.special import sigmoid
from ref.spec import bind, spec

SIGNATURE = "u[*B n] -> x[*B n]"


@spec("density.autoregressive_sample", SIGNATURE)
def autoregressive_sample(u, *, conditional, order=None):
    """Samples of a binary autoregressive model as a function of uniform numbers.

    Parameters
    ----------
    u : float[*B n]
        In [0, 1), independent: `rng.random((B, n))`.
    conditional : callable
        Logits float[*B n] of bits float[*B n].
    order : sequence of int, optional
        The bits as they are to be drawn; 0 .. n - 1 if not given. For MADE, the argsort of degrees[0].

    Returns
    -------
    float[*B n]
        Zeros and ones.

    Raises
    ------
    ValueError
        A number outside [0, 1), an order that is no permutation of the bits, or logits of another shape.
    TypeError
        u is not float.

    Complexity: n calls of the model.

    >>> import numpy as np
    >>> copy_the_first = lambda x: np.stack([0 * x[..., 0], 80 * x[..., 0] - 40], -1)
    >>> autoregressive_sample(np.array([[0.2, 0.5], [0.7, 0.5]]), conditional=copy_the_first)
    array([[1., 1.],
           [0., 0.]])
    """
    n = bind("autoregressive_sample", SIGNATURE, u=u)["n"]
    xp = namespace(u)
    if not bool(xp.all((u >= 0) & (u < 1))):
        raise ValueError("autoregressive_sample: u holds a number outside [0, 1)")
    order = [operator.index(i) for i in (range(n) if order is None else order)]
    if sorted(order) != list(range(n)):
        raise ValueError(f"autoregressive_sample: order={order}; needed a permutation of 0..{n - 1}")
    x = xp.zeros_like(u)
    for i in order:
        logits = conditional(x)
        shape = getattr(logits, "shape", None)
        if shape != u.shape:
            raise ValueError(f"autoregressive_sample: conditional gave shape {shape}; needed {tuple(u.shape)}")
        drawn = xp.astype(u < sigmoid(logits), u.dtype)
        x = xp.where(xp.arange(n) == i, drawn, x)
    return x
