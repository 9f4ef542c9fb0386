"""Laws and mutants of the fully visible sigmoid belief network."""

from __future__ import annotations

import numpy as np

from ref.density.common_laws import (
    WHOLE,
    autoregressive_flags,
    bits,
    cotangent,
    f64,
    later_bits_change_nothing,
    later_bits_have_no_slope,
    log_bernoulli,
    roundings,
    sigmoid,
    strings,
)
from ref.spec import law, mutant
from ref.spec.cases import batch, cases, dims

ID = "density.fvsbn"
space = cases(ID, B=batch(2, 3, large=60), n=dims(0, 5, large=60), x=bits, flags=autoregressive_flags())
some = space.where(some=True)


def logits_of(x, W, b):
    """Bit by bit, and what the terms sum up to in size."""
    z, size = np.zeros(x.shape), np.zeros(x.shape)
    for i in range(x.shape[-1]):
        z[..., i], size[..., i] = b[i], abs(b[i])
        for j in range(i):
            z[..., i] += W[i, j] * x[..., j]
            size[..., i] += abs(W[i, j]) * x[..., j]
    return z, size


def near(c, size):
    """n + 1 roundings of each logit's terms."""
    return roundings(c, c.n + 2, size)


def near_sum(c, size):
    return roundings(c, 2 * c.n + 14, (size + 1).sum(-1))


@law(
    ID, "L1", closed_form=True, given=space.where(n=dims(0, 9, large=12), B=()),
    kills=["mean_over_the_bits", "sees_all_others"],
)  # fmt: skip
def all_bit_strings_sum_to_one(impl, c, expect):
    "sum over all 2^n strings of p(x) = 1."
    x = strings(c.n, c.dtype)
    log_prob, _ = impl(c.replace(x=x, B=(2**c.n,)))
    p = np.exp(np.asarray(log_prob, np.float64))
    _, size = logits_of(x, *f64(c, "weight", "bias"))
    expect(p.sum(), 1.0, float(np.sum(p * near_sum(c, size))) + 1e-15 * 2**c.n, "sum of p")


@law(
    ID, "L2", closed_form=True, given=space.reach("rows", "no_bits"),
    kills=["diagonal_included", "sees_later_bits", "weight_transposed", "bias_forgotten", "mean_over_the_bits",
           "summed_in_float32"],
)  # fmt: skip
def logits_read_the_bits_before(impl, c, expect):
    "l_i = b_i + sum_{j < i} W_ij x_j, bit by bit, W in thirds, and log p = sum_i x_i l_i - log(1 + e^{l_i})."
    c = c.replace(weight=c.weight / c.dtype.type(3))
    x, W, b = f64(c, "x", "weight", "bias")
    z, size = logits_of(x, W, b)
    log_prob, logits = impl(c)
    expect(logits, z, near(c, size), "logits", scale=1 + float(np.max(size, initial=0)))
    wanted = log_bernoulli(x, z).sum(-1)
    expect(log_prob, wanted, near_sum(c, size), "log p", scale=float(np.max((size + 1).sum(-1), initial=0)))


@law(
    ID, "L3", closed_form=True, given=some.reach("rows"), kills=["diagonal_included", "sees_later_bits"],
    passes_null=["zeros", "constant"],
)  # fmt: skip
def later_bits_are_invisible(impl, c, expect):
    "Turning bit j leaves the logits up to j, to the bit."
    later_bits_change_nothing(impl, c, expect)


@law(
    ID, "L7", closed_form=True, needs=("vjp",), given=some.reach("rows"), kills=["gradient_sees_its_own_bit"],
    passes_null=["zeros"],
)  # fmt: skip
def itself_and_later_bits_have_no_slope(impl, c, expect):
    "d l_i / d x_j = 0 for j >= i, exactly."
    later_bits_have_no_slope(impl, c, expect)


@law(
    ID, "L4", given=some.reach("rows"), kills=["diagonal_included", "sees_later_bits", "masked_by_multiplying"],
    passes_null=["zeros", "constant", "identity"],
)  # fmt: skip
def what_is_above_the_diagonal_is_immaterial(impl, c, expect):
    "Other numbers, infinities or NaN on or above the diagonal of W change no bit of the output."
    log_prob, logits = impl(c)
    for junk in (7.0, np.inf, np.nan):
        W = np.where(np.tril(np.ones((c.n, c.n), bool), -1), c.weight, c.dtype.type(junk))
        again = impl(c.replace(weight=W))
        expect.same(again[0], log_prob, f"log p with {junk} above")
        expect.same(again[1], logits, f"logits with {junk} above")


@law(ID, "L5", closed_form=True, given=space.reach("rows"), kills=["bias_forgotten"])
def no_weights_are_independent_bits(impl, c, expect):
    "W = 0: log p = sum_i log sigma(b_i) or log sigma(-b_i)."
    x, b = f64(c, "x", "bias")
    log_prob, logits = impl(c.replace(weight=np.zeros_like(c.weight)))
    p = sigmoid(b)
    wanted = np.sum(np.where(x == 1, np.log(p), np.log(1 - p)), -1)
    size = np.abs(b) + np.zeros(x.shape)
    expect(log_prob, wanted, near_sum(c, size), "log p")
    expect.same(logits, np.broadcast_to(c.bias, c.x.shape), "logits")


