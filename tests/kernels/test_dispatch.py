"""Which level takes a call: the table against the rule said again in words, and against what is launched."""

import itertools

import numpy as np
import pytest

from backends.fused.cupy import _levels, flash, varlen
from backends.fused.cupy._levels import OPTIONS, level_of
from backends.kernels import BFLOAT16, FLOAT16, FLOAT32, build
from backends.kernels.device import using
from ref.attention.rules import causal, window
from tests.kernels.cases import BF16, F16, F32
from tests.kernels.stand_in import StandIn

KERNELS = {"attention_wgmma": "L2", "attention_mma": "L1", "attention_simt": "L0"}
CAPABILITIES = ((7, 5), (8, 0), (8, 9), (9, 0), (10, 0), (12, 0))


@pytest.fixture(autouse=True)
def no_override(monkeypatch):
    monkeypatch.delenv(_levels.ENVIRONMENT, raising=False)


def said_again(capability, storage, d, options):
    """The rule, without the table."""
    if capability < (8, 0):
        return None
    tensor_cores = storage != FLOAT32 and d in (64, 128)
    if tensor_cores and capability == (9, 0) and not options - {"softcap"}:
        return "L2"
    if tensor_cores and not options - {"softcap", "window", "varlen", "backward"}:
        return "L1"
    return "L0"


def test_every_combination_of_the_table():
    pairs = [frozenset(x) for n in range(3) for x in itertools.combinations(OPTIONS, n)]
    for case in itertools.product(CAPABILITIES, (FLOAT32, FLOAT16, BFLOAT16), (63, 64, 96, 128, 256), pairs):
        assert level_of(*case) == said_again(*case), case


def test_the_table_that_is_shown_is_fresh():
    shown = (build.SOURCES / "LEVELS.md").read_text()
    assert "\n".join(_levels.table()) in shown, "paste `python -m backends.fused.cupy._levels` into cuda/LEVELS.md"


def arrays(dtype, d=64, e=None, T=20, S=24):
    rng = np.random.default_rng(0)
    return [rng.standard_normal(s).astype(dtype) for s in ((2, T, d), (1, S, d), (1, S, e or d))]


def launched(q, k, v, capability=(9, 0), backward=False, **options):
    """The level that a call really took."""
    with using(StandIn(capability)) as device:
        assert flash.supports(q, k, v, **options)
        out, saved = flash.forward(q, k, v, **options)
        level = KERNELS[device.kernels()[0]]
        if backward:
            flash.vjp((out[0], None), out, saved, (True,) * 3, q, k, v, **options)
            level = {"attention_mma_dq": "L1", "attention_simt_dq": "L0"}[device.kernels()[-2]]
    return level


class Slopes:
    def distance_slopes(self, H):
        return [0.5] * H

    def tile(self, xp, rows, cols, T, S):
        raise AssertionError("never asked")

    columns = None


ONE_OPTION = {
    "softcap": {"softcap": 2.0},
    "window": {"mask": window(4, 2)},
    "mask array": {"mask": np.ones((20, 24), bool)},
    "bias": {"bias": np.zeros((1, 24), F32)},
    "ALiBi": {"bias": Slopes()},
    "dropout": {"dropout": (0.5, 1)},
    "scale <= 0": {"scale": -1.0},
}


@pytest.mark.parametrize("capability", [(8, 0), (9, 0)])
@pytest.mark.parametrize("option", [*ONE_OPTION, "d != e", "unaligned", "backward", None])
def test_what_is_launched_is_what_the_table_says(option, capability):
    q, k, v = arrays(F16, e=32 if option == "d != e" else None)
    if option == "unaligned":  # rows that start 2 bytes off
        k = np.concatenate([np.zeros(1, F16), k.reshape(-1)])[1:].reshape(k.shape)
        assert k.ctypes.data % 16
    wanted = said_again(capability, FLOAT16, 64, {option} - {None})
    assert launched(q, k, v, capability, option == "backward", **ONE_OPTION.get(option, {})) == wanted


@pytest.mark.parametrize("dtype, d, capability, wanted", [
    (F32, 64, (9, 0), "L0"), (BF16, 64, (9, 0), "L2"), (BF16, 128, (8, 6), "L1"), (F16, 80, (9, 0), "L0"),
    (BF16, 128, (10, 0), "L1"),
])  # fmt: skip
def test_dtype_head_dimension_and_capability(dtype, d, capability, wanted):
    assert launched(*arrays(dtype, d), capability) == wanted


def test_causal_of_either_alignment_stays_at_level_two():
    for align in ("bottom_right", "top_left"):
        assert launched(*arrays(BF16), mask=causal(align)) == "L2"
    assert launched(*arrays(BF16), mask=causal() & window(3, 0)) == "L1"


def test_segments_go_to_level_one():
    with using(StandIn()) as device:
        varlen.forward(*arrays(BF16), cu_q=np.array([0, 5, 20]), cu_k=np.array([0, 10, 24]))
    assert device.kernels() == ["attention_mma"]


def test_the_environment_names_the_highest_level(monkeypatch):
    for named, wanted in (("L2", "L2"), ("L1", "L1"), ("L0", "L0")):
        monkeypatch.setenv(_levels.ENVIRONMENT, named)
        assert launched(*arrays(BF16)) == wanted
    monkeypatch.setenv(_levels.ENVIRONMENT, "L1")
    assert launched(*arrays(BF16, 80)) == "L0"
    monkeypatch.setenv(_levels.ENVIRONMENT, "composite")
    with using(StandIn()):
        assert not flash.supports(*arrays(BF16))
        with pytest.raises(ValueError, match="no kernel takes bfloat16, d=64 on capability"):
            flash.forward(*arrays(BF16))
    monkeypatch.setenv(_levels.ENVIRONMENT, "L9")
    with pytest.raises(ValueError, match="CLOSEDFORM_ATTENTION_LEVEL=L9; needed one of L2, L1, L0, composite"):
        level_of((9, 0), FLOAT32, 64, set())


def test_what_no_level_takes_is_the_composites():
    q, k, v = arrays(F32)
    with using(StandIn((7, 5))):
        assert not flash.supports(q, k, v)
    with using(StandIn()):
        assert not flash.supports(*(x.astype(float) for x in (q, k, v)))
        assert not flash.supports(q, k[:, :3], v)
        assert not flash.supports(q, k, v, mask=np.ones((3, 3), bool))
        assert not flash.supports(q, k, v, mask=np.ones((20, 24)))
        assert flash.supports(q, k, v, block_rows=3)


def test_bad_arguments_name_the_axes():
    q, k, v = arrays(F32)
    for given, options, kind, words in (
        ((q, k[..., :8], v), {}, ValueError, "k has shape"),
        ((q, k, v[:, :5]), {}, ValueError, r"v has shape \(1, 5, 64\)"),
        ((q[[0, 0, 0]], k[[0, 0]], v[[0, 0]]), {}, ValueError, "G must divide H"),
        ((q[0], k, v), {}, ValueError, r"needs q\[\*B H T d\]"),
        ((q, k, v), {"softcap": 0.0}, ValueError, "softcap=0.0"),
        ((q, k, v), {"bias": np.zeros((7, 7), F32)}, ValueError, "bias has shape"),
        ((q, k, v), {"mask": np.ones((20, 24))}, TypeError, "mask is float64"),
        ((q.astype(float), k, v), {}, TypeError, "float64"),
    ):
        with using(StandIn()), pytest.raises(kind, match=words):
            flash.forward(*given, **options)
