"""R1's format reward: think and answer tags exactly once, in order, and nothing outside them.

Source: DeepSeek-AI 2025 (2501.12948) sec. 2.2.2 and Table 1.

    1 if the text is  <think> .. </think> <answer> .. </answer>  with each of the four tags once, in this order,
    and nothing but white space before, between and after the two blocks; else 0

Conventions
    C1  Total: any string has a reward, none raises. A doubled, nested, missing or misplaced tag is 0.
    C2  outside="allow" lets text stand outside the blocks: only the tags are counted and ordered.
    C3  Tags are exact: no spaces, no attributes, lower case. Blocks may be empty unless `nonempty`.

Laws
    L1 built_and_broken                     L2 total_over_all_strings_of_tags
    L3 white_space_is_free
"""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np

from ref.spec import spec

TAGS = ("<think>", "</think>", "<answer>", "</answer>")
_TAG = re.compile("|".join(map(re.escape, TAGS)))


class Parsed(NamedTuple):
    """The two blocks of a well-formed text."""

    think: str
    answer: str


@spec("rl.format_reward", "texts:any[n] -> [n]", backends=("numpy",))
def format_reward(texts, *, outside="forbid", nonempty=False):
    """1 for each well-formed text, 0 for each other.

    Parameters
    ----------
    texts : list or array of str
    outside : "forbid" or "allow"
        Text outside the two blocks.
    nonempty : bool
        Whether both blocks must hold more than white space.

    Returns
    -------
    float64[n]

    Raises
    ------
    ValueError
        Another `outside`.
    TypeError
        texts is no list or array of strings.

    Complexity: the length of the texts.

    >>> format_reward(["<think>1+1</think> <answer>2</answer>", "<answer>2</answer><think>1+1</think>"])
    array([1., 0.])
    """
    found = [parse(text, outside=outside) for text in strings("format_reward", "texts", texts)]
    if nonempty:
        found = [p if p and p.think.strip() and p.answer.strip() else None for p in found]
    return np.array([float(p is not None) for p in found], np.float64)


def parse(text, *, outside="forbid"):
    """Parsed, or None where the text is not well-formed."""
    if outside not in ("forbid", "allow"):
        raise ValueError(f"format_reward: outside={outside!r}; needed 'forbid' or 'allow'")
    found = list(_TAG.finditer(text))
    if tuple(m[0] for m in found) != TAGS:
        return None
    a, b, c, d = found
    around = text[: a.start()] + text[b.end() : c.start()] + text[d.end() :]
    if outside == "forbid" and around.strip():
        return None
    return Parsed(text[a.end() : b.start()], text[c.end() : d.start()])


def strings(function, name, texts):
    """The texts as a list; TypeError unless they are a list, tuple or array with one axis, of strings."""
    if isinstance(texts, np.ndarray) and texts.ndim == 1:
        texts = texts.tolist()
    if not isinstance(texts, list | tuple) or not all(isinstance(t, str) for t in texts):
        raise TypeError(f"{function}: {name} is a {type(texts).__name__}; needed a list or an array[n] of str")
    return list(texts)
