"""Laws and mutants of independent bits."""

from __future__ import annotations

import numpy as np

from ref.density.common_laws import bits, cotangent, f64, log_bernoulli, roundings, sigmoid, size_of, strings
from ref.spec import law, mutant
from ref.spec.cases import Flag, batch, cases, dims

ID = "density.bernoulli"
space = cases(
    ID,
    B=batch(2, 3, large=80),
    n=dims(0, 6, large=300),
    x=bits,
    flags={
        "no_bits": Flag(lambda c: c.n == 0, {"n": 0}),
        "rows": Flag(lambda c: len(c.B) == 2 and min(c.B) > 1 and c.n > 1, {"B": (2, 3), "n": dims(2, 6)}),
        "some": Flag(lambda c: c.n > 0 and 0 not in c.B, {"n": dims(1, 6), "B": (2,)}),
    },
)
some = space.where(some=True)


def near(c, x, z):
    """n + 12 roundings of the terms: a product, an exponential and a logarithm each, and the sum."""
    return roundings(c, c.n + 12, size_of(x, z))


@law(ID, "L1", closed_form=True, given=space.where(n=dims(0, 8), B=()), kills=["mean_over_the_bits", "one_is_zero_too"])
def all_bit_strings_sum_to_one(impl, c, expect):
    "sum over all 2^n strings of e^{log p} = 1, whatever the logits are."
    x, (z,) = strings(c.n, c.dtype), f64(c, "logits")
    wide = np.broadcast_to(c.logits, x.shape).copy()
    p = np.exp(np.asarray(impl(c.replace(x=x, logits=wide, B=(2**c.n,))), np.float64))
    expect(p.sum(), 1.0, float(np.sum(p * near(c, x, z))) + 1e-15 * 2**c.n, "sum of p")


@law(
    ID, "L2", closed_form=True, given=space.reach("no_bits", "rows"), kills=["mean_over_the_bits", "sum_over_the_batch"]
)
def a_fair_coin_costs_log_two(impl, c, expect):
    "l = 0: log p = -n log 2 for every string."
    c = c.replace(logits=np.zeros_like(c.logits))
    wanted = np.full(c.B, -c.n * np.log(2.0))
    expect(impl(c), wanted, roundings(c, c.n + 12, wanted))


@law(
    ID, "L3", closed_form=True, given=some, kills=["log_of_the_probability", "clipped_at_1e_7", "logits_negated"],
)  # fmt: skip
def a_far_logit_costs_itself(impl, c, expect):
    "l_i = +-a, a = 1000: each wrong bit costs a nats, each right one e^{-a}, which is nothing."
    sign = np.where(np.arange(c.n) % 2 == 0, 1.0, -1.0)
    c = c.replace(logits=np.broadcast_to(1000 * sign, c.x.shape).astype(c.dtype))
    wrong = (c.x != (sign > 0)).sum(-1)
    expect(impl(c), -1000.0 * wrong, roundings(c, c.n + 2, np.full(c.B, 1000.0 * c.n)), scale=1000.0)


@law(ID, "L4", given=some.where(n=dims(2, 6)), kills=["mean_over_the_bits"], passes_null=["zeros"])
def strings_joined_add_up(impl, c, expect):
    "log p of a string is the sum of the log p of its two parts."
    k = c.n // 2
    first, second = (c.replace(x=c.x[..., s].copy(), logits=c.logits[..., s].copy(), n=0)
                     for s in (slice(k), slice(k, None)))  # fmt: skip
    x, z = f64(c, "x", "logits")
    expect(impl(c), impl(first).astype(np.float64) + impl(second), 2 * near(c, x, z), scale=np.max(size_of(x, z)))


@law(
    ID, "L5", closed_form=True, needs=("vjp",), given=space.reach("rows"),
    kills=["gradient_of_the_loss", "gradient_is_the_probability"],
)  # fmt: skip
def gradient_is_the_surprise(impl, c, expect):
    "d log p / d l_i = x_i - sigma(l_i)."
    x, z = f64(c, "x", "logits")
    g = cotangent(c, c.B)
    wanted = g.astype(np.float64)[..., None] * (x - sigmoid(z))
    expect(
        impl.vjp(c, g)["logits"], wanted, roundings(c, 16, np.broadcast_to(np.abs(g)[..., None], x.shape)), scale=1.0
    )


# Mutants ---------------------------------------------------------------------------------------------


def default(n=1, logit=1.5):
    """The default-size test: one bit, which is 1."""
    return lambda: ((np.ones((3, n)), np.full((3, n), logit)), {})


@mutant(ID, default_case=default())
def mean_over_the_bits(x, logits):
    "The mean, not the sum: one bit does not tell."
    return (log_bernoulli(x, logits).sum(-1) / max(x.shape[-1], 1)).astype(x.dtype)


@mutant(ID, default_case=lambda: ((np.ones(1), np.ones(1)), {}))
def sum_over_the_batch(x, logits):
    "One number for the whole batch, spread over it."
    return np.full(x.shape[:-1], log_bernoulli(x, logits).sum(), x.dtype)


@mutant(ID, default_case=default())
def one_is_zero_too(x, logits):
    "Only the bits that are 1 are scored, as in a multinomial model."
    return (x * log_bernoulli(x, logits)).sum(-1).astype(x.dtype)


@mutant(ID, default_case=default())
def log_of_the_probability(x, logits):
    "log of sigma(l), which underflows to log 0."
    p = sigmoid(logits)
    return np.where(x == 1, np.log(p), np.log(1 - p)).sum(-1).astype(x.dtype)


@mutant(ID, default_case=default())
def clipped_at_1e_7(x, logits):
    "Probabilities kept within [1e-7, 1 - 1e-7], as Keras does."
    p = np.clip(sigmoid(logits), 1e-7, 1 - 1e-7)
    return np.where(x == 1, np.log(p), np.log(1 - p)).sum(-1).astype(x.dtype)


@mutant(ID, default_case=default(logit=0.0))
def logits_negated(x, logits):
    "The logit of a zero taken for that of a one."
    return log_bernoulli(x, -logits).sum(-1).astype(x.dtype)


def _vjp_mutant(name, doc, of_logits):
    def function(x, logits):
        return log_bernoulli(x, logits).sum(-1).astype(x.dtype)

    def vjp(g, x, logits):
        return {"logits": (g[..., None] * of_logits(x, sigmoid(logits))).astype(x.dtype)}

    function.__name__, function.__doc__ = name, doc
    mutant(ID, vjp=vjp, default_case=default())(function)


_vjp_mutant("gradient_of_the_loss", "sigma(l) - x, of the negative log-likelihood.", lambda x, p: p - x)
_vjp_mutant("gradient_is_the_probability", "(x - p) p (1 - p): the sigmoid's slope once too often.",
            lambda x, p: (x - p) * p * (1 - p))  # fmt: skip
