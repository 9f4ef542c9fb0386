"""Which kernel takes a call of attention: one table, read by the dispatcher and by its test.

    L0  SIMT float32, any option and head dimension; the oracle of the others
    L1  mma.sync, float16 and bfloat16, head dimensions 64 and 128
    L2  wgmma and the copy engine, forward alone, compute capability 9.0

A call goes to the highest level that takes all of it: capability, dtype, head dimension, options, alignment.
What none takes goes to the composite. CLOSEDFORM_ATTENTION_LEVEL = L0, L1 or L2 names the highest level that
may be used, `composite` none.
"""

import os
from typing import NamedTuple

from backends.kernels import BFLOAT16, FLOAT16, FLOAT32

__all__ = ["LEVELS", "Level", "choose", "level_of", "needs", "table"]

ENVIRONMENT = "CLOSEDFORM_ATTENTION_LEVEL"
OPTIONS = ("softcap", "window", "mask array", "bias", "ALiBi", "dropout", "varlen", "d != e", "scale <= 0",
           "unaligned", "backward")  # fmt: skip


class Level(NamedTuple):
    """What a level's kernels take."""

    capability: tuple  # the lowest
    only: bool  # that capability and no other: its instructions are not in later ones
    storages: frozenset
    head_dims: frozenset | None  # None: any
    options: frozenset


LEVELS = {
    "L2": Level((9, 0), True, frozenset({FLOAT16, BFLOAT16}), frozenset({64, 128}), frozenset({"softcap"})),
    "L1": Level((8, 0), False, frozenset({FLOAT16, BFLOAT16}), frozenset({64, 128}),
                frozenset({"softcap", "window", "varlen", "backward"})),
    "L0": Level((8, 0), False, frozenset({FLOAT32, FLOAT16, BFLOAT16}), None, frozenset(OPTIONS)),
}  # fmt: skip


def needs(p, backward=False):
    """The options that a problem uses."""
    used = {
        "softcap": p.softcap > 0,
        "window": p.window,
        "mask array": p.mask is not None,
        "bias": p.bias is not None,
        "ALiBi": p.slopes is not None,
        "dropout": p.dropout[0] > 0,
        "varlen": p.cu_q is not None,
        "d != e": p.q.shape[-1] != p.v.shape[-1],
        "scale <= 0": not p.scale > 0,
        "unaligned": False,
        "backward": backward,
    }
    return {name for name, value in used.items() if value}


def unaligned(arrays, pointer):
    """Whether some array [B H T c] has a row that does not start at a multiple of 16 bytes, or repeats one."""
    steps = [(n, s) for x in arrays for n, s in zip(x.shape[:3], x.strides[:3], strict=True)]
    return any(pointer(x) % 16 for x in arrays) or any(s % 16 or (n > 1 and s == 0) for n, s in steps)


def level_of(capability, storage, d, options):
    """The highest level that takes these, or None."""
    allowed = os.environ.get(ENVIRONMENT, "L2")
    if allowed not in (*LEVELS, "composite"):
        raise ValueError(f"{ENVIRONMENT}={allowed}; needed one of {', '.join(LEVELS)}, composite")
    for name, level in LEVELS.items():
        if allowed != "composite" and name <= allowed and (
            (capability == level.capability if level.only else capability >= level.capability)
            and storage in level.storages
            and (level.head_dims is None or d in level.head_dims)
            and options <= level.options
        ):
            return name
    return None


def choose(device, p, backward=False, others=()):
    """The level of a problem on a device, or None; `others` are arrays besides q, k, v."""
    if max(p.q.shape[1], p.B) > 65535:  # a grid's second and third axis
        return None
    options = needs(p, backward)
    if unaligned((p.q, p.k, p.v, *others), device.pointer):
        options.add("unaligned")
    level = level_of(device.capability, p.storage, p.q.shape[-1], options)
    if level == "L2" and not device.wgmma_works:
        return level_of(device.capability, p.storage, p.q.shape[-1], options | {"window"})
    return level


def table():
    """The options by level, as lines of Markdown."""
    yield "| | " + " | ".join(LEVELS) + " |"
    yield "| --- |" + " --- |" * len(LEVELS)
    for option in OPTIONS:
        yield f"| {option} | " + " | ".join("yes" if option in x.options else "" for x in LEVELS.values()) + " |"
    names = {FLOAT32: "float32", FLOAT16: "float16", BFLOAT16: "bfloat16"}
    dtypes = (", ".join(names[s] for s in sorted(x.storages)) for x in LEVELS.values())
    yield "| dtypes | " + " | ".join(dtypes) + " |"
    dims = ("any" if x.head_dims is None else ", ".join(map(str, sorted(x.head_dims))) for x in LEVELS.values())
    yield "| head dimensions | " + " | ".join(dims) + " |"
    above = (f"{x.capability[0]}.{x.capability[1]}" + ("" if x.only else " and later") for x in LEVELS.values())
    yield "| compute capability | " + " | ".join(above) + " |"


if __name__ == "__main__":
    print(*table(), sep="\n")
