"""Laws and mutants of prioritised sampling."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from ref.rl.common_laws import dyadics
from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, cases, dims

ID = "rl.priority_sampling"
space = cases(
    ID, n=dims(1, 5, large=30), success=dyadics("n", 0, 1, 8),
    flags={"open": Flag(lambda c: np.any(c.success < 1)),
    "mastered": Flag(lambda c: c.n > 1 and np.any(c.success == 1), {"n": dims(3, 5), "success": dyadics("n", 0, 1, 1)}),
           "differ": Flag(lambda c: np.ptp(c.success) > 0, {"n": dims(2, 5)})},
).where(open=True)  # fmt: skip


@law(ID, "L1", closed_form=True, given=space.reach("mastered", "differ"),
    kills=["softmax_of_the_failures", "uniform", "by_success", "squared"])
def proportion_to_the_failures(impl, c, expect):
    "(1 - s_i) over the sum of all 1 - s, in fractions."
    failure = [1 - Fraction(float(s)) for s in c.success]
    wanted = np.array([float(f / sum(failure)) for f in failure])
    expect(impl(c), wanted, bounds.rounding(c.n + 4, wanted, c.dtype), scale=1.0)


@law(ID, "L2", closed_form=True, given=space.where(mastered=True), kills=["floored"], passes_null=["zeros"])
def mastered_prompts_are_never_drawn(impl, c, expect):
    "s = 1: probability 0, exactly."
    expect.same(impl(c)[c.success == 1], np.zeros(int((c.success == 1).sum())))


# Mutants ---------------------------------------------------------------------------------------------


def default():
    """The default-size test: equal rates."""
    return (np.full(4, 0.5),), {}


def _mutant(name, doc, weigh):
    def function(success):
        w = weigh(success.astype(np.float64))
        return (w / w.sum()).astype(success.dtype)

    function.__name__, function.__doc__ = name, doc
    mutant(ID, default_case=default)(function)


_mutant("softmax_of_the_failures", "e^(1 - s).", lambda s: np.exp(1 - s))
_mutant("uniform", "All alike.", np.ones_like)
_mutant("by_success", "In proportion to s.", lambda s: s + 1e-12)
_mutant("squared", "(1 - s)^2.", lambda s: (1 - s) ** 2)
_mutant("floored", "At least a little for every prompt.", lambda s: np.maximum(1 - s, 1e-3))
