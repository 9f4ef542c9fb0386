"""Laws and mutants of the format reward."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import strategies as st

from ref.spec import law, mutant
from ref.spec.cases import Flag, cases, choose

ID = "rl.format_reward"
WHOLE = ("float64",)  # texts in
TAGS = ("<think>", "</think>", "<answer>", "</answer>")
PIECES = (*TAGS, " ", "\n", "so", "2 < 3 > 1", "<", "think>", "<Think>", "<think >", "\\n", "\u6570")


def column(texts):
    """An array of texts."""
    out = np.empty(len(texts), object)
    out[:] = list(texts)
    return out


NEAR = (
    "<answer>2</answer><think>so</think>", "<think>so</think><think>so</think><answer>2</answer>",
    "<think>so<answer>2</answer></think>",
    "<think>so</think><answer>2</answer><answer>3</answer>", "so <think>so</think><answer>2</answer>",
    "<think>so</think> so <answer>2</answer>",
    "<think>so<think>so</think></think><answer>2</answer>", "<think></think><answer> </answer>",
    "<think>so</think><answer>2", "</think><think><answer></answer>",
)  # fmt: skip
texts = st.lists(st.one_of(st.sampled_from(NEAR), st.lists(st.sampled_from(PIECES), max_size=8).map("".join)),
    max_size=4)
good = st.builds(lambda a, b, c: f"<think>{a}</think>{b}<answer>{c}</answer>", st.sampled_from(("so", "", "1 < 2")),
                 st.sampled_from(("", " ", "\n")), st.sampled_from(("2", "", " x ")))  # fmt: skip
space = cases(
    ID, texts=st.one_of(texts, st.lists(st.one_of(good, st.sampled_from(NEAR)), min_size=1, max_size=4)).map(column),
    n=lambda draw, c: len(c.texts),
    outside=choose("forbid", "allow"), nonempty=choose(False, True),
    flags={"well_formed": Flag(lambda c: any(judge(t, c) for t in c.texts),
    {"texts": st.lists(good, min_size=1, max_size=4).map(column), "nonempty": False}),
           "broken": Flag(lambda c: any(not judge(t, c) for t in c.texts), {"texts": texts.filter(len).map(column)}),
           "none": Flag(lambda c: not len(c.texts), {"texts": st.just([]).map(column)})},
)  # fmt: skip


def judge(text, c):
    """By hand: the tags found one after the other, each once, and what stands between."""
    text, at, spans = str(text), 0, []
    for tag in TAGS:
        if text.count(tag) != 1:
            return False
        where = text.find(tag, at)
        if where < 0:
            return False
        spans.append((where, where + len(tag)))
        at = where + len(tag)
    outer = text[: spans[0][0]] + text[spans[1][1] : spans[2][0]] + text[spans[3][1] :]
    blocks = text[spans[0][1] : spans[1][0]], text[spans[2][1] : spans[3][0]]
    if c.outside == "forbid" and outer.strip():
        return False
    return not c.nonempty or all(b.strip() for b in blocks)


@law(ID, "L1", closed_form=True, dtypes=WHOLE, given=space.reach("well_formed", "broken", "none"),
     kills=["order_ignored", "doubled_tags_pass", "outside_ignored", "nonempty_ignored", "answer_alone",
     "regex_that_nests"])  # fmt: skip
def built_and_broken(impl, c, expect):
    "1 exactly where a search by hand finds each tag once, in order, and nothing where nothing may stand."
    expect.same(impl(c), np.array([float(judge(t, c)) for t in c.texts], np.float64))


@law(ID, "L2", closed_form=True, dtypes=WHOLE, given=space.where(outside="allow", nonempty=False),
    kills=["order_ignored", "doubled_tags_pass", "regex_that_nests"])
def total_over_all_strings_of_tags(impl, c, expect):
    "All 4^4 strings of four tags, all of five that begin right: one order of 24 earns 1; doubled or nested tags none."
    for n, head in ((4, ()), (5, TAGS[:2])):
        strings = [head + tail for tail in itertools.product(TAGS, repeat=n - len(head))]
        found = impl(c.replace(texts=column(["".join(s) for s in strings])))
        expect.same(found, np.array([float(s == TAGS) for s in strings]), f"{n} tags")


@law(ID, "L3", dtypes=WHOLE, given=space.where(well_formed=True, outside="forbid", nonempty=False),
    kills=["no_white_space"],
     passes_null=["zeros"])  # fmt: skip
def white_space_is_free(impl, c, expect):
    "White space before, between and after the blocks changes nothing; a word there does."
    loose = ["\n " + t.replace("</think>", "</think>\n\t ") + "  " for t in c.texts]
    expect.same(impl(c.replace(texts=column(loose))), impl(c))
    expect.same(impl(c.replace(texts=column([t + " yes" for t in c.texts]))), np.zeros(len(c.texts)), "a word after")


# Mutants ---------------------------------------------------------------------------------------------


def default():
    """The default-size test: one good text, one without tags."""
    return (column(["<think>so</think><answer>2</answer>", "2"]),), {}


def _mutant(name, doc, good, thread=None):
    def function(texts, *, outside="forbid", nonempty=False):
        return np.array([float(bool(good(t, outside, nonempty))) for t in texts], np.float64)

    function.__name__, function.__doc__ = name, doc
    mutant(ID, default_case=default, thread=thread)(function)


class _Options:
    def __init__(self, outside, nonempty):
        self.outside, self.nonempty = outside, nonempty


def _right(t, outside, nonempty):
    return judge(t, _Options(outside, nonempty))


def _regex(t):
    import re

    return re.fullmatch(r"\s*<think>.*?</think>\s*<answer>.*?</answer>\s*", t, re.S)


_mutant("order_ignored", "Each tag once, in any order.", lambda t, o, n: _right(t, o, n) or (
    all(t.count(g) == 1 for g in TAGS) and not n and (o == "allow" or t.startswith("<"))))  # fmt: skip
_mutant("doubled_tags_pass", "Each tag at least once, in order.", lambda t, o, n: _right(t, o, n) or (
    not n and _regex(t) is not None and all(g in t for g in TAGS)))  # fmt: skip
_mutant("regex_that_nests", "The usual pattern <think>.*?</think>: tags within a block pass.",
        lambda t, o, n: _regex(t) if o == "forbid" and not n else _right(t, o, n)
        or (o == "allow" and not n and _regex(t)))  # fmt: skip
_mutant("outside_ignored", "outside='forbid' accepted and dropped.", lambda t, o, n: _right(t, "allow", n))
_mutant("nonempty_ignored", "nonempty accepted and dropped.", lambda t, o, n: _right(t, o, False))
_mutant("answer_alone", "An answer block is enough.", lambda t, o, n: "<answer>" in t and "</answer>" in t)
_mutant("no_white_space", "Nothing at all may stand outside.", lambda t, o, n: _right(t, o, n) and (
    o == "allow" or (t.startswith("<") and t.endswith(">") and "</think><answer>" in t)))  # fmt: skip
