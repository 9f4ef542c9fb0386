"""What the judge's comparisons catch: each is shown to fail where it should."""

import numpy as np
import pytest
from hypothesis.errors import UnsatisfiedAssumption

from ref.conform.expect import Expect, LawBroken

NAN, INF = np.nan, np.inf


@pytest.mark.parametrize(
    "actual, wanted, bound",
    [
        ([1.0], [1.0 + 1e-9], 1e-10),
        ([NAN], [1.0], 0.5),
        ([1.0], [NAN], 0.5),
        ([INF], [1.0], 0.5),
        ([1.0], [INF], 0.5),
        ([-INF], [INF], 0.5),
        ([1.0, 2.0], [1.0], 0.1),
        ([[1.0]], [1.0], 0.1),
        ([1.0, NAN], [1.0, 1.0], 0.1),
    ],
)
def test_a_wrong_number_breaks_the_law(actual, wanted, bound):
    with pytest.raises(LawBroken):
        Expect()(np.array(actual), np.array(wanted), bound)


@pytest.mark.parametrize(
    "actual, wanted, bound",
    [([1.0], [1.0 + 1e-9], 1e-8), ([NAN], [NAN], 0), ([INF, 1.0], [INF, 1.0], 0), ([0.0], [-0.0], 0), ([], [], 0)],
)
def test_a_right_number_passes(actual, wanted, bound):
    Expect()(np.array(actual), np.array(wanted), bound)


def test_a_bound_wider_than_half_the_scale_judges_nothing():
    with pytest.raises(UnsatisfiedAssumption):
        Expect()(np.array([1.0]), np.array([1.0]), 0.6)
    Expect()(np.array([1.0]), np.array([1.0]), 0.4)
    Expect()(np.array([1.0]), np.array([1.0]), 0.6, scale=2.0)


def test_the_comparison_nearest_to_its_bound_is_remembered():
    expect = Expect()
    expect(np.array([1.0, 2.0]), np.array([1.0 + 1e-4, 2.0 + 1e-6]), np.array([1e-2, 1e-5]))
    assert expect.worst_error == pytest.approx(1e-6) and expect.bound == 1e-5


def test_same_sees_one_bit_and_lets_nan_equal_nan():
    Expect().same(np.array([1.0, NAN]), np.array([1.0, NAN]))
    with pytest.raises(LawBroken, match=r"output\[1\]"):
        Expect().same(np.array([1.0, 2.0]), np.array([1.0, np.nextafter(2.0, 3)]))
    with pytest.raises(LawBroken, match="shape"):
        Expect().same(np.zeros(2), np.zeros((2, 1)))


def test_at_most_and_holds_fail_where_they_should():
    Expect().at_most(np.array([1.0, 2.0]), 2.0, "x")
    for bad in ([3.0], [NAN]):
        with pytest.raises(LawBroken):
            Expect().at_most(np.array(bad), 2.0, "x")
    with pytest.raises(LawBroken, match="it is so"):
        Expect().holds(False, "it is so")
