"""Decoding over a paged, split cache: the same as attention over the keys in their order."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.fused.cupy import paged_decode
from backends.kernels.device import using
from backends.kernels.emulation import ORDERS
from tests.fused.attention_oracle import agrees, attention
from tests.fused.examples import examples
from tests.kernels.cases import BF16
from tests.kernels.stand_in import StandIn


def paged(rng, lengths, page, G, d, e, dtype):
    """(k_pages, v_pages, table): pages in random order, NaN in every slot past an entry's length."""
    pages = [-(-n // page) for n in lengths]
    total = sum(pages) + 2
    order = rng.permutation(total)
    k, v = (np.full((total, page, G, c), np.nan, dtype) for c in (d, e))
    table = np.zeros((len(lengths), max(pages, default=0) + 1), np.int32)
    taken = 0
    for b, n in enumerate(lengths):
        for i in range(pages[b]):
            at = table[b, i] = order[taken]
            taken += 1
            used = min(page, n - i * page)
            k[at, :used], v[at, :used] = (rng.standard_normal((used, G, c)).astype(dtype) for c in (d, e))
    return k, v, table


def gathered(pages, table, n):
    """[G n c] of one entry."""
    flat = pages[table].reshape(-1, *pages.shape[2:])[:n]
    return np.moveaxis(flat, 0, 1)


@examples(30)
@given(
    st.lists(st.integers(0, 90), min_size=1, max_size=3), st.integers(1, 2), st.integers(1, 3), st.integers(1, 3),
    st.sampled_from([1, 5, 16]), st.integers(1, 5), st.sampled_from([None, 2.0]), st.sampled_from(ORDERS),
)  # fmt: skip
def test_against_float64(lengths, G, R, T, page, splits, softcap, order):
    rng = np.random.default_rng(len(lengths))
    d, e = 9, 40
    k, v, table = paged(rng, lengths, page, G, d, e, np.float32)
    q = rng.standard_normal((len(lengths), G * R, T, d)).astype(np.float32)
    with using(StandIn(order=order)):
        o, lse = paged_decode.forward(q, k, v, table, np.array(lengths, np.int32), softcap=softcap, splits=splits)
    for b, n in enumerate(lengths):
        keep = np.arange(n)[None] <= n - T + np.arange(T)[:, None]
        zeros = np.zeros((G * R, T, e)), np.zeros((G * R, T))
        wanted = attention(q[b], gathered(k, table[b], n), gathered(v, table[b], n), *zeros, mask=keep, softcap=softcap)
        assert not agrees({"o": o[b], "lse": lse[b]}, wanted, np.float32)


def test_half_pages_and_wide_values():
    rng = np.random.default_rng(0)
    k, v, table = paged(rng, [70], 16, 1, 64, 140, BF16)
    q = rng.standard_normal((1, 40, 1, 64)).astype(BF16)
    with using(StandIn()) as device:
        o, _ = paged_decode.forward(q, k, v, table, np.array([70], np.int32))
    s = q[0, :, 0].astype(float) @ gathered(k, table[0], 70)[0].astype(float).T / 8
    p = np.exp(s - s.max(-1, keepdims=True))
    wanted = p / p.sum(-1, keepdims=True) @ gathered(v, table[0], 70)[0].astype(float)
    assert abs(o[0, :, 0].astype(float) - wanted).max() <= 2.0**-8 * abs(wanted).max()
    assert device.kernels() == ["paged_decode", "paged_decode_merge"]
    assert device.launches[0].grid[1] == 2 * 2  # two blocks of 32 rows, two chunks of 128 channels


def test_bad_arguments_name_the_axes():
    q, k = np.zeros((2, 4, 1, 8), np.float32), np.zeros((3, 16, 2, 8), np.float32)
    table, length = np.zeros((2, 3), np.int32), np.zeros(2, np.int32)
    for change, words in (
        ({"q": q[0]}, r"q has shape \(4, 1, 8\)"),
        ({"k": k[..., :4]}, "d=4"),
        ({"v": k[:2]}, "v has shape"),
        ({"q": q[:, :3]}, "G=2 must divide H=3"),
        ({"table": table[:1]}, "table"),
        ({"length": length[:1]}, "length"),
        ({"splits": 0}, "splits=0"),
        ({"softcap": -1.0}, "softcap"),
    ):
        given = {"q": q, "k": k, "v": k, "table": table, "length": length} | change
        options = {name: given.pop(name) for name in ("splits", "softcap") if name in given}
        with using(StandIn()), pytest.raises(ValueError, match=words):
            paged_decode.forward(*given.values(), **options)
    with using(StandIn()), pytest.raises(TypeError, match="float64"):
        paged_decode.forward(q.astype(float), k, k, table, length)
    with using(StandIn()), pytest.raises(TypeError, match="int32"):
        paged_decode.forward(q, k, k, table.astype(np.int64), length)
