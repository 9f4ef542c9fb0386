"""Laws and mutants of dynamic sampling."""

from __future__ import annotations

import numpy as np

from ref.rl.common_laws import dyadics
from ref.spec import law, mutant
from ref.spec.cases import Flag, cases, choose, dims, rng

ID = "rl.dynamic_sampling"
space = cases(
    ID, P=dims(1, 4), G=dims(2, 4, large=16), B=lambda draw, c: c.P * c.G, binary=choose(True, False),
    prompts=lambda draw, c: rng(draw).permutation(np.repeat(7 * np.arange(c.P) - 3, c.G)),
    rewards=lambda draw, c: dyadics("B", 0, 1, 1 if c.binary else 4)(draw, c),
    flags={"mixed": Flag(lambda c: 0 < np.sum(kept(c)) < c.B, {"P": dims(3, 4), "G": dims(2, 3)}),
           "all_right": Flag(lambda c: any(np.all(c.rewards[c.prompts == p] == 1) for p in c.prompts),
           {"G": 2, "P": dims(3, 4), "binary": True})},
)  # fmt: skip


def kept(c):
    return np.array([len(set(np.asarray(c.rewards)[c.prompts == p].tolist())) > 1 for p in c.prompts])


@law(ID, "L1", closed_form=True, given=space.reach("mixed", "all_right"),
    kills=["solved_kept", "unsolved_kept", "in_blocks", "the_wrong_alone"])
def binary_groups_by_their_count(impl, c, expect):
    "A response stays exactly where its group holds two different rewards: neither all right nor all wrong."
    expect.same(impl(c), kept(c))


@law(ID, "L2", closed_form=True, given=space.where(G=dims(3, 4)), kills=["deviation_tells_equal"])
def equal_rewards_are_dropped_to_the_bit(impl, c, expect):
    "[.1] * G is dropped, though its computed deviation is not 0; one ulp of difference is kept."
    for r in (0.1, 0.7, 1.1):
        rewards = np.full(c.B, r, c.dtype)
        expect.same(impl(c.replace(rewards=rewards)), np.zeros(c.B, bool), f"rewards {r}")
        rewards = rewards.copy()
        rewards[0] = np.nextafter(rewards[0], c.dtype.type(2))
        expect.same(impl(c.replace(rewards=rewards)), c.prompts == c.prompts[0], "one ulp more")


# Mutants ---------------------------------------------------------------------------------------------


def half_right():
    """The default-size test: groups of which half is right."""
    return (np.array([1.0, 0.0, 1.0, 0.0]), np.array([1, 1, 2, 2])), {}


def _mutant(name, doc, keep, ids=lambda p: p):
    def function(rewards, prompts):
        own = ids(prompts)
        return np.array([bool(keep(rewards[own == p])) for p in own])

    function.__name__, function.__doc__ = name, doc
    mutant(ID, default_case=half_right)(function)


_mutant("solved_kept", "Only groups without a right answer are dropped.", lambda r: r.max() > 0)
_mutant("unsolved_kept", "Only groups without a wrong answer are dropped.", lambda r: r.min() < r.max() or r.max() == 0)
_mutant("the_wrong_alone", "Kept where something is wrong.", lambda r: r.min() < 1)
_mutant("deviation_tells_equal", "Told by a deviation above 0.",
    lambda r: np.sqrt(np.mean((r - r.sum() / len(r)) ** 2)) > 0 or r.std() > 1e-3)
_mutant("in_blocks", "Groups are taken to be G neighbours.", lambda r: r.max() > r.min(),
        ids=lambda p: np.arange(len(p)) // np.unique(p, return_counts=True)[1][0])  # fmt: skip
