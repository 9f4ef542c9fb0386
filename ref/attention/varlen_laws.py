"""Laws and mutants of attention over packed sequences."""

from __future__ import annotations

import numpy as np

from ref.attention.common_laws import (
    dense,
    dense_lse,
    dense_vjp,
    f64,
    gradient_bounds,
    keep_matrix,
    logit_error,
    output_bound,
    scale_of,
    value_size,
)
from ref.attention.rules import causal, window
from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, cases, choose, dims, none_or, rng

ID = "attention.varlen"
RULES = {"none": None, "bottom_right": causal(), "top_left": causal("top_left"), "window": window(1, 0)}


def _cu(longest, least=0):
    def make(draw, c):
        return np.concatenate(([0], np.cumsum(rng(draw).integers(least, longest + 1, c.n)))).astype(np.int64)

    return make


space = cases(
    ID, n=dims(0, 3, large=6), n1=lambda draw, c: c.n + 1, cu_q=_cu(3), cu_k=_cu(3), G=dims(1, 2), R=dims(1, 2),
    H=lambda draw, c: c.G * c.R, N=lambda draw, c: int(c.cu_q[-1]), M=lambda draw, c: int(c.cu_k[-1]),
    d=dims(1, 3), e=dims(1, 3), kind=choose(*RULES), mask=lambda draw, c: RULES[c.kind], bias=None,
    softcap=none_or(4.0), scale=none_or(0.5),
    flags={
        "several": Flag(lambda c: (np.diff(c.cu_q) * np.diff(c.cu_k) > 1).sum() > 1, {"n": 3}),
        "no_keys": Flag(lambda c: ((np.diff(c.cu_q) > 0) & (np.diff(c.cu_k) == 0)).any(), {"n": 3}),
        "none_at_all": Flag(lambda c: c.n == 0, {"n": 0}),
        "chunks": Flag(lambda c: (np.diff(c.cu_q) != np.diff(c.cu_k)).any() and c.M > 0, {"n": 3}),
    },
)  # fmt: skip


def sequences(c):
    """(slice of queries, slice of keys, keep[T S]) of each sequence."""
    for a, b, e, f in zip(c.cu_q[:-1], c.cu_q[1:], c.cu_k[:-1], c.cu_k[1:], strict=True):
        keep = np.ones((b - a, f - e), bool) if c.kind == "none" else keep_matrix(c.kind, int(b - a), int(f - e))
        yield slice(a, b), slice(e, f), keep


def options_of(c):
    return {"softcap": c.softcap, "scale": c.scale}


def oracle(c):
    """(o, lse) sequence by sequence, in float64."""
    q, k, v = (np.asarray(x, np.float64) for x in (c.q, c.k, c.v))
    o, lse = np.zeros((*q.shape[:-1], c.e)), np.zeros(q.shape[:-1])
    for rows, cols, keep in sequences(c):
        part = q[:, rows], k[:, cols], v[:, cols]
        p, _, _, vv = dense(*part, mask=keep, **options_of(c))
        o[:, rows], lse[:, rows] = p @ vv, dense_lse(*part, mask=keep, **options_of(c))
    return o, lse


def expect_both(expect, c, found, wanted, factor=1):
    """The bounds of plain attention over M keys, which are more than any sequence has; tiles add a few roundings."""
    more = bounds.rounding(24, 1.0, c.dtype)
    expect(found[0], wanted[0], factor * (output_bound(c) + more * value_size(c)), "o", scale=value_size(c))
    size = 1 + np.abs(np.nan_to_num(wanted[1], neginf=0))
    limit = logit_error(c) + bounds.rounding(np.log(max(c.M, 1)) + c.M + 24, size, c.dtype)
    expect(found[1], wanted[1], factor * limit, "lse", scale=size)


@law(
    ID, "L1", closed_form=True, given=space.where(n=dims(1, 3), cu_q=_cu(2, 1), cu_k=lambda d, c: np.arange(c.n + 1),
                                                  kind="none", softcap=None),
    kills=["packing_leak", "keys_by_the_queries_offsets"],
)  # fmt: skip
def one_key_each_is_its_value(impl, c, expect):
    "One key a sequence: every row is its own sequence's value, and lse its logit."
    q, k, v = f64(c, "q", "k", "v")
    own = np.repeat(np.arange(c.n), np.diff(c.cu_q))
    logits = (q * k[:, own]).sum(-1) * scale_of(c)
    expect_both(expect, c, impl(c), (v[:, own], logits))


@law(
    ID, "L2", closed_form=True, given=space.reach("several", "chunks", "none_at_all"),
    kills=["packing_leak", "causal_over_the_row", "keys_by_the_queries_offsets", "gqa_tile", "segments_from_lengths"],
)  # fmt: skip
def packed_is_separate(impl, c, expect):
    "For every cut: each sequence's rows are softmax(S) V of its own keys, its rule counted in its own places."
    expect_both(expect, c, impl(c), oracle(c))


