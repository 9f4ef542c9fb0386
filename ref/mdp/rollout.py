"""Rollout: trajectories of a policy in a model, drawn by given noise.

Source: Sutton & Barto 2018, sec. 3.1; inverse transform sampling, Devroye 1986, sec. III.2.

    a_t = the first a with u < pi(0 | s_t) + .. + pi(a | s_t),   u = noise[t, 0]
    s_{t+1} = the first t with w < P(0 | s_t, a_t) + .. ,        w = noise[t, 1]

Notation
    P -> P[S A S], R -> R[S A], pi -> policy[S A], s_0 -> start[n], noise[n T 2]; the results [n T] are s_t, a_t, r_t
    and s_{t+1}, ready for the temporal-difference updates.

Conventions
    C1  The noise is an argument, uniform on [0, 1): a trajectory is a function of it, and all of them can be counted by
        laying it on a grid.
    C2  The action and the outcome have noise of their own.
    C3  What has no chance is never drawn, at u = 0 neither, nor where rounding leaves a sum below u.
    C4  rewards are the expected R(s, a). After an absorbing state the trajectory stays there.
    C5  first_actions, where given, are the first actions instead of drawn ones (exploring starts).

Laws
    L1 every_way_has_its_chance              L2 inverse_transform_by_loops
    L3 what_has_no_chance_is_not_drawn       L4 first_actions_are_taken
    L5 trajectories_do_not_mix
"""

from __future__ import annotations

import numpy as np

from ref.mdp.model import check_model, check_rows
from ref.spec import bind, spec

INPUTS = "P[S A S], R[S A], policy[S A], start:int[n], noise[n T 2], first_actions:int[n]"
SIGNATURE = f"{INPUTS} -> states:int[n T], actions:int[n T], rewards[n T], next_states:int[n T]"


@spec("mdp.rollout", SIGNATURE, backends=("numpy",))
def rollout(P, R, policy, start, noise, *, first_actions=None):
    """n trajectories of T steps.

    Parameters
    ----------
    P : float[S A S]
        Chances; rows sum to 1.
    R : float[S A]
        Expected rewards.
    policy : float[S A]
        Chances of the actions; rows sum to 1.
    start : int[n]
        First states.
    noise : float[n T 2]
        Uniform on [0, 1): for the action, for the outcome.
    first_actions : int[n], optional

    Returns
    -------
    states, actions : int[n T]
    rewards : float[n T]
    next_states : int[n T]

    Raises
    ------
    ValueError
        Axes disagree, a row of P or of the policy is no distribution, noise outside [0, 1), or a state or action that
        is not there.
    TypeError
        An array of another kind, or float dtypes differ.

    Complexity: n T (S + A).

    >>> import numpy as np
    >>> P, R = np.array([[[0.5, 0.5]], [[0.0, 1.0]]]), np.array([[1.0], [0.0]])
    >>> s, a, r, t = rollout(P, R, np.ones((2, 1)), np.array([0]), np.array([[[0.0, 0.4], [0.0, 0.9]]]))
    >>> s, r, t
    (array([[0, 0]]), array([[1., 1.]]), array([[0, 1]]))
    """
    sizes = bind("rollout", SIGNATURE, P=P, R=R, policy=policy, start=start, noise=noise, first_actions=first_actions)
    check_model("rollout", P, R)
    check_rows("rollout", "policy", policy)
    check_indices("rollout", "start", start, sizes["S"])
    if not ((noise >= 0) & (noise < 1)).all():
        raise ValueError("rollout: noise holds a number outside [0, 1); needed uniform draws")
    if first_actions is not None:
        check_indices("rollout", "first_actions", first_actions, sizes["A"])
    n, T = noise.shape[:2]
    states = np.empty((n, T + 1), np.int64)
    actions = np.empty((n, T), np.int64)
    states[:, 0] = start
    for t in range(T):
        s = states[:, t]
        if t == 0 and first_actions is not None:
            actions[:, t] = first_actions
        else:
            actions[:, t] = draw(policy[s], noise[:, t, 0])
        states[:, t + 1] = draw(P[s, actions[:, t]], noise[:, t, 1])
    return states[:, :-1].copy(), actions, R[states[:, :-1], actions], states[:, 1:].copy()


def draw(chances, u):
    """int[n]: the first entry of each row of chances[n m] whose running sum is above u[n]."""
    index = np.sum(np.cumsum(chances, axis=1) <= u[:, None], axis=1)
    last = chances.shape[1] - 1 - np.argmax(chances[:, ::-1] > 0, axis=1)  # a sum may fall short of 1 by rounding
    return np.minimum(index, last)


def check_indices(function, name, index, size):
    """ValueError unless all are in 0 .. size - 1."""
    if index.size and not (index.min() >= 0 and index.max() < size):
        bad = int(index.min()) if index.min() < 0 else int(index.max())
        raise ValueError(f"{function}: {name} holds {bad}; needed 0 .. {size - 1}")
