"""Learning rate: linear warm-up, then a straight line down.

Source: Devlin et al. 2019 (1810.04805) sec. A.2, whose released code decays to 0; Goyal et al. 2017 (1706.02677)
sec. 2.2 for the warm-up.

    r(t) = P t / W                              0 <= t < W
    r(t) = F + (P - F) (N - t) / (N - W)        W <= t <= N
    r(t) = F                                    t > N

Notation
    t -> step, P -> peak, F -> final, W -> warmup, N -> total.

Conventions
    C1  t counts steps from 1, as in `warmup_cosine`: step W has P, step N has F.
    C2  The warm-up starts from 0, not from F. After N the rate stays F.
    C3  BERT's script interpolates from 0 over all N steps and overrides the first W: its rate jumps down at W. Here
        the line starts at the peak.

Laws
    L1 landmarks                             L2 both_pieces_are_straight
    L3 the_area_is_a_trapezium               L4 after_the_end_it_stays
    L5 any_array_gets_the_rates_of_its_entries
"""

from __future__ import annotations

from ref.optim.sgd import check_numbers
from ref.optim.warmup_cosine import check_spans, counted
from ref.spec import spec


@spec("optim.warmup_linear", "step:int[*B] -> [*B]")
def warmup_linear(step, *, peak, warmup, total, final=0.0):
    """The learning rate of a step.

    Parameters
    ----------
    step : int or int[*B]
        Number of the step, from 1.
    peak, final : float
        Rate at step `warmup`; at step `total` and after.
    warmup, total : int
        0 <= warmup < total.

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

    Complexity: five operations a step.

    >>> [warmup_linear(t, peak=1.0, warmup=2, total=6) for t in (1, 2, 4, 6, 9)]
    [0.5, 1.0, 0.5, 0.0, 0.0]
    """
    W, N = check_spans("warmup_linear", warmup=warmup, total=total)
    check_numbers("warmup_linear", peak=peak, final=final)
    xp, t, given = counted("warmup_linear", step)
    left = xp.maximum(N - t, xp.zeros_like(t)) / (N - W)
    return given(xp.where(t < W, peak * t / max(W, 1), final + (peak - final) * left))
