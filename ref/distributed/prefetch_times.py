"""When a prefetching loader has each item, and when its consumer does with it.

Source: Baccelli et al. 1992, Synchronization and Linearity, sec. 2.5: two servers with a buffer of finite capacity
between them, in max-plus algebra.

    p_i = max(p_{i-1} + a_i, s_{i-c})       item i is put: it is made, and the item c before it has been taken
    s_i = max(p_i, e_{i-1})                 its use starts: it is there, and the use before has ended
    e_i = s_i + b_i

    without a bound  e_i = max_{k <= i} (a_0 + .. + a_k + b_k + .. + b_i);  a and b constant  e_i = a + i max(a, b) + b

Notation
    a_i -> make[i], b_i -> use[i], c -> capacity, p, s, e -> what comes back.

Conventions
    C1  The loader makes one item more than the queue holds, and waits with it in hand.
    C2  A place is free when its item is taken, not when its use has ended. Where all items take equal times a queue of
        one is as good as any; a longer one evens out times that differ.

Laws
    L1 without_a_bound_it_is_the_longest_path  L2 equal_times_cost_the_slower_of_the_two
    L3 a_queue_that_is_played_says_the_same
"""

from __future__ import annotations

import operator

import numpy as np

from ref.spec import bind, spec

SIGNATURE = "make[N], use[N] -> put[N], start[N], end[N]"


@spec("distributed.prefetch_times", SIGNATURE, backends=("numpy",))
def prefetch_times(make, use, *, capacity=None):
    """Times at which each item is put, its use starts and its use ends.

    Parameters
    ----------
    make, use : float[N]
        Seconds that the loader takes to make item i, and the consumer to use it.
    capacity : int, optional
        Items that the queue holds, at least 1; None is no bound.

    Returns
    -------
    (float[N], float[N], float[N])

    Raises
    ------
    ValueError
        Different lengths, a negative time, or capacity < 1.
    TypeError
        Not float arrays, or capacity is no integer.

    Complexity: O(N).

    >>> import numpy as np
    >>> put, start, end = prefetch_times(np.array([1.0, 1.0, 1.0]), np.array([2.0, 2.0, 2.0]), capacity=1)
    >>> put, start, end
    (array([1., 2., 3.]), array([1., 3., 5.]), array([3., 5., 7.]))
    """
    N = bind("prefetch_times", SIGNATURE, make=make, use=use)["N"]
    c = N + 1 if capacity is None else operator.index(capacity)
    if c < 1 or (N and not min(np.min(make), np.min(use)) >= 0):
        raise ValueError(f"prefetch_times: capacity={capacity}, {N} items; needed capacity >= 1 and times >= 0")
    put, start, end = (np.zeros(N, make.dtype) for _ in range(3))
    for i in range(N):
        put[i] = (put[i - 1] if i else 0) + make[i]
        if i >= c:
            put[i] = max(put[i], start[i - c])
        start[i] = max(put[i], end[i - 1]) if i else put[i]
        end[i] = start[i] + use[i]
    return put, start, end
