import lzma
from collections import Counter, defaultdict
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ref.demo import corpus, ngram

TEXTS = st.text("ab\n", min_size=1, max_size=24).map(str.encode)
FEW = settings(max_examples=60, deadline=None, derandomize=True, database=None)
ALL = np.arange(256)[None]


def exact(text, order, context, symbol):
    """The header's equations in rational numbers, from dictionaries of byte strings."""
    padded = b"\n" * (order + 1) + text

    def table(k):
        grams = [padded[i - k - 1 : i + 1] for i in range(order + 1, len(padded))]
        seen = Counter(g[1:] for g in grams)
        return seen if k == order else Counter(g[1:] for g in set(grams))

    def p(k):
        if k < 0:
            return Fraction(1, 256)
        counts, h = table(k), context[len(context) - k :]
        n = Counter(counts.values())
        y = Fraction(n[1], n[1] + 2 * n[2]) if n[1] + n[2] else 0

        def discount(c):
            m = min(c, 3)
            wanted = m - (m + 1) * y * Fraction(n[m + 1], n[m]) if n[m] else Fraction(m)
            return min(max(wanted, Fraction(m, 10)), Fraction(m))

        after = {g[-1]: c for g, c in counts.items() if g[:-1] == h}
        if not after:
            return p(k - 1)
        total, c = sum(after.values()), after.get(symbol, 0)
        kept = c - discount(c) if c else 0
        return (kept + sum(map(discount, after.values())) * p(k - 1)) / total

    return p(order)


@given(TEXTS, st.integers(0, 4), st.text("ab\nz", min_size=4, max_size=4).map(str.encode))
@FEW
def test_probabilities_are_the_equations_in_fractions(text, order, context):
    p = ngram.probabilities(ngram.fit(text, 4), [list(context)], ALL, order)[0]
    if order < 4:  # a lower order's table does not depend on how far the fit went
        q = ngram.probabilities(ngram.fit(text, order), [list(context)], ALL)[0]
        assert (p == q).all()
    for symbol in b"ab\nz":
        wanted = exact(text, order, context, symbol)
        assert p[symbol] == pytest.approx(float(wanted), rel=1e-13)


def exact_witten_bell(text, order, context, symbol):
    """Occurrences alone, in rational numbers."""
    padded, p = b"\n" * order + text, Fraction(1, 256)
    for k in range(order + 1):
        h = context[len(context) - k :]
        after = Counter(padded[i] for i in range(order, len(padded)) if padded[i - k : i] == h)
        if after:
            p = (after[symbol] + len(after) * p) / (after.total() + len(after))
    return p


@given(TEXTS, st.integers(0, 4), st.text("ab\nz", min_size=4, max_size=4).map(str.encode))
@FEW
def test_witten_bell_is_its_equation_in_fractions(text, order, context):
    p = ngram.probabilities(ngram.fit(text, 4), [list(context)], ALL, order, "witten-bell")[0]
    for symbol in b"ab\nz":
        assert p[symbol] == pytest.approx(float(exact_witten_bell(text, order, context, symbol)), rel=1e-13)


def test_a_text_done_by_hand():
    # "aab", order 0: counts 2, 1; n_1 = n_2 = 1, so Y = 1/3, D(1) = 1 - 2/3, D(2) = 2 - 0.
    p = ngram.probabilities(ngram.fit(b"aab", 0), np.zeros((1, 0), int), ALL)[0]
    left_over = Fraction(1, 3) * (2 + Fraction(1, 3))
    assert p[ord("a")] == pytest.approx(float(left_over / 256), rel=1e-14)
    assert p[ord("b")] == pytest.approx(float(Fraction(2, 9) + left_over / 256), rel=1e-14)
    assert p[ord("c")] == pytest.approx(float(left_over / 256), rel=1e-14)


@given(st.binary(min_size=1, max_size=60), st.integers(0, 5), st.integers(0, 2**32))
@FEW
def test_every_distribution_is_positive_and_sums_to_one(text, order, seed):
    contexts = np.random.default_rng(seed).choice(list(text + b"\n\xff"), (20, 5))
    for smoothing in ngram.SMOOTHINGS:
        p = ngram.probabilities(ngram.fit(text, 5), contexts, ALL, order, smoothing)
        assert (p > 0).all()
        np.testing.assert_allclose(p.sum(-1), 1, rtol=0, atol=1e-13)


