"""Forward posterior: where x_{t-1} was, given x_t and x_0.

Source: Ho, Jain & Abbeel 2020 (2006.11239) Eq. 6-7.

    q(x_{t-1} | x_t, x_0) = N(c_0 x_0 + c_t x_t, btilde_t I)

    c_0 = sqrt(alpha_bar_{t-1}) beta_t / (1 - alpha_bar_t)
    c_t = sqrt(alpha_t) (1 - alpha_bar_{t-1}) / (1 - alpha_bar_t)
    btilde_t = (1 - alpha_bar_{t-1}) / (1 - alpha_bar_t) beta_t

Notation
    x_t -> x; alpha_bar_t -> alpha_bar[t - 1], alpha_bar_0 = 1; alpha_t = alpha_bar_t / alpha_bar_{t-1} = 1 - beta_t.

Conventions
    C1  Everything is formed from alpha_bar, so that a subsequence alpha_bar[tau - 1] has its own beta and btilde.
    C2  btilde_1 = 0: x_0 is known. Code that takes a logarithm uses btilde_2 there (`diffusion.reverse_kernel`).

Laws
    L1 bayes_rule_by_precisions              L2 averaged_over_x_t_it_is_the_marginal
    L3 at_the_first_step_it_is_x_0           L4 variance_at_most_beta
"""

from __future__ import annotations

from autodiff import namespace
from ref.diffusion.noised import levels
from ref.spec import bind, spec

SIGNATURE = "x0[*S], x[*S], t:int[*T], alpha_bar[N] -> mean[*S], variance[*T]"


@spec("diffusion.posterior", SIGNATURE, grads=("x0", "x"))
def posterior(x0, x, t, alpha_bar):
    """Mean and variance of q(x_{t-1} | x_t, x_0).

    Parameters
    ----------
    x0, x : float[*S]
        The clean sample, and it at step t.
    t : int[*T] or int
        Steps in 1 .. N; *T are leading axes of *S.
    alpha_bar : float[N]
        Of any float dtype.

    Returns
    -------
    mean : float[*S]
    variance : float[*T]

    Raises
    ------
    ValueError
        A step outside 1 .. N, or shapes that disagree.
    TypeError
        An array is not float (t: int), or x0 and x differ in dtype.

    Complexity: 2 multiply-adds an entry.

    >>> import numpy as np
    >>> posterior(np.array([3.0]), np.array([0.0]), 2, np.array([0.75, 0.5]))
    (array([1.73205081]), array(0.16666667))
    """
    bind("posterior", SIGNATURE, x0=x0, x=x)
    now, before = levels("posterior", t, alpha_bar, x)
    c_0, c_t, variance = posterior_weights(namespace(alpha_bar).sqrt, now, before)
    xp = namespace(alpha_bar)
    c_0, c_t, variance = (xp.astype(v, x.dtype) for v in (c_0, c_t, variance))
    return x0 * c_0 + x * c_t, xp.reshape(variance, tuple(getattr(t, "shape", ())))


def posterior_weights(sqrt, now, before):
    """(c_0, c_t, btilde) between alpha_bar `now` and, nearer the data, `before` (numbers or arrays)."""
    beta = (before - now) / before
    c_0 = sqrt(before) * beta / (1 - now)
    c_t = sqrt(now / before) * (1 - before) / (1 - now)
    return c_0, c_t, (1 - before) / (1 - now) * beta
