"""Paged decoding: keys and values in pages that a table finds.

Source: Kwon et al. 2023 (2309.06180, vLLM) sec. 4.1-4.3.

    key j of sequence b = k_pages[table[b, j div page], :, j mod page]
    o_b = attention of q_b over keys 0 .. lengths_b - 1, causal and aligned bottom right

Pages lie anywhere, sequences may share some (a common prefix), and of each sequence only the last page is part empty.
The gradient of a shared page is the sum over the sequences that read it.

Notation
    q[B H T d], the last T tokens of each sequence; k_pages[P G page d], v_pages[P G page e]; table int[B n], lengths
    int[B].

Conventions
    C1  The table's places after a sequence's last page may hold anything, as may a page's slots after its last token.
    C2  Heads stand before slots, as everywhere here; vLLM has slots first.
    C3  A sequence of length 0 gives zeros and a log-sum-exp of -inf. Rows before its first token see nothing.

Laws
    L1 one_token_is_its_value               L2 gathered_is_contiguous
    L3 numbers_of_pages_are_immaterial      L4 what_no_one_reads_is_invisible
    L5 gradient_of_a_shared_page_is_a_sum
"""

from __future__ import annotations

from autodiff import fusable, namespace
from ref.attention.flash import flash
from ref.attention.rules import causal
from ref.spec import bind, spec

SIGNATURE = "q[B H T d], k_pages[P G page d], v_pages[P G page e], table:int[B n], lengths:int[B]"


@spec("attention.paged", f"{SIGNATURE} -> o[B H T e], lse[B H T]", grads=("q", "k_pages", "v_pages"), infinite=True)
@fusable("attention.paged", tensors=("q", "k_pages", "v_pages"))
def paged(q, k_pages, v_pages, table, lengths, *, softcap=None, scale=None):
    """Attention of each sequence's last T tokens over its pages.

    Parameters
    ----------
    q : float[B H T d]
    k_pages, v_pages : float[P G page d], float[P G page e]
        All pages; G divides H.
    table : int[B n]
        Pages of each sequence, in order.
    lengths : int[B]
        Tokens of each sequence, the T of q among them.
    softcap, scale : float, optional
        As in `sdpa`.

    Returns
    -------
    o : float[B H T e]
    lse : float[B H T]

    Raises
    ------
    ValueError
        Axes disagree, a length that is negative or needs more pages than the table has, or a page that is not there
        (the message says which and where).
    TypeError
        An array is not float, table or lengths not int, or dtypes or backends differ.

    Complexity: 2 H T (d + e) sum of lengths multiply-adds, and a copy of each sequence's pages.

    >>> import numpy as np
    >>> pages = np.array([[[[7.0]]], [[[1.0]]], [[[3.0]]]])
    >>> paged(np.zeros((1, 1, 1, 1)), pages, pages, np.array([[2, 1]]), np.array([2]))[0]
    array([[[[2.]]]])
    """
    dims = bind("paged", SIGNATURE, q=q, k_pages=k_pages, v_pages=v_pages, table=table, lengths=lengths)
    xp = namespace(q, k_pages, v_pages, table, lengths)
    parts = []
    for b in range(dims["B"]):
        pages, length = _pages(table, lengths, b, dims)
        index = xp.asarray(pages, dtype=table.dtype)
        k, v = (_keys(xp, x, index, length) for x in (k_pages, v_pages))
        parts.append(flash(q[b, ...], k, v, mask=causal(), softcap=softcap, scale=scale))
    if not parts:
        return xp.zeros((0, dims["H"], dims["T"], dims["e"]), dtype=q.dtype), xp.zeros(q.shape[:-1], dtype=q.dtype)
    o, lse = (xp.stack(x) for x in zip(*parts, strict=True))
    return o, lse


def _keys(xp, pages, index, length):
    """[G length d] from pages[P G page d]."""
    _, G, page, d = pages.shape
    found = xp.moveaxis(xp.take(pages, index, axis=0), 0, 1)
    return xp.reshape(found, (G, index.shape[0] * page, d))[:, :length, :]


def _pages(table, lengths, b, dims):
    """(pages, tokens) of sequence b."""
    length, page = int(lengths[b]), dims["page"]
    most = dims["n"] * page
    if not 0 <= length <= most:
        raise ValueError(f"paged: sequence {b} has length {length}; {dims['n']} pages of {page} hold 0 to {most}")
    used = [int(table[b, i]) for i in range(-(-length // page) if page else 0)]
    for i, at in enumerate(used):
        if not 0 <= at < dims["P"]:
            raise ValueError(f"paged: table of sequence {b} has page {at} at place {i}; there are P={dims['P']} pages")
    return used, length
