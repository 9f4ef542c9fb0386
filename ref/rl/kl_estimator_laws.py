"""Laws and mutants of the estimators of the KL divergence."""

from __future__ import annotations

import math

import numpy as np

from ref.rl.common_laws import dyadics
from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, batch, cases, choose, none_or

ID = "rl.kl_estimator"
space = cases(
    ID, B=batch(2, 3, large=30), kind=choose("k1", "k2", "k3", "abs"), gradient=none_or("k2"),
    weighted=choose(False, True),
    log_probs=dyadics("*B", -4, 0), ref_log_probs=dyadics("*B", -4, 0), clamp=none_or(1.0), clamp_value=none_or(0.75),
    old_log_probs=lambda draw, c: dyadics("*B", -4, 0)(draw, c) if c.weighted else None,
    unset={"old_log_probs": {"weighted": False, "old_log_probs": None}},
    flags={"some": Flag(lambda c: 0 not in c.B, {"B": choose((4,), (2, 3), ())}),
           "plain": Flag(lambda c: c.clamp is None and c.clamp_value is None, {"clamp": None, "clamp_value": None})},
)  # fmt: skip
DEFINITIONS = {
    "k1": (lambda x: -x, lambda x: 1.0),
    "k2": (lambda x: x * x / 2, lambda x: -x),
    "k3": (lambda x: math.exp(x) - 1 - x, lambda x: 1 - math.exp(x)),
    "abs": (abs, lambda x: -math.copysign(1.0, x) if x else 0.0),
}


def slowly(c):
    """(value, d value / d log pi, size) element by element; x = log u."""
    out = np.zeros((3, *c.log_probs.shape))
    for at in np.ndindex(*c.log_probs.shape):
        lp = float(c.log_probs[at])
        x = float(c.ref_log_probs[at]) - lp
        inside = c.clamp is None or abs(x) <= c.clamp
        x = x if inside else math.copysign(c.clamp, x)
        value, slope = DEFINITIONS[c.kind][0](x), DEFINITIONS[c.gradient or c.kind][1](x) * inside
        if c.clamp_value is not None:
            slope *= abs(value) <= c.clamp_value
            value = min(max(value, -c.clamp_value), c.clamp_value)
        rho = 1.0 if c.old_log_probs is None else math.exp(lp - float(c.old_log_probs[at]))
        size = rho * (math.exp(x) + 1 + abs(x) + x * x)
        slope = slope if c.old_log_probs is None else rho * (slope + value)
        out[(slice(None), *at)] = value * rho, slope, size
    return out


def kinks(c):
    """Away from the corners of the bounds and of |log u|."""
    x = np.asarray(c.ref_log_probs) - np.asarray(c.log_probs)
    far = np.abs(np.abs(x) - (c.clamp or 99)) > 1e-3
    x = x if c.clamp is None else np.clip(x, -c.clamp, c.clamp)
    value = np.vectorize(DEFINITIONS[c.kind][0])(x) if x.size else x
    return bool(np.all(far & (np.abs(np.abs(value) - (c.clamp_value or 99)) > 1e-3) & ((c.kind != "abs") | (x != 0))))


space = cases(space.id, **space.fields, flags={**space.flags, "smooth": Flag(kinks)}, unset=space.unset)


@law(ID, "L1", closed_form=True, given=space.where(some=True),
     kills=["log_u_negated", "halves_nothing", "k3_of_the_inverse", "weight_ignored", "clamp_ignored"])  # fmt: skip
def value_is_the_definition(impl, c, expect):
    "-x, x^2 / 2, e^x - 1 - x or |x| at x = log u, bounded and weighed as asked."
    value, _, size = slowly(c)
    expect(impl(c), value, bounds.rounding(48, size, c.dtype), scale=1.0)


def outcomes(c):
    """Four outcomes with two laws of rational numbers: (pi, ref)."""
    g = np.random.default_rng(int(np.sum(np.abs(np.asarray(c.log_probs)) * 64)))
    pi, ref = g.integers(1, 9, (2, 4)).astype(np.float64)
    return pi / pi.sum(), ref / ref.sum()


def over_outcomes(c, pi, ref, weighted):
    lp = np.log(pi).astype(c.dtype)
    return c.replace(log_probs=lp, ref_log_probs=np.log(ref).astype(c.dtype), B=(4,), clamp=None, clamp_value=None,
                     old_log_probs=lp.copy() if weighted else None)  # fmt: skip


@law(ID, "L2", closed_form=True, given=space.where(some=True, plain=True, kind=choose("k1", "k3", "k2"), gradient=None),
     kills=["log_u_negated", "k3_of_the_inverse"])  # fmt: skip
