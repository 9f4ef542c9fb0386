"""Tiled attention against the plain one in float64: every option, ragged tiles, both gradients."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends import threads
from backends.fused import find
from backends.fused.numpy import flash
from tests.fused.attention_oracle import agrees, attention
from tests.fused.examples import examples


@dataclass
class Rule:
    """A rule from a function of (row, column) and the columns that rows start..stop - 1 may see."""

    fn: object
    span: object
    kind: str = "mask"

    def tile(self, xp, rows, cols, T, S):
        return self.fn(rows[:, None], cols[None, :], T, S)

    def columns(self, start, stop, T, S):
        low, high = self.span(start, stop, T, S)
        low = min(max(low, 0), S)
        return low, min(max(high, low), S)


class SureRule(Rule):
    """A causal rule that also tells which columns every row sees."""

    def full_columns(self, start, stop, T, S):
        return 0, start + 1 + S - T


def bottom_right(i, j, T, S):
    return j <= i + S - T


RULES = {
    "causal": Rule(bottom_right, lambda a, b, T, S: (0, b + S - T)),
    "sure": SureRule(bottom_right, lambda a, b, T, S: (0, b + S - T)),
    "top_left": Rule(lambda i, j, T, S: j <= i, lambda a, b, T, S: (0, b)),
    "window": Rule(
        lambda i, j, T, S: abs(j - i - (S - T)) <= 2,
        lambda a, b, T, S: (a + S - T - 2, b + S - T + 2),
    ),
    "segments": Rule(lambda i, j, T, S: i // 3 == j // 3, lambda a, b, T, S: (0, S)),
}
SLOPE = Rule(lambda i, j, T, S: -0.25 * (i - j), lambda a, b, T, S: (0, S), "bias")


@st.composite
def cases(draw, dtype=None, few=False):
    """(q, k, v, g, g_lse), options for the form, options for the oracle; `few` rows over many columns, no tiles."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    G, R = draw(st.sampled_from([(1, 1), (2, 1), (1, 3), (2, 2)]))
    T = draw(st.integers(1, 3) if few else st.integers(0, 9))
    S = draw(st.integers(0, 9)) + (8 * R * T if few else 0)
    d, e = draw(st.integers(1, 5)), draw(st.integers(0, 5))
    batch = draw(st.sampled_from([(), (2,), (1, 2), (0,)]))
    dtype = dtype or draw(st.sampled_from([np.float32, np.float64]))
    size = draw(st.sampled_from([1.0, 1.0, 30.0]))
    H = G * R

    def array(*shape):
        order = draw(st.sampled_from("CFS"))
        x = (rng.standard_normal((*batch, *shape)) * size).astype(dtype)
        if order == "F":
            return np.asfortranarray(x)
        return np.repeat(x, 2, -1)[..., ::2] if order == "S" else x

    tensors = array(H, T, d), array(G, S, d), array(G, S, e), array(H, T, e), array(H, T)
    options = {
        "softcap": draw(st.sampled_from([None, None, 2.0])),
        "scale": draw(st.sampled_from([None, 0.5])),
        "block_rows": None if few else draw(st.integers(1, 10)),
        "block_cols": None if few else draw(st.integers(1, 10)),
    }
    plain = {name: options[name] for name in ("softcap", "scale")}
    kind = draw(st.sampled_from(["none", "none", "none", "array", "shared", *RULES]))
    rows, cols = np.arange(T), np.arange(S)
    if kind == "array":
        options["mask"] = plain["mask"] = rng.random((*batch, H, T, S)) < 0.4
    elif kind == "shared":
        options["mask"] = plain["mask"] = rng.random((1, S)) < 0.6
    elif kind != "none":
        options["mask"], plain["mask"] = RULES[kind], RULES[kind].tile(np, rows, cols, T, S)
    kind = draw(st.sampled_from(["none", "none", "array", "rule", "hides"]))
    if kind == "array":
        options["bias"] = plain["bias"] = rng.standard_normal((H, 1, S)).astype(dtype)
    elif kind == "rule":
        options["bias"], plain["bias"] = SLOPE, SLOPE.tile(np, rows, cols, T, S)
    elif kind == "hides":
        options["bias"] = plain["bias"] = np.where(rng.random((T, S)) < 0.5, 0, -np.inf).astype(dtype)
    return tensors, options, plain


def run(tensors, options, form=flash):
    """{name: output} of the form."""
    q, k, v, g, g_l = tensors
    out, saved = form.forward(q, k, v, **options)
    grads = form.vjp((g, g_l), out, saved, (True,) * 3, q, k, v, **options)
    return dict(zip(("o", "lse", "dq", "dk", "dv"), (*out, *grads), strict=True))


@examples(250)
@given(cases())
def test_flash_is_attention(case):
    tensors, options, plain = case
    before = [x.copy() for x in tensors]
    actual = run(tensors, options)
    assert not agrees(actual, attention(*tensors, **plain), tensors[0].dtype)
    for x, old in zip(tensors, before, strict=True):
        assert np.array_equal(x, old)


@examples(30)
@given(cases(), st.tuples(st.booleans(), st.booleans(), st.booleans()))
def test_only_the_needed_gradients(case, needs):
    (q, k, v, g, g_l), options, _ = case
    out, saved = flash.forward(q, k, v, **options)
    whole = flash.vjp((g, g_l), out, saved, (True,) * 3, q, k, v, **options)
    some = flash.vjp((g, g_l), out, saved, needs, q, k, v, **options)
    for need, a, b in zip(needs, whole, some, strict=True):
        assert (b is None) if not need else np.array_equal(a, b)


