"""RoPE, embedding rows and AdamW against their definitions in float64."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends import threads
from backends.fused import FORMS, find
from backends.fused.numpy.adamw import adamw_
from tests.fused.examples import examples

DTYPES = st.sampled_from([np.float32, np.float64])


# ---- RoPE


def rotate(x, positions, layout, base, sign):
    """Pair by pair, by complex numbers in float64."""
    d = x.shape[-1]
    out = np.zeros(x.shape)
    where = np.broadcast_to(
        positions if positions.ndim < 2 else positions[..., None, :], x.shape[:-1]
    ).astype(float)
    for i in range(d // 2):
        a, b = (2 * i, 2 * i + 1) if layout == "interleaved" else (i, i + d // 2)
        z = (x[..., a] + 1j * x[..., b]) * np.exp(sign * 1j * where * base ** (-2 * i / d))
        out[..., a], out[..., b] = z.real, z.imag
    return out


@st.composite
def rope_cases(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    T, d = draw(st.integers(0, 6)), 2 * draw(st.integers(0, 4))
    lead = draw(st.sampled_from([(), (3,), (2, 3), (2, 1, 3), (0, 2)]))
    x = rng.standard_normal((*lead, T, d)).astype(draw(DTYPES))
    if draw(st.booleans()) and x.ndim > 2:
        x = np.ascontiguousarray(x.swapaxes(-2, -3)).swapaxes(-2, -3)
    if draw(st.booleans()):
        x = np.repeat(x, 2, -1)[..., ::2]
    batch = draw(st.sampled_from([(), lead[:-1], (1,) * len(lead[:-1])]))
    positions = rng.integers(0, draw(st.sampled_from([5, 100000])), (*batch, T))
    return x, positions, draw(st.sampled_from(["interleaved", "half"])), draw(
        st.sampled_from([10000.0, 500000.0])
    )


@examples(150)
@given(rope_cases())
def test_rope(case):
    x, positions, layout, base = case
    form = find("nn.rope", "numpy")
    options = {"layout": layout, "base": base}
    assert form.supports(x, positions, **options)
    before = x.copy()
    out, saved = form.forward(x, positions, **options)
    (back,) = form.vjp(x, out, saved, (True,), x, positions, **options)
    # The angle is wrong by 2 units of float64 relative to itself, each product by 3 of the dtype.
    u = np.finfo(x.dtype).eps / 2
    pairs = x.astype(float)
    size = np.sqrt(2) * (abs(pairs).max(-1, initial=0)[..., None])
    bound = (4 * u + 4 * 2.0**-53 * positions.max(initial=0)) * size
    for y, sign in ((out, 1), (back, -1)):
        assert y.dtype == x.dtype and y.shape == x.shape and not np.shares_memory(x, y)
        assert (abs(y - rotate(pairs, positions, layout, base, sign)) <= bound).all()
    assert np.array_equal(x, before)


def test_rope_bad_arguments():
    form = find("nn.rope", "numpy")
    x, at = np.zeros((2, 3, 4)), np.arange(3)
    for bad, words in (
        ((np.zeros((3, 5)), at, {}), "even"),
        ((x, at, {"layout": "halves"}), "layout"),
        ((x, np.arange(4), {}), "positions"),
    ):
        with pytest.raises(ValueError, match=words):
            form.forward(bad[0], bad[1], **bad[2])
        assert not form.supports(bad[0], bad[1], **bad[2])
    assert not form.supports(x, at, frequencies=None)


def test_rope_mutants_differ():
    """The other layout, the other sign, float32 angles: each is far outside the bound."""
    rng = np.random.default_rng(0)
    x, at = rng.standard_normal((4, 8)), np.arange(4) + 5
    form = find("nn.rope", "numpy")
    own = form.forward(x, at)[0]
    for layout, sign in (("half", 1), ("interleaved", -1)):
        assert abs(own - rotate(x, at, layout, 10000.0, sign)).max() > 1e-3
    far = np.array([99991])
    angle = np.float32(far[0]) * np.float32(10000.0) ** (-np.arange(0, 8, 2, dtype=np.float32) / 8)
    rough = (x[:1].view(complex) * np.exp(1j * angle.astype(float))).view(float)
    assert abs(rough - form.forward(x[:1], far)[0]).max() > 1e-4


# ---- embedding


@examples(120)
@given(
    st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(0, 4),
    st.sampled_from([(), (0,), (1,), (17,), (3, 4), (2, 0)]), DTYPES, st.sampled_from("CFS"),
)  # fmt: skip
def test_embedding(seed, V, d, shape, dtype, order):
    rng = np.random.default_rng(seed)
    form = find("nn.embedding", "numpy")
    weight = rng.standard_normal((V, d)).astype(dtype)
    ids = np.asarray(rng.integers(0, max(1, V // 2), shape), draw_kind(seed))
    g = rng.standard_normal((*shape, d)).astype(dtype)
    g = {"C": g, "F": np.asfortranarray(g), "S": np.repeat(g, 2, -1)[..., ::2]}[order]
    assert form.supports(weight, ids)
    out, saved = form.forward(weight, ids)
    (dw,) = form.vjp(g, out, saved, (True,), weight, ids)
    wanted, size = np.zeros((2, V, d))
    for i in np.ndindex(*shape):
        assert np.array_equal(out[i], weight[ids[i]])
        wanted[ids[i]] += g[i]
        size[ids[i]] += abs(g[i].astype(float))
    assert out.shape == (*shape, d) and dw.shape == (V, d) and out.dtype == dw.dtype == dtype
    assert not np.shares_memory(out, weight) and not np.shares_memory(dw, g)
    assert (abs(dw - wanted) <= (ids.size + 1) * np.finfo(dtype).eps / 2 * size).all()


def draw_kind(seed):
    return (np.int64, np.int32, np.uint8)[seed % 3]


def test_embedding_sums_in_order_and_exactly():
    """1e8 + 1 - 1e8 in float32 depends on the order, so the order is the one of the positions."""
    form = find("nn.embedding", "numpy")
    g = np.array([[1.0], [1e8], [-1e8], [2.0]], np.float32)
    (dw,) = form.vjp(g, None, (), (True,), np.zeros((3, 1), np.float32), np.array([2, 2, 2, 0]))
    assert dw.tolist() == [[2.0], [0.0], [0.0]]
    whole = np.arange(12.0).reshape(6, 2)
    (dw,) = form.vjp(whole, None, (), (True,), np.zeros((4, 2)), np.array([3, 0, 3, 3, 1, 0]))
    assert dw.tolist() == [[12, 14], [8, 9], [0, 0], [10, 13]]


def test_embedding_bad_ids():
    form = find("nn.embedding", "numpy")
    for bad in (-1, 3):
        with pytest.raises(ValueError, match=f"ids hold {bad}, weight has V=3"):
            form.forward(np.zeros((3, 2)), np.array([0, bad]))
    assert not form.supports(np.zeros((3, 2)), np.array([0.0]))


# ---- AdamW


def plain_adamw(p, g, m, v, t, lr, beta1, beta2, eps, decay):
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g * g
    move = (m / (1 - beta1**t)) / (np.sqrt(v / (1 - beta2**t)) + eps)
    return p - lr * decay * p - lr * move, m, v, lr * abs(move)


@examples(60)
@given(
    st.integers(0, 2**32 - 1), st.sampled_from([0, 1, 7, 1000]), DTYPES,
    st.sampled_from([1, 2, 1000]), st.sampled_from([0.0, 0.1]), st.sampled_from([1e-8, 1e-3]),
)  # fmt: skip
def test_adamw(seed, n, dtype, t, decay, eps):
    rng = np.random.default_rng(seed)
    p, g, m = (rng.standard_normal(n).astype(dtype) for _ in range(3))
    v = (rng.standard_normal(n) ** 2).astype(dtype)
    start = [x.astype(float) for x in (p, g, m, v)]
    held = g.copy()
    options = {"lr": 1e-2, "beta1": 0.9, "beta2": 0.95, "eps": eps, "weight_decay": decay}
    adamw_(p, g, m, v, t, **options)
    wanted_p, wanted_m, wanted_v, move = plain_adamw(*start, t, 1e-2, 0.9, 0.95, eps, decay)
    u = np.finfo(dtype).eps / 2
    err_m = 4 * u * (0.9 * abs(start[2]) + 0.1 * abs(start[1]))
    assert (abs(m - wanted_m) <= err_m).all()
    assert (abs(v - wanted_v) <= 8 * u * wanted_v).all()
    # m cancels, so its error reaches the move in proportion; v's halves under the root.
    lost = 1e-2 * err_m / (1 - 0.9**t) / (np.sqrt(wanted_v / (1 - 0.95**t)) + eps)
    bound = 4 * u * abs(start[0]) + 16 * u * move + lost
    assert (abs(p - wanted_p) <= bound).all()
    assert np.array_equal(g, held)


def test_adamw_in_several_steps_and_threads():
    """Blocks and threads leave the bits alone; three steps equal three plain ones."""
    n = 300_001
    results = []
    for count in (1, 2, 5):
        rng = np.random.default_rng(1)
        p, m, v = rng.standard_normal(n).astype(np.float32), *np.zeros((2, n), np.float32)
        wanted = [p.astype(float), np.zeros(n), np.zeros(n)]
        for t in (1, 2, 3):
            g = rng.standard_normal(n).astype(np.float32)
            with threads.threads(count):
                adamw_(p, g, m, v, t, lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.01)
            wanted = list(plain_adamw(wanted[0], g, *wanted[1:], t, 1e-3, 0.9, 0.999, 1e-8, 0.01)[:3])
        results.append((p, m, v))
        # A step moves each entry by at most about lr, known to 1e-5 of it.
        assert abs(p - wanted[0]).max() <= 3 * (abs(wanted[0]).max() * 2.0**-23 + 1e-3 * 1e-5)
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize("change", [{"t": 2}, {"eps": 1e-2}, {"beta2": 0.99}, {"weight_decay": 0.2}])
def test_adamw_mutants_differ(change):
    """A wrong step count, an eps inside the root and the like: far beyond rounding."""
    right = {"t": 1, "lr": 0.1, "beta1": 0.9, "beta2": 0.95, "eps": 1e-8, "weight_decay": 0.1}
    wrong = {**right, **change}
    rng = np.random.default_rng(0)
    p, g = rng.standard_normal((2, 50))
    m, v = np.full((2, 50), 0.25)
    wanted = plain_adamw(p, g, m, v, 1, 0.1, 0.9, 0.95, 1e-8, 0.1)[0]
    adamw_(p, g, m, v, wrong.pop("t"), **wrong)
    assert abs(p - wanted).max() > 1e-4


def test_adamw_bad_arguments():
    x = np.zeros(4)
    options = {"lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.0}
    for arrays, t, words in (
        ((x, np.zeros(3), x, x), 1, "grad is"),
        ((x, x, np.zeros((2, 2)), x), 1, "m is"),
        ((x, x, x, x.astype(np.float32)), 1, "v is float32"),
        ((x, np.zeros(8)[::2], x, x), 1, "contiguous"),
        ((x, x, x, x), 0, "t=0"),
    ):
        with pytest.raises(ValueError, match=words):
            adamw_(*arrays, t, **options)


def test_every_form_of_the_table_can_be_found():
    for id, backend in FORMS:
        form = find(id, backend)
        assert callable(form.forward) and (callable(getattr(form, "vjp", None)) or id == "attention.paged")
    assert find("nn.nothing", "numpy") is None
