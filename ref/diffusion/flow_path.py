"""Flow matching on straight paths: where a path stands at time t, and the velocity it has.

Source: Lipman et al. 2023 (2210.02747) Eq. 22-23 (optimal transport paths); Liu et al. 2023 (2209.03003) Eq. 1 and
Albergo & Vanden-Eijnden 2023 (2209.15571) for sigma_min = 0.

    x_t = (1 - (1 - sigma_min) t) z + t x_1,   u = x_1 - (1 - sigma_min) z

Notation
    x_1 -> data, z -> noise.

Conventions
    C1  t = 0 is noise, t = 1 is data. Other code has it the other way round, and the sign of u with it.
    C2  The loss is the mean square of velocity(x_t, t) - u; its minimiser is E[u | x_t]
        (`diffusion.gaussian_velocity`).
    C3  sigma_min = 0 is the straight line; sigma_min > 0 ends in a Gaussian around each data point.

Laws
    L1 straight_lines                        L2 velocity_is_the_derivative
    L3 moments_of_a_gaussian                 L4 gradients_are_the_weights
"""

from __future__ import annotations

from autodiff import namespace
from ref.diffusion.convert import spread
from ref.spec import bind, spec

SIGNATURE = "data[*S], noise[*S], t[*T] -> x[*S], velocity[*S]"


@spec("diffusion.flow_path", SIGNATURE, grads=("data", "noise"))
def flow_path(data, noise, t, *, sigma_min=0.0):
    """The point of each path at t, and its velocity.

    Parameters
    ----------
    data, noise : float[*S]
    t : float[*T]
        In [0, 1]; *T are leading axes of *S.
    sigma_min : float
        In [0, 1).

    Returns
    -------
    x, velocity : float[*S]

    Raises
    ------
    ValueError
        A time outside [0, 1], sigma_min outside [0, 1), or shapes that disagree.
    TypeError
        An array is not float, or dtypes or backends differ.

    Complexity: 4 multiply-adds an entry.

    >>> import numpy as np
    >>> flow_path(np.array([4.0]), np.array([2.0]), np.array([0.25]))
    (array([2.5]), array([2.]))
    """
    bind("flow_path", SIGNATURE, data=data, noise=noise, t=t)
    check_unit_times("flow_path", t)
    if not 0 <= sigma_min < 1:
        raise ValueError(f"flow_path: sigma_min={sigma_min}; needed a number in [0, 1)")
    wide = spread(t, data, "flow_path: t")
    shrink = 1 - sigma_min
    return noise * (1 - wide * shrink) + data * wide, data - noise * shrink


def check_unit_times(function, t):
    """ValueError unless all times lie in [0, 1]."""
    xp = namespace(t)
    if not bool(xp.all((t >= 0) & (t <= 1))):
        found = float(xp.min(t)) if bool(xp.any(t < 0)) else float(xp.max(t))
        raise ValueError(f"{function}: t has {found}; needed times in [0, 1]")
