"""Grouped-query attention: the layer with its four projections and its cache.

Source: Vaswani et al. 2017 (1706.03762) sec. 3.2.2 (multi-head); Shazeer 2019 (1911.02150) sec. 3 (multi-query);
Ainslie et al. 2023 (2305.13245) sec. 2.2 (grouped).

    q = W_q x -> [H T d],   k = W_k x -> [G T d],   v = W_v x -> [G T e]
    q, k <- RoPE(q), RoPE(k)                           if rope_base
    y = W_o concat_h attention(q_h, k_{floor(h / (H / G))}, v_{floor(h / (H / G))})

groups = heads is multi-head attention, groups = 1 multi-query. It equals multi-head attention whose W_k and W_v hold
each group's rows H / G times (`mean_pool_heads` goes the other way).

A cache holds the keys, after RoPE, and the values of the tokens before: G (d + e) numbers a token and layer, 2 H d for
multi-head, 2 d for multi-query with e = d.

Notation
    x[*B T D]; W_q, W_k, W_v, W_o -> wq[Hd D], wk[Gd D], wv[Ge D], wo[O He]; H -> heads, G -> groups; S tokens in the
    cache.

Conventions
    C1  Query head h reads key head floor(h / (H / G)): heads are repeated in place, not tiled.
    C2  Weights are [out in]; the heads lie one after another among the outputs.
    C3  Masks are aligned bottom right by default, so that a chunk after a cache sees the cache and itself.
    C4  Positions go on from the cache's length unless given.

Laws
    L1 one_token_reads_its_own_value        L2 the_equations_written_out
    L3 multi_head_with_duplicated_weights   L4 cached_decoding_is_the_whole
    L5 the_cache_is_counted                 L6 gradient_of_one_token
    L7 gradient_sums_the_duplicates
"""

from __future__ import annotations

from typing import Any, NamedTuple

from autodiff import namespace
from ref.attention.flash import flash
from ref.attention.rules import causal
from ref.nn.linear import linear
from ref.nn.rope import rope
from ref.spec import bind, spec

CAUSAL = causal()
SIGNATURE = "x[*B T D], wq[Hd D], wk[Gd D], wv[Ge D], wo[O He]"


class Cache(NamedTuple):
    """Keys after RoPE and values of the tokens so far."""

    k: Any
    v: Any


@spec("attention.gqa", f"{SIGNATURE} -> y[*B T O], grown:tree", grads=("x", "wq", "wk", "wv", "wo"))
def gqa(
    x, wq, wk, wv, wo, *, heads, groups, cache=None, mask=CAUSAL, rope_base=None, rope_layout="half", positions=None
):  # fmt: skip
    """The layer's output for T tokens, and the cache with them.

    Parameters
    ----------
    x : float[*B T D]
    wq, wk, wv, wo : float[Hd D], float[Gd D], float[Ge D], float[O He]
    heads, groups : int
        Query heads and key heads; groups divides heads.
    cache : Cache, optional
        k[*B G S d], v[*B G S e] of the tokens before.
    mask : bool array or Rule, optional
        Over T rows and S + T columns.
    rope_base, rope_layout : float, optional, and str
        Rotary embedding of queries and keys; none if no base is given.
    positions : int[T] or int[*B T], optional

    Returns
    -------
    y : float[*B T O]
    cache : Cache

    Raises
    ------
    ValueError
        Axes disagree, groups does not divide heads, heads do not divide the rows of a weight or of the cache.
    TypeError
        An array is not float, or dtypes or backends differ.

    Complexity: B T D (Hd + Gd + Ge) + B T O He + B H T (S + T) (d + e) multiply-adds.

    >>> import numpy as np
    >>> one = np.eye(2)
    >>> y, cache = gqa(np.array([[1.0, 2.0]]), one, one, one, one, heads=1, groups=1)
    >>> y, cache.k.shape
    (array([[1., 2.]]), (1, 1, 2))
    """
    S = _check(x, wq, wk, wv, wo, heads, groups, cache)
    xp = namespace(x, wq, wk, wv, wo, *(cache or ()))
    q, k, v = split(xp, linear(x, wq), heads), split(xp, linear(x, wk), groups), split(xp, linear(x, wv), groups)
    if rope_base is not None:
        at = xp.arange(S, S + x.shape[-2]) if positions is None else positions
        q, k = (rope(z, at, base=rope_base, layout=rope_layout) for z in (q, k))
    if cache is not None:
        k, v = (xp.concat((old, new), axis=-2) for old, new in zip(cache, (k, v), strict=True))
    o, _ = flash(q, k, v, mask=mask)
    return linear(join(xp, o), wo), Cache(k, v)


def split(xp, x, heads):
    """x[*B T (H d)] -> [*B H T d]."""
    return xp.moveaxis(xp.reshape(x, (*x.shape[:-1], heads, x.shape[-1] // heads)), -2, -3)


def join(xp, x):
    """x[*B H T d] -> [*B T (H d)]."""
    x = xp.moveaxis(x, -3, -2)
    return xp.reshape(x, (*x.shape[:-2], x.shape[-2] * x.shape[-1]))


def _check(x, wq, wk, wv, wo, heads, groups, cache):
    """Validate; returns S, the tokens in the cache."""
    dims = bind("gqa", SIGNATURE, x=x, wq=wq, wk=wk, wv=wv, wo=wo)
    if groups < 1 or heads < 1 or heads % groups:
        raise ValueError(f"gqa: heads={heads}, groups={groups}; groups must divide heads")
    for name, rows, parts in (("wq", "Hd", heads), ("wk", "Gd", groups), ("wv", "Ge", groups)):
        if dims[rows] == 0 or dims[rows] % parts:
            raise ValueError(f"gqa: {name} has {rows}={dims[rows]} rows; {parts} heads must divide them")
    d, e = dims["Hd"] // heads, dims["Ge"] // groups
    if dims["Gd"] // groups != d:
        raise ValueError(f"gqa: a query head has d={d}, a key head {dims['Gd'] // groups}; they must agree")
    if dims["He"] != heads * e:
        raise ValueError(f"gqa: wo has He={dims['He']} columns; heads={heads} of e={e} need {heads * e}")
    if cache is None:
        return 0
    k, v = cache
    S = bind("gqa", "x[*any], k[*B G S d], v[*B G S e]", x=x, k=k, v=v)["S"]
    for name, found, n in (("k", k, d), ("v", v, e)):
        wanted = (*dims["B"], groups, S, n)
        if tuple(found.shape) != wanted:
            raise ValueError(f"gqa: the cache's {name} has shape {tuple(found.shape)}; needed {wanted}")
    return S
