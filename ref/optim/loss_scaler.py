"""Dynamic loss scaling.

Source: Micikevicius et al. 2018 (1710.03740) sec. 3.2; torch.amp.GradScaler for the rule and its constants.

    the loss is multiplied by s before the backward pass, so gradients arrive as s g
    all finite:     g = (s g) / s,  n <- n + 1;  at n = interval  s <- s growth, n <- 0
    otherwise:      the step is skipped,          s <- s backoff,  n <- 0

Notation
    s g -> grads, s -> state.scale, n -> state.good (good steps in a row); state.taken counts the steps not skipped.

Conventions
    C1  From s = 2^16 by 2 and 1/2 every 2000 good steps, s is a power of two and unscaling exact.
    C2  Unscale before clipping, else the limit means another norm with every scale.
    C3  A skipped step advances neither an optimizer's t nor the schedule: both go by state.taken.
    C4  A growth to infinity is not made (torch too); there is no floor.

Laws
    L1 replay_of_the_state_machine           L2 growth_every_interval
    L3 overflows_halve_the_scale             L4 unscaling_is_a_division
    L5 one_bad_entry_skips_the_step          L6 the_usual_interval
"""

from __future__ import annotations

import math
import operator
from typing import NamedTuple

from autodiff import namespace
from ref.optim.sgd import check_state
from ref.spec import bind, spec


class ScalerState(NamedTuple):
    """The scale, good steps since its last change, steps taken in all."""

    scale: float
    good: int
    taken: int


def start(scale=2.0**16):
    """The state before the first step."""
    return ScalerState(scale, 0, 0)


@spec("optim.loss_scaler", "grads:tree, state:tree -> grads:tree, ok:tree, state:tree")
def loss_scaler(grads, state, *, growth=2.0, backoff=0.5, interval=2000):
    """Unscale gradients, say whether to take the step, and adapt the scale.

    Parameters
    ----------
    grads : list of float arrays
        Of the scaled loss; at least one. NaN and infinities are allowed: they are what this looks for.
    state : ScalerState
        `start()` before the first step; its scale is the one that the loss was multiplied by.
    growth, backoff : float
        growth > 1 and 0 < backoff < 1.
    interval : int
        Good steps before the scale grows, at least 1.

    Returns
    -------
    (list of float arrays, bool, ScalerState)
        Gradients of the loss itself; True to take the step; the next state.

    Raises
    ------
    ValueError
        No gradients, a scale that is not finite and positive, growth, backoff or interval out of range, or a negative
        count.
    TypeError
        A gradient is not a float array, dtypes or backends differ, interval is no integer, or the state is not a
        ScalerState.

    Complexity: one pass over the gradients.

    >>> import numpy as np
    >>> loss_scaler([np.array([8.0])], ScalerState(4.0, 1, 1), interval=2)
    ([array([2.])], True, ScalerState(scale=8.0, good=0, taken=2))
    """
    grads = _check(grads, state, growth, backoff, operator.index(interval))
    xp = namespace(*grads)
    ok = all(bool(xp.all(xp.isfinite(g))) for g in grads)
    unscaled = [g * (1 / state.scale) for g in grads]
    if not ok:
        return unscaled, False, ScalerState(state.scale * backoff, 0, state.taken)
    scale, good = state.scale, state.good + 1
    if good >= interval:
        scale, good = (scale * growth if math.isfinite(scale * growth) else scale), 0
    return unscaled, True, ScalerState(scale, good, state.taken + 1)


def _check(grads, state, growth, backoff, interval):
    check_state("loss_scaler", state, ScalerState)
    grads = list(grads)
    if not grads:
        raise ValueError("loss_scaler: grads is empty; needed at least one gradient")
    names = [f"g{i}" for i in range(len(grads))]
    bind("loss_scaler", ", ".join(f"{n}[*N{n}]" for n in names), **dict(zip(names, grads, strict=True)))
    if not 0 < state.scale < math.inf:
        raise ValueError(f"loss_scaler: state has scale={state.scale}; needed a finite number > 0")
    if not (growth > 1 and 0 < backoff < 1 and interval >= 1):
        raise ValueError(
            f"loss_scaler: growth={growth}, backoff={backoff}, interval={interval}; "
            "needed growth > 1, backoff in (0, 1), interval >= 1"
        )
    if min(state.good, state.taken) < 0:
        raise ValueError(f"loss_scaler: state has good={state.good}, taken={state.taken}; needed counts >= 0")
    return grads
