"""R1's language consistency reward: the share of a text's words in the target language.

Source: DeepSeek-AI 2025 (2501.12948) sec. 2.3.2.

    reward = words in the target script / all words        0 for a text without words

Conventions
    C1  A word is a run of letters of one alphabet; of Han, kana and hangul each character is a word, for they have no
        spaces. Digits, signs and white space are no words: a formula speaks no language.
    C2  Languages are told by script ("latin", "han", ..): English and French are alike here.
    C3  Total: any string has a reward in [0, 1].

Laws
    L1 shares_of_built_texts                L2 signs_and_digits_count_for_nothing
    L3 the_scripts_add_to_one
"""

from __future__ import annotations

import unicodedata
from itertools import groupby

import numpy as np

from ref.rl.format_reward import strings
from ref.spec import spec

SCRIPTS = ("latin", "han", "cyrillic", "greek", "arabic", "hebrew", "devanagari", "kana", "hangul", "thai", "other")
_BY_CHARACTER = ("han", "kana", "hangul")
_NAMES = {
    "LATIN": "latin", "CJK": "han", "CYRILLIC": "cyrillic", "GREEK": "greek", "ARABIC": "arabic", "HEBREW": "hebrew",
    "DEVANAGARI": "devanagari", "HIRAGANA": "kana", "KATAKANA": "kana", "HANGUL": "hangul", "THAI": "thai",
}  # fmt: skip


@spec("rl.language_consistency", "texts:any[n] -> [n]", backends=("numpy",))
def language_consistency(texts, *, script):
    """Share of each text's words that are in the script.

    Parameters
    ----------
    texts : list or array of str
    script : str
        One of SCRIPTS.

    Returns
    -------
    float64[n]

    Raises
    ------
    ValueError
        An unknown script.
    TypeError
        texts is no list or array of strings.

    Complexity: the length of the texts.

    >>> language_consistency(["let x be \u6570", "1 + 1 = 2"], script="latin")
    array([0.75, 0.  ])
    """
    texts = strings("language_consistency", "texts", texts)
    if script not in SCRIPTS:
        raise ValueError(f"language_consistency: script={script!r}; needed one of {', '.join(SCRIPTS)}")
    return np.array([_share(list(_words(text)), script) for text in texts], np.float64)


def _share(words, script):
    return words.count(script) / len(words) if words else 0.0


def _words(text):
    """The script of each word."""
    for script, run in groupby(text, script_of):
        if script is not None:
            yield from [script] * (sum(1 for _ in run) if script in _BY_CHARACTER else 1)


def script_of(character):
    """The script of a letter; None for what is no letter. A combining mark is no letter."""
    if not character.isalpha():
        return None
    first = unicodedata.name(character, "").split(" ")[0]
    return _NAMES.get(first, "other")
