"""Laws and mutants of MADE's masks."""

from __future__ import annotations

import math

import numpy as np

from ref.density.common_laws import WHOLE, degree_fields, degree_flags
from ref.spec import law, mutant
from ref.spec.cases import cases

ID = "density.made_masks"
space = cases(ID, **degree_fields(), memory="C", flags=degree_flags())


def masks_of(c, found, expect):
    """The masks as whole numbers, of the shapes that the degrees say."""
    sizes = [len(d) for d in c.degrees] + [c.n]
    expect.holds(isinstance(found, tuple) and len(found) == len(sizes) - 1, f"{len(sizes) - 1} masks are needed")
    for mask, before, after in zip(found, sizes[:-1], sizes[1:], strict=True):
        expect.same(np.asarray(mask).shape, (after, before), "shape of a mask")
        expect.holds(np.asarray(mask).dtype == bool, "a mask must be bool")
    return [np.asarray(m).astype(np.int64) for m in found]


def paths(masks):
    """[outputs inputs]: how many ways lead from an input to an output."""
    out = np.eye(masks[0].shape[1], dtype=np.int64)
    for mask in masks:
        out = mask @ out
    return out


@law(
    ID, "L1", closed_form=True, dtypes=WHOLE, given=space.reach("deep", "permuted", "flat"),
    kills=["at_least_at_the_end", "order_ignored", "output_turned_round"],
)  # fmt: skip
def paths_lead_to_later_outputs_alone(impl, c, expect):
    """Sorted by place, the number of paths from inputs to outputs is strictly lower triangular: the number of chains of
    rising degrees from m^0(d') to one below m^0(d)."""
    order = np.argsort(c.degrees[0])
    counts = paths(masks_of(c, impl(c), expect))[order][:, order]
    expect.same(np.triu(counts), np.zeros_like(counts), "paths to the same or an earlier output")
    expect.same(counts, _chains(c), "number of paths")


def _chains(c):
    """Ways from place i to place j, counted by dynamic programming over the units sorted by degree."""
    out = np.zeros((c.n, c.n), np.int64)
    for i in range(c.n):
        ways = {i + 1: 1}  # degree reached: number of ways
        for level in c.degrees[1:]:
            ways = _added((int(d), sum(w for e, w in ways.items() if e <= d)) for d in level)
        for j in range(c.n):
            out[j, i] = sum(w for e, w in ways.items() if e < j + 1)
    return out


def _added(pairs):
    total = {}
    for d, w in pairs:
        total[d] = total.get(d, 0) + w
    return total


@law(
    ID, "L2", closed_form=True, dtypes=WHOLE, given=space.where(hidden=True).reach("deep", "permuted"),
    kills=["above_within", "order_ignored"],
)  # fmt: skip
def a_unit_reads_its_degree(impl, c, expect):
    "A unit of the first hidden layer of degree m is open to the m inputs of places 1 .. m, and no other."
    first = masks_of(c, impl(c), expect)[0]
    for k, m in enumerate(c.degrees[1]):
        expect.same(
            sorted(c.degrees[0][first[k] == 1].tolist()), list(range(1, int(m) + 1)), f"places read by unit {k}"
        )


@law(
    ID, "L3", closed_form=True, dtypes=WHOLE, given=space.where(flat=True),
    kills=["at_least_at_the_end", "output_turned_round", "order_ignored"],
)  # fmt: skip
def no_hidden_layer_is_a_strict_order(impl, c, expect):
    "No hidden layer: output d reads input d' where m^0(d') < m^0(d), n (n - 1) / 2 weights in all."
    (mask,) = masks_of(c, impl(c), expect)
    for d in range(c.n):
        for e in range(c.n):
            expect.same(bool(mask[d, e]), bool(c.degrees[0][e] < c.degrees[0][d]), f"weight from {e} to {d}")
    expect.same(int(mask.sum()), math.comb(c.n, 2), "weights kept")


@law(ID, "L4", closed_form=True, dtypes=WHOLE, given=space.where(every_degree=True), kills=["above_within"])
def every_degree_opens_every_path(impl, c, expect):
    "Every degree 1 .. n - 1 in every hidden layer: each output is reached from every input before it."
    counts = paths(masks_of(c, impl(c), expect))
    before = c.degrees[0][:, None] > c.degrees[0][None, :]
    expect.same(counts > 0, before, "pairs with a path")


# Mutants ---------------------------------------------------------------------------------------------


def made(degrees, *, within=np.greater_equal, end=np.greater, first=None, turn=False):
    degrees = [np.asarray(d) for d in degrees]
    degrees[0] = degrees[0] if first is None else first(degrees[0])
    out = [within(b[:, None], a[None, :]) for a, b in zip(degrees[:-1], degrees[1:], strict=True)]
    last = end(degrees[0][:, None], degrees[-1][None, :])
    return (*out, (last.T.reshape(last.shape) if turn else last).copy())


def of(*degrees):
    """The default-size test: few units, or none."""
    return lambda: ((tuple(np.array(d, np.int64) for d in degrees),), {})


@mutant(ID, default_case=of([1, 2, 3], []))
def at_least_at_the_end(degrees):
    ">= for > into the output: an output sees its own input."
    return made(degrees, end=np.greater_equal)


@mutant(ID, default_case=of([1, 2, 3], []))
def above_within(degrees):
    "> for >= into hidden layers."
    return made(degrees, within=np.greater)


@mutant(ID, default_case=of([1, 2, 3], [1, 2]))
def order_ignored(degrees):
    "The inputs in the order of their numbers."
    return made(degrees, first=lambda d: np.arange(1, len(d) + 1))


@mutant(ID, default_case=of([1, 2], [1]))
def output_turned_round(degrees):
    "The last mask laid out [in out]."
    return made(degrees, turn=True)
