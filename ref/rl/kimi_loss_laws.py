"""Laws and mutants of Kimi's policy loss."""

from __future__ import annotations

import math

import numpy as np

from ref.rl.common_laws import (
    by_multiplying,
    dyadics,
    filled_mask,
    log_probs,
    policy_mutant,
    with_junk,
)  # fmt: skip
from ref.spec import bounds, law
from ref.spec.cases import Flag, cases, choose, dims, none_or, rng

ID = "rl.kimi_loss"
space = cases(
    ID, P=dims(1, 2), G=dims(2, 3), B=lambda draw, c: c.P * c.G, T=dims(1, 4, large=20), tau=choose(0.5, 0.125, 2.0),
    baseline=choose("mean", "log_z"), count=none_or(9), mask=filled_mask, log_probs=log_probs, old_log_probs=log_probs,
    rewards=dyadics("B", -1, 1, 4),
    prompts=lambda draw, c: rng(draw).permutation(np.repeat(3 * np.arange(c.P) + 1, c.G)),
    flags={
        "masked": Flag(lambda c: not np.all(c.mask), {"T": dims(2, 4)}),
        "uneven": Flag(lambda c: len(set(np.sum(c.mask, -1).tolist())) > 1, {"T": dims(2, 4)}),
        "several": Flag(lambda c: c.P > 1, {"P": 2}),
    },
)  # fmt: skip


def baselines(c):
    """b of each response, group by group."""
    r, out = np.asarray(c.rewards, np.float64), np.zeros(c.B)
    for p in np.unique(c.prompts):
        own = r[c.prompts == p]
        z = math.log(math.fsum(math.exp(v / c.tau) for v in own) / len(own))
        out[c.prompts == p] = math.fsum(own) / len(own) if c.baseline == "mean" else c.tau * z
    return out


def terms(c):
    """(losses[B], slopes[B] by log pi(y), sizes[B])."""
    out, b = np.zeros((3, c.B)), baselines(c)
    for i, kept in enumerate(np.asarray(c.mask)):
        lp, old = (math.fsum(float(v) for v in x[i][kept]) for x in (c.log_probs, c.old_log_probs))
        gain, gap = float(c.rewards[i]) - b[i], lp - old
        size = np.abs(c.log_probs[i][kept]).sum() + np.abs(c.old_log_probs[i][kept]).sum()
        out[:, i] = -gain * lp + c.tau / 2 * gap**2, -gain + c.tau * gap, (2 + c.tau * (1 + abs(gap))) * (1 + size)
    return out


def limit(c, sizes):
    return bounds.rounding(2 * c.mask.shape[1] + c.B + 64, np.sum(sizes) / (c.count or c.B), c.dtype)


@law(ID, "L1", closed_form=True, given=space.reach("masked", "uneven", "several"),
     kills=["tau_unhalved", "ratio_not_squared", "mean_always", "batch_baseline", "per_token_mean",
     "own_count"])  # fmt: skip
def value_is_the_definition(impl, c, expect):
    "-(r - b) log pi(y) + (tau / 2) log(pi(y) / pi_i(y))^2, response by response, over their number."
    losses, _, sizes = terms(c)
    n = c.count or c.B
    expect(impl(c), np.array(np.sum(losses) / n), limit(c, sizes), scale=float(np.sum(sizes) / n))


@law(ID, "L2", closed_form=True, needs=("vjp",), given=space.reach("masked", "several"),
    kills=["slope_without_the_penalty", "slope_negated"])
def gradient_is_the_definition(impl, c, expect):
    "d loss / d log pi_t = -(r - b) + tau log(pi(y) / pi_i(y)) for each kept token; a masked one exactly 0."
    _, slopes, sizes = terms(c)
    wanted = slopes[:, None] / (c.count or c.B) * np.asarray(c.mask)
    found = impl.vjp(c, np.array(1.0, c.dtype))["log_probs"]
    expect(found, wanted, bounds.rounding(2 * c.T + 64, np.max(sizes), c.dtype), "d log pi", scale=4.0)
    expect.same(found[~c.mask], np.zeros(int((~c.mask).sum())), "d log pi of the masked")


