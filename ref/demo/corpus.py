"""The text of the demo: what `help("assert")` prints, carried by every Python.

`pydoc_data.topics.topics` maps about 80 names to about 465 kB of English about the language. It is
real prose, it is on every machine that can run this package, and it differs a little between
Python versions: so the SHA-256 is part of the result, and the split is fixed by rules, not by
lists of names.

    share(a, b)   topics a and b have a line of >= 40 characters in common (both ends stripped)
    cluster       a connected component of `share`
    held out      clusters in the order of SHA-256("seed:first name"), each taken while the sum is
                  below `low` and where it fits under `high`; the largest cluster is never taken

Whole clusters move, since the reference repeats paragraphs ("in", "comparisons" and "compound" say
the same things): a held-out topic whose twin was trained on would measure memory, not learning.
The order comes from a hash so that no random generator's stream or dict order enters.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import NamedTuple

MIN_SHARED_LINE = 40
HELDOUT_BYTES = (60_000, 80_000)
VALIDATION_BYTES = (30_000, 50_000)


class Corpus(NamedTuple):
    """The demo's text: `training` is `fitting` and `validation` together.

    Choices (the n-gram's order, the language model's temperature) are made on `validation` with
    what was fitted on `fitting`. An n-gram is then fitted on `training`; the language model is not,
    as that would be a second long run. Both are judged once on `heldout`.
    """

    sha256: str
    names: dict[str, tuple[str, ...]]
    training: bytes
    fitting: bytes
    validation: bytes
    heldout: bytes


def load(seed: int = 0, topics: Mapping[str, str] | None = None) -> Corpus:
    """Split the topics into training (fitting + validation) and held-out text.

    Parameters
    ----------
    seed : int
        Names the split; the same seed and text give the same bytes everywhere.
    topics : mapping of str to str, optional
        Text by name; Python's own help topics by default.

    Returns
    -------
    Corpus
        Bytes of each part (topics in the order of their names, a line feed between two), the names
        in each, and the SHA-256 of the whole source.

    Raises
    ------
    ValueError
        The text is too small or too entangled to hold out `HELDOUT_BYTES`.
    """
    if topics is None:
        from pydoc_data.topics import topics
    training, heldout = split(topics, HELDOUT_BYTES, seed)
    fitting, validation = split({k: topics[k] for k in training}, VALIDATION_BYTES, seed)
    names = dict(training=training, fitting=fitting, validation=validation, heldout=heldout)
    return Corpus(digest(topics), names, **{part: join(topics, k) for part, k in names.items()})


def digest(topics: Mapping[str, str]) -> str:
    """Return the SHA-256 (hexadecimal) of the topics as JSON with sorted keys.

    >>> digest({"b": "x", "a": "y"}) == digest({"a": "y", "b": "x"})
    True
    """
    return hashlib.sha256(json.dumps(dict(topics), sort_keys=True).encode()).hexdigest()


def join(topics: Mapping[str, str], names: tuple[str, ...]) -> bytes:
    """Return the named topics as one UTF-8 text, a line feed between two."""
    return "\n".join(topics[name] for name in names).encode()


def clusters(topics: Mapping[str, str], min_line: int = MIN_SHARED_LINE) -> list[tuple[str, ...]]:
    """Group the topics that must stay together, the largest group (in bytes) first.

    Parameters
    ----------
    topics : mapping of str to str
        Text by name.
    min_line : int
        A common line of at least this many characters, ends stripped, ties two topics.

    Returns
    -------
    list of tuple of str
        Sorted names of each connected component; groups of one size by their names.

    >>> line = "a line that says the same thing in two topics"
    >>> clusters({"a": line, "b": "alone", "c": "more\\n  " + line})
    [('a', 'c'), ('b',)]
    """
    parent = {name: name for name in topics}

    def root(name):
        while parent[name] != name:
            parent[name] = name = parent[parent[name]]
        return name

    first_seen = {}
    for name in topics:
        for line in topics[name].split("\n"):
            line = line.strip()
            if len(line) >= min_line:
                parent[root(name)] = root(first_seen.setdefault(line, name))
    groups = {}
    for name in sorted(topics):
        groups.setdefault(root(name), []).append(name)
    return sorted(map(tuple, groups.values()), key=lambda g: (-len(join(topics, g)), g))


def split(
    topics: Mapping[str, str], size: tuple[int, int], seed: int = 0
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Hold out whole clusters of topics, between `size[0]` and `size[1]` bytes of text.

    Parameters
    ----------
    topics : mapping of str to str
        Text by name.
    size : (int, int)
        Least and greatest number of bytes held out.
    seed : int
        Names the order in which clusters are tried.

    Returns
    -------
    kept, held : tuple of str
        Sorted names; disjoint, together all; the largest cluster is among `kept`.

    Raises
    ------
    ValueError
        No run of clusters in this order comes to a size in the range.
    """
    low, high = size
    _, *candidates = clusters(topics) or [()]
    candidates.sort(key=lambda group: hashlib.sha256(f"{seed}:{group[0]}".encode()).digest())
    held = ()
    for group in candidates:
        if len(join(topics, held)) < low and len(join(topics, held + group)) <= high:
            held += group
    if len(join(topics, held)) < low:
        raise ValueError(
            f"split: {len(topics)} topics in {len(candidates) + bool(topics)} clusters gave "
            f"{len(join(topics, held))} bytes; between {low} and {high} were asked for"
        )
    return tuple(sorted(set(topics) - set(held))), tuple(sorted(held))
