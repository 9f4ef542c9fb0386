"""Master weights: updates too small for bfloat16 are summed in float32.

Source: Micikevicius et al. 2018 (1710.03740) sec. 3.1; stochastic rounding in their place: Gupta et al. 2015
(1502.02551) sec. 3.

    master:      m_t = m_{t-1} + d_t in float32,  w_t = bf16(m_t)
    low:         w_t = bf16(w_{t-1} + d_t)                             w_t = w_{t-1} while |d_t| < half a gap
    stochastic:  w_t = bf16(w_{t-1} + d_t, r_t),  r_t random bits      E[w_t] = w_{t-1} + d_t

A bfloat16 number has 8 digits: near 1 the gap above is 2^-7 and below 2^-8, so that a relative update under 2^-9
is lost, at learning rates that are usual.

Notation
    m_0 or w_0 -> w[n], d_t -> updates[T n], what an optimizer adds; r_t -> noise[T n].

Conventions
    C1  The first result is what training goes on from: m_T, or w_T where there is no master; the second is w_T.
    C2  Without a master w_0 is rounded first, to the nearest.
    C3  Updates are float32 and not rounded before they are added.

Laws
    L1 half_a_gap_is_lost                    L2 masters_add_up
    L3 noise_is_right_on_average             L4 a_run_goes_on_to_the_same_bits
"""

from __future__ import annotations

import numpy as np

from backends.low_precision import round_bf16
from backends.stochastic import stochastic_bf16
from ref.spec import bind, spec

SIGNATURE = "w[n], updates[T n], noise:int[T n]"
KINDS = ("master", "low", "stochastic")


@spec("training.master_weights", f"{SIGNATURE} -> state:any[n], weights:any[n]", backends=("numpy",))
def master_weights(w, updates, noise=None, *, keep="master"):
    """Weights after T updates, and the state that they are kept in.

    Parameters
    ----------
    w : float32[n]
    updates : float32[T n]
        Added one after the other.
    noise : uint16[T n], optional
        Uniform random bits, for "stochastic".
    keep : "master", "low" or "stochastic"

    Returns
    -------
    state, weights : float32[n], float32[n]
        The weights are bfloat16 numbers.

    Raises
    ------
    ValueError
        n differs, an unknown `keep`, or noise missing or not wanted.
    TypeError
        w or updates are not float32, or noise not uint16.

    Complexity: T n additions and roundings.

    >>> w, d = np.array([256.0], np.float32), np.full((8, 1), 0.5, np.float32)
    >>> for keep in ("master", "low"):
    ...     print(keep, *master_weights(w, d, keep=keep))
    master [260.] [260.]
    low [256.] [256.]
    """
    _check(w, updates, noise, keep)
    if keep == "master":
        m = w.copy()
        for d in updates:
            m = m + d
        return m, round_bf16(m)
    w = round_bf16(w)
    for t, d in enumerate(updates):
        w = round_bf16(w + d) if keep == "low" else stochastic_bf16(w + d, noise[t])
    return w, w.copy()


def _check(w, updates, noise, keep):
    bind("master_weights", SIGNATURE, w=w, updates=updates, noise=noise)
    if keep not in KINDS:
        raise ValueError(f"master_weights: keep={keep!r}; needed one of {KINDS}")
    if (noise is None) == (keep == "stochastic"):
        given = "no noise" if noise is None else "noise"
        raise ValueError(f"master_weights: {given} arrived for keep={keep!r}; 'stochastic' alone takes it")
    if w.dtype != np.float32:
        raise TypeError(f"master_weights: w has dtype {w.dtype}; float32 is needed")
    if noise is not None and noise.dtype != np.uint16:
        raise TypeError(f"master_weights: noise has dtype {noise.dtype}; uint16 is needed")
