"""A byte-level byte-pair encoding, learned from the training text alone.

Sennrich et al. 2016 (1508.07909) Alg. 1, over bytes as GPT-2 has it (Radford et al. 2019, sec. 2.2).

    tokens 0 .. 255 are the bytes;   token 256 + r is the pair merges[r], its two parts joined
    learn    r = 0, 1, ..: the pair of neighbours that occurs most often becomes a token everywhere
    encode   r = 0, 1, ..: every pair merges[r] becomes token 256 + r, from the left

Conventions
    C1  Merges stay within a piece of text: a word with the space before it, a number, a run of
        punctuation, a line feed with the indentation after it. So a piece is encoded once, wherever
        it stands.
    C2  Of pairs that occur equally often the first in numerical order is taken.
    C3  Pass r leaves no pair of rank <= r behind (what it makes has a higher rank), so passes by
        rank are the usual "merge the lowest rank first".
    C4  Dropout (Provilkov et al. 2020, 1910.13267): while encoding, every merge is left undone with
        probability `dropout`, so that a text has many encodings. All decode to the text.
"""

import re

import numpy as np

PIECE = re.compile(rb" ?[A-Za-z]+| ?[0-9]+|\n+ *(?= )|\n+| +(?= )| ?[^ \nA-Za-z0-9]+| ")
GAP = -1  # stands between pieces: a pair with it is none


def learn(text: bytes, vocabulary: int) -> np.ndarray:
    """The merges that make a vocabulary of the given size.

    Parameters
    ----------
    text : bytes
        Training text.
    vocabulary : int
        Number of tokens, >= 256. Fewer are made if the text has no pair that occurs twice.

    Returns
    -------
    int64[merges 2]

    Raises
    ------
    ValueError
        vocabulary < 256.

    Complexity
    ----------
    O(merges P) for P bytes in different pieces.

    >>> learn(b"low lower lowest", 258).tolist()
    [[108, 111], [256, 119]]
    """
    if vocabulary < 256:
        raise ValueError(f"learn: vocabulary={vocabulary}; at least the 256 bytes are needed")
    pieces, counts = np.unique(np.array(PIECE.findall(text), object), return_counts=True)
    tokens = _joined(pieces)
    weight = np.repeat(counts.astype(float), [len(p) + 1 for p in pieces])
    merges = np.empty((vocabulary - 256, 2), np.int64)
    for r in range(len(merges)):
        found = np.flatnonzero((tokens[:-1] != GAP) & (tokens[1:] != GAP))
        pairs = np.bincount(tokens[found] * vocabulary + tokens[found + 1], weight[found])
        best = int(np.argmax(pairs)) if pairs.size else 0
        if not pairs.size or pairs[best] < 2:
            return merges[:r]
        merges[r] = divmod(best, vocabulary)
        tokens, gone = _merged(tokens, *merges[r], 256 + r)
        weight = np.delete(weight, gone)
    return merges


def encode(merges, text: bytes, dropout: float = 0.0, rng=None) -> np.ndarray:
    """The tokens of a text.

    Parameters
    ----------
    merges : int[merges 2]
        From `learn`.
    text : bytes
    dropout : float
        Share of the merges left undone (C4).
    rng : numpy.random.Generator, optional
        Needed for dropout.

    Returns
    -------
    int64[tokens]

    >>> encode(learn(b"low lower lowest", 258), b"slow").tolist()
    [115, 257]
    """
    found = PIECE.findall(text)
    if dropout:
        tokens = _joined(found)
        for r, pair in enumerate(merges):
            tokens, _ = _merged(tokens, *pair, 256 + r, lambda n: rng.random(n) >= dropout)
        return tokens[tokens != GAP]
    pieces, number = np.unique(np.array([*found, b""], object), return_inverse=True)
    tokens = _joined(pieces)
    for r, pair in enumerate(merges):
        tokens, _ = _merged(tokens, *pair, 256 + r)
    each = np.split(tokens, np.flatnonzero(tokens == GAP) + 1)
    return np.concatenate([each[i][:-1] for i in number])


def decode(merges, tokens) -> bytes:
    """The text of tokens; ValueError names a token that the merges do not make.

    >>> decode(learn(b"low lower lowest", 258), [115, 257])
    b'slow'
    """
    table = spelled(merges)
    odd = [int(t) for t in tokens if not 0 <= t < len(table)]
    if odd:
        raise ValueError(f"decode: token {odd[0]}; the vocabulary has 0..{len(table) - 1}")
    return b"".join(table[t] for t in tokens)


def spelled(merges) -> list[bytes]:
    """The bytes of every token, in order."""
    table = [bytes([b]) for b in range(256)]
    for left, right in merges:
        table.append(table[left] + table[right])
    return table


def _joined(pieces):
    """All pieces as one row of bytes, a gap after each."""
    row = np.full(sum(map(len, pieces)) + len(pieces), GAP, np.int64)
    inside = np.ones(len(row), bool)
    inside[np.cumsum([len(p) + 1 for p in pieces], dtype=np.int64) - 1] = False
    row[inside] = np.frombuffer(b"".join(pieces), np.uint8)
    return row


def _merged(tokens, left, right, new, keep=None):
    """(tokens with every `left right` replaced, from the left; places that fell away)."""
    at = np.flatnonzero(tokens[:-1] == left)
    at = at[tokens[at + 1] == right]
    if left == right and at.size:
        # In a run of one token, the pairs at odd places overlap those at even places.
        first = np.flatnonzero(np.diff(at, prepend=-2) != 1)
        start = np.repeat(at[first], np.diff(first, append=len(at)))
        at = at[(at - start) % 2 == 0]
    if keep is not None and at.size:
        at = at[keep(at.size)]
    if not at.size:
        return tokens, at
    tokens = tokens.copy()
    tokens[at] = new
    return np.delete(tokens, at + 1), at + 1
