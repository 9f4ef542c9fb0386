"""Laws and mutants of the log-probability of a response."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from ref.rl.common_laws import JUNK, dyadics
from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, batch, cases, choose, dims, rng

ID = "rl.sequence_log_prob"


def _mask(draw, c):
    mask = rng(draw).random((*c.B, c.T)) < 0.6
    if c.of == "mean":
        mask[..., 0] = True
    return mask


space = cases(
    ID, B=batch(2, 3, large=6), T=dims(1, 5, large=70), of=choose("sum", "mean"), mask=_mask,
    log_probs=dyadics("*B T", -4, 0),
    flags={
        "some": Flag(lambda c: 0 not in c.B, {"B": choose((), (2,), (2, 3))}),
        "masked": Flag(lambda c: not np.all(c.mask), {"B": choose((2,), (2, 3)), "T": dims(2, 5)}),
        "empty_row": Flag(lambda c: 0 not in c.B and not np.all(np.any(c.mask, -1)),
                          {"of": "sum", "B": choose((2,), (3,)), "T": dims(1, 2)}),
    },
)  # fmt: skip


def limit(c):
    """T additions of numbers that add up to `size`, and a division."""
    size = np.sum(np.where(c.mask, np.abs(np.where(c.mask, c.log_probs, 0)), 0), axis=-1, dtype=np.float64)
    return bounds.rounding(c.log_probs.shape[-1] + 2, size, c.dtype)


@law(ID, "L1", closed_form=True, given=space.reach("masked", "empty_row", "some"),
     kills=["always_mean", "always_sum", "mean_over_the_width", "prompt_counted"])  # fmt: skip
def sum_or_mean_in_fractions(impl, c, expect):
    "The kept log-probabilities of each row, added in fractions; over their number if the mean is asked for."
    wanted = np.zeros(c.B)
    for at in np.ndindex(*c.B):
        own = [Fraction(float(v)) for v in c.log_probs[at][c.mask[at]]]
        wanted[at] = float(sum(own, Fraction(0)) / (len(own) if c.of == "mean" else 1))
    expect(impl(c), wanted, limit(c), scale=4.0 * c.T)


@law(ID, "L2", given=space.where(some=True, T=dims(2, 5), of="sum"), kills=["always_mean", "mean_over_the_width"],
     passes_null=["zeros"])  # fmt: skip
def sums_add_under_concatenation(impl, c, expect):
    "A response cut in two at any place: the sums of the parts add up."
    whole = impl(c).astype(np.float64)
    for k in range(1, c.T):
        a, b = (c.replace(log_probs=c.log_probs[..., s].copy(), mask=c.mask[..., s].copy(), T=c.mask[..., s].shape[-1])
                for s in (slice(None, k), slice(k, None)))  # fmt: skip
        expect(impl(a).astype(np.float64) + impl(b), whole, 3 * limit(c), f"cut at {k}", scale=4.0 * c.T)


@law(ID, "L3", needs=("vjp",), given=space.where(masked=True), kills=["masked_by_multiplying"],
     passes_null=["zeros", "constant"])  # fmt: skip
def masked_junk_is_invisible(impl, c, expect):
    "NaN, inf and 1e30 in masked slots change no bit, neither of the values nor of the gradient."
    junk = JUNK[np.arange(c.mask.size) % 4].reshape(c.mask.shape).astype(c.dtype)
    other = c.replace(log_probs=np.where(c.mask, c.log_probs, junk))
    g = np.cos(np.arange(np.prod(c.B, dtype=int))).reshape(c.B).astype(c.dtype)
    expect.same(impl(other), impl(c))
    expect.same(impl.vjp(other, g)["log_probs"], impl.vjp(c, g)["log_probs"], "d log_probs")


@law(ID, "L4", closed_form=True, needs=("vjp",), given=space.where(some=True).reach("masked"),
     kills=["gradient_of_the_mean", "gradient_of_the_masked"])  # fmt: skip
def gradient_is_one_or_one_over_n(impl, c, expect):
    "Each kept token has the row's cotangent, over n if the mean was asked for; a masked one exactly 0."
    g = np.cos(1.0 + np.arange(np.prod(c.B, dtype=int))).reshape(c.B).astype(c.dtype)
    n = np.maximum(np.sum(c.mask, -1), 1) if c.of == "mean" else np.ones(c.B)
    wanted = np.where(c.mask, (np.asarray(g, np.float64) / n)[..., None], 0)
    found = impl.vjp(c, g)["log_probs"]
    expect(found, wanted, bounds.rounding(4, wanted, c.dtype), "d log_probs", scale=1.0)
    expect.same(found[~c.mask], np.zeros(int((~c.mask).sum())), "d log_probs of the masked")


# Mutants ---------------------------------------------------------------------------------------------


def response(n=4, of="sum", full=True):
    """The default-size test: a batch of responses, nothing masked."""
    g = np.random.default_rng(0)
    return lambda: ((-np.abs(g.standard_normal((3, n))), np.ones((3, n), bool)), {"of": of})


def _mutant(name, doc, reduced, thread=None, case=None, vjp=None):
    def function(log_probs, mask, *, of="sum"):
        return np.asarray(reduced(log_probs, mask, of), log_probs.dtype)

    function.__name__, function.__doc__ = name, doc
    mutant(ID, thread=thread, default_case=case or response(), vjp=vjp)(function)


def _sum(x, m):
    return np.where(m, x, 0).sum(-1)


def _right(x, m, of):
    return _sum(x, m) / (np.maximum(m.sum(-1), 1) if of == "mean" else 1)


THREAD = "trl#789, trl#1265, torchtune#1291, Liger-Kernel#510"
_mutant("always_mean", "dpo-sum-mean: the average where the sum was asked for.", thread=THREAD, case=response(1),
        reduced=lambda x, m, of: _sum(x, m) / np.maximum(m.sum(-1), 1))  # fmt: skip
_mutant("always_sum", "The sum where the average was asked for.", lambda x, m, of: _sum(x, m), thread=THREAD)
_mutant("mean_over_the_width", "The sum over the padded width.", case=response(4, "mean"),
        reduced=lambda x, m, of: _sum(x, m) / m.shape[-1])  # fmt: skip
_mutant("prompt_counted", "The mask is not asked.",
        lambda x, m, of: x.sum(-1) / (x.shape[-1] if of == "mean" else 1))  # fmt: skip
_mutant("masked_by_multiplying", "Times the mask: NaN stays.",
        lambda x, m, of: (x * m).sum(-1) / (np.maximum(m.sum(-1), 1) if of == "mean" else 1),
        vjp=lambda g, x, m, *, of="sum": ((g[..., None] * m).astype(x.dtype),))  # fmt: skip
_mutant("gradient_of_the_mean", "1 / n whatever was asked for.", _right,
        vjp=lambda g, x, m, *, of="sum": ((g / np.maximum(m.sum(-1), 1))[..., None] * m.astype(x.dtype),))  # fmt: skip
_mutant("gradient_of_the_masked", "The cotangent everywhere.", _right, vjp=lambda g, x, m, *, of="sum": (
    np.broadcast_to((g / (np.maximum(m.sum(-1), 1) if of == "mean" else 1))[..., None], x.shape).astype(x.dtype),
    ))  # fmt: skip
