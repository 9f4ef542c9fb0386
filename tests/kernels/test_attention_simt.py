"""Level 0: every option against float64, within bounds derived from float32's rounding."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.fused.cupy import flash
from backends.kernels.device import using
from ref.nn.keep_mask import keep_mask
from tests.fused.attention_oracle import agrees, attention
from tests.fused.examples import examples
from tests.kernels.attention_run import at_level, oracle, run
from tests.kernels.cases import BF16, F16, F32, Case, cases, faults
from tests.kernels.stand_in import StandIn

DIMS = st.sampled_from([1, 7, 33, 64, 65])


@pytest.fixture(autouse=True)
def level(monkeypatch):
    at_level(monkeypatch, "L0")


@examples(40)
@given(cases(["float32"], DIMS, longest=70, free_e=True))
def test_against_float64(case):
    actual, device = run(case)
    assert not agrees(actual, oracle(case), np.float32), case
    assert set(device.kernels()) == {"attention_simt", "attention_delta", "attention_simt_dq", "attention_simt_dkv"}


@pytest.mark.parametrize("d, e", [(130, 20), (20, 300), (257, 257)])
def test_channels_beyond_a_block(d, e):
    case = Case("float32", 1, 2, 1, 33, 35, d, e, "causal")
    assert not agrees(run(case)[0], oracle(case), np.float32)


@pytest.mark.parametrize("dtype", [F16, BF16])
def test_half_storage(dtype):
    case = Case(dtype, 1, 2, 1, 37, 50, 40, 40, "causal", order=2)
    assert not faults(case, run(case)[0], oracle(case))


class Slopes:
    """-slope_h |i + S - T - j|, as a rule."""

    kind = "bias"

    def distance_slopes(self, H):
        return [2.0 ** -(h + 1) for h in range(H)]

    def tile(self, xp, rows, cols, T, S):
        slopes = xp.asarray(self.distance_slopes(4))[:, None, None]
        return -slopes * abs(rows[:, None] + S - T - cols[None, :])

    def columns(self, start, stop, T, S):
        return 0, S


def test_mask_array_and_bias_array_of_every_broadcast():
    case = Case("float32", 2, 4, 2, 35, 41, 9, 12, order=1)
    rng = np.random.default_rng(5)
    for shape in ((2, 4, 35, 41), (4, 1, 41), (35, 1), (1, 41)):
        mask, bias = rng.random(shape) < 0.6, rng.standard_normal(shape).astype(np.float32)
        full = np.broadcast_to(mask, (2, 4, 35, 41))
        actual, _ = run(case, mask=mask, bias=bias)
        assert not agrees(actual, oracle(case, mask=full, bias=bias.astype(np.float64)), np.float32), shape


def test_bias_of_minus_infinity_hides():
    case = Case("float32", 1, 1, 1, 20, 33, 8, 8)
    bias = np.where(np.random.default_rng(0).random((20, 33)) < 0.5, 0, -np.inf).astype(np.float32)
    bias[3] = -np.inf
    actual, _ = run(case, bias=bias)
    assert not agrees(actual, oracle(case, bias=bias), np.float32)
    assert not actual["o"][0, 0, 3].any()


@pytest.mark.parametrize("mask", ["full", "causal", "top left"])
def test_alibi_by_slopes_is_alibi_by_array(mask):
    case = Case("float32", 1, 4, 2, 40, 33, 16, 16, mask)
    rule = Slopes()
    actual, device = run(case, bias=rule)
    assert device.addresses()["attention_simt"]["slopes"]
    assert not device.addresses()["attention_simt"]["bias"]
    array = rule.tile(np, np.arange(40), np.arange(33), 40, 33)
    assert not agrees(actual, oracle(case, bias=array), np.float32)


@pytest.mark.parametrize("rate", [0.1, 0.75])
def test_dropout_keeps_what_the_counter_keeps(rate):
    case = Case("float32", 2, 2, 1, 34, 37, 8, 20, "causal", order=2)
    seed = (7 << 40) + 3
    shape = (2, 2, 34, 37)
    keep = keep_mask(np.arange(np.prod(shape)).reshape(shape), seed=seed, rate=rate)
    actual, _ = run(case, dropout=(rate, seed))
    assert not agrees(actual, oracle(case, drop=keep / (1 - rate)), np.float32)


def test_scale_of_either_sign():
    case = Case("float32", 1, 1, 1, 33, 40, 8, 8, "causal")
    for scale in (-0.7, 0.0, 2.0):
        assert not agrees(run(case, scale=scale)[0], oracle(case, scale=scale), np.float32)


def test_large_logits_stay_finite():
    case = Case("float32", 1, 1, 1, 33, 40, 8, 8, "causal")
    assert not agrees(run(case, scale=1e4)[0], oracle(case, scale=1e4), np.float32)


def test_nothing_to_do():
    for shape_q, shape_k in (((1, 2, 0, 4), (1, 1, 3, 4)), ((1, 2, 3, 4), (1, 1, 0, 4)), ((0, 2, 3, 4), (0, 1, 3, 4))):
        q, k = np.ones(shape_q, F32), np.ones(shape_k, F32)
        with using(StandIn()):
            out, saved = flash.forward(q, k, k)
            dq, dk, dv = flash.vjp((q, None), out, saved, (True,) * 3, q, k, k)
        assert not out[0].any()
        assert np.isneginf(out[1]).all()
        assert not any(x.any() for x in (dq, dk, dv))


def test_an_unused_output_is_a_zero_cotangent():
    case = Case("float32", 1, 2, 1, 33, 34, 8, 8, "causal")
    q, k, v, g, g_l = case.arrays()
    with using(StandIn()):
        out, saved = flash.forward(q, k, v)
        for given, zeros in (((g, None), (g, 0 * g_l)), ((None, g_l), (0 * g, g_l))):
            some = flash.vjp(given, out, saved, (True,) * 3, q, k, v)
            whole = flash.vjp(zeros, out, saved, (True,) * 3, q, k, v)
            assert all(a.tobytes() == b.tobytes() for a, b in zip(some, whole, strict=True))
        needs = flash.vjp((g, g_l), out, saved, (False, True, False), q, k, v)
    assert needs[0] is None and needs[2] is None and needs[1].shape == k.shape


def test_several_batch_axes_and_strides():
    rng = np.random.default_rng(1)
    packed = rng.standard_normal((2, 3, 20, 3, 2, 8)).astype(F32)  # [a b T (q k v) H d]
    q, k, v = (np.moveaxis(packed[..., n, :, :], -3, -2) for n in range(3))
    g, g_l = rng.standard_normal(q.shape).astype(F32), rng.standard_normal(q.shape[:-1]).astype(F32)
    with using(StandIn()):
        out, saved = flash.forward(q, k, v)
        grads = flash.vjp((g, g_l), out, saved, (True,) * 3, q, k, v)
    actual = dict(zip(("o", "lse", "dq", "dk", "dv"), (*out, *grads), strict=True))
    assert not agrees(actual, attention(q, k, v, g, g_l), np.float32)
