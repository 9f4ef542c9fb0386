from pydoc_data.topics import topics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ref.demo import corpus

SEEDS = range(8)


def long_lines(names):
    lines = (line.strip() for name in names for line in topics[name].splitlines())
    return {line for line in lines if len(line) >= 40}


@pytest.mark.parametrize("seed", SEEDS)
def test_no_long_line_stands_on_two_sides(seed):
    names = corpus.load(seed).names
    assert not long_lines(names["training"]) & long_lines(names["heldout"])
    assert not long_lines(names["fitting"]) & long_lines(names["validation"])


@pytest.mark.parametrize("seed", SEEDS)
def test_sides_are_disjoint_and_together_everything(seed):
    text = corpus.load(seed)
    for whole, left, right in [
        (topics, "training", "heldout"),
        (text.names["training"], "fitting", "validation"),
    ]:
        assert sorted(text.names[left] + text.names[right]) == sorted(whole)
        for name in text.names[right]:
            assert topics[name].encode() in getattr(text, right)
    assert 60_000 <= len(text.heldout) <= 80_000
    assert 30_000 <= len(text.validation) <= 50_000
    # One line feed goes in at each join, so each cut removes one.
    total = sum(len(t.encode()) for t in topics.values()) + len(topics) - 1
    assert len(text.training) + len(text.heldout) == total - 1
    assert len(text.fitting) + len(text.validation) == len(text.training) - 1


@pytest.mark.parametrize("seed", SEEDS)
def test_the_largest_cluster_is_fitted(seed):
    largest = corpus.clusters(topics)[0]
    assert len(largest) > 1
    assert set(largest) <= set(corpus.load(seed).names["fitting"])


def test_same_seed_same_bytes_whatever_the_order_of_the_dict():
    assert corpus.load(3) == corpus.load(3, dict(reversed(topics.items())))


def test_seeds_differ():
    assert len({corpus.load(seed).heldout for seed in SEEDS}) > 1


def test_digest_sees_every_name_and_character():
    # printf '{"a": "xy", "b": ""}' | sha256sum
    base = corpus.digest({"a": "xy", "b": ""})
    assert base == "bbd570019fa805f7db8533f86dfcab9fd865c427fcd118410a91ae5563e8f2f2"
    assert (
        len({base} | {corpus.digest(t) for t in ({"a": "x", "b": "y"}, {"ax": "y", "b": ""})}) == 3
    )


LINES = st.sampled_from([c * n for c in "pqrstuv" for n in (39, 40)])
TOPICS = st.dictionaries(
    st.text("abc", max_size=3),
    st.lists(st.tuples(st.sampled_from(["", "  ", "\t"]), LINES), max_size=3).map(
        lambda lines: "\n".join(indent + line for indent, line in lines)
    ),
    max_size=9,
)


@given(TOPICS)
@settings(max_examples=200, deadline=None, derandomize=True, database=None)
def test_clusters_are_the_components_of_sharing(some):
    names = sorted(some)
    long = {k: {x.strip() for x in some[k].split("\n") if len(x.strip()) >= 40} for k in names}
    reach = np.array([[a == b or bool(long[a] & long[b]) for b in names] for a in names], bool)
    for _ in names:
        reach = reach.reshape(len(names), -1) @ reach.reshape(len(names), -1)
    wanted = {tuple(k for k, tied in zip(names, row, strict=True) if tied) for row in reach}
    groups = corpus.clusters(some)
    assert set(groups) == wanted and len(groups) == len(wanted)
    assert all(
        len(corpus.join(some, a)) >= len(corpus.join(some, b))
        for a, b in zip(groups, groups[1:], strict=False)
    )


@pytest.mark.parametrize(
    "some", [{}, {"only": "x" * 70_000}, {"a": "x" * 90_000, "b": "y" * 85_000}]
)
def test_a_text_that_cannot_be_split_says_so(some):
    with pytest.raises(ValueError, match=f"split: {len(some)} topics .* between 60000 and 80000"):
        corpus.load(0, some)
