"""Runs of the tabular algorithms on gymnasium's small environments, judged by their exact values.

Planning reads the tables; learning walks in the environments themselves and never sees the tables, which then say, by
exact evaluation, what the greedy policy earns.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ref.demo.environments import TableWalkers
from ref.mdp.action_values import action_values
from ref.mdp.bellman_optimality import bellman_optimality
from ref.mdp.epsilon_greedy import epsilon_greedy
from ref.mdp.expected_sarsa import expected_sarsa
from ref.mdp.finite_horizon import finite_horizon
from ref.mdp.iterative_evaluation import iterative_evaluation
from ref.mdp.mc_epsilon_greedy import mc_epsilon_greedy
from ref.mdp.mc_exploring_starts import mc_exploring_starts
from ref.mdp.policy_evaluation import policy_evaluation
from ref.mdp.policy_iteration import policy_iteration
from ref.mdp.q_learning import q_learning
from ref.mdp.rollout import draw
from ref.mdp.sarsa import sarsa
from ref.mdp.truncated_policy_iteration import truncated_policy_iteration
from ref.mdp.value_iteration import value_iteration

PLANNING = ("value_iteration", "policy_iteration", "truncated_policy_iteration")
WALKING = ("q_learning", "sarsa", "expected_sarsa")
EPISODES = ("mc_exploring_starts", "mc_epsilon_greedy")
SWEEPS = 5


class Settings(NamedTuple):
    """Of learning: copies that walk at once, and the first and last share of random actions and rate. Moves of copies
    that stand in one state add up, so that copies times rate stay below 1."""

    copies: int
    epsilon: tuple
    rate: tuple
    steps: int


LEARNING = {
    "frozenlake": Settings(16, (1.0, 0.1), (0.05, 0.002), 400_000),
    "frozenlake8x8": Settings(16, (1.0, 0.1), (0.05, 0.002), 2_000_000),
    "cliffwalking": Settings(2, (0.1, 0.01), (0.4, 0.1), 40_000),
}

# Known values of the start: (task, gamma) -> V*; and of reaching the goal within the limit of steps, with a policy that
# looks at the clock and with the best one that does not.
KNOWN = {
    ("frozenlake", 0.9): 0.0688909, ("frozenlake", 0.99): 0.5420259, ("frozenlake", 1.0): 14 / 17,
    ("frozenlake8x8", 0.9): 0.0064111, ("frozenlake8x8", 0.99): 0.4146404,
    ("cliffwalking", 0.9): -7.458134, ("cliffwalking", 0.99): -12.247898, ("cliffwalking", 1.0): -13.0,
}  # fmt: skip
WITHIN_LIMIT = {"frozenlake": (0.744190, 0.740165), "frozenlake8x8": (0.913220, None)}


class Run(NamedTuple):
    """What a run found: values[S] and policy[S A]; the curve [(x, error of the values, value of the start)], what x
    counts, and the optimal values."""

    values: np.ndarray
    policy: np.ndarray
    curve: list
    unit: str
    optimum: np.ndarray


def optimal(table, gamma):
    """v*, to 1e-13 of itself or so; at gamma = 1 by sweeps until nothing moves."""
    if gamma < 1:
        return value_iteration(table.P, table.R, gamma=gamma, tolerance=1e-12)
    v = np.zeros(len(table.R))
    for _ in range(1000):
        v, last = value_iteration(table.P, table.R, v, gamma=1.0, iterations=100), v
        if np.max(np.abs(v - last)) < 1e-13:
            break
    return v


def worth(table, policy, gamma):
    """The start's value under the policy: exact, or at gamma = 1 (a policy may walk for ever) after 10 000 steps."""
    if gamma < 1:
        v = policy_evaluation(table.P, table.R, policy, gamma=gamma)
    else:
        v = iterative_evaluation(table.P, table.R, policy, np.zeros(len(table.R)), gamma=1.0, sweeps=10_000)
    return float(table.start @ v)


def within_limit(table, policy=None):
    """What is earned before the limit of steps: by the policy, or by the best one that looks at the clock."""
    if policy is None:
        values, _ = finite_horizon(table.P, table.R, horizon=table.limit)
        return float(table.start @ values[-1])
    v = iterative_evaluation(table.P, table.R, policy, np.zeros(len(table.R)), gamma=1.0, sweeps=table.limit)
    return float(table.start @ v)


