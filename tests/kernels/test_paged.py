"""Decoding over a paged, split cache: the same as attention over the keys in their order."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.fused.cupy import paged
from backends.kernels.device import using
from backends.kernels.emulation import ORDERS
from ref.attention.paged import paged as on_numpy
from tests.fused.attention_oracle import agrees, attention
from tests.fused.examples import examples
from tests.kernels.cases import BF16
from tests.kernels.stand_in import StandIn


def cache(rng, lengths, page, G, d, e, dtype):
    """(k_pages, v_pages, table): pages in random order, NaN in every slot past an entry's length."""
    pages = [-(-n // page) for n in lengths]
    total = sum(pages) + 2
    order = rng.permutation(total)
    k, v = (np.full((total, G, page, c), np.nan, dtype) for c in (d, e))
    table = np.zeros((len(lengths), max(pages, default=0) + 1), np.int32)
    taken = 0
    for b, n in enumerate(lengths):
        for i in range(pages[b]):
            at = table[b, i] = order[taken]
            taken += 1
            used = min(page, n - i * page)
            k[at, :, :used], v[at, :, :used] = (rng.standard_normal((G, used, c)).astype(dtype) for c in (d, e))
    return k, v, table


def gathered(pages, table, n):
    """[G n c] of one entry."""
    found = np.moveaxis(pages[table], 0, 1)
    return found.reshape(len(found), -1, pages.shape[-1])[:, :n]


@examples(30)
@given(
    st.lists(st.integers(0, 90), min_size=1, max_size=3), st.integers(1, 2), st.integers(1, 3), st.integers(1, 3),
    st.sampled_from([1, 5, 16]), st.integers(1, 5), st.sampled_from([None, 2.0]), st.sampled_from(ORDERS),
)  # fmt: skip
def test_against_float64(lengths, G, R, T, page, splits, softcap, order):
    rng = np.random.default_rng(len(lengths))
    d, e = 9, 40
    k, v, table = cache(rng, lengths, page, G, d, e, np.float32)
    q = rng.standard_normal((len(lengths), G * R, T, d)).astype(np.float32)
    if softcap is None:  # any strides but of the channels: vLLM's slots before heads
        k, v = (np.ascontiguousarray(x.swapaxes(1, 2)).swapaxes(1, 2) for x in (k, v))
    with using(StandIn(order=order)):
        (o, lse), _ = paged.forward(q, k, v, table=table, lengths=np.array(lengths), softcap=softcap, splits=splits)
    for b, n in enumerate(lengths):
        keep = np.arange(n)[None] <= n - T + np.arange(T)[:, None]
        zeros = np.zeros((G * R, T, e)), np.zeros((G * R, T))
        wanted = attention(q[b], gathered(k, table[b], n), gathered(v, table[b], n), *zeros, mask=keep, softcap=softcap)
        assert not agrees({"o": o[b], "lse": lse[b]}, wanted, np.float32)


def test_half_pages_and_wide_values():
    rng = np.random.default_rng(0)
    k, v, table = cache(rng, [70], 16, 1, 64, 140, BF16)
    q = rng.standard_normal((1, 40, 1, 64)).astype(BF16)
    with using(StandIn()) as device:
        (o, _), _ = paged.forward(q, k, v, table=table, lengths=np.array([70], np.int32))
    s = q[0, :, 0].astype(float) @ gathered(k, table[0], 70)[0].astype(float).T / 8
    p = np.exp(s - s.max(-1, keepdims=True))
    wanted = p / p.sum(-1, keepdims=True) @ gathered(v, table[0], 70)[0].astype(float)
    assert abs(o[0, :, 0].astype(float) - wanted).max() <= 2.0**-8 * abs(wanted).max()
    assert device.kernels() == ["paged_decode", "paged_decode_merge"]
    assert device.launches[0].grid[1] == 2 * 2  # two blocks of 32 rows, two chunks of 128 channels


def test_bad_arguments_name_the_axes():
    q, k = np.zeros((2, 4, 1, 8), np.float32), np.zeros((3, 2, 16, 8), np.float32)
    table, length = np.zeros((2, 3), np.int32), np.zeros(2, np.int32)
    for change, words in (
        ({"q": q[0]}, r"q has shape \(4, 1, 8\)"),
        ({"k": k[..., :4]}, "d=4"),
        ({"v": k[:2]}, "v_pages has shape"),
        ({"q": q[:, :3]}, "G=2 must divide H=3"),
        ({"table": table[:1]}, "table"),
        ({"lengths": length[:1]}, "lengths"),
        ({"splits": 0}, "splits=0"),
        ({"softcap": -1.0}, "softcap"),
    ):
        given = {"q": q, "k": k, "v": k, "table": table, "lengths": length} | change
        tensors = [given.pop(name) for name in "qkv"]
        with using(StandIn()), pytest.raises(ValueError, match=words):
            paged.forward(*tensors, **given)
        given.pop("splits", None)
        with using(StandIn()):
            assert "splits" in change or not paged.supports(*tensors, **given)
    with using(StandIn()), pytest.raises(TypeError, match="float64"):
        paged.forward(q.astype(float), k, k, table=table, lengths=length)
    with using(StandIn()), pytest.raises(TypeError, match="needed int"):
        paged.forward(q, k, k, table=table.astype(float), lengths=length)


@pytest.mark.parametrize("page, length", [(3, 1), (-1, 1), (0, -1), (0, 33)])
def test_a_page_that_is_not_there_is_the_composites_to_name(page, length):
    q, k = np.zeros((1, 2, 1, 8), np.float32), np.zeros((3, 2, 16, 8), np.float32)
    table, lengths = np.array([[page, 9]]), np.array([length])
    with using(StandIn()):
        assert not paged.supports(q, k, k, table=table, lengths=lengths)
        assert paged.supports(q, k, k, table=table % 3, lengths=np.array([1]))  # a place past its length may hold 9
    with pytest.raises(ValueError, match="paged: (table of )?sequence 0 has"):
        on_numpy(q, k, k, table, lengths)


def test_more_sequences_than_a_grid_has_are_the_composites(monkeypatch):
    q, k = np.zeros((1, 2, 1, 8), np.float32), np.zeros((1, 1, 4, 8), np.float32)
    few, many = (np.broadcast_to(q, (n, 2, 1, 8)) for n in (9, 65536))
    with using(StandIn()):
        for x in (few, many):
            where = np.zeros((len(x), 1), int), np.ones(len(x), int)
            assert paged.supports(x, k, k, *where) == (x is few)
        monkeypatch.setenv("CLOSEDFORM_ATTENTION_LEVEL", "composite")
        assert not paged.supports(few, k, k, np.zeros((9, 1), int), np.ones(9, int))
