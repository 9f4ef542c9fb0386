"""Laws and mutants of Monte Carlo control with exploring starts."""

from __future__ import annotations

import numpy as np

from ref.mdp.common_laws import model_space, quarters, ring
from ref.spec import bounds, law, mutant
from ref.spec.cases import choose, dims, rng

ID = "mdp.mc_exploring_starts"


def _starts(draw, c):
    g = rng(draw)
    return np.stack([g.integers(0, c.S, c.n), g.integers(0, c.A, c.n)], 1).reshape(c.n, 2)


def _uniform(draw, c):
    return np.floor(rng(draw).random((c.n, c.T, 2)) * 2**10) / 2**10


space = model_space(
    ID, S=dims(1, 3), A=dims(1, 2), q=quarters("S", "A"), n=choose(4, 3, 0, 5), T=dims(1, 4), starts=_starts,
    noise=_uniform,
    gamma=choose(0.5, 0.75, 1.0, 0.0), visit=choose("first", "every"),
)  # fmt: skip
space = space._replace(flags={n: space.flags[n] for n in ("one_state", "one_action", "chancy")})


def size(c):
    return (c.T + 1) * np.max(np.abs(c.R)) + np.max(np.abs(c.q)) + 0.25


def bound(c):
    return bounds.rounding(3 * c.T + c.n * c.T + 4, size(c), c.dtype)


def drawn(chance, u):
    return int(np.sum(np.cumsum(chance) <= u))


def by_hand(P, R, q, starts, noise, *, gamma, visit="first", **edit):
    """Episodes with lists of returns, as the book has them, whose parts an edit replaces: (q, counts)."""
    S, A = R.shape
    lists, q = {p: [] for p in np.ndindex(S, A)}, np.asarray(q, np.float64).copy()
    first_q = q.copy()
    for (s, a), u in zip(starts.tolist(), noise, strict=True):
        steps = []
        policy = edit.get("choose", lambda q, first: q.argmax(1))(q, first_q)
        a = a if edit.get("explore", True) else int(policy[s])
        for t in range(len(u)):
            steps.append((s, a, float(R[s, a])))
            s = drawn(P[s, a], u[t, 1])
            a = int(policy[s])
        g, found = 0.0, []
        for pair in reversed(steps):
            g = pair[2] + edit.get("gamma", gamma) * g
            found.append((pair[:2], g))
        found = found[:: -1 if edit.get("forward", True) else 1]
        met = set()
        for pair, g in found:
            if edit.get("visit", visit) == "every" or pair not in met:
                if edit.get("forget"):
                    lists[pair] = []
                lists[pair].append(g)
            met.add(pair)
        for pair, returns in lists.items():
            if returns:
                q[pair] = edit.get("mean", np.mean)(returns)
            elif edit.get("unmet") is not None:
                q[pair] = edit["unmet"]
    counts = np.array([len(lists[p]) for p in np.ndindex(S, A)]).reshape(S, A)
    return q.astype(R.dtype), counts


def spread(c):
    """The case with rewards that no two ways share, so that no rounding decides which action is best."""
    g = np.random.default_rng(5)
    R = c.R + np.where(c.R == 0, 0, g.integers(1, 200, c.R.shape) / 4096)
    return c.replace(R=R.astype(c.dtype))


@law(
    ID, "L1", closed_form=True, given=space.where(S=1, T=1, P=lambda draw, c: np.ones((1, c.A, 1))),
    kills=["starts_do_not_explore", "unmet_is_zero", "starts_from_the_given_q"],
)  # fmt: skip
def bandit_is_a_sample_mean(impl, c, expect):
    "One state, one step: q(a) = R(a) for every arm that was started with, the given q for the others; counts exact."
    q, counts = impl(c)
    often = np.bincount(c.starts[:, 1], minlength=c.A)
    expect.same(counts[0], often, "counts")
    expect(q[0], np.where(often > 0, c.R[0], c.q[0]), bound(c), "q", scale=size(c))


