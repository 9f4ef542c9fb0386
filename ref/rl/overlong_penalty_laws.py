"""Laws and mutants of the overlong punishment."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, batch, cases, choose, rng

ID = "rl.overlong_penalty"
WHOLE = ("float64",)  # integers in
space = cases(
    ID, B=batch(2, 4), size=choose((10, 4), (20, 20), (7, 1), (20480, 4096)), longest=lambda draw, c: c.size[0],
    cache=lambda draw, c: c.size[1],
    lengths=lambda draw, c: rng(draw).integers(max(c.longest - c.cache - 2, 0), c.longest + 4, c.B),
    flags={"some": Flag(lambda c: 0 not in c.B, {"B": choose((4,), (2, 3))})},
)  # fmt: skip


@law(ID, "L1", closed_form=True, dtypes=WHOLE, given=space.where(some=True),
     kills=["not_clamped", "starts_at_the_cache", "over_the_longest", "positive", "step"])  # fmt: skip
def three_pieces_in_fractions(impl, c, expect):
    "0 up to L_max - L_cache, then ((L_max - L_cache) - L) / L_cache, then -1, in fractions."
    start = c.longest - c.cache
    wanted = [0 if n <= start else -1 if n > c.longest else Fraction(start - n, c.cache)
        for n in np.ravel(c.lengths).tolist()]
    expect(impl(c), np.array([float(w) for w in wanted]).reshape(c.B), bounds.rounding(4, 1.0, "float64"), scale=1.0)


@law(ID, "L2", closed_form=True, dtypes=WHOLE, given=space, kills=["step", "not_clamped"])
def continuous_and_falling(impl, c, expect):
    "From one length to the next the fine grows by 1 / L_cache in the cache and by nothing outside; at both ends 0, -1."
    lengths = np.arange(c.longest - min(c.cache, 40), c.longest + 3)
    fine = impl(c.replace(lengths=lengths, B=lengths.shape))
    inside = lengths[1:] <= c.longest
    expect(-np.diff(fine), np.where(inside, 1 / c.cache, 0.0), bounds.rounding(4, 1.0, "float64"), scale=1.0)
    ends = c.replace(lengths=np.array([c.longest - c.cache, c.longest]), B=(2,))
    expect.same(impl(ends), np.array([0.0, -1.0]), "ends")


# Mutants ---------------------------------------------------------------------------------------------


def short():
    """The default-size test: responses that are not long."""
    return (np.array([0, 1, 2]),), {"longest": 10, "cache": 4}


def _mutant(name, doc, fine):
    def function(lengths, *, longest=20480, cache=4096):
        return np.asarray(fine(lengths.astype(np.float64), longest, cache))

    function.__name__, function.__doc__ = name, doc
    mutant(ID, default_case=short)(function)


_mutant("not_clamped", "Beyond L_max the line goes on.", lambda n, top, cache: np.minimum((top - cache - n) / cache, 0))
_mutant("starts_at_the_cache", "From L_cache on.", lambda n, top, cache: np.clip((cache - n) / cache, -1, 0))
_mutant("over_the_longest", "Divided by L_max.", lambda n, top, cache: np.clip((top - cache - n) / top, -1, 0))
_mutant("positive", "A bonus.", lambda n, top, cache: -np.clip((top - cache - n) / cache, -1, 0))
_mutant("step", "-1 from the start of the cache on.", lambda n, top, cache: np.where(n > top - cache, -1.0, 0.0))
