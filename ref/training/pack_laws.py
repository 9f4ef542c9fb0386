"""Laws and mutants of packing."""

from __future__ import annotations

import numpy as np

from ref.spec import law, mutant
from ref.spec.cases import Flag, cases, choose, dims, ints

ID = "training.pack"
WHOLE = ("float64",)  # integers alone
space = cases(
    ID, n=dims(0, 8, large=40), capacity=choose(7, 10, 1), lengths=ints("n", 0, 7), oversize=choose("truncate", "drop"),
    rule=choose("next_fit", "first_fit_decreasing", "best_fit_decreasing"),
    flags={
        "oversize_sample": Flag(lambda c: (c.lengths > c.capacity).any(), {"n": dims(2, 8), "capacity": choose(1, 4)}),
        "empty_sample": Flag(lambda c: (c.lengths == 0).any(), {"n": dims(2, 8)}),
        "nothing": Flag(lambda c: c.n == 0, {"n": 0}),
        "many": Flag(lambda c: c.n > 4 and c.capacity > 4, {"n": dims(5, 8), "capacity": choose(7, 10)}),
    },
)  # fmt: skip


def needs(c):
    """(sample, tokens it takes) of every sample that is packed, in order."""
    kept = [i for i in range(c.n) if c.lengths[i] <= c.capacity or c.oversize == "truncate"]
    return [(i, min(int(c.lengths[i]), c.capacity)) for i in kept]


@law(
    ID, "L1", closed_form=True, dtypes=WHOLE, given=space.reach("oversize_sample", "empty_sample", "nothing"),
    kills=["one_too_many", "oversize_is_lost", "empty_samples_are_lost", "in_sorted_order", "bins_from_one"],
)  # fmt: skip
def no_sample_is_lost_and_no_bin_is_too_full(impl, c, expect):
    "Every sample has one bin, dropped ones -1; a bin has at most its capacity; bins 0 .. m - 1 are all used."
    bins = impl(c)
    packed = dict(needs(c))
    expect.same(bins[[i for i in range(c.n) if i not in packed]], np.full(c.n - len(packed), -1), "dropped samples")
    used = sorted({int(bins[i]) for i in packed})
    expect.same(np.array(used, np.int64), np.arange(len(used)), "bins in use")
    loads = [sum(need for i, need in packed.items() if bins[i] == b) for b in used]
    expect.at_most(np.array(loads, np.int64), c.capacity, "a bin's load")


@law(
    ID, "L2", closed_form=True, dtypes=WHOLE, given=space.reach("many"),
    kills=["fits_only_with_room_to_spare", "not_decreasing", "worst_fit", "always_next_fit", "in_sorted_order",
           "increasing"],
)  # fmt: skip
def every_choice_is_the_rules(impl, c, expect):
    "Replayed in the rule's order, each sample lies where the rule says, given the bins before it."
    bins, load = impl(c), []
    order = needs(c)
    if c.rule != "next_fit":
        order = sorted(order, key=lambda pair: -pair[1])
    for i, need in order:
        room = [c.capacity - x for x in load]
        allowed = [b for b in range(len(load)) if room[b] >= need]
        if c.rule == "next_fit":
            allowed = [b for b in allowed if b == len(load) - 1]
        elif c.rule == "best_fit_decreasing":
            allowed = [b for b in allowed if room[b] == min(room[x] for x in allowed)]
        wanted = allowed[0] if allowed else len(load)
        expect.holds(int(bins[i]) == wanted, f"sample {i} of {need} tokens lies in bin {bins[i]}, wanted {wanted}")
        load = load + [0] * (wanted == len(load))
        load[wanted] += need
    expect.holds(len(order) <= c.n, "the number of samples")


