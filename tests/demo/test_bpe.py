from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ref.demo import bpe

SMALL = st.lists(st.sampled_from([b"a", b"b", b"ab", b" ", b"\n", b"\n  ", b"7", b"..", b"\xff", b"aaa"]))
texts = st.one_of(st.binary(max_size=60), SMALL.map(b"".join))


def slow_learn(text, vocabulary):
    """Sennrich's algorithm, one piece and one pair at a time."""
    words = [list(p) for p in bpe.PIECE.findall(text)]
    merges = []
    while 256 + len(merges) < vocabulary:
        pairs = Counter(pair for w in words for pair in zip(w, w[1:], strict=False))
        if not pairs or max(pairs.values()) < 2:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        words = [slow_merge(w, best, 255 + len(merges)) for w in words]
    return merges


def slow_merge(word, pair, new):
    out, i = [], 0
    while i < len(word):
        hit = tuple(word[i : i + 2]) == pair
        out.append(new if hit else word[i])
        i += 2 if hit else 1
    return out


def slow_encode(merges, text):
    """GPT-2's way: in each piece, the pair of lowest rank first."""
    rank, out = {pair: r for r, pair in enumerate(merges)}, []
    for word in map(list, bpe.PIECE.findall(text)):
        while known := [p for p in zip(word, word[1:], strict=False) if p in rank]:
            best = min(known, key=rank.get)
            word = slow_merge(word, best, 256 + rank[best])
        out += word
    return out


@given(texts, st.integers(256, 270))
def test_merges_are_those_of_the_slow_algorithm(text, vocabulary):
    assert [tuple(m) for m in bpe.learn(text, vocabulary).tolist()] == slow_learn(text, vocabulary)


@given(texts, texts, st.integers(256, 270))
def test_encoding_is_the_lowest_rank_first_and_comes_back(training, text, vocabulary):
    merges = bpe.learn(training, vocabulary)
    tokens = bpe.encode(merges, text)
    assert tokens.tolist() == slow_encode([tuple(m) for m in merges.tolist()], text)
    assert bpe.decode(merges, tokens) == text


@given(texts, st.floats(0, 0.9), st.integers(0, 9))
def test_dropout_gives_other_tokens_of_the_same_text(text, dropout, seed):
    merges = bpe.learn(text, 270)
    tokens = bpe.encode(merges, text, dropout, np.random.default_rng(seed))
    assert bpe.decode(merges, tokens) == text
    assert len(tokens) >= len(bpe.encode(merges, text))
    if not dropout:
        assert tokens.tolist() == bpe.encode(merges, text).tolist()


def test_dropout_leaves_its_share_of_merges_undone():
    merges, text = np.array([[97, 98]]), b" ".join([b"ab"] * 4000)
    tokens = bpe.encode(merges, text, 0.25, np.random.default_rng(0))
    undone = np.sum(tokens == 97) / 4000
    # Hoeffding: further off than this with probability 2 exp(-2 * 4000 * 0.045^2) < 2e-7.
    assert abs(undone - 0.25) < 0.045


def test_every_token_is_used_and_none_crosses_a_piece():
    text = b"\n".join(b"def f(x):\n    return x + %d" % n for n in range(50))
    merges = bpe.learn(text, 300)
    table = bpe.spelled(merges)
    assert len(set(table)) == len(table) == 256 + len(merges)
    for token in table[256:]:
        assert any(token in piece for piece in bpe.PIECE.findall(text))


def test_a_vocabulary_below_the_bytes_is_an_error():
    with pytest.raises(ValueError, match="learn: vocabulary=255; at least the 256 bytes"):
        bpe.learn(b"text", 255)


@pytest.mark.parametrize("token", [-1, 256])
def test_an_unknown_token_is_named(token):
    with pytest.raises(ValueError, match=f"decode: token {token}; the vocabulary has 0..255"):
        bpe.decode(np.empty((0, 2), int), [65, token])
