"""Laws and mutants of the attention sink."""

from __future__ import annotations

import numpy as np

from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, batch, cases, choose, dims, floats, rng

ID = "attention.sink"


def _logits(draw, c):
    """float[*B H T S] with keys left out (-inf), at times all of a row."""
    shape = (*c.B, c.H, c.T, c.S)
    s = np.clip(np.round(rng(draw).standard_normal(shape) * 16), -64, 64) / 16 * c.size
    return np.where(rng(draw).random(shape) < c.dropped, -np.inf, s)


space = cases(
    ID, B=batch(1, 2), H=dims(1, 3), T=dims(0, 3), S=dims(1, 3), e=dims(1, 3), size=choose(1.0, 16.0),
    dropped=choose(0.0, 0.5), logits=_logits, values=("dyadic", "normal"), v=floats("*B H S e"),
    o=lambda draw, c: attended(c.logits, c.v)[0].round(3), lse=lambda draw, c: attended(c.logits, c.v)[1].round(3),
    flags={"empty_row": Flag(lambda c: np.isinf(c.lse).any(), {"S": 1, "T": dims(1, 3), "dropped": 0.9, "B": ()}),
           "heads": Flag(lambda c: c.H > 1 and c.T > 0 and c.o.size > 0, {"H": 3, "T": dims(1, 3), "B": ()})},
)  # fmt: skip


def attended(s, v):
    """(o, lse) of logits and values in float64."""
    lse = np.logaddexp.reduce(s, -1)
    return np.exp(s - np.where(np.isinf(lse), 0, lse)[..., None]) @ v, lse


def exact(c):
    """The case with o and lse of its logits and values, in its own dtype."""
    o, lse = attended(np.asarray(c.logits, np.float64), np.asarray(c.v, np.float64))
    return c.replace(o=o.astype(c.dtype), lse=lse.astype(c.dtype))


def bound_of(c, magnitude):
    """o and lse were rounded once; the weight e^{L - L'} is off by the roundings of both, and of an exponential."""
    top = 1 + np.max(np.abs(np.nan_to_num(c.lse, neginf=0)), initial=0) + np.max(np.abs(c.sink), initial=0)
    return bounds.rounding(8 * top + 16, magnitude, c.dtype)


def expect_both(expect, c, found, o, lse):
    size = float(np.max(np.abs(c.v), initial=0))
    expect(found[0], o, bound_of(c, size), "out", scale=size)
    expect(found[1], lse, bound_of(c, 1.0), "whole", scale=1 + np.max(np.abs(lse[np.isfinite(lse)]), initial=0))


@law(
    ID, "L1", closed_form=True, given=space.where(S=1, dropped=0.0).reach("heads"),
    kills=["sign_swapped", "off_by_one", "sink_of_the_last_axis"],
)  # fmt: skip
def one_key_is_a_logistic(impl, c, expect):
    "One key of logit s and value v: o = v sigma(s - b), L' = log(e^s + e^b)."
    c = exact(c)
    s, b = np.asarray(c.logits, np.float64)[..., 0], np.asarray(c.sink, np.float64)[:, None]
    v = np.broadcast_to(c.v.astype(np.float64), c.o.shape)
    expect_both(expect, c, impl(c), v / (1 + np.exp(b - s))[..., None], s + np.log1p(np.exp(b - s)))


@law(
    ID, "L2", closed_form=True, given=space.reach("empty_row", "heads"),
    kills=["sign_swapped", "off_by_one", "weights_not_renormalised", "lse_left", "sink_of_the_last_axis"],
)  # fmt: skip
def a_sink_is_a_key_of_value_zero(impl, c, expect):
    "Softmax over the keys and one more of logit b, whose value is zero."
    c = exact(c)
    b = np.broadcast_to(np.asarray(c.sink, np.float64)[:, None, None], (*c.lse.shape, 1))
    s = np.concatenate((np.asarray(c.logits, np.float64), b), -1)
    v = np.concatenate((np.asarray(c.v, np.float64), np.zeros((*c.v.shape[:-2], 1, c.e))), -2)
    expect_both(expect, c, impl(c), *attended(s, v))


@law(ID, "L3", given=space, kills=["off_by_one"])
def a_sink_of_minus_infinity_is_none(impl, c, expect):
    "b = -inf: the same bits, of rows without keys too."
    c = exact(c)
    found = impl(c.replace(sink=np.full(c.H, -np.inf, c.dtype)))
    expect.same(found[0], c.o, "out")
    expect.same(found[1], c.lse, "whole")


@law(
    ID, "L4", closed_form=True, given=space.where(empty_row=True), kills=["lse_left", "empty_rows_kept_nan"],
)  # fmt: skip
def a_row_without_keys_falls_into_the_sink(impl, c, expect):
    "L = -inf: out is exactly zero and L' = b to the bit."
    empty = np.isinf(c.lse)
    out, whole = impl(exact(c))
    expect.same(out[empty], np.zeros((int(empty.sum()), c.e)), "out")
    expect.same(whole[empty], np.broadcast_to(c.sink[:, None], c.lse.shape)[empty], "whole")


