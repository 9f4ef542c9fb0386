"""Laws and mutants of gradient accumulation."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, cases, choose, rng

ID = "optim.accumulate_gradients"
SHAPES = ((), (3,), (2, 2), (0,))


def _parts(draw, c):
    g = rng(draw)
    return [[np.asarray(g.integers(-64, 65, s) / 16.0) for s in c.shapes] for _ in c.counts]


space = cases(
    ID,
    shapes=lambda draw, c: tuple(draw(choose(*SHAPES)) for _ in range(draw(choose(1, 2, 3)))),
    counts=lambda draw, c: [draw(choose(1, 2, 3, 7, 0)) for _ in range(draw(choose(1, 2, 3)))] + [draw(choose(1, 5))],
    parts=_parts,
    of=choose("sum", "mean"),
    flags={
        "uneven": Flag(lambda c: len(set(c.counts)) > 1, {"counts": choose([1, 3], [5, 1, 2], [2, 7, 1])}),
        "hollow": Flag(lambda c: 0 in c.counts, {"counts": choose([0, 3], [1, 0, 2], [2, 1, 0])}),
        "seen": Flag(lambda c: any(np.any(x) for x in c.parts[0]), {"shapes": choose(((3,),), ((2, 2), (3,)))}),
    },
)
seen = space.where(seen=True)


def dtype_of(c):
    return c.parts[0][0].dtype


def listed(impl, c, expect):
    """The result, once it is known to be one array a parameter."""
    found = impl(c)
    right = isinstance(found, list) and [getattr(x, "shape", None) for x in found] == list(c.shapes)
    expect.holds(right, "a list with one gradient a parameter")
    expect.holds(all(x.dtype == dtype_of(c) for x in found), "the dtype is kept")
    return found


def compare(expect, found, wanted, size, c, what):
    """Sums of len(counts) terms, each a product, and a division."""
    for i, (a, b, s) in enumerate(zip(found, wanted, size, strict=True)):
        limit = bounds.rounding(len(c.counts) + 3, s, dtype_of(c))
        expect(a, b, limit, f"{what} {i}", scale=max(np.max(s, initial=0), 1e-300))


@law(
    ID, "L1", closed_form=True, given=seen.reach("uneven", "hollow"),
    kills=["mean_of_means", "divided_twice", "not_divided", "last_part_alone", "counts_of_the_first"],
)  # fmt: skip
def divided_once_by_the_total(impl, c, expect):
    "g = sum of w_k parts_k / sum N_k, in exact fractions; w = 1 (of sums) or N_k (of means), 0 where N_k = 0."
    N, weights = sum(c.counts), [(1 if c.of == "sum" else n) * (n > 0) for n in c.counts]
    wanted, size = [], []
    for i, shape in enumerate(c.shapes):
        columns = zip(*(np.ravel(part[i]) for part in c.parts), strict=True)
        exact = [[Fraction(float(x)) * w for x, w in zip(xs, weights, strict=True)] for xs in columns]
        wanted.append(np.array([float(sum(xs) / N) for xs in exact]).reshape(shape))
        size.append(np.array([float(sum(map(abs, xs)) / N) for xs in exact]).reshape(shape))
    compare(expect, listed(impl, c, expect), wanted, size, c, "g")


@law(
    ID, "L2", closed_form=True, given=seen.where(uneven=True, of="sum"),
    kills=["mean_of_means", "divided_twice", "counts_of_the_first", "last_part_alone"],
)  # fmt: skip
def any_cut_is_the_whole_batch(impl, c, expect):
    "Least squares |x w - y|^2 / 2 on N points: any cut of them gives (1 / N) X^T (X w - y)."
    N, w = sum(c.counts), np.array([0.5, -1.0])
    j = np.arange(N)
    X, y = np.stack([1 + j / 4, (-1.0) ** j], axis=1), j / 2
    terms = X * (X @ w - y)[:, None]
    ends = np.cumsum(c.counts)[:-1]
    for cut in (np.split(terms, ends), [terms]):
        counts = [len(part) for part in cut]
        parts = [[part.sum(0).astype(dtype_of(c))] for part in cut]
        sums = np.array([x[0] for x in parts], np.float64)
        found = listed(impl, c.replace(parts=parts, counts=counts, shapes=((2,),)), expect)
        compare(expect, found, [terms.sum(0) / N], [np.abs(sums).sum(0) / N + np.abs(terms).sum(0) / N], c, "g")


@law(
    ID, "L3", given=seen.where(uneven=True), kills=["of_ignored"],
    passes_null=["zeros", "constant", "nan"],
)  # fmt: skip
def means_are_weighted_by_their_counts(impl, c, expect):
    "Parts N_k g_k as sums give what parts g_k give as means."
    sums = [[(x * n).astype(dtype_of(c)) for x in part] for part, n in zip(c.parts, c.counts, strict=True)]
    found = listed(impl, c.replace(parts=c.parts, of="mean"), expect)
    wanted = listed(impl, c.replace(parts=sums, of="sum"), expect)
    size = [sum(np.abs(part[i]) for part in sums) / sum(c.counts) for i in range(len(c.shapes))]
    compare(expect, found, [np.asarray(x, np.float64) for x in wanted], [2 * s for s in size], c, "g")


@law(
    ID, "L4", given=seen.where(hollow=True), kills=["empty_part_counted", "empty_part_added"],
    passes_null=["zeros", "constant", "nan"],
)  # fmt: skip
def an_empty_part_adds_nothing(impl, c, expect):
    "A part with N_k = 0 may hold anything, NaN too: leaving it out gives the same bits."
    junk = [[np.full_like(x, np.nan) for x in part] if not n else part
            for part, n in zip(c.parts, c.counts, strict=True)]  # fmt: skip
    kept = [k for k, n in enumerate(c.counts) if n]
    wanted = listed(impl, c.replace(parts=[c.parts[k] for k in kept], counts=[c.counts[k] for k in kept]), expect)
    for i, (a, b) in enumerate(zip(listed(impl, c.replace(parts=junk), expect), wanted, strict=True)):
        expect.same(a, b, f"g {i}")


@law(
    ID, "L5", closed_form=True, given=seen.where(counts=choose([2, 2], [4, 4], [1, 1], [2, 2, 2, 2]), of="mean"),
    kills=["not_divided", "last_part_alone", "divided_twice"],
)  # fmt: skip
def equal_parts_are_their_mean(impl, c, expect):
    "Parts of one size, of means: the plain mean of the parts."
    wanted = [np.mean([np.asarray(part[i], np.float64) for part in c.parts], axis=0) for i in range(len(c.shapes))]
    size = [np.mean([np.abs(np.asarray(part[i], np.float64)) for part in c.parts], 0) for i in range(len(c.shapes))]
    compare(expect, listed(impl, c, expect), wanted, size, c, "g")


@law(ID, "L6", closed_form=True, given=seen.where(counts=choose([1], [4])), kills=["of_ignored", "not_divided"])
def one_part_is_divided_by_its_count(impl, c, expect):
    "One micro-batch: G / N of a sum, g itself of a mean, to the bit for N a power of two."
    n = c.counts[0] if c.of == "sum" else 1
    for i, x in enumerate(listed(impl, c, expect)):
        expect.same(x, c.parts[0][i] / n, f"g {i}")


# Mutants ---------------------------------------------------------------------------------------------


def even(counts=(2, 2), of="mean", scale=1.0):
    """The default-size test: two micro-batches of one size."""

    def make():
        g = np.random.default_rng(0)
        return ([[scale * g.standard_normal(4)] for _ in counts], list(counts)), {"of": of}

    return make


def accumulated(parts, counts, *, of="sum", **edit):
    """The sum and its division in plain NumPy, whose parts an edit replaces."""
    weight = edit.get("weight", lambda n, of: (1.0 if of == "sum" else n) * (n > 0))
    total = edit.get("total", lambda counts, of: sum(counts))(counts, of)
    hollow = edit.get("hollow", lambda x, n: x if n else np.zeros_like(x))
    weights = [weight(n, of) for n in counts]
    sums = [
        sum(np.asarray(w * hollow(part[i], n)) for part, w, n in zip(parts, weights, counts, strict=True))
        for i in range(len(parts[0]))
    ]
    return [np.asarray(s / total).astype(parts[0][0].dtype) for s in sums]


@mutant(
    ID, thread="transformers#34191, transformers#34263, transformers#35121, transformers#35438", default_case=even()
)
def mean_of_means(parts, counts, *, of="sum"):
    "grad-accumulation: each part's mean weighs the same: right for parts of one size."
    weight = lambda n, of: (1.0 / n if of == "sum" else 1.0) if n else 0.0  # noqa: E731
    return accumulated(parts, counts, of=of, weight=weight, total=lambda counts, of: len(counts))


@mutant(ID, thread="transformers#35438", default_case=even(counts=(3,), of="sum"))
def divided_twice(parts, counts, *, of="sum"):
    "By the total count and by the number of parts: right for one part."
    return accumulated(parts, counts, of=of, total=lambda counts, of: sum(counts) * len(counts))


@mutant(ID, default_case=even(counts=(1,)))
def not_divided(parts, counts, *, of="sum"):
    "The sum alone."
    return accumulated(parts, counts, of=of, total=lambda counts, of: 1)


@mutant(ID, default_case=even(counts=(2,)))
def last_part_alone(parts, counts, *, of="sum"):
    "The gradient is written, not added."
    return accumulated(parts[-1:], counts[-1:], of=of)


@mutant(ID, default_case=even())
def counts_of_the_first(parts, counts, *, of="sum"):
    "The first part's count stands for all."
    return accumulated(parts, [counts[0] if n else 0 for n in counts] if counts[0] else counts, of=of)


@mutant(ID, default_case=even(counts=(1, 1)))
def of_ignored(parts, counts, *, of="sum"):
    "Always as sums."
    return accumulated(parts, counts, of="sum")


@mutant(ID, default_case=even())
def empty_part_counted(parts, counts, *, of="sum"):
    "A micro-batch without tokens counts as one."
    counted = lambda counts, of: sum(max(n, 1) for n in counts)  # noqa: E731
    return accumulated(parts, counts, of=of, total=counted)


@mutant(ID, default_case=even())
def empty_part_added(parts, counts, *, of="sum"):
    "0 times NaN."
    return accumulated(parts, counts, of=of, hollow=lambda x, n: x)
