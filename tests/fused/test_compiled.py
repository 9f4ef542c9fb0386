"""The loops that Numba compiles: what the laws of a form do not see: cuts, threads, junk, and who is asked first."""

import math

import numpy as np
import pytest

from autodiff import forms, fusable
from autodiff.opaque import form_chosen
from backends.fused import COMPILED, FORMS, find, find_compiled
from backends.fused.compiled import _loop, _masked, adamw, digest, layer_norm, rms_norm, score_loss, silu, swiglu
from backends.fused.numpy.adamw import scalars
from backends.threads import threads
from ref.nn.silu import silu as silu_of_ref
from ref.spec import get

DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def test_every_compiled_form_is_there_beside_a_fused_one():
    for id in COMPILED:
        assert (id, "numpy") in FORMS
        form = find_compiled(id, "numpy")
        assert callable(form.forward) and callable(form.vjp) and callable(form.supports)
        assert get(id).forms("numpy") == ("composite", "fused", "compiled")
        assert get(id).forms("strict") == ("composite",)


def test_the_compiled_form_is_asked_first_and_the_others_on_demand(monkeypatch):
    asked = []
    for kind, module in (("fused", find("nn.silu", "numpy")), ("compiled", find_compiled("nn.silu", "numpy"))):
        was = module.forward
        monkeypatch.setattr(module, "forward", lambda x, kind=kind, was=was: (asked.append(kind), was(x))[1])
    again = fusable("nn.silu", tensors=("x",))(silu_of_ref.composite)  # forms are looked up once a function
    x = np.ones(3, np.float32)
    assert form_chosen() == "compiled"
    again(x)
    with forms("fused"):
        again(x)
    with forms("composite"):
        again(x)
    again(x.astype(np.float64))  # which the compiled form leaves to NumPy
    assert asked == ["compiled", "fused", "fused"]


def test_without_numba_the_fused_form_is_the_best_there_is(monkeypatch):
    monkeypatch.setenv("CLOSEDFORM_COMPILED", "0")
    _loop.available.cache_clear()
    try:
        assert not _loop.available() and not _loop.takes(np.zeros(1))
        assert find_compiled("nn.silu", "numpy") is None
        assert get("nn.silu").forms("numpy") == ("composite", "fused")
    finally:
        monkeypatch.delenv("CLOSEDFORM_COMPILED")
        _loop.available.cache_clear()
    assert _loop.available()


@DTYPES
def test_adamw_has_the_bits_of_its_equations(dtype):
    """Two roundings a multiply-add, wherever an element lies."""
    g = np.random.default_rng(0)
    p, x, m, v = (g.standard_normal(4099).astype(dtype) for _ in range(4))
    v = abs(v)
    numbers = [dtype(n) for n in scalars(3, 0.1, 0.9, 0.99, 1e-6, 0.01)]
    keep, rate, beta1, rest1, beta2, rest2, eps = numbers
    mean, square = beta1 * m + rest1 * x, beta2 * v + rest2 * (x * x)
    wanted = keep * p - rate * (mean / (np.sqrt(square) + eps)), mean, square
    for start, stop in ((0, 4099), (1, 4099), (5, 4000), (4090, 4099), (7, 8)):
        found = [a[start:stop].copy() for a in (p, m, v)]
        adamw.adamw_(found[0], x[start:stop], *found[1:], 3, lr=0.1, beta1=0.9, beta2=0.99, eps=1e-6, weight_decay=0.01)
        assert all(np.array_equal(a, b[start:stop]) for a, b in zip(found, wanted, strict=True))


@pytest.mark.parametrize("form, inputs", [(silu, 1), (swiglu, 2)], ids=["silu", "swiglu"])
def test_a_gate_has_the_same_bits_wherever_an_element_lies(form, inputs):
    xs = np.linspace(-120, 120, 4099, dtype=np.float32), np.linspace(-1, 3, 4099, dtype=np.float32)

    def run(start, stop):
        parts = [x[start:stop] for x in xs[:inputs]]
        return form.forward(*parts)[0], *form.vjp(xs[1][start:stop], None, (), (True,) * inputs, *parts)

    whole = run(0, 4099)
    for start, stop in ((1, 4099), (5, 4000), (4090, 4099), (7, 8)):
        for a, b in zip(run(start, stop), whole, strict=True):
            assert np.array_equal(a, b[start:stop])