def plan(table, algorithm, gamma, watch=lambda k, error: None, least=1e-10, most=5000):
    """A run of a planning algorithm, an iteration at a time, until its values are within `least` of v*."""
    best, v, curve = optimal(table, gamma), np.zeros(len(table.R)), []

    def note(v):
        error = float(np.max(np.abs(v - best)))
        curve.append((len(curve), error, float(table.start @ v)))
        watch(len(curve) - 1, error)
        return error > least and len(curve) <= most

    going, policy = note(v), None
    while going:
        if algorithm == "value_iteration":
            v = bellman_optimality(table.P, table.R, v, gamma=gamma)
        elif algorithm == "policy_iteration":
            v, policy = policy_iteration(table.P, table.R, v, gamma=gamma, iterations=1)
        else:
            v, policy = truncated_policy_iteration(table.P, table.R, v, gamma=gamma, sweeps=SWEEPS, iterations=1)
        going = note(v)
    policy = greedy_for(table, v, gamma) if policy is None else policy
    unit = f"iterations of {SWEEPS} sweeps" if algorithm == "truncated_policy_iteration" else "iterations"
    return Run(v, policy, curve, unit, best)


def greedy_for(table, v, gamma):
    """The policy that is greedy for v, the first of actions that are equal up to 1e-9."""
    q = action_values(table.P, table.R, v, gamma=gamma)
    return epsilon_greedy(np.round(q, 9))


def walk(table, algorithm, gamma, settings, seed, watch=lambda taken, start: None, points=100):
    """A run of Q-learning, Sarsa or expected Sarsa; epsilon and the rate fall in a straight line."""
    n = settings.copies
    rng, walkers = np.random.default_rng(seed), TableWalkers(table, n, seed)
    S, A = len(table.R) - 1, table.R.shape[1]
    q, best, curve = np.zeros((S, A)), optimal(table, gamma), []
    rows = max(settings.steps // n, 1)
    actions = rng.integers(0, A, n)
    for k in range(rows):
        epsilon, rate = (first + (last - first) * k / rows for first, last in (settings.epsilon, settings.rate))
        s = walkers.seen
        to, rewards, terminated, _ = walkers.step(actions)
        rate = np.array([rate])
        after = draw(epsilon_greedy(q[to], epsilon), rng.random(n))
        step = (s[None], actions[None], rewards[None], to[None])
        if algorithm == "q_learning":
            q = q_learning(q, *step, terminated[None], rate, gamma=gamma)
        elif algorithm == "sarsa":
            q = sarsa(q, *step, after[None], terminated[None], rate, gamma=gamma)
        else:
            q = expected_sarsa(q, epsilon_greedy(q, epsilon), *step, terminated[None], rate, gamma=gamma)
        here = walkers.seen
        fresh = draw(epsilon_greedy(q[here], epsilon), rng.random(n))
        actions = np.where(here == to, after, fresh)  # an episode that is over begins elsewhere
        if (k + 1) % max(rows // points, 1) == 0 or k == rows - 1:
            curve.append(_judged(table, q, gamma, best, (k + 1) * n))
            watch(*curve[-1][::2])
    walkers.close()
    return _learned(table, q, curve, "steps in the environment", best)


def episodes(table, algorithm, gamma, count, seed, watch=lambda taken, start: None, points=50):
    """A run of Monte Carlo control over so many episodes, drawn from the table by the algorithm itself."""
    rng = np.random.default_rng(seed)
    S, A = table.R.shape
    T = table.limit or 200
    q, best, curve = np.zeros((S, A)), optimal(table, gamma), []
    part = max(count // points, 1)
    total, counts = np.zeros((S, A)), np.zeros((S, A))
    for k in range(count // part):
        noise = rng.random((part, T, 2))
        if algorithm == "mc_exploring_starts":
            starts = np.stack([rng.integers(0, S - 1, part), rng.integers(0, A, part)], 1)
            new, n = mc_exploring_starts(table.P, table.R, q, starts, noise, gamma=gamma)
        else:
            start = draw(np.tile(table.start, (part, 1)), rng.random(part))[:, None]
            new, n = mc_epsilon_greedy(table.P, table.R, q, start, noise[:, None], gamma=gamma, epsilon=0.1)
        total, counts = total + np.where(n > 0, new, 0) * n, counts + n
        q = np.where(counts > 0, total / np.maximum(counts, 1), q)
        curve.append(_judged(table, q[:-1], gamma, best, (k + 1) * part))
        watch(*curve[-1][::2])
    return _learned(table, q[:-1], curve, "episodes", best)


def _with_end(policy):
    """The policy of S states, and any action in the end."""
    return np.concatenate([policy, np.eye(policy.shape[1])[:1]])


def _judged(table, q, gamma, best, x):
    error = float(np.max(np.abs(q.max(1) - best[:-1])))
    return x, error, worth(table, _with_end(epsilon_greedy(q)), gamma)


def _learned(table, q, curve, unit, best):
    return Run(np.append(q.max(1), 0.0), _with_end(epsilon_greedy(q)), curve, unit, best)