@law(ID, "L3", needs=("vjp",), given=space.where(masked=True), kills=["masked_by_multiplying"],
    passes_null=["zeros", "constant"])
def masked_junk_is_invisible(impl, c, expect):
    "NaN, inf or 1e30 in masked slots changes no bit, neither of the loss nor of the gradient."
    other, g = with_junk(c, "log_probs", "old_log_probs"), np.array(1.0, c.dtype)
    expect.same(impl(other), impl(c), "loss beside junk")
    expect.same(impl.vjp(other, g)["log_probs"], impl.vjp(c, g)["log_probs"], "d log pi beside junk")


@law(ID, "L4", given=space.where(several=True, count=None), kills=["own_count", "batch_baseline"],
    passes_null=["zeros", "cached"])
def any_cut_adds_up(impl, c, expect):
    "Prompt by prompt under the whole's count: the losses add up to the whole's."
    _, _, sizes = terms(c)
    parts = []
    for p in np.unique(c.prompts):
        at = c.prompts == p
        names = ("log_probs", "old_log_probs", "mask", "rewards", "prompts")
        parts.append(c.replace(**{n: c[n][at].copy() for n in names}, B=int(at.sum()), P=1, count=c.B))
    expect(np.array(sum(float(impl(x)) for x in parts)), impl(c), 4 * limit(c, sizes), scale=float(np.sum(sizes) / c.B))


@law(ID, "L5", closed_form=True, needs=("vjp",), given=space.where(baseline="mean"),
    kills=["slope_negated", "batch_baseline"])
def on_policy_the_gradient_is_reinforce(impl, c, expect):
    "pi = pi_i: the gradient of each token is -(r - mean of its prompt) / B, whatever tau."
    now = c.replace(old_log_probs=c.log_probs.copy())
    wanted = -((np.asarray(c.rewards, np.float64) - baselines(c)) / (c.count or c.B))[:, None] * np.asarray(c.mask)
    found = impl.vjp(now, np.array(1.0, c.dtype))["log_probs"]
    expect(found, wanted, bounds.rounding(32, 4.0, c.dtype), "d log pi", scale=1.0)


def population_gradient(impl, c, pi, old, r, baseline):
    """grad_z of the loss, pi = softmax(z), the sample being pi_i: 16 draws in its proportions (of sixteenths)."""
    counts = np.round(old * 16).astype(int)
    at = np.repeat(np.arange(len(old)), counts)
    column = lambda p: np.log(p[at])[:, None].astype(c.dtype)  # noqa: E731
    now = c.replace(B=16, P=1, G=16, T=1, count=None, baseline=baseline, mask=np.ones((16, 1), bool),
        log_probs=column(pi),
                    old_log_probs=column(old), rewards=r[at].astype(c.dtype), prompts=np.zeros(16, int))  # fmt: skip
    d = np.asarray(impl.vjp(now, np.array(1.0, c.dtype))["log_probs"], np.float64)[:, 0]
    by_response = np.bincount(at, d, len(old))
    return by_response - pi * by_response.sum()


OLD, R = np.array([8, 4, 2, 2]) / 16, np.array([0.0, 1.0, -0.5, 0.25])


def next_policy(tau):
    w = OLD * np.exp(R / tau)
    return w / w.sum()


@law(ID, "L6", closed_form=True, needs=("vjp",), given=space.where(baseline="log_z", P=1, G=2),
    kills=["mean_always", "slope_without_the_penalty"])
def with_log_z_the_optimum_is_mirror_descent(impl, c, expect):
    "A sample of pi_i in its exact proportions, b = tau log Z: the gradient is 0 at pi* = pi_i e^(r / tau) / Z."
    found = population_gradient(impl, c, next_policy(c.tau), OLD, R, "log_z")
    expect(found, np.zeros(4), bounds.rounding(256, 4 + 8 / c.tau + 8 * c.tau, c.dtype), "gradient at pi*", scale=1.0)
    elsewhere = population_gradient(impl, c, OLD, OLD, R, "log_z")
    expect(elsewhere, -OLD * (R - OLD @ R), bounds.rounding(256, 8.0 + 4 / c.tau, c.dtype), "gradient at pi_i",
        scale=1.0)


