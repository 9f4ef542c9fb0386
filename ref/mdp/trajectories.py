"""Recorded trajectories: what returns, lambda-returns and advantages share.

    rewards, values, next_values, terminated, truncated: one shape [*N], time on the first axis or on the last.

Step t led from s_t to s_{t+1} and paid rewards[t]; next_values[t] is the value of that very s_{t+1}. Inside an episode
it equals values[t + 1]; where the recording was cut it is the value of the state in which the episode was left, which
values[t + 1], the first state of the next episode, is not. (Gymnasium's vector environments put that state into
`info["final_obs"]` under SAME_STEP autoreset.) `terminated` and `truncated` are told apart in `ref.mdp.model`; the last
recorded step is a truncation too, whether it is marked or not.
"""

from __future__ import annotations

from autodiff import namespace
from ref.mdp.model import check_gamma


def steps(function, time_axis, gamma, *, lam=None, **arrays):
    """Validate what describes a trajectory; returns (xp, time axis from 0).

    Raises
    ------
    ValueError
        No axis, time neither on the first nor on the last axis, gamma or lam out of range, or lam does not broadcast.
    TypeError
        gamma is no number, or lam neither a number nor an array.
    """
    shape = next(iter(arrays.values())).shape
    if not shape:
        raise ValueError(f"{function}: {next(iter(arrays))} has no axes; needed time on the first or the last")
    if time_axis not in (0, -1, len(shape) - 1):
        raise ValueError(f"{function}: time_axis={time_axis}; needed 0 (time first) or -1 (time last)")
    check_gamma(function, gamma)
    xp = namespace(*arrays.values())
    if lam is not None:
        _check_lam(function, xp, lam, shape)
    return xp, time_axis % len(shape)


def _check_lam(function, xp, lam, shape):
    if isinstance(lam, int | float):
        low = high = lam
    elif not hasattr(lam, "shape"):
        raise TypeError(f"{function}: lam is a {type(lam).__name__}; needed a number or an array")
    else:
        padded = (1,) * (len(shape) - lam.ndim) + tuple(lam.shape)
        if len(padded) != len(shape) or any(a not in (1, b) for a, b in zip(padded, shape, strict=True)):
            raise ValueError(f"{function}: lam has shape {tuple(lam.shape)}; it must broadcast to {tuple(shape)}")
        low, high = (float(xp.min(lam)), float(xp.max(lam))) if 0 not in lam.shape else (0, 0)
    if not (low >= 0 and high <= 1):
        raise ValueError(f"{function}: lam={high if high > 1 else low}; needed 0 <= lam <= 1")


def spread(xp, number, like):
    """A number or a broadcastable array as an array of the shape and dtype of `like`."""
    if isinstance(number, int | float):
        return xp.full_like(like, number)
    return xp.asarray(xp.broadcast_to(number, like.shape), dtype=like.dtype)


def stops(xp, terminated, truncated, axis):
    """bool[*N]: the last step of its episode, or of the recording."""
    T = terminated.shape[axis]
    last = xp.reshape(xp.arange(T) == T - 1, tuple(T if i == axis else 1 for i in range(terminated.ndim)))
    return terminated | truncated | last


def backward_sum(xp, x, carry, axis):
    """y_t = x_t + carry_t y_{t+1} along the axis, y_T = 0; carry is not looked at in the last step."""
    T = x.shape[axis]
    if not T:
        return x
    if axis:  # a step is then a row: contiguous, and indexed at once
        order = (axis, *range(axis), *range(axis + 1, x.ndim))
        back = (*range(1, axis + 1), 0, *range(axis + 1, x.ndim))
        x, carry = (xp.asarray(xp.permute_dims(a, order), copy=True) for a in (x, carry))
        return xp.asarray(xp.permute_dims(backward_sum(xp, x, carry, 0), back), copy=True)
    y = x[T - 1, ...]
    found = [y]
    for t in range(T - 2, -1, -1):
        y = x[t, ...] + carry[t, ...] * y
        found.append(y)
    return xp.stack(found[::-1])
