"""Laws and mutants of process supervision."""

from __future__ import annotations

import math

import numpy as np

from ref.rl.common_laws import dyadics
from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, cases, choose, dims, rng

ID = "rl.process_advantages"


def _steps(draw, c):
    steps = np.arange(c.S) < rng(draw).integers(0, c.S + 1, (c.B, 1))
    steps[: c.P] = True  # every group has at least S steps
    return steps


space = cases(
    ID, P=dims(1, 2), G=dims(1, 3), B=lambda draw, c: c.P * c.G, S=dims(2, 3), T=dims(3, 6, large=20),
    ddof=choose(1, 0),
    eps=choose(1e-6, 0.25), prompts=lambda draw, c: np.tile(5 * np.arange(c.P) + 2, c.G), steps=_steps,
    ends=lambda draw, c: np.sort(rng(draw).integers(0, c.T, (c.B, c.S)), axis=1), rewards=dyadics("B S", -2, 2, 4),
    mask=lambda draw, c: rng(draw).random((c.B, c.T)) < 0.8,
    flags={
        "several": Flag(lambda c: c.P > 1 and c.G > 1, {"P": 2, "G": dims(2, 3)}),
        "ragged": Flag(lambda c: not np.all(c.steps), {"G": dims(2, 3), "S": dims(2, 3)}),
        "equal_group": Flag(lambda c: any(np.ptp(g) == 0 for g in groups(c)),
        {"rewards": lambda draw, c: np.full((c.B, c.S), 0.7)}),
    },
)  # fmt: skip


def groups(c):
    """The steps' rewards of each prompt."""
    return [np.asarray(c.rewards, np.float64)[c.prompts == p][np.asarray(c.steps)[c.prompts == p]]
        for p in np.unique(c.prompts)]


def definition(c):
    """(advantages, bound), response by response and token by token."""
    out, slack = np.zeros(c.mask.shape), np.zeros(c.mask.shape)
    for p, r in zip(np.unique(c.prompts), groups(c), strict=True):
        mean = math.fsum(r) / len(r)
        s = math.sqrt(math.fsum((v - mean) ** 2 for v in r) / (len(r) - c.ddof)) + c.eps
        for i in np.flatnonzero(c.prompts == p):
            for t in range(c.mask.shape[1]):
                own = [j for j in range(c.rewards.shape[1]) if c.steps[i, j] and c.ends[i, j] >= t]
                z = [(float(c.rewards[i, j]) - mean) / s if np.ptp(r) else 0.0 for j in own]
                out[i, t] = math.fsum(z)
                slack[i, t] = bounds.rounding(2 * c.rewards.size + 32, 2.0, c.dtype) / s * (1 + sum(map(abs, z))) * 2
    return np.where(c.mask, out, 0), slack


@law(ID, "L1", closed_form=True, given=space.reach("several", "ragged", "equal_group"),
     kills=["mean_of_the_response", "steps_before", "all_steps_everywhere", "end_excluded", "one_group_of_all",
     "steps_averaged",
            "padding_steps_counted"])  # fmt: skip
def value_is_the_definition(impl, c, expect):
    "Each token: the sum of the normalised rewards of its response's steps that end there or later; 0 where masked."
    wanted, slack = definition(c)
    found = impl(c)
    expect(found, wanted, slack, scale=max(1.0, float(np.max(np.abs(wanted)))))
    expect.same(found[~c.mask], np.zeros(int((~c.mask).sum())), "masked")


@law(ID, "L2", closed_form=True, given=space.where(P=1, G=dims(2, 3)), kills=["end_excluded"])
def one_step_is_outcome_supervision(impl, c, expect):
    "One step a response, at its last token: (r - mean) / (std + eps) of the group at every token."
    steps = np.zeros(c.steps.shape, bool)
    steps[:, 0] = True
    now = c.replace(steps=steps, ends=np.full(c.ends.shape, c.T - 1), mask=np.ones((c.B, c.T), bool))
    r = np.asarray(c.rewards, np.float64)[:, 0]
    a = (r - r.mean()) / (r.std(ddof=c.ddof) + c.eps) if np.ptp(r) else 0 * r
    expect(impl(now), np.repeat(a[:, None], c.T, 1), definition(now)[1], scale=max(1.0, float(np.max(np.abs(a)))))


