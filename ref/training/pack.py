"""Packing samples into rows of one capacity.

Source: Johnson 1973 (first-fit and best-fit decreasing); Dosa 2007 (the tight bound of FFD); Krell et al. 2021
(2107.02027) for language models.

    next_fit              in the order given: into the last bin, or a new one if it does not fit
    first_fit_decreasing  longest first: into the first bin with room
    best_fit_decreasing   longest first: into the bin that will have least room left

Bins are numbered as they are opened. FFD uses at most (11 OPT + 6) / 9 bins, OPT the fewest possible; next-fit fewer
than 2 OPT, and it keeps the order of the samples, so that it works on a stream.

Notation
    lengths[n] tokens of the samples; a bin holds `capacity` tokens.

Conventions
    C1  Equal lengths keep their order; of equally good bins the first is taken.
    C2  A sample longer than a bin is an error, truncated (it fills a bin), or dropped (bin -1), by name.
    C3  A sample without tokens goes where its rule sends it, and is not lost.

Laws
    L1 no_sample_is_lost_and_no_bin_is_too_full  L2 every_choice_is_the_rules
    L3 equal_samples_fill_bins                   L4 close_to_the_fewest_bins
"""

from __future__ import annotations

from autodiff import namespace
from ref.spec import bind, spec

RULES = ("next_fit", "first_fit_decreasing", "best_fit_decreasing")
OVERSIZE = ("error", "truncate", "drop")


@spec("training.pack", "lengths:int[n] -> bins:int[n]", backends=("numpy",))
def pack(lengths, *, capacity, rule="next_fit", oversize="error"):
    """The bin of every sample.

    Parameters
    ----------
    lengths : int[n]
        Tokens, at least 0.
    capacity : int
        Tokens of a bin, at least 1.
    rule : {"next_fit", "first_fit_decreasing", "best_fit_decreasing"}
    oversize : {"error", "truncate", "drop"}
        What becomes of a sample longer than a bin (C2).

    Returns
    -------
    int[n]
        0, 1, ..; -1 for a dropped sample.

    Raises
    ------
    ValueError
        A negative length or, with "error", one above capacity (the message says which), capacity < 1, an unknown rule
        or name.
    TypeError
        lengths is not int.

    Complexity: n for next_fit, n times the number of bins for the others.

    >>> import numpy as np
    >>> pack(np.array([3, 4, 1, 2]), capacity=5), pack(np.array([3, 4, 1, 2]), capacity=5, rule="first_fit_decreasing")
    (array([0, 1, 1, 2]), array([1, 0, 0, 1]))
    """
    bind("pack", "lengths:int[n]", lengths=lengths)
    sizes = [int(x) for x in lengths]
    _check(sizes, capacity, rule, oversize)
    order = [i for i in range(len(sizes)) if sizes[i] <= capacity or oversize == "truncate"]
    if rule != "next_fit":
        order.sort(key=lambda i: -min(sizes[i], capacity))
    bins, room = [-1] * len(sizes), []
    for i in order:
        need = min(sizes[i], capacity)
        chosen = _choose(rule, room, need)
        if chosen == len(room):
            room.append(capacity)
        room[chosen] -= need
        bins[i] = chosen
    return namespace(lengths).asarray(bins, dtype=lengths.dtype)


def _choose(rule, room, need):
    """The bin for a sample of `need` tokens; the number of bins for a new one."""
    candidates = range(max(len(room) - 1, 0), len(room)) if rule == "next_fit" else range(len(room))
    fits = [b for b in candidates if room[b] >= need]
    if not fits:
        return len(room)
    return min(fits, key=lambda b: room[b]) if rule == "best_fit_decreasing" else fits[0]


def _check(sizes, capacity, rule, oversize):
    if not capacity >= 1:
        raise ValueError(f"pack: capacity={capacity}; needed at least 1")
    for name, given, known in (("rule", rule, RULES), ("oversize", oversize, OVERSIZE)):
        if given not in known:
            raise ValueError(f"pack: {name}={given!r}; needed one of {known}")
    for i, size in enumerate(sizes):
        if size < 0 or (size > capacity and oversize == "error"):
            raise ValueError(f"pack: sample {i} has length {size}; needed 0 to capacity={capacity}")
