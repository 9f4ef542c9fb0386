"""Laws and mutants of importance ratios."""

from __future__ import annotations

import itertools
import math

import numpy as np

from ref.rl.common_laws import JUNK, dyadics
from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, batch, cases, choose, dims, rng

ID = "rl.importance_ratio"


def _mask(draw, c):
    mask = rng(draw).random((*c.B, c.T)) < 0.6
    if c.level == "sequence":
        mask[..., 0] = True
    return mask


space = cases(
    ID, B=batch(2, 3, large=6), T=dims(1, 5, large=40), level=choose("token", "sequence", "product"), mask=_mask,
    log_probs=dyadics("*B T", -2, 0), old_log_probs=dyadics("*B T", -2, 0),
    flags={
        "some": Flag(lambda c: 0 not in c.B, {"B": choose((1,), (2,), (2, 3))}),
        "masked": Flag(lambda c: not np.all(c.mask), {"B": choose((2,), (2, 3)), "T": dims(2, 5)}),
    },
)  # fmt: skip


def definition(c):
    """The ratios, token by token: powers of products of quotients of probabilities."""
    out = np.zeros(c.mask.shape)
    for at in np.ndindex(*c.mask.shape[:-1]):
        kept = c.mask[at]
        own = [math.exp(float(a) - float(b)) for a, b in zip(c.log_probs[at][kept], c.old_log_probs[at][kept],
                                                             strict=True)]  # fmt: skip
        product = math.prod(own)
        out[at][kept] = own if c.level == "token" else product if c.level == "product" else product ** (1 / len(own))
    return out


def limit(c, ratios):
    """The sum of T gaps, each rounded, is off by T u 2 T in the exponent."""
    T = c.mask.shape[-1]
    return bounds.rounding(16 + 4 * T + T * T, ratios, c.dtype)


@law(ID, "L1", closed_form=True, given=space.reach("some", "masked"),
     kills=["inverted", "not_normalised_by_length", "mean_over_the_width", "mean_of_the_ratios",
     "one_where_masked"])  # fmt: skip
def ratios_by_their_definition(impl, c, expect):
    "rho_t, their product, or its n-th root, by powers of quotients; 0, exactly, where masked."
    wanted = definition(c)
    found = impl(c)
    expect(found, wanted, limit(c, wanted), scale=max(1.0, float(np.max(wanted, initial=0))))
    expect.same(found[~c.mask], np.zeros(int((~c.mask).sum())), "masked")


@law(ID, "L2", given=space.where(some=True), kills=["not_normalised_by_length", "mean_of_the_ratios"],
     passes_null=["zeros", "constant", "identity"])  # fmt: skip
def token_ratios_multiply_to_the_product(impl, c, expect):
    "The kept token ratios of a row multiply to its product, and that is the n-th power of its sequence ratio."
    mask = c.mask.copy()
    mask[..., 0] = True
    rho, s, product = (np.asarray(impl(c.replace(mask=mask, level=k)), np.float64)
                       for k in ("token", "sequence", "product"))  # fmt: skip
    n = mask.sum(-1)
    top = product.max(-1)
    both = 2 * limit(c, top)
    expect(np.prod(np.where(mask, rho, 1), axis=-1), top, both, "product of the tokens", scale=float(top.max()))
    expect(s.max(-1) ** n, top, both * c.T, "n-th power of the sequence ratio", scale=float(top.max()))


@law(ID, "L3", closed_form=True, given=space.where(B=(1,), T=dims(1, 3), level=choose("token", "product")),
     kills=["inverted", "mean_of_the_ratios"])  # fmt: skip
def expectation_under_the_old_policy(impl, c, expect):
    """Two policies over V = 2 at each of T places, independent: over all 2^T responses E_old[ratio] = 1 and
    E_old[product f(y)] = E_pi[f(y)] for f = the number of ones."""
    p, q = (1 / (1 + np.exp(np.asarray(x, np.float64)[0])) for x in (c.log_probs, c.old_log_probs))
    ys = np.array(list(itertools.product((0, 1), repeat=c.T)))
    lp, old = (np.log(np.where(ys == 1, r, 1 - r)) for r in (p, q))
    now = c.replace(log_probs=lp.astype(c.dtype), old_log_probs=old.astype(c.dtype), mask=np.ones(ys.shape, bool),
                    B=(len(ys),))  # fmt: skip
    found = np.asarray(impl(now), np.float64)
    pi_old, pi = np.exp(old.sum(-1)), np.exp(lp.sum(-1))
    bound = limit(now, np.max(np.exp((lp - old).sum(-1))) * c.T) * 8
    expect(pi_old @ found, np.ones(c.T), bound, "E_old ratio")
    if c.level == "product":
        expect(pi_old @ (found[:, 0] * ys.sum(-1)), np.array(pi @ ys.sum(-1)), bound, "E_old[product f]", scale=1.0)


@law(ID, "L4", needs=("vjp",), given=space.where(masked=True), kills=["masked_by_multiplying"],
     passes_null=["zeros", "constant"])  # fmt: skip