@examples(30)
@given(cases())
def test_an_unused_output_is_a_zero_cotangent(case):
    (q, k, v, g, g_l), options, _ = case
    out, saved = flash.forward(q, k, v, **options)
    for pair, zeros in (((g, None), (g, g_l * 0)), ((None, g_l), (g * 0, g_l))):
        some = flash.vjp(pair, out, saved, (True,) * 3, q, k, v, **options)
        whole = flash.vjp(zeros, out, saved, (True,) * 3, q, k, v, **options)
        for a, b in zip(some, whole, strict=True):
            assert np.array_equal(a, b)


def test_rules_that_differ_by_head():
    rng = np.random.default_rng(9)
    tensors = [rng.standard_normal((2, h, n, 3)) for h, n in ((4, 7), (2, 9), (2, 9), (4, 7))]
    tensors.append(rng.standard_normal((2, 4, 7)))
    keep, slope = rng.random((4, 7, 9)) < 0.5, rng.standard_normal((4, 1, 1))
    mask = Rule(lambda i, j, T, S: keep[:, i, j], lambda a, b, T, S: (0, S))
    bias = Rule(lambda i, j, T, S: slope * (i - j), lambda a, b, T, S: (0, S), "bias")
    actual = run(tensors, {"mask": mask, "bias": bias, "block_rows": 3, "block_cols": 4})
    distance = np.arange(7)[:, None] - np.arange(9)
    wanted = attention(*tensors, mask=keep, bias=slope * distance)
    assert not agrees(actual, wanted, np.float64)


def test_tiles_that_no_row_sees_are_skipped():
    """A causal rule is asked for the tiles on and below the diagonal only, for all heads at once."""
    asked = []

    class Counting(Rule):
        def tile(self, xp, rows, cols, T, S):
            asked.append((int(rows[0]), int(cols[0])))
            return super().tile(xp, rows, cols, T, S)

    rule = Counting(RULES["causal"].fn, RULES["causal"].span)
    x = np.ones((3, 12, 2))
    with threads.threads(1):
        flash.forward(x, x, x, mask=rule, block_rows=4, block_cols=4)
    below = [(i, j) for i in (0, 4, 8) for j in (0, 4, 8) if j < i]
    diagonal = [(i, i) for i in (0, 4, 8)]
    assert sorted(asked) == sorted(below + diagonal)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_default_tiles_at_length(dtype, causal):
    rng = np.random.default_rng(3)
    shapes = (2, 900, 8), (1, 1100, 8), (1, 1100, 6), (2, 900, 6), (2, 900)
    tensors = [rng.standard_normal(s).astype(dtype) for s in shapes]
    rule = RULES["causal"] if causal else None
    keep = rule and rule.tile(np, np.arange(900), np.arange(1100), 900, 1100)
    actual = run(tensors, {"mask": rule})
    assert not agrees(actual, attention(*tensors, mask=keep), dtype)


def test_complex_step_along_a_random_direction():
    """The vjp against the derivative of the definition itself, exact to rounding."""
    rng = np.random.default_rng(0)
    q, k, v, g = (rng.standard_normal((2, n, 3)) for n in (5, 7, 7, 5))
    g_l = rng.standard_normal((2, 5))
    step = [rng.standard_normal(x.shape) for x in (q, k, v)]

    def attend(q, k, v):
        s = 1.5 * np.tanh(q @ k.mT / np.sqrt(3) / 1.5)
        p = np.exp(s)
        total = p.sum(-1)
        return (g * (p @ v / total[..., None])).sum() + (g_l * np.log(total)).sum()

    h = 1e-30
    wanted = attend(*(x + 1j * h * dx for x, dx in zip((q, k, v), step, strict=True))).imag / h
    options = {"softcap": 1.5, "block_rows": 2, "block_cols": 3}
    grads = list(run((q, k, v, g, g_l), options).values())[2:]
    actual = sum((a * b).sum() for a, b in zip(grads, step, strict=True))
    assert abs(actual - wanted) <= 1e-12 * sum(abs(a * b).sum() for a, b in zip(grads, step, strict=True))


def test_bad_arguments_name_the_axes():
    x = np.zeros((2, 3, 4))
    for arguments, options, words in (
        ((x, x, np.zeros((2, 5, 4))), {}, "k ends in"),
        ((np.zeros((3, 3, 4)), x, x), {}, "G must divide H"),
        ((x[None], x, x), {}, "leading axes"),
        ((x, x, x), {"mask": np.ones((4, 4), bool)}, "broadcast"),
        ((x, x, x), {"softcap": 0.0}, "softcap"),
        ((x, x, x), {"block_rows": 0}, "block_rows"),
    ):
        with pytest.raises(ValueError, match=words):
            flash.forward(*arguments, **options)
        assert not flash.supports(*arguments, **options)
    for bad in (x.astype(np.float16), x.astype(int), x.astype(np.float32)):
        with pytest.raises(TypeError, match="float32"):
            flash.forward(bad, bad if bad.dtype != np.float32 else x, x)
    with pytest.raises(TypeError, match="bool"):
        flash.forward(x, x, x, mask=np.ones((3, 3)))
    assert flash.supports(x, x, x, mask=RULES["causal"], bias=SLOPE)


def test_the_table_leads_here():
    assert find("attention.flash", "numpy") is flash
    assert find("attention.flash", "strict") is None
