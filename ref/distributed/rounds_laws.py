"""Laws and mutants of the rounds."""

from __future__ import annotations

import importlib

import numpy as np

from backends.communicators.simulator import Phantom, record
from ref.distributed.common_laws import EXACT
from ref.spec import law, mutant
from ref.spec.cases import Flag, cases, choose

ID = "distributed.rounds"
NAMES = (
    "ring_all_reduce", "recursive_doubling_all_reduce", "halving_doubling_all_reduce", "canonical_all_reduce",
    "ring_reduce_scatter", "canonical_reduce_scatter", "ring_all_gather", "bruck_all_gather", "binomial_broadcast",
    "scatter_gather_broadcast", "binomial_reduce", "pairwise_all_to_all", "dissemination_barrier",
)  # fmt: skip


def _int(values):
    return lambda draw, c: np.array(draw(choose(*values(c))))


def _lengths(c):
    return [k * int(c.ranks) for k in (0, 1, 3)] if c.name == "pairwise_all_to_all" else [0, 1, 5, 8, 13, 40]


space = cases(
    ID, name=choose(*NAMES), ranks=_int(lambda c: range(1, 10)), length=_int(_lengths), itemsize=choose(4, 8),
    flags={
        "odd": Flag(lambda c: int(c.ranks) & (int(c.ranks) - 1) > 0, {"ranks": _int(lambda c: (3, 5, 6, 7, 9))}),
        "short": Flag(lambda c: int(c.length) < int(c.ranks), {"length": _int(lambda c: (0,))}),
    },
)  # fmt: skip


def program(c):
    """The algorithm itself, on phantoms."""
    n, L, dtype = int(c.ranks), int(c.length), np.dtype(f"f{c.itemsize}")
    function = getattr(importlib.import_module(f"ref.distributed.{c.name}"), c.name)

    def run(comm):
        if c.name == "dissemination_barrier":
            return function(comm, 0.0)
        if "all_gather" in c.name:
            rows = L * (comm.rank + 1) // n - L * comm.rank // n
            return function(comm, Phantom(rows, dtype), length=L)
        return function(comm, Phantom(L, dtype))

    return run


def lists(found, c, expect):
    """[(to, size, combine) as lists of n integers], of what the implementation gave."""
    expect.holds(isinstance(found, list | tuple), "the result is a list of rounds")
    out = []
    for one in found:
        expect.holds(isinstance(one, list | tuple) and len(one) == 3, "a round is (to, size, combine)")
        expect.holds(all(np.shape(a) == (int(c.ranks),) for a in one), f"arrays of {int(c.ranks)} numbers")
        expect.holds(all(np.asarray(a).dtype.kind == "i" for a in one), "ranks and bytes are integers")
        out.append([np.asarray(a).astype(np.int64).tolist() for a in one])
    return out


@law(
    ID, "L1", dtypes=EXACT, given=space.reach("odd", "short"),
    kills=["equal_chunks", "powers_of_two_alone", "around_the_other_way", "whole_array_in_every_round"],
)  # fmt: skip
def messages_are_those_of_the_algorithm(impl, c, expect):
    "What each rank sends, receives and combines: peers and bytes, message by message, as the algorithm itself does."
    table = lists(impl(c), c, expect)
    for r in range(int(c.ranks)):
        steps, _ = record(int(c.ranks), program(c), r)
        real = [(s.kind, s.peer, s.size) for s in steps if s.kind in ("send", "recv")]
        said = [("send", to[r], size[r]) for to, size, _ in table if to[r] >= 0]
        expect.holds(said == [s for s in real if s[0] == "send"], f"rank {r} sends {said}, really {real}")
        said = [("recv", to.index(r), size[to.index(r)]) for to, size, _ in table if r in to]
        expect.holds(said == [s for s in real if s[0] == "recv"], f"rank {r} receives {said}, really {real}")
        combined = sum(s.size for s in steps if s.kind == "combine")
        expect.same(sum(combine[r] for _, _, combine in table), combined, f"bytes that rank {r} combines")


