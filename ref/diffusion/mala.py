"""Metropolis-adjusted Langevin: one step that leaves the density exactly invariant.

Source: Roberts & Tweedie 1996 (Bernoulli 2:341) sec. 1.4; Besag 1994.

    y = x + a s(x) + sqrt(2 a) z,   q(x, y) = N(y; x + a s(x), 2 a I)
    accept y with probability min(1, p(y) q(y, x) / (p(x) q(x, y))),  else stay at x

Notation
    s -> score, ln p -> log_density (up to a constant); the uniform number that decides -> uniform.

Conventions
    C1  y is accepted where uniform < probability: a uniform of 0 accepts whatever can be accepted.
    C2  a is that of "full" (`diffusion.langevin`); half the step of "half".
    C3  The score need not be exact for p to stay invariant: the ratio has the proposal that was made. A score without a
        density (a score network) cannot be adjusted so.
    C4  Both the state and the probability come back: averages weighted by it waste less.

Laws
    L1 detailed_balance                      L2 acceptance_of_a_gaussian
    L3 it_moves_where_it_accepts             L4 variance_is_left_exactly
"""

from __future__ import annotations

from autodiff import namespace
from ref.diffusion.langevin import step_of
from ref.diffusion.run_stages import check_shape
from ref.spec import bind, spec

SIGNATURE = "x[*B d], noise[*B d], uniform[*B] -> state[*B d], probability[*B]"


@spec("diffusion.mala", SIGNATURE)
def mala(x, noise, uniform, *, log_density, score, step):
    """The next state, and the probability with which the proposal was accepted.

    Parameters
    ----------
    x : float[*B d]
    noise : float[*B d]
        Standard normal.
    uniform : float[*B]
        In [0, 1).
    log_density : callable
        ln p and a constant: float[*B d] -> float[*B].
    score : callable
        grad ln p: float[*B d] -> float[*B d].
    step : float
        a, positive.

    Returns
    -------
    state : float[*B d]
    probability : float[*B]

    Raises
    ------
    ValueError
        Shapes that differ, those of the score and the density included, or a step that is not positive and finite.
    TypeError
        An array is not float, or dtypes or backends differ.

    Complexity: two calls of the density and the score.

    >>> import numpy as np
    >>> normal = dict(log_density=lambda x: -(x * x).sum(-1) / 2, score=lambda x: -x)
    >>> mala(np.array([[2.0]]), np.zeros((1, 1)), np.array([0.5]), step=0.5, **normal)
    (array([[1.]]), array([1.]))
    """
    bind("mala", SIGNATURE, x=x, noise=noise, uniform=uniform)
    drift, spread = step_of("mala", step, "full")
    xp = namespace(x)
    s_x = score(x)
    check_shape("mala", "the score", s_x, x)
    y = x + s_x * drift + noise * spread
    at_x, at_y = log_density(x), log_density(y)
    check_shape("mala", "the log-density", at_x, uniform)
    back = x - y - score(y) * drift
    # ln q(y, x) - ln q(x, y); there y - x - a s(x) = sqrt(2 a) z.
    proposals = xp.sum(noise * noise, axis=-1) / 2 - xp.sum(back * back, axis=-1) / (4 * step)
    ratio = at_y - at_x + proposals
    probability = xp.exp(xp.where(ratio < 0, ratio, xp.zeros_like(ratio)))
    taken = xp.expand_dims(uniform < probability, axis=-1)
    return xp.where(taken, y, x), probability
