"""Maximum likelihood under Plackett-Luce (of pairs: Bradley-Terry), where it exists.

Source: Ford 1957 and Hunter 2004 (Annals of Statistics 32) Assumption 1, Theorem 2, for the condition; Newton's method
on the concave log-likelihood, Hunter sec. 2.

    maximise sum over rankings of log P(ranking; r) over r with sum r = 0
    finite and unique if and only if the graph "i is ranked above j somewhere" is strongly connected

Conventions
    C1  Where it is not, some group never loses to the rest (or is never compared with it): the error names it.
    C2  The gauge is sum r = 0. `ridge` > 0 adds a Gaussian prior, -ridge |r|^2 / 2, under which the maximum always
        exists; then nothing is refused.
    C3  weights count how often a ranking was seen; they may be fractions (a population).

Laws
    L1 two_items_are_the_log_odds           L2 the_gradient_vanishes
    L3 population_weights_give_the_rewards  L4 renaming_the_items_renames_the_rewards
    L5 the_prior_shrinks
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ref.spec import bind, spec

SIGNATURE = "rankings:int[n K], weights[n]"
STEPS = 60  # Newton halves its steps at first and doubles its digits later: 20 are many


@spec("rl.plackett_luce_mle", f"{SIGNATURE}, rewards[m] -> rewards[m]", backends=("numpy",))
def plackett_luce_mle(rankings, weights, rewards, *, ridge=0.0):
    """The rewards that make the rankings most likely.

    Parameters
    ----------
    rankings : int[n K]
        Items 0..m - 1, best first; no item twice in one.
    weights : float[n]
        How often each was seen, > 0.
    rewards : float[m]
        Where the search begins; its maximum does not depend on it.
    ridge : float
        Weight of the prior (C2).

    Returns
    -------
    float[m]
        Of sum 0 (where ridge is 0).

    Raises
    ------
    ValueError
        An item out of range or twice in a ranking, a weight that is not positive, ridge < 0, or (ridge 0) a graph that
        is not strongly connected: the message names a group and what it lacks.
    TypeError
        rankings is not int, or weights or rewards is not float.

    Complexity: m^3 + n K^2 operations a step.

    >>> r = plackett_luce_mle(np.array([[0, 1], [1, 0]]), np.array([3.0, 1.0]), np.zeros(2))
    >>> round(float(r[0] - r[1]), 6)  # log 3
    1.098612
    """
    m = bind("plackett_luce_mle", f"{SIGNATURE}, rewards[m]", rankings=rankings, weights=weights, rewards=rewards)["m"]
    _check(rankings, weights, m, ridge)
    if not ridge:
        _require_connected(rankings, m)
    w, r = weights.astype(np.float64), rewards.astype(np.float64)
    r = r - r.mean() if not ridge else r
    value = _log_likelihood(rankings, w, r, ridge)
    for _ in range(STEPS):
        gradient, hessian = _derivatives(rankings, w, r, ridge)
        step = np.linalg.solve(hessian + (0 if ridge else np.ones((m, m)) * w.sum() / m), gradient)
        size, rounding = 1.0, 1e-13 * (1 + abs(value))  # near the maximum the value no longer tells a good step
        while (found := _log_likelihood(rankings, w, r + size * step, ridge)) < value - rounding:
            size /= 2
        r, value = r + size * step, found
        if np.max(np.abs(step), initial=0.0) <= 4e-16 * (1 + np.max(np.abs(r), initial=0.0)):
            break
    return (r - r.mean() if not ridge else r).astype(rewards.dtype)


def _check(rankings, weights, m, ridge):
    if not ridge >= 0 or not np.all(weights > 0):
        raise ValueError(f"plackett_luce_mle: ridge={ridge}; needed ridge >= 0 and all weights > 0")
    if rankings.size and (rankings.min() < 0 or rankings.max() >= m):
        raise ValueError(
            f"plackett_luce_mle: rankings name items {rankings.min()}..{rankings.max()}; needed 0..{m - 1}")
    for k, row in enumerate(rankings):
        if len(set(row.tolist())) < len(row):
            raise ValueError(f"plackett_luce_mle: ranking {k} is {row.tolist()}; it names an item twice")


def _require_connected(rankings, m):
    """ValueError naming a component that never loses to the rest, if the graph is not strongly connected."""
    above = [(row[i], row[j]) for row in rankings for i in range(len(row)) for j in range(i + 1, len(row))]
    if m < 2:
        return
    i, j = np.array(above, np.int64).reshape(-1, 2).T
    graph = coo_array((np.ones(len(i)), (i, j)), shape=(m, m))
    count, of = connected_components(graph, directed=True, connection="strong")
    if count == 1:
        return
    beaten = {of[b] for a, b in above if of[a] != of[b]}
    group = next(k for k in range(count) if k not in beaten)
    items = np.flatnonzero(of == group).tolist()
    raise ValueError(
        f"plackett_luce_mle: the maximum is not finite: items {items} are never ranked below any of the other "
        f"{m - len(items)}; "
        "needed a strongly connected graph of comparisons, or ridge > 0"
    )


def _log_likelihood(rankings, w, r, ridge):
    x = r[rankings]
    total = 0.0
    for k in range(rankings.shape[1] - 1):
        top = x[:, k:].max(-1)
        total += w @ (x[:, k] - top - np.log(np.exp(x[:, k:] - top[:, None]).sum(-1)))
    return total - ridge * (r @ r) / 2


def _derivatives(rankings, w, r, ridge):
    """Gradient and minus the Hessian of the log-likelihood."""
    m = len(r)
    gradient, hessian = -ridge * r, ridge * np.eye(m)
    for k in range(rankings.shape[1] - 1):
        left = rankings[:, k:]
        p = np.exp(r[left] - r[left].max(-1, keepdims=True))
        p = p / p.sum(-1, keepdims=True)
        np.add.at(gradient, rankings[:, k], w)
        np.add.at(gradient, left, -w[:, None] * p)
        np.add.at(hessian, (left, left), w[:, None] * p)
        np.add.at(hessian, (left[:, :, None], left[:, None, :]), -w[:, None, None] * p[:, :, None] * p[:, None, :])
    return gradient, hessian
