"""Laws and mutants of rollouts."""

from __future__ import annotations

import itertools

import numpy as np

from ref.mdp.common_laws import chances, model_space, policies, ring, uniform
from ref.spec import law, mutant
from ref.spec.cases import Flag, dims, ints, rng

ID = "mdp.rollout"


def _noise(draw, c):
    """Uniform draws, some of them on the very edges of dyadic chances, where a sum is met exactly."""
    g = rng(draw)
    return np.where(g.random((c.n, c.T, 2)) < 0.5, g.integers(0, 8, (c.n, c.T, 2)) / 8, g.random((c.n, c.T, 2)) * 0.999)


space = model_space(
    ID, policy=policies, n=dims(0, 3), T=dims(0, 4), start=ints("n", 0, "S"), noise=_noise, first_actions=None,
    seed=dims(0, 99),
)  # fmt: skip
space = space._replace(flags={**space.flags, "none": Flag(lambda c: c.n * c.T == 0, {"n": 0})})
some = space.where(n=dims(1, 3), T=dims(1, 4))
NAMES = ("states", "actions", "rewards", "next_states")


@law(
    ID, "L1", closed_form=True, dtypes=("float64",), given=space.where(S=2, A=2, n=2, T=2),
    kills=["one_noise_for_both", "likeliest", "policy_of_the_first_state", "reward_of_the_next_state"],
)  # fmt: skip
def every_way_has_its_chance(impl, c, expect):
    """Chances in quarters, the noise on all points (i + 1/2) / 4: of the 4^(2 T) trajectories from state 0 each way
    comes as often as its chance says, the product of policy and P along it, and pays R along it."""
    g = np.random.default_rng(c.seed)
    P, policy = chances(g, (2, 2, 2), 4), chances(g, (2, 2), 4)
    grid = (np.array(list(itertools.product(range(4), repeat=4))) + 0.5) / 4
    now = c.replace(P=P, policy=policy, noise=grid.reshape(-1, 2, 2), start=np.zeros(len(grid), int), n=len(grid))
    states, actions, rewards, nexts = impl(now)
    code = (actions[:, 0] * 2 + nexts[:, 0]) * 4 + actions[:, 1] * 2 + nexts[:, 1]
    expect.holds(bool(((code >= 0) & (code < 16)).all()), "the states and actions are there")
    seen = np.bincount(code.astype(int), minlength=16)
    for i, (a, s, b, t) in enumerate(itertools.product(range(2), repeat=4)):
        chance = policy[0, a] * P[0, a, s] * policy[s, b] * P[s, b, t]
        expect.same(seen[i], np.array(round(chance * len(grid))), f"way {(a, s, b, t)}")
        if seen[i]:
            paid = rewards[code == i][0]
            expect.same(paid, np.array([c.R[0, a], c.R[s, b]]), f"rewards of way {(a, s, b, t)}")
    expect.same(states[:, 1:], nexts[:, :-1], "the state after is the next state before")


def drawn(chance, u):
    total = 0.0
    for i, p in enumerate(chance):
        total += float(p)
        if u < total:
            return i
    return max(i for i, p in enumerate(chance) if p > 0)


@law(
    ID, "L2", closed_form=True, given=space.reach("none", "chancy", "absorbing"),
    kills=["at_most_not_below", "one_noise_for_both", "noise_swapped", "reward_of_the_next_state", "next_is_current",
           "policy_of_the_first_state", "starts_over_at_ends"],
)  # fmt: skip
def inverse_transform_by_loops(impl, c, expect):
    "a_t and s_{t+1} are the first whose running sum of chances is above the noise, a number at a time."
    wanted = {name: np.zeros((c.n, c.T), c.dtype if name == "rewards" else int) for name in NAMES}
    for i in range(c.n):
        s = int(c.start[i])
        for t in range(c.T):
            a = drawn(c.policy[s], float(c.noise[i, t, 0]))
            to = drawn(c.P[s, a], float(c.noise[i, t, 1]))
            for name, x in zip(NAMES, (s, a, c.R[s, a], to), strict=True):
                wanted[name][i, t] = x
            s = to
    for name, found in zip(NAMES, impl(c), strict=True):
        expect.same(found, wanted[name], name)


@law(
    ID, "L3", closed_form=True, given=some.reach("chancy"), kills=["at_most_not_below", "last_by_rounding"],
)  # fmt: skip
def what_has_no_chance_is_not_drawn(impl, c, expect):
    "At noise 0 and just below 1, with chances that sum to 1 - 4 eps as rounding may leave them: chance 0 is not drawn."
    eps, P = np.finfo(c.dtype).eps, c.P.copy()
    top = P.argmax(-1)[..., None]
    np.put_along_axis(P, top, np.take_along_axis(P, top, -1) - 4 * eps, -1)
    policy = c.policy
    for u in (0.0, 1 - eps / 2):
        now = c.replace(noise=np.full(c.noise.shape, u, c.dtype), P=P)
        s, a, r, t = impl(now)
        for x, top in ((s, c.S), (a, c.A), (t, c.S)):
            expect.holds(bool(((x >= 0) & (x < top)).all()), "the states and actions are there")
        expect.holds(bool((policy[s, a] > 0).all()), f"every action drawn at {u} has a chance")
        expect.holds(bool((c.P[s, a, t] > 0).all()), f"every state drawn at {u} has a chance")
        expect.same(r, c.R[s, a], "rewards")


