"""Laws and mutants of MADE."""

from __future__ import annotations

import numpy as np

from ref.density.common_laws import (
    WHOLE,
    autoregressive_flags,
    bits,
    cotangent,
    degree_fields,
    degree_flags,
    later_bits_change_nothing,
    later_bits_have_no_slope,
    log_bernoulli,
    roundings,
    sigmoid,
    strings,
)
from ref.density.made import parameter_shapes
from ref.spec import law, mutant
from ref.spec.cases import batch, cases, dims, rng

ID = "density.made"


def draw_params(draw, c):
    g = rng(draw)
    return {name: np.clip(np.round(g.standard_normal(shape) * 16), -48, 48) / 16
            for name, shape in parameter_shapes(c.degrees).items()}  # fmt: skip


space = cases(
    ID,
    B=batch(2, 3, large=60),
    **degree_fields(),
    x=bits,
    params=draw_params,
    flags={**degree_flags(), **autoregressive_flags()},
)
some = space.where(some=True)


def place(c):
    return np.asarray(c.degrees[0])


def open_weight(degrees, level, k, j):
    """Whether unit k of layer `level` may read unit j of the one before: said again, from the degrees."""
    last = level == len(degrees) - 1
    reads = int(degrees[0][k]) - 1 if last else int(degrees[level + 1][k])
    return int(degrees[level][j]) <= reads


def slow(x, params, degrees, total=False):
    """(log p, logits, hidden layers), a unit and a weight at a time; `total` sums absolute values."""
    h, layers = np.asarray(x), []
    for level in range(len(degrees)):
        W, b = (params[f"layers.{level}.{name}"] for name in ("weight", "bias"))
        W, b = (np.abs(W), np.abs(b)) if total else (W, b)
        z = np.zeros((*x.shape[:-1], len(b)), np.result_type(W, np.float64))
        for k in range(len(b)):
            z[..., k] = b[k]
            for j in range(h.shape[-1]):
                if open_weight(degrees, level, k, j):
                    z[..., k] += W[k, j] * h[..., j]
        h = z if level == len(degrees) - 1 else np.maximum(z, 0)
        layers.append(z)
    return log_bernoulli(x, h).sum(-1), h, layers


def params64(c):
    return {n: np.asarray(a, np.float64) for n, a in c.params.items()}


def sizes(c, x):
    """What the terms of each logit sum up to in size."""
    return slow(x, params64(c), c.degrees, total=True)[1]


def depth(c):
    return sum(len(d) for d in c.degrees) + 2 * len(c.degrees)


@law(
    ID, "L1", closed_form=True, given=space.where(n=dims(1, 7), B=()).reach("deep", "permuted"),
    kills=["at_least_at_the_end", "not_masked", "mean_over_the_bits"],
)  # fmt: skip
def all_bit_strings_sum_to_one(impl, c, expect):
    "sum over all 2^n strings of p(x) = 1."
    x = strings(c.n, c.dtype)
    p = np.exp(np.asarray(impl(c.replace(x=x, B=(2**c.n,)))[0], np.float64))
    size = (sizes(c, x) + 1).sum(-1)
    expect(p.sum(), 1.0, float(np.max(roundings(c, depth(c) + c.n + 14, size))) + 1e-15 * 2**c.n, "sum of p", scale=1.0)


@law(
    ID, "L2", closed_form=True, given=space.reach("deep", "permuted", "flat", "rows"),
    kills=["at_least_at_the_end", "above_within", "order_ignored", "masked_at_the_end_alone", "relu_at_the_end",
           "no_hidden_bias", "mean_over_the_bits", "not_masked"],
)  # fmt: skip
def sums_over_open_weights_alone(impl, c, expect):
    "Layer by layer and weight by weight, in thirds: only those that the degrees leave open."
    c = c.replace(params={n: a / c.dtype.type(3) for n, a in c.params.items()})
    x = np.asarray(c.x, np.float64)
    log_prob, logits = impl(c)
    wanted, z, _ = slow(x, params64(c), c.degrees)
    size = sizes(c, x)
    expect(logits, z, roundings(c, depth(c), size), "logits", scale=1 + float(np.max(size, initial=0)))
    limit = roundings(c, depth(c) + c.n + 14, (size + 1).sum(-1))
    expect(log_prob, wanted, limit, "log p", scale=float(np.max((size + 1).sum(-1), initial=0)))


