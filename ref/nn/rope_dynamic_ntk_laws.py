"""Laws and mutants of dynamic NTK frequencies."""

from __future__ import annotations

import numpy as np

from ref.nn.common_laws import FREQUENCIES, frequency_bound, frequency_space, plain_frequencies
from ref.spec import law, mutant
from ref.spec.cases import choose, dims

ID = "nn.rope_dynamic_ntk"
space = frequency_space(
    ID, trained_length=choose(16, 2048, 4096), length=choose(1, 16, 100, 4096, 32768), factor=choose(1.0, 2.0, 4.5)
)
longer = space.where(trained_length=choose(16, 2048), length=choose(4096, 32768))


def stretch_of(c):
    return c.factor * max(c.length, c.trained_length) / c.trained_length - (c.factor - 1)


@law(
    ID, "L1", closed_form=True, dtypes=FREQUENCIES, given=space.where(trained_length=4096, length=choose(1, 100, 4096)),
    kills=["shrinks_below_the_length", "static_factor"], passes_null=["identity"],
)  # fmt: skip
def nothing_changes_up_to_the_trained_length(impl, c, expect):
    "l <= L: the same frequencies, to the bit."
    expect.same(impl(c), c.theta)


@law(
    ID, "L2", closed_form=True, dtypes=FREQUENCIES, given=longer.where(n=dims(2, 8, large=64)),
    kills=["base_times_the_stretch", "ratio_of_lengths", "static_factor", "all_divided"],
)  # fmt: skip
def the_fastest_stays_the_slowest_is_divided(impl, c, expect):
    "theta_0 = 1 stays 1; theta_{n-1} becomes theta_{n-1} / S."
    found = impl(c)
    expect(found[:1], np.ones(1), frequency_bound(c)[:1], "the fastest")
    expect(found[-1:], c.theta[-1:] / stretch_of(c), 8 * frequency_bound(c)[-1:], "the slowest")


@law(
    ID, "L3", closed_form=True, dtypes=FREQUENCIES, given=longer,
    kills=["base_times_the_stretch", "ratio_of_lengths", "static_factor", "all_divided"],
)  # fmt: skip
def every_pair_is_of_the_new_base(impl, c, expect):
    "(base S^{d / (d - 2)})^{-2 i / d}; a single pair stays."
    d = 2 * c.n
    base = c.base * stretch_of(c) ** (d / (d - 2)) if d > 2 else c.base
    expect(impl(c), [base ** (-2 * i / d) for i in range(c.n)], 8 * frequency_bound(c))


def powers(theta, stretch, ends=True):
    n = len(theta)
    return theta * stretch ** (-np.arange(n) / (max(n - 1, 1) if ends else n))


PLAIN = plain_frequencies(length=16, trained_length=16)


@mutant(ID, default_case=PLAIN)
def base_times_the_stretch(theta, *, length, trained_length, factor=1.0):
    "The base times S, without the power d / (d - 2)."
    return powers(theta, factor * max(length, trained_length) / trained_length - (factor - 1), ends=False)


@mutant(ID, default_case=PLAIN)
def ratio_of_lengths(theta, *, length, trained_length, factor=1.0):
    "S = s l / L without s - 1 taken off."
    return powers(theta, factor * max(length, trained_length) / trained_length if length > trained_length else 1.0)


@mutant(ID, default_case=PLAIN)
def static_factor(theta, *, length, trained_length, factor=1.0):
    "NTK-aware scaling that looks at no length."
    return powers(theta, factor)


@mutant(ID, default_case=PLAIN)
def shrinks_below_the_length(theta, *, length, trained_length, factor=1.0):
    "Short inputs turn faster: the maximum with L forgotten."
    return powers(theta, max(factor * length / trained_length - (factor - 1), 1e-3))


@mutant(ID, default_case=PLAIN)
def all_divided(theta, *, length, trained_length, factor=1.0):
    "Position interpolation by S."
    return theta / (factor * max(length, trained_length) / trained_length - (factor - 1))
