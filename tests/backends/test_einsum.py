"""einsum on NumPy and strict, against the sum of products that defines it."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import backends

XPS = [backends.get("numpy"), backends.get("strict")]
NP, STRICT = XPS
each = pytest.mark.parametrize("xp", XPS, ids=["numpy", "strict"])


def contracted(subscripts, *operands):
    """Einstein sum from its definition, one product of entries at a time."""
    inputs, output = subscripts.split("->")
    terms = inputs.split(",")
    sizes = {
        c: n for t, x in zip(terms, operands, strict=True) for c, n in zip(t, x.shape, strict=True)
    }
    out = np.zeros([sizes[c] for c in output], operands[0].dtype)
    for point in itertools.product(*(range(n) for n in sizes.values())):
        at = dict(zip(sizes, point, strict=True))
        entries = (x[tuple(at[c] for c in t)] for t, x in zip(terms, operands, strict=True))
        out[tuple(at[c] for c in output)] += math.prod(entries)
    return out


def einsum(xp, subscripts, *operands):
    out = xp.einsum(subscripts, *(xp.from_numpy(x) for x in operands))
    return xp.to_numpy(out)


@st.composite
def einsums(draw):
    sizes = dict(zip("abcd", draw(st.tuples(*[st.integers(0, 3)] * 4)), strict=True))
    terms = draw(st.lists(st.text("abcd", max_size=3), min_size=1, max_size=3))
    letters = sorted(set("".join(terms)))
    output = "".join(draw(st.permutations(letters))[: draw(st.integers(0, len(letters)))])
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    dtype = draw(st.sampled_from([np.float64, np.float32, np.int64, np.int32]))
    operands = [rng.integers(-4, 5, [sizes[c] for c in t]).astype(dtype) for t in terms]
    return f"{','.join(terms)}->{output}", operands


@each
@given(einsums())
@example(("aba,a->b", [np.arange(12.0).reshape(2, 3, 2), np.arange(2.0)]))
@example(("aaa->a", [np.arange(27).reshape(3, 3, 3)]))
@example((",->", [np.array(2.0), np.array(3.0)]))
def test_einsum_is_the_sum_of_products(xp, case):
    subscripts, operands = case
    wanted = contracted(subscripts, *operands)
    out = einsum(xp, subscripts, *operands)
    assert out.dtype == wanted.dtype
    np.testing.assert_array_equal(out, wanted)


@each
@pytest.mark.parametrize(
    "dotted, plain, shapes",
    [
        ("...ij,...jk->...ik", "abij,abjk->abik", [(2, 3, 2, 3), (2, 3, 3, 4)]),
        ("i...j,j->...i", "iabj,j->abi", [(2, 2, 3, 4), (4,)]),
        ("...i,i->...", "ai,i->a", [(3, 2), (2,)]),
        ("...->...", "ab->ab", [(2, 3)]),
        ("...ii->...", "aii->a", [(2, 3, 3)]),
    ],
)
def test_einsum_reads_ellipses(xp, dotted, plain, shapes):
    rng = np.random.default_rng(0)
    operands = [rng.integers(-4, 5, shape).astype(float) for shape in shapes]
    wanted = contracted(plain, *operands)
    np.testing.assert_array_equal(einsum(xp, dotted, *operands), wanted)


@each
def test_einsum_broadcasts_under_the_ellipsis(xp):
    rng = np.random.default_rng(0)
    x, y = rng.integers(-4, 5, (2, 1, 3, 2)) * 1.0, rng.integers(-4, 5, (5, 2, 4)) * 1.0
    wanted = np.array([[contracted("ij,jk->ik", a[0], b) for b in y] for a in x])
    np.testing.assert_array_equal(einsum(xp, "...ij,...jk->...ik", x, y), wanted)


@pytest.mark.parametrize("n", [4, 40])
def test_einsum_stays_near_the_exact_product_when_blas_takes_over(n):
    rng = np.random.default_rng(n)
    x, y = rng.standard_normal((2, 3, n, n))
    out, exact = einsum(NP, "bij,bjk->bik", x, y), x.astype("g") @ y.astype("g")
    # |fl(sum) - sum| <= n u sum |x y| for any order of n products (Higham 2002, 3.1).
    bound = n * 2.0**-53 * (np.abs(x) @ np.abs(y)) * 1.01
    assert np.all(np.abs(out - exact) <= bound)
    assert np.all(np.abs(einsum(STRICT, "bij,bjk->bik", x, y) - exact) <= bound)


@pytest.mark.parametrize(
    "subscripts, shapes, wanted",
    [
        ("ij,jk", [(2, 3), (3, 2)], "'ij,jk' has no '->'"),
        ("ij->i", [(2, 3), (3,)], "names 1 operands, 2 arrived"),
        ("ij,jk->ik", [(2, 3), (4, 2)], "j is 3 in operand 0 and 4 in operand 1"),
        ("ii->i", [(2, 3)], "i is 2 in operand 0 and 3 in operand 0"),
        ("ij->i", [(2,)], "'ij' in 'ij->i' names 2 axes, its operand has 1"),
        ("i->i", [(2, 2)], "'i' in 'i->i' names 1 axes, its operand has 2"),
        ("i->ij", [(2,)], "output letter j of 'i->ij' is in no operand"),
        ("i->ii", [(2,)], "output letter i of 'i->ii' is repeated"),
        ("...i->i", [(2, 2)], "has '...' in an operand, not in the output"),
        ("i1->i", [(2, 2)], "'i1' in 'i1->i' is not letters and one '...'"),
    ],
)
def test_strict_einsum_names_what_does_not_fit(subscripts, shapes, wanted):
    with pytest.raises(ValueError) as error:
        STRICT.einsum(subscripts, *(STRICT.zeros(shape) for shape in shapes))
    assert wanted in str(error.value) and str(error.value).startswith("einsum: ")