def test_silu_is_within_two_ulp_of_float64():
    """The exponential errs by one ulp at most, 1 + e and the quotient by a half each; near e^88 it overflows late."""
    x = np.concatenate([np.linspace(-88.7, 88.7, 200_001), np.geomspace(1e-30, 1, 999)]).astype(np.float32)
    wide = x.astype(np.float64)
    wanted = wide / (1 + np.exp(-wide))
    assert (abs(silu.forward(x)[0] - wanted) <= 2 * 2.0**-23 * abs(wanted)).all()
    far = silu.forward(np.array([-89, -1e4, 1e4, np.inf], np.float32))[0]
    assert np.array_equal(far, np.array([-0.0, -0.0, 1e4, np.inf], np.float32))
    assert np.isnan(silu.forward(np.array([np.nan], np.float32))[0]).all()


@DTYPES
def test_masked_sums_look_at_nothing_that_is_masked(dtype):
    g = np.random.default_rng(1)
    x, less = g.standard_normal((2, 5, 301)).astype(dtype)
    mask = g.random((5, 301)) < 0.5
    mask[3] = False
    junk = np.where(mask, x, g.choice([np.nan, np.inf, -np.inf], x.shape)).astype(dtype)
    bound = 301 * np.finfo(dtype).eps
    for other in (None, less):
        found = _masked.masked_sums(junk, mask, other)
        for i in range(5):
            terms = (x[i] if other is None else x[i] - other[i])[mask[i]].astype(float)
            assert abs(found[i] - math.fsum(terms)) <= bound * abs(terms).sum()
    assert np.array_equal(_masked.counts(mask, dtype), mask.sum(1))
    of_row = g.standard_normal(5).astype(dtype)
    assert np.array_equal(_masked.spread(mask, of_row), np.where(mask, of_row[:, None], 0))
    assert np.array_equal(_masked.scaled(x, of_row), x * of_row[:, None])


@DTYPES
def test_threads_leave_the_bits_alone(dtype):
    g = np.random.default_rng(2)
    n, d = 700, 300
    x, cotangent, old = g.standard_normal((3, n, d)).astype(dtype)
    weight, bias, weights = g.standard_normal(d).astype(dtype), g.standard_normal(d).astype(dtype), np.ones(n, dtype)
    mask, a = g.random((n, d)) < 0.7, g.standard_normal((n, 1)).astype(dtype)

    def run():
        y, saved = layer_norm.forward(x, weight, bias)
        back = layer_norm.vjp(cotangent, y, saved, (True,) * 3, x, weight, bias)
        z, (r,) = rms_norm.forward(x, weight)
        back += z, r, *rms_norm.vjp(cotangent, z, (r,), (True,) * 2, x, weight)
        options = {"advantages": a, "mask": mask, "weights": weights, "old_log_probs": old, "low": 0.5, "high": 2.0}
        loss, kept = score_loss.forward(x, **options)
        slope = score_loss.vjp(dtype(1), loss, kept, (True,), x, **options)
        return [v.tobytes() for v in (y, *saved, *back, loss, *slope)]

    found = []
    for count in (1, 2, 5):
        with threads(count):
            found.append(run())
    assert found[0] == found[1] == found[2]


def test_a_strided_or_misaligned_array_is_copied_and_nothing_else():
    x = np.arange(12.0)
    assert _loop.plain(x) is x
    odd = np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view(np.float64)
    for y in (x[::2], x.reshape(3, 4).T, odd):
        assert _loop.plain(y).flags.c_contiguous and _loop.plain(y).flags.aligned
        assert np.array_equal(_loop.plain(y), y)
    assert _loop.takes(x) and not _loop.takes(odd) and not _loop.takes(x, x.astype(np.float16))


def test_a_digest_sees_a_word_and_an_exchange():
    """By the definition in exact integers; then: any one word, two words of a row, two rows, two columns."""
    n, width, multiplier = 3 * digest.WIDTH + 70, digest.WIDTH, 6364136223846793005
    words = np.random.default_rng(3).integers(0, 2**64, n, dtype=np.uint64)
    whole = [int(w) for w in words]
    rows = [sum(whole[i : i + width]) for i in range(0, n, width)]
    columns = [sum(whole[j::width]) for j in range(width)]
    wanted = [0, 0]
    for k, sums in enumerate((rows, columns)):
        for s in sums:
            wanted[k] = (wanted[k] ^ s % 2**64) * multiplier % 2**64
            wanted[k] ^= wanted[k] >> 32
    assert digest.digest(words) == np.array(wanted, np.uint64).tobytes()

    def exchanged(a, b):
        out = words.copy()
        out[a], out[b] = words[b], words[a]
        return digest.digest(out)

    found = {digest.digest(words), exchanged(0, 1), exchanged(5, width + 5), exchanged(n - 1, n - 2)}
    found |= {exchanged(slice(0, width), slice(width, 2 * width)), exchanged(slice(0, n, width), slice(1, n, width))}
    for i in (0, 17, width, n - 1):
        changed = words.copy()
        changed[i] ^= np.uint64(1)
        found.add(digest.digest(changed))
    assert len(found) == 10