@law(
    ID, "L3", given=space.where(several=True), kills=["leak_of_weight_zero"],
    passes_null=["zeros", "constant"],
)  # fmt: skip
def other_sequences_are_invisible(impl, c, expect):
    "NaN in every slot of a sequence changes no bit of the others."
    clean = impl(c)
    for rows, cols, _ in sequences(c):
        q, k, v = c.q.copy(), c.k.copy(), c.v.copy()
        q[:, rows], k[:, cols], v[:, cols] = np.nan, np.nan, np.nan
        others = ~np.isin(np.arange(c.N), np.arange(c.N)[rows])
        for one, other, name in zip(impl(c.replace(q=q, k=k, v=v)), clean, ("o", "lse"), strict=True):
            expect.same(one[:, others], other[:, others], name)


@law(
    ID, "L4", given=space.where(several=True), kills=["last_sequence_sees_all"],
    passes_null=["zeros", "constant"],
)  # fmt: skip
def order_of_the_sequences_is_immaterial(impl, c, expect):
    "The sequences in reverse order: the outputs in reverse order."
    parts = list(sequences(c))[::-1]
    rows = np.concatenate([np.arange(c.N)[r] for r, _, _ in parts])
    cols = np.concatenate([np.arange(c.M)[k] for _, k, _ in parts])
    turned = {name: np.concatenate(([0], np.cumsum(np.diff(c[name])[::-1]))) for name in ("cu_q", "cu_k")}
    other = impl(c.replace(q=c.q[:, rows].copy(), k=c.k[:, cols].copy(), v=c.v[:, cols].copy(), **turned))
    o, lse = impl(c)
    expect_both(expect, c, other, (o[:, rows], lse[:, rows]), factor=2)


@law(
    ID, "L5", closed_form=True, given=space.where(no_keys=True), kills=["packing_leak", "uniform_without_keys"],
)  # fmt: skip
def a_sequence_without_keys_is_zero(impl, c, expect):
    "Queries whose sequence has no key: o exactly zero and lse = -inf, though other sequences have keys."
    o, lse = impl(c)
    for rows, cols, _ in sequences(c):
        if cols.stop == cols.start:
            expect.same(o[:, rows], np.zeros_like(o[:, rows]), "o")
            expect.same(lse[:, rows], np.full_like(lse[:, rows], -np.inf), "lse")


@law(
    ID, "L6", closed_form=True, needs=("vjp",), given=space.reach("several", "chunks"),
    kills=["gradient_leaks", "gradient_of_the_first_sequence"],
)  # fmt: skip
def gradient_is_separate(impl, c, expect):
    "dq, dk, dv are the closed form of plain attention, sequence by sequence, of o and lse."
    g = np.cos(np.arange(c.H * c.N * c.e)).reshape(c.H, c.N, c.e), np.sin(1.0 + np.arange(c.H * c.N)).reshape(c.H, c.N)
    g = tuple(x.astype(c.dtype) for x in g)
    wanted = pulled(g, c)
    found = impl.vjp(c, g)
    limits = gradient_bounds(c, *g, weight_error=logit_error(c) + bounds.rounding(c.M + 24, 1.0, c.dtype))
    for name, want in zip("qkv", wanted, strict=True):
        bound, scale = limits[name]
        expect(found[name], want, bound, f"d{name}", scale)


def pulled(g, c):
    q, k, v, g_o, g_l = (np.asarray(x, np.float64) for x in (c.q, c.k, c.v, *g))
    out = np.zeros(q.shape), np.zeros(k.shape), np.zeros(v.shape)
    for rows, cols, keep in sequences(c):
        part = dense_vjp(g_o[:, rows], q[:, rows], k[:, cols], v[:, cols], g_lse=g_l[:, rows], mask=keep,
                         **options_of(c))  # fmt: skip
        for whole, piece, where in zip(out, part, (rows, cols, cols), strict=True):
            whole[:, where] += piece
    return out


# Mutants ---------------------------------------------------------------------------------------------


def one_sequence(mask=None):
    """The default-size test: a single sequence."""

    def make():
        g = np.random.default_rng(0)
        return (*(g.standard_normal((2, 4, 3)) for _ in range(3)), np.array([0, 4]), np.array([0, 4])), {"mask": mask}

    return make


def keep_of(cu_q, cu_k, mask):
    """The block-diagonal mask, a rule inside each block."""
    keep = np.zeros((int(cu_q[-1]), int(cu_k[-1])), bool)
    for a, b, e, f in zip(cu_q[:-1], cu_q[1:], cu_k[:-1], cu_k[1:], strict=True):
        keep[a:b, e:f] = block(mask, int(b - a), int(f - e))
    return keep


def block(mask, T, S):
    return np.ones((T, S), bool) if mask is None else mask.tile(np, np.arange(T), np.arange(S), T, S)


def whole_rule(cu_q, cu_k, mask):
    """A rule over the whole row, whatever the sequences."""
    return block(mask, int(cu_q[-1]), int(cu_k[-1]))


