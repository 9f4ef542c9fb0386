"""Level 2 against float64: asynchronous work landing late and early, both halves, both head dimensions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.kernels.emulation import ORDERS
from tests.fused.examples import examples
from tests.kernels.attention_run import at_level, oracle, run
from tests.kernels.cases import BF16, F16, Case, cases, faults

MASKS = ("full", "causal", "top left")
EARLY = tuple(order + 16 for order in ORDERS)


@pytest.fixture(autouse=True)
def level(monkeypatch):
    at_level(monkeypatch, "L2")


@examples(50)
@given(cases([BF16, F16], st.sampled_from([64, 128]), longest=400, masks=MASKS, orders=ORDERS + EARLY))
def test_against_float64(case):
    actual, device = run(case, gradients=False)
    assert device.kernels() == ["attention_wgmma"]
    assert not faults(case, actual, oracle(case)), case


@pytest.mark.parametrize("d, mask", [(64, "full"), (128, "full"), (128, "causal")])
def test_the_same_bits_late_or_early_in_every_order(d, mask):
    case = Case(F16, 1, 2, 1, 200, 700, d, d, mask)
    first = run(case, gradients=False)[0]
    for order in (1, 2, 3, 4, 16, 18, 19):
        again = run(case._replace(order=order), gradients=False)[0]
        assert all(first[name].tobytes() == again[name].tobytes() for name in first), order


def test_tiles_of_176_keys_where_nothing_is_masked():
    case = Case(BF16, 1, 1, 1, 130, 530, 128, 128)
    actual, device = run(case, gradients=False)
    assert dict(device.launches[0].program.macros)["COLS"] == 176
    assert not faults(case, actual, oracle(case))


def test_backward_is_level_one():
    case = Case(BF16, 1, 2, 1, 70, 90, 64, 64, "causal")
    actual, device = run(case)
    assert device.kernels() == ["attention_wgmma", "attention_delta", "attention_mma_dq", "attention_mma_dkv"]
    assert not faults(case, actual, oracle(case))


def test_a_window_goes_to_level_one():
    _, device = run(Case(BF16, 1, 1, 1, 64, 64, 64, 64, "window"), gradients=False)
    assert device.kernels() == ["attention_mma"]


def test_blocks_that_see_nothing():
    case = Case(F16, 1, 1, 1, 400, 3, 64, 64, "causal")
    actual, _ = run(case, gradients=False)
    assert not faults(case, actual, oracle(case))
    assert np.isneginf(actual["lse"][0, 0, :397]).all()
