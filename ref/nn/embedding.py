"""Embedding: rows of a table by id.

Source: Bengio et al. 2003 (JMLR 3) sec. 2, the shared matrix C; sums of repeated ids in the gradient as in
Griewank & Walther 2008, the adjoint of a gather.

    y = W[id]                     dW_v = sum over the positions with id = v of g

Notation
    W -> weight[V d], id -> ids[*B].

Conventions
    C1  An id outside 0 .. V - 1 is an error that names it: NumPy would count a negative one from the end,
        JAX would clip.
    C2  No id is special: torch's padding_idx is not here, and no factor sqrt(d) (Vaswani et al. 2017, sec. 3.4).
    C3  Repeated ids add their cotangents, in the order of the positions.

Laws
    L1 every_position_reads_its_row         L2 renumbering_is_invisible
    L3 gradient_adds_up_repeated_ids        L4 gradient_keeps_the_total
"""

from __future__ import annotations

from autodiff import fusable, namespace
from ref.spec import bind, spec

SIGNATURE = "weight[V d], ids:int[*B] -> [*B d]"


@spec("nn.embedding", SIGNATURE, grads=("weight",))
@fusable("nn.embedding", tensors=("weight",))
def embedding(weight, ids):
    """The rows of `weight` that `ids` name.

    Parameters
    ----------
    weight : float[V d]
    ids : int[*B]

    Returns
    -------
    float[*B d]

    Raises
    ------
    ValueError
        An id is out of range, or `weight` has not two axes.
    TypeError
        `weight` is not float or `ids` not int.

    Complexity: B d copies.

    >>> import numpy as np
    >>> embedding(np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([1, 1]))
    array([[3., 4.],
           [3., 4.]])
    """
    dims = bind("embedding", SIGNATURE, weight=weight, ids=ids)
    xp = namespace(weight, ids)
    flat = xp.reshape(ids, (-1,))
    _check_range(xp, flat, dims["V"])
    return xp.reshape(xp.take(weight, flat, axis=0), (*ids.shape, dims["d"]))


def _check_range(xp, ids, V):
    if ids.shape[0]:
        low, high = int(xp.min(ids)), int(xp.max(ids))
        if low < 0 or high >= V:
            bad = low if low < 0 else high
            raise ValueError(f"embedding: ids hold {bad}, weight has V={V} rows; needs 0..{V - 1}")
