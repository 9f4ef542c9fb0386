"""Split-KV decoding: the keys cut into parts, each attended alone, the results merged.

Source: Dao, Haziza, Massa & Sizov 2023 ("Flash-Decoding"); the merge is that of Milakov & Gimelshein 2018 (1805.02867)
sec. 3.1.

    (o_p, L_p) = attention over part p of the keys
    L = log sum_p e^{L_p},   o = sum_p e^{L_p - L} o_p

One query row leaves a tiled attention without work to share; its keys can be shared instead. A finished part is a state
of `merge`, (L_p, 1, o_p), so parts may come in any order and from anywhere.

Notation
    Q, K, V -> q[*B H T d], k[*B G S d], v[*B G S e]; P parts -> splits.

Conventions
    C1  Part p is keys floor(p S / P) to floor((p + 1) S / P) - 1; with more parts than keys some are empty.
    C2  A part in which a row sees no key has L_p = -inf and weighs nothing, whatever its o is.

Laws
    L1 a_part_for_each_key                  L2 two_parts_are_a_logistic
    L3 parts_are_immaterial                 L4 unseen_junk_is_invisible
    L5 gradient_is_the_closed_form
"""

from __future__ import annotations

from functools import reduce

from autodiff import namespace
from ref.attention.flash import flash
from ref.attention.merge import State, finish, merge, nothing
from ref.attention.rules import is_rule, materialise
from ref.attention.sdpa import SHAPES, check
from ref.spec import spec


@spec("attention.split_kv", f"{SHAPES} -> o[*B H T e], lse[*B H T]", grads=("q", "k", "v"), infinite=True)
def split_kv(q, k, v, *, splits, mask=None, bias=None, softcap=None, scale=None):
    """Attention of a few queries over many keys, cut into `splits` parts.

    Parameters
    ----------
    q, k, v : float[*B H T d], float[*B G S d], float[*B G S e]
    splits : int
        Parts of the keys.
    mask, bias : array or Rule, optional
        As in `sdpa`; a rule is written out for the T rows.
    softcap, scale : float, optional
        As in `sdpa`.

    Returns
    -------
    o : float[*B H T e]
    lse : float[*B H T]

    Raises
    ------
    ValueError
        splits < 1, or what `sdpa` refuses.
    TypeError
        What `sdpa` refuses.

    Complexity: 2 B H T S (d + e) multiply-adds, and splits B H T e more to merge.

    >>> import numpy as np
    >>> q, k, v = np.zeros((1, 1, 2)), np.zeros((1, 2, 2)), np.array([[[0.0], [4.0]]])
    >>> split_kv(q, k, v, splits=2)[0]
    array([[[2.]]])
    """
    H, T, S = check(q, k, v, mask=mask, bias=bias, softcap=softcap, function="split_kv")
    if splits < 1:
        raise ValueError(f"split_kv: splits={splits}; needed at least 1")
    xp = namespace(q, k, v, None if is_rule(bias) else bias)
    mask = None if mask is None else materialise(mask, xp, T, S)
    bias = None if bias is None else materialise(bias, xp, T, S, q.dtype)
    states = []
    for p in range(splits):
        cols = slice(p * S // splits, (p + 1) * S // splits)
        cut = {name: None if x is None else x[..., cols] for name, x in (("mask", mask), ("bias", bias))}
        o, lse = flash(q, k[..., cols, :], v[..., cols, :], softcap=softcap, scale=scale, **cut)
        states.append(State(lse, xp.ones(lse.shape, dtype=lse.dtype), o))
    whole = reduce(lambda a, b: merge(*a, *b), states, nothing(xp, states[0].m.shape, v.shape[-1], like=q))
    return finish(xp, whole)
