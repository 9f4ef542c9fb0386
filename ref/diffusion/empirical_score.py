"""Exact score of a finite data set under Gaussian noise.

Source: Karras et al. 2022 (2206.00364) App. B.3, Eq. 57; Vincent 2011 for the density.

    p(x) = mean_i N(x; a y_i, b^2 I)
    grad ln p(x) = (sum_i w_i a y_i - x) / b^2,   w = softmax_i(-|x - a y_i|^2 / (2 b^2))

Notation
    y -> data[n d]; a -> scale, b -> std.

Conventions
    C1  This is what a network that minimises denoising score matching perfectly would learn: a sampler with it returns
        the training data. Generalising is what a network fails to do of it.
    C2  The softmax is shifted by its largest entry: far from all data the nearest point counts, never 0 / 0.

Laws
    L1 one_point                             L2 two_points_are_a_hyperbolic_tangent
    L3 gradient_of_the_log_density           L4 far_away_the_nearest_counts
    L5 repeated_data_change_nothing
"""

from __future__ import annotations

from autodiff import namespace
from ref.spec import bind, spec

SIGNATURE = "x[*B d], data[n d] -> [*B d]"


@spec("diffusion.empirical_score", SIGNATURE, grads=("x",))
def empirical_score(x, data, *, std, scale=1.0):
    """The score at each x.

    Parameters
    ----------
    x : float[*B d]
    data : float[n d]
        At least one point.
    std, scale : float
        b > 0 and a.

    Returns
    -------
    float[*B d]

    Raises
    ------
    ValueError
        No data, widths that differ, or a std that is not positive and finite.
    TypeError
        An array is not float, or dtypes or backends differ.

    Complexity: B n d operations.

    >>> import numpy as np
    >>> empirical_score(np.array([[0.0], [3.0]]), np.array([[1.0]]), std=0.5)
    array([[ 4.],
           [-8.]])
    """
    if not bind("empirical_score", SIGNATURE, x=x, data=data)["n"]:
        raise ValueError("empirical_score: data has n=0 points; needed at least one")
    if not 0 < std < float("inf"):
        raise ValueError(f"empirical_score: std={std}; needed a positive finite number")
    xp = namespace(x, data)
    away = xp.subtract(data * scale, xp.expand_dims(x, axis=-2))
    logits = xp.sum(away * away, axis=-1, keepdims=True) * (-1 / (2 * std * std))
    weights = xp.exp(logits - xp.max(logits, axis=-2, keepdims=True))
    total = xp.sum(weights, axis=-2)
    return xp.sum(weights * away, axis=-2) / (total * (std * std))
