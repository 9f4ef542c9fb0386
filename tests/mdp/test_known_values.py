"""The numbers that are known: of the book's grid, and of gymnasium's lakes and cliff."""

import numpy as np
import pytest

from ref.demo import tabular
from ref.demo.environments import TableWalkers, Walkers, table
from ref.mdp.grid_world import grid_world
from ref.mdp.policy_iteration import policy_iteration
from ref.mdp.truncated_policy_iteration import truncated_policy_iteration
from ref.mdp.value_iteration import value_iteration

FORBIDDEN = [(1, 1), (1, 2), (2, 2), (3, 1), (3, 3), (4, 1)]
BOOK = np.array([
    [5.8, 5.6, 6.2, 6.5, 5.8], [6.5, 7.2, 8.0, 7.2, 6.5], [7.2, 8.0, 10, 8.0, 7.2], [8.0, 10, 10, 10, 8.0],
    [7.2, 9.0, 10, 9.0, 8.1],
])  # fmt: skip


@pytest.mark.parametrize(
    "solve",
    [
        lambda P, R: value_iteration(P, R, gamma=0.9),
        lambda P, R: policy_iteration(P, R, gamma=0.9)[0],
        lambda P, R: truncated_policy_iteration(P, R, gamma=0.9, sweeps=3)[0],
    ],
)
def test_the_book_s_grid(solve):
    v = solve(*grid_world(5, 5, target=(3, 2), forbidden=FORBIDDEN)).reshape(5, 5)
    assert np.abs(v - BOOK).max() < 0.05 + 1e-9
    v = solve(*grid_world(5, 5, target=(3, 2), forbidden=FORBIDDEN, r_forbidden=-10)).reshape(5, 5)
    assert np.abs(v[0] - [3.5, 3.9, 4.3, 4.8, 5.3]).max() < 0.05 + 1e-9


@pytest.mark.parametrize("task, gamma", tabular.KNOWN)
def test_gymnasium_s_tables(task, gamma):
    small = table(task)
    best = float(small.start @ tabular.optimal(small, gamma))
    assert abs(best - tabular.KNOWN[task, gamma]) < 1e-6
    run = tabular.plan(small, "value_iteration", gamma)
    assert abs(float(small.start @ run.values) - best) < 1e-9
    errors = np.array([error for _, error, _ in run.curve])
    assert (errors <= gamma ** np.arange(len(errors)) * errors[0] + 1e-12).all()
    if gamma < 1:
        for algorithm in ("policy_iteration", "truncated_policy_iteration"):
            run = tabular.plan(small, algorithm, gamma)
            assert abs(float(small.start @ run.values) - best) < 1e-9
        assert len(tabular.plan(small, "policy_iteration", gamma).curve) < 20


@pytest.mark.parametrize("task", tabular.WITHIN_LIMIT)
def test_the_goal_within_the_limit_of_steps(task):
    small, (clock, fixed) = table(task), tabular.WITHIN_LIMIT[task]
    assert small.limit == {"frozenlake": 100, "frozenlake8x8": 200}[task]
    assert abs(tabular.within_limit(small) - clock) < 1e-6
    mine = tabular.within_limit(small, tabular.plan(small, "policy_iteration", 0.99).policy)
    assert mine <= clock and (fixed is None or abs(mine - fixed) < 1e-6)


def test_the_end_is_the_last_state_and_the_goals_live_moves_are_gone():
    small = table("cliffwalking")
    assert small.P.shape == (49, 4, 49) and small.shape == (4, 12) and small.limit is None
    assert not (small.P[:48, :, 47] > 0).any()  # what leads to the goal has ended
    assert (small.P[48, :, 48] == 1).all() and not small.R[48].any()


@pytest.mark.parametrize("task", ["frozenlake", "cliffwalking"])
def test_the_walks_of_the_table_are_the_tables(task):
    """Frequencies of a hundred thousand steps against P and R, within six standard deviations."""
    small = table(task)
    walkers, rng = TableWalkers(small, 500, 0), np.random.default_rng(1)
    seen, paid = np.zeros_like(small.P), np.zeros_like(small.R)
    for _ in range(200):
        s, a = walkers.seen.copy(), rng.integers(0, small.R.shape[1], 500)
        to, rewards, terminated, _ = walkers.step(a)
        np.add.at(seen, (s, a, np.where(terminated, len(small.R) - 1, to)), 1)
        np.add.at(paid, (s, a), rewards)
    visits = seen.sum(-1)
    for s, a in np.argwhere(visits > 30):
        n, p = visits[s, a], small.P[s, a]
        assert (np.abs(seen[s, a] / n - p) <= 6 * np.sqrt(p * (1 - p) / n) + 1e-12).all()
        assert abs(paid[s, a] / n - small.R[s, a]) <= 6 * 0.5 / np.sqrt(n)


def test_walkers_show_the_last_state_of_an_episode_not_the_first_of_the_next():
    walkers = Walkers("cartpole", 3, 0)
    before = walkers.seen.copy()
    for _ in range(60):  # always to the right: over within a dozen steps
        reached, rewards, terminated, truncated = walkers.step(np.ones(3, int))
        over = terminated | truncated
        assert (np.abs(reached - before)[:, 0] < 0.2).all()  # a step from where it stood
        assert (np.abs(reached[over][:, 2]) > 0.2).all() and (np.abs(walkers.seen[over]) <= 0.05).all()
        assert (walkers.seen[~over] == reached[~over]).all() and (rewards == 1).all()
        before = walkers.seen.copy()
    walkers.close()
    assert len(walkers.returns) > 10 and all(5 < x < 15 for x in walkers.returns)


def test_a_limit_of_steps_truncates():
    small = table("frozenlake")._replace(limit=3)
    walkers = TableWalkers(small, 4, 0)
    for k in range(1, 7):
        _, _, terminated, truncated = walkers.step(np.zeros(4, int))
        assert not (terminated & truncated).any()
        assert k % 3 or (terminated | truncated | (walkers.age > 0)).all()
    assert (walkers.age < 3).all()
