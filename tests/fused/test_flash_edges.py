"""Tiled attention where it could go wrong: junk, empty rows, extremes, threads, memory, mutants."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends import threads
from backends.fused.numpy import _scratch, flash, flash_vjp
from tests.fused.attention_oracle import agrees, attention
from tests.fused.examples import examples
from tests.fused.test_flash import RULES, cases, run

JUNK = [np.nan, np.inf, -np.inf, 1e30]


@examples(80)
@given(cases(), st.sampled_from(JUNK), st.integers(0, 2**32 - 1))
def test_junk_that_nobody_sees_changes_nothing(case, junk, seed):
    """In K and V at columns no row sees, in Q and dO at rows that see nothing."""
    check_junk(case, junk, seed)


def check_junk(case, junk, seed):
    (q, k, v, g, g_l), options, _ = case
    T, S = q.shape[-2], k.shape[-2]
    rng = np.random.default_rng(seed)
    row, col = rng.random(T) < 0.3, rng.random(S) < 0.3
    options = {**options, "mask": ~(row[:, None] | col[None, :]), "bias": None}
    clean, dirty = ([x.copy() for x in (q, k, v, g, g_l)] for _ in range(2))  # of one layout
    clean = run(clean, options)
    for x, slots in zip(dirty, (row, col, col, row), strict=False):
        x[..., slots, :] = junk
    dirty[4][..., row] = junk
    with np.errstate(all="ignore"):
        actual = run(dirty, options)
    for name in clean:
        assert np.array_equal(clean[name], actual[name]), name
    assert not any(np.isnan(x).any() for x in actual.values())


def test_rows_without_keys():
    rng = np.random.default_rng(1)
    tensors = [rng.standard_normal(s) for s in ((1, 6, 2), (1, 4, 2), (1, 4, 3), (1, 6, 3), (1, 6))]
    options = {"mask": RULES["causal"], "block_rows": 4, "block_cols": 3}  # rows 0 and 1: S < T
    actual = run(tensors, options)
    assert (actual["o"][:, :2] == 0).all() and np.isneginf(actual["lse"][:, :2]).all()
    assert (actual["dq"][:, :2] == 0).all() and np.isfinite(actual["dk"]).all()
    assert np.isfinite(actual["lse"][:, 2:]).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("order", ["rising", "falling", "one"])
def test_logits_of_ten_thousand(dtype, order):
    """Each tile's maximum far above the last (or below): the guessed maximum is wrong every time."""
    rng = np.random.default_rng(2)
    n = 40
    logits = {"rising": np.linspace(-1e4, 1e4, n), "falling": np.linspace(1e4, -1e4, n)}.get(order)
    if logits is None:
        logits = np.where(np.arange(n) == 37, 1e4, -1e4)
    q, k = np.ones((1, n, 1), dtype), logits.astype(dtype)[None, :, None]
    v, g = rng.standard_normal((2, 1, n, 3)).astype(dtype)
    tensors = q, k, v, g, rng.standard_normal((1, n)).astype(dtype)
    options = {"scale": 1.0, "block_rows": 16, "block_cols": 8}
    actual = run(tensors, options)
    assert not agrees(actual, attention(*tensors, scale=1.0), dtype)
    best = np.argmax(logits)
    assert np.array_equal(actual["o"], np.broadcast_to(v[:, best : best + 1], v.shape))


def test_a_guess_from_invisible_columns_does_not_decide():
    """The probe reads masked columns, which may lie far above or below what the rows do see."""
    for high in (1e4, -1e4):
        k = np.zeros((1, 64, 1), np.float32)
        k[:, :40] = high
        rng = np.random.default_rng(4)
        q, v = np.ones((1, 8, 1), np.float32), rng.standard_normal((1, 64, 2)).astype(np.float32)
        keep = np.arange(64) >= 40
        (o, lse), _ = flash.forward(q, k, v, mask=keep, scale=1.0)
        np.testing.assert_allclose(o, np.broadcast_to(v[:, 40:].mean(1, keepdims=True), o.shape), 1e-5)
        np.testing.assert_allclose(lse, np.log(24), 1e-6)


@pytest.mark.parametrize("heads", [(1, 1), (4, 2), (8, 8)])
def test_bits_do_not_depend_on_the_threads(heads):
    H, G = heads
    rng = np.random.default_rng(5)
    T, S, d = 300, 290, 16
    shapes = (H, T, d), (G, S, d), (G, S, d), (H, T, d), (H, T)
    tensors = [rng.standard_normal((2, *s)).astype(np.float32) for s in shapes]
    options = {"mask": RULES["causal"], "block_rows": 64, "block_cols": 96}
    results = []
    for n in (1, 2, 5):
        with threads.threads(n):
            results.append(run(tensors, options))
    for other in results[1:]:
        for name, x in results[0].items():
            assert x.tobytes() == other[name].tobytes(), name


def test_no_output_shares_memory():
    rng = np.random.default_rng(6)
    tensors = [rng.standard_normal((1, 5, 3)) for _ in range(4)] + [rng.standard_normal((1, 5))]
    first = run(tensors, {})
    kept = {name: x.copy() for name, x in first.items()}
    run([2 * x for x in tensors], {})
    for name, x in first.items():
        assert np.array_equal(x, kept[name])
        x[...] = 0  # writeable, and ours alone
    assert all(x.any() for x in tensors)


