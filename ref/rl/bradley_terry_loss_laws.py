"""Laws and mutants of the Bradley-Terry loss."""

from __future__ import annotations

import math

import numpy as np

from ref.rl.common_laws import dyadics, sigma
from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, cases, choose, dims, none_or

ID = "rl.bradley_terry_loss"
space = cases(
    ID, P=dims(1, 4, large=20), count=none_or(7), chosen=dyadics("P", -3, 3, 8), rejected=dyadics("P", -3, 3, 8),
    clear=choose(False, True),
    margin=lambda draw, c: dyadics("P", 0, 3, 4)(draw, c) if c.clear else None,
    unset={"margin": {"clear": False, "margin": None}},
    flags={"several": Flag(lambda c: c.P > 1, {"P": dims(2, 4)}),
           "margined": Flag(lambda c: c.margin is not None and np.any(c.margin), {"clear": True, "P": dims(2, 4)})},
)  # fmt: skip


def gaps(c):
    return np.asarray(c.chosen, np.float64) - c.rejected - (0 if c.margin is None else np.asarray(c.margin, np.float64))


def limit(c):
    return bounds.rounding(c.P + 32, 16.0 * c.P / (c.count or c.P), c.dtype)


@law(ID, "L1", closed_form=True, given=space.reach("several", "margined"),
    kills=["margin_added", "margin_ignored", "exchanged", "sum_over_pairs", "own_count"])
def value_is_the_definition(impl, c, expect):
    "log(1 + e^-(r_w - r_l - m)), pair by pair, over their number."
    wanted = sum(max(-d, 0) + math.log1p(math.exp(-abs(d))) for d in gaps(c)) / (c.count or c.P)
    expect(impl(c), np.array(wanted), limit(c), scale=8.0)


@law(ID, "L2", closed_form=True, needs=("vjp",), given=space.reach("several", "margined"),
    kills=["slope_of_the_hinge", "rejected_detached"])
def gradient_is_the_definition(impl, c, expect):
    "d / d r_w = -sigma(-(r_w - r_l - m)) / P, and r_l the opposite."
    found = impl.vjp(c, np.array(1.0, c.dtype))
    slope = -1 / (1 + np.exp(gaps(c))) / (c.count or c.P)
    for name, wanted in (("chosen", slope), ("rejected", -slope)):
        expect(found[name], wanted, bounds.rounding(64, 16.0, c.dtype), f"d {name}", scale=1.0)


@law(ID, "L3", closed_form=True, given=space.where(clear=False, margin=None), kills=["exchanged", "squashed_first"])
def gauge_and_exchange(impl, c, expect):
    "Rewards + 100 change nothing; exchanged, a pair's loss differs by its gap: e^-L + e^-L' = 1 for one pair."
    moved = c.replace(chosen=c.chosen + c.dtype.type(100), rejected=c.rejected + c.dtype.type(100))
    expect(impl(moved), impl(c), 2 * limit(c) + bounds.rounding(8, 200.0, c.dtype), "shifted", scale=16.0)
    for i in range(c.P):
        one = c.replace(chosen=c.chosen[i : i + 1].copy(), rejected=c.rejected[i : i + 1].copy(), P=1, count=None)
        other = one.replace(chosen=one.rejected.copy(), rejected=one.chosen.copy())
        both = math.exp(-float(impl(one))) + math.exp(-float(impl(other)))
        expect(np.array(both), np.array(1.0), bounds.rounding(64, 8.0, c.dtype), f"pair {i}")
        expect(impl(other) - impl(one).astype(np.float64), gaps(one)[0], bounds.rounding(64, 8.0, c.dtype), f"gap {i}",
            scale=4.0)


@law(ID, "L4", closed_form=True, given=space.where(clear=False, margin=None, count=None), kills=["overflows"])
def far_rewards_stay_finite(impl, c, expect):
    "Gaps of +-1000: 0 and 1000."
    n = c.P
    for gap, wanted in ((1000.0, 0.0), (-1000.0, 1000.0)):
        now = c.replace(chosen=np.full(n, gap, c.dtype), rejected=np.zeros(n, c.dtype))
        expect(impl(now), np.array(wanted), bounds.rounding(n + 8, wanted, c.dtype), f"gap {gap}", scale=1000.0)


# Mutants ---------------------------------------------------------------------------------------------


def default(P=1, margin=False):
    """The default-size test: one pair of equal rewards."""
    return (np.zeros(P), np.zeros(P)), {}


def base(chosen, rejected, *, margin=None, count=None, **edit):
    gap = edit.get("sign", 1) * edit.get("squash", lambda x: x)(chosen - rejected)
    m = 0 if margin is None else margin
    gap = gap - edit.get("margin_as", lambda m: m)(m)
    with np.errstate(all="ignore"):
        losses = edit.get("loss", lambda g: np.logaddexp(0, -g))(gap)
    P = edit.get("count_as", lambda count, P: count or P)(count, len(chosen))
    slope = edit.get("slope", lambda g: -sigma(-g))(gap) / P
    return np.asarray(losses.sum() / P, chosen.dtype), slope.astype(chosen.dtype)


def _mutant(name, doc, case=default, back=1.0, thread=None, **edit):
    def function(*args, **options):
        return base(*args, **options, **edit)[0]

    def vjp(g, *args, **options):
        d = g * base(*args, **options, **edit)[1]
        return d, -back * d

    function.__name__, function.__doc__ = name, doc
    mutant(ID, vjp=vjp, default_case=case, thread=thread)(function)


_mutant("margin_added", "+ m: unclear pairs are pressed the most.", margin_as=lambda m: -m)
_mutant("margin_ignored", "m accepted and dropped.", margin_as=lambda m: 0)
_mutant("exchanged", "The rejected is to win.", sign=-1)
_mutant("sum_over_pairs", "Not divided.", count_as=lambda count, P: 1)
_mutant("own_count", "The micro-batch's own number of pairs.", count_as=lambda count, P: P, thread="transformers#34191")
_mutant("squashed_first", "tanh of the gap.", squash=np.tanh)
_mutant("overflows", "log(1 + exp(-gap)) as written.", loss=lambda g: np.log(1 + np.exp(-g)))
_mutant("slope_of_the_hinge", "-1/2 always: right at equal rewards.", slope=lambda g: np.full(g.shape, -0.5))
_mutant("rejected_detached", "The rejected reward has no gradient.", back=0.0)