@given(TEXTS, TEXTS, st.integers(0, 4))
@FEW
def test_no_model_codes_below_the_empirical_entropy(text, other, order):
    """Gibbs: sum_w f(w | h) log(1 / p(w | h)) >= H(f(. | h)), whatever p of h is."""
    padded, following = b"\n" * order + text, defaultdict(Counter)
    for i in range(order, len(padded)):
        following[padded[i - order : i]][padded[i]] += 1
    entropy = 0.0
    for counts in following.values():
        f = np.array(list(counts.values())) / counts.total()
        entropy -= counts.total() * (f * np.log2(f)).sum() / len(text)
    for fitted in (text, other):
        assert ngram.bits_per_byte(ngram.fit(fitted, order), text) >= entropy - 1e-12


@given(TEXTS, TEXTS, st.integers(0, 4), st.permutations(range(256)))
@FEW
def test_bits_do_not_depend_on_which_byte_is_called_what(fitted, text, order, order_of_bytes):
    names = [b for b in order_of_bytes if b != ord("\n")]
    table = bytes(names[:10] + [ord("\n")] + names[10:])  # the padding keeps its name
    plain = ngram.bits_per_byte(ngram.fit(fitted, order), text)
    renamed = ngram.bits_per_byte(ngram.fit(fitted.translate(table), order), text.translate(table))
    assert renamed == pytest.approx(plain, rel=1e-13)


def test_bits_are_the_mean_of_minus_log2():
    levels, text = ngram.fit(b"the cat sat on the mat", 3), b"the hat"
    padded = b"\n" * 3 + text
    p = [
        ngram.probabilities(levels, [list(padded[i : i + 3])], [[padded[i + 3]]])[0, 0]
        for i in range(len(text))
    ]
    assert ngram.bits_per_byte(levels, text) == pytest.approx(-np.log2(p).mean(), rel=1e-14)


def test_order_is_the_best_on_the_validation_text():
    fitting, validation = b"abcabdabe" * 40, b"abeabcabd" * 9
    bits = [ngram.bits_per_byte(ngram.fit(fitting, k), validation) for k in range(6)]
    assert ngram.choose_order(fitting, validation, range(6)) == int(np.argmin(bits))
    assert ngram.choose_order(fitting, validation, [1, 0]) == int(np.argmin(bits[:2]))


def test_on_the_demo_text_the_model_codes_below_xz():
    text = corpus.load()
    order = ngram.choose_order(text.fitting, text.validation, range(4, 7))
    bits = ngram.bits_per_byte(ngram.fit(text.training, order), text.heldout)
    assert bits < ngram.xz_bits_per_byte(text.heldout)


def test_xz_reads_back():
    text = b"to be or not to be" * 9
    size = ngram.xz_bits_per_byte(text) * len(text) / 8
    data = lzma.compress(text, preset=9 | lzma.PRESET_EXTREME)
    assert size == len(data) and lzma.decompress(data) == text


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ngram.fit(b"", 2), "fit: text has 0 bytes"),
        (lambda: ngram.fit(b"a", -1), "max_order=-1"),
        (lambda: ngram.bits_per_byte(ngram.fit(b"a", 1), b""), "bits_per_byte: text has 0 bytes"),
        (lambda: ngram.bits_per_byte(ngram.fit(b"a", 1), b"a", 2), "order 2 .* orders 0 to 1"),
        (lambda: ngram.bits_per_byte(ngram.fit(b"a", 1), b"a", -1), "order -1 "),
        (lambda: ngram.probabilities(ngram.fit(b"a", 2), [[1]], ALL), "contexts have 1 bytes"),
        (lambda: ngram.bits_per_byte(ngram.fit(b"a", 0), b"a", 0, "katz"), "smoothing='katz'; needed one of"),
        (lambda: ngram.xz_bits_per_byte(b""), "xz_bits_per_byte: text has 0 bytes"),
        (lambda: ngram.choose_order(b"a", b"", [0]), "text has 0 bytes"),
        (lambda: ngram.choose_order(b"a", b"a", []), "orders is empty"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