def edited(q, k, v, cu_q, cu_k, *, mask=None, bias=None, softcap=None, scale=None, keep=keep_of, tile=False,
           clean=True):  # fmt: skip
    keep = keep(cu_q, cu_k, mask)
    if tile:
        k, v = (np.concatenate([x] * (len(q) // len(x))) for x in (k, v))
    options = {"mask": keep, "softcap": softcap, "scale": scale}
    p, _, _, vv = dense(q, k, v, **options)
    if clean:  # one block at a time, so that junk of another stays out
        o = np.zeros((*q.shape[:-1], v.shape[-1]))
        for i in range(q.shape[1]):
            o[:, i] = np.einsum("hs,hse->he", p[:, i, keep[i]], vv[:, keep[i]])
    else:
        o = p @ vv
    return o.astype(q.dtype), dense_lse(q, k, v, **options).astype(q.dtype)


@mutant(ID, thread="trl#3067, trl#3526", default_case=one_sequence())
def packing_leak(q, k, v, cu_q, cu_k, **options):
    "The offsets are accepted and dropped: packed samples see each other."
    return edited(q, k, v, cu_q, cu_k, **options, keep=whole_rule)


@mutant(ID, default_case=one_sequence(causal()))
def causal_over_the_row(q, k, v, cu_q, cu_k, **options):
    "Blocks, and one rule over the whole row: it aligns to the row's T and S, not to the sequence's."
    return edited(
        q, k, v, cu_q, cu_k, **options, keep=lambda a, b, mask: keep_of(a, b, None) & whole_rule(a, b, mask)
    )


@mutant(ID, default_case=one_sequence())
def keys_by_the_queries_offsets(q, k, v, cu_q, cu_k, **options):
    "cu_q for keys as well."
    for_keys = np.where(cu_q == cu_q[-1], cu_k[-1], np.minimum(cu_q, cu_k[-1]))
    return edited(q, k, v, cu_q, for_keys, **options)


@mutant(ID, thread="onnx PR#7274", default_case=one_sequence())
def gqa_tile(q, k, v, cu_q, cu_k, **options):
    "tile instead of repeat: head h reads key head h mod G."
    return edited(q, k, v, cu_q, cu_k, **options, tile=True)


@mutant(ID, default_case=one_sequence())
def segments_from_lengths(q, k, v, cu_q, cu_k, **options):
    "Sequences of one length taken for one: a boundary between equals is lost."
    length = np.diff(cu_q) * 1000 + np.diff(cu_k)
    whole = np.concatenate(([True], length[1:] != length[:-1], [True])) if len(length) else np.array([True])
    return edited(q, k, v, cu_q[whole], cu_k[whole], **options)


@mutant(ID, default_case=one_sequence())
def leak_of_weight_zero(q, k, v, cu_q, cu_k, **options):
    "Other sequences weighted by zero, and zero times NaN is NaN."
    return edited(q, k, v, cu_q, cu_k, **options, clean=False)


@mutant(ID, default_case=one_sequence())
def last_sequence_sees_all(q, k, v, cu_q, cu_k, **options):
    "The last sequence's keys begin at 0."
    def keep(a, b, mask):
        found = keep_of(a, b, mask)
        if len(a) > 1:
            found[a[-2] :, : b[-2]] = True
        return found

    return edited(q, k, v, cu_q, cu_k, **options, keep=keep)


@mutant(ID, default_case=one_sequence())
def uniform_without_keys(q, k, v, cu_q, cu_k, **options):
    "Rows without keys average all values: the lowest finite number for -inf."
    o, lse = edited(q, k, v, cu_q, cu_k, **options)
    R = len(q) // max(len(k), 1)
    mean = np.repeat(v.mean(1) if v.shape[1] else v.sum(1), R, axis=0)[:, None]
    return np.where(np.isinf(lse)[..., None], mean, o).astype(q.dtype), lse


def _vjp_mutant(name, doc, change):
    def vjp(g, q, k, v, cu_q, cu_k, *, mask=None, bias=None, **options):
        dq, dk, dv = dense_vjp(g[0], q, k, v, g_lse=g[1], mask=change(cu_q, cu_k, mask), **options)
        return dq.astype(q.dtype), dk.astype(q.dtype), dv.astype(q.dtype)

    def function(*args, **options):
        return edited(*args, **options)

    function.__name__, function.__doc__ = name, doc
    mutant(ID, vjp=vjp, default_case=one_sequence())(function)


def _first_alone(cu_q, cu_k, mask):
    keep = keep_of(cu_q, cu_k, mask)
    keep[cu_q[1] if len(cu_q) > 1 else 0 :] = False
    return keep


_vjp_mutant("gradient_leaks", "The backward without the blocks.", whole_rule)
_vjp_mutant("gradient_of_the_first_sequence", "The backward of the first sequence alone.", _first_alone)