def masked_junk_is_invisible(impl, c, expect):
    "NaN, inf and 1e30 in masked slots change no bit, neither of the ratios nor of the gradient."
    junk = JUNK[np.arange(c.mask.size) % 4].reshape(c.mask.shape).astype(c.dtype)
    other = c.replace(**{n: np.where(c.mask, c[n], junk) for n in ("log_probs", "old_log_probs")})
    g = np.cos(np.arange(c.mask.size)).reshape(c.mask.shape).astype(c.dtype)
    expect.same(impl(other), impl(c))
    expect.same(impl.vjp(other, g)["log_probs"], impl.vjp(c, g)["log_probs"], "d log pi")


@law(ID, "L5", closed_form=True, needs=("vjp",), given=space.where(some=True).reach("masked"),
     kills=["gradient_is_one", "gradient_of_the_product"])  # fmt: skip
def gradient_is_the_ratio(impl, c, expect):
    """d rho_t = rho_t d log pi_t; of the product, the product times each token's; of the n-th root, the root over n."""
    g = np.cos(1.0 + np.arange(c.mask.size)).reshape(c.mask.shape).astype(c.dtype)
    r, n = definition(c), np.maximum(np.sum(c.mask, -1, keepdims=True), 1)
    row = np.sum(np.where(c.mask, g, 0).astype(np.float64) * r, axis=-1, keepdims=True)
    size = np.sum(np.where(c.mask, np.abs(g), 0) * r, axis=-1, keepdims=True)
    wanted = {"token": g * r, "sequence": row / n, "product": row}[c.level] * c.mask
    size = {"token": np.abs(g) * r, "sequence": size / n, "product": size}[c.level] * np.ones(c.mask.shape)
    found = impl.vjp(c, g)["log_probs"]
    expect(found, wanted, limit(c, size) * 2, "d log pi", scale=max(1.0, float(np.max(size, initial=0))))


# Mutants ---------------------------------------------------------------------------------------------


def one_token(level="token", T=1, same=False):
    """The default-size test: responses of one token, or the same policy twice."""
    g = np.random.default_rng(0)
    lp = -np.abs(g.standard_normal((3, T)))
    return lambda: ((lp, lp.copy() if same else lp - 0.5, np.ones((3, T), bool)), {"level": level})


def ratio(log_probs, old_log_probs, mask, *, level, **edit):
    gap = edit.get("hide", lambda x, m: np.where(m, x, 0))(log_probs - old_log_probs, mask)
    if level != "token":
        n = edit.get("n", lambda m: np.maximum(m.sum(-1, keepdims=True), 1))(mask) if level == "sequence" else 1
        gap = np.broadcast_to(gap.sum(-1, keepdims=True) / n, mask.shape)
    r = edit.get("last", lambda r, *a: r)(np.exp(gap), log_probs, old_log_probs, mask, level)
    return edit.get("show", lambda r, m: np.where(m, r, 0))(r, mask).astype(log_probs.dtype)


def _vjp(g, log_probs, old_log_probs, mask, *, level, token=lambda g, r: g * r, by_length=True, hide=np.where):
    r = ratio(log_probs, old_log_probs, mask, level=level, **({} if hide is np.where else {"hide": np.multiply}))
    d = token(np.where(mask, g, 0), r)
    if level != "token":
        n = np.maximum(mask.sum(-1, keepdims=True), 1) if level == "sequence" and by_length else 1
        d = d.sum(-1, keepdims=True) / n * mask
    return (d.astype(log_probs.dtype),)


def _mutant(name, doc, case=None, vjp=None, thread=None, **edit):
    def function(*args, level):
        return ratio(*args, level=level, **edit)

    function.__name__, function.__doc__ = name, doc
    mutant(ID, default_case=case or one_token("sequence"), vjp=vjp, thread=thread)(function)


_mutant("inverted", "pi_old / pi.", one_token(same=True), last=lambda r, a, b, m, level: 1 / r)
_mutant("not_normalised_by_length", "The product where GSPO's root was asked for.", n=lambda m: 1)
_mutant("mean_over_the_width", "Divided by the padded width.", one_token("sequence", 4), n=lambda m: m.shape[-1])
_mutant("mean_of_the_ratios", "The mean of the token ratios for the sequence's or the product.",
        last=lambda r, a, b, m, level: r if level == "token" else np.broadcast_to(
            np.where(m, np.exp(np.where(m, a - b, 0)), 0).sum(-1, keepdims=True)
            / np.maximum(m.sum(-1, keepdims=True), 1), m.shape))  # fmt: skip
_mutant("one_where_masked", "A masked slot has ratio 1.", show=lambda r, m: np.where(m, r, 1))
_mutant("masked_by_multiplying", "The gap times the mask: NaN stays.", hide=lambda x, m: x * m,
        vjp=lambda g, *a, level: _vjp(g, *a, level=level, hide=np.multiply))  # fmt: skip
_mutant("gradient_is_one", "d rho = d log pi: right at ratio 1.", one_token(same=True),
        vjp=lambda g, *a, level: _vjp(g, *a, level=level, token=lambda g, r: g))  # fmt: skip
_mutant("gradient_of_the_product", "1 / n forgotten.",
    vjp=lambda g, *a, level: _vjp(g, *a, level=level, by_length=False))
