"""Laws and mutants of the segments of a checkpointed chain."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np

from autodiff import checkpoint_sequential, saved_bytes, tensor
from autodiff.primitive import Primitive
from ref.spec import law, mutant
from ref.spec.cases import Flag, cases, choose

ID = "training.checkpoint_segments"
EXACT = ("float64",)  # integers: one run is enough


def _n(top):
    return lambda draw, c: np.array(draw(choose(*range(1, top + 1))))


space = cases(
    ID,
    n=_n(40),
    kind=choose("decreasing", "uniform"),
    flags={
        "one": Flag(lambda c: c.n == 1, {"n": lambda draw, c: np.array(1)}),
        "triangular": Flag(
            lambda c: math.isqrt(8 * int(c.n) + 1) ** 2 == 8 * int(c.n) + 1,
            {"n": lambda draw, c: np.array(draw(choose(1, 3, 6, 10, 15, 21)))},
        ),
        "square": Flag(
            lambda c: math.isqrt(int(c.n)) ** 2 == int(c.n),
            {"n": lambda draw, c: np.array(draw(choose(4, 9, 16, 25, 36, 400)))},
        ),
    },
)


def lengths_of(impl, c, expect):
    """The lengths as Python ints; anything but positive integers that sum to n breaks the law."""
    found = impl(c)
    expect.holds(isinstance(found, list | tuple) and len(found) > 0, "the result is a list of lengths")
    expect.holds(all(np.asarray(x).dtype.kind in "iu" and np.ndim(x) == 0 for x in found), "lengths are integers")
    lengths = [int(x) for x in found]
    expect.holds(min(lengths) >= 1 and sum(lengths) == int(c.n), f"lengths {lengths} are positive and sum to {c.n}")
    return lengths


def peak(lengths):
    return max(j + length - 1 for j, length in enumerate(lengths, 1))


def least(n):
    """The least P with 1 + 2 + .. + P >= n, by counting up."""
    P = 0
    while n > 0:
        P += 1
        n -= P
    return P


@law(
    ID, "L1", closed_form=True, dtypes=EXACT, given=space.reach("one", "triangular", "square"),
    kills=["longer_ones_last", "slack_lost"],
)  # fmt: skip
def segments_cover_the_chain(impl, c, expect):
    "Positive lengths, none longer than the one before, sum n; one layer is one segment."
    lengths = lengths_of(impl, c, expect)
    expect.at_most(lengths[1:], lengths[:-1], "a later length")


@law(
    ID, "L2", closed_form=True, dtypes=EXACT, given=space.where(kind="decreasing").reach("triangular"),
    kills=["kind_ignored", "root_one_too_great"],
)  # fmt: skip
def decreasing_peak_is_the_triangular_root(impl, c, expect):
    "max_j (j + l_j - 1) = ceil((sqrt(8 n + 1) - 1) / 2); at n = P (P + 1) / 2 it is P, P - 1, .. from the first on."
    lengths = lengths_of(impl, c, expect)
    P = least(int(c.n))
    expect.same(peak(lengths), P, "peak")
    if int(c.n) == P * (P + 1) // 2:
        expect.same(lengths, range(P, 0, -1), "lengths")


@law(
    ID, "L3", closed_form=True, dtypes=EXACT, given=space.where(kind="uniform").reach("square"),
    kills=["always_decreasing", "ragged_last", "root_rounded_down"],
)  # fmt: skip
def uniform_squares_peak_at_two_roots(impl, c, expect):
    "Lengths differ by at most 1 and K^2 is within K of n; n = K^2 gives K segments of K and the peak 2 K - 1."
    lengths = lengths_of(impl, c, expect)
    K = len(lengths)
    expect.at_most(max(lengths) - min(lengths), 1, "the spread of the lengths")
    expect.at_most(abs(K * K - int(c.n)), K, "|K^2 - n|")
    if math.isqrt(int(c.n)) ** 2 == int(c.n):
        expect.same(peak(lengths), 2 * math.isqrt(int(c.n)) - 1, "peak")


@law(
    ID, "L4", dtypes=EXACT, given=space.where(n=_n(9), kind="decreasing"),
    kills=["root_one_too_great", "remainder_last"],
)  # fmt: skip
def no_partition_does_better(impl, c, expect):
    "Of all 2^(n-1) partitions none has a lower peak, nor the same peak and fewer layers to run again."
    lengths, n = lengths_of(impl, c, expect), int(c.n)
    cuts = (cut for k in range(n) for cut in combinations(range(1, n), k))
    parts = ([b - a for a, b in zip((0, *cut), (*cut, n), strict=True)] for cut in cuts)
    best = min((peak(p), n - p[-1]) for p in parts)
    expect.same((peak(lengths), n - lengths[-1]), best, "(peak, layers run again)")


def measured(lengths):
    """(peak of saved units, runs of layers) of the engine on a chain of unit layers in these segments."""
    x = tensor(np.linspace(0.0, 1.0, 8), requires_grad=True)
    seen = {"runs": 0, "peak": 0}

    def forward(xp, x):
        seen["runs"] += 1
        return xp.sin(x)

    def rule(xp, g, node):
        seen["peak"] = max(seen["peak"], saved_bytes(out) // x.data.nbytes)
        return (g * xp.cos(node.saved[0]),)

    layer = Primitive("unit", rule, ((0,),), forward=forward)
    out = checkpoint_sequential([layer] * sum(lengths), x, lengths)
    out.backward(np.ones(8))
    return seen["peak"], seen["runs"]


@law(
    ID, "L5", closed_form=True, dtypes=EXACT, given=space.where(n=_n(20)),
    kills=["longer_ones_last", "kind_ignored", "always_decreasing"],
)  # fmt: skip
def the_tape_holds_the_peak(impl, c, expect):
    """The engine, run on unit layers cut so, holds at most P saved values, the least P with P (P + 1) / 2 >= n; with
    uniform segments exactly r + ceil(n / K) or K + floor(n / K) - 1, the greater, r = n mod K > 0."""
    n, lengths = int(c.n), lengths_of(impl, c, expect)
    held, _ = measured(lengths)
    if c.kind == "decreasing":
        expect.same(held, least(n), "saved values")
        return
    K = min(range(1, n + 1), key=lambda k: abs(k - math.sqrt(n)))
    long = n % K + n // K if n % K else 0
    expect.same(held, max(long, K + n // K - 1), "saved values")


@law(
    ID, "L6", closed_form=True, dtypes=EXACT, given=space.where(n=_n(20), kind="decreasing"),
    kills=["remainder_last", "kind_ignored"],
)  # fmt: skip
def layers_run_again(impl, c, expect):
    "The engine runs each layer once, and again all but P + 1 - K, the last segment, K the fewest that fit under P."
    n, lengths = int(c.n), lengths_of(impl, c, expect)
    P, room, K = least(n), 0, 0
    while room < n:
        room, K = room + P - K, K + 1
    _, runs = measured(lengths)
    expect.same(runs, 2 * n - (P + 1 - K), "layers run")


# Mutants ---------------------------------------------------------------------------------------------


def of(n, **options):
    return lambda: ((np.array(n),), options)


def cut(n, *, kind="decreasing", root=lambda n: math.isqrt(8 * n - 7), segments=lambda n: max(1, round(n**0.5))):
    n = int(n)
    if kind == "uniform":
        K = segments(n)
        return [n // K + (j < n % K) for j in range(K)]
    P, left, full = (root(n) + 1) // 2, n, []
    while left > 0:
        full.append(P - len(full))
        left -= full[-1]
    return [x - (j < -left) for j, x in enumerate(full)]


@mutant(ID, default_case=of(4))
def kind_ignored(n, *, kind="decreasing"):
    "Always uniform."
    return cut(n, kind="uniform")


@mutant(ID, default_case=of(4, kind="uniform"))
def always_decreasing(n, *, kind="decreasing"):
    "The lengths of `decreasing` under either name."
    return cut(n)


@mutant(ID, default_case=of(9, kind="uniform"))
def longer_ones_last(n, *, kind="decreasing"):
    "In the other order: as many values to run again, and more held."
    return cut(n, kind=kind)[::-1]


@mutant(ID, default_case=of(9, kind="uniform"))
def ragged_last(n, *, kind="decreasing"):
    "Every segment ceil(n / K), the last what is left."
    if kind == "decreasing":
        return cut(n)
    n, K = int(n), len(cut(n, kind="uniform"))
    each = -(-n // K)
    return [min(each, n - i) for i in range(0, n, each)]


@mutant(ID, default_case=of(9, kind="uniform"))
def root_rounded_down(n, *, kind="decreasing"):
    "K = floor(sqrt n)."
    return cut(n, kind=kind, segments=math.isqrt)


@mutant(ID, default_case=of(4))
def root_one_too_great(n, *, kind="decreasing"):
    "sqrt(8 n + 1) for sqrt(8 n - 7): one too many at triangular numbers."
    return cut(n, kind=kind, root=lambda n: math.isqrt(8 * n + 1))


@mutant(ID, default_case=of(6))
def remainder_last(n, *, kind="decreasing"):
    "P, P - 1, .. and the last what is left: more to run again."
    lengths, n = cut(n, kind=kind), int(n)
    if kind == "uniform":
        return lengths
    P, out = peak(lengths), []
    while sum(out) < n:
        out.append(min(P - len(out), n - sum(out)))
    return out


@mutant(ID, default_case=of(9))
def slack_lost(n, *, kind="decreasing"):
    "P, P - 1, .. without giving back what is too much."
    lengths = cut(n, kind=kind)
    return lengths if kind == "uniform" else [peak(lengths) - j for j in range(len(lengths))]