@law(
    ID, "L5", closed_form=True, needs=("vjp",), given=space.reach("empty_row", "heads"),
    kills=["sink_has_no_gradient", "lse_has_no_gradient"],
)  # fmt: skip
def gradient_is_the_closed_form(impl, c, expect):
    "With w = sigma(L - b): do = w g, dL = w (1 - w) g . o + w g_L, db = sum of (1 - w) g_L - w (1 - w) g . o."
    c = exact(c)
    g = np.cos(np.arange(c.o.size)).reshape(c.o.shape), np.sin(1.0 + np.arange(c.lse.size)).reshape(c.lse.shape)
    g = tuple(x.astype(c.dtype).astype(np.float64) for x in g)
    o, lse, b = (np.asarray(c[n], np.float64) for n in ("o", "lse", "sink"))
    w = 1 / (1 + np.exp(b[:, None] - lse))
    moved = w * (1 - w) * (g[0] * o).sum(-1)
    found = impl.vjp(c, g)
    size = 1 + c.e * float(np.max(np.abs(o), initial=0))
    expect(found["o"], w[..., None] * g[0], bound_of(c, 1.0), "do", scale=1.0)
    expect(found["lse"], moved + w * g[1], 4 * bound_of(c, size), "dlse", scale=size)
    db = ((1 - w) * g[1] - moved).sum(-1)
    rows = max(int(np.prod(db.shape[:-1], dtype=np.int64)) * c.T, 1)
    wanted = db.reshape(-1, c.H).sum(0)
    expect(found["sink"], wanted, 4 * rows * bound_of(c, size) + bounds.rounding(rows, rows * size, c.dtype), "dsink",
           scale=rows * size)  # fmt: skip


def far_below(o=None):
    """The default-size test: a sink far below the logits."""
    g = np.random.default_rng(0)
    return (g.standard_normal((2, 2, 3)), g.standard_normal((2, 2)), np.full(2, -60.0)), {}


def edited(o, lse, sink, *, w=None, whole=None):
    b = sink[:, None]
    made = np.logaddexp(lse, np.broadcast_to(b, lse.shape)) if whole is None else whole(lse, b)
    share = np.exp(lse - np.where(np.isinf(made), 0, made)) if w is None else w(lse, b)
    return (o * share[..., None]).astype(o.dtype), made.astype(o.dtype)


@mutant(ID, default_case=lambda: ((np.zeros((1, 1, 1)), np.zeros((1, 1)), np.zeros(1)), {}))
def sign_swapped(o, lse, sink):
    "The sink's own share goes to the keys."
    return edited(o, lse, sink, w=lambda s, b: 1 / (1 + np.exp(np.where(np.isinf(s), np.inf, s - b))))


@mutant(ID, default_case=far_below)
def weights_not_renormalised(o, lse, sink):
    "The sink in the log-sum-exp alone: the weights still sum to one."
    return edited(o, lse, sink, w=lambda s, b: np.ones_like(s))


@mutant(ID, default_case=far_below)
def lse_left(o, lse, sink):
    "L without the sink: what is merged with it afterwards weighs too little."
    return edited(o, lse, sink)[0], lse.copy()


@mutant(ID, default_case=lambda: ((np.zeros((1, 1, 1)), np.zeros((1, 1)), np.zeros(1)), {}))
def off_by_one(o, lse, sink):
    "Softmax plus one: a sink of 0 whatever is learned."
    return edited(o, lse, 0 * np.nan_to_num(sink, neginf=0))


@mutant(ID, default_case=far_below)
def sink_of_the_last_axis(o, lse, sink):
    "The first head's sink for all."
    return edited(o, lse, np.full_like(sink, sink[0]))


@mutant(ID, default_case=far_below)
def empty_rows_kept_nan(o, lse, sink):
    "0 / 0 in rows without keys."
    return edited(o, lse, sink, whole=lambda s, b: np.where(np.isinf(s), -np.inf, np.logaddexp(s, b)))


def _pull(g, o, lse, sink, through_sink=True, through_lse=True):
    g_o, g_l = g
    w = np.exp(lse - np.logaddexp(lse, np.broadcast_to(sink[:, None], lse.shape)))
    moved = w * (1 - w) * (g_o * o).sum(-1) * (1 if through_lse else 0)
    db = ((1 - w) * g_l - moved) * (1 if through_sink else 0)
    return w[..., None] * g_o, moved + w * g_l, db.sum(-1).reshape(-1, len(sink)).sum(0)


def _vjp_mutant(name, doc, **cut):
    def function(o, lse, sink):
        return edited(o, lse, sink)

    function.__name__, function.__doc__ = name, doc
    mutant(ID, vjp=lambda g, o, lse, sink: _pull(g, o, lse, sink, **cut), default_case=far_below)(function)


_vjp_mutant("sink_has_no_gradient", "The sink is not learned.", through_sink=False)
_vjp_mutant("lse_has_no_gradient", "The weight taken as a constant.", through_lse=False)
