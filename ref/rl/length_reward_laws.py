"""Laws and mutants of the length reward."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, bools, cases, dims, rng

ID = "rl.length_reward"
WHOLE = ("float64",)  # integers in
space = cases(
    ID, B=dims(0, 6, large=20), lengths=lambda draw, c: rng(draw).integers(0, 6, c.B), correct=bools("B", 0.6),
    prompts=lambda draw, c: rng(draw).integers(0, 2, c.B) * 5 - 1,
    flags={
        "several": Flag(lambda c: len(set(c.prompts.tolist())) > 1, {"B": dims(4, 6)}),
        "mixed": Flag(lambda c: np.any(c.correct) and not np.all(c.correct), {"B": dims(4, 6)}),
        "flat": Flag(lambda c: c.B > 1 and len(set(c.lengths.tolist())) == 1,
        {"lengths": lambda draw, c: np.full(c.B, 3), "B": dims(2, 6)}),
    },
)  # fmt: skip


@law(ID, "L1", closed_form=True, dtypes=WHOLE, given=space.reach("several", "mixed", "flat"),
     kills=["wrong_paid_for_brevity", "over_the_batch", "over_the_longest", "flat_is_half",
     "wrong_get_the_least"])  # fmt: skip
def value_in_fractions(impl, c, expect):
    "1/2 - (len - min) / (max - min) among a prompt's responses; min(0, .) for the wrong; 0 for all if max = min."
    wanted = []
    for n, right, p in zip(c.lengths.tolist(), c.correct.tolist(), c.prompts.tolist(), strict=True):
        own = [k for k, q in zip(c.lengths.tolist(), c.prompts.tolist(), strict=True) if q == p]
        value = Fraction(0) if max(own) == min(own) else Fraction(1, 2) - Fraction(n - min(own), max(own) - min(own))
        wanted.append(float(value if right else min(Fraction(0), value)))
    expect(impl(c), np.array(wanted, np.float64), bounds.rounding(4, 1.0, "float64"), scale=1.0)


@law(ID, "L2", closed_form=True, dtypes=WHOLE, given=space.where(several=True),
    kills=["wrong_paid_for_brevity", "flat_is_half"],
     passes_null=["zeros"])  # fmt: skip
def shortest_and_longest(impl, c, expect):
    "Within [-1/2, 1/2]; a wrong response never above 0; the longest of a prompt (of several lengths) has -1/2."
    found = impl(c)
    expect.at_most(np.abs(found), 0.5, "|reward|")
    expect.at_most(found[~c.correct], 0.0, "the reward of a wrong response")
    flat = impl(c.replace(lengths=np.full(c.B, 4)))
    expect.same(flat, np.zeros(c.B), "equal lengths")


@law(ID, "L3", dtypes=WHOLE, given=space.where(several=True), kills=["in_order_of_arrival"],
    passes_null=["zeros", "constant", "identity"])
def the_order_of_the_batch_is_free(impl, c, expect):
    "The batch turned round: each response keeps its reward."
    back = c.replace(**{n: c[n][::-1].copy() for n in ("lengths", "correct", "prompts")})
    expect.same(impl(back)[::-1], impl(c))


# Mutants ---------------------------------------------------------------------------------------------


def default():
    """The default-size test: one prompt, right answers of two lengths."""
    return (np.array([10, 20]), np.array([True, True]), np.zeros(2, int)), {}


def plain(lengths, correct, prompts, **edit):
    out = np.zeros(len(lengths))
    ids = edit.get("ids", lambda p: p)(prompts)
    for i, n in enumerate(lengths):
        own = lengths[ids == ids[i]]
        low, high = (own.min(),
            own.max()) if not edit.get("so_far") else (lengths[: i + 1][ids[: i + 1] == ids[i]].min(), own.max())
        low = 0 if edit.get("from_zero") else low
        value = edit.get("flat", 0.0) if high == low else 0.5 - (n - low) / (high - low)
        out[i] = value if correct[i] else edit.get("wrong", lambda v: min(0, v))(value)
    return out


def _mutant(name, doc, case=None, thread=None, **edit):
    def function(*args, **options):
        return plain(*args, **options, **edit)

    function.__name__, function.__doc__ = name, doc
    mutant(ID, default_case=case or default, thread=thread)(function)


_mutant("wrong_paid_for_brevity", "A short wrong answer gains.", wrong=lambda v: v)
_mutant("wrong_get_the_least", "-1/2 for every wrong answer.", wrong=lambda v: -0.5)
_mutant("over_the_batch", "min and max over all prompts.", ids=np.zeros_like)
_mutant("over_the_longest", "len / max.", lambda: ((np.array([0, 20]), np.array([True, True]), np.zeros(2, int)), {}),
    from_zero=True)
_mutant("flat_is_half", "Equal lengths earn 1/2.", flat=0.5)
_mutant("in_order_of_arrival", "The least length so far.", so_far=True)
