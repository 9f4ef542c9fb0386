"""Laws and mutants of the targets of a packed row."""

from __future__ import annotations

import numpy as np

from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, cases, choose, dims, ints, rng

ID = "losses.packed_targets"
WHOLE = ("float64",)  # integers alone
space = cases(
    ID, n=dims(0, 4, large=9), n1=lambda draw, c: c.n + 1, fill=choose(-100, 0),
    cu=lambda draw, c: np.concatenate(([0], np.cumsum(rng(draw).integers(0, 4, c.n)))).astype(np.int64),
    N=lambda draw, c: int(c.cu[-1]), tokens=ints("N", 0, 50),
    flags={"several": Flag(lambda c: (np.diff(c.cu) > 1).sum() > 1, {"n": dims(3, 4)}),
           "empty_segment": Flag(lambda c: c.n > 1 and (np.diff(c.cu) == 0).any() and c.N > 0, {"n": dims(2, 4)}),
           "no_segment": Flag(lambda c: c.n == 0, {"n": 0})},
)  # fmt: skip


def segments_of(c):
    return [c.tokens[a:b] for a, b in zip(c.cu[:-1], c.cu[1:], strict=True)]


@law(
    ID, "L1", closed_form=True, dtypes=WHOLE, given=space.reach("several", "empty_segment", "no_segment"),
    kills=["across_the_boundary", "the_token_itself", "first_token_dropped", "fill_ignored", "first_boundary_missed"],
)  # fmt: skip
def the_next_token_of_the_same_segment(impl, c, expect):
    "Segment by segment: its tokens from the second on, then `fill`, which is not kept."
    targets, keep = [], []
    for own in segments_of(c):
        if len(own):
            targets += [*own[1:], c.fill]
            keep += [True] * (len(own) - 1) + [False]
    found = impl(c)
    expect.same(found[1], np.array(keep, bool), "keep")
    expect.same(found[0], np.array(targets, np.int64), "targets")


@law(
    ID, "L2", closed_form=True, dtypes=WHOLE, given=space.where(several=True),
    kills=["across_the_boundary", "first_boundary_missed"],
)  # fmt: skip
def a_segment_has_one_target_less(impl, c, expect):
    "Kept targets: N minus the number of segments that are not empty."
    expect.same(int(impl(c)[1].sum()), c.N - int((np.diff(c.cu) > 0).sum()), "kept targets")


@law(
    ID, "L3", closed_form=True, dtypes=WHOLE, given=space.where(several=True), kills=["across_the_boundary"],
)  # fmt: skip
def packed_loss_is_the_weighted_mean(impl, c, expect):
    "With a loss of token and target, the packed mean is sum n_i L_i / sum n_i over the samples alone."
    def loss(x, y):
        return np.cos(x * 0.7 + y * 1.3)

    targets, keep = impl(c)
    packed = loss(c.tokens, targets)[keep].sum() / max(keep.sum(), 1)
    parts = [(len(own) - 1, loss(own[:-1], own[1:]).mean()) for own in segments_of(c) if len(own) > 1]
    wanted = sum(n * mean for n, mean in parts) / sum(n for n, _ in parts)
    expect(packed, wanted, bounds.rounding(4 * c.N + 8, 1.0, "float64"), "the loss", scale=1.0)


def one_sample():
    return (np.arange(4), np.array([0, 4])), {}


def edited(tokens, cu, *, fill=-100, keep=None, shift=1):
    last = np.isin(np.arange(1, len(tokens) + 1), cu) if keep is None else keep(cu, len(tokens))
    return np.where(last, fill, np.roll(tokens, -shift)), ~last


@mutant(ID, thread="trl#3526", default_case=one_sample)
def across_the_boundary(tokens, cu, **options):
    "The last token of a sample learns the first of the next."
    return edited(tokens, cu, **options, keep=lambda cu, N: np.arange(N) == N - 1)


@mutant(ID, default_case=lambda: ((np.zeros(4, int), np.array([0, 4])), {}))
def the_token_itself(tokens, cu, **options):
    "No shift: the target is the input."
    return edited(tokens, cu, **options, shift=0)


@mutant(ID, default_case=lambda: ((np.zeros(1, int), np.array([0, 1])), {}))
def first_token_dropped(tokens, cu, **options):
    "The first token of each segment is dropped, not the last."
    return edited(tokens, cu, **options, keep=lambda cu, N: np.isin(np.arange(N), cu))


@mutant(ID, default_case=one_sample)
def fill_ignored(tokens, cu, *, fill=-100):
    "-100 whatever is asked for."
    return edited(tokens, cu)


@mutant(ID, default_case=one_sample)
def first_boundary_missed(tokens, cu, **options):
    "The first boundary is missed: offsets read from the second on."
    return edited(tokens, cu, **options, keep=lambda cu, N: np.isin(np.arange(1, N + 1), cu[2:] if len(cu) > 2 else cu))
