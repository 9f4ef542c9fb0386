"""Forward process: a clean sample carried to step t in one go.

Source: Ho, Jain & Abbeel 2020 (2006.11239) Eq. 2, 4.

    q(x_t | x_{t-1}) = N(sqrt(1 - beta_t) x_{t-1}, beta_t I)
    q(x_t | x_0)     = N(sqrt(alpha_bar_t) x_0, (1 - alpha_bar_t) I)
    x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps

Notation
    eps -> noise; alpha_bar_t -> alpha_bar[t - 1].

Conventions
    C1  t counts from 1 to N; t = 0 would be x_0 itself and is refused.
    C2  t has leading axes of x_0: one step for all, or one an example.
    C3  The coefficients are formed in alpha_bar's own dtype, then cast to that of x_0: 1 - alpha_bar of a float32
        alpha_bar near 1 has lost most of its digits, so keep the schedule in float64.

Laws
    L1 coefficients_of_the_closed_marginal   L2 t_kernels_in_a_row
    L3 each_example_has_its_own_step         L4 gradients_are_the_coefficients
"""

from __future__ import annotations

from autodiff import namespace
from ref.diffusion.convert import spread
from ref.spec import bind, spec

SIGNATURE = "x0[*S], t:int[*T], noise[*S], alpha_bar[N] -> [*S]"


@spec("diffusion.noised", SIGNATURE, grads=("x0", "noise"))
def noised(x0, t, noise, alpha_bar):
    """A sample of q(x_t | x_0), given its noise.

    Parameters
    ----------
    x0 : float[*S]
    t : int[*T] or int
        Steps in 1 .. N; *T are leading axes of *S.
    noise : float[*S]
        Standard normal.
    alpha_bar : float[N]
        Of any float dtype.

    Returns
    -------
    float[*S]

    Raises
    ------
    ValueError
        A step outside 1 .. N, or shapes that disagree.
    TypeError
        An array is not float (t: int), or x0 and noise differ in dtype.

    Complexity: 2 multiply-adds an entry.

    >>> import numpy as np
    >>> noised(np.array([1.0, 1.0]), np.array([1, 2]), np.array([0.0, 2.0]), np.array([0.64, 0.36]))
    array([0.8, 2.2])
    """
    bind("noised", SIGNATURE, x0=x0, noise=noise)
    now, _ = levels("noised", t, alpha_bar, x0)
    xp = namespace(alpha_bar)
    return x0 * xp.astype(xp.sqrt(now), x0.dtype) + noise * xp.astype(xp.sqrt(1 - now), x0.dtype)


def levels(function, t, alpha_bar, x):
    """alpha_bar at t and at t - 1 (1 at 0), in alpha_bar's dtype, shaped to broadcast over x.

    Raises
    ------
    ValueError, TypeError
        A step outside 1 .. N, t with axes that do not lead those of x, t no integers, alpha_bar no float array.
    """
    xp = namespace(alpha_bar)
    t = xp.asarray(t) if isinstance(t, int) and not isinstance(t, bool) else t
    count = bind(function, "alpha_bar[N], t:int[*T]", alpha_bar=alpha_bar, t=t)["N"]
    bad = (t < 1) | (t > count)
    if bool(xp.any(bad)):
        found = int(xp.max(xp.where(bad, t, xp.min(t))))
        raise ValueError(f"{function}: t has {found}; needed steps in 1 .. {count}")
    wide = spread(t, x, f"{function}: t")
    from_zero = xp.concat([xp.ones(1, dtype=alpha_bar.dtype), alpha_bar])
    flat = xp.reshape(wide, (-1,))
    return tuple(xp.reshape(xp.take(from_zero, k, axis=0), wide.shape) for k in (flat, flat - 1))
