"""Laws and mutants of the gradient of a checkpointed chain."""

from __future__ import annotations

import numpy as np

from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, cases, choose, dims

ID = "training.checkpointed_gradient"


def _lengths(draw, c):
    return [draw(choose(1, 2)) for _ in range(c.K)]


space = cases(
    ID,
    B=dims(0, 3, large=20),
    d=dims(1, 3, large=20),
    L=dims(1, 3),
    K=dims(1, 3),
    lengths=_lengths,
    rate=choose(0.0, 0.5, 0.25),
    seed=choose(0, 1, 2**40),
    flags={
        "cut": Flag(lambda c: len(c.lengths) > 1 and c.B > 0, {"K": choose(2, 3), "B": choose(2, 3)}),
        "shared": Flag(lambda c: sum(c.lengths) > c.L, {"L": 1, "K": 3}),
        "empty": Flag(lambda c: c.B == 0, {"B": 0}),
    },
)


def f64(c, *names):
    return [np.asarray(c[n], np.float64) for n in names]


def chain_rule(x, w, g, n, masks):
    """(dx, dw, |dx|, |dw|): back through n layers with all values kept; |.| is the same with magnitudes."""
    xs, L = [x], len(w)
    for i in range(n):
        xs.append(masks[i] * np.tanh(xs[-1] @ w[i % L]))
    dw, size, wide = np.zeros_like(w), np.zeros_like(w), np.abs(g)
    for i in reversed(range(n)):
        slope = masks[i] * (1 - np.tanh(xs[i] @ w[i % L]) ** 2)
        ds, wide = g * slope, wide * masks[i]
        dw[i % L] += xs[i].T @ ds
        size[i % L] += np.abs(xs[i]).T @ wide
        g, wide = ds @ w[i % L].T, wide @ np.abs(w[i % L]).T
    return g, dw, wide, size


def error(c, size, w):
    """A product of n layers: each adds d + 12 roundings, and a tanh whose argument is off by d u |x||w|."""
    n, argument = sum(c.lengths), 1 + c.d * max(1.0, float(np.max(np.abs(w), initial=0))) * 2
    return bounds.rounding(n * n * (c.d + 12) * argument, size, c.dtype)


@law(
    ID, "L1", dtypes=("float64",), given=space.where(cut=True).reach("shared"),
    kills=["fresh_dropout_again", "one_mask_for_all_segments_again", "run_again_from_the_chains_input"],
    passes_null=["zeros", "constant", "identity"],
)  # fmt: skip
def any_partition_has_the_bits_of_the_plain_run(impl, c, expect):
    "Dropout and shared weights or not, every partition of the chain gives dx and dw the same bits, one segment's too."
    n = sum(c.lengths)
    dx, dw = impl(c.replace(lengths=[n]))
    for lengths in (c.lengths, [1] * n):
        other = impl(c.replace(lengths=lengths))
        expect.same(other[0], dx, f"dx in segments {lengths}")
        expect.same(other[1], dw, f"dw in segments {lengths}")


@law(
    ID, "L2", closed_form=True, given=space.where(rate=0.0, lengths=choose([1], [2, 1], [1, 1, 2])).reach("empty"),
    kills=["only_the_last_use_counts", "slope_left_out", "run_again_from_the_chains_input"],
)  # fmt: skip
def without_dropout_it_is_the_chain_rule(impl, c, expect):
    "rate 0: dw_l = sum over layers i = l mod L of x_i^T ds_i, ds_i = dx_{i+1} (1 - tanh^2), dx_i = ds_i W^T."
    x, w, g = f64(c, "x", "w", "g")
    n = sum(c.lengths)
    dx, dw, wide, size = chain_rule(x, w, g, n, np.ones(n))
    found = impl(c)
    expect(found[0], dx, error(c, wide, w), "dx", scale=np.max(wide, initial=0))
    expect(found[1], dw, error(c, size, w), "dw", scale=np.max(size, initial=0))


@law(
    ID, "L3", closed_form=True, given=space.where(d=1, B=dims(1, 3), rate=0.0, K=1, lengths=choose([1])),
    kills=["slope_left_out"],
)  # fmt: skip
def one_layer_in_closed_form(impl, c, expect):
    "One layer, d = 1: dx = g w / cosh^2(x w), dw = sum_b g x / cosh^2(x w); weights that no layer uses have 0."
    x, w, g = f64(c, "x", "w", "g")
    slope = 1 / np.cosh(x * w[0]) ** 2
    dx, dw = impl(c)
    expect(dx, g * w[0] * slope, error(c, np.abs(g * w[0]), w), "dx", scale=max(np.max(np.abs(g * w[0])), 1e-30))
    size = np.sum(np.abs(g * x))
    expect(dw[0, 0, 0], np.sum(g * x * slope), (c.B + 1) * error(c, size, w), "dw", scale=max(size, 1e-30))
    expect.same(dw[1:], np.zeros(dw[1:].shape), "dw of weights not used")


