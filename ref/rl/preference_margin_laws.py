"""Laws and mutants of the margin of a preference pair."""

from __future__ import annotations

import numpy as np

from ref.rl.common_laws import (
    by_multiplying,
    dyadics,
    even_pairs,
    pair_cases,
    pair_loss,
    scores,
    with_junk,
)  # fmt: skip
from ref.spec import bounds, law, mutant
from ref.spec.cases import choose

ID = "rl.preference_margin"
space = pair_cases(
    ID, ref=False, count=None, of=choose("sum", "mean"), referred=choose(True, False),
    ref_log_probs=lambda draw, c: dyadics("P 2 T", -3, 0)(draw, c) if c.referred else None,
    unset={"ref_log_probs": {"referred": False, "ref_log_probs": None}},
)  # fmt: skip


def limit(c):
    return bounds.rounding(2 * c.mask.shape[-1] + 8, scores(c)[1].sum(-1), c.dtype)


@law(ID, "L1", closed_form=True, given=space.reach("masked", "uneven"),
     kills=["sum_and_mean_confused", "reference_ignored", "prompts_counted", "chosen_second"])  # fmt: skip
def margin_in_fractions(impl, c, expect):
    "Response by response, token by token: the sums or means of log pi - log ref, chosen less rejected."
    wanted = scores(c)[0]
    expect(impl(c), wanted[:, 0] - wanted[:, 1], limit(c), scale=6.0 * c.T)


@law(ID, "L2", given=space.where(of="sum"), kills=["sum_and_mean_confused"], passes_null=["zeros"])
def sums_add_under_concatenation(impl, c, expect):
    "Both responses cut at any place: the margins of the parts add up."
    for k in range(c.T + 1):
        parts = []
        for cut in (slice(None, k), slice(k, None)):
            arrays = {n: c[n][..., cut].copy() for n in ("log_probs", "ref_log_probs", "mask") if c[n] is not None}
            parts.append(impl(c.replace(**arrays, T=arrays["mask"].shape[-1])).astype(np.float64))
        expect(sum(parts), impl(c), 3 * limit(c), f"cut at {k}", scale=6.0 * c.T)


@law(ID, "L3", needs=("vjp",), given=space.where(masked=True), kills=["masked_by_multiplying"],
     passes_null=["zeros", "constant"])  # fmt: skip
def masked_junk_is_invisible(impl, c, expect):
    "NaN, inf or 1e30 in prompts and padding changes no bit, neither of D nor of the gradient."
    other, g = with_junk(c, "log_probs", "ref_log_probs"), np.cos(np.arange(c.P)).astype(c.dtype)
    expect.same(impl(other), impl(c), "D beside junk")
    expect.same(impl.vjp(other, g)["log_probs"], impl.vjp(c, g)["log_probs"], "d log pi beside junk")


@law(ID, "L4", closed_form=True, needs=("vjp",), given=space.reach("masked"),
     kills=["slope_of_the_sum", "chosen_alone_has_a_gradient"])  # fmt: skip
def gradient_is_one_a_token(impl, c, expect):
    "d D / d log pi: +1 a kept token of the chosen, -1 of the rejected, over n for the mean; 0, exactly, elsewhere."
    g = np.cos(1.0 + np.arange(c.P)).astype(c.dtype)
    n = np.sum(c.mask, -1, keepdims=True) if c.of == "mean" else 1
    wanted = np.asarray(g, np.float64)[:, None, None] * np.array([1.0, -1.0])[:, None] / n * c.mask
    found = impl.vjp(c, g)["log_probs"]
    expect(found, wanted, bounds.rounding(4, wanted, c.dtype), "d log pi", scale=1.0)
    expect.same(found[~c.mask], np.zeros(int((~c.mask).sum())), "d log pi of the masked")


@law(ID, "L5", given=space, kills=["chosen_second"])
def exchanging_the_pair_negates(impl, c, expect):
    "Chosen and rejected exchanged: -D, to the bit; of a response with itself 0, and its twin with one token more not."
    swapped = {n: c[n][:, ::-1].copy() for n in ("log_probs", "ref_log_probs", "mask") if c[n] is not None}
    expect.same(impl(c.replace(**swapped)), -impl(c))
    first = {n: np.repeat(c[n][:, :1], 2, axis=1) for n in swapped}
    first["log_probs"][:, 0] += 0.5
    gain = c.replace(**first)
    wanted = 0.5 * (np.ones(c.P) if c.of == "mean" else np.sum(c.mask[:, 0], -1))
    expect(impl(gain), wanted, limit(gain), "every token of the chosen more likely by e^.5", scale=6.0 * c.T)


# Mutants ---------------------------------------------------------------------------------------------


def base(lp, mask, **options):
    """(sum of D, its gradient) by way of the plain mean; the margin itself for a cotangent of ones."""
    turn = options.pop("turn", 1.0)
    kept = []

    def f(w, r):
        kept.append(turn * (w - r))
        return w - r, np.ones_like(w), -np.ones_like(w)

    _, d = pair_loss(lp, mask, f=f, count=1, **options)
    return kept[0].astype(lp.dtype), d


def _mutant(name, doc, one=False, thread=None, value=None, slope=None, options=None):
    def function(*args, **given):
        return base(*args, **given, **(value or {}))[0]

    def vjp(g, *args, **given):
        return (base(*args, **given, **(value or {}), **(slope or {}))[1] * g[:, None, None],)

    function.__name__, function.__doc__ = name, doc
    case = even_pairs(1 if one else 3, ref=False, **(options or {}))
    mutant(ID, vjp=vjp, thread=thread, default_case=case)(function)


_mutant("sum_and_mean_confused", "dpo-sum-mean: one for the other.", one=True,
        thread="trl#789, trl#1265, torchtune#1291, Liger-Kernel#510",
        value={"of_is": lambda of: "sum" if of == "mean" else "mean"})  # fmt: skip
_mutant("reference_ignored", "ref_log_probs accepted and dropped.", value={"alone": True})
_mutant("prompts_counted", "The mask is not asked for the sums.",
    value={"hide": lambda x, m: np.where(np.isfinite(x), x, 0)})
_mutant("masked_by_multiplying", "Times the mask: NaN stays.", value={"hide": by_multiplying})
_mutant("slope_of_the_sum", "1 / n forgotten.", options={"of": "mean"},
        slope={"slope": lambda d, mask: np.sign(d)})  # fmt: skip
_mutant("chosen_alone_has_a_gradient", "The rejected response is detached.",
        slope={"slope": lambda d, mask: d * np.array([1.0, 0.0])[:, None]})  # fmt: skip


def _second(lp, mask, **options):
    return -base(lp, mask, **options)[0]


def chosen_second(lp, mask, *, ref_log_probs=None, of="sum"):
    "The rejected response at 0."
    return _second(lp, mask, ref_log_probs=ref_log_probs, of=of)


def _twins():
    (lp, mask), options = even_pairs(ref=False)()
    return (np.repeat(lp[:, :1], 2, axis=1), mask), options


mutant(ID, default_case=_twins)(chosen_second)
