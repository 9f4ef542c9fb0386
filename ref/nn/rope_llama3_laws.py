"""Laws and mutants of Llama 3.1's frequencies."""

from __future__ import annotations

import math

import numpy as np

from ref.nn.common_laws import FREQUENCIES, frequency_bound, frequency_space, plain_frequencies
from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, choose, dims

ID = "nn.rope_llama3"
space = frequency_space(
    ID, factor=choose(8.0, 1.0, 32.0), trained_length=choose(8192, 64), low_rotations=choose(1.0, 0.5),
    high_rotations=choose(4.0, 2.0),
)  # fmt: skip
space = space.where(n=dims(1, 32, large=64))
space.flags.update(
    between=Flag(lambda c: ((turns(c) > c.low_rotations) & (turns(c) < c.high_rotations)).any(), {"n": choose(16, 32)})
)


def turns(c):
    return c.trained_length * c.theta / (2 * math.pi)


@law(
    ID, "L1", closed_form=True, dtypes=FREQUENCIES, given=space, kills=["ends_swapped", "radians_for_turns"],
)  # fmt: skip
def short_waves_stay_long_ones_are_divided(impl, c, expect):
    "A wave shorter than L / high tokens stays, one longer than L / low is s times as long: both to the bit."
    found, wave = impl(c), 2 * math.pi / c.theta
    short = wave < c.trained_length / c.high_rotations / 1.0001
    long = wave > c.trained_length / c.low_rotations * 1.0001
    expect.same(found[short], c.theta[short], "the short")
    expect.same(found[long], (c.theta / c.factor)[long], "the long")


@law(
    ID, "L2", closed_form=True, dtypes=FREQUENCIES, given=space.reach("between"),
    kills=["line_in_the_wavelength", "no_line", "ends_swapped", "radians_for_turns"],
)  # fmt: skip
def between_them_a_line_in_rotations(impl, c, expect):
    "theta / s at `low` rotations, theta at `high`, and a straight line in the rotations between."
    wanted = []
    for theta, r in zip(c.theta, turns(c), strict=True):
        share = min(max((r - c.low_rotations) / (c.high_rotations - c.low_rotations), 0.0), 1.0)
        wanted.append((1 - share) * theta / c.factor + share * theta)
    slack = bounds.rounding(8, turns(c) * (turns(c) < c.high_rotations * 1.01) * c.theta, "float64")
    expect(impl(c), wanted, frequency_bound(c) + slack)


def edited(theta, *, factor=8.0, trained_length=8192, low_rotations=1.0, high_rotations=4.0, turn=2 * math.pi,
           how=None):  # fmt: skip
    r = trained_length * theta / turn
    share = np.clip((how or _line)(r, low_rotations, high_rotations), 0, 1)
    return (1 - share) * (theta / factor) + share * theta


def _line(r, low, high):
    return (r - low) / (high - low)


PLAIN = plain_frequencies(factor=1.0)


def _mutant(name, doc, **edit):
    def function(theta, **options):
        return edited(theta, **options, **edit)

    function.__name__, function.__doc__ = name, doc
    mutant(ID, default_case=PLAIN)(function)


_mutant("ends_swapped", "Short waves divided, long ones kept.", how=lambda r, low, high: 1 - _line(r, low, high))
_mutant("radians_for_turns", "L theta without 2 pi.", turn=1.0)
_mutant("no_line", "A step at the middle in place of the line.",
        how=lambda r, low, high: (r > (low + high) / 2).astype(float))  # fmt: skip
_mutant("line_in_the_wavelength", "The line drawn over wavelengths.",
        how=lambda r, low, high: (1 / low - 1 / r) / (1 / low - 1 / high))  # fmt: skip
