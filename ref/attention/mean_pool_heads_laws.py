"""Laws and mutants of mean-pooled key heads."""

from __future__ import annotations

import numpy as np

from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, cases, choose, dims

ID = "attention.mean_pool_heads"
space = cases(
    ID, groups=dims(1, 3), R=dims(1, 4), d=dims(1, 3), I=dims(0, 3), heads=lambda draw, c: c.groups * c.R,
    Hd=lambda draw, c: c.heads * c.d, Gd=lambda draw, c: c.groups * c.d,
    flags={"grouped": Flag(lambda c: min(c.groups, c.R, c.d) > 1 and c.I > 0,
                           {"groups": 2, "R": choose(2, 3), "d": 2, "I": 2})},
)  # fmt: skip


def bound(c):
    return bounds.rounding(c.R + 2, float(np.max(np.abs(c.weight), initial=0.0)), c.dtype)


def means(c):
    """Row g d + i is the mean of rows (g R + r) d + i."""
    w = np.asarray(c.weight, np.float64)
    rows = [
        sum(w[(g * c.R + r) * c.d + i] for r in range(c.R)) / c.R for g in range(c.groups) for i in range(c.d)
    ]
    return np.array(rows).reshape(c.Gd, c.I)


@law(
    ID, "L1", closed_form=True, given=space.reach("grouped"),
    kills=["first_head", "not_divided", "strided_groups", "channels_first"],
)  # fmt: skip
def a_group_is_the_mean_of_its_heads(impl, c, expect):
    "Row i of group g is the mean of row i of heads g R .. (g + 1) R - 1."
    expect(impl(c), means(c), bound(c), scale=float(np.max(np.abs(c.weight), initial=0.0)))


@law(ID, "L2", closed_form=True, given=space.reach("grouped"), kills=["not_divided", "strided_groups"])
def equal_heads_are_kept(impl, c, expect):
    "Heads of a group all alike: each group is that head."
    own = c.weight.reshape(c.groups, c.R, c.d, c.I)[:, :1]
    alike = np.broadcast_to(own, (c.groups, c.R, c.d, c.I)).reshape(c.Hd, c.I).copy()
    expect(impl(c.replace(weight=alike)), own.reshape(c.Gd, c.I), bound(c))


@law(
    ID, "L3", closed_form=True, needs=("vjp",), given=space.reach("grouped"), kills=["gradient_not_divided"],
)  # fmt: skip
def gradient_is_shared(impl, c, expect):
    "Each head gets 1 / R of its group's cotangent."
    g = np.cos(np.arange(c.Gd * c.I)).reshape(c.groups, 1, c.d, c.I).astype(c.dtype)
    wanted = np.broadcast_to(g.astype(np.float64) / c.R, (c.groups, c.R, c.d, c.I)).reshape(c.Hd, c.I)
    found = impl.vjp(c, g.reshape(c.Gd, c.I))["weight"]
    expect(found, wanted, bounds.rounding(2, np.abs(wanted), c.dtype), "dweight")


def as_many():
    """The default-size test: as many groups as heads."""
    return (np.random.default_rng(0).standard_normal((6, 4)),), {"heads": 3, "groups": 3}


def edited(weight, *, heads, groups, pool=lambda w: w.mean(1), split=None):
    d = weight.shape[0] // heads
    parted = split(weight, heads, groups, d) if split else weight.reshape(groups, heads // groups, d, weight.shape[1])
    return pool(parted).reshape(groups * d, weight.shape[1]).astype(weight.dtype)


def _mutant(name, doc, **edit):
    def function(weight, **options):
        return edited(weight, **options, **edit)

    function.__name__, function.__doc__ = name, doc
    mutant(ID, default_case=as_many)(function)


_mutant("first_head", "The first head of each group.", pool=lambda w: w[:, 0].copy())
_mutant("not_divided", "The sum.", pool=lambda w: w.sum(1))
_mutant("strided_groups", "Heads g, g + G, g + 2 G: the groups that tile would read.",
        split=lambda w, H, G, d: w.reshape(H // G, G, d, w.shape[1]).swapaxes(0, 1))  # fmt: skip
_mutant("channels_first", "Rows read as (d, heads).",
        split=lambda w, H, G, d: np.moveaxis(w.reshape(d, H, w.shape[1]), 0, 1).reshape(
            G, H // G, d, w.shape[1]) if H != G else w.reshape(G, 1, d, w.shape[1]))  # fmt: skip


@mutant(
    ID, default_case=as_many,
    vjp=lambda g, weight, *, heads, groups: (
        np.repeat(g.reshape(groups, 1, len(g) // groups, g.shape[1]), heads // groups, axis=1).reshape(weight.shape),),
)  # fmt: skip
def gradient_not_divided(weight, **options):
    "Each head gets all of its group's cotangent."
    return edited(weight, **options)
