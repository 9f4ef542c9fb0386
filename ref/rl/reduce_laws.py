"""Laws and mutants of the reductions."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np

from ref.rl.common_laws import JUNK, REDUCTIONS, any_mask, dyadics, plain_weights
from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, cases, choose, dims, none_or, rng

ID = "rl.reduce"


def _mask(draw, c):
    return rng(draw).random((c.B, c.T)) < 0.5 if c.empty != "refuse" else any_mask(draw, c)


space = cases(
    ID, B=dims(1, 4, large=8), T=dims(1, 5, large=40), reduction=choose(*REDUCTIONS), count=none_or(3, 8),
    length=lambda draw, c: 7 if c.reduction == "constant" else None, empty=choose("refuse", "drop", "count"),
    mask=_mask, loss=dyadics("B T", -4, 4, 8),
    flags={
        "some": Flag(lambda c: c.count is not None or bool(np.any(c.mask))),
        "masked": Flag(lambda c: not np.all(c.mask), {"T": dims(2, 5)}),
        "uneven": Flag(lambda c: len(set(np.sum(c.mask, -1).tolist())) > 1, {"B": dims(2, 4), "T": dims(2, 5)}),
        "empty_row": Flag(lambda c: not np.all(np.any(c.mask, -1)),
                          {"empty": choose("drop", "count"), "B": dims(2, 4), "T": dims(1, 3)}),
        "nothing": Flag(lambda c: not np.any(c.mask) and c.count is not None,
                        {"count": 3, "mask": lambda draw, c: np.zeros((c.B, c.T), bool)}),
    },
).where(some=True)  # fmt: skip


def divisor(c, row):
    """What the sum over the kept tokens of a row is divided by: a whole number."""
    tokens = [int(np.sum(r)) for r in np.asarray(c.mask)]
    rows = len(tokens) if c.empty == "count" else sum(n > 0 for n in tokens)
    total = c.count or (sum(tokens) if c.reduction == "token-mean" else rows)
    return total * {"seq-mean-token-mean": tokens[row], "constant": c.length}.get(c.reduction, 1)


def exact(c, values=None):
    """The reduction in fractions."""
    values = np.asarray(c.loss) if values is None else values
    out = Fraction(0)
    for i, row in enumerate(np.asarray(c.mask)):
        if row.any():
            out += sum(Fraction(float(v)) for v in values[i][row]) / divisor(c, i)
    return out


def limit(c):
    """T additions in a row, B rows, the weight and the products."""
    size = float(exact(c, np.abs(np.asarray(c.loss))))
    return bounds.rounding(c.loss.size + 4, size, c.dtype), max(size, 1e-12)


@law(ID, "L1", closed_form=True, given=space.reach("uneven", "empty_row", "masked", "nothing"),
     kills=["mean_of_means", "always_token_mean", "always_sequence_mean", "always_sequence_sum", "numerator_only",
            "width_for_the_constant", "eps_in_the_count", "drop_is_count"])  # fmt: skip
def value_in_fractions(impl, c, expect):
    "The four reductions in exact fractions: what each kept token weighs, by its row's length, R or the constant."
    bound, size = limit(c)
    expect(impl(c), np.array(float(exact(c))), bound, scale=size)


@law(ID, "L2", closed_form=True, given=space.where(mask=lambda draw, c: np.ones((c.B, c.T), bool), count=None),
     kills=["always_sequence_sum", "eps_in_the_count"])  # fmt: skip
def equal_lengths_make_them_one(impl, c, expect):
    "Rows of equal length T: both means are the plain mean, the sum is T times it, the constant T / length."
    mean = np.mean(np.asarray(c.loss, np.float64))
    factor = {"seq-mean-token-sum": c.T, "constant": c.T / (c.length or 1)}.get(c.reduction, 1)
    bound, size = limit(c)
    expect(impl(c), np.array(mean * factor), bound, scale=size)


@law(ID, "L3", given=space.where(count=None, uneven=True), kills=["mean_of_means"], passes_null=["zeros", "cached"])
def any_cut_adds_up(impl, c, expect):
    "However the rows are cut, the parts under the whole's count add up to the whole: accumulation and ranks."
    filled = int(np.sum(np.any(c.mask, -1)))
    n = int(np.sum(c.mask)) if c.reduction == "token-mean" else filled if c.empty == "drop" else c.B
    bound, size = limit(c)
    whole = impl(c)
    for cuts in (k for r in range(1, c.B) for k in itertools.combinations(range(1, c.B), r)):
        parts = [c.replace(loss=c.loss[rows].copy(), mask=c.mask[rows].copy(), B=len(rows), count=n)
                 for rows in np.split(np.arange(c.B), cuts)]  # fmt: skip
        expect(np.array(sum(float(impl(p)) for p in parts)), whole, 3 * bound, f"{len(parts)} parts", scale=size)


@law(ID, "L4", given=space.where(masked=True, count=None, B=1, empty="refuse"),
     kills=["numerator_only", "width_for_the_constant"], passes_null=["zeros", "constant", "cached"])  # fmt: skip
def masking_is_deleting(impl, c, expect):
    "One row: its masked tokens masked, or gone."
    keep = c.mask[0]
    gone = c.replace(loss=c.loss[:, keep].copy(), mask=np.ones((1, int(keep.sum())), bool), T=int(keep.sum()))
    bound, size = limit(c)
    expect(impl(c), impl(gone), 2 * bound, scale=size)


def junked(c):
    return c.replace(loss=np.where(c.mask, c.loss, JUNK[np.arange(c.loss.size) % 4].reshape(c.loss.shape)
                                   .astype(c.dtype)))  # fmt: skip


@law(ID, "L5", needs=("vjp",), given=space.where(masked=True), kills=["masked_by_multiplying"],
     passes_null=["zeros", "constant"])  # fmt: skip
def masked_junk_is_invisible(impl, c, expect):
    "NaN, inf or 1e30 in masked losses changes no bit, neither of the value nor of the gradient."
    other, g = junked(c), np.array(1.0, c.dtype)
    expect.same(impl(other), impl(c))
    expect.same(impl.vjp(other, g)["loss"], impl.vjp(c, g)["loss"], "d loss")


@law(ID, "L6", closed_form=True, needs=("vjp",), given=space.reach("masked", "uneven", "empty_row"),
     kills=["gradient_of_the_masked", "gradient_of_the_token_mean"])  # fmt: skip
def gradient_is_the_weight(impl, c, expect):
    "dL / dloss_it = w_i where kept and 0, exactly, where masked."
    found = impl.vjp(c, np.array(3.0, c.dtype))["loss"]
    wanted = np.zeros(c.loss.shape)
    for i, row in enumerate(np.asarray(c.mask)):
        wanted[i][row] = 3 / divisor(c, i) if row.any() else 0
    expect(found, wanted, bounds.rounding(4, wanted, c.dtype), "d loss", scale=1.0)
    expect.same(found[~c.mask], np.zeros(int((~c.mask).sum())), "d loss of the masked")


@law(ID, "L7", closed_form=True, given=space.where(empty_row=True, count=None, reduction=choose(*REDUCTIONS[1:])),
     kills=["drop_is_count", "empty_row_ignored"], passes_null=["zeros", "cached"])  # fmt: skip
def an_empty_row_is_named_dropped_or_counted(impl, c, expect):
    "With e of R rows empty: counted, the value is (R - e) / R of that of the filled rows alone; dropped, it is that."
    filled = np.any(c.mask, -1)
    alone = c.replace(loss=c.loss[filled].copy(), mask=c.mask[filled].copy(), B=int(filled.sum()), empty="refuse")
    share = filled.mean() if c.empty == "count" else 1.0
    bound, size = limit(c)
    expect(impl(c), impl(alone).astype(np.float64) * share, 3 * bound, scale=size)


# Mutants ---------------------------------------------------------------------------------------------


def equal_rows(reduction="token-mean", mask=None, **options):
    """The default-size test: rows of equal length."""
    loss = np.random.default_rng(0).standard_normal((3, 4))
    return lambda: ((loss, np.ones((3, 4), bool) if mask is None else mask), {"reduction": reduction, **options})


def reduced(loss, mask, *, reduction, count=None, length=None, empty="refuse", weigh=plain_weights, hide=np.where):
    kept = np.where(mask, loss, 0) if hide is np.where else loss * mask
    w = np.asarray(weigh(mask, reduction, count, length, empty))
    return np.asarray(np.sum(kept.sum(-1) * w), loss.dtype)


def _mutant(name, doc, *, weigh, thread=None, case=None):
    def function(loss, mask, **options):
        return reduced(loss, mask, **options, weigh=weigh)

    function.__name__, function.__doc__ = name, doc
    mutant(ID, thread=thread, default_case=case or equal_rows())(function)


_mutant("mean_of_means", "The part's own count, whatever the whole's: wrong under accumulation and over ranks.",
        weigh=lambda m, r, n, length, e: plain_weights(m, r, None, length, e),
        thread="transformers#34191, #34242, #35438; verl#593")  # fmt: skip
_mutant("always_token_mean", "Token-mean under every name.",
        weigh=lambda m, r, n, length, e: plain_weights(m, "token-mean", n, length, e), thread="trl#2881")  # fmt: skip
_mutant("always_sequence_mean", "The mean of the rows' means under every name.", thread="verl#5355; trl#2995",
        weigh=lambda m, r, n, length, e: plain_weights(m, "seq-mean-token-mean", n, length, e))  # fmt: skip
_mutant("always_sequence_sum", "The sum over tokens, the mean over rows, under every name.", thread="trl#3178",
        weigh=lambda m, r, n, length, e: plain_weights(m, "seq-mean-token-sum", n, length, e),
        case=equal_rows("seq-mean-token-sum"))  # fmt: skip
_mutant("numerator_only", "Masked tokens leave the sum and stay in the count.", thread="trl#6439",
        weigh=lambda m, r, n, length, e: plain_weights(np.ones_like(m), r, n, length, e))  # fmt: skip
_mutant("width_for_the_constant", "The batch's width for the constant: it changes with the padding.",
        weigh=lambda m, r, n, length, e: plain_weights(m, r, n, m.shape[-1], e),
        case=equal_rows("constant", length=4), thread="verl#5355")  # fmt: skip
_mutant("eps_in_the_count", "sum / (count + 1e-6).",
        weigh=lambda m, r, n, length, e: 1 / (1 / plain_weights(m, r, n, length, e) + 1e-6))  # fmt: skip
_mutant("drop_is_count", "A row without tokens stays in R whatever `empty` says.",
        weigh=lambda m, r, n, length, e: plain_weights(m, r, n, length, "count"))  # fmt: skip
_mutant("empty_row_ignored", "A row without tokens leaves R whatever `empty` says.",
        weigh=lambda m, r, n, length, e: plain_weights(m, r, n, length, "drop"))  # fmt: skip


@mutant(ID, default_case=equal_rows(), vjp=lambda g, loss, mask, **o: (
    (g * mask * plain_weights(mask, o["reduction"], o.get("count"), o.get("length"), o.get("empty", "refuse"))[:, None])
    .astype(loss.dtype),))  # fmt: skip
def masked_by_multiplying(loss, mask, **options):
    "Masked losses times zero: NaN stays."
    return reduced(loss, mask, **options, hide=np.multiply)


def _vjp_mutant(name, doc, vjp):
    def function(loss, mask, **options):
        return reduced(loss, mask, **options)

    function.__name__, function.__doc__ = name, doc
    mutant(ID, default_case=equal_rows(), vjp=vjp)(function)


_vjp_mutant("gradient_of_the_masked", "The weight everywhere.", lambda g, loss, mask, **o: (
    np.broadcast_to(g * plain_weights(mask, o["reduction"], o.get("count"), o.get("length"), o.get("empty", "refuse"))
                    [:, None], loss.shape).astype(loss.dtype),))  # fmt: skip
_vjp_mutant("gradient_of_the_token_mean", "1 / N everywhere.", lambda g, loss, mask, **o: (
    (g * mask / max(mask.sum(), 1)).astype(loss.dtype),))  # fmt: skip
