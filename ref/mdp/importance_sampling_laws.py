"""Laws and mutants of importance sampling."""

from __future__ import annotations

import numpy as np

from ref.mdp.common_laws import chances, f64, small_model, ways
from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, cases, choose, dims, rng

ID = "mdp.importance_sampling"
KINDS = ("ordinary", "weighted", "per_decision")


def _eighths(least):
    return lambda draw, c: rng(draw).integers(least, 9, (c.n, c.T)) / 8.0


space = cases(
    ID, n=dims(1, 4), T=dims(0, 4), target=_eighths(0), behaviour=_eighths(1), gamma=choose(0.75, 1.0, 0.5),
    rewards=lambda draw, c: rng(draw).integers(-8, 9, (c.n, c.T)) / 4.0, kind=choose(*KINDS), seed=dims(0, 999),
    flags={
        "steps": Flag(lambda c: c.T > 1, {"T": dims(2, 4)}),
        "none": Flag(lambda c: c.T == 0, {"T": 0}),
        "hopeless": Flag(lambda c: bool((np.prod(c.target, 1) == 0).all()) and c.T > 0,
                         {"T": dims(1, 4), "target": lambda draw, c: np.zeros((c.n, c.T))}),
    },
)  # fmt: skip


def parts(c):
    """(ratios up to each step [n T], discounted rewards [n T]) in float64."""
    pi, b, r = f64(c.target, c.behaviour, c.rewards)
    rho = np.cumprod(pi / b, axis=1)
    return rho, r * c.gamma ** np.arange(c.T)


def size(c):
    rho, r = parts(c)
    top = np.max(rho, initial=1.0)
    return (top if c.kind != "weighted" else 1.0) * (np.sum(np.abs(r), 1).max() + 0.25)


def bound(c):
    return bounds.rounding(4 * c.T + 2 * c.n + 8, size(c), c.dtype)


@law(
    ID, "L1", closed_form=True, dtypes=("float64",), 
    given=space.where(T=2, n=1, kind=choose("ordinary", "per_decision")),
    kills=["ratio_upside_down", "last_ratio_left_out", "ratio_of_the_step_before", "clipped_ratios", "undiscounted"],
)  # fmt: skip
def unbiased_over_all_ways(impl, c, expect):
    """Over all ways of two steps of a small model, each as often as the acting policy's chance says (in 256ths): the
    mean is the target policy's expected discounted reward of two steps."""
    P, R, pi = small_model(c.seed)
    b = (chances(np.random.default_rng(c.seed + 1), (2, 2), 2) + 0.5) / 2  # 1/4 to 3/4
    states, actions, chance = ways(P, b, (1.0, 0.0), 2)
    often = np.round(chance * 256).astype(int)
    s, a = np.repeat(states[:, :-1], often, 0), np.repeat(actions, often, 0)
    now = c.replace(target=pi[s, a], behaviour=b[s, a], rewards=R[s, a], n=256)
    R_pi, P_pi = np.sum(pi * R, 1), np.einsum("sa,sat->st", pi, P)
    expect(impl(now), np.array((R_pi + c.gamma * P_pi @ R_pi)[0]), 1e-12, scale=4.0)


@law(ID, "L2", closed_form=True, given=space.where(n=1, T=dims(1, 4), kind="weighted", target=_eighths(1)),
     kills=["undiscounted", "weighted_by_the_number"])  # fmt: skip
def one_episode_weighted_is_its_return(impl, c, expect):
    "n = 1, weighted: the return itself, whatever the ratio is."
    expect(impl(c), np.array(np.sum(parts(c)[1])), bound(c), scale=size(c))


@law(ID, "L3", closed_form=True, given=space.where(T=dims(1, 4), target=_eighths(1)),
     kills=["undiscounted", "returns_of_the_last_step"])  # fmt: skip
def equal_policies_give_the_mean_return(impl, c, expect):
    "pi = b: the mean of the returns, by each of the three."
    now = c.replace(target=c.behaviour.copy())
    wanted = np.array(np.mean(np.sum(parts(now)[1], 1)))
    for kind in KINDS:
        expect(impl(now.replace(kind=kind)), wanted, bound(now), kind, scale=size(now))


@law(
    ID, "L4", closed_form=True, given=space.reach("steps", "none", "hopeless"),
    kills=["ratio_upside_down", "last_ratio_left_out", "ratio_of_the_step_before", "weighted_by_the_number",
           "per_decision_is_ordinary", "clipped_ratios", "weighted_always", "kept_from_zero"],
)  # fmt: skip
def sums_by_hand(impl, c, expect):
    "The three formulas, an episode and a step at a time."
    rho, r = parts(c)
    over, under = 0.0, 0.0
    for i in range(c.n):
        whole = rho[i, -1] if c.T else 1.0
        over += sum(r[i, t] * (rho[i, t] if c.kind == "per_decision" else whole) for t in range(c.T))
        under += whole if c.kind == "weighted" else 1.0
    expect(impl(c), np.array(over / under if under else 0.0), bound(c), scale=size(c))


