"""The baselines: interpolated n-gram models of bytes (Witten-Bell, modified Kneser-Ney), and xz.

Chen & Goodman 1998, "An empirical study of smoothing techniques", section 2.7 (Witten-Bell)

    P_k(w | h) = (c(h w) + t(h) P_{k-1}(w | h')) / (sum_w c(h w) + t(h)),   t(h) = #{w: c(h w) > 0}

and section 3 (modified Kneser-Ney, the stronger)

    P_k(w | h) = max(c(h w) - D_k(c(h w)), 0) / sum_w c(h w)  +  g(h) P_{k-1}(w | h')
    g(h)       = sum_w D_k(c(h w)) / sum_w c(h w)             (1 where h was never seen)
    P_{-1}     = 1 / 256

h is the last k bytes, h' the last k - 1. c counts occurrences; below the highest order of Kneser-Ney
it is the number of different bytes seen to the left of h w (what a lower order is asked only where the
higher one knows nothing, so it should count in how many contexts w turns up, not how often).

    D_k(c) = m - (m + 1) Y n_{m+1} / n_m,   m = min(c, 3),   Y = n_1 / (n_1 + 2 n_2)

n_j: how many h w of order k have the count j. C1. D_k is kept within [m / 10, m], and is m where
n_m = 0 (tiny texts): every byte keeps a probability above 0. C2. A text is preceded by line feeds.
"""

import lzma
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

PAD = b"\n"
SMOOTHINGS = ("witten-bell", "kneser-ney")


class Share(NamedTuple):
    """Discounted shares (float64[grams + 1]) and what is left over (float64[contexts + 1]).

    The last entry of each answers for what was never seen (index -1): share 0, all left over.
    """

    of_gram: np.ndarray
    left_over: np.ndarray


class Level(NamedTuple):
    """One order's table; a context's number is its place in `contexts`.

    contexts : int64[contexts], sorted, (number of the context one byte shorter) * 256 + byte added
    grams : int64[grams], sorted, (number of the context) * 256 + next byte
    """

    contexts: np.ndarray
    grams: np.ndarray
    highest: Share
    lower: Share
    witten_bell: Share

    def share(self, smoothing, last):
        """The Share of this level under a smoothing; `last` says that no longer context is used."""
        return self.witten_bell if smoothing == "witten-bell" else self.highest if last else self.lower


