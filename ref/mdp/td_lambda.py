"""TD(lambda): temporal differences with eligibility traces (the backward view).

Source: Sutton 1988; Sutton & Barto 2018, sec. 12.2; Singh & Sutton 1996 for replacing traces.

    delta_t = r_t + gamma (1 - terminated_t) V(s_{t+1}) - V(s_t)
    e(s_t) <- e(s_t) + 1  (accumulating)   or   1  (replacing);   V <- V + a delta_t e;   e <- gamma lam e

    offline, with accumulating traces, the moves of an episode are those of the forward view: sum_t a (G_t - V(s_t)) at
    s_t, G the `lambda_return`

Notation
    V -> values[S]; s_t, r_t, s_{t+1} -> states, rewards, next_states [T]; a -> rate, lam -> lam; e is kept inside.

Conventions
    C1  Online (the default) V changes at each step, and later deltas see it. Offline all deltas see the first V, and
        the moves are made at the end: only then are the two views the same.
    C2  After a step that terminated or was truncated the traces are cleared; the delta of a truncated step still looks
        at V(s_{t+1}).
    C3  For the equality with the forward view a recording must be one: next_states[t] = states[t + 1] inside an
        episode.

Laws
    L1 forward_is_backward                   L2 online_by_the_direct_trace
    L3 visits_on_the_state_that_stays        L4 lam_zero_is_td0
    L5 episodes_do_not_mix                   L6 what_follows_an_end_is_invisible
"""

from __future__ import annotations

import numpy as np

from ref.mdp.model import check_gamma
from ref.mdp.rollout import check_indices
from ref.spec import bind, spec

INPUTS = "values[S], states:int[T], rewards[T], next_states:int[T], terminated:bool[T], truncated:bool[T]"
SIGNATURE = f"{INPUTS} -> [S]"
TRACES = ("accumulating", "replacing")


@spec("mdp.td_lambda", SIGNATURE, backends=("numpy",))
def td_lambda(
    values, states, rewards, next_states, terminated, truncated, *, gamma, lam, rate, traces="accumulating", online=True
):
    """Values after the T steps of a recording.

    Parameters
    ----------
    values : float[S]
    states : int[T]
        State that each step left.
    rewards : float[T]
    next_states : int[T]
        State that it led to.
    terminated, truncated : bool[T]
        The process ended with the step; the recording was cut after it.
    gamma, lam : float
        0 <= gamma <= 1, 0 <= lam <= 1.
    rate : float
        0 <= rate <= 1.
    traces : "accumulating" or "replacing"
    online : bool
        Values change at each step; else at the end.

    Returns
    -------
    float[S]

    Raises
    ------
    ValueError
        Axes disagree, a state that is not there, gamma, lam or rate out of range, another word for traces.
    TypeError
        An array of another kind, or float dtypes differ.

    Complexity: T S.

    >>> import numpy as np
    >>> no = np.zeros(2, bool)
    >>> td_lambda(np.zeros(3), np.array([0, 1]), np.array([0.0, 4.0]), np.array([1, 2]), no, no, gamma=1.0, lam=0.5,
    ...           rate=0.5)
    array([1., 2., 0.])
    """
    S = bind(
        "td_lambda", SIGNATURE, values=values, states=states, rewards=rewards, next_states=next_states,
        terminated=terminated, truncated=truncated,
    )["S"]  # fmt: skip
    check_gamma("td_lambda", gamma)
    for name, number in (("lam", lam), ("rate", rate)):
        if not 0 <= number <= 1:
            raise ValueError(f"td_lambda: {name}={number}; needed 0 <= {name} <= 1")
    if traces not in TRACES:
        raise ValueError(f"td_lambda: traces={traces!r}; needed one of {TRACES}")
    for name, index in (("states", states), ("next_states", next_states)):
        check_indices("td_lambda", name, index, S)
    V, moves, e = values.copy(), np.zeros_like(values), np.zeros_like(values)
    for t, (s, to) in enumerate(zip(states.tolist(), next_states.tolist(), strict=True)):
        seen = V if online else values
        delta = rewards[t] + gamma * (0 if terminated[t] else seen[to]) - seen[s]
        e[s] = e[s] + 1 if traces == "accumulating" else 1
        if online:
            V += rate * delta * e
        else:
            moves += rate * delta * e
        e *= 0 if terminated[t] or truncated[t] else gamma * lam
    return V + moves
