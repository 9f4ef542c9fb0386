"""Signal that is left after t steps: the running product of 1 - beta.

Source: Ho, Jain & Abbeel 2020 (2006.11239) sec. 2, Eq. 4.

    alpha_t = 1 - beta_t,   alpha_bar_t = alpha_1 .. alpha_t,   alpha_bar_0 = 1
    q(x_t | x_0) = N(sqrt(alpha_bar_t) x_0, (1 - alpha_bar_t) I)

Notation
    beta_t -> beta[t - 1]; alpha_bar_t -> the result at index t - 1.

Conventions
    C1  Index 0 is t = 1; alpha_bar_0 = 1 is not stored. DDIM's paper writes alpha for this alpha_bar.
    C2  A subsequence tau of the steps is a schedule of its own: alpha_bar[tau - 1], with
        beta' = 1 - alpha_bar_t / alpha_bar_s between neighbours s < t.

Laws
    L1 exact_product_in_fractions            L2 constant_beta_is_a_geometric_sequence
    L3 a_schedule_cut_in_two                 L4 it_falls_and_stays_positive
"""

from __future__ import annotations

from autodiff import namespace
from ref.spec import bind, spec


@spec("diffusion.alpha_bar", "beta[T] -> [T]")
def alpha_bar(beta):
    """The products alpha_bar_1 .. alpha_bar_T.

    Parameters
    ----------
    beta : float[T]
        Each in (0, 1).

    Returns
    -------
    float[T]

    Raises
    ------
    ValueError
        A beta outside (0, 1); the message names its index.
    TypeError
        beta is not a float array.

    Complexity: T products.

    >>> import numpy as np
    >>> alpha_bar(np.array([0.5, 0.25]))
    array([0.5  , 0.375])
    """
    bind("alpha_bar", "beta[T]", beta=beta)
    xp = namespace(beta)
    check_open_unit("alpha_bar", "beta", beta)
    return xp.cumulative_prod(1 - beta)


def check_open_unit(function, name, values):
    """ValueError with the first index of a value outside (0, 1)."""
    xp = namespace(values)
    good = (values > 0) & (values < 1)
    if not bool(xp.all(good)):
        at = int(xp.argmax(xp.astype(~good, xp.int64)))
        raise ValueError(f"{function}: {name}[{at}]={float(values[at])}; needed numbers in (0, 1)")
