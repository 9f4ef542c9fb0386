"""Laws and mutants of R1's reward."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, cases, choose

ID = "rl.r1_reward"
WHOLE = ("float64",)  # texts in
# text, answer: accuracy, format, share of Latin in the thought
ROWS = (
    ("<think>so it is</think><answer>1/2</answer>", "0.5", (1, 1, 1.0)),
    ("<think>so \u6570</think><answer>3</answer>", "0.5", (0, 1, 0.5)),
    ("<think>\u6570</think> <answer>0.50</answer>", "1/2", (1, 1, 0.0)),
    ("0.5", "0.5", (0, 0, 0.0)),
    ("<answer>0.5</answer><think>so</think>", "0.5", (0, 0, 0.0)),
    ("<think>so</think><answer>0.5</answer> indeed", "0.5", (0, 0, 0.0)),
)
def column(texts):
    """An array of texts."""
    out = np.empty(len(texts), object)
    out[:] = list(texts)
    return out


space = cases(
    ID, rows=st.lists(st.sampled_from(ROWS), max_size=4), texts=lambda draw, c: column([r[0] for r in c.rows]),
    answers=lambda draw, c: column([r[1] for r in c.rows]), n=lambda draw, c: len(c.rows),
    accuracy_weight=choose(1.0, 0.25), format_weight=choose(1.0, 0.5), language_weight=choose(0.0, 2.0), script="latin",
    flags={"some": Flag(lambda c: len(c.rows) > 1,
    {"rows": st.just([ROWS[0], ROWS[1], ROWS[2], ROWS[5]]), "language_weight": 2.0})},
)  # fmt: skip


@law(ID, "L1", closed_form=True, dtypes=WHOLE, given=space.reach("some"),
    kills=["language_of_the_whole_text", "weights_ignored", "accuracy_alone", "language_ignored"])
def the_weighted_sum(impl, c, expect):
    "The three parts, each known for the text, times their weights."
    weights = (c.accuracy_weight, c.format_weight, c.language_weight)
    wanted = np.array([np.dot(weights, r[2]) for r in c.rows], np.float64)
    expect(impl(c), wanted, bounds.rounding(8, 4.0, "float64"), scale=4.0)


@law(ID, "L2", closed_form=True, dtypes=WHOLE, given=space.where(some=True), kills=["right_answers_outside_count"],
    passes_null=["zeros"])
def a_broken_format_earns_nothing(impl, c, expect):
    "The right answer without its tags, or with a word too many, earns 0 in every part."
    broken = [r for r in ROWS if not r[2][1]]
    found = impl(c.replace(rows=broken, texts=column([r[0] for r in broken]), answers=column([r[1] for r in broken])))
    expect.same(found, np.zeros(len(broken)))


# Mutants ---------------------------------------------------------------------------------------------


def default():
    """The default-size test: one good text, all weights 1 and no language."""
    return (column([ROWS[0][0]]), column(["0.5"])), {}


def _mutant(name, doc, value):
    def function(texts, answers, *, accuracy_weight=1.0, format_weight=1.0, language_weight=0.0, script="latin"):
        known = {(r[0], r[1]): r[2] for r in ROWS}
        parts = [known.get((t, a), (0, 0, 0.0)) for t, a in zip(texts, answers, strict=True)]
        w = (accuracy_weight, format_weight, language_weight)
        return np.array([value(t, a, p, w) for (t, a), p in zip(zip(texts, answers, strict=True), parts, strict=True)],
            np.float64)

    function.__name__, function.__doc__ = name, doc
    mutant(ID, default_case=default)(function)


_mutant("language_of_the_whole_text", "The tags are words of the language too.",
        lambda t, a, p, w: np.dot(w[:2], p[:2]) + w[2] * (0.8 + 0.2 * p[2] if "<" in t else 0))  # fmt: skip
_mutant("weights_ignored", "The plain sum of accuracy and format.", lambda t, a, p, w: p[0] + p[1] + w[2] * p[2])
_mutant("accuracy_alone", "The format earns nothing.", lambda t, a, p, w: w[0] * p[0] * 2 + w[2] * p[2])
_mutant("language_ignored", "language_weight accepted and dropped.", lambda t, a, p, w: np.dot(w[:2], p[:2]))
_mutant("right_answers_outside_count", "The right number anywhere is accurate.",
    lambda t, a, p, w: np.dot(w, p) + (w[0] if not p[0] and "0.5" in t else 0))
