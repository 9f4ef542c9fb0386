"""Learning rate: warm-up, stable, decay.

Source: Hu et al. 2024 (2404.06395, MiniCPM) sec. 4; Haegele et al. 2024 (2405.18392) sec. 3 for the decays.

    r(t) = P t / W                              0 <= t < W
    r(t) = P                                    W <= t <= N - D
    r(t) = F + (P - F) (1 - x)                  "linear",      x = (t - (N - D)) / D up to t = N
    r(t) = F + (P - F) (1 - sqrt(x))            "sqrt"
    r(t) = P (F / P)^x                          "exponential"
    r(t) = F                                    t > N

Notation
    t -> step, P -> peak, F -> final, W -> warmup, D -> decay, N -> total.

Conventions
    C1  t counts steps from 1, as in `warmup_cosine`: step W has P, step N has F.
    C2  Up to N - D the rates do not know N: one long run serves every budget, each with a decay of its own.
    C3  MiniCPM's exponential, 0.5^((t - S) / T), is the one with F = P 0.5^(D / T). It needs F > 0.
    C4  "sqrt" is 1 - sqrt(x), steep at first; sqrt(1 - x) is another curve with the same ends.

Laws
    L1 landmarks                             L2 warm_up_is_linear_and_the_plateau_flat
    L3 each_decay_has_its_shape              L4 the_area_is_closed
    L5 budgets_share_their_plateau           L6 after_the_end_it_stays
    L7 any_array_gets_the_rates_of_its_entries
"""

from __future__ import annotations

import operator

from ref.optim.sgd import check_numbers
from ref.optim.warmup_cosine import check_spans, counted
from ref.spec import spec

SHAPES = ("linear", "sqrt", "exponential")


@spec("optim.wsd", "step:int[*B] -> [*B]")
def wsd(step, *, peak, warmup, decay, total, final=0.0, shape="linear"):
    """The learning rate of a step.

    Parameters
    ----------
    step : int or int[*B]
        Number of the step, from 1.
    peak, final : float
        Rate of the plateau; at step `total` and after.
    warmup, decay, total : int
        Steps of the warm-up, of the decay, of everything; 1 <= decay, warmup + decay <= total.
    shape : "linear", "sqrt" or "exponential"
        Of the decay.

    Returns
    -------
    float or float64[*B]
        A Python float for a Python int.

    Raises
    ------
    ValueError
        A step < 0, peak or final < 0, spans that do not fit, an unknown shape, or an exponential whose final or peak
        is 0.
    TypeError
        step is not int, or a span is no integer.

    Complexity: a power a step.

    >>> [wsd(t, peak=1.0, warmup=2, decay=4, total=10) for t in (1, 2, 6, 8, 10, 11)]
    [0.5, 1.0, 1.0, 0.5, 0.0, 0.0]
    """
    D = operator.index(decay)
    W, N = check_spans("wsd", warmup=warmup, total=total)
    check_numbers("wsd", peak=peak, final=final)
    if not 1 <= D <= N - W:
        raise ValueError(f"wsd: warmup={W}, decay={D}, total={N}; needed 1 <= decay <= total - warmup")
    if shape not in SHAPES:
        raise ValueError(f"wsd: shape={shape!r}; needed one of {SHAPES}")
    if shape == "exponential" and not (peak > 0 and final > 0):
        raise ValueError(f"wsd: peak={peak}, final={final}; an exponential needs both > 0")
    xp, t, given = counted("wsd", step)
    x = xp.minimum(xp.maximum(t - (N - D), xp.zeros_like(t)) / D, xp.ones_like(t))
    if shape == "exponential":
        falling = peak * (final / peak) ** x
    else:
        falling = final + (peak - final) * (1 - (x if shape == "linear" else xp.sqrt(x)))
    return given(xp.where(t < W, peak * t / max(W, 1), xp.where(x == 0, peak, xp.where(x == 1, final, falling))))
