"""Level 1 against float64: drawn shapes, both halves, both head dimensions, packed segments, reruns."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.fused.cupy import varlen
from backends.kernels.device import using
from ref.attention.rules import causal, relative, segments, window
from tests.fused.examples import examples
from tests.kernels.attention_run import at_level, judge, oracle, packs, run
from tests.kernels.cases import BF16, F16, Case, cases, faults
from tests.kernels.stand_in import StandIn

KERNELS = {"attention_mma", "attention_delta", "attention_mma_dq", "attention_mma_dkv"}


@pytest.fixture(autouse=True)
def level(monkeypatch):
    at_level(monkeypatch, "L1")


@examples(40)
@given(cases([BF16, F16], st.sampled_from([64, 128])))
def test_against_float64(case):
    actual, device = run(case)
    assert set(device.kernels()) == KERNELS
    assert not faults(case, actual, oracle(case)), case


@pytest.mark.parametrize("d", [64, 128])
def test_a_band_that_is_empty(d):
    """A causal mask and a window that do not meet: rows that see nothing lie between columns that nobody sees."""
    case = Case(F16, 1, 4, 2, 7, 53, d, d, "both", order=4, seed=5)
    assert not case.keep().any()
    assert not faults(case, run(case)[0], oracle(case))


@pytest.mark.parametrize("d", [64, 128])
def test_longer_than_every_stage(d):
    case = Case(BF16, 1, 2, 1, 300, 390, d, d, "causal", order=3)
    assert not faults(case, run(case)[0], oracle(case))


@pytest.mark.parametrize("d", [64, 128])
def test_reruns_are_equal_to_the_bit(d):
    case = Case(F16, 1, 4, 2, 130, 200, d, d, "causal", 5.0)
    first = run(case)[0]
    for order in (1, 2, 3):
        again = run(case._replace(order=order))[0]
        assert all(first[name].tobytes() == again[name].tobytes() for name in first)


@examples(25)
@given(packs(), st.sampled_from(["L0", "L1"]))
def test_segments_are_attended_to_one_by_one(pack, level):
    assert not judge(pack, level), pack


def test_a_known_longest_segment_is_not_read_back():
    class Unread(np.ndarray):
        def tolist(self):
            raise AssertionError("read back from the device")

    q = np.random.default_rng(0).standard_normal((2, 30, 64)).astype(BF16)
    cu = np.array([0, 10, 30], np.int32)
    with using(StandIn()):
        (o, _), _ = varlen.forward(q, q, q, cu_q=cu, cu_k=cu)
        (again, _), _ = varlen.forward(q, q, q, cu_q=cu.view(Unread), cu_k=cu.view(Unread), longest=(20, 20))
    assert o.tobytes() == again.tobytes()


def test_bad_segments_name_what_is_wrong():
    q, k = np.zeros((2, 6, 8), np.float32), np.zeros((1, 5, 8), np.float32)
    good_q, good_k = np.array([0, 2, 6]), np.array([0, 5, 5])
    for cu_q, cu_k, words in (
        (np.array([0, 4, 2, 6]), good_k, r"cu_q .*cu_k"),
        (np.array([0, 7, 6]), good_k, "cu_q decreases at 2"),
        (np.array([0, 2, 5]), good_k, "cu_q ends at 5, q has N=6"),
        (good_q, np.array([1, 5, 5]), "cu_k starts at 1"),
        (good_q[None], good_k, "cu_q has shape"),
    ):
        with using(StandIn()), pytest.raises(ValueError, match=words):
            varlen.forward(q, k, k, cu_q=cu_q, cu_k=cu_k)
    with using(StandIn()), pytest.raises(TypeError, match="needed int"):
        varlen.forward(q, k, k, cu_q=good_q.astype(float), cu_k=good_k)
    with using(StandIn()), pytest.raises(ValueError, match="q has shape"):
        varlen.forward(q[0], k, k, cu_q=good_q, cu_k=good_k)


def test_what_the_packed_kernels_do_not_take_is_the_composites():
    q, k = np.zeros((2, 6, 8), np.float32), np.zeros((1, 5, 8), np.float32)
    cu = {"cu_q": np.array([0, 2, 6]), "cu_k": np.array([0, 5, 5])}
    with using(StandIn()):
        assert varlen.supports(q, k, k, **cu, mask=causal("top_left"), softcap=2.0, scale=-1.0)
        assert varlen.supports(q, k, k, **cu, mask=causal() & window(2, 1))
        assert not varlen.supports(q, k, k, **cu, mask=causal("top_left") & window(2, 1))  # two alignments
        assert not varlen.supports(q, k, k, **cu, mask=segments([0, 1]))
        with pytest.raises(ValueError, match="bias=relative"):
            varlen.forward(q, k, k, **cu, bias=relative([1.0]))  # nothing is dropped in silence
        assert not varlen.supports(q, k, k, **cu, bias=relative([1.0]))
        assert not varlen.supports(q.astype(float), *(k.astype(float),) * 2, **cu)