@law(ID, "L3", given=space.where(G=dims(2, 3)), kills=["steps_before"], passes_null=["zeros"])
def advantages_fall_step_by_step(impl, c, expect):
    "Where no step ends between two tokens their advantages are equal, and after the last step they are 0."
    full = c.replace(mask=np.ones((c.B, c.T), bool))
    found, slack = impl(full), definition(full)[1]
    for i in range(c.B):
        ends = set(np.asarray(c.ends)[i][np.asarray(c.steps)[i]].tolist())
        for t in range(c.T - 1):
            if t not in ends:
                expect(found[i, t], found[i, t + 1], 2 * slack[i, t], f"tokens {t}, {t + 1}", scale=2.0)
        after = max(ends, default=-1) + 1
        expect.same(found[i, after:], np.zeros(c.T - after), "after the last step")


@law(ID, "L4", given=space.where(ragged=True), kills=["steps_by_multiplying"], passes_null=["zeros", "constant"])
def junk_steps_are_invisible(impl, c, expect):
    "NaN and 1e30 in steps that are none, and places out of range for them, change no bit."
    for junk, place in ((np.nan, 99), (1e30, -99)):
        rewards = np.where(c.steps, c.rewards, c.rewards.dtype.type(junk))
        expect.same(impl(c.replace(rewards=rewards, ends=np.where(c.steps, c.ends, place))), impl(c))


# Mutants ---------------------------------------------------------------------------------------------


def one_step(**options):
    """The default-size test: two responses of one token and one step, of equal rewards."""
    args = (np.ones((2, 1)), np.ones((2, 1), bool), np.zeros((2, 1), int), np.zeros(2, int), np.ones((2, 1), bool))
    return lambda: (args, options)


def plain(rewards, steps, ends, prompts, mask, *, ddof=1, eps=1e-6, **edit):
    r = edit.get("hide", lambda r, s: np.where(s, r, 0))(rewards, steps).astype(np.float64)
    out = np.zeros(mask.shape)
    ids = edit.get("ids", lambda p: p)(prompts)
    for i in range(len(r)):
        own = ids == ids[i]
        pool = r[i][steps[i]] if edit.get("response") else r[own][steps[own] if not edit.get("padded")
            else np.ones_like(steps[own])]
        mean = pool.mean() if len(pool) else 0.0
        if "hide" in edit:
            mean = r[own].sum() / max(steps[own].sum(), 1)
        s = np.sqrt(((pool - mean) ** 2).sum() / max(len(pool) - ddof, 1)) + eps
        z = (r[i] - mean) / s if len(pool) and np.ptp(pool) else 0 * r[i]
        z = z * steps[i] if edit.get("multiplies") else np.where(steps[i], z, 0)
        for t in range(mask.shape[1]):
            chosen = edit.get("chosen", lambda ends, t: ends >= t)(ends[i], t)
            total = np.where(chosen, z, 0).sum()
            out[i, t] = total / max((chosen & steps[i]).sum(), 1) if edit.get("average") else total
    return np.where(mask, out, 0).astype(rewards.dtype)


def _mutant(name, doc, **edit):
    def function(*args, **options):
        return plain(*args, **options, **edit)

    function.__name__, function.__doc__ = name, doc
    mutant(ID, default_case=one_step())(function)


_mutant("mean_of_the_response", "Normalised within each response.", response=True)
_mutant("steps_before", "The steps that ended so far.", chosen=lambda ends, t: ends <= t)
_mutant("all_steps_everywhere", "All of a response's steps at every token.", chosen=lambda ends, t: ends >= -1)
_mutant("end_excluded", "A step's own last token no longer counts it.", chosen=lambda ends, t: ends > t)
_mutant("one_group_of_all", "One mean for all prompts.", ids=lambda p: np.zeros_like(p))
_mutant("steps_averaged", "The mean of the remaining steps, not their sum.", average=True)
_mutant("steps_by_multiplying", "Rewards times the mask of steps: NaN stays.", hide=lambda r, s: r, multiplies=True)
_mutant("padding_steps_counted", "Steps that are none count as zeros.", padded=True)
