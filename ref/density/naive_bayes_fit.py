"""Naive Bayes from data: the frequencies of classes, and of ones in each class.

Source: McCallum & Nigam 1998 Eq. 6 and 7 (with Laplace's prior, a = 1).

    pi_c = N_c / N,   theta_ci = (sum over rows of class c of x_i + a) / (N_c + 2 a)

Notation
    x[N n] of zeros and ones, labels[N]; N_c the rows of class c; a -> smoothing.

Conventions
    C1  2 a below, one a for each value of a bit. a n belongs to the multinomial model.
    C2  The prior is not smoothed: a class without rows has prior 0, and theta 1/2 (also at a = 0).

Laws
    L1 counts_by_loops                      L2 all_ones_is_the_rule_of_succession
    L3 total_probability                    L4 no_other_numbers_fit_better
"""

from __future__ import annotations

import math

from autodiff import namespace
from ref.density.bernoulli import check_binary
from ref.spec import bind, spec

SIGNATURE = "x[N n], labels:int[N] -> prior[classes], theta[classes n]"


@spec("density.naive_bayes_fit", SIGNATURE)
def naive_bayes_fit(x, labels, *, classes, smoothing=1.0):
    """Prior and feature probabilities of `naive_bayes`.

    Parameters
    ----------
    x : float[N n]
        Zeros and ones.
    labels : int[N]
        0 .. classes - 1.
    classes : int
        Number of classes.
    smoothing : float
        Added to the count of ones and to that of zeros.

    Returns
    -------
    prior, theta : float[classes], float[classes n]

    Raises
    ------
    ValueError
        x is not binary or has no rows, a label is out of range, classes < 1, or smoothing < 0.
    TypeError
        x is not float, labels not int, or backends differ.

    Complexity: N classes n multiply-adds.

    >>> import numpy as np
    >>> naive_bayes_fit(np.array([[1.0], [1.0], [0.0]]), np.array([0, 0, 1]), classes=2)
    (array([0.66666667, 0.33333333]), array([[0.75      ],
           [0.33333333]]))
    """
    N = bind("naive_bayes_fit", SIGNATURE, x=x, labels=labels)["N"]
    xp = namespace(x, labels)
    check_binary("naive_bayes_fit", x)
    if N < 1 or classes < 1:
        raise ValueError(f"naive_bayes_fit: x has N={N} rows and classes={classes}; needed at least one of each")
    if not (smoothing >= 0 and math.isfinite(smoothing)):
        raise ValueError(f"naive_bayes_fit: smoothing={smoothing}; needed a finite number >= 0")
    low, high = int(xp.min(labels)), int(xp.max(labels))
    if low < 0 or high >= classes:
        raise ValueError(f"naive_bayes_fit: labels hold {low if low < 0 else high}; needed 0..{classes - 1}")
    member = xp.astype(labels[None, :] == xp.arange(classes)[:, None], x.dtype)  # [classes N]
    count = xp.sum(member, axis=1)
    ones = xp.matmul(member, x) + smoothing
    total = count[:, None] + 2 * smoothing
    theta = xp.where(total > 0, ones, 0.5) / xp.where(total > 0, total, 1.0)
    return count / N, theta
