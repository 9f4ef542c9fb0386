"""Attention over packed sequences of any lengths.

Source: Dao 2023 (2307.08691), `flash_attn_varlen_func`; Zeng et al. 2022 (2208.08124) sec. 3.

    o[:, cu_q[n] : cu_q[n + 1]] = attention of sequence n's queries over k, v[:, cu_k[n] : cu_k[n + 1]]

Attention is block-diagonal: nothing passes between sequences, forward or backward, whatever their slots hold.

Notation
    q[H N d], k[G M d], v[G M e]: N queries and M keys of all sequences in a row; cu_q, cu_k int[n + 1] their offsets.

Conventions
    C1  Rules are those of one sequence: rows and columns count from its start, and causal aligns to its own T and S
        (bottom right, so that a chunk of queries sees the keys before it). Arrays are no rules and are refused.
    C2  Sequences are given by offsets, not found in position ids. One may have no queries, or no keys (its rows give
        zeros and a log-sum-exp of -inf).
    C3  Heads stand before tokens, as everywhere here; flash-attn has tokens first.

Laws
    L1 one_key_each_is_its_value            L2 packed_is_separate
    L3 other_sequences_are_invisible        L4 order_of_the_sequences_is_immaterial
    L5 a_sequence_without_keys_is_zero      L6 gradient_is_separate
"""

from __future__ import annotations

from autodiff import fusable, namespace
from ref.attention.flash import flash
from ref.attention.rules import is_rule
from ref.nn.segment_positions import offsets
from ref.spec import bind, spec

SIGNATURE = "q[H N d], k[G M d], v[G M e], cu_q:int[n1], cu_k:int[n1]"


@spec("attention.varlen", f"{SIGNATURE} -> o[H N e], lse[H N]", grads=("q", "k", "v"), infinite=True)
@fusable("attention.varlen", tensors=("q", "k", "v"))
def varlen(q, k, v, cu_q, cu_k, *, mask=None, bias=None, softcap=None, scale=None):
    """Attention within each of the packed sequences.

    Parameters
    ----------
    q, k, v : float[H N d], float[G M d], float[G M e]
        Queries, keys and values of all sequences, one after another; G divides H.
    cu_q, cu_k : int[n + 1]
        Offsets of the n sequences among queries and among keys: 0 first, N or M last.
    mask, bias : Rule, optional
        Of one sequence's rows and columns (C1).
    softcap, scale : float, optional
        As in `sdpa`.

    Returns
    -------
    o : float[H N e]
    lse : float[H N]

    Raises
    ------
    ValueError
        Axes disagree, G does not divide H, offsets do not begin with 0, fall, or do not end with N or M.
    TypeError
        An array is not float, offsets are not int, backends differ, or a mask or bias is no rule of its kind.

    Complexity: 2 H (d + e) sum of T_n S_n multiply-adds.

    >>> import numpy as np
    >>> q, v, cu = np.zeros((1, 3, 1)), np.array([[[1.0], [5.0], [7.0]]]), np.array([0, 1, 3])
    >>> varlen(q, q, v, cu, cu)[0]
    array([[[1.],
            [6.],
            [6.]]])
    """
    rows, cols = _check(q, k, v, cu_q, cu_k, mask, bias)
    xp = namespace(q, k, v, cu_q, cu_k)
    options = {"mask": mask, "bias": bias, "softcap": softcap, "scale": scale}
    parts = []
    for (a, b), (c, d) in zip(rows, cols, strict=True):
        parts.append(flash(q[:, a:b, :], k[:, c:d, :], v[:, c:d, :], **options))
    o, lse = (xp.concat(x, axis=1) for x in zip(*parts, strict=True))
    return o, lse


def _check(q, k, v, cu_q, cu_k, mask, bias):
    """(start, stop) of each sequence's queries and keys; one empty sequence where there is none."""
    dims = bind("varlen", SIGNATURE, q=q, k=k, v=v, cu_q=cu_q, cu_k=cu_k)
    spans = []
    for name, cu, axis in (("cu_q", cu_q, "N"), ("cu_k", cu_k, "M")):
        found = offsets("varlen", name, cu)
        if found[-1] != dims[axis]:
            raise ValueError(f"varlen: {name} ends with {found[-1]}, there are {axis}={dims[axis]}; needed that last")
        spans.append(list(zip(found[:-1], found[1:], strict=True)) or [(0, 0)])
    for name, rule in (("mask", mask), ("bias", bias)):
        if rule is not None and not (is_rule(rule) and rule.kind == name):
            raise TypeError(f"varlen: {name} is {type(rule).__name__}; needed a rule of a {name}")
    return spans
