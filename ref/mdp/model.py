"""The model of a finite Markov decision process: what the family shares.

    P[S A S]        P[s, a, t] = chance that action a in state s leads to state t; each row P[s, a] sums to 1
    R[S A]          expected reward of a in s
    policy[S A]     policy[s, a] = chance of a in s; a deterministic policy has one 1 a row
    gamma           discount, 0 <= gamma <= 1

A state where an episode ends is absorbing: P[s, a, s] = 1 and R[s, a] = 0 for every a, so its value is 0. A model has
no time limit; `finite_horizon` and `iterative_evaluation` count steps.

Along a trajectory there are two ways for an episode to stop, and they are told apart everywhere in this family:

    terminated    the process has ended: what follows is worth 0, and the successor's value is not looked at.
    truncated     the recording was cut (a time limit, the end of a buffer) while the process would have gone on: the
                  successor's value stands in for what follows. It is the value of the state that the last action led
                  to, not of the first state of the next episode that a vectorised environment shows in its place.

Neither lets a return, a trace or an advantage of one episode reach into another. A step that is marked as both is
terminated.
"""

from __future__ import annotations

import operator

from autodiff import namespace, raw
from ref.spec import bind


def check_gamma(function, gamma, *, below_one=False):
    """ValueError unless 0 <= gamma <= 1 (< 1 if `below_one`)."""
    if isinstance(gamma, bool) or not isinstance(gamma, int | float):
        raise TypeError(f"{function}: gamma is a {type(gamma).__name__}; needed a number")
    if not 0 <= gamma <= 1 or (below_one and gamma == 1):
        raise ValueError(f"{function}: gamma={gamma}; needed 0 <= gamma {'<' if below_one else '<='} 1")


def check_count(function, least=0, **counts):
    """TypeError or ValueError unless each is an integer of at least `least`."""
    for name, n in counts.items():
        try:
            value = operator.index(n)
        except TypeError:
            raise TypeError(f"{function}: {name} is a {type(n).__name__}; needed an integer") from None
        if value < least:
            raise ValueError(f"{function}: {name}={value}; needed at least {least}")


def check_model(function, P, R):
    """Validate a model; returns (S, A).

    Raises
    ------
    ValueError
        Axes disagree, there is no state or no action, a row of P is no distribution, or a reward is not finite: the
        message names (s, a).
    """
    sizes = bind(function, "P[S A S], R[S A]", P=P, R=R)
    if not (sizes["S"] and sizes["A"]):
        raise ValueError(
            f"{function}: P has S={sizes['S']} states, A={sizes['A']} actions; needed at least one of each"
        )
    check_rows(function, "P", P)
    if R is not None:
        xp, r = namespace(raw(R)), raw(R)
        at = first(xp, ~xp.isfinite(r))
        if at:
            raise ValueError(f"{function}: R at (s, a) = {at} is {float(r[at])}; needed finite rewards")
    return sizes["S"], sizes["A"]


def check_rows(function, name, rows):
    """ValueError unless every row along the last axis is a distribution, up to rounding; the message names it."""
    rows = raw(rows)
    xp = namespace(rows)
    total = xp.sum(rows, axis=-1)
    near = (rows.shape[-1] + 8) * xp.finfo(rows.dtype).eps
    wrong = ~((xp.abs(total - 1) <= near) & xp.all(rows >= 0, axis=-1))
    at = first(xp, wrong)
    if at is not None:
        row = [float(rows[(*at, i)]) for i in range(rows.shape[-1])]
        place = f"(s, a) = {at}" if len(at) == 2 else f"s = {at[0]}"
        fault = f"has {min(row)}" if min(row) < 0 else f"sums to {float(total[at])}"
        raise ValueError(f"{function}: {name} at {place} {fault}; needed chances >= 0 that sum to 1")


def first(xp, wrong):
    """The index of the first True, a tuple of int; None if there is none."""
    if not bool(xp.any(wrong)):
        return None
    flat, at = int(xp.argmax(xp.astype(xp.reshape(wrong, (-1,)), xp.int64))), []
    for size in reversed(wrong.shape):
        flat, place = divmod(flat, size)
        at.append(place)
    return tuple(reversed(at))


def backup(xp, P, R, v, gamma):
    """R(s, a) + gamma sum_t P(t | s, a) v(t)."""
    return xp.add(R, gamma * xp.matmul(P, v))


def under(xp, P, R, policy):
    """(P_pi[S S], R_pi[S]): the chain and its rewards when actions are drawn from the policy."""
    return xp.sum(xp.multiply(policy[..., None], P), axis=1), xp.sum(xp.multiply(policy, R), axis=1)


def greedy(xp, q):
    """The greedy policy[S A] of q[S A], one 1 a row: the first of the best actions."""
    best = xp.argmax(q, axis=1, keepdims=True)
    return xp.astype(xp.arange(q.shape[1])[None, :] == best, q.dtype)
