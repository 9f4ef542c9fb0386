"""Laws and mutants of group advantages."""

from __future__ import annotations

import itertools
import math

import numpy as np

from ref.rl.common_laws import dyadics
from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, cases, choose, dims, rng

ID = "rl.grpo_advantages"


def _prompts(draw, c):
    """P groups of G, the ids in any order and not 0, 1, 2."""
    return rng(draw).permutation(np.repeat(7 * np.arange(c.P) - 3, c.G))


space = cases(
    ID, P=dims(1, 3, large=6), G=dims(2, 4, large=16), B=lambda draw, c: c.P * c.G, prompts=_prompts,
    scale=choose("group", "batch", None), ddof=choose(1, 0), eps=choose(1e-6, 1e-4, 0.25),
    rewards=dyadics("B", -2, 2, 4),
    flags={
        "several": Flag(lambda c: c.P > 1 and not np.array_equal(c.prompts, np.sort(c.prompts)), {"P": dims(2, 3)}),
        "equal_group": Flag(lambda c: any(np.ptp(g) == 0 for g in groups(c)),
        {"G": dims(2, 2), "rewards": dyadics("B", 0, 1, 1)}),
        "spread": Flag(lambda c: all(np.ptp(g) > 0 for g in groups(c))),
    },
)  # fmt: skip


def groups(c):
    return [np.asarray(c.rewards, np.float64)[c.prompts == p] for p in np.unique(c.prompts)]


def definition(c):
    """(advantages, bound), group by group."""
    out, slack = np.zeros(c.rewards.shape), np.zeros(c.rewards.shape)
    centred = [g - math.fsum(g) / len(g) if np.ptp(g) else 0 * g for g in groups(c)]
    pooled = math.sqrt(math.fsum(float(v) ** 2 for g in centred for v in g) / max(sum(map(len, centred)) - c.ddof, 1))
    for p, a in zip(np.unique(c.prompts), centred, strict=True):
        own = math.sqrt(math.fsum(float(v) ** 2 for v in a) / (len(a) - c.ddof))
        s = {"group": own + c.eps, "batch": pooled + c.eps, None: 1.0}[c.scale]
        at = c.prompts == p
        out[at] = a / s
        n = c.rewards.size if c.scale == "batch" else len(a)
        slack[at] = (1 + np.abs(a / s)) * bounds.rounding(2 * n + 16, 2.0, c.dtype) / s
    return out, slack


@law(ID, "L1", closed_form=True, given=space.reach("several", "equal_group"),
     kills=["other_ddof", "eps_under_the_root", "batch_mean", "batch_for_group", "not_scaled", "in_blocks",
     "scaled_always"])  # fmt: skip
def value_is_the_definition(impl, c, expect):
    "r less its group's mean over the group's or the batch's deviation plus eps, group by group."
    wanted, slack = definition(c)
    expect(impl(c), wanted, slack, scale=max(1.0, float(np.max(np.abs(wanted)))))


@law(ID, "L2", closed_form=True, given=space.where(P=1, ddof=0, scale="group", eps=0.0),
    kills=["other_ddof", "not_scaled"])
def binary_rewards_in_closed_form(impl, c, expect):
    "k of G right, ddof 0, eps 0: sqrt((G - k) / k) for the right, -sqrt(k / (G - k)) for the wrong."
    for k in range(1, c.G):
        r = (np.arange(c.G) < k).astype(c.dtype)
        wanted = np.where(r > 0, math.sqrt((c.G - k) / k), -math.sqrt(k / (c.G - k)))
        expect(impl(c.replace(rewards=r)), wanted, bounds.rounding(4 * c.G + 16, wanted, c.dtype), f"{k} of {c.G}")


@law(ID, "L3", closed_form=True, given=space.where(eps=choose(0.0, 1e-6), G=dims(3, 4)),
    kills=["deviation_tells_equal"],
     passes_null=["zeros"])  # fmt: skip
def equal_rewards_give_exactly_zero(impl, c, expect):
    "[.1] * G and the like: 0 in every bit, though the computed deviation of three .1 is not 0, and eps may be."
    for r in (0.1, 0.7, 1.1, -3.3):
        expect.same(impl(c.replace(rewards=np.full(c.B, r, c.dtype))), np.zeros(c.B), f"rewards {r}")


@law(ID, "L4", closed_form=True, given=space.where(spread=True, scale="group", eps=0.0),
    kills=["not_scaled", "batch_mean"],
     passes_null=["zeros"])  # fmt: skip
def affine_invariance(impl, c, expect):
    "eps 0: a r + b, a > 0, gives the same advantages; each group's add up to 0."
    a = impl(c).astype(np.float64)
    _, slack = definition(c)
    for scale, shift in ((4.0, 0.0), (1.0, -2.0), (0.5, 3.0)):
        moved = c.replace(rewards=(np.asarray(c.rewards, np.float64) * scale + shift).astype(c.dtype))
        expect(impl(moved), a, 8 * slack, f"{scale} r + {shift}", scale=2.0)
    for p in np.unique(c.prompts):
        at = c.prompts == p
        expect(a[at].sum(), np.array(0.0), float(slack[at].sum()) * 2, "sum of a group", scale=1.0)


@law(ID, "L5", given=space.where(several=True), kills=["in_blocks"], passes_null=["zeros", "constant", "identity"])
def the_order_of_the_batch_is_free(impl, c, expect):
    "The batch turned round, or sorted by prompt: each response keeps its advantage."
    a = impl(c)
    for order in (np.arange(c.B)[::-1], np.argsort(c.prompts, kind="stable")):
        moved = c.replace(rewards=c.rewards[order].copy(), prompts=c.prompts[order].copy())
        expect(impl(moved), a[order], 4 * definition(c)[1][order], scale=max(1.0, float(np.max(np.abs(a)))))


