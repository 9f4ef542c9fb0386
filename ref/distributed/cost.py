"""Cost of a collective by the alpha-beta-gamma model, in closed form.

Source: Thakur, Rabenseifner & Gropp 2005 (IJHPCA 19:1) sec. 3 and 4; Patarasuk & Yuan 2009 (JPDC 69:2) sec. 4.

    alpha seconds a message, beta a byte sent, gamma a byte combined; a rank sends and receives at the same time
    p = 2^floor(log2 n), l = log2 p, m = ceil(log2 n), q = (n - 1)/n; F = 2 (alpha + S beta) + S gamma if n > p, else 0

    ring all-reduce            2 (n - 1) alpha + 2 q S beta + q S gamma
    recursive doubling         l (alpha + S beta + S gamma) + F
    halving and doubling       2 l alpha + 2 (p - 1)/p S beta + (p - 1)/p S gamma + F
    canonical all-reduce       2 (n - 1) alpha + 2 q S beta + q S gamma
    reduce-scatter             (n - 1) alpha + q S (beta + gamma)           ring and canonical
    all-gather                 (n - 1) alpha + q S beta                     ring; Bruck: m alpha + q S beta
    broadcast                  m (alpha + S beta)                           binomial
                               (m + n - 1) alpha + 2 q S beta               scatter and all-gather
    reduce                     m (alpha + S beta + S gamma)
    all-to-all                 (n - 1) alpha + q S beta
    barrier                    m (alpha + 8 beta + 8 gamma)

Notation
    n -> ranks, S -> size in bytes: of the array that every rank passes, for all-gathers of the result.

Conventions
    C1  All ranks start at once, links and ranks are equal, and chunks are: n (or p) divides the length.
    C2  A lower bound for any all-reduce is m alpha + 2 q S beta + q S gamma; the ring meets it in beta and gamma,
        halving and doubling too, with twice its alpha (n = p); recursive doubling meets it in alpha.

Laws
    L1 two_ranks_in_closed_form             L2 is_what_the_rounds_take
    L3 no_cheaper_than_the_bound            L4 is_linear_in_the_rates
"""

from __future__ import annotations

from ref.spec import spec


@spec("distributed.cost", "ranks:int[], size:int[], rates[three] -> []", backends=("numpy",))
def cost(ranks, size, rates, *, name):
    """Seconds that a collective takes by the model.

    Parameters
    ----------
    ranks : int
    size : int
        Bytes.
    rates : float[three]
        alpha, beta, gamma.
    name : str
        A name of `TERMS`.

    Returns
    -------
    float[]

    Raises
    ------
    ValueError
        Unknown name, ranks < 1 or size < 0.

    Complexity: constant.

    >>> import numpy as np
    >>> float(cost(4, 1200, np.array([1.0, 0.01, 0.0]), name="ring_all_reduce"))
    24.0
    """
    n, S = int(ranks), int(size)
    if name not in TERMS:
        raise ValueError(f"cost: name {name!r}; needed one of {', '.join(TERMS)}")
    if n < 1 or S < 0:
        raise ValueError(f"cost: {n} ranks, size {S}; needed ranks >= 1 and size >= 0")
    messages, sent, combined = terms(n, S, name)
    return rates[0] * messages + rates[1] * sent + rates[2] * combined


def terms(n, S, name):
    """(messages, bytes sent, bytes combined) on the longest way: the factors of alpha, beta, gamma."""
    p = 1 << (n.bit_length() - 1)
    m, q = (n - 1).bit_length(), (n - 1) / n * S
    messages, sent, combined = TERMS[name](n, S, p, p.bit_length() - 1, m, q)
    if n > p and name in ("recursive_doubling_all_reduce", "halving_doubling_all_reduce"):
        return messages + 2, sent + 2 * S, combined + S
    return messages, sent, combined


TERMS = {
    "ring_all_reduce": lambda n, S, p, log, m, q: (2 * (n - 1), 2 * q, q),
    "recursive_doubling_all_reduce": lambda n, S, p, log, m, q: (log, log * S, log * S),
    "halving_doubling_all_reduce": lambda n, S, p, log, m, q: (2 * log, 2 * (p - 1) / p * S, (p - 1) / p * S),
    "canonical_all_reduce": lambda n, S, p, log, m, q: (2 * (n - 1), 2 * q, q),
    "ring_reduce_scatter": lambda n, S, p, log, m, q: (n - 1, q, q),
    "canonical_reduce_scatter": lambda n, S, p, log, m, q: (n - 1, q, q),
    "ring_all_gather": lambda n, S, p, log, m, q: (n - 1, q, 0),
    "bruck_all_gather": lambda n, S, p, log, m, q: (m, q, 0),
    "binomial_broadcast": lambda n, S, p, log, m, q: (m, m * S, 0),
    "scatter_gather_broadcast": lambda n, S, p, log, m, q: (m + n - 1, 2 * q, 0),
    "binomial_reduce": lambda n, S, p, log, m, q: (m, m * S, m * S),
    "pairwise_all_to_all": lambda n, S, p, log, m, q: (n - 1, q, 0),
    "dissemination_barrier": lambda n, S, p, log, m, q: (m, 8 * m, 8 * m),
}
