"""The gradient of a checkpointed chain with dropout.

Source: Chen et al. 2016 (1604.06174) sec. 3 and Algorithm 1.

    x_{i+1} = drop_i(tanh(x_i W_{i mod L})),  i = 0 .. n - 1,  cut into segments of lengths l_1 .. l_K

    forward:  keep the input of each segment, drop the rest
    backward: last segment to first: run it again from its input, then pull the cotangent through it

Notation
    x_0 -> x[B d], W -> w[L d d], the cotangent of x_n -> g[B d], l -> lengths; n = sum(l) layers share L weights.

Conventions
    C1  The mask of layer i is `nn.keep_mask` of (seed, i B d + position): a pure function, so the second run drops
        what the first dropped. A generator that simply goes on gives the gradient of another function.
    C2  A weight's gradient is the sum over all layers that use it, added in the order of the plain run, whatever
        the segments are: that is what makes the bits equal.

Laws
    L1 any_partition_has_the_bits_of_the_plain_run   L2 without_dropout_it_is_the_chain_rule
    L3 one_layer_in_closed_form                      L4 dropped_at_the_end_is_dead
    L5 linear_in_the_cotangent
"""

from __future__ import annotations

from autodiff import checkpoint_sequential, namespace, vjp
from ref.nn.keep_mask import keep_mask
from ref.spec import bind, spec

SIGNATURE = "x[B d], w[L d d], g[B d], lengths:tree -> dx[B d], dw[L d d]"


@spec("training.checkpointed_gradient", SIGNATURE)
def checkpointed_gradient(x, w, g, lengths, *, rate=0.0, seed=0):
    """Cotangents of x and w under g, with the memory of the longest segment and the segments' inputs.

    Parameters
    ----------
    x : float[B d]
    w : float[L d d]
        Weights; layer i uses w[i mod L].
    g : float[B d]
        Cotangent of the chain's output.
    lengths : sequence of int
        Layers of each segment, each at least 1 (`training.checkpoint_segments`).
    rate : float
        Probability of being dropped, 0 <= rate < 1.
    seed : int
        Key of the masks.

    Returns
    -------
    (float[B d], float[L d d])

    Raises
    ------
    ValueError
        Axes disagree, L = 0, no lengths or one < 1, or rate or seed out of range.
    TypeError
        An array is not float, or dtypes or backends differ.

    Complexity: 2 n - l_K layers forward, n backward; max_j (j + l_j - 1) layers' values are held.

    >>> import numpy as np
    >>> x, w, g = np.zeros((1, 1)), np.full((1, 1, 1), 0.5), np.ones((1, 1))
    >>> checkpointed_gradient(x, w, g, [2, 1])
    (array([[0.125]]), array([[[0.]]]))
    """
    dims = bind("checkpointed_gradient", SIGNATURE, x=x, w=w, g=g)
    L, size = dims["L"], dims["B"] * dims["d"]
    if L == 0:
        raise ValueError("checkpointed_gradient: w has L=0 weights; needed at least 1")
    if not len(lengths) or min(lengths) < 1:
        raise ValueError(f"checkpointed_gradient: lengths={lengths}; needed positive lengths, at least one")
    if not 0 <= rate < 1:
        raise ValueError(f"checkpointed_gradient: rate={rate}; needed 0 <= rate < 1")
    xp = namespace(x, w, g)
    positions = xp.reshape(xp.arange(size), x.shape)

    def layer(i, w):
        def run(x):
            y = namespace(x).tanh(x @ w[i % L, ...])
            if rate == 0:
                return y
            keep = keep_mask(positions + i * size, seed=seed, rate=rate)
            return namespace(x).where(keep, y * (1 / (1 - rate)), 0.0)

        return run

    def chain(x, w):
        return checkpoint_sequential([layer(i, w) for i in range(sum(lengths))], x, lengths)

    _, pull = vjp(chain, x, w)
    return pull(g)