@law(ID, "L7", closed_form=True, needs=("vjp",), given=space.where(baseline="mean", P=1, G=2, tau=choose(0.5, 0.125)),
    kills=["log_z_always"])
def with_the_mean_it_is_not(impl, c, expect):
    """The same with b = mean r, the paper's: at pi* the gradient is (b - tau log Z)(E_old - E_pi*) of the scores,
    which is not 0: off policy the fixed point is another policy."""
    best = next_policy(c.tau)
    gap = OLD @ R - c.tau * math.log(float(np.sum(OLD * np.exp(R / c.tau))))
    wanted = gap * (OLD - best)
    found = population_gradient(impl, c, best, OLD, R, "mean")
    expect(found, wanted, bounds.rounding(256, 4 + 8 / c.tau + 8 * c.tau, c.dtype), "gradient at pi*", scale=1.0)
    expect.at_most(0.01, np.max(np.abs(found)), "the distance from 0")


# Mutants ---------------------------------------------------------------------------------------------


def on_policy(T=1, **options):
    """The default-size test: on policy, one prompt, one token a response."""
    lp = -np.abs(np.random.default_rng(0).standard_normal((4, T)))
    args = (lp, lp.copy(), np.ones((4, T), bool), np.array([1.0, 0.0, 0.0, 1.0]), np.zeros(4, int))
    return lambda: (args, {"tau": 0.5, **options})


def base(lp, old, mask, rewards, prompts, *, tau, baseline="mean", count=None, **edit):
    """(loss, gradient) in plain NumPy."""
    hide = edit.get("hide", lambda x, mask: np.where(mask, x, 0))
    kind, ids = edit.get("baseline_as", lambda b: b)(baseline), edit.get("ids", lambda p: p)(prompts)
    b = np.zeros(len(rewards))
    for p in np.unique(ids):
        own = rewards[ids == p].astype(np.float64)
        top = own.max()
        b[ids == p] = own.mean() if kind == "mean" else top + tau * np.log(np.exp((own - top) / tau).mean())
    n = edit.get("tokens", lambda mask: 1)(mask)
    total, gap = hide(lp, mask).sum(-1) / n, hide(lp - old, mask).sum(-1) / n
    gain, half = rewards - b, edit.get("half", 0.5)
    B = edit.get("count_as", lambda count, B: count or B)(count, len(lp))
    loss = -gain * total + edit.get("penalty", lambda gap: half * tau * gap**2)(gap)
    slope = (-gain + edit.get("pull", 1.0) * tau * gap) * edit.get("sign", 1.0) / B
    return np.asarray(loss.sum() / B, lp.dtype), hide(slope[:, None] * np.ones_like(lp), mask).astype(lp.dtype)


def _mutant(name, doc, case=None, value=None, slope=None, thread=None):
    policy_mutant(ID, name, doc, base, default_case=case or on_policy(), value=value, slope=slope, thread=thread)


_mutant("tau_unhalved", "tau log(.)^2.", value={"half": 1.0})
_mutant("ratio_not_squared", "|log ratio|, without a square.", value={"penalty": np.abs})
_mutant("mean_always", "The mean under either name.", value={"baseline_as": lambda b: "mean"})
_mutant("log_z_always", "tau log Z under either name.", on_policy(baseline="log_z"),
    value={"baseline_as": lambda b: "log_z"})
_mutant("batch_baseline", "One baseline for all prompts.", value={"ids": np.zeros_like})
_mutant("per_token_mean", "Averages over tokens.", value={"tokens": lambda mask: mask.sum(-1)}, thread="trl#1265")
_mutant("own_count", "The micro-batch's own number of responses.", value={"count_as": lambda count, B: B},
    thread="transformers#34191")
_mutant("masked_by_multiplying", "Times the mask: NaN stays.", value={"hide": by_multiplying})
_mutant("slope_without_the_penalty", "The penalty has a value and no gradient.", slope={"pull": 0.0})
_mutant("slope_negated", "Descent where the paper ascends.", slope={"sign": -1.0})
