"""Laws and mutants of the language consistency reward."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from hypothesis import strategies as st

from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, cases, choose

ID = "rl.language_consistency"
WHOLE = ("float64",)  # texts in
SCRIPTS = ("latin", "han", "cyrillic", "greek", "arabic", "hebrew", "devanagari", "kana", "hangul", "thai", "other")
WORDS = {"latin": ("so", "caf\u00e9", "Stra\u00dfe"), "han": ("\u6570",), "cyrillic": ("\u0442\u0430\u043a",),
    "greek": ("\u03bb\u03cc\u03b3\u03bf\u03c2",),
         "kana": ("\u304b",), "hangul": ("\uc218",)}  # fmt: skip
def column(texts):
    """An array of texts."""
    out = np.empty(len(texts), object)
    out[:] = list(texts)
    return out


pieces = st.lists(st.sampled_from([(s, w) for s, ws in WORDS.items() for w in ws] + [(None, x)
    for x in ("1 + 1 = 2", "42", "\u2211", "!")]), max_size=6)
space = cases(
    ID, built=st.lists(pieces, max_size=3), script=choose("latin", "han", "greek", "cyrillic"),
    texts=lambda draw, c: column([" ".join(w for _, w in p) for p in c.built]), n=lambda draw, c: len(c.built),
    flags={"mixed": Flag(lambda c: any(len({s for s, _ in p if s}) > 1 for p in c.built),
                         {"built": st.lists(st.just([("latin", "so"), ("han", "\u6570"), (None, "42")]), min_size=1,
                         max_size=2)}),
           "wordless": Flag(lambda c: any(not any(s for s, _ in p) for p in c.built),
           {"built": st.just([[(None, "1 + 1")], [("latin", "so")]])})},
)  # fmt: skip


@law(ID, "L1", closed_form=True, dtypes=WHOLE, given=space.reach("mixed", "wordless"),
    kills=["share_of_characters", "all_or_nothing", "ascii_alone", "digits_are_words", "han_runs_are_words"])
def shares_of_built_texts(impl, c, expect):
    "Texts built of words of known scripts: the share of the target's, in fractions; 0 without words."
    wanted = []
    for built in c.built:
        words = [s for s, _ in built if s]
        wanted.append(float(Fraction(words.count(c.script), len(words))) if words else 0.0)
    expect(impl(c), np.array(wanted, np.float64), bounds.rounding(2, 1.0, "float64"), scale=1.0)
    run = c.replace(texts=column(["so \u6570\u6570\u6570"]), built=[], script="han")
    expect(impl(run), np.array([0.75]), bounds.rounding(2, 1.0, "float64"), "a run of Han", scale=1.0)


@law(ID, "L2", dtypes=WHOLE, given=space.where(mixed=True), kills=["digits_are_words"],
    passes_null=["zeros", "constant"])
def signs_and_digits_count_for_nothing(impl, c, expect):
    "A formula added to a text changes nothing."
    expect.same(impl(c.replace(texts=column([t + " 12 + 30 = 42 !" for t in c.texts]))), impl(c))


@law(ID, "L3", closed_form=True, dtypes=WHOLE, given=space.where(mixed=True), kills=["share_of_the_target_or_latin"])
def the_scripts_add_to_one(impl, c, expect):
    "The shares of all scripts of a text with words add up to 1."
    total = sum(np.asarray(impl(c.replace(script=s))) for s in SCRIPTS)
    expect(total, np.array([float(any(s for s, _ in p)) for p in c.built]), bounds.rounding(16, 1.0, "float64"),
        scale=1.0)


# Mutants ---------------------------------------------------------------------------------------------


def default():
    """The default-size test: one English sentence."""
    return (column(["so it is"]),), {"script": "latin"}


def scripts(text, characters=False, digits=False, runs=False):
    import unicodedata
    from itertools import groupby

    names = {"LATIN": "latin", "CJK": "han", "CYRILLIC": "cyrillic", "GREEK": "greek", "HIRAGANA": "kana",
        "HANGUL": "hangul"}

    def of(ch):
        if ch.isalpha():
            return names.get(unicodedata.name(ch, "").split(" ")[0], "other")
        return "other" if digits and ch.isdigit() else None

    out = []
    for s, run in groupby(text, of):
        if s is not None:
            out += [s] * (len(list(run)) if characters or (s in ("han", "kana", "hangul") and not runs) else 1)
    return out


def _mutant(name, doc, share, **how):
    def function(texts, *, script):
        return np.array([share(scripts(t, **how), script, t) for t in texts], np.float64)

    function.__name__, function.__doc__ = name, doc
    mutant(ID, default_case=default)(function)


def _share(words, script, text):
    return words.count(script) / len(words) if words else 0.0


_mutant("share_of_characters", "Letters, not words.", _share, characters=True)
_mutant("all_or_nothing", "1 if every word is in the script.",
    lambda w, s, t: float(bool(w) and all(x == s for x in w)))
_mutant("ascii_alone", "Latin is ASCII: accented words are foreign.", lambda w, s, t: _share(
    [("latin" if p.isascii() else "other" if s == "latin" else x) for p in t.split() for x in scripts(p)], s,
    t))  # fmt: skip
_mutant("digits_are_words", "Numbers are words of no language.", _share, digits=True)
_mutant("han_runs_are_words", "A run of Han is one word.", _share, runs=True)
_mutant("share_of_the_target_or_latin", "Latin words count for any target.",
    lambda w, s, t: (w.count(s) + (w.count("latin") if s != "latin" else 0)) / max(len(w), 1))
