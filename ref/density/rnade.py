"""RNADE: NADE for real vectors, a mixture of Gaussians for each conditional.

Source: Uria, Murray & Larochelle 2013 (1306.0186) sec. 3.

    a_1 = c,   a_{i+1} = a_i + W_{.i} x_i,   h_i = relu(rho_i a_i)
    alpha_i = softmax(V^a_i h_i + b^a_i),   mu_i = V^m_i h_i + b^m_i,   sigma_i = exp(V^s_i h_i + b^s_i)
    p(x_i | x_<i) = sum_k alpha_ik N(x_i; mu_ik, sigma_ik^2)

Notation
    x[*B n]; params: W -> "weight"[H n], c -> "hidden_bias"[H], rho -> "scale"[n]; V^a, V^m, V^s -> "mixture.weight",
    "mean.weight", "log_std.weight"[n K H] and their biases [n K].

Conventions
    C1  rho_i offsets the growth of a_i with i; the paper learns it, from 1 on.
    C2  The third head is log sigma, not log sigma^2.
    C3  The mixture is summed by log-sum-exp: far from every component a density is no 0.
    C4  A density, not a probability: log p may be positive. For data rounded to a grid, add noise first.

Laws
    L1 silent_heads_are_independent_gaussians
    L2 each_conditional_integrates_to_one   L3 linear_units_make_a_gaussian
    L4 later_values_are_invisible           L5 components_have_no_order
    L6 the_nearest_component_decides_far_away
    L7 densities_written_out                L8 gradient_is_the_slope
"""

from __future__ import annotations

import math

from autodiff import namespace
from autodiff.special import log_softmax, logsumexp
from ref.spec import bind, spec

SHAPES = {
    "weight": "H n", "hidden_bias": "H", "scale": "n",
    "mixture.weight": "n K H", "mixture.bias": "n K",
    "mean.weight": "n K H", "mean.bias": "n K",
    "log_std.weight": "n K H", "log_std.bias": "n K",
}  # fmt: skip
SIGNATURE = "x[*B n], params:tree -> log_prob[*B], log_conditionals[*B n]"


@spec("density.rnade", SIGNATURE, grads=("x", "params"))
def rnade(x, params):
    """Log-density of real vectors, whole and a coordinate at a time.

    Parameters
    ----------
    x : float[*B n]
    params : {str: float array}
        Names and axes as in SHAPES.

    Returns
    -------
    log_prob : float[*B]
        Nats.
    log_conditionals : float[*B n]
        log p(x_i | x_<i); they sum to log_prob.

    Raises
    ------
    ValueError
        Parameters are missing, unexpected or of other axes.
    TypeError
        An array is not float, or dtypes or backends differ.

    Complexity: B n H (1 + 3 K) multiply-adds.

    >>> import numpy as np
    >>> params = {k: np.zeros([1 for _ in axes.split()]) for k, axes in SHAPES.items()}
    >>> rnade(np.array([0.0]), params)[0].round(4)
    np.float64(-0.9189)
    """
    _check(x, params)
    xp = namespace(x, *params.values())
    steps = xp.multiply(x[..., None], xp.matrix_transpose(params["weight"]))  # [*B n H]
    before = xp.cumulative_sum(steps, axis=-2, include_initial=True)[..., :-1, :]
    a = (before + params["hidden_bias"]) * params["scale"][:, None]
    hidden = xp.where(a > 0, a, 0.0)
    heads = {}
    for name in ("mixture", "mean", "log_std"):
        head = xp.matmul(params[f"{name}.weight"], hidden[..., None])[..., 0]  # [*B n K]
        heads[name] = head + params[f"{name}.bias"]
    unit = (x[..., None] - heads["mean"]) * xp.exp(-heads["log_std"])
    log_density = -0.5 * unit * unit - heads["log_std"] - 0.5 * math.log(2 * math.pi)
    log_conditionals = logsumexp(log_softmax(heads["mixture"]) + log_density, axis=-1)
    return xp.sum(log_conditionals, axis=-1), log_conditionals


def _check(x, params):
    missing, extra = sorted(SHAPES.keys() - params.keys()), sorted(params.keys() - SHAPES.keys())
    if missing or extra:
        raise ValueError(f"rnade: params lack {missing} and have unexpected {extra}")
    text = ", ".join(f"{name.replace('.', '_')}[{axes}]" for name, axes in SHAPES.items())
    dims = bind("rnade", f"x[*B n], {text}", x=x, **{name.replace(".", "_"): a for name, a in params.items()})
    if dims["K"] < 1:
        raise ValueError("rnade: mixture.weight has K=0 components; needed at least 1")