def fit(text: bytes, max_order: int) -> list[Level]:
    """Count every order up to `max_order` (one table serves all the orders below it).

    Parameters
    ----------
    text : bytes
        Training text, not empty.
    max_order : int
        Longest context in bytes, >= 0.

    Returns
    -------
    list of Level
        One a context length 0 .. max_order.

    Raises
    ------
    ValueError
        Empty text or negative order.

    Complexity
    ----------
    O(max_order N log N) time, O(max_order N) memory for N bytes.
    """
    if not text or max_order < 0:
        raise ValueError(
            f"fit: text has {len(text)} bytes, max_order={max_order}; at least 1 and 0 are needed"
        )
    past, following = _windows(text, max_order + 1)
    number = np.zeros(len(text), np.int64)
    levels = []
    for k in range(max_order + 1):
        contexts = np.zeros(1, np.int64)
        if k:
            contexts, number = np.unique(number * 256 + past[:, -k], return_inverse=True)
        grams, gram, occurrences = np.unique(
            number * 256 + following, return_inverse=True, return_counts=True
        )
        different = np.unique(gram * 256 + past[:, -k - 1]) // 256
        lefts = np.bincount(different, minlength=len(grams))
        shares = [_share(c, grams // 256, len(contexts)) for c in (occurrences, lefts)]
        shares.append(_witten_bell(occurrences, grams // 256, len(contexts)))
        levels.append(Level(contexts, grams, *shares))
    return levels


def probabilities(levels: list[Level], contexts, symbols, order: int | None = None, smoothing: str = "kneser-ney"):
    """Return P(symbol | context) by the model of one order.

    Parameters
    ----------
    levels : list of Level
        From `fit`.
    contexts : int[N k]
        The bytes before, the latest last; k >= order.
    symbols : int[N M] or int[1 M]
        The next bytes asked about; `np.arange(256)[None]` gives whole distributions.
    order : int, optional
        Bytes of context used; by default all that were fitted.
    smoothing : str
        One of `SMOOTHINGS`.

    Returns
    -------
    float64[N M]

    Raises
    ------
    ValueError
        The order was not fitted, the contexts are shorter than it, or an unknown smoothing.

    >>> table = fit(b"abracadabra", 2)
    >>> float(probabilities(table, [list(b"ab")], np.arange(256)[None]).sum().round(12))
    1.0
    """
    order = len(levels) - 1 if order is None else order
    contexts, symbols = np.asarray(contexts), np.asarray(symbols)
    if not 0 <= order < len(levels) or contexts.shape[1] < order:
        raise ValueError(
            f"probabilities: order {order} was asked for; orders 0 to {len(levels) - 1} were "
            f"fitted and the contexts have {contexts.shape[1]} bytes"
        )
    if smoothing not in SMOOTHINGS:
        raise ValueError(f"probabilities: smoothing={smoothing!r}; needed one of {SMOOTHINGS}")
    number = np.zeros(len(contexts), np.int64)
    p = np.full((len(contexts), symbols.shape[1]), 1 / 256)
    for k, level in enumerate(levels[: order + 1]):
        if k:
            number = _find(level.contexts, number * 256 + contexts[:, -k])
        gram = _find(level.grams, number[:, None] * 256 + symbols)
        share = level.share(smoothing, k == order)
        p = share.of_gram[gram] + share.left_over[number][:, None] * p
    return p


def bits_per_byte(levels: list[Level], text: bytes, order: int | None = None, smoothing: str = "kneser-ney") -> float:
    """Return the model's code length of `text`, in bits a byte.

    Raises ValueError for an empty text, an order that was not fitted, or an unknown smoothing.
    """
    order = len(levels) - 1 if order is None else order
    if not text:
        raise ValueError("bits_per_byte: text has 0 bytes; at least 1 is needed")
    past, following = _windows(text, max(order, 0))
    return float(-np.log2(probabilities(levels, past, following[:, None], order, smoothing)).mean())


def choose_order(
    fitting: bytes, validation: bytes, orders: Iterable[int] = range(15), smoothing: str = "kneser-ney"
) -> int:
    """Return the order that codes `validation` best when fitted on `fitting` (least on a tie).

    Raises ValueError if a text or `orders` is empty.
    """
    orders = sorted(orders)
    if not orders:
        raise ValueError("choose_order: orders is empty; at least one order is needed")
    levels = fit(fitting, max(orders))
    return min(orders, key=lambda order: bits_per_byte(levels, validation, order, smoothing))


def xz_bits_per_byte(text: bytes) -> float:
    """Return what `xz -9e` makes of this text alone, container included, in bits a byte.

    Raises ValueError for an empty text.
    """
    if not text:
        raise ValueError("xz_bits_per_byte: text has 0 bytes; at least 1 is needed")
    return 8 * len(lzma.compress(text, preset=9 | lzma.PRESET_EXTREME)) / len(text)


def _windows(text, width):
    """The `width` bytes before each byte, and the byte: int64[N width], int64[N]."""
    codes = np.frombuffer(PAD * width + text, np.uint8).astype(np.int64)
    windows = np.lib.stride_tricks.sliding_window_view(codes, width + 1)
    return windows[:, :-1], windows[:, -1]


def _share(counts, context, num_contexts):
    n = np.bincount(np.minimum(counts, 5), minlength=6)
    y = n[1] / max(n[1] + 2 * n[2], 1)
    m = np.arange(4)
    ratio = np.divide(n[1:5], n[:4], out=np.zeros(4), where=n[:4] > 0)
    discount = np.clip(m - (m + 1) * y * ratio, m / 10, m)
    removed = discount[np.minimum(counts, 3)]
    total = np.bincount(context, counts, minlength=num_contexts)
    left_over = np.bincount(context, removed, minlength=num_contexts) / total
    return Share(np.append((counts - removed) / total[context], 0), np.append(left_over, 1))


def _witten_bell(counts, context, num_contexts):
    different = np.bincount(context, minlength=num_contexts)
    total = np.bincount(context, counts, minlength=num_contexts) + different
    return Share(np.append(counts / total[context], 0), np.append(different / total, 1))


def _find(keys, wanted):
    """Places of `wanted` in the sorted `keys`; -1 where it is not there (as no negative one is)."""
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[place] == wanted, place, -1)
