"""R1's accuracy reward: the final answer, parsed and compared by value.

Source: DeepSeek-AI 2025 (2501.12948) sec. 2.2.2: rule-based rewards for answers that can be checked.

    1 if the answer block holds the reference's number (or, where either is no number, its text), else 0

Conventions
    C1  Total: any string has a reward; none raises and none takes long, whatever exponents it names.
    C2  Numbers by value, exactly: 1/2 = 0.5 = .50 = 5e-1 = \\frac{1}{2} = 50%; 1,000 = 1000. A sign, a fraction of two
        decimals, \\boxed{} and $ are read; 1/0 is no number. No tolerance.
    C3  What is no number is compared as text, without case and with white space folded.
    C4  The answer is the answer block of a well-formed text (`format_reward`); a text that is not has none and gets 0.
        extract=False takes the whole text.

Laws
    L1 one_number_in_many_spellings         L2 other_numbers_are_wrong
    L3 no_text_raises_or_hangs              L4 unformatted_answers_earn_nothing
"""

from __future__ import annotations

import re
from fractions import Fraction

import numpy as np

from ref.rl.format_reward import parse, strings
from ref.spec import spec

_DECIMAL = r"(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d*)?(?:[eE][+-]?\d{1,4})?"
_NUMBER = re.compile(rf"([+-]?)\s*({_DECIMAL})\s*(?:/\s*({_DECIMAL}))?\s*(\\?%)?")
_FRACTION = re.compile(r"\\d?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}")
_BOXED = re.compile(r"\\boxed\s*\{(.*)\}", re.S)
MOST = 4000  # characters of an answer that is read as a number


@spec("rl.accuracy_reward", "texts:any[n], answers:any[n] -> [n]", backends=("numpy",))
def accuracy_reward(texts, answers, *, extract=True):
    """1 for each text whose answer is the reference's, 0 for each other.

    Parameters
    ----------
    texts : list or array of str
    answers : list or array of str
        References, one a text.
    extract : bool
        Take the answer block (C4), or the whole text.

    Returns
    -------
    float64[n]

    Raises
    ------
    ValueError
        Another number of answers than of texts.
    TypeError
        texts or answers is no list or array of strings.

    Complexity: the length of the texts.

    >>> accuracy_reward(["<think></think><answer>0.5</answer>", "0.5"], ["1/2", "1/2"])
    array([1., 0.])
    """
    texts, answers = strings("accuracy_reward", "texts", texts), strings("accuracy_reward", "answers", answers)
    if len(texts) != len(answers):
        raise ValueError(f"accuracy_reward: {len(texts)} texts and {len(answers)} answers; needed one each")
    return np.array([float(_right(t, a, extract)) for t, a in zip(texts, answers, strict=True)], np.float64)


def _right(text, answer, extract):
    if extract:
        parsed = parse(text)
        if parsed is None:
            return False
        text = parsed.answer
    mine, theirs = value_of(text), value_of(answer)
    if mine is None or theirs is None:
        return _folded(text) == _folded(answer)
    return mine == theirs


def value_of(text):
    """The number that a text spells, as a Fraction, or None."""
    text = text.strip().strip("$").strip()
    if len(text) > MOST:
        return None
    boxed = _BOXED.fullmatch(text)
    text = (boxed[1] if boxed else text).strip().strip("$").strip().rstrip(".") or "."
    text = _FRACTION.sub(r"\1/\2", text.replace("\\,", "").replace("\\!", ""))
    found = _NUMBER.fullmatch(text.strip())
    if found is None:
        return None
    sign, top, bottom, percent = found.groups()
    top, bottom = _decimal(top), Fraction(1) if bottom is None else _decimal(bottom)
    if top is None or not bottom:
        return None
    value = top / bottom / (100 if percent else 1)
    return -value if sign == "-" else value


def _decimal(text):
    """A Fraction, or None where there is no digit."""
    mantissa = text.replace(",", "")
    if not any(ch.isdigit() for ch in re.split("[eE]", mantissa)[0]):
        return None
    return Fraction(mantissa)


def _folded(text):
    return " ".join(text.split()).casefold()