@law(
    ID, "L3", closed_form=True, dtypes=WHOLE, given=space.where(n=dims(1, 8, large=40)),
    kills=["fits_only_with_room_to_spare", "one_too_many"],
)  # fmt: skip
def equal_samples_fill_bins(impl, c, expect):
    "n samples of one length l: floor(C / l) a bin, in order, by every rule."
    for size in sorted({1, c.capacity // 2, c.capacity} - {0}):
        bins = impl(c.replace(lengths=np.full(c.n, size)))
        expect.same(bins, np.arange(c.n) // (c.capacity // size), f"bins of samples of {size}")


@law(
    ID, "L4", closed_form=True, dtypes=WHOLE, given=space.where(n=dims(1, 8), capacity=choose(7, 10), many=True),
    kills=["a_bin_each"], passes_null=["zeros", "constant", "nan"],
)  # fmt: skip
def close_to_the_fewest_bins(impl, c, expect):
    "FFD and BFD: at most (11 OPT + 6) / 9 bins; next-fit: at most 2 OPT - 1; OPT found by trying all."
    fewest = optimum([need for _, need in needs(c)], c.capacity)
    limit = max(2 * fewest - 1, 1) if c.rule == "next_fit" else (11 * fewest + 6) // 9
    expect.at_most(int(impl(c).max()) + 1, limit, f"bins, where {fewest} are enough,")


def optimum(sizes, capacity):
    """Fewest bins by all subsets: the least (bins, load of the last) in which each subset can be packed."""
    best = {0: (0, capacity)}
    for mask in range(1, 1 << len(sizes)):
        found = []
        for i, size in enumerate(sizes):
            if mask >> i & 1:
                bins, load = best[mask & ~(1 << i)]
                found.append((bins, load + size) if load + size <= capacity else (bins + 1, size))
        best[mask] = min(found)
    return best[(1 << len(sizes)) - 1][0]


def two_samples():
    """The default-size test: two samples that fill a bin each."""
    return (np.array([4, 4]),), {"capacity": 4}


def edited(lengths, *, capacity, rule="next_fit", oversize="error", spare=0, order=None, worst=False, place=None):
    n = [min(int(x), capacity) for x in lengths]
    kept = [i for i in range(len(n)) if lengths[i] <= capacity or oversize == "truncate"]
    if rule != "next_fit":
        kept.sort(key=order or (lambda i: -n[i]))
    bins, room = np.full(len(n), -1), []
    for at, i in enumerate(kept):
        last = range(max(len(room) - 1, 0), len(room)) if rule == "next_fit" else range(len(room))
        fits = [b for b in last if room[b] >= n[i] + spare]
        if fits and rule == "best_fit_decreasing":
            fits = [(max if worst else min)(fits, key=lambda b: room[b])]
        b = fits[0] if fits else len(room)
        room = room + [capacity] * (not fits)
        room[b] -= n[i]
        bins[i if place is None else place(kept, at)] = b
    return bins


def _mutant(name, doc, **edit):
    def function(lengths, **options):
        return edited(lengths, **{**options, **edit})

    function.__name__, function.__doc__ = name, doc
    mutant(ID, default_case=two_samples)(function)


_mutant("one_too_many", "A bin takes a token more than its capacity.", spare=-1)
_mutant("fits_only_with_room_to_spare", "< for <=: no bin is ever full.", spare=1)
_mutant("not_decreasing", "First-fit and best-fit in the order given.", order=lambda i: 0)
_mutant("worst_fit", "The bin with most room.", worst=True)
_mutant("always_next_fit", "The rule is accepted and dropped.", rule="next_fit")
_mutant("in_sorted_order", "Bins in the order of packing, not of the samples.", place=lambda kept, at: sorted(kept)[at])


@mutant(ID, default_case=two_samples)
def increasing(lengths, **options):
    "Shortest first."
    return edited(lengths, **options, order=lambda i: lengths[i])


@mutant(ID, default_case=two_samples)
def oversize_is_lost(lengths, **options):
    "A sample to be truncated is dropped."
    return edited(lengths, **{**options, "oversize": "drop"})


@mutant(ID, default_case=two_samples)
def empty_samples_are_lost(lengths, **options):
    "A sample without tokens has no bin."
    return np.where(lengths > 0, edited(lengths, **options), -1)


@mutant(ID, default_case=lambda: ((np.zeros(0, int),), {"capacity": 4}))
def bins_from_one(lengths, **options):
    "Bins counted from one."
    bins = edited(lengths, **options)
    return np.where(bins >= 0, bins + 1, bins)


@mutant(ID, default_case=two_samples)
def a_bin_each(lengths, *, capacity, oversize="error", **options):
    "Padding: every sample its own bin."
    kept = (lengths <= capacity) | (oversize == "truncate")
    return np.where(kept, np.cumsum(kept) - 1, -1)
