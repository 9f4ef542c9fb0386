"""Laws and mutants of Monte Carlo control with epsilon-greedy policies."""

from __future__ import annotations

import itertools

import numpy as np

from ref.mdp.common_laws import model_space, quarters, ring
from ref.spec import bounds, law, mutant
from ref.spec.cases import choose, dims, rng

ID = "mdp.mc_epsilon_greedy"


def _uniform(draw, c):
    return np.floor(rng(draw).random((c.k, c.n, c.T, 2)) * 2**10) / 2**10


space = model_space(
    ID, S=dims(1, 3), A=dims(1, 2), q=quarters("S", "A"), k=choose(3, 4, 0, 2), n=dims(1, 2), T=dims(1, 4),
    start=lambda draw, c: rng(draw).integers(0, c.S, (c.k, c.n)), noise=_uniform, gamma=choose(0.5, 0.75, 1.0, 0.0),
    epsilon=choose(0.5, 0.0, 1.0, 0.25), visit=choose("first", "every"), forget=choose(False, True), seed=dims(0, 999),
)  # fmt: skip
space = space._replace(flags={n: space.flags[n] for n in ("one_state", "one_action", "chancy")})


def size(c):
    return (c.T + 1) * np.max(np.abs(c.R)) + np.max(np.abs(c.q)) + 0.25


def bound(c):
    return bounds.rounding(3 * c.T + c.k * c.n * c.T + 4, size(c), c.dtype)


def drawn(chance, u):
    return int(np.sum(np.cumsum(chance) <= u))


def by_hand(P, R, q, start, noise, *, gamma, epsilon, visit="first", forget=False, **edit):
    """Rounds of episodes with lists of returns, whose parts an edit replaces: (q, counts)."""
    S, A = R.shape
    lists, q = {p: [] for p in np.ndindex(S, A)}, np.asarray(q, np.float64).copy()
    epsilon = edit.get("curious", lambda e: e)(epsilon)
    for k in range(len(noise)):
        policy = np.full((S, A), epsilon / A)
        policy[np.arange(S), edit.get("choose", lambda q: q.argmax(1))(q)] += 1 - epsilon
        met_this_round = set()
        for s, u in zip(start[k].tolist(), noise[k], strict=True):
            steps = []
            for t in range(len(u)):
                a = drawn(policy[s], u[t, 0])
                steps.append((s, a, float(R[s, a])))
                s = drawn(P[s, a], u[t, 1])
            g, found = 0.0, []
            for pair in reversed(steps):
                g = pair[2] + gamma * g
                found.append((pair[:2], g))
            met = set()
            for pair, g in reversed(found):
                if edit.get("visit", visit) == "every" or pair not in met:
                    if edit.get("forget", forget) and pair not in met_this_round:
                        lists[pair] = []
                    met_this_round.add(pair)
                    lists[pair].append(g)
                met.add(pair)
            if edit.get("at_once"):
                q = _means(lists, q)
                policy = np.full((S, A), epsilon / A)
                policy[np.arange(S), q.argmax(1)] += 1 - epsilon
        q = _means(lists, q)
    counts = np.array([len(lists[p]) for p in np.ndindex(S, A)]).reshape(S, A)
    return q.astype(R.dtype), counts


def _means(lists, q):
    q = q.copy()
    for pair, returns in lists.items():
        if returns:
            q[pair] = np.mean(returns)
    return q


def tree(seed):
    """(P, R): state 0 leads to 1 or 2, both to the end 3, so that two steps are a whole episode; sure outcomes."""
    P = np.zeros((4, 2, 4))
    P[0, 0, 1] = P[0, 1, 2] = 1
    P[1:, :, 3] = 1
    R = np.zeros((4, 2))
    R[:3] = np.random.default_rng(seed).permutation(6).reshape(3, 2) / 2.0
    return P, R


def all_episodes(k, epsilon):
    """Noise [k n 2 2] on the points of a grid that meets the policy's chances exactly; n = levels^2 episodes."""
    levels = 4 if epsilon == 0.5 else 8
    grid = (np.array(list(itertools.product(range(levels), repeat=2))) + 0.5) / levels
    return np.broadcast_to(np.stack([grid, np.full_like(grid, 0.5)], -1), (k, len(grid), 2, 2)).copy()


def soft_values(R, epsilon, gamma, best):
    """q[4 2] and v[4] on the tree of the eps-greedy policy whose best actions are given."""
    mean = [(1 - epsilon) * R[s, best[s]] + epsilon * R[s].mean() for s in range(4)]
    q = R.copy()
    q[0] += gamma * np.array([mean[1], mean[2]])
    return q, np.array([(1 - epsilon) * q[0, best[0]] + epsilon * q[0].mean(), *mean[1:]])


@law(
    ID, "L1", closed_form=True, dtypes=("float64",),
    given=space.where(S=4, A=2, T=2, epsilon=choose(0.5, 0.25), gamma=choose(0.5, 0.75, 1.0), forget=True, k=dims(1, 3),
                      q=lambda draw, c: rng(draw).permutation(8).reshape(4, 2) / 4.0),
    kills=["greedy_episodes", "others_alone", "worst_action", "forgets_never"],
)  # fmt: skip
def soft_policy_iteration_by_enumeration(impl, c, expect):
    """A tree of two steps, all episodes of each round as often as their chances say: q is that of the eps-greedy policy
    of the round before, exactly policy iteration over eps-soft policies."""
    P, R = tree(c.seed)
    noise = all_episodes(c.k, c.epsilon)
    start = np.zeros(noise.shape[:2], int)
    q = np.asarray(c.q, np.float64)
    for _ in range(c.k):
        q, _ = soft_values(R, c.epsilon, c.gamma, q.argmax(1))
    found, _ = impl(c.replace(P=P, R=R, noise=noise, start=start, n=noise.shape[1]))
    expect(found[:3], q[:3], 1e-12, scale=4.0)


