"""Forecast: when each of up to 10^5 ranks ends a collective, with stragglers and links of several speeds.

Source: the max-plus recursion of synchronised rounds (Baccelli et al. 1992, Synchronization and Linearity, ch. 1-2),
over the alpha-beta-gamma model of Thakur, Rabenseifner & Gropp 2005 (IJHPCA 19:1) sec. 3.

    T_r(0) = 0; in round k, for every transfer r -> s of m bytes
        E_rs = max(T_r(k), T_s(k)) + (alpha_rs + m beta_rs) max(f_r, f_s)
    T_r(k + 1) = max(T_r(k), E of the transfers from r and to r) + combined bytes gamma f_r

Notation
    n -> ranks, L -> length, f_r -> slow[n], T_r at the end -> the result[n]; rounds as in `rounds`.

Conventions
    C1  A transfer begins when both ranks have come to it, and takes the slower one's factor.
    C2  Without stragglers, on equal links and with equal chunks, every T_r is at most `cost`, and the last one is it.
    C3  A rank that dies (in the model) ends at infinity, and so does who waits for it.

Laws
    L1 no_straggler_is_the_textbook         L2 is_the_event_queue_on_the_real_program
    L3 one_straggler_in_a_ring              L4 links_of_two_speeds
    L5 time_scales_with_the_rates
"""

from __future__ import annotations

import numpy as np

from backends.communicators.simulator import Model
from ref.distributed.rounds import walk
from ref.spec import spec


@spec("distributed.forecast", "ranks:int[], length:int[], rates[three] -> [n]", backends=("numpy",))
def forecast(ranks, length, rates, *, name, itemsize=4, slow=None, topology=None, dies=None, progress=None):
    """Seconds after which each rank ends.

    Parameters
    ----------
    ranks : int
    length : int
        Elements.
    rates : float[three]
        alpha, beta, gamma.
    name : str
        A name of `rounds.ROUNDS`.
    itemsize : int
        Bytes of an element.
    slow : float[n], optional
        Factors of at least 1.
    topology : Nodes or Torus, optional
        Of `backends.communicators.simulator`.
    dies : dict, optional
        {rank: second}.
    progress : callable, optional
        Called with the number of each round.

    Returns
    -------
    float[n]

    Raises
    ------
    ValueError
        Unknown name, ranks < 1, length < 0, or slow of another shape or with factors below 1.

    Complexity: n operations a round.

    >>> import numpy as np
    >>> forecast(4, 300, np.array([1.0, 0.01, 0.0]), name="ring_all_reduce", slow=np.array([1.0, 2.0, 1.0, 1.0]))
    array([48., 48., 48., 44.])
    """
    n, rates = int(ranks), np.asarray(rates)
    model = Model(*(float(x) for x in rates), topology=topology, slow=slow, dies=dies or {})
    factor = model.factors(n)
    death = np.full(n, np.inf)
    death[list(model.dies)] = list(model.dies.values())
    now, link = np.zeros(n), None
    for k, (to, size, combine) in enumerate(walk(n, length, name=name, itemsize=itemsize)):
        if link is None or link.to is not to:
            link = _Link(model, factor, to)
        end = link.ends(now, size)
        if model.dies:
            end[end > np.minimum(death[link.source], death[link.dest])] = np.inf
        now = link.after(now, end)
        if model.gamma and combine.any():
            now += model.gamma * factor * combine
        if model.dies:
            now[now > death] = np.inf
        if progress is not None:
            progress(k)
    return now.astype(rates.dtype)


class _Link:
    """The transfers of rounds with the same destinations; those of a ring move arrays, and look nothing up."""

    def __init__(self, model, factor, to):
        self.to, n = to, len(to)
        self.source = np.flatnonzero(to >= 0)
        self.dest = to[self.source]
        alpha, beta = model.links(self.source, self.dest)
        slower = np.maximum(factor[self.source], factor[self.dest])
        self.alpha, self.beta = alpha * slower, beta * slower
        shift = int(to[0]) if n else 0
        self.shift = shift if shift > 0 and np.array_equal(to, (np.arange(n) + shift) % n) else None

    def ends(self, now, size):
        """When each transfer ends."""
        took = self.alpha + self.beta * (size if self.shift else size[self.source])
        other = _rolled(now, self.shift) if self.shift else now[self.dest]
        mine = now if self.shift else now[self.source]
        np.maximum(other, mine, out=other)
        other += took
        return other

    def after(self, now, end):
        """When each rank has done with its transfers."""
        if self.shift:
            came = _rolled(end, len(end) - self.shift)
            return np.maximum(came, end, out=came)
        now = now.copy()
        now[self.source] = end
        now[self.dest] = np.maximum(now[self.dest], end)
        return now


def _rolled(x, shift):
    """x[(r + shift) mod n] for every r."""
    return np.concatenate([x[shift:], x[:shift]])
