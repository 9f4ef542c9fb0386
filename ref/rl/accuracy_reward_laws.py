"""Laws and mutants of the accuracy reward."""

from __future__ import annotations

import time
from fractions import Fraction

import numpy as np
from hypothesis import strategies as st

from ref.spec import law, mutant
from ref.spec.cases import Flag, cases, choose

ID = "rl.accuracy_reward"
WHOLE = ("float64",)  # texts in
numbers = st.builds(Fraction, st.integers(-2000, 2000), st.sampled_from((1, 2, 4, 5, 8, 10, 3, 7)))


def spellings(x):
    """Texts that spell a number."""
    top, bottom = x.numerator, x.denominator
    out = [f"{top}/{bottom}", f" {top} / {bottom} ", f"\\frac{{{top}}}{{{bottom}}}", f"$\\dfrac{{{top}}}{{{bottom}}}$",
        f"{2 * top}/{2 * bottom}"]
    if bottom == 1:
        out += [f"{top}", f"{top}.0", f"\\boxed{{{top}}}", f"{top:,}", f"{100 * top}%", f"{top}."]
    decimal = x * 10**6
    if decimal.denominator == 1:
        sign, digits = ("-" if x < 0 else ""), f"{abs(decimal.numerator):07d}"
        out += [f"{sign}{digits[:-6]}.{digits[-6:]}", f"{decimal.numerator}e-6", f"{100 * decimal.numerator}e-6 \\%"]
    return out


def wrapped(text):
    return f"<think>so</think><answer>{text}</answer>"


def column(texts):
    """An array of texts."""
    out = np.empty(len(texts), object)
    out[:] = list(texts)
    return out


def drawn(draw, c):
    """(texts, answers): spellings of numbers, equal or not."""
    pairs = []
    for _ in range(draw(st.integers(0, 3))):
        x = draw(numbers)
        y = x if draw(st.booleans()) else draw(numbers)
        pairs.append((draw(st.sampled_from(spellings(x))), draw(st.sampled_from(spellings(y))), x == y))
    return pairs


space = cases(
    ID, pairs=drawn, extract=choose(True, False),
    texts=lambda draw, c: column([wrapped(t) if c.extract else t for t, _, _ in c.pairs]),
    answers=lambda draw, c: column([a for _, a, _ in c.pairs]), n=lambda draw, c: len(c.pairs),
    flags={"both": Flag(lambda c: len({e for _, _, e in c.pairs}) == 2,
    {"pairs": lambda draw, c: drawn(draw, c) + [("1", "1.0", True), ("1", "2", False)]}),
           "some": Flag(lambda c: len(c.pairs) > 0,
           {"pairs": lambda draw, c: drawn(draw, c) + [("1/2", "0.5", True)]})},
)  # fmt: skip


@law(ID, "L1", closed_form=True, dtypes=WHOLE, given=space.reach("both", "some"),
     kills=["compares_strings", "no_fractions", "commas_end_a_number", "sign_ignored", "no_percent",
     "by_floats"])  # fmt: skip
def one_number_in_many_spellings(impl, c, expect):
    "Fractions, decimals, exponents, percent, thousands, LaTeX: equal exactly where the numbers are; and 1/3 = 2/6."
    expect.same(impl(c), np.array([float(e) for _, _, e in c.pairs], np.float64))
    near = [("9007199254740993", "9007199254740992"), ("0.1", "0.10000000000000000001"), ("1/3", "2/6"),
        ("-1/2", "1/2"), ("1,000", "1000")]
    texts = [wrapped(a) if c.extract else a for a, _ in near]
    expect.same(impl(c.replace(texts=column(texts), answers=column([b for _, b in near]))),
        np.array([0.0, 0.0, 1.0, 0.0, 1.0]), "near ones")


@law(ID, "L2", closed_form=True, dtypes=WHOLE, given=space.where(some=True),
    kills=["contains_the_answer", "with_tolerance", "compares_strings"])
def other_numbers_are_wrong(impl, c, expect):
    "A number that only contains the digits, or is close, is wrong; text that is no number is compared as text."
    rows = [("142", "42", 0), ("42 or 43", "42", 0), ("3.14159", "3.14160", 0), ("Paris", " paris", 1),
        ("new  york", "New York", 1), ("x", "y", 0),
            ("1/0", "1/0", 1), ("1/0", "2/0", 0), ("", "", 1), ("0", "-0", 1)]  # fmt: skip
    texts = [wrapped(a) if c.extract else a for a, _, _ in rows]
    expect.same(impl(c.replace(texts=column(texts), answers=column([b for _, b, _ in rows]))),
        np.array([float(e) for _, _, e in rows]))


@law(ID, "L3", dtypes=WHOLE, given=space.where(extract=False), kills=["raises_on_junk"],
     passes_null=["zeros", "constant"])  # fmt: skip
def no_text_raises_or_hangs(impl, c, expect):
    "Any string has a reward of 0 or 1, in no time: huge exponents, braces, unfinished LaTeX, control characters."
    junk = ["1e999999999", "-", "+", ".", "1//2", "\\frac{}{}", "\\frac{1}{", "\\boxed{\\boxed{1}", "%", "1e",
        "(" * 4000, "9" * 100000, "\x00", "$$", "1/", "/2",
            "\\frac{\\frac{1}{2}}{3}", "\u0663", "e5", ",,,", "1,2,3", "\u00bd", "0x10", "1_000", "inf",
            "nan"]  # fmt: skip
    start = time.perf_counter()
    found = impl(c.replace(texts=column(junk), answers=column(["7"] * len(junk))))
    expect.at_most(time.perf_counter() - start, 2.0, "seconds")
    expect.holds(not np.any(np.asarray(found) == 2), "a reward of 0 or 1")


