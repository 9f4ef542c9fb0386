"""What Monte Carlo control shares: rounds of episodes, returns sorted by state and action, a greedier policy."""

from __future__ import annotations

import numpy as np

from ref.mdp.discounted_returns import discounted_returns
from ref.mdp.epsilon_greedy import epsilon_greedy
from ref.mdp.monte_carlo import first_visits
from ref.mdp.rollout import rollout


def improve(P, R, q, starts, noise, *, gamma, epsilon, visit, forget, first_actions=None):
    """(q[S A], counts[S A]) after rounds of episodes starts[k n], noise[k n T 2], each round by the policy that is
    epsilon-greedy for the q before it.

    q(s, a) is the mean of the returns that followed (s, a) so far; with `forget`, of those of the last round that met
    it. Where there is none it stays what it was.
    """
    S, A = q.shape
    total, counts, q = np.zeros(S * A), np.zeros(S * A, np.int64), q.copy()
    for k in range(len(noise)):
        actions = None if first_actions is None else first_actions[k]
        s, a, r, _ = rollout(P, R, epsilon_greedy(q, epsilon), starts[k], noise[k], first_actions=actions)
        pair, returns = s * A + a, discounted_returns(r, gamma=gamma)
        counted = first_visits(pair) if visit == "first" else np.ones(pair.shape, bool)
        met = np.bincount(pair[counted], minlength=S * A)
        found = np.bincount(pair[counted], returns[counted].astype(np.float64), minlength=S * A)
        if forget:
            total, counts = np.where(met, 0, total), np.where(met, 0, counts)
        total, counts = total + found, counts + met
        q = np.where(counts.reshape(S, A), (total / np.maximum(counts, 1)).reshape(S, A), q).astype(R.dtype)
    return q, counts.reshape(S, A)