@law(
    ID, "L2", closed_form=True, dtypes=EXACT, given=space.reach("odd"),
    kills=["equal_chunks", "whole_array_in_every_round", "one_round_less"],
)  # fmt: skip
def bytes_of_all_ranks_are_the_formula(impl, c, expect):
    """Messages and bytes of all ranks: (2 (n - 1) n, 2 (n - 1) S) for the rings' all-reduce, half of it for
    reduce-scatter and all-gather, n - 1 and (n - 1) S for a tree, and so on."""
    n, L = int(c.ranks), int(c.length)
    S, p, m = L * c.itemsize, 1 << (n.bit_length() - 1), (n - 1).bit_length()
    e, log = n - p, p.bit_length() - 1
    tree = sum(L * min(v + (v & -v), n) // n - L * v // n for v in range(1, n)) * c.itemsize
    wanted = {
        "ring_all_reduce": (2 * (n - 1) * n, 2 * (n - 1) * S),
        "canonical_all_reduce": (2 * (n - 1) * n, 2 * (n - 1) * S),
        "recursive_doubling_all_reduce": (p * log + 2 * e, (p * log + 2 * e) * S),
        "halving_doubling_all_reduce": (2 * p * log + 2 * e, 2 * (n - 1) * S),
        "ring_reduce_scatter": ((n - 1) * n, (n - 1) * S),
        "canonical_reduce_scatter": ((n - 1) * n, (n - 1) * S),
        "ring_all_gather": ((n - 1) * n, (n - 1) * S),
        "bruck_all_gather": (m * n, (n - 1) * S),
        "binomial_broadcast": (n - 1, (n - 1) * S),
        "binomial_reduce": (n - 1, (n - 1) * S),
        "scatter_gather_broadcast": (n - 1 + (n - 1) * n, tree + (n - 1) * S),
        "pairwise_all_to_all": ((n - 1) * n, (n - 1) * S),
        "dissemination_barrier": (m * n, 8 * m * n),
    }[c.name]
    table = lists(impl(c), c, expect)
    messages = sum(t >= 0 for to, _, _ in table for t in to)
    expect.same([messages, sum(sum(size) for _, size, _ in table)], list(wanted), "messages and bytes")


@law(
    ID, "L3", closed_form=True, dtypes=EXACT, given=space.reach("odd"), kills=["all_at_once"],
    passes_null=["cached"],
)  # fmt: skip
def nobody_is_sent_two_in_a_round(impl, c, expect):
    "In a round the destinations are ranks, all different, none the sender; who sends nothing is marked -1 and sends 0."
    for to, size, combine in lists(impl(c), c, expect):
        at = [t for t in to if t != -1]
        expect.holds(len(set(at)) == len(at) and set(at) <= set(range(int(c.ranks))), f"destinations {at}")
        expect.holds(all(t != r for r, t in enumerate(to)), "no rank sends to itself")
        expect.holds(all(s == 0 for s, t in zip(size, to, strict=True) if t == -1), "who does not send sends no bytes")
        expect.holds(min(size + combine, default=0) >= 0, "bytes are not negative")


# Mutants ---------------------------------------------------------------------------------------------


def of(name, n=2, L=8):
    return lambda: ((np.array(n), np.array(L)), {"name": name})


def true_rounds(ranks, length, name, itemsize):
    """Rounds read off the algorithm itself: rank r's k-th send in round k, as far as all send alike."""
    n = int(ranks)
    fields = {"ranks": ranks, "length": length, "name": name, "itemsize": itemsize}
    case = type("C", (), fields)
    steps = [record(n, program(case), r)[0] for r in range(n)]
    depth = max((sum(s.kind == "send" for s in one) for one in steps), default=0)
    out = []
    for k in range(depth):
        to, size, combine = np.full(n, -1), np.zeros(n, np.int64), np.zeros(n, np.int64)
        for r, one in enumerate(steps):
            sends = [s for s in one if s.kind == "send"]
            if k < len(sends):
                to[r], size[r] = sends[k].peer, sends[k].size
            groups, seen = [[]], 0
            for s in one:
                if s.kind == "combine":
                    groups[-1].append(s.size)
                elif s.kind == "recv":
                    seen += 1
                    if seen > 1:
                        groups.append([])
            combine[r] = sum(groups[k]) if k < len(groups) else 0
        out.append((to, size, combine))
    return out


@mutant(ID, default_case=of("ring_all_reduce"))
def equal_chunks(ranks, length, *, name, itemsize=4):
    "Chunks of L // n elements."
    return true_rounds(ranks, int(length) // int(ranks) * int(ranks), name, itemsize)


@mutant(ID, default_case=of("recursive_doubling_all_reduce"))
def powers_of_two_alone(ranks, length, *, name, itemsize=4):
    "Recursive doubling among the first p ranks, nothing for the others."
    n = int(ranks)
    p = 1 << (n.bit_length() - 1)
    if name != "recursive_doubling_all_reduce":
        return true_rounds(ranks, length, name, itemsize)
    rest = [np.full(n - p, -1), np.zeros(n - p, np.int64), np.zeros(n - p, np.int64)]
    return [tuple(map(np.append, one, rest)) for one in true_rounds(p, length, name, itemsize)]


@mutant(ID, default_case=of("ring_all_gather"))
def around_the_other_way(ranks, length, *, name, itemsize=4):
    "The rings turn to the left: the same for two ranks."
    n = int(ranks)
    if "ring" not in name:
        return true_rounds(ranks, length, name, itemsize)
    return [((np.arange(n) - 1) % n, size, combine) for _, size, combine in true_rounds(n, length, name, itemsize)]


@mutant(ID, default_case=of("binomial_broadcast"))
def whole_array_in_every_round(ranks, length, *, name, itemsize=4):
    "Every message carries the whole array."
    S = int(length) * itemsize
    return [(to, np.where(to >= 0, S, 0), combine) for to, _, combine in true_rounds(ranks, length, name, itemsize)]


@mutant(ID, default_case=of("dissemination_barrier", 1))
def one_round_less(ranks, length, *, name, itemsize=4):
    "The last round is left out."
    return true_rounds(ranks, length, name, itemsize)[:-1]


@mutant(ID, default_case=of("binomial_broadcast"))
def all_at_once(ranks, length, *, name, itemsize=4):
    "A reduce in one round: everybody sends to rank 0."
    n = int(ranks)
    if name != "binomial_reduce" or n < 3:
        return true_rounds(ranks, length, name, itemsize)
    size = np.full(n, int(length) * itemsize)
    size[0] = 0
    to = np.zeros(n, np.int64)
    to[0] = -1
    return [(to, size, size[::-1] * 0)]