def bandit(c):
    g = np.random.default_rng(int(np.sum(np.abs(np.asarray(c.rewards)) * 4)) + c.B)
    pi = g.integers(1, 9, 3).astype(np.float64)
    return pi / pi.sum(), g.integers(-4, 5, 3) / 2.0


def expected_gradient(impl, c, pi, r, G):
    """E of (1 / G) sum A_i grad_z log pi(y_i), over all K^G groups; every group a prompt of one batch."""
    at = np.array(list(itertools.product(range(len(pi)), repeat=G)))
    now = c.replace(rewards=r[at].reshape(-1).astype(c.dtype), prompts=np.repeat(np.arange(len(at)), G), B=at.size,
        P=len(at), G=G)
    a = np.asarray(impl(now), np.float64).reshape(at.shape)
    return np.einsum("g,gi,gik->k", np.prod(pi[at], -1), a, np.eye(len(pi))[at] - pi) / G


@law(ID, "L6", closed_form=True, given=space.where(scale=None), kills=["scaled_always", "batch_mean"])
def expected_gradient_without_a_scale(impl, c, expect):
    "Dr. GRPO, all K^G groups: E of the gradient is (G - 1) / G of the true one, pi (r - E r)."
    pi, r = bandit(c)
    true = pi * (r - pi @ r)
    for G in (2, 3):
        expect(expected_gradient(impl, c, pi, r, G), (G - 1) / G * true, bounds.rounding(256, 8.0, c.dtype), f"G = {G}",
            scale=1.0)


@law(ID, "L7", closed_form=True, given=space.where(scale="group", eps=1e-6, ddof=0), kills=["not_scaled"])
def not_the_policy_gradient_for_three_rewards(impl, c, expect):
    """G = 2, uniform over rewards 0, .01, 1: cosine .870 with the true gradient. For binary rewards it is parallel to
    it, and per prompt weighed by 1 / sqrt(p (1 - p)) (G = 2: by 2 over the chance that the two differ)."""
    pi = np.full(3, 1 / 3)
    r = np.array([0.0, 0.01, 1.0])
    true, found = pi * (r - pi @ r), expected_gradient(impl, c, pi, r, 2)
    cosine = found @ true / np.linalg.norm(found) / np.linalg.norm(true)
    expect(np.array(cosine), np.array(0.87), 5e-4, "cosine, three rewards")
    pi, r = np.array([0.5, 0.3, 0.2]), np.array([1.0, 0.0, 0.0])
    true, found = pi * (r - pi @ r), expected_gradient(impl, c, pi, r, 2)
    # Two responses that differ have advantages +-1: E = (1/2) P(differ) (E[score | right] - E[score | wrong]) = true.
    expect(found, true * (1 / (0.5 + 1e-6)) * 0.5, bounds.rounding(256, 8.0, c.dtype), "binary", scale=1.0)


# Mutants ---------------------------------------------------------------------------------------------


def one_group(G=4, **options):
    """The default-size test: one group of centred rewards."""
    r = np.array([1.0, -1.0] * (G // 2))
    return lambda: ((r, np.zeros(G, int)), options)


def plain(rewards, prompts, *, scale="group", ddof=1, eps=1e-6, **edit):
    out = np.zeros(rewards.shape)
    ids = edit.get("ids", lambda p: p)(prompts)
    scale = edit.get("scale_as", lambda s: s)(scale)
    ddof = edit.get("ddof_as", lambda d: d)(ddof)
    r = rewards.astype(np.float64) if not edit.get("by_deviation") else rewards
    for p in np.unique(ids):
        at = ids == p
        mean = r.mean() if edit.get("batch_mean") else r[at].mean()
        equal = False if edit.get("by_deviation") else np.ptp(r[at]) == 0
        out[at] = 0 if equal else r[at] - mean
    pooled = np.sqrt((out**2).sum() / max(len(out) - ddof, 1))
    root = edit.get("root", False)
    for p in np.unique(ids):
        at = ids == p
        own = np.sqrt((out[at] ** 2).sum() / max(at.sum() - ddof, 1))
        s = {"group": own, "batch": pooled, None: None}[scale]
        if s is not None:
            s = np.sqrt(s * s + eps) if root else s + eps
            out[at] = out[at] / (s if s > 0 else 1)
    return out.astype(rewards.dtype)


def _mutant(name, doc, case=None, thread=None, **edit):
    def function(*args, **options):
        return plain(*args, **options, **edit)

    function.__name__, function.__doc__ = name, doc
    mutant(ID, default_case=case or one_group(), thread=thread)(function)


_mutant("other_ddof", "n for n - 1, and n - 1 for n.", one_group(80000, ddof=1), ddof_as=lambda d: 1 - d)
_mutant("eps_under_the_root", "sqrt(v + eps).", one_group(eps=1e-9), root=True)
_mutant("batch_mean", "The batch's mean for the group's.", batch_mean=True)
_mutant("batch_for_group", "The batch's deviation for the group's, the group's for the batch's.",
        scale_as=lambda s: {"group": "batch", "batch": "group"}.get(s))  # fmt: skip
_mutant("not_scaled", "r - mean under every name.", one_group(ddof=0, eps=0.0), scale_as=lambda s: None)
_mutant("scaled_always", "The group's deviation under every name.", scale_as=lambda s: "group", thread="trl#2995")
_mutant("in_blocks", "Groups are taken to be G neighbours, whatever the ids.",
        ids=lambda p: np.arange(len(p)) // np.unique(p, return_counts=True)[1][0])  # fmt: skip
_mutant("deviation_tells_equal", "Equal rewards are told by a deviation of 0.", by_deviation=True)
