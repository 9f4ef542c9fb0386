"""Batch, mini-batch and stochastic gradient descent on least squares.

Source: Zhao 2025, Mathematical Foundations of Reinforcement Learning, sec. 6.4-6.5; Bottou, Curtis & Nocedal 2018
(1606.04838) sec. 3.

    J(W) = (1 / 2n) sum_i |x_i W - y_i|^2
    W_{k+1} = W_k - a_k (1 / m) sum_{i in batch k} x_i^T (x_i W_k - y_i)

Notation
    x_i -> X[n d], y_i -> Y[n o], W_1 -> start[d o], a_k -> rates[k], batch k -> batches[k m],
    W_{k+1} -> the result at k.

Conventions
    C1  batches says who is drawn, so a run is a function of it: m = 1 is SGD, all n in every row is batch descent
        (BGD), what lies between is MBGD. A point drawn twice counts twice.
    C2  The gradient is divided by the batch's size m, so that a_k does not depend on it.
    C3  X of ones (d = 1) is the estimation of the mean of the y_i: SGD with a_k = 1 / k is the running mean of what was
        drawn, BGD with a_1 = 1 the mean at once.
    C4  Over all draws without replacement a mini-batch gradient has the full gradient for its mean and the variance
        s^2 / m (n - m) / (n - 1); with replacement s^2 / m.

Laws
    L1 running_mean_of_what_was_drawn        L2 batch_descent_is_a_matrix_power
    L3 all_subsets_average_to_the_gradient   L4 all_draws_with_replacement
    L5 a_sum_over_the_batch_in_fractions     L6 names_of_points_are_immaterial
    L7 continues_from_where_it_stopped
"""

from __future__ import annotations

from autodiff import namespace
from ref.spec import bind, spec

SIGNATURE = "X[n d], Y[n o], start[d o], rates[k], batches:int[k m] -> [k d o]"


@spec("optim.minibatch_descent", SIGNATURE)
def minibatch_descent(X, Y, start, rates, batches):
    """The weights after each step.

    Parameters
    ----------
    X : float[n d]
        Inputs, a row a point.
    Y : float[n o]
        Targets.
    start : float[d o]
    rates : float[k]
    batches : int[k m]
        Points of each step, 0 .. n - 1.

    Returns
    -------
    float[k d o]

    Raises
    ------
    ValueError
        Axes that do not agree, batches of no points, or a point that is not there.
    TypeError
        An array of another kind, or dtypes or backends differ.

    Complexity: 4 m d o operations a step.

    >>> import numpy as np
    >>> X, Y = np.ones((2, 1)), np.array([[2.0], [6.0]])
    >>> minibatch_descent(X, Y, np.zeros((1, 1)), np.array([1.0, 0.5]), np.array([[0], [1]]))[:, 0, 0]
    array([2., 4.])
    """
    sizes = bind("minibatch_descent", SIGNATURE, X=X, Y=Y, start=start, rates=rates, batches=batches)
    xp = namespace(X, Y, start, rates, batches)
    if sizes["k"] and not sizes["m"]:
        raise ValueError("minibatch_descent: batches has m=0; needed at least one point a step")
    if bool(xp.any((batches < 0) | (batches >= sizes["n"]))):
        raise ValueError(f"minibatch_descent: batches has a point outside 0 .. {sizes['n'] - 1}; X has n={sizes['n']}")
    W, found = start, []
    for k in range(sizes["k"]):
        x, y = xp.take(X, batches[k, :], axis=0), xp.take(Y, batches[k, :], axis=0)
        W = W - (rates[k] / sizes["m"]) * (xp.matrix_transpose(x) @ (x @ W - y))
        found.append(W)
    return xp.stack(found) if found else xp.zeros((0, *start.shape), dtype=start.dtype)
