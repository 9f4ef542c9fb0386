"""Laws and mutants of the entropy."""

from __future__ import annotations

import math

import numpy as np

from ref.rl.common_laws import dyadics
from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, batch, cases, choose, dims

ID = "rl.entropy"
space = cases(
    ID, B=batch(2, 2, large=6), V=dims(1, 5, large=40), logits=dyadics("*B V", -4, 4, 8),
    temperature=choose(1.0, 0.5, 2.0),
    flags={"some": Flag(lambda c: 0 not in c.B, {"B": choose((), (2,), (2, 1))}),
    "one_class": Flag(lambda c: c.V == 1, {"V": 1})},
)  # fmt: skip


def probabilities(c):
    x = np.asarray(c.logits, np.float64) / c.temperature
    return np.exp(x) / np.exp(x).sum(-1, keepdims=True)


def limit(c):
    """The exponentials, sums of V, and log V."""
    top = 2 * float(np.max(np.abs(np.where(np.isfinite(c.logits), c.logits, 0)), initial=0)) / c.temperature
    return bounds.rounding(1, (2 * c.logits.shape[-1] + 24) * (1 + top), c.dtype)


@law(ID, "L1", closed_form=True, given=space.where(some=True, V=dims(2, 4)).reach("some"),
     kills=["temperature_ignored", "sign_forgotten", "surprise_of_the_likeliest", "in_bits"])  # fmt: skip
def entropy_of_rational_distributions(impl, c, expect):
    "Weights 1, 2, .., V: log of their sum less the mean of their logarithms, at logits temperature log k."
    k = np.arange(1, c.V + 1)
    n = k.sum()
    wanted = math.log(n) - sum(i * math.log(i) for i in k) / n
    now = c.replace(logits=np.broadcast_to(c.temperature * np.log(k) + 0.5, c.logits.shape).astype(c.dtype))
    expect(impl(now), np.full(c.B, wanted), limit(now), scale=1.0)


@law(ID, "L2", closed_form=True, given=space.where(some=True).reach("one_class"), kills=["in_bits", "sign_forgotten"])
def uniform_logits_give_log_v(impl, c, expect):
    "Equal logits, however large: log V, the most that V classes have."
    for a in (0.0, 700.0, -700.0):
        now = c.replace(logits=np.full(c.logits.shape, a, c.dtype), temperature=1.0)
        expect(impl(now), np.full(c.B, math.log(c.V)), bounds.rounding(2 * c.V + 24, 1 + math.log(c.V), c.dtype),
            f"at {a}",
               scale=1.0)  # fmt: skip
    expect.at_most(impl(c), math.log(c.V) + limit(c), "the entropy")


@law(ID, "L3", needs=("vjp",), given=space.where(some=True, V=dims(2, 5)), kills=["infinite_times_zero"],
     passes_null=["zeros"])  # fmt: skip
def a_class_at_minus_infinity_is_absent(impl, c, expect):
    "A logit of -oo: the entropy and the gradient of the other classes, and gradient 0 for it."
    logits = c.logits.copy()
    logits[..., -1] = -np.inf
    fewer = c.replace(logits=c.logits[..., :-1].copy(), V=c.V - 1)
    expect(impl(c.replace(logits=logits)), impl(fewer), 2 * limit(fewer), scale=1.0)
    g = np.cos(1.0 + np.arange(np.prod(c.B, dtype=int))).reshape(c.B).astype(c.dtype)
    found = impl.vjp(c.replace(logits=logits), g)["logits"]
    expect(found[..., :-1], impl.vjp(fewer, g)["logits"], 4 * limit(fewer) / c.temperature, "d logits", scale=1.0)
    expect.same(found[..., -1], np.zeros(c.B), "d logit of the absent")


@law(ID, "L4", closed_form=True, needs=("vjp",), given=space.where(some=True, V=dims(2, 5)),
     kills=["gradient_of_the_surprise", "gradient_without_the_temperature"])  # fmt: skip
def gradient_in_closed_form(impl, c, expect):
    "dH / dx_j = -p_j (log p_j + H) / temperature; it sums to 0."
    p = probabilities(c)
    H = -np.sum(p * np.log(p), -1, keepdims=True)
    g = np.cos(1.0 + np.arange(np.prod(c.B, dtype=int))).reshape(c.B).astype(c.dtype)
    wanted = np.asarray(g, np.float64)[..., None] * -p * (np.log(p) + H) / c.temperature
    expect(impl.vjp(c, g)["logits"], wanted, 8 * limit(c) / c.temperature, "d logits", scale=1.0)


@law(ID, "L5", closed_form=True, given=space.where(some=True),
    kills=["surprise_of_the_likeliest", "temperature_ignored"])
def expected_surprise_over_all_classes(impl, c, expect):
    "The mean of -log p over all classes, each with its probability."
    p = probabilities(c)
    expect(impl(c), -np.sum(p * np.log(p), -1), 2 * limit(c), scale=1.0)


# Mutants ---------------------------------------------------------------------------------------------


def uniform(V=4):
    """The default-size test: equal logits."""
    return lambda: ((np.zeros((2, V)),), {})


def plain(logits, *, temperature=1.0, **edit):
    x = logits / edit.get("by", temperature)
    top = x.max(-1, keepdims=True)
    p = np.exp(x - top)
    p = p / p.sum(-1, keepdims=True)
    with np.errstate(all="ignore"):
        terms = edit.get("terms", lambda p: np.where(p > 0, p * np.log(np.where(p > 0, p, 1)), 0))(p)
    return np.asarray(edit.get("last", lambda s, p: -s)(terms.sum(-1), p), logits.dtype)


def pull(g, logits, *, temperature=1.0, slope=None, divide=True):
    x = logits / temperature
    p = np.exp(x - x.max(-1, keepdims=True))
    p = p / p.sum(-1, keepdims=True)
    logp = np.log(np.where(p > 0, p, 1))
    H = -(p * logp).sum(-1, keepdims=True)
    d = -p * (logp + H) if slope is None else slope(p, logp, H)
    return ((g[..., None] * d / (temperature if divide else 1)).astype(logits.dtype),)


def _mutant(name, doc, case=None, vjp=None, **edit):
    def function(*args, **options):
        return plain(*args, **options, **edit)

    function.__name__, function.__doc__ = name, doc
    pulls = None if vjp is None else lambda g, *a, **o: pull(g, *a, **o, **vjp)
    mutant(ID, vjp=pulls, default_case=case or uniform())(function)


_mutant("temperature_ignored", "At temperature 1.", by=1.0)
_mutant("sign_forgotten", "sum p log p.", uniform(1), last=lambda s, p: s)
_mutant("in_bits", "log2.", uniform(1), last=lambda s, p: -s / np.log(2))
_mutant("surprise_of_the_likeliest", "-log of the largest probability.", last=lambda s, p: -np.log(p.max(-1)))
_mutant("infinite_times_zero", "p log p as written: 0 times -oo.", terms=lambda p: p * np.log(p), vjp={})
_mutant("gradient_of_the_surprise", "-p log p: H is taken for a constant.", uniform(1),
    vjp={"slope": lambda p, logp, H: -p * logp})
_mutant("gradient_without_the_temperature", "1 / temperature forgotten.", vjp={"divide": False})
