"""Laws and mutants of linearly scaled rotary frequencies."""

from __future__ import annotations

import numpy as np

from ref.nn.common_laws import FREQUENCIES, frequency_bound, frequency_space, plain_frequencies
from ref.spec import law, mutant
from ref.spec.cases import choose

ID = "nn.rope_linear"
space = frequency_space(ID, factor=choose(1.0, 2.0, 3.5, 8.0))


@law(ID, "L1", closed_form=True, dtypes=FREQUENCIES, given=space, kills=["positions_stretched", "first_pair_kept"])
def every_angle_is_a_fraction(impl, c, expect):
    "theta_i / s, for every pair, the fastest too."
    expect(impl(c), c.theta / c.factor, frequency_bound(c, 1))


@law(
    ID, "L2", closed_form=True, dtypes=FREQUENCIES, given=space.where(factor=choose(2.0, 4.0, 8.0)),
    kills=["positions_stretched", "square_root_of_the_factor"],
)  # fmt: skip
def stretched_positions_meet_the_old_angles(impl, c, expect):
    "At position s m the angle is what it was at m, to the bit where s is a power of two."
    m = 7 * np.arange(4.0)[:, None]
    expect.same(c.factor * m * impl(c), m * c.theta, "the angles")


@mutant(ID, default_case=plain_frequencies(factor=1.0))
def positions_stretched(theta, *, factor):
    "Multiplied: the context shrinks."
    return theta * factor


@mutant(ID, default_case=plain_frequencies(factor=1.0))
def first_pair_kept(theta, *, factor):
    "The fastest pair is left, as in NTK-aware scaling."
    return np.concatenate((theta[:1], theta[1:] / factor))


@mutant(ID, default_case=plain_frequencies(factor=1.0))
def square_root_of_the_factor(theta, *, factor):
    "Half of the scaling."
    return theta / np.sqrt(factor)