@law(
    ID, "L3", closed_form=True, given=some.reach("rows", "permuted"), kills=["at_least_at_the_end", "not_masked"],
    passes_null=["zeros", "constant"],
)  # fmt: skip
def later_bits_are_invisible(impl, c, expect):
    "Turning bit j leaves the logits of the bits up to j in the order, to the bit."
    later_bits_change_nothing(impl, c, expect, place(c))


@law(
    ID, "L8", closed_form=True, needs=("vjp",), given=some.reach("rows", "permuted"),
    kills=["gradient_through_closed_weights"], passes_null=["zeros"],
)  # fmt: skip
def itself_and_later_bits_have_no_slope(impl, c, expect):
    "d l_i / d x_j = 0 exactly for j = i and every j later in the order."
    later_bits_have_no_slope(impl, c, expect, place(c))


@law(
    ID, "L4", given=some.reach("deep", "flat"), kills=["masked_at_the_end_alone", "masked_by_multiplying"],
    passes_null=["zeros", "constant", "identity"],
)  # fmt: skip
def masked_weights_are_immaterial(impl, c, expect):
    "Other numbers or NaN in closed weights change no bit of the output."
    log_prob, logits = impl(c)
    for junk in (5.0, np.nan):
        params = dict(c.params)
        for level in range(len(c.degrees)):
            W = params[f"layers.{level}.weight"].copy()
            for k, j in np.ndindex(W.shape):
                W[k, j] = W[k, j] if open_weight(c.degrees, level, k, j) else junk
            params[f"layers.{level}.weight"] = W
        again = impl(c.replace(params=params))
        expect.same(again[0], log_prob, f"log p with {junk} in closed weights")
        expect.same(again[1], logits, f"logits with {junk} in closed weights")


@law(
    ID, "L5", closed_form=True, given=space.where(flat=True).reach("rows"),
    kills=["at_least_at_the_end", "order_ignored", "relu_at_the_end"],
)  # fmt: skip
def no_hidden_layer_is_a_chain_of_logistic_regressions(impl, c, expect):
    "No hidden layer: l_d = c_d + sum over d' before d of V_dd' x_d'."
    x, p = np.asarray(c.x, np.float64), params64(c)
    before = place(c)[:, None] > place(c)[None, :]
    wanted = x @ (p["layers.0.weight"] * before).T + p["layers.0.bias"]
    size = sizes(c, x)
    expect(impl(c)[1], wanted, roundings(c, c.n + 2, size), "logits", scale=1 + float(np.max(size, initial=0)))


@law(
    ID, "L6", given=some.where(n=dims(2, 5)).reach("permuted"), dtypes=WHOLE, kills=["order_ignored"],
    passes_null=["zeros", "constant"],
)  # fmt: skip
def renamed_inputs(impl, c, expect):
    "Inputs renumbered, with their degrees, weights and bits: the same log p, the logits renumbered."
    new = np.roll(np.arange(c.n), 1)
    last = len(c.degrees) - 1
    params = dict(c.params)
    params["layers.0.weight"] = params["layers.0.weight"][:, new]
    params[f"layers.{last}.weight"] = params[f"layers.{last}.weight"][new]
    params[f"layers.{last}.bias"] = params[f"layers.{last}.bias"][new]
    moved = c.replace(x=c.x[..., new].copy(), params=params, degrees=(c.degrees[0][new], *c.degrees[1:]))
    size = sizes(c, np.asarray(c.x, np.float64))
    log_prob, logits = impl(c)
    again = impl(moved)
    limit = roundings(c, 2 * depth(c), size)
    expect(again[1], logits[..., new], limit[..., new], "logits", scale=1 + float(np.max(size)))
    most = (size + 1).sum(-1)
    expect(again[0], log_prob, roundings(c, 2 * depth(c) + 30, most), "log p", scale=float(np.max(most)))


