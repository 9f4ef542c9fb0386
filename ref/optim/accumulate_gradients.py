"""Gradient accumulation, divided once by the total count.

Source: the fix of 2024 in transformers (#34191, #34263, #35121, #35438) for the fault; the mean itself is that of one
batch, L = (1 / N) sum of its losses.

    g = sum_k G_k / sum_k N_k            G_k = gradient of the sum of micro-batch k's losses, N_k their number
      = sum_k N_k g_k / sum_k N_k        g_k = gradient of their mean

Notation
    G_k or g_k -> parts[k], a list with one array a parameter; N_k -> counts[k], tokens or examples that count.

Conventions
    C1  of="sum" takes G_k, of="mean" takes g_k. The mean of the g_k is another number as soon as the counts differ.
    C2  A micro-batch without a token (N_k = 0) adds nothing, whatever its gradient says: the mean of nothing is NaN.
    C3  Parts are added in their order and the sum is divided once, so that bits repeat. `parts` may be a generator:
        one part is held at a time.
    C4  Sums are kept in the gradients' dtype.

Laws
    L1 divided_once_by_the_total             L2 any_cut_is_the_whole_batch
    L3 means_are_weighted_by_their_counts    L4 an_empty_part_adds_nothing
    L5 equal_parts_are_their_mean            L6 one_part_is_divided_by_its_count
"""

from __future__ import annotations

import operator

from autodiff import namespace
from ref.spec import bind, spec

OF = ("sum", "mean")


@spec("optim.accumulate_gradients", "parts:tree, counts:tree -> grads:tree")
def accumulate_gradients(parts, counts, *, of="sum"):
    """The gradient of a batch from those of its micro-batches.

    Parameters
    ----------
    parts : iterable of lists of float arrays
        parts[k][i] is micro-batch k's gradient of parameter i; at least one part.
    counts : list of int
        Tokens or examples of each micro-batch, at least 0, not all 0.
    of : "sum" or "mean"
        Whether a part is the gradient of the sum or of the mean of its losses.

    Returns
    -------
    list of float arrays
        Of the mean over the whole batch.

    Raises
    ------
    ValueError
        No parts, another number of parts than counts, a part with another number of arrays or another shape, a
        negative count, all counts 0, or an unknown `of`.
    TypeError
        A gradient is not a float array, a count is no integer, or dtypes or backends differ.

    Complexity: one addition an entry and part.

    >>> import numpy as np
    >>> accumulate_gradients([[np.array([6.0])], [np.array([2.0])]], [3, 1])
    [array([2.])]
    """
    if of not in OF:
        raise ValueError(f"accumulate_gradients: of={of!r}; needed one of {OF}")
    counts = [operator.index(n) for n in counts]
    if min(counts, default=0) < 0 or not sum(counts):
        raise ValueError(f"accumulate_gradients: counts={counts}; needed counts >= 0 that are not all 0")
    first = sums = None
    seen = 0
    for part in parts:
        _check(part, seen, first or part, len(counts))
        first = first or part
        xp = namespace(*part)
        n = counts[seen]
        weight = 1.0 if of == "sum" else float(n)
        terms = [weight * g if n else xp.zeros_like(g) for g in part]
        sums = terms if sums is None else [a + b for a, b in zip(sums, terms, strict=True)]
        seen += 1
    if seen != len(counts):
        raise ValueError(f"accumulate_gradients: {seen} parts and {len(counts)} counts; needed a count a part")
    return [a / float(sum(counts)) for a in sums]


def _check(part, k, first, counts):
    if k >= counts:
        raise ValueError(f"accumulate_gradients: more than {counts} parts and {counts} counts; needed a count a part")
    if not part or len(part) != len(first):
        raise ValueError(f"accumulate_gradients: parts[{k}] has {len(part)} arrays, parts[0] has {len(first)}; "
                         "needed as many, at least one")  # fmt: skip
    for i, (a, b) in enumerate(zip(first, part, strict=True)):
        names = {f"parts0_{i}": a, f"parts{k}_{i}": b} if k else {f"parts0_{i}": a}
        bind("accumulate_gradients", ", ".join(f"{n}[*n]" for n in names), **names)
