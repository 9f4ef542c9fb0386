"""Laws and mutants of positions within segments."""

from __future__ import annotations

import numpy as np

from ref.nn.common_laws import WHOLE, cut_space
from ref.spec import law, mutant

ID = "nn.segment_positions"
space = cut_space(ID)


@law(
    ID, "L1", closed_form=True, dtypes=WHOLE, given=space.reach("empty_segment", "no_segment", "several"),
    kills=["never_restarts", "counted_from_one", "restarts_a_token_late"],
)  # fmt: skip
def each_segment_counts_from_zero(impl, c, expect):
    "Segment after segment, 0 .. n - 1; integers."
    wanted = [t for a, b in zip(c.cu[:-1], c.cu[1:], strict=True) for t in range(b - a)]
    found = np.asarray(impl(c))
    expect.same(found, np.array(wanted, np.int64))
    expect.holds(found.dtype == c.cu.dtype, f"positions are {found.dtype}, cu is {c.cu.dtype}")


@law(
    ID, "L2", closed_form=True, dtypes=WHOLE, given=space.where(several=True),
    kills=["never_restarts", "restarts_a_token_late", "empty_segments_count"], passes_null=["wrong_dtype"],
)  # fmt: skip
def steps_are_one_within_a_segment(impl, c, expect):
    "The next token is one further, or begins a segment that is not empty and is 0."
    found = np.asarray(impl(c))
    expect.same(found.shape, (int(c.cu[-1]),), "the number of positions")
    begins = np.isin(np.arange(int(c.cu[-1])), c.cu[:-1])
    expect.same(found[begins], np.zeros(int(begins.sum())), "first tokens")
    expect.same(np.diff(found)[~begins[1:]], np.ones(int((~begins[1:]).sum())), "steps")


def one_segment():
    return (np.array([0, 4]),), {}


def counted(cu, *, first=0, late=0):
    parts = [first + np.arange(b - a) for a, b in zip(cu[:-1], cu[1:], strict=True)]
    return np.concatenate([np.zeros(0, cu.dtype), *parts]).astype(cu.dtype)


@mutant(ID, thread="trl#3067", default_case=one_segment)
def never_restarts(cu):
    "0, 1, 2, .. over the packed row."
    return np.arange(cu[-1])


@mutant(ID, default_case=lambda: ((np.array([0, 0]),), {}))
def counted_from_one(cu):
    "1, 2, 3, .."
    return counted(cu, first=1)


@mutant(ID, default_case=one_segment)
def restarts_a_token_late(cu):
    "The first token of a segment counted with the one before."
    at = np.arange(cu[-1])
    segment = np.searchsorted(cu[1:], at, side="left")
    return np.where(segment > 0, at - cu[np.minimum(segment, len(cu) - 1)], at)


@mutant(ID, default_case=one_segment)
def empty_segments_count(cu):
    "An empty segment gets a token of the next."
    found, own = counted(cu), np.diff(cu) == 0
    if own.any() and len(found):
        found[min(int(cu[int(np.argmax(own))]), len(found) - 1)] += 1
    return found