@law(
    ID, "L7", closed_form=True, needs=("vjp",), given=some.reach("deep", "flat", "rows"), dtypes=WHOLE,
    kills=["gradient_not_masked", "gradient_through_closed_units", "gradient_of_the_loss"],
)  # fmt: skip
def gradient_by_hand(impl, c, expect):
    "Back-propagation over open weights: delta^L = x - sigma(l), delta^{l-1} = (W^l * M^l)^T delta^l where h > 0."
    g = cotangent(c, c.B)
    x, p = np.asarray(c.x, np.float64).reshape(-1, c.n), params64(c)
    _, z, layers = slow(x, p, c.degrees)
    delta = g.astype(np.float64).reshape(-1, 1) * (x - sigmoid(z))
    found = impl.vjp(c, (g, np.zeros(c.x.shape, c.dtype)))["params"]
    most = float(np.max(sizes(c, x))) + 1
    for level in reversed(range(len(c.degrees))):
        below = x if level == 0 else np.maximum(layers[level - 1], 0)
        W = p[f"layers.{level}.weight"]
        keep = np.array([[open_weight(c.degrees, level, k, j) for j in range(W.shape[1])] for k in range(W.shape[0])])
        keep = keep.reshape(W.shape)
        wanted = (delta.T @ below) * keep
        limit = roundings(c, 4 * depth(c) + len(x) + 40, len(x) * most * (1 + np.abs(wanted)))
        expect(found[f"layers.{level}.weight"], wanted, limit, f"d weight {level}", scale=len(x) * most)
        expect.same(found[f"layers.{level}.weight"][~keep], np.zeros((~keep).sum()), f"closed weights of layer {level}")
        expect(found[f"layers.{level}.bias"], delta.sum(0), limit.max(1, initial=1e-9), f"d bias {level}",
               scale=len(x) * most)  # fmt: skip
        if level:
            delta = (delta @ (W * keep)) * (layers[level - 1] > 0)


# Mutants ---------------------------------------------------------------------------------------------


def default(*, zero_last=True, zero_hidden_bias=True, n=3, widths=(4,)):
    """The default-size test: a fresh model, whose last weights and biases are zero."""

    def make():
        g = np.random.default_rng(0)
        degrees = (np.arange(1, n + 1), *(np.arange(w) % max(n - 1, 1) + 1 for w in widths))
        params = {k: g.standard_normal(s) for k, s in parameter_shapes(degrees).items()}
        last = f"layers.{len(widths)}"
        if zero_last:
            params |= {k: np.zeros_like(a) for k, a in params.items() if k == f"{last}.weight"}
        if zero_hidden_bias:
            params |= {k: np.zeros_like(a) for k, a in params.items() if k.endswith("bias") and not k.startswith(last)}
        params[f"{last}.bias"] = np.abs(params[f"{last}.bias"])
        return (np.eye(3, n), params, degrees), {}

    return make


def scored(x, params, degrees, *, end=np.greater, within=np.greater_equal, only_end=False, none=False, place=None,
           last=lambda z: z, bias=True, weigh=np.where, total=lambda t: t.sum(-1)):  # fmt: skip
    degrees = [np.asarray(d) for d in degrees]
    degrees[0] = degrees[0] if place is None else place(degrees[0])
    h, L = x, len(degrees)
    for level in range(L):
        keep = (end(degrees[0][:, None], degrees[-1][None]) if level == L - 1
                else within(degrees[level + 1][:, None], degrees[level][None]))  # fmt: skip
        keep = np.ones_like(keep) if none or (only_end and level < L - 1) else keep
        W, b = params[f"layers.{level}.weight"], params[f"layers.{level}.bias"]
        z = h @ weigh(keep, W, 0).T + (b if bias or level == L - 1 else 0)
        h = last(z) if level == L - 1 else np.maximum(z, 0)
    return total(log_bernoulli(x, h)).astype(x.dtype), h.astype(x.dtype)