@law(
    ID, "L2", closed_form=True, given=space.reach("one_state", "one_action", "chancy"),
    kills=["every_visit_always", "last_visits", "policy_is_never_improved", "undiscounted", "forgets_older_returns",
           "starts_do_not_explore", "worst_action"],
)  # fmt: skip
def means_by_hand(impl, c, expect):
    "Every episode played by hand: returns of its visits put on lists, q the mean of a list, the policy greedy for q."
    c = spread(c)
    wanted, often = by_hand(c.P, c.R.astype(np.float64), c.q, c.starts, c.noise, gamma=c.gamma, visit=c.visit)
    q, counts = impl(c)
    expect.same(counts, often, "counts")
    expect(q, wanted, bound(c), "q", scale=size(c))


@law(
    ID, "L3", closed_form=True, given=space.where(
        S=1, A=1, n=1, T=dims(2, 4), gamma=1.0, P=lambda draw, c: np.ones((1, 1, 1)), 
        R=lambda draw, c: np.ones((1, 1))),
    kills=["every_visit_always", "last_visits"],
)  # fmt: skip
def visits_on_the_state_that_stays(impl, c, expect):
    "One state, one action, reward 1, T steps: q = T by first visits, (T + 1) / 2 by every visit."
    q, counts = impl(c)
    wanted = (c.T, 1) if c.visit == "first" else ((c.T + 1) / 2, c.T)
    expect(q, np.full((1, 1), wanted[0]), bound(c), "q")
    expect.same(counts, np.full((1, 1), wanted[1]), "counts")


@law(ID, "L4", given=space.where(n=dims(2, 5), A=1), kills=["forgets_older_returns"],
     passes_null=["zeros", "constant", "identity"])  # fmt: skip
def order_of_starts_matters_by_the_policy_alone(impl, c, expect):
    "With a single action there is one policy, and the episodes in any order give the same q and counts."
    q, counts = impl(c)
    back, same = impl(c.replace(starts=c.starts[::-1].copy(), noise=c.noise[::-1].copy()))
    expect.same(same, counts, "counts")
    expect(back, np.asarray(q, np.float64), 2 * bound(c), "q", scale=size(c))


# Mutants ---------------------------------------------------------------------------------------------


def alike(n=2, T=1, q=1.0, visit="first"):
    """The default-size test: one state and one action, of reward 1 and worth 1."""
    P, R = ring(1)
    return lambda: ((P, R, np.full((1, 1), q), np.zeros((n, 2), int), np.full((n, T, 2), 0.5)),
                    {"gamma": 0.5, "visit": visit})  # fmt: skip


@mutant(ID, default_case=alike())
def every_visit_always(*args, visit="first", **options):
    "visit is taken and not used."
    return by_hand(*args, **options, visit="every")


@mutant(ID, default_case=alike())
def last_visits(*args, **options):
    "Backwards through the episode, keeping what is met first: the last visit."
    return by_hand(*args, **options, forward=False)


@mutant(ID, default_case=alike())
def policy_is_never_improved(*args, **options):
    "Every episode by the first policy."
    return by_hand(*args, **options, choose=lambda q, first: first.argmax(1))


@mutant(ID, default_case=alike())
def worst_action(*args, **options):
    "argmin."
    return by_hand(*args, **options, choose=lambda q, first: q.argmin(1))


@mutant(ID, default_case=alike())
def undiscounted(*args, gamma, **options):
    "gamma is taken and not used."
    return by_hand(*args, gamma=1.0, **options)


@mutant(ID, default_case=alike(n=1))
def forgets_older_returns(*args, **options):
    "The mean of the last episode's returns."
    return by_hand(*args, **options, forget=True)


@mutant(ID, default_case=alike())
def starts_do_not_explore(*args, **options):
    "The first action is the policy's."
    return by_hand(*args, **options, explore=False)


@mutant(ID, default_case=alike())
def unmet_is_zero(*args, **options):
    "What was never met is worth 0."
    return by_hand(*args, **options, unmet=0.0)


@mutant(ID, default_case=alike())
def starts_from_the_given_q(P, R, q, starts, noise, **options):
    "The given q counts as a first return."
    found, counts = by_hand(P, R, q, starts, noise, **options)
    return ((found * counts + q) / (counts + 1)).astype(R.dtype), counts
