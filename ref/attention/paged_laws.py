"""Laws and mutants of paged decoding."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from ref.attention.common_laws import (
    dense,
    dense_lse,
    dense_vjp,
    gradient_bounds,
    keep_matrix,
    logit_error,
    output_bound,
    value_size,
)
from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, cases, choose, dims, none_or, rng

ID = "attention.paged"


def _table(draw, c):
    """Pages of each sequence, at times shared; what follows the last one is no page at all."""
    g = rng(draw)
    used = -(-c.lengths // c.page)
    rows = [g.integers(0, c.P, c.n) if c.shared else (b * c.n + g.permutation(c.n)) for b in range(c.B)]
    table = np.array(rows, np.int64).reshape(c.B, c.n)
    return np.where(np.arange(c.n) < used[:, None], table, -7)


space = cases(
    ID, B=dims(0, 2, large=4), G=dims(1, 2), R=dims(1, 2), H=lambda draw, c: c.G * c.R, T=dims(1, 2), d=dims(1, 3),
    e=dims(1, 3), page=dims(1, 3), n=dims(1, 3), P=lambda draw, c: max(c.B, 1) * c.n + 1, shared=choose(False, True),
    lengths=lambda draw, c: rng(draw).integers(0, c.n * c.page + 1, c.B), table=_table, softcap=none_or(4.0),
    scale=none_or(0.5),
    flags={
        "part_full": Flag(lambda c: c.B > 0 and (c.lengths % c.page).any() and c.lengths.max() > c.page,
                          {"B": 2, "page": choose(2, 3), "n": choose(2, 3)}),
        "empty_sequence": Flag(lambda c: c.B > 0 and (c.lengths == 0).any(), {"B": 2, "n": 1, "page": 1}),
        "nothing": Flag(lambda c: c.B == 0, {"B": 0}),
        "common": Flag(lambda c: c.B > 1 and (c.lengths > 0).all() and c.table[0, 0] == c.table[1, 0],
                       {"B": 2, "n": choose(1, 2), "page": choose(1, 2), "shared": True}),
        "several_pages": Flag(lambda c: c.B > 0 and (c.lengths > c.page).any() and (np.diff(c.table[:, :2]) != 1).any(),
                              {"B": 2, "n": choose(2, 3), "page": choose(1, 2)}),
    },
)  # fmt: skip


def gathered(c, b, pages):
    """[G S n] of sequence b, token by token."""
    S = int(c.lengths[b])
    rows = [pages[int(c.table[b, j // c.page]), :, j % c.page] for j in range(S)]
    return np.stack(rows, 1) if rows else np.zeros((c.G, 0, pages.shape[-1]))


def sequences(c):
    """(q, k, v, keep) of each, in float64."""
    for b in range(c.B):
        k, v = (gathered(c, b, np.asarray(x, np.float64)) for x in (c.k_pages, c.v_pages))
        yield np.asarray(c.q[b], np.float64), k, v, keep_matrix("bottom_right", c.T, k.shape[1])


def options_of(c):
    return {"softcap": c.softcap, "scale": c.scale}


def oracle(c):
    o, lse = np.zeros((*c.q.shape[:-1], c.e)), np.zeros(c.q.shape[:-1])
    for b, (q, k, v, keep) in enumerate(sequences(c)):
        p, _, _, vv = dense(q, k, v, mask=keep, **options_of(c))
        o[b], lse[b] = p @ vv, dense_lse(q, k, v, mask=keep, **options_of(c))
    return o, lse


def as_attention(c):
    """The case with its pages as keys and values: what the bounds of attention are read from."""
    flat = [np.moveaxis(x, 0, 1).reshape(1, c.G, c.P * c.page, x.shape[-1]) for x in (c.k_pages, c.v_pages)]
    k, v = (np.where(np.isfinite(x) & (np.abs(x) < 1e20), x, 0) for x in flat)
    k, v = (np.broadcast_to(x, (c.B, *x.shape[1:])) for x in (k, v))
    return c.replace(k=k, v=v, bias=None)


def expect_both(expect, c, found, wanted, factor=1):
    a = as_attention(c)
    expect(found[0], wanted[0], factor * (output_bound(a) + bounds.rounding(24, value_size(a), c.dtype)), "o",
           scale=value_size(a))  # fmt: skip
    size = 1 + np.abs(np.nan_to_num(wanted[1], neginf=0))
    limit = logit_error(a) + bounds.rounding(c.n * c.page + 32, size, c.dtype)
    expect(found[1], wanted[1], factor * limit, "lse", scale=size)


@law(
    ID, "L1", closed_form=True, given=space.where(B=choose(1, 2), T=1, page=choose(2, 3),
                                                  lengths=lambda d, c: np.ones(c.B, np.int64)),
    kills=["table_ignored", "table_of_the_first_sequence", "last_page_is_full"],
)  # fmt: skip
def one_token_is_its_value(impl, c, expect):
    "Sequences of one token: o is the value in the first slot of their page, lse its logit."
    R, at = c.H // c.G, c.table[:, 0]
    k, v = (np.repeat(np.asarray(x, np.float64)[at, :, 0], R, axis=1)[:, :, None] for x in (c.k_pages, c.v_pages))
    s = (np.asarray(c.q, np.float64) * k).sum(-1) * (c.d**-0.5 if c.scale is None else c.scale)
    expect_both(expect, c, impl(c), (v, s if c.softcap is None else c.softcap * np.tanh(s / c.softcap)))


@law(
    ID, "L2", closed_form=True, given=space.reach("part_full", "empty_sequence", "nothing", "several_pages"),
    kills=["table_ignored", "last_page_is_full", "table_of_the_first_sequence", "not_causal", "slots_before_pages",
           "gqa_tile"],
)  # fmt: skip
def gathered_is_contiguous(impl, c, expect):
    "Attention over the tokens laid out one by one, causal and aligned bottom right."
    expect_both(expect, c, impl(c), oracle(c))


@law(
    ID, "L3", given=space.where(B=choose(1, 2)).reach("several_pages"), kills=["table_ignored"],
    passes_null=["zeros", "constant", "identity"],
)  # fmt: skip
def numbers_of_pages_are_immaterial(impl, c, expect):
    "Pages renumbered, the table with them: the same bits."
    to = (np.arange(c.P) + 1) % c.P
    k, v = np.empty_like(c.k_pages), np.empty_like(c.v_pages)
    k[to], v[to] = c.k_pages, c.v_pages
    moved = np.where(c.table >= 0, to[np.maximum(c.table, 0)], c.table)
    for one, other, name in zip(impl(c.replace(k_pages=k, v_pages=v, table=moved)), impl(c), ("o", "lse"), strict=True):
        expect.same(one, other, name)


@law(
    ID, "L4", given=space.where(B=choose(1, 2)).reach("part_full"), kills=["masked_by_multiplying"],
    passes_null=["zeros", "constant", "identity"],
)  # fmt: skip
def what_no_one_reads_is_invisible(impl, c, expect):
    "NaN in pages of no sequence and in slots after a last token changes no bit."
    read = np.zeros((c.P, c.page), bool)
    for b in range(c.B):
        for j in range(int(c.lengths[b])):
            read[c.table[b, j // c.page], j % c.page] = True
    junk = {n: np.where(read[:, None, :, None], c[n], np.nan).astype(c.dtype) for n in ("k_pages", "v_pages")}
    for one, other, name in zip(impl(c.replace(**junk)), impl(c), ("o", "lse"), strict=True):
        expect.same(one, other, name)


@law(
    ID, "L5", closed_form=True, needs=("vjp",), given=space.where(B=choose(1, 2)).reach("common", "part_full"),
    kills=["gradient_of_the_last_reader"],
)  # fmt: skip
def gradient_of_a_shared_page_is_a_sum(impl, c, expect):
    "dq, and dk and dv of every slot summed over the tokens of all sequences that lie in it; zero where no one reads."
    g = cotangents(c)
    wanted = pulled(c, g)
    found, limits = impl.vjp(c, g), gradient_bounds(as_attention(c), *g, weight_error=64 * bounds.u(c.dtype))
    for name, key, want in zip(("q", "k_pages", "v_pages"), "qkv", wanted, strict=True):
        bound, scale = limits[key]
        expect(found[name], want, 2 * c.B * c.n * c.page * bound, f"d{name}", c.B * c.n * c.page * scale)


def cotangents(c):
    o = np.cos(np.arange(c.B * c.H * c.T * c.e)).reshape(c.B, c.H, c.T, c.e)
    return o.astype(c.dtype), np.sin(1.0 + np.arange(c.B * c.H * c.T)).reshape(c.B, c.H, c.T).astype(c.dtype)


def pulled(c, g, add=True):
    dq, dk, dv = np.zeros(c.q.shape), np.zeros(c.k_pages.shape), np.zeros(c.v_pages.shape)
    for b, (q, k, v, keep) in enumerate(sequences(c)):
        g_o, g_lse = (x[b].astype(np.float64) for x in g)
        part = dense_vjp(g_o, q, k, v, g_lse=g_lse, mask=keep, **options_of(c))
        dq[b] = part[0]
        for j in range(k.shape[1]):
            at = int(c.table[b, j // c.page]), slice(None), j % c.page
            for whole, piece in ((dk, part[1]), (dv, part[2])):
                whole[at] = whole[at] * add + piece[:, j]
    return dq, dk, dv


# Mutants ---------------------------------------------------------------------------------------------


def one_page():
    """The default-size test: one sequence that fills one page."""
    g = np.random.default_rng(0)
    pages = g.standard_normal((1, 2, 3, 4))
    return (g.standard_normal((1, 2, 1, 4)), pages, pages + 1, np.array([[0]]), np.array([3])), {}


def edited(q, k_pages, v_pages, table, lengths, *, softcap=None, scale=None, place=None, length=None, keep=None,
           tile=False, clean=True):  # fmt: skip
    P, G, page, _ = k_pages.shape
    o, lse = np.zeros((*q.shape[:-1], v_pages.shape[-1]), q.dtype), np.zeros(q.shape[:-1], q.dtype)
    for b in range(len(q)):
        S = int(lengths[b]) if length is None else length(int(lengths[b]), page, table.shape[1])
        at = [(place or _place)(table, b, j, page) for j in range(S)]
        k, v = ([x[p % P, :, s] for p, s in at] for x in (k_pages, v_pages))
        k, v = (np.stack(x, 1) if x else np.zeros((G, 0, n.shape[-1])) for x, n in ((k, k_pages), (v, v_pages)))
        if tile:
            k, v = (np.concatenate([x] * (q.shape[1] // G)) for x in (k, v))
        T = q.shape[2]
        sees = np.arange(S) <= np.arange(T)[:, None] + S - T if keep is None else keep(T, S)
        options = {"mask": sees, "softcap": softcap, "scale": scale}
        p, _, _, vv = dense(q[b], k, v, **options)
        o[b], lse[b] = p @ vv, dense_lse(q[b], k, v, **options)
    return (o if clean else o + 0 * (k_pages.sum() + v_pages.sum())), lse


def _place(table, b, j, page):
    return int(table[b, j // page]), j % page


def _mutant(name, doc, thread=None, **edit):
    def function(*args, **options):
        return edited(*args, **options, **edit)

    function.__name__, function.__doc__ = name, doc
    mutant(ID, thread=thread, default_case=one_page)(function)


_mutant("table_ignored", "Pages in the order they lie in.", place=lambda table, b, j, page: (j // page, j % page))
_mutant("table_of_the_first_sequence", "One table for all sequences.",
        place=lambda table, b, j, page: _place(table, 0, j, page))  # fmt: skip
_mutant("last_page_is_full", "Lengths rounded up to pages.", length=lambda n, page, most: -(-n // page) * page)
_mutant("slots_before_pages", "Key j in page j mod n.",
        place=lambda table, b, j, page: (int(table[b, j % max(1, (table[b] >= 0).sum())]), j % page))  # fmt: skip
_mutant("not_causal", "All rows see all tokens.", keep=lambda T, S: np.ones((T, S), bool))
_mutant("gqa_tile", "tile for repeat: head h reads key head h mod G.", "onnx PR#7274", tile=True)
_mutant("masked_by_multiplying", "Slots that no one reads weighted by zero.", clean=False)


def _last_reader(g, q, k_pages, v_pages, table, lengths, **options):
    c = SimpleNamespace(
        q=q, k_pages=k_pages, v_pages=v_pages, table=table, lengths=lengths, B=len(q), G=k_pages.shape[1],
        page=k_pages.shape[2], T=q.shape[2], softcap=options.get("softcap"), scale=options.get("scale"),
    )  # fmt: skip
    return tuple(x.astype(q.dtype) for x in pulled(c, g, add=False))


@mutant(ID, vjp=_last_reader, default_case=one_page)
def gradient_of_the_last_reader(*args, **options):
    "A shared slot keeps the gradient of the last sequence that read it."
    return edited(*args, **options)
