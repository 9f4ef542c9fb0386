"""Laws and mutants of Monte Carlo prediction."""

from __future__ import annotations

import numpy as np

from ref.mdp.common_laws import shaped
from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, cases, choose, dims, ints, rng

ID = "mdp.monte_carlo"
INT = np.dtype(np.int64)
space = cases(
    ID, n=dims(0, 4), T=dims(0, 5), S=dims(1, 3), num_states=lambda draw, c: c.S, states=ints("n T", 0, "S"),
    rewards=lambda draw, c: rng(draw).integers(-8, 9, (c.n, c.T)) / 4.0,
    lengths=lambda draw, c: rng(draw).integers(0, c.T + 1, c.n), gamma=choose(0.75, 1.0, 0.5, 0.0),
    visit=choose("first", "every"),
    flags={
        "none": Flag(lambda c: c.n * c.T == 0, {"n": 0}),
        "again": Flag(lambda c: any(len(set(s[:k])) < k for s, k in zip(c.states.tolist(), c.lengths, strict=True)),
                      {"n": dims(1, 4), "T": dims(3, 5), "S": 1, "lengths": lambda draw, c: np.full(c.n, c.T)}),
        "short": Flag(lambda c: bool((c.lengths < c.T).any()), {"n": dims(1, 4), "T": dims(1, 5)}),
    },
)  # fmt: skip


def bound(c):
    return bounds.rounding(2 * c.T + c.n * c.T + 4, size(c), c.dtype)


def size(c):
    return (c.T + 1) * (np.max(np.abs(c.rewards), initial=0) + 0.25)


@law(
    ID, "L1", closed_form=True, given=space.reach("none", "again", "short"),
    kills=["every_visit_always", "last_visits", "mean_over_episodes", "undiscounted", "reads_beyond_the_end",
           "without_the_first_reward", "from_the_start"],
)  # fmt: skip
def mean_of_direct_sums(impl, c, expect):
    "V(s) = mean of sum_i gamma^i r_{t+i} over the counted visits, each summed directly; 0 where there is none."
    found = [[] for _ in range(c.S)]
    for i in range(c.n):
        met = set()
        for t in range(int(c.lengths[i])):
            s = int(c.states[i, t])
            if c.visit == "every" or s not in met:
                found[s].append(sum(c.gamma ** (j - t) * float(c.rewards[i, j]) for j in range(t, int(c.lengths[i]))))
            met.add(s)
    values, counts = shaped(expect, impl(c), (c.dtype, (c.S,)), (INT, (c.S,)))
    expect.same(counts, np.array([len(x) for x in found]), "counts")
    expect(values, np.array([sum(x) / max(len(x), 1) for x in found]), bound(c), "values", scale=size(c))


@law(
    ID, "L2", closed_form=True, 
    given=space.where(n=1, T=24, S=1, gamma=1.0, states=lambda draw, c: np.zeros((1, 24), int)),
    kills=["every_visit_always", "last_visits", "without_the_first_reward", "mean_over_episodes"],
    passes_null=["mutated"],  # the states are zeros already
)  # fmt: skip
def bias_on_the_chain_that_stays(impl, c, expect):
    """One state that stays with chance 1/2, reward 1: V = 2. Over lengths 1 .. 24 by their chances 2^-L (the rest is
    below 2^-18), the estimate from one episode has the mean V by first visits, (V + 1) / 2 by every visit."""
    mean = 0.0
    for L in range(1, 25):
        now = c.replace(rewards=np.ones((1, 24), c.dtype), lengths=np.array([L]))
        mean += 2.0**-L * float(shaped(expect, impl(now), (c.dtype, (1,)), (INT, (1,)))[0][0])
    wanted = 2.0 if c.visit == "first" else 1.5
    expect(np.array(mean), np.array(wanted), 2.0**-18 + bounds.rounding(60, 4.0, c.dtype))


@law(ID, "L3", given=space.where(short=True), kills=["reads_beyond_the_end"],
     passes_null=["zeros", "constant", "nan"])  # fmt: skip
