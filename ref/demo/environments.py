"""Gymnasium's environments, as training runs walk in them: many copies at once, and the tables of the small ones."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ref.mdp.from_table import from_table
from ref.mdp.rollout import draw

# Tasks whose transitions are a table.
SMALL = ("frozenlake", "frozenlake8x8", "cliffwalking")
TASKS = {
    "frozenlake": ("FrozenLake-v1", {}),
    "frozenlake8x8": ("FrozenLake8x8-v1", {}),
    "cliffwalking": ("CliffWalking-v1", {}),
    "cartpole": ("CartPole-v1", {}),
}


class Table(NamedTuple):
    """A small environment as a model: P[S A S] and R[S A] with the end as last state, the distribution of the first
    state, the shape of the map, its letters (None where it has none), its limit of steps (None: no limit), and the
    single outcomes [S A K]: chances, next states, rewards, ends; chance 0 where there are fewer than K."""

    P: np.ndarray
    R: np.ndarray
    start: np.ndarray
    shape: tuple
    letters: np.ndarray | None
    limit: int | None
    outcomes: tuple


def table(task):
    """The Table of "frozenlake", "frozenlake8x8" or "cliffwalking", from gymnasium's own transitions."""
    import gymnasium

    name, options = TASKS[task]
    env = gymnasium.make(name, **options)
    inner = env.unwrapped
    P, R = from_table(inner.P)
    start = np.append(inner.initial_state_distrib, 0.0)
    letters = inner.desc.astype(str) if hasattr(inner, "desc") else None
    shape = letters.shape if letters is not None else tuple(inner.shape)
    return Table(P, R, start, shape, letters, env.spec.max_episode_steps, _outcomes(inner.P))


def _outcomes(table):
    S, A = len(table), len(table[0])
    K = max(len(table[s][a]) for s in range(S) for a in range(A))
    found = np.zeros((S, A, K)), np.zeros((S, A, K), int), np.zeros((S, A, K)), np.zeros((S, A, K), bool)
    for s in range(S):
        for a in range(A):
            for k, outcome in enumerate(table[s][a]):
                for array, number in zip(found, outcome, strict=True):
                    array[s, a, k] = number
    return found


class TableWalkers:
    """`Walkers` in a small environment, played from its table: a draw for all of them at once."""

    def __init__(self, table, count, seed):
        self.table, self.rng = table, np.random.default_rng(seed)
        self.actions, self.inputs = table.R.shape[1], len(table.R) - 1
        self.seen, self.age = self._begin(count), np.zeros(count, int)
        self.earned, self.returns = np.zeros(count), []

    def _begin(self, count):
        return draw(np.tile(self.table.start, (count, 1)), self.rng.random(count))

    def step(self, actions):
        """(reached, rewards, terminated, truncated), as `Walkers.step`."""
        chances, to, pays, ends = self.table.outcomes
        at = self.seen, actions
        k = draw(chances[at], self.rng.random(len(actions)))
        reached, rewards, terminated = to[(*at, k)], pays[(*at, k)], ends[(*at, k)]
        self.age += 1
        late = self.age >= self.table.limit if self.table.limit else np.zeros(len(actions), bool)
        truncated = late & ~terminated
        self.earned += rewards
        over = np.flatnonzero(terminated | truncated)
        self.seen = reached.copy()
        if over.size:
            self.returns += self.earned[over].tolist()
            self.earned[over], self.age[over] = 0.0, 0
            self.seen[over] = self._begin(over.size)
        return reached, rewards, terminated, truncated

    def close(self):
        """Nothing to let go of."""


class Walkers:
    """Copies of an environment that walk side by side; each starts again as soon as its episode is over.

    `seen` is what they see now. `step` returns the states that the actions led to, which for an episode that is over is
    its last one, not the first of the next; it is what GAE's next_values are of.
    """

    def __init__(self, task, count, seed):
        import gymnasium
        from gymnasium.vector import AutoresetMode

        name, options = TASKS[task]
        self.env = gymnasium.make_vec(
            name, num_envs=count, vectorization_mode="sync",
            vector_kwargs={"autoreset_mode": AutoresetMode.SAME_STEP}, **options,
        )  # fmt: skip
        self.seen, _ = self.env.reset(seed=seed)
        self.actions, self.inputs = int(self.env.single_action_space.n), self.seen.shape[1]
        self.earned, self.returns = np.zeros(count), []

    def step(self, actions):
        """(reached, rewards, terminated, truncated); `returns` gains the sums of the episodes that are over."""
        self.seen, rewards, terminated, truncated, info = self.env.step(actions)
        reached, over = self.seen.copy(), terminated | truncated
        self.earned += rewards
        for i in np.flatnonzero(over):
            reached[i] = info["final_obs"][i]
            self.returns.append(float(self.earned[i]))
            self.earned[i] = 0.0
        return reached, rewards, terminated.copy(), truncated.copy()

    def close(self):
        """Let go of the environments."""
        self.env.close()


def walkers(task, count, seed):
    """Copies of a task's environment: from its table where there is one, else gymnasium's own."""
    return TableWalkers(table(task), count, seed) if task in SMALL else Walkers(task, count, seed)
