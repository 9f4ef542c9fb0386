"""Learning rate: linear warm-up, then half a cosine.

Source: Loshchilov & Hutter 2017 (1608.03983) Eq. 5 without restarts; Goyal et al. 2017 (1706.02677) sec. 2.2
for the warm-up.

    r(t) = P t / W                                            0 <= t < W
    r(t) = F + (P - F) (1 + cos(pi (t - W) / (N - W))) / 2    W <= t <= N
    r(t) = F                                                  t > N

Notation
    t -> step, P -> peak, F -> final, W -> warmup, N -> total.

Conventions
    C1  t counts steps from 1, as Adam's t does: the first step has rate P / W, step W has P, step N has F.
        Code that counts from 0 gives the first step a rate of 0; nanoGPT's (it + 1) / (W + 1) is a third way.
    C2  The warm-up starts from 0, not from F. After N the rate stays F.
    C3  W = 0 is no warm-up: r(0) = P.

Laws
    L1 landmarks                             L2 warm_up_is_linear
    L3 decay_is_symmetric_about_its_middle   L4 decay_obeys_the_cosine_recurrence
    L5 the_area_is_closed                    L6 after_the_end_it_stays
    L7 it_falls_after_the_peak
"""

from __future__ import annotations

import math
import operator

import backends
from autodiff import namespace
from ref.optim.sgd import check_numbers
from ref.spec import bind, spec


@spec("optim.warmup_cosine", "step:int[*B] -> [*B]")
def warmup_cosine(step, *, peak, warmup, total, final=0.0):
    """The learning rate of a step.

    Parameters
    ----------
    step : int or int[*B]
        Number of the step, from 1.
    peak : float
        Rate at step `warmup`, the greatest; at least 0.
    warmup, total : int
        Steps of the warm-up and of everything; 0 <= warmup < total.
    final : float
        Rate at step `total` and after; at least 0.

    Returns
    -------
    float or float64[*B]
        A Python float for a Python int.

    Raises
    ------
    ValueError
        A step < 0, peak or final < 0, or not 0 <= warmup < total.
    TypeError
        step is not int, or warmup or total is no integer.

    Complexity: one cosine a step.

    >>> [warmup_cosine(t, peak=1.0, warmup=2, total=6) for t in (1, 2, 4, 6, 9)]
    [0.5, 1.0, 0.5, 0.0, 0.0]
    """
    W, N = check_spans("warmup_cosine", warmup=warmup, total=total)
    check_numbers("warmup_cosine", peak=peak, final=final)
    xp, t, given = counted("warmup_cosine", step)
    done = xp.minimum(xp.maximum(t - W, xp.zeros_like(t)) / (N - W), xp.ones_like(t))
    falling = final + (peak - final) * (1 + xp.cos(math.pi * done)) / 2
    return given(xp.where(t < W, peak * t / max(W, 1), falling))


def check_spans(function, **spans):
    """The steps W and N of `warmup` and `total` as ints; ValueError unless 0 <= W < N."""
    W, N = (operator.index(x) for x in spans.values())
    if not 0 <= W < N:
        first, last = spans
        raise ValueError(f"{function}: {first}={W}, {last}={N}; needed 0 <= {first} < {last}")
    return W, N


def counted(function, step):
    """(namespace, the steps as float64, how to give a rate back): a Python int in, a Python float out."""
    plain = isinstance(step, int) and not isinstance(step, bool)
    xp = backends.get("numpy") if plain else namespace(step)
    t = xp.asarray(step) if plain else step
    bind(function, "step:int[*B]", step=t)
    if bool(xp.any(t < 0)):
        raise ValueError(f"{function}: step has {int(xp.min(t))}; needed steps >= 0")
    return xp, xp.astype(t, xp.float64), float if plain else lambda rate: rate
