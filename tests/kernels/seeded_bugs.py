"""Wrong lines that the kernels carry as switches (SEEDED and BUG in cuda/), and a case that kills each.

The cases were found by tests/deep/kernel_bugs.py, which looks for the smallest among drawn ones.
"""

from typing import NamedTuple

from tests.kernels.attention_run import Pack
from tests.kernels.cases import BF16, Case

__all__ = ["BUGS", "Bug"]


class Bug(NamedTuple):
    """What is wrong, at which level, and the case that shows it."""

    level: str
    words: str
    killer: Case | Pack
    backward: bool = False


def small(d=64, T=64, S=64, mask="full", softcap=None, order=0, H=1, G=1, seed=0, dtype=BF16):
    return Case(dtype, 1, H, G, T, S, d, d, mask, softcap, order, seed)


BUGS = {
    1: Bug("L1", "segments aligned by the longest, not by themselves", Pack((3, 70), (5, 70), 64, "causal")),
    2: Bug("L1", "rows past the end are not zeroed", small(T=64, S=130, mask="window")),
    3: Bug("L1", "the row maximum misses half of the quad", small()),
    4: Bug("L1", "a maximum of -inf is not guarded", small(T=70, S=5, mask="causal")),
    5: Bug("L1", "the sum is not rescaled by a new maximum", small(S=130)),
    6: Bug("L1", "the output is not rescaled by a new maximum", small(S=130)),
    7: Bug("L1", "keys past the end are counted", small(S=33)),
    8: Bug("L1", "a window has no left edge", small(mask="window")),
    9: Bug("L1", "query heads take key heads in turn (tile for repeat)", small(H=4, G=2)),
    10: Bug("L1", "the last, ragged tile is dropped", small(S=70)),
    11: Bug("L1", "no barrier before K is read", small(S=130, order=1)),
    12: Bug("L1", "V is read before it has landed", small()),
    13: Bug("L1", "V is always read from the first stage", small(S=130)),
    14: Bug("L1", "lse is left in units of 2", small()),
    21: Bug("L1", "the softcap's slope is missing", small(softcap=3.0), True),
    22: Bug("L1", "P of unseen pairs is not selected to 0", small(mask="causal"), True),
    23: Bug("L1", "delta is not subtracted", small(), True),
    24: Bug("L1", "dK and dV of the group's first head alone", small(H=2), True),
    25: Bug("L1", "rows are counted from 0, not from the first that sees", small(T=200, S=200, mask="causal"), True),
    26: Bug("L1", "a stage is overwritten while it is read", small(T=200, S=64, order=2), True),
    27: Bug("L1", "dK is not scaled", small(), True),
    28: Bug("L1", "K is read before it has landed, in dQ", small(), True),
    41: Bug("L2", "the producer does not wait until a stage of K is free", small(S=600, order=2)),
    42: Bug("L2", "half the bytes of K are expected", small()),
    43: Bug("L2", "the producer does not wait until a stage of V is free", small(S=600, order=2)),
    44: Bug("L2", "a maximum of -inf is not guarded", small(T=70, S=5, mask="causal")),
    45: Bug("L2", "the sum is not rescaled by a new maximum", small(S=300)),
    46: Bug("L2", "keys past the end are counted", small(S=33)),
    47: Bug("L2", "K is read before it has landed", small()),
    48: Bug("L2", "no fence before the products", small()),
    49: Bug("L2", "the second 16 channels are looked for 16 bytes on", small()),
    50: Bug("L2", "scores are added to those of the tile before", small(S=300)),
    51: Bug("L2", "V is read before it has landed", small()),
    52: Bug("L2", "V is always read from the first stage", small(S=300)),
    53: Bug("L2", "the second 64 channels of V are looked for 128 bytes on", small(d=128)),
    54: Bug("L2", "a warpgroup asks whether its neighbour's tile is full", small(T=192, S=192, mask="causal")),
    55: Bug("L2", "nobody has the first turn", small()),
    56: Bug("L2", "scores are read before they are done", small(S=300)),
    57: Bug("L2", "the output is not rescaled by a new maximum", small(S=300)),
    58: Bug("L2", "a row past the end is written", small(T=33, S=40)),
    59: Bug("L2", "lse is left in units of 2", small()),
    60: Bug("L2", "query heads take key heads in turn (tile for repeat)", small(H=4, G=2)),
}
