"""R1's reward: accuracy and format, and in the second stage the language of the thought.

Source: DeepSeek-AI 2025 (2501.12948) sec. 2.2.2 (R1-Zero) and 2.3.2 (R1).

    reward = accuracy_weight accuracy + format_weight format + language_weight consistency of the thought

Conventions
    C1  The paper gives no weights: 1, 1 and 0 (R1-Zero's) unless said.
    C2  The consistency is that of the think block; a text that is not well-formed has none: 0.

Laws
    L1 the_weighted_sum                     L2 a_broken_format_earns_nothing
"""

from __future__ import annotations

import numpy as np

from ref.rl.accuracy_reward import accuracy_reward
from ref.rl.format_reward import format_reward, parse, strings
from ref.rl.language_consistency import language_consistency
from ref.spec import spec


@spec("rl.r1_reward", "texts:any[n], answers:any[n] -> [n]", backends=("numpy",))
def r1_reward(texts, answers, *, accuracy_weight=1.0, format_weight=1.0, language_weight=0.0, script="latin"):
    """The reward of each text.

    Parameters
    ----------
    texts : list or array of str
    answers : list or array of str
        References, one a text.
    accuracy_weight, format_weight, language_weight : float
    script : str
        The language of the thought, as `language_consistency` takes it.

    Returns
    -------
    float64[n]

    Raises
    ------
    ValueError
        Another number of answers than of texts, or an unknown script.
    TypeError
        texts or answers is no list or array of strings.

    Complexity: the length of the texts.

    >>> r1_reward(["<think>so</think><answer>2</answer>", "<think>so</think><answer>3</answer>", "2"], ["2"] * 3)
    array([2., 1., 0.])
    """
    texts = strings("r1_reward", "texts", texts)
    thoughts = [p.think if (p := parse(t)) else "" for t in texts]
    parts = (
        accuracy_weight * accuracy_reward(texts, answers), format_weight * format_reward(texts),
        language_weight * language_consistency(thoughts, script=script),
    )  # fmt: skip
    return np.asarray(sum(parts))
