"""Laws and mutants of leave-one-out advantages."""

from __future__ import annotations

import itertools

import numpy as np

from ref.rl.common_laws import dyadics
from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, cases, dims, rng

ID = "rl.rloo_advantages"
space = cases(
    ID, P=dims(1, 3, large=6), G=dims(2, 4, large=16), B=lambda draw, c: c.P * c.G,
    prompts=lambda draw, c: rng(draw).permutation(np.repeat(7 * np.arange(c.P) - 3, c.G)),
    rewards=dyadics("B", -2, 2, 4),
    flags={"several": Flag(lambda c: c.P > 1 and not np.array_equal(c.prompts, np.sort(c.prompts)), {"P": dims(2, 3)})},
)  # fmt: skip


def limit(c):
    return bounds.rounding(2 * c.rewards.size + 8, 4.0, c.dtype)


@law(ID, "L1", closed_form=True, given=space.reach("several"),
     kills=["own_reward_in_the_baseline", "scaled_by_the_deviation", "in_blocks", "inverse_factor"])  # fmt: skip
def value_is_the_definition(impl, c, expect):
    "Each reward less the mean of the others of its prompt, one by one."
    r = np.asarray(c.rewards, np.float64)
    wanted = [r[i] - np.mean([r[j] for j in range(c.B) if j != i and c.prompts[j] == c.prompts[i]]) for i in range(c.B)]
    expect(impl(c), np.array(wanted), limit(c), scale=1.0)


@law(ID, "L2", closed_form=True, given=space,
    kills=["own_reward_in_the_baseline", "scaled_by_the_deviation", "inverse_factor"],
     passes_null=["identity"])  # fmt: skip
def expected_gradient_is_exact(impl, c, expect):
    "All K^G groups of three responses: E of (1 / G) sum A_i grad log pi is pi (r - E r), exactly, for G = 2 and 3."
    g = np.random.default_rng(int(np.sum(np.abs(np.asarray(c.rewards)) * 4)))
    pi, r = g.integers(1, 9, 3).astype(np.float64), g.integers(-4, 5, 3) / 2.0
    pi = pi / pi.sum()
    for G in (2, 3):
        at = np.array(list(itertools.product(range(3), repeat=G)))
        now = c.replace(rewards=r[at].reshape(-1).astype(c.dtype), prompts=np.repeat(np.arange(len(at)), G), B=at.size)
        a = np.asarray(impl(now), np.float64).reshape(at.shape)
        found = np.einsum("g,gi,gik->k", np.prod(pi[at], -1), a, np.eye(3)[at] - pi) / G
        expect(found, pi * (r - pi @ r), bounds.rounding(256, 8.0, c.dtype), f"G = {G}", scale=1.0)


@law(ID, "L3", given=space, kills=["baseline_of_the_first"], passes_null=["zeros"])
def the_group_adds_up_to_zero(impl, c, expect):
    "The advantages of a prompt's responses add up to 0."
    a = impl(c).astype(np.float64)
    for p in np.unique(c.prompts):
        expect(a[c.prompts == p].sum(), np.array(0.0), c.G * limit(c), f"prompt {p}", scale=1.0)


@law(ID, "L4", closed_form=True, given=space, kills=["own_reward_in_the_baseline", "inverse_factor"])
def own_reward_enters_once(impl, c, expect):
    "One reward raised by 1: its own advantage rises by 1, each other's of its prompt falls by 1 / (G - 1)."
    before = impl(c).astype(np.float64)
    raised = c.rewards.copy()
    raised[0] += 1
    moved = impl(c.replace(rewards=raised)).astype(np.float64) - before
    same = c.prompts == c.prompts[0]
    wanted = np.where(np.arange(c.B) == 0, 1.0, np.where(same, -1 / (c.G - 1), 0.0))
    expect(moved, wanted, 2 * limit(c), scale=1.0)


# Mutants ---------------------------------------------------------------------------------------------


def equal():
    """The default-size test: equal rewards."""
    return (np.ones(4), np.zeros(4, int)), {}


def _mutant(name, doc, advantage, ids=lambda p: p):
    def function(rewards, prompts):
        out, own = np.zeros(rewards.shape), ids(prompts)
        for p in np.unique(own):
            at = own == p
            out[at] = advantage(rewards[at].astype(np.float64))
        return out.astype(rewards.dtype)

    function.__name__, function.__doc__ = name, doc
    mutant(ID, default_case=equal)(function)


def _loo(r):
    return (r - r.mean()) * len(r) / (len(r) - 1)


_mutant("own_reward_in_the_baseline", "The group's mean: (G - 1) / G of it.", lambda r: r - r.mean())
_mutant("scaled_by_the_deviation", "GRPO's.", lambda r: (r - r.mean()) / (r.std(ddof=1) + 1e-6))
_mutant("inverse_factor", "(G - 1) / G where G / (G - 1) is due.", lambda r: (r - r.mean()) * (len(r) - 1) / len(r))
_mutant("baseline_of_the_first", "The mean of all but the first, for everyone.", lambda r: r - r[1:].mean())
_mutant("in_blocks", "Groups are taken to be G neighbours.", _loo,
        ids=lambda p: np.arange(len(p)) // np.unique(p, return_counts=True)[1][0])  # fmt: skip
