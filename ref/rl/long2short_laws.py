"""Laws and mutants of long to short."""

from __future__ import annotations

import numpy as np

from ref.spec import law, mutant
from ref.spec.cases import Flag, bools, cases, choose, dims, rng

ID = "rl.long2short"
WHOLE = ("float64",)  # integers and truth values alone
space = cases(
    ID, P=dims(0, 3), n=dims(1, 5), ratio=choose(1.5, 2.0),
    lengths=lambda draw, c: rng(draw).integers(1, 13, (c.P, c.n)),
    correct=bools("P n", 0.6),
    flags={
        "none_right": Flag(lambda c: c.P > 0 and not np.all(np.any(c.correct, 1)),
        {"correct": lambda draw, c: np.zeros((c.P, c.n), bool), "P": dims(1, 3)}),
        "negatives": Flag(lambda c: np.any(slowly(c)[1] & c.correct) and np.any(slowly(c)[1] & ~c.correct),
        {"P": 3, "n": 5}),
        "mixed": Flag(lambda c: np.any(c.correct) and not np.all(c.correct), {"P": dims(2, 3), "n": dims(3, 5)}),
    },
)  # fmt: skip


def slowly(c):
    chosen, rejected = [], np.zeros((c.P, c.n), bool)
    for p in range(c.P):
        right = sorted((c.lengths[p, i], i) for i in range(c.n) if c.correct[p, i])
        chosen.append(right[0][1] if right else -1)
        for i in range(c.n):
            if right and c.lengths[p, i] > right[0][0]:
                rejected[p, i] = not c.correct[p, i] or c.lengths[p, i] >= c.ratio * right[0][0]
    return np.array(chosen, int), rejected


@law(ID, "L1", closed_form=True, dtypes=WHOLE, given=space.reach("none_right", "negatives", "mixed"),
     kills=["shortest_of_all", "longest", "wrong_of_any_length", "right_at_any_length", "zero_for_none"])  # fmt: skip
def by_sorting_the_right_ones(impl, c, expect):
    "The right answers sorted by length: the first is chosen; longer wrong ones and far longer right ones are rejected."
    chosen, rejected = slowly(c)
    found = impl(c)
    expect.same(found[0], chosen, "chosen")
    expect.same(found[1], rejected, "rejected")


@law(ID, "L2", closed_form=True, dtypes=WHOLE, given=space.where(mixed=True),
    kills=["shortest_of_all", "wrong_of_any_length", "ratio_of_the_wrong"],
     passes_null=[])  # fmt: skip
def pairs_prefer_short_and_right(impl, c, expect):
    "The chosen answer is right and shorter than every rejected one; a wrong answer one token longer is rejected."
    chosen, rejected = impl(c)
    for p in range(c.P):
        if chosen[p] >= 0:
            expect.holds(bool(c.correct[p, chosen[p]]), "the chosen is right")
            expect.at_most(c.lengths[p, chosen[p]] + 1, np.where(rejected[p], c.lengths[p], 99), "the chosen length")
    least = c.replace(lengths=np.array([[5, 6]]), correct=np.array([[True, False]]), P=1, n=2)
    found = impl(least)
    expect.same(found[0], np.array([0]), "chosen")
    expect.same(found[1], np.array([[False, True]]), "rejected")


# Mutants ---------------------------------------------------------------------------------------------


def default():
    """The default-size test: one short right answer, long wrong ones."""
    return (np.array([[4, 20, 30]]), np.array([[True, False, False]])), {}


def plain(lengths, correct, *, ratio=1.5, **edit):
    big = lengths.max(initial=0) + 1
    pool = edit.get("pool", lambda correct: correct)(correct)
    least = np.where(pool, lengths, edit.get("fill", big))
    some = correct.any(1) | edit.get("always", False)
    pick = edit.get("pick", np.argmin)
    chosen = np.where(some, pick(least, axis=1), -1)
    shortest = least.min(1, keepdims=True) if pick is np.argmin else least.max(1, keepdims=True)
    wrong = lengths > edit.get("wrong", 1.0) * shortest if "wrong" in edit else lengths > shortest
    wrong = np.ones_like(wrong) if edit.get("any_wrong") else wrong
    right = lengths > shortest if edit.get("any_right") else (lengths >= ratio * shortest) & (lengths > shortest)
    return chosen, some[:, None] & np.where(correct, right, wrong)


def _mutant(name, doc, case=None, thread=None, **edit):
    def function(*args, **options):
        return plain(*args, **options, **edit)

    function.__name__, function.__doc__ = name, doc
    mutant(ID, default_case=case or default, thread=thread)(function)


_mutant("shortest_of_all", "The shortest answer, right or wrong.", pool=np.ones_like)
_mutant("longest", "The longest right answer.", lambda: ((np.array([[4, 4]]), np.array([[True, True]])), {}),
    pick=np.argmax, fill=-1)
_mutant("wrong_of_any_length", "Every wrong answer is rejected.", any_wrong=True)
_mutant("right_at_any_length", "Every longer right answer is rejected.", any_right=True)
_mutant("ratio_of_the_wrong", "Wrong answers too must be far longer.", wrong=1.5)
_mutant("zero_for_none", "Without a right answer the first is chosen.", always=True)