@mutant(ID, default_case=default())
def at_least_at_the_end(x, params, degrees):
    ">= for > into the output: a bit sees itself."
    return scored(x, params, degrees, end=np.greater_equal)


@mutant(ID, default_case=default())
def above_within(x, params, degrees):
    "> for >= into hidden layers: units of degree 1 read nothing."
    return scored(x, params, degrees, within=np.greater)


@mutant(ID, default_case=default(zero_last=False))
def order_ignored(x, params, degrees):
    "The inputs in the order of their numbers."
    return scored(x, params, degrees, place=lambda d: np.arange(1, len(d) + 1))


@mutant(ID, default_case=default())
def masked_at_the_end_alone(x, params, degrees):
    "Hidden layers read everything."
    return scored(x, params, degrees, only_end=True)


@mutant(ID, default_case=default())
def not_masked(x, params, degrees):
    "A plain autoencoder."
    return scored(x, params, degrees, none=True)


@mutant(ID, default_case=default(zero_last=False))
def masked_by_multiplying(x, params, degrees):
    "W times the mask: NaN in a closed weight is NaN."
    return scored(x, params, degrees, weigh=lambda keep, W, _: W * keep)


@mutant(ID, default_case=default())
def relu_at_the_end(x, params, degrees):
    "Logits that are never negative."
    return scored(x, params, degrees, last=lambda z: np.maximum(z, 0))


@mutant(ID, default_case=default(zero_last=False))
def no_hidden_bias(x, params, degrees):
    "Biases at the output alone: they start at zero."
    return scored(x, params, degrees, bias=False)


@mutant(ID, default_case=default(n=1, widths=(2,)))
def mean_over_the_bits(x, params, degrees):
    "The mean, not the sum: one bit does not tell."
    return scored(x, params, degrees, total=lambda t: t.sum(-1) / t.shape[-1])


def _vjp_mutant(name, doc, *, masked=True, gate=True, sign=1, closed=False):
    def function(x, params, degrees):
        return scored(x, params, degrees)

    def vjp(g, x, params, degrees):
        flat = x.reshape(-1, x.shape[-1])
        _, z, layers = slow(flat, params, degrees)
        delta = sign * g[0].reshape(-1, 1) * (flat - sigmoid(z)) + g[1].reshape(flat.shape)
        out = {}
        for level in reversed(range(len(degrees))):
            below = flat if level == 0 else np.maximum(layers[level - 1], 0)
            W = params[f"layers.{level}.weight"]
            keep = np.array([[open_weight(degrees, level, k, j) for j in range(W.shape[1])] for k in range(len(W))])
            keep = keep.reshape(W.shape)
            out[f"layers.{level}.weight"] = (delta.T @ below) * (keep if masked else 1)
            out[f"layers.{level}.bias"] = delta.sum(0)
            delta = delta @ (W if closed else W * keep)
            delta = delta * (layers[level - 1] > 0) if level and gate else delta
        dx = (delta + g[0].reshape(-1, 1) * z).reshape(x.shape)
        return {"x": dx.astype(x.dtype), "params": {k: out[k].astype(x.dtype) for k in params}}

    function.__name__, function.__doc__ = name, doc
    mutant(ID, vjp=vjp, default_case=default())(function)


_vjp_mutant("gradient_not_masked", "Closed weights get a gradient, and weight decay or Adam moves them.", masked=False)
_vjp_mutant("gradient_through_closed_units", "The backward of relu lets everything pass.", gate=False)
_vjp_mutant("gradient_of_the_loss", "The sign of the negative log-likelihood.", sign=-1)
_vjp_mutant("gradient_through_closed_weights", "The backward reads the whole matrices.", closed=True)
