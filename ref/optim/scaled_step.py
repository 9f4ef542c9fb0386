"""One training step under a scaled loss: unscale, look, clip, update; or skip.

Source: Micikevicius et al. 2018 (1710.03740) sec. 3.2; the order is that of torch's automatic mixed precision examples.

    g, ok, scaler = loss_scaler(s g)
    ok:      g <- g min(1, c / |g|),   (th_i, state_i) <- step(th_i, g_i, state_i, t),   t = scaler.taken
    not ok:  th_i and state_i stay

Notation
    th_i -> params[i], s g -> grads[i], c -> max_norm.

Conventions
    C1  Unscaled before clipped: c is a norm of the loss's own gradient.
    C2  t is the number of the step among those taken, from 1: a schedule asked for t does not move on a skipped step,
        nor does an optimizer's own count.
    C3  Masters are float32 (or float64) and grads of their dtype: a half-precision gradient is cast by the caller, who
        then sees its infinities here.

Laws
    L1 skipped_steps_never_happened          L2 the_scale_is_invisible
    L3 a_clipped_step_in_closed_form         L4 a_skipped_step_changes_no_bit
    L5 t_counts_the_steps_taken
"""

from __future__ import annotations

import math

from ref.optim.clip_by_global_norm import clip_by_global_norm
from ref.optim.loss_scaler import loss_scaler
from ref.spec import spec


@spec("optim.scaled_step", "params:tree, grads:tree, states:tree, scaler:tree -> params:tree, states:tree, scaler:tree")
def scaled_step(params, grads, states, scaler, *, step, max_norm=math.inf, growth=2.0, backoff=0.5, interval=2000):
    """One step of every parameter, or none.

    Parameters
    ----------
    params, grads : list of float arrays
        grads are of the loss times scaler.scale.
    states : list
        An optimizer state for each parameter.
    scaler : ScalerState
    step : callable
        step(param, grad, state, t) -> (param, state): an optimizer with its rate for step t.
    max_norm : float
        Clips the global norm of the unscaled gradients.
    growth, backoff, interval
        Of `loss_scaler`.

    Returns
    -------
    (list of float arrays, list, ScalerState)

    Raises
    ------
    ValueError
        Other numbers of parameters, gradients and states, or what `loss_scaler` and `clip_by_global_norm` refuse.
    TypeError
        As those two.

    Complexity: three passes over the gradients, and the optimizer's.

    >>> import numpy as np
    >>> from ref.optim.loss_scaler import start
    >>> sgd = lambda p, g, state, t: (p - g / t, state)
    >>> scaled_step([np.array([1.0])], [np.array([2.0])], [None], start(4.0), step=sgd)[0]
    [array([0.5])]
    """
    params, grads, states = list(params), list(grads), list(states)
    if not len(params) == len(grads) == len(states):
        raise ValueError(
            f"scaled_step: {len(params)} params, {len(grads)} grads, {len(states)} states; needed as many of each"
        )
    grads, ok, scaler = loss_scaler(grads, scaler, growth=growth, backoff=backoff, interval=interval)
    if not ok:
        return [1.0 * p for p in params], states, scaler
    grads, _ = clip_by_global_norm(grads, max_norm)
    moved = [step(p, g, s, scaler.taken) for p, g, s in zip(params, grads, states, strict=True)]
    return [p for p, _ in moved], [s for _, s in moved], scaler