def what_lies_behind_the_end_is_invisible(impl, c, expect):
    "NaN rewards and states that are not there, behind the length, change no bit."
    beyond = np.arange(c.T) >= c.lengths[:, None]
    junk = c.replace(rewards=np.where(beyond, np.nan, c.rewards).astype(c.dtype),
                     states=np.where(beyond, 99, c.states))  # fmt: skip
    for name, x, y in zip(
        ("values", "counts"), shaped(expect, impl(junk), (c.dtype, (c.S,)), (INT, (c.S,))), impl(c), strict=True
    ):
        expect.same(x, y, name)


@law(
    ID, "L4", given=space.where(S=3, T=3, n=dims(1, 4), states=lambda draw, c: np.stack(
        [rng(draw).permutation(3) for _ in range(c.n)])), kills=["last_in_the_batch"],
    passes_null=["zeros", "constant", "nan"],
)  # fmt: skip
def without_return_the_two_agree(impl, c, expect):
    "Where no episode comes to a state twice, first visits and every visit give the same bits."
    first, every = (
        shaped(expect, impl(c.replace(visit=v)), (c.dtype, (c.S,)), (INT, (c.S,))) for v in ("first", "every")
    )
    for name, x, y in zip(("values", "counts"), first, every, strict=True):
        expect.same(x, y, name)


# Mutants ---------------------------------------------------------------------------------------------


def once(visit="first", gamma=1.0):
    """The default-size test: two episodes of one step, in two states."""
    return lambda: ((np.array([[0], [1]]), np.ones((2, 1)), np.array([1, 1])),
                    {"num_states": 2, "gamma": gamma, "visit": visit})  # fmt: skip


def averaged(states, rewards, lengths, *, num_states, gamma, visit="first", **edit):
    """The means in plain loops, whose parts an edit replaces."""
    total, counts = np.zeros(num_states), np.zeros(num_states, int)
    met_at_all = set()
    for i in range(len(states)):
        L = int(edit.get("length", lambda L, T: L)(lengths[i], states.shape[1]))
        met, order = set(), range(L)
        for t in reversed(order) if edit.get("backwards") else order:
            s = int(states[i, t]) % num_states
            seen = met_at_all if edit.get("batch") and visit == "first" else met
            if edit.get("visit", visit) == "every" or s not in seen:
                total[s] += sum(edit.get("power", lambda t, j: gamma ** (j - t))(t, j) * rewards[i, j]
                                for j in range(t + edit.get("skip", 0), L))  # fmt: skip
                counts[s] += 1
            met.add(s)
            met_at_all.add(s)
    below = edit.get("below", lambda counts, n: np.maximum(counts, 1))(counts, len(states))
    return (total / below).astype(rewards.dtype), counts


@mutant(ID, default_case=once())
def every_visit_always(*args, visit="first", **options):
    "visit is taken and not used."
    return averaged(*args, **options, visit="every")


@mutant(ID, default_case=once())
def last_visits(*args, **options):
    "Backwards through the episode, keeping the first that is met: the last visit."
    return averaged(*args, **options, backwards=True)


@mutant(ID, default_case=once())
def last_in_the_batch(*args, **options):
    "First visits of the whole batch: later episodes do not count."
    return averaged(*args, **options, batch=True)


@mutant(ID, default_case=lambda: ((np.array([[0]]), np.ones((1, 1)), np.array([1])), {"num_states": 1, "gamma": 1.0}))
def mean_over_episodes(*args, **options):
    "The sum over the number of episodes, visited or not."
    return averaged(*args, **options, below=lambda counts, n: max(n, 1))


@mutant(ID, default_case=once())
def undiscounted(*args, **options):
    "gamma is taken and not used."
    return averaged(*args, **options, power=lambda t, j: 1.0)


@mutant(ID, default_case=once())
def from_the_start(*args, gamma, **options):
    "gamma^j for gamma^(j - t)."
    return averaged(*args, gamma=gamma, **options, power=lambda t, j: gamma**j)


@mutant(ID, default_case=once())
def reads_beyond_the_end(*args, **options):
    "The lengths are not looked at."
    return averaged(*args, **options, length=lambda L, T: T)


@mutant(ID, default_case=lambda: ((np.array([[0]]), np.zeros((1, 1)), np.array([1])), {"num_states": 1, "gamma": 1.0}))
def without_the_first_reward(*args, **options):
    "The return from the next step on."
    return averaged(*args, **options, skip=1)