@law(
    ID, "L6", closed_form=True, needs=("vjp",), given=some.reach("rows"), dtypes=WHOLE,
    kills=["gradient_not_masked", "gradient_of_the_loss"],
)  # fmt: skip
def gradient_is_the_closed_form(impl, c, expect):
    "d log p / d W_ij = (x_i - sigma(l_i)) x_j below the diagonal, exactly 0 elsewhere; d / d b_i = x_i - sigma(l_i)."
    x, W, b = f64(c, "x", "weight", "bias")
    g = cotangent(c, c.B)
    z, size = logits_of(x, W, b)
    surprise = (g.astype(np.float64)[..., None] * (x - sigmoid(z))).reshape(-1, c.n)
    rows = x.reshape(-1, c.n)
    found = impl.vjp(c, (g, np.zeros(c.x.shape, c.dtype)))
    limit = roundings(c, len(rows) + 2 * c.n + 20, len(rows) * (1 + np.max(size)))
    expect(found["weight"], np.tril(surprise.T @ rows, -1), limit * np.ones((c.n, c.n)), "d weight", scale=len(rows))
    expect(found["bias"], surprise.sum(0), limit * np.ones(c.n), "d bias", scale=len(rows))
    upper = np.triu(np.ones((c.n, c.n), bool))
    expect.same(found["weight"][upper], np.zeros(upper.sum()), "d weight on and above the diagonal")


# Mutants ---------------------------------------------------------------------------------------------


def default(n=3):
    """The default-size test: no weights yet."""
    return lambda: ((np.eye(3, n), np.zeros((n, n)), np.linspace(-1, 1, n)), {})


def scored(x, weight, bias, read=lambda W: np.tril(W, -1).T, total=lambda a: a.sum(-1)):
    z = x @ read(weight) + bias
    return total(log_bernoulli(x, z)).astype(x.dtype), z.astype(x.dtype)


@mutant(ID, default_case=default())
def diagonal_included(x, weight, bias):
    "A bit reads itself: >= for >."
    return scored(x, weight, bias, lambda W: np.tril(W).T)


@mutant(ID, default_case=default())
def sees_later_bits(x, weight, bias):
    "The triangle above: a lawful model of the reverse order."
    return scored(x, weight, bias, lambda W: np.triu(W, 1).T)


@mutant(ID, default_case=default())
def sees_all_others(x, weight, bias):
    "Everything but the diagonal: a pseudo-likelihood, which does not sum to 1."
    return scored(x, weight, bias, lambda W: (W - np.diag(np.diag(W))).T)


@mutant(ID, default_case=default())
def weight_transposed(x, weight, bias):
    "Columns for rows: what bit i writes."
    return scored(x, weight, bias, lambda W: np.tril(W.T, -1).T)


@mutant(ID, default_case=default())
def masked_by_multiplying(x, weight, bias):
    "W times a mask: an infinity above the diagonal is 0 times infinity."
    return scored(x, weight, bias, lambda W: (W * np.tril(np.ones_like(W), -1)).T)


@mutant(ID, default_case=lambda: ((np.eye(3), np.zeros((3, 3)), np.zeros(3)), {}))
def bias_forgotten(x, weight, bias):
    "No bias."
    return scored(x, weight, 0 * bias)


@mutant(ID, default_case=default())
def summed_in_float32(x, weight, bias):
    "The product in float32 whatever arrives."
    return scored(x, weight, bias, lambda W: np.tril(W, -1).T.astype(np.float32).astype(W.dtype))


@mutant(ID, default_case=default(n=1))
def mean_over_the_bits(x, weight, bias):
    "The mean, not the sum: one bit does not tell."
    return scored(x, weight, bias, total=lambda a: a.sum(-1) / max(a.shape[-1], 1))


def _vjp_mutant(name, doc, of_weight, of_x=lambda W: np.tril(W, -1)):
    def function(x, weight, bias):
        return scored(x, weight, bias)

    def vjp(g, x, weight, bias):
        z = x @ np.tril(weight, -1).T + bias
        to_z = g[0][..., None] * (x - sigmoid(z)) + g[1]
        rows, flat = x.reshape(-1, x.shape[-1]), to_z.reshape(-1, x.shape[-1])
        dx = g[0][..., None] * z + to_z @ of_x(weight)
        return {"x": dx.astype(x.dtype), "weight": of_weight(flat.T @ rows).astype(x.dtype),
                "bias": flat.sum(0).astype(x.dtype)}  # fmt: skip

    function.__name__, function.__doc__ = name, doc
    mutant(ID, vjp=vjp, default_case=default())(function)


_vjp_mutant("gradient_not_masked", "Weights are masked forward, their gradient is not.", lambda a: a)
_vjp_mutant("gradient_of_the_loss", "The sign of the negative log-likelihood.", lambda a: -np.tril(a, -1))
_vjp_mutant("gradient_sees_its_own_bit", "The backward reads the diagonal too.", lambda a: np.tril(a, -1), np.tril)
