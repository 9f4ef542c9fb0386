"""Ring attention: every rank keeps its queries while all keys and values go around the ring.

Source: Liu et al. 2023, Ring Attention with Blockwise Transformers (2310.01889) sec. 3, Alg. 1; the merge of parts: Dao
2023 (2307.08691) Alg. 1; stripes: Brandon et al. 2023, Striped Attention (2311.09431) sec. 3.

    forward, step k = 0 .. n - 1: rank r has K_s, V_s of rank s = r - k, and while it sends them on to r + 1
        S = scale Q_r K_s^T,  m = rowmax S,  P = exp(S - m),   state <- merge(state, (m, rowsum P, P V_s))
    O_r = O / l,  L_r = m + log l

    backward, the same way around, dK_s and dV_s travelling with K_s and V_s:
        P = exp(S - L_r),  dV_s += P^T dO_r,  dP = dO_r V_s^T,  dS = P * (dP - rowsum(dO_r * O_r))
        dQ_r += scale dS K_s,  dK_s += scale dS^T Q_r          and after n steps dK_s, dV_s are on rank s again

Notation
    n -> comm.size, r -> comm.rank, Q_r -> q[*B H T_r d], K_r -> k[*B G T_r d], V_r -> v[*B G T_r e], G divides H.

Conventions
    C1  Rank r has tokens T r // n .. T (r + 1) // n (T is `length` where n does not divide it); with striped=True it
        has tokens r, r + n, r + 2 n, .. instead. Without a mask that makes no difference.
    C2  causal compares positions in the whole sequence: of blocks, those of earlier ranks are seen whole, of later
        ones not at all, and no work is done for these. So rank 0 works once and rank n - 1 n times; stripes share the
        work evenly, each block seen to half.
    C3  Query head h reads key head floor(h / (H / G)); the G heads travel, not the H.
    C4  Blocks are merged in the order in which they come, the own one first: bits depend on n, not the numbers.

Laws
    L1 equal_keys_average_what_is_seen      L2 attention_of_one_rank
    L3 gradient_is_that_of_one_rank         L4 later_tokens_are_invisible
    L5 large_logits_pick_the_largest        L6 bytes_are_the_formula
"""

from __future__ import annotations

import math

import numpy as np

from autodiff import custom
from autodiff.custom import once_differentiable
from backends.communicators import bounds, wait_all
from ref.attention.merge import State, finish, merge, nothing
from ref.attention.safe_softmax import finite
from ref.attention.sdpa import repeat_heads
from ref.distributed.ranks import on_tensors, own_range
from ref.spec import bind, spec

SHAPES = "q[*B H T d], k[*B G T d], v[*B G T e]"


@spec(
    "distributed.ring_attention", "comm:tree, q:tree, k:tree, v:tree -> :tree", grads=("q", "k", "v"),
    backends=("numpy",),
)  # fmt: skip
@on_tensors("q", "k", "v")
def ring_attention(comm, q, k, v, *, causal=False, striped=False, scale=None, length=None):
    """Attention of this rank's queries over the keys of all ranks, of arrays or Tensors.

    Parameters
    ----------
    comm : Communicator
        Or a world, with q, k and v one a rank.
    q, k, v : float[*B H T_r d], float[*B G T_r d], float[*B G T_r e]
        Of this rank's tokens; G divides H.
    causal : bool
        Query i sees keys 0 .. i of the whole sequence.
    striped : bool
        Rank r has tokens r, r + n, .. and not a block of them.
    scale : float, optional
        1 / sqrt(d) if not given.
    length : int, optional
        Tokens of all ranks, T; n T_r if not given.

    Returns
    -------
    float[*B H T_r e]

    Raises
    ------
    ValueError
        Axes disagree, G does not divide H, or T_r is not this rank's share of the tokens.
    TypeError
        An array is not float, or the dtypes differ.

    Complexity: 2 B H T_r T (d + e) multiply-adds, half of it on average when causal. A rank sends the keys and values
    of n - 1 ranks forward; backward those once more, and dK, dV of all n.

    >>> import numpy as np
    >>> from backends.communicators import ThreadWorld
    >>> q, k, v = np.ones((2, 1, 1, 1)), np.zeros((2, 1, 1, 1)), np.array([[[[2.0]]], [[[6.0]]]])
    >>> ring_attention(ThreadWorld(2), q, k, v, causal=True).ravel()
    array([2., 4.])
    """
    dims = bind("ring_attention", SHAPES, q=q, k=k, v=v)
    if not dims["G"] or dims["H"] % dims["G"]:
        raise ValueError(f"ring_attention: q has H={dims['H']} heads, k has G={dims['G']}; G must divide H")
    n, T = comm.size, dims["T"] * comm.size if length is None else length
    own = _positions(T, n, comm.rank, striped)
    if striped and len(own) != dims["T"]:
        raise ValueError(
            f"ring_attention: rank {comm.rank} of {n} has T_r={dims['T']} of length={T}, striped; needed {len(own)}"
        )
    if not striped:
        own_range(comm, "ring_attention", dims["T"], length, names=("T_r", "length"))
    at = [_positions(T, n, s, striped) for s in range(n)]
    scale = 1 / math.sqrt(dims["d"]) if scale is None else scale
    o, _ = _ring(q, k, v, comm=comm, at=at, causal=causal, scale=scale)
    return o