@law(ID, "L4", closed_form=True, dtypes=WHOLE, given=space.where(extract=True, some=True),
    kills=["takes_the_last_answer", "whole_text"])
def unformatted_answers_earn_nothing(impl, c, expect):
    "The right number without the tags, in doubled or nested tags, or in the think block: 0; in the answer block: 1."
    rows = [("2", 0), ("<answer>2</answer>", 0), ("<think>2</think><answer>3</answer>", 0),
        ("<think></think><answer>3</answer><answer>2</answer>", 0),
            ("<think></think><answer><answer>2</answer></answer>", 0),
            ("<think>3</think><answer> 2 </answer>", 1)]  # fmt: skip
    expect.same(impl(c.replace(texts=column([t for t, _ in rows]), answers=column(["2"] * len(rows)))),
        np.array([float(e) for _, e in rows]))


# Mutants ---------------------------------------------------------------------------------------------


def default():
    """The default-size test: small whole numbers."""
    return (column([wrapped("2"), wrapped("3")]), column(["2", "2"])), {}


def plain(texts, answers, *, extract=True, **edit):
    def block(t):
        if not extract or edit.get("whole"):
            return t.replace("<think>so</think><answer>", "").replace("</answer>", "") if edit.get("whole") else t
        if edit.get("last"):
            return t.rpartition("<answer>")[2].partition("</answer>")[0] if "<answer>" in t else None
        tags = ("<think>", "</think>", "<answer>", "</answer>")
        places = [t.find(g) for g in tags]
        if any(t.count(g) != 1 for g in tags) or places != sorted(places):
            return None
        return t[places[2] + 8 : places[3]]

    def right(t, a):
        t = block(t)
        if t is None:
            return False
        same = edit.get("same")
        mine, theirs = number(t, edit), number(a, edit)
        if same is not None:
            return same(t, a, mine, theirs)
        return mine == theirs if mine is not None and theirs is not None else " ".join(t.split()).casefold(
            ) == " ".join(a.split()).casefold()

    return np.array([float(right(t, a)) for t, a in zip(texts, answers, strict=True)], np.float64)


def number(text, edit):
    import re

    text = text.strip().strip("$").strip()
    if len(text) > 3000:
        return None
    text = re.sub(r"\\boxed\{(.*)\}", r"\1", text).rstrip(".")
    if not edit.get("no_fractions"):
        text = re.sub(r"\\d?frac\{([^{}]*)\}\{([^{}]*)\}", r"\1/\2", text)
    text = text.replace("\\%", "%").replace(" ", "")
    text = text.partition(",")[0] if edit.get("commas") else text.replace(",", "")
    text = text.lstrip("+-") if edit.get("sign") else text
    percent = text.endswith("%") and not edit.get("percent")
    text = text.rstrip("%") if percent else text
    if not re.fullmatch(r"[+-]?[\d.]+(e[+-]?\d{1,4})?(/[\d.]+)?", text, re.I):
        return None
    top, _, bottom = text.partition("/")
    if top.count(".") > 1 or not top.strip("+-.") or (bottom and (bottom.count(".") > 1 or not bottom.strip("."))):
        return None
    if (bottom and edit.get("no_fractions")) or (bottom and not Fraction(bottom)):
        return None
    value = Fraction(top) / (Fraction(bottom) if bottom else 1) / (100 if percent else 1)
    return float(value) if edit.get("floats") else value


def _mutant(name, doc, **edit):
    def function(*args, **options):
        return plain(*args, **options, **edit)

    function.__name__, function.__doc__ = name, doc
    mutant(ID, default_case=default)(function)


_mutant("compares_strings", "As text alone.", same=lambda t, a, m, n: t.strip() == a.strip())
_mutant("contains_the_answer", "The reference anywhere in the answer.", same=lambda t, a, m, n: m == n if m is not None
    and n is not None and m == n else a.strip() in t)
_mutant("with_tolerance", "Within 1e-3.", same=lambda t, a, m, n: abs(m - n) < 1e-3 if m is not None and n is not None
    else t.strip().casefold() == a.strip().casefold())
_mutant("no_fractions", "1/2 is no number.", no_fractions=True)
_mutant("commas_end_a_number", "1,000 is 1.", commas=True)
_mutant("sign_ignored", "-2 is 2.", sign=True)
_mutant("no_percent", "50% is no number.", percent=True)
_mutant("by_floats", "Compared as floats: 2^53 + 1 is 2^53.", floats=True)
_mutant("takes_the_last_answer", "The last answer block, whatever the format.", last=True)
_mutant("whole_text", "The whole text, tags aside.", whole=True)


def _hangs(texts, answers, **options):
    found = plain(texts, answers, **options)
    return np.where([len(t) > 3000 for t in texts], 2.0, found)


_hangs.__name__, _hangs.__doc__ = "raises_on_junk", "What it cannot read is marked 2."
mutant(ID, default_case=default)(_hangs)
