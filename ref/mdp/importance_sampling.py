"""Off-policy Monte Carlo: importance sampling of returns.

Source: Sutton & Barto 2018, sec. 5.5 and 5.9; Precup, Sutton & Singh 2000.

    rho_t = pi(a_t | s_t) / b(a_t | s_t),      rho_{0:t} = rho_0 .. rho_t,      G = sum_t gamma^t r_t
    ordinary       mean_i rho_{0:T-1} G
    weighted       sum_i rho_{0:T-1} G / sum_i rho_{0:T-1}
    per_decision   mean_i sum_t gamma^t rho_{0:t} r_t

    ordinary and per_decision are unbiased; weighted is biased by O(1 / n) and never leaves the range of the returns

Notation
    pi(a_t | s_t) -> target[n T], b(a_t | s_t) -> behaviour[n T], r_t -> rewards[n T]; the result is one number, the
    value of the state that all n episodes start from.

Conventions
    C1  Chances of the actions that were taken, not their logarithms.
    C2  An episode that is shorter than T is filled up with equal chances (a ratio of 1) and rewards of 0.
    C3  b must be positive wherever it acted (coverage); where all weights are 0 the weighted estimate is 0.

Laws
    L1 unbiased_over_all_ways                L2 one_episode_weighted_is_its_return
    L3 equal_policies_give_the_mean_return   L4 sums_by_hand
    L5 weighted_stays_within_the_returns
"""

from __future__ import annotations

from autodiff import namespace
from ref.mdp.model import check_gamma, first
from ref.spec import bind, spec

KINDS = ("ordinary", "weighted", "per_decision")
SIGNATURE = "target[n T], behaviour[n T], rewards[n T] -> []"


@spec("mdp.importance_sampling", SIGNATURE)
def importance_sampling(target, behaviour, rewards, *, gamma, kind="weighted"):
    """The value of a policy from episodes of another.

    Parameters
    ----------
    target, behaviour : float[n T]
        Chance of each action that was taken, under the policy to be judged and under the one that acted.
    rewards : float[n T]
    gamma : float
        Discount, 0 <= gamma <= 1.
    kind : "ordinary", "weighted" or "per_decision"

    Returns
    -------
    float[]

    Raises
    ------
    ValueError
        Axes disagree, no episode, a chance outside [0, 1], or behaviour 0 (names the episode and the step), gamma out
        of range, another kind.
    TypeError
        An array is not float, or dtypes or backends differ.

    Complexity: 4 n T.

    >>> import numpy as np
    >>> pi, b, r = np.array([[0.5], [0.5]]), np.array([[0.25], [0.75]]), np.array([[3.0], [0.0]])
    >>> [float(importance_sampling(pi, b, r, gamma=1.0, kind=k)) for k in ("ordinary", "weighted")]
    [3.0, 2.25]
    """
    name = "importance_sampling"
    n, T = (bind(name, SIGNATURE, target=target, behaviour=behaviour, rewards=rewards)[x] for x in "nT")
    check_gamma(name, gamma)
    if kind not in KINDS:
        raise ValueError(f"{name}: kind={kind!r}; needed one of {KINDS}")
    if not n:
        raise ValueError(f"{name}: rewards has n=0 episodes; needed at least one")
    xp = namespace(target, behaviour, rewards)
    _check_chances(xp, target, behaviour)
    weight, total = xp.ones(n, dtype=rewards.dtype), xp.zeros(n, dtype=rewards.dtype)
    for t in range(T):
        weight = weight * (target[:, t] / behaviour[:, t])
        total = total + gamma**t * rewards[:, t] * (weight if kind == "per_decision" else 1.0)
    if kind == "per_decision":
        return xp.mean(total)
    if kind == "ordinary":
        return xp.mean(weight * total)
    mass = xp.sum(weight)
    return xp.sum(weight * total) / xp.where(mass == 0, xp.ones_like(mass), mass)


def _check_chances(xp, target, behaviour):
    for name, chance, wrong in (
        ("target", target, ~((target >= 0) & (target <= 1))),
        ("behaviour", behaviour, ~((behaviour > 0) & (behaviour <= 1))),
    ):
        at = first(xp, wrong)
        if at:
            least = "0 <" if name == "behaviour" else "0 <="
            where = f"{name} at (episode, step) = {at}"
            raise ValueError(f"importance_sampling: {where} is {float(chance[at])}; needed {least} chance <= 1")
