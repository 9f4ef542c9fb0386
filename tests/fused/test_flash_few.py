"""Few rows over many columns, in blocks of a few columns: every option, junk, empty rows, mutants."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.fused.numpy import flash, flash_few
from backends.fused.numpy._tiles import plan
from tests.fused.attention_oracle import agrees, attention
from tests.fused.examples import examples
from tests.fused.test_flash import cases, run
from tests.fused.test_flash_edges import JUNK, check_junk


@pytest.fixture(autouse=True)
def blocks_of_five(monkeypatch):
    monkeypatch.setattr(flash_few, "_FEWEST", 5)
    monkeypatch.setattr(flash_few, "_MOST", 5)


def faults(dtype=None, number=150):
    """What the oracle said of each drawn case."""
    found = []

    @examples(number)
    @given(cases(dtype=dtype, few=True))
    def judge(case):
        tensors, options, plain = case
        found.append(agrees(run(tensors, options), attention(*tensors, **plain), tensors[0].dtype))

    judge()
    return found


def test_few_rows_are_attention():
    assert not any(faults())


@examples(50)
@given(cases(few=True), st.sampled_from(JUNK), st.integers(0, 2**32 - 1))
def test_junk_that_nobody_sees_changes_nothing(case, junk, seed):
    check_junk(case, junk, seed)


def test_who_goes_this_way():
    def way(T, S, **blocks):
        q, k = np.zeros((4, T, 8), np.float32), np.zeros((2, S, 8), np.float32)
        p = plan(q, k, k, **blocks)
        return flash_few.plan_of(p, blocks.get("block_rows"), blocks.get("block_cols"))

    assert way(1, 16).block_cols == 5 and way(64, 1024).block_rows == 64
    assert way(1, 15) is None and way(65, 1040) is None and way(0, 16) is None
    assert way(1, 16, block_cols=8) is None and way(1, 16, block_rows=1) is None


def test_rows_that_see_nothing():
    q, k = np.ones((1, 2, 3)), np.ones((1, 40, 3))
    mask = np.zeros((2, 40), bool)
    mask[1, 30:] = True  # the first blocks show neither row anything
    (o, lse), _ = flash.forward(q, k, k, mask=mask)
    np.testing.assert_array_equal(o, [[[0, 0, 0], [1, 1, 1]]])
    np.testing.assert_allclose(lse, [[-np.inf, np.sqrt(3) + np.log(10)]], rtol=1e-15)


MUTANTS = {
    "old_sums_keep_their_maximum": ("power", lambda S, unit, f: S.fill(1) if S.ndim == 2 else f(S, unit)),
    "no_bias": ("add_bias", lambda p, S, bias, f: None),
    "no_softcap": ("soften", lambda p, S, f: None),
    "unit_forgotten": ("power", lambda S, unit, f: np.exp(2 * S, out=S)),
    "last_block_lost": ("visible", lambda *args, f: list(f(*args))[:-1]),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_mutants_are_caught(name, monkeypatch):
    function, wrong = MUTANTS[name]
    right = getattr(flash_few, function)
    monkeypatch.setattr(flash_few, function, lambda *args: wrong(*args, f=right))
    assert any(faults(np.float32, 60))