def expected_value_over_all_outcomes(impl, c, expect):
    "Over all outcomes of pi: E k1 = E k3 = KL(pi | ref), the same with rho = 1; E k2 = E (log pi/ref)^2 / 2, another."
    pi, ref = outcomes(c)
    kl = float(np.sum(pi * np.log(pi / ref)))
    wanted = kl if c.kind != "k2" else float(np.sum(pi * np.log(pi / ref) ** 2) / 2)
    found = pi @ np.asarray(impl(over_outcomes(c, pi, ref, c.weighted)), np.float64)
    expect(found, np.array(wanted), bounds.rounding(64, 4.0, c.dtype), "E k", scale=1.0)


@law(ID, "L3", closed_form=True, needs=("vjp",),
    given=space.where(some=True, plain=True, kind=choose("k1", "k2", "k3")),
     kills=["k3_gradient_called_reverse", "k1_gradient_of_the_kl", "gradient_of_the_kind",
     "weight_has_no_gradient"])  # fmt: skip
def expected_gradient_over_all_outcomes(impl, c, expect):
    """pi = softmax(z), all outcomes: E grad_z is 0 for k1, grad KL(pi | ref) for k2 (and gradient="k2", and any
    kind but k2 weighed by rho), grad KL(ref | pi) for k3."""
    pi, ref = outcomes(c)
    d = np.asarray(impl.vjp(over_outcomes(c, pi, ref, c.weighted), pi.astype(c.dtype))["log_probs"], np.float64)
    found = d - pi * d.sum()  # through log softmax
    kl = np.sum(pi * np.log(pi / ref))
    reverse, forward = pi * (np.log(pi / ref) - kl), pi - ref
    plain = {"k1": np.zeros(4), "k2": reverse, "k3": forward}[c.gradient or c.kind]
    if c.weighted:  # + E k grad log pi
        k = np.array([DEFINITIONS[c.kind][0](x) for x in np.log(ref / pi)])
        plain = plain + pi * (k - pi @ k)
        if c.gradient is None and c.kind != "k2":
            plain = reverse
    expect(found, plain, bounds.rounding(96, 4.0, c.dtype), "E grad", scale=1.0)


@law(ID, "L4", closed_form=True, needs=("vjp",), given=space.where(some=True, smooth=True),
     kills=["gradient_of_the_kind", "weight_has_no_gradient", "k1_gradient_of_the_kl", "k3_gradient_called_reverse",
            "clamp_lets_gradients_through"])  # fmt: skip
def gradient_is_the_definition(impl, c, expect):
    "d / d log pi of each estimate: 1, -log u, 1 - u, sign; 0 beyond the bounds; with rho, rho (slope + value)."
    g = np.cos(1.0 + np.arange(c.log_probs.size)).reshape(c.log_probs.shape).astype(c.dtype)
    _, slope, size = slowly(c)
    expect(impl.vjp(c, g)["log_probs"], g * slope, bounds.rounding(64, size, c.dtype), "d log pi", scale=1.0)


@law(ID, "L5", closed_form=True,
    given=space.where(some=True, plain=True, kind="k3", weighted=False, old_log_probs=None),
     kills=["k3_cancels", "k3_of_the_inverse"])  # fmt: skip
def k3_is_the_bregman_distance(impl, c, expect):
    "k3 >= 0, 0 at u = 1, and x^2 / 2 + x^3 / 6 + .. for small x = log u to the last digits: no 1 - 1 is formed."
    for x in (2.0**-8, -(2.0**-8), 2.0**-11):
        lp = np.zeros(c.log_probs.shape, c.dtype)
        now = c.replace(log_probs=lp, ref_log_probs=np.full_like(lp, x))
        wanted = sum(x**n / math.factorial(n) for n in range(2, 9))
        expect(impl(now), np.full(lp.shape, wanted), bounds.rounding(16, abs(x), c.dtype), f"k3 at {x}", scale=abs(x))
    at_one = c.replace(ref_log_probs=c.log_probs.copy())
    expect.same(impl(at_one), np.zeros(c.log_probs.shape), "k3 at u = 1")
    expect.at_most(-impl(c), np.zeros(c.log_probs.shape), "-k3")


@law(ID, "L6", closed_form=True,
    given=space.where(some=True, clamp=1.0, gradient=None, weighted=False, old_log_probs=None,
                                                   clamp_value=None), kills=["clamp_ignored"])  # fmt: skip