@law(
    ID, "L4", closed_form=True, given=space.where(B=dims(1, 3), rate=0.5, lengths=choose([1], [1, 1], [2, 1])),
    kills=["scaled_by_what_is_kept"], passes_null=["zeros", "identity", "mutated"],
)  # fmt: skip
def dropped_at_the_end_is_dead(impl, c, expect):
    """x = 0, W = 1, rate 1/2, g = 1: dx is 2^n where all n layers keep, else 0, and dw = 0; a longer chain keeps
    nothing that its first layer drops."""
    n = sum(c.lengths)
    eye = np.broadcast_to(np.eye(c.d), (c.L, c.d, c.d)).astype(c.dtype)
    still = c.replace(x=np.zeros(c.x.shape, c.dtype), w=eye.copy(), g=np.ones(c.x.shape, c.dtype))
    dx, dw = impl(still)
    expect.same(np.isin(dx, [0.0, 2.0**n]), np.ones(dx.shape, bool), "dx is 0 or 2^n")
    expect.same(dw, np.zeros(dw.shape), "dw")
    shorter = impl(still.replace(lengths=[1]))[0]
    expect.at_most(dx > 0, shorter > 0, "what a longer chain keeps")


@law(
    ID, "L5", dtypes=("float64",),
    given=space.where(cut=True, lengths=choose([1, 1], [2, 1]), rate=choose(0.5, 0.25)),
    kills=["fresh_dropout_every_call"], passes_null=["zeros"],
)  # fmt: skip
def linear_in_the_cotangent(impl, c, expect):
    "The same seed drops the same in every call: 2 g gives twice dx and dw, to the bit."
    once, twice = impl(c), impl(c.replace(g=2 * c.g))
    expect.same(twice[0], 2 * once[0], "dx")
    expect.same(twice[1], 2 * once[1], "dw")


# Mutants ---------------------------------------------------------------------------------------------


def case(lengths, L=3, x=None, **options):
    """The default-size test: four rows of four channels without dropout."""

    def make():
        r = np.random.default_rng(0)
        start = r.standard_normal((4, 4)) if x is None else np.full((4, 4), x)
        return (start, r.standard_normal((L, 4, 4)) / 2, r.standard_normal((4, 4)), lengths), options

    return make


def draw(seed, i, shape, rate):
    return (np.random.default_rng((seed, i)).random(shape) >= rate) / (1 - rate)


def recomputed(x, w, g, lengths, *, rate=0.0, seed=0, **edit):
    """Checkpointing by hand: `again` draws the masks of the second run, `source` is what it starts from."""
    mask = edit.get("mask", lambda i: draw(seed, i, x.shape, rate))
    again = edit.get("again", lambda i, start: mask(i))
    start, held = 0, []
    y = x
    for length in lengths:
        held.append((start, y))
        for i in range(start, start + length):
            y = mask(i) * np.tanh(y @ w[i % len(w)])
        start += length
    dw = np.zeros_like(w)
    for k in reversed(range(len(lengths))):
        start, y = held[k]
        second = k < len(lengths) - 1
        inputs, masks = [x if second and edit.get("from_the_start") else y], []
        for i in range(start, start + lengths[k]):
            masks.append(again(i, start) if second else mask(i))
            inputs.append(masks[-1] * np.tanh(inputs[-1] @ w[i % len(w)]))
        for j in reversed(range(lengths[k])):
            i = (start + j) % len(w)
            slope = 1 - np.tanh(inputs[j] @ w[i]) ** 2 if edit.get("slope", True) else 1.0
            ds = g * masks[j] * slope
            dw[i] = inputs[j].T @ ds + (dw[i] if edit.get("add", True) else 0)
            g = ds @ w[i].T
    return g.astype(x.dtype), dw.astype(w.dtype)


@mutant(ID, thread="OLMo-core#828, guided-diffusion#167", default_case=case([1, 2]))
def fresh_dropout_again(x, w, g, lengths, *, rate=0.0, seed=0):
    "The second run draws a mask of its own."
    return recomputed(
        x, w, g, lengths, rate=rate, seed=seed, again=lambda i, start: draw(seed + 1, i, x.shape, rate)
    )


@mutant(ID, default_case=case([1, 2]))
def fresh_dropout_every_call(x, w, g, lengths, *, rate=0.0, seed=0):
    "The seed is that of the process: runs of one call agree, calls do not."
    call = next(_calls)
    return recomputed(x, w, g, lengths, rate=rate, mask=lambda i: draw(call, i, x.shape, rate))


_calls = iter(range(1, 2**60))


@mutant(ID, default_case=case([1, 2]))
def one_mask_for_all_segments_again(x, w, g, lengths, *, rate=0.0, seed=0):
    "The second run counts its layers from the start of the segment."
    return recomputed(
        x, w, g, lengths, rate=rate, seed=seed, again=lambda i, start: draw(seed, i - start, x.shape, rate)
    )


@mutant(ID, default_case=case([1, 2]))
def only_the_last_use_counts(x, w, g, lengths, **options):
    "A shared weight's gradient is overwritten, not added to."
    return recomputed(x, w, g, lengths, add=False, **options)


@mutant(ID, default_case=case([2]))
def run_again_from_the_chains_input(x, w, g, lengths, **options):
    "Every segment is run again from the input of the chain."
    return recomputed(x, w, g, lengths, from_the_start=True, **options)


@mutant(ID, default_case=case([1, 2], x=0.0))
def slope_left_out(x, w, g, lengths, **options):
    "tanh' taken as 1: right at 0."
    return recomputed(x, w, g, lengths, slope=False, **options)


@mutant(ID, default_case=case([1, 2]))
def scaled_by_what_is_kept(x, w, g, lengths, *, rate=0.0, seed=0):
    "Divided by the share that this mask keeps, not by 1 - rate."
    def mask(i):
        keep = draw(seed, i, x.shape, rate) > 0
        return keep / max(float(np.mean(keep)), 1e-9) if keep.size else keep * 1.0

    return recomputed(x, w, g, lengths, rate=rate, seed=seed, mask=mask)