@law(
    ID, "L2", closed_form=True, dtypes=("float64",),
    given=space.where(S=4, A=2, T=2, epsilon=choose(0.5, 0.25), gamma=choose(0.5, 1.0), forget=True, k=3,
                      q=lambda draw, c: np.zeros((4, 2))),
    kills=["greedy_episodes", "worst_action", "others_alone"],
)  # fmt: skip
def limit_is_the_soft_optimum(impl, c, expect):
    """Three such rounds settle: the q of the best of all eps-soft policies, found by trying all; its value is below v*
    wherever another action is worse, by eps at work."""
    P, R = tree(c.seed)
    noise = all_episodes(3, c.epsilon)
    found, _ = impl(c.replace(P=P, R=R, noise=noise, start=np.zeros(noise.shape[:2], int), n=noise.shape[1]))
    each = [soft_values(R, c.epsilon, c.gamma, best) for best in itertools.product((0, 1), repeat=4)]
    q, v = max(each, key=lambda qv: qv[1][0])
    expect(found[:3], q[:3], 1e-12, "q of the soft optimum", scale=4.0)
    optimum = np.max(R[0] + c.gamma * R[1:3].max(1))
    soft = (1 - c.epsilon) * found[0].max() + c.epsilon * found[0].mean()
    expect.at_most(soft, optimum - 0.5 * c.epsilon * (optimum - np.min(found[0])), "the soft value")
    expect(soft, np.array(v[0]), 1e-12, "the soft value", scale=4.0)


def spread(c):
    """The case with rewards that no two ways share, so that no rounding decides which action is best."""
    g = np.random.default_rng(5)
    R = c.R + np.where(c.R == 0, 0, g.integers(1, 200, c.R.shape) / 4096)
    return c.replace(R=R.astype(c.dtype))


@law(
    ID, "L3", closed_form=True, given=space.reach("one_state", "one_action", "chancy"),
    kills=["every_visit_always", "greedy_episodes", "forgets_always", "forgets_never", "updates_within_a_round",
           "worst_action", "undiscounted"],
)  # fmt: skip
def means_by_hand(impl, c, expect):
    "Every episode played by hand: returns put on lists by round, q the mean of a list, the policy eps-greedy for q."
    c = spread(c)
    options = {"gamma": c.gamma, "epsilon": c.epsilon, "visit": c.visit, "forget": c.forget}
    wanted, often = by_hand(c.P, c.R.astype(np.float64), c.q, c.start, c.noise, **options)
    q, counts = impl(c)
    expect.same(counts, often, "counts")
    expect(q, wanted, bound(c), "q", scale=size(c))


@law(
    ID, "L4", given=space.where(n=1, k=dims(2, 4), A=1, forget=False), kills=["forgets_always"],
    passes_null=["zeros", "constant", "identity"],
)  # fmt: skip
def rounds_of_one_forget_nothing(impl, c, expect):
    "One action and no forgetting: k rounds of one episode are one round of k, in any order."
    q, counts = impl(c)
    one = impl(c.replace(k=1, n=c.k, start=c.start[::-1].reshape(1, c.k).copy(),
                         noise=c.noise[::-1].reshape(1, c.k, c.T, 2).copy()))  # fmt: skip
    expect.same(one[1], counts, "counts")
    expect(one[0], np.asarray(q, np.float64), 2 * bound(c), "q", scale=size(c))


# Mutants ---------------------------------------------------------------------------------------------


def alike(k=1, n=1, T=1, epsilon=0.5):
    """The default-size test: one state and one action, of reward 1 and worth 1."""
    P, R = ring(1)
    return lambda: ((P, R, np.ones((1, 1)), np.zeros((k, n), int), np.full((k, n, T, 2), 0.5)),
                    {"gamma": 0.5, "epsilon": epsilon})  # fmt: skip


@mutant(ID, default_case=alike())
def every_visit_always(*args, visit="first", **options):
    "visit is taken and not used."
    return by_hand(*args, **options, visit="every")


@mutant(ID, default_case=alike())
def greedy_episodes(*args, **options):
    "eps is taken and not used."
    return by_hand(*args, **options, curious=lambda e: 0.0)


@mutant(ID, default_case=alike(epsilon=0.0))
def others_alone(*args, **options):
    "Exploring never draws the best action: eps, and not eps / A, goes to the other of two."
    return by_hand(*args, **options, curious=lambda e: min(2 * e, 1.0))


@mutant(ID, default_case=alike())
def worst_action(*args, **options):
    "argmin."
    return by_hand(*args, **options, choose=lambda q: q.argmin(1))


@mutant(ID, default_case=alike())
def forgets_always(*args, forget=False, **options):
    "The mean of the last round's returns alone."
    return by_hand(*args, **options, forget=True)


@mutant(ID, default_case=alike())
def forgets_never(*args, forget=False, **options):
    "forget is taken and not used."
    return by_hand(*args, **options, forget=False)


@mutant(ID, default_case=alike())
def updates_within_a_round(*args, **options):
    "The policy changes after each episode of a round."
    return by_hand(*args, **options, at_once=True)


@mutant(ID, default_case=alike())
def undiscounted(*args, gamma, **options):
    "gamma is taken and not used."
    return by_hand(*args, gamma=1.0, **options)