def _positions(T, n, s, striped):
    """Where rank s's tokens stand in the sequence."""
    cut = bounds(T, n)
    return np.arange(s, T, n) if striped else np.arange(cut[s], cut[s + 1])


def _around(comm, at, k, v):
    """(s, K_s, V_s) of every rank, this one's first; the next block travels while one is worked on."""
    n, r = comm.size, comm.rank
    flat = np.concatenate((k.reshape(-1), v.reshape(-1)))
    for step in range(n):
        s, under_way = (r - step) % n, []
        if step < n - 1:
            after = comm.empty(flat, _size(k, v, at[(s - 1) % n]))
            under_way = [comm.irecv(after, (r - 1) % n), comm.isend(flat, (r + 1) % n)]
        yield s, *_parts(flat, k, v, at[s])
        wait_all(under_way)
        flat = after if under_way else None


def _size(k, v, at):
    """Numbers in the keys and values of the tokens `at`."""
    return math.prod(k.shape[:-2]) * len(at) * (k.shape[-1] + v.shape[-1])


def _parts(flat, k, v, at):
    """The keys and values in a message, as views."""
    cut = math.prod(k.shape[:-2]) * len(at) * k.shape[-1]
    parts = zip((flat[:cut], flat[cut:]), (k, v), strict=True)
    return [part.reshape(*x.shape[:-2], len(at), x.shape[-1]) for part, x in parts]


def _seen(rows, cols, causal):
    """bool[rows cols], None where all are seen, False where none is."""
    keep = cols[None, :] <= rows[:, None]
    if not causal or keep.all():
        return None
    return keep if keep.any() else False


def _forward(q, k, v, *, comm, at, causal, scale):
    """((O, L) of this rank, ())."""
    state = nothing(np, q.shape[:-1], v.shape[-1], like=q)
    for s, K, V in _around(comm, at, k, v):
        keep = _seen(at[comm.rank], at[s], causal)
        if keep is not False and len(at[s]):
            state = merge(*state, *_block(q, *(repeat_heads(np, x, q.shape[-3]) for x in (K, V)), keep, scale))
    return finish(np, state), ()


def _block(q, K, V, keep, scale):
    """The state (m, l, O) of one block of keys."""
    S = _logits(q, K, keep, scale)
    m = np.max(S, axis=-1)
    P = np.exp(S - finite(np, m)[..., None])
    return State(m, np.sum(P, axis=-1), np.matmul(P, V))


def _logits(q, K, keep, scale):
    S = np.matmul(q, np.swapaxes(K, -1, -2)) * scale
    return S if keep is None else np.where(keep, S, -math.inf)


@once_differentiable
def _vjp(g, out, saved, needs, q, k, v, *, comm, at, causal, scale):
    """Cotangents of q, k, v under dO; dK_s and dV_s gather on the way and end on rank s."""
    (o, lse), dO, n, r, flat = out, g[0], comm.size, comm.rank, None
    D, dq = np.sum(dO * o, axis=-1, keepdims=True), np.zeros_like(q)
    for s, K, V in _around(comm, at, k, v):
        flat = np.zeros(_size(k, v, at[s]), k.dtype) if flat is None else _handed_on(comm, flat, _size(k, v, at[s]))
        dK, dV = _parts(flat, k, v, at[s])
        keep = _seen(at[r], at[s], causal)
        if keep is not False and len(at[s]):
            wide = (repeat_heads(np, x, q.shape[-3]) for x in (K, V))
            part = _block_vjp(q, *wide, keep, scale, dO, lse, D)
            for total, x in zip((dq, dK, dV), part, strict=True):
                total += _sum_groups(x, total.shape[-3])
    return dq, *_parts(_handed_on(comm, flat, _size(k, v, at[r])) if n > 1 else flat, k, v, at[r])


def _handed_on(comm, flat, size):
    """What the rank before sends, for what is sent to the next one."""
    out = comm.empty(flat, size)
    comm.sendrecv(flat, (comm.rank + 1) % comm.size, out, (comm.rank - 1) % comm.size, tag=1)
    return out


def _block_vjp(q, K, V, keep, scale, dO, lse, D):
    """(dQ, dK, dV) of one block, by the log-sum-exp of the whole row."""
    P = np.exp(_logits(q, K, keep, scale) - lse[..., None])
    dS = P * (np.matmul(dO, np.swapaxes(V, -1, -2)) - D) * scale
    return np.matmul(dS, K), np.matmul(np.swapaxes(dS, -1, -2), q), np.matmul(np.swapaxes(P, -1, -2), dO)


def _sum_groups(x, G):
    """x[*B H S d] -> [*B G S d], summed over the query heads of each key head."""
    *B, H, S, d = x.shape
    return np.sum(x.reshape(*B, G, H // G, S, d), axis=-3)


_ring = custom("ring_attention", _forward, _vjp, labels=("q", "k", "v"))
