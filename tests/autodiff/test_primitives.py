"""Every law for every primitive, driven by the engine's table.

A hundred rows under seventeen laws: few examples each at every commit, twenty times as many in a deep run.
"""

from __future__ import annotations

import warnings

import pytest
from hypothesis import given

from autodiff.primitive import TABLE
from tests.autodiff import laws
from tests.autodiff.samples import ANALYTIC, SAMPLES, draws, examples

# A complex result has laws of its own (test_complex).
each = pytest.mark.parametrize("name", sorted(set(TABLE) - {"complex"}))


def test_every_primitive_has_a_sample():
    assert set(SAMPLES) == set(TABLE)


def _run(law, name, count, whole=False):
    @examples(count)
    @given(draws(whole=whole))
    def check(d):
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            law(name, d)

    check()


@each
@pytest.mark.parametrize("law", laws.FIRST, ids=lambda f: f.__name__)
def test_first_derivative(law, name):
    _run(law, name, 16)


# The mean divides, and 1/3 is no float.
@pytest.mark.parametrize("name", sorted(laws.exact(TABLE) - {"complex"}))
def test_linear_primitives_are_exact_on_integers(name):
    _run(laws.duality, name, 20, whole=True)


@pytest.mark.parametrize("name", sorted(ANALYTIC))
def test_complex_step(name):
    _run(laws.complex_step, name, 12)


@each
@pytest.mark.parametrize("law", laws.SECOND, ids=lambda f: f.__name__)
def test_second_derivative(law, name):
    _run(law, name, 10)


@each
@pytest.mark.parametrize("law", laws.TAPE, ids=lambda f: f.__name__)
def test_tape(law, name):
    _run(law, name, 8)