@law(
    ID, "L4", closed_form=True, given=some.where(A=dims(2, 3)),
    kills=["first_actions_ignored", "first_actions_for_ever"],
)  # fmt: skip
def first_actions_are_taken(impl, c, expect):
    "Given first actions are the first ones, pay their R, and the noise decides from there on."
    given = (np.arange(c.n) + c.seed) % c.A
    s, a, r, t = impl(c.replace(first_actions=given))
    expect.same(a[:, 0], given, "the first actions")
    expect.same(r[:, 0], c.R[c.start, given], "their rewards")
    if c.T > 1:
        rest = c.replace(start=t[:, 0].copy(), noise=c.noise[:, 1:].copy(), T=c.T - 1)
        for name, found, wanted in zip(NAMES, (s, a, r, t), impl(rest), strict=True):
            expect.same(found[:, 1:], wanted, f"{name} from there on")


@law(ID, "L5", given=some.where(n=dims(2, 3)), kills=["noise_of_the_first"], passes_null=["zeros", "constant"])
def trajectories_do_not_mix(impl, c, expect):
    "A trajectory alone, with its own noise, is what it is among others."
    whole = impl(c)
    for i in range(c.n):
        alone = impl(c.replace(start=c.start[i : i + 1].copy(), noise=c.noise[i : i + 1].copy(), n=1))
        for name, x, wanted in zip(NAMES, alone, whole, strict=True):
            expect.same(x[0], wanted[i], f"{name} of trajectory {i}")


# Mutants ---------------------------------------------------------------------------------------------


def sure(S=1, reward=1.0):
    """The default-size test: one state and one action."""
    P, R = ring(S, 1, reward)
    return lambda: ((P, R, uniform(S, 1), np.zeros(2, int), np.full((2, 3, 2), 0.5)), {})


def played(P, R, policy, start, noise, *, first_actions=None, **edit):
    """The trajectories in plain loops, whose parts an edit replaces."""
    n, T = noise.shape[:2]
    out = np.zeros((n, T), int), np.zeros((n, T), int), np.zeros((n, T), R.dtype), np.zeros((n, T), int)
    pick = edit.get("pick", drawn)
    for i in range(n):
        s = int(start[i])
        for t in range(T):
            u, w = edit.get("look", lambda x, i, t: x[i, t])(noise, i, t)
            a = pick(policy[edit.get("acts", lambda s, s0: s)(s, int(start[i]))], float(u))
            if first_actions is not None and t < edit.get("given", 1):
                a = int(first_actions[i])
            to = pick(P[s, a], float(w))
            pays = R[to, a] if edit.get("late") else R[s, a]
            for x, value in zip(out, (s, a, pays, s if edit.get("same") else to), strict=True):
                x[i, t] = value
            s = int(start[i]) if edit.get("over") and P[to, :, to].min() == 1 else to
    return out


@mutant(ID, default_case=sure())
def one_noise_for_both(*args, **options):
    "The action's noise draws the outcome too."
    return played(*args, **options, look=lambda x, i, t: (x[i, t, 0], x[i, t, 0]))


@mutant(ID, default_case=sure())
def noise_swapped(*args, **options):
    "noise[..., 1] for the action."
    return played(*args, **options, look=lambda x, i, t: x[i, t, ::-1])


@mutant(ID, default_case=sure())
def noise_of_the_first(*args, **options):
    "The noise of the first trajectory for all."
    return played(*args, **options, look=lambda x, i, t: x[0, t])


@mutant(ID, default_case=sure())
def likeliest(*args, **options):
    "argmax for a draw."
    return played(*args, **options, pick=lambda p, u: int(np.argmax(p)))


@mutant(ID, default_case=sure())
def at_most_not_below(*args, **options):
    "u <= the running sum: at u = 0 the first outcome, whatever its chance is."
    return played(*args, **options, pick=lambda p, u: int(np.searchsorted(np.cumsum(p), u)) if u < np.sum(p) else (
        drawn(p, u)))  # fmt: skip


@mutant(ID, default_case=sure())
def last_by_rounding(*args, **options):
    "Beyond the sum of the chances: the last outcome, whatever its chance is."
    return played(*args, **options, pick=lambda p, u: min(
        int(np.searchsorted(np.cumsum(p), u, side="right")), len(p) - 1))  # fmt: skip


@mutant(ID, default_case=sure())
def policy_of_the_first_state(*args, **options):
    "Every action is drawn as in the first state."
    return played(*args, **options, acts=lambda s, s0: s0)


@mutant(ID, default_case=sure())
def reward_of_the_next_state(*args, **options):
    "R(s_{t+1}, a_t)."
    return played(*args, **options, late=True)


@mutant(ID, default_case=sure())
def next_is_current(*args, **options):
    "next_states holds the states again."
    return played(*args, **options, same=True)


@mutant(ID, default_case=lambda: ((*ring(2), uniform(2, 1), np.zeros(2, int), np.full((2, 3, 2), 0.5)), {}))
def starts_over_at_ends(*args, **options):
    "An absorbing state leads back to the start: a reset that nobody asked for."
    return played(*args, **options, over=True)


@mutant(ID, default_case=sure())
def first_actions_ignored(*args, first_actions=None, **options):
    "first_actions is taken and not used."
    return played(*args, **options)


@mutant(ID, default_case=sure())
def first_actions_for_ever(*args, **options):
    "The first action at every step."
    return played(*args, **options, given=10**9)