@law(
    ID, "L5", given=space.where(kind="weighted", T=dims(1, 4), target=_eighths(1)), kills=["weighted_by_the_number"],
)  # fmt: skip
def weighted_stays_within_the_returns(impl, c, expect):
    "min G <= weighted <= max G; and where all returns are c, it is c."
    returns = np.sum(parts(c)[1], 1)
    found = float(impl(c))
    expect.at_most(np.min(returns) - bound(c), found, "the least return")
    expect.at_most(found, np.max(returns) + bound(c), "the estimate")
    flat = np.zeros_like(c.rewards)
    flat[:, 0] = 1.5
    expect(
        impl(c.replace(rewards=flat)), np.array(1.5), bounds.rounding(4 * c.T + 2 * c.n + 8, 1.5, c.dtype), "all 1.5"
    )


# Mutants ---------------------------------------------------------------------------------------------


def same(kind="weighted", gamma=1.0, T=1, n=3, reward=1.0):
    """The default-size test: both policies alike."""
    half = np.full((n, T), 0.5)
    return lambda: ((half, half.copy(), np.full((n, T), reward)), {"gamma": gamma, "kind": kind})


def estimated(target, behaviour, rewards, *, gamma, kind="weighted", **edit):
    """The estimates in plain NumPy, whose parts an edit replaces."""
    n, T = rewards.shape
    rho = np.cumprod(edit.get("ratio", lambda pi, b: pi / b)(target, behaviour), axis=1)
    r = rewards * edit.get("gamma", gamma) ** np.arange(T)
    whole = edit.get("whole", lambda rho: rho[:, -1])(rho) if T else np.ones(n)
    returns = edit.get("returns", lambda r: r.sum(1))(r)
    if edit.get("kind", kind) == "per_decision":
        out = np.mean(np.sum(edit.get("steps", lambda rho: rho)(rho) * r, 1))
    elif edit.get("kind", kind) == "ordinary":
        out = np.mean(whole * returns)
    else:
        mass = edit.get("mass", lambda w: w.sum())(whole)
        out = np.sum(whole * returns) / (mass if mass else 1.0)
    return np.asarray(out, rewards.dtype)


@mutant(ID, default_case=same())
def ratio_upside_down(*args, **options):
    "b / pi."
    return estimated(*args, **options, ratio=lambda pi, b: b / np.maximum(pi, 0.125))


@mutant(ID, default_case=same())
def last_ratio_left_out(*args, **options):
    "The product without its last step."
    return estimated(*args, **options, whole=lambda rho: rho[:, -2] if rho.shape[1] > 1 else np.ones(len(rho)),
                     steps=lambda rho: np.concatenate([np.ones_like(rho[:, :1]), rho[:, :-1]], 1))  # fmt: skip


@mutant(ID, default_case=same())
def ratio_of_the_step_before(*args, kind="weighted", **options):
    "rho_{0:t-1} for r_t, as if the reward came before the action."
    return estimated(*args, **options, kind=kind,
                     steps=lambda rho: np.concatenate([np.ones_like(rho[:, :1]), rho[:, :-1]], 1))  # fmt: skip


@mutant(ID, default_case=same())
def clipped_ratios(*args, **options):
    "min(1, rho) a step, as V-trace has it: biased."
    return estimated(*args, **options, ratio=lambda pi, b: np.minimum(pi / b, 1))


@mutant(ID, default_case=same())
def undiscounted(*args, gamma, **options):
    "gamma is taken and not used."
    return estimated(*args, gamma=1.0, **options)


@mutant(ID, default_case=same())
def weighted_by_the_number(*args, **options):
    "Weighted divided by n: the ordinary estimate under another name."
    return estimated(*args, **options, mass=lambda w: float(len(w)))


@mutant(ID, default_case=same())
def weighted_always(*args, kind="weighted", **options):
    "kind is taken and not used."
    return estimated(*args, kind="weighted", **options)


@mutant(ID, default_case=same())
def per_decision_is_ordinary(*args, kind="weighted", **options):
    "Every reward with the whole ratio: unbiased too, but not this estimate."
    return estimated(*args, kind="ordinary" if kind == "per_decision" else kind, **options)


@mutant(ID, default_case=same(reward=0.0))
def returns_of_the_last_step(*args, **options):
    "The last reward alone (a reward at the end is all there is)."
    return estimated(*args, **options, returns=lambda r: r[:, -1] if r.shape[1] else r.sum(1),
                     steps=lambda rho: rho * (np.arange(rho.shape[1]) == rho.shape[1] - 1))  # fmt: skip


@mutant(ID, default_case=same())
def kept_from_zero(*args, **options):
    "Chances of 0 become 1/8, so that no weight dies."
    return estimated(*args, **options, ratio=lambda pi, b: np.maximum(pi, 0.125) / b)