@pytest.mark.parametrize("T,S,d,e", [(1200, 1300, 16, 8), (700, 2100, 4, 4)])
def test_peak_memory_is_the_formula(T, S, d, e):
    rng = np.random.default_rng(7)
    shapes = (1, T, d), (1, S, d), (1, S, e), (1, T, e), (1, T)
    q, k, v, g, g_l = (rng.standard_normal(s).astype(np.float32) for s in shapes)
    rows, cols = 200, 300
    options = {"block_rows": rows, "block_cols": cols, "mask": RULES["sure"]}
    small = 64 * 1024  # Python's own objects, and a mask of the diagonal tiles
    masks = 16 * rows * cols

    def peak(fn):
        _scratch._idle.clear()
        tracemalloc.start()
        try:
            result = fn()
            return result, tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    with threads.threads(1):
        (out, saved), forward = peak(lambda: flash.forward(q, k, v, **options))
        outputs = sum(x.nbytes for x in out)
        bound = 4 * flash.peak_elements(rows, cols, d, e)
        assert forward - outputs <= bound + masks + small
        assert 3 * bound < 4 * T * S  # the formula itself is no N x N
        grads, backward = peak(
            lambda: flash.vjp((g, g_l), out, saved, (True,) * 3, q, k, v, **options)
        )
        parts = 4 * (k.nbytes + v.nbytes)  # one head is cut into four, each with its own dK and dV
        outputs = sum(x.nbytes for x in grads) + parts
        assert backward - outputs <= 4 * flash_vjp.peak_elements(rows, cols, d, e) + masks + small


def test_long_sequence_without_a_square():
    n = 16384
    rng = np.random.default_rng(8)
    q, k, v = rng.standard_normal((3, 1, n, 4)).astype(np.float32)
    window = RULES["window"]
    _scratch._idle.clear()
    tracemalloc.start()
    (o, lse), _ = flash.forward(q, k, v, mask=window)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 32e6  # a bool of n x n alone is 268 MB
    for i in (0, 1, 9000, n - 1):
        s = q[0, i].astype(float) @ k[0, max(i - 2, 0) : i + 3].astype(float).T / 2
        p = np.exp(s) / np.exp(s).sum()
        np.testing.assert_allclose(o[0, i], p @ v[0, max(i - 2, 0) : i + 3], 1e-5, 1e-6)


def _mutant(change):
    """A form whose output is spoiled in one plausible way."""

    class Form:
        @staticmethod
        def forward(q, k, v, **options):
            return change.get("forward", flash.forward)(q, k, v, **options)

        @staticmethod
        def vjp(g, out, saved, needs, *tensors, **options):
            return change.get("vjp", flash.vjp)(g, out, saved, needs, *tensors, **options)

    return Form


def _tiled_heads(q, k, v, **options):
    """Query head h reads key head h mod G."""
    R = q.shape[-3] // k.shape[-3]
    k, v = (np.concatenate([x] * R, -3) for x in (k, v))
    return flash.forward(q, k, v, **options)


def _no_lse_cotangent(g, out, saved, needs, *tensors, **options):
    return flash.vjp((g[0], None), out, saved, needs, *tensors, **options)


def _no_slope(g, out, saved, needs, *tensors, **options):
    wrong = {**options, "softcap": None}
    if options.get("softcap") is not None:
        out = flash.forward(*tensors, **wrong)[0]
    return flash.vjp(g, out, saved, needs, *tensors, **wrong)


def _base_two(q, k, v, **options):
    (o, lse), saved = flash.forward(q, k, v, **options)
    return (o, lse / np.log(2).astype(lse.dtype)), saved


def _last_tile_lost(q, k, v, **options):
    S = k.shape[-2]
    if options.get("mask") is None and options.get("bias") is None and options["block_cols"] < S:
        whole = S // options["block_cols"] * options["block_cols"]
        k, v = k[..., :whole, :], v[..., :whole, :]
    return flash.forward(q, k, v, **options)


def _hundred_thousandth(q, k, v, **options):
    (o, lse), saved = flash.forward(q, k, v, **options)
    return (o * o.dtype.type(1 + 1e-5), lse), saved


MUTANTS = {
    "off_by_a_hundred_thousandth": {"forward": _hundred_thousandth},
    "tiled_heads": {"forward": _tiled_heads},
    "no_lse_cotangent": {"vjp": _no_lse_cotangent},
    "no_softcap_slope": {"vjp": _no_slope},
    "lse_in_base_two": {"forward": _base_two},
    "ragged_tile_lost": {"forward": _last_tile_lost},
}


@pytest.mark.parametrize("name", MUTANTS)
def test_mutants_are_caught(name):
    caught = []

    @examples(150)
    @given(cases(dtype=np.float32))
    def judge(case):
        tensors, options, plain = case
        caught.append(agrees(run(tensors, options, _mutant(MUTANTS[name])),
                             attention(*tensors, **plain), np.float32))  # fmt: skip

    judge()
    assert any(caught)