def clamped_far_away(impl, c, expect):
    "|log u| far above the bound: the estimate of the bound itself, finite however far."
    for x in (50.0, -50.0, 800.0):
        lp = np.full(c.log_probs.shape, -1.0, c.dtype)
        wanted = DEFINITIONS[c.kind][0](math.copysign(1.0, x))
        now = c.replace(log_probs=lp, ref_log_probs=np.full_like(lp, x - 1))
        expect(impl(now), np.full(lp.shape, wanted), bounds.rounding(16, 3.0, c.dtype), f"log u = {x}", scale=1.0)


# Mutants ---------------------------------------------------------------------------------------------


def same_policy(kind="k1", **options):
    """The default-size test: the reference itself, where every estimate is 0."""
    lp = -np.abs(np.random.default_rng(0).standard_normal(4))
    return lambda: ((lp, lp.copy()), {"kind": kind, **options})


PLAIN = {"k1": lambda x: -x, "k2": lambda x: x * x / 2, "k3": lambda x: np.expm1(x) - x, "abs": np.abs}
SLOPE = {"k1": np.ones_like, "k2": lambda x: -x, "k3": lambda x: 1 - np.exp(x), "abs": lambda x: -np.sign(x)}


def estimate(lp, ref, *, kind, gradient=None, old_log_probs=None, clamp=None, clamp_value=None, **edit):
    x = edit.get("x", lambda lp, ref: ref - lp)(lp, ref)
    x = x if clamp is None or edit.get("free") else np.clip(x, -clamp, clamp)
    found = {**PLAIN, **edit.get("kinds", {})}[kind](x)
    found = found if clamp_value is None or edit.get("free") else np.clip(found, -clamp_value, clamp_value)
    found = found if old_log_probs is None or edit.get("alone") else found * np.exp(lp - old_log_probs)
    return np.asarray(found, lp.dtype)


def pull(g, lp, ref, *, kind, gradient=None, old_log_probs=None, clamp=None, clamp_value=None, **edit):
    x = ref - lp
    inside = np.ones_like(x) if clamp is None or edit.get("open") else np.abs(x) <= clamp
    x = x if clamp is None else np.clip(x, -clamp, clamp)
    value = PLAIN[kind](x)
    slope = {**SLOPE, **edit.get("slopes", {})}[(gradient or kind) if edit.get("named", True) else kind](x) * inside
    if clamp_value is not None:
        slope = slope * (np.abs(value) <= clamp_value) if not edit.get("open") else slope
        value = np.clip(value, -clamp_value, clamp_value)
    if old_log_probs is not None:
        slope = np.exp(lp - old_log_probs) * (slope + (0 if edit.get("alone") else value))
    return (np.asarray(g * slope, lp.dtype),)


def _mutant(name, doc, case=None, thread=None, vjp=None, **edit):
    def function(*args, **options):
        return estimate(*args, **options, **edit)

    function.__name__, function.__doc__ = name, doc
    pulls = None if vjp is None else lambda g, *a, **o: pull(g, *a, **o, **vjp)
    mutant(ID, thread=thread, vjp=pulls, default_case=case or same_policy())(function)


_mutant("log_u_negated", "log pi - log ref where log u was meant.", x=lambda lp, ref: lp - ref)
_mutant("halves_nothing", "k2 without the half.", same_policy("k2"), kinds={"k2": lambda x: x * x})
_mutant("k3_of_the_inverse", "u = pi / ref: the k3 of samples from ref.", same_policy("k3"),
        kinds={"k3": lambda x: np.exp(-x) - 1 + x})  # fmt: skip
_mutant("k3_cancels", "exp(x) - 1 - x as written: in float32 nothing is left of x^2 / 2 for small x.",
    same_policy("k3"),
        kinds={"k3": lambda x: (np.exp(x.astype(np.float16 if x.dtype == np.float32 else np.float32)) - 1
        - x)})  # fmt: skip
_mutant("weight_ignored", "old_log_probs accepted and dropped.", alone=True)
_mutant("clamp_ignored", "The bounds accepted and dropped.", free=True)
_mutant("k1_gradient_of_the_kl", "The gradient that the user hoped for, k2's, under the name k1.",
        vjp={"slopes": {"k1": lambda x: -x}}, thread="NeMo-RL#2506")  # fmt: skip
_mutant("k3_gradient_called_reverse", "The gradient of KL(pi | ref) under the name k3.", same_policy("k3"),
        vjp={"slopes": {"k3": lambda x: -x}}, thread="trl#3025")  # fmt: skip
_mutant("gradient_of_the_kind", "gradient='k2' accepted and dropped.", vjp={"named": False}, thread="NeMo-RL#2506")
_mutant("weight_has_no_gradient", "rho detached: E grad (rho k1) is 0 again.", vjp={"alone": True},
    thread="NeMo-RL#2506")
_mutant("clamp_lets_gradients_through", "The bounds bound the value alone.", vjp={"open": True})
