"""DDPM's simple loss: the mean squared error of what the model predicts at a noised sample.

Source: Ho, Jain & Abbeel 2020 (2006.11239) Eq. 14, Algorithm 1; Salimans & Ho 2022 (2202.00512) sec. 4 for x_0 and v.

    x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps
    L = | eps - eps_theta(x_t, t) |^2         (of x_0, v or the score where the model predicts that)

Notation
    eps -> noise; L -> one number an example.

Conventions
    C1  The paper writes the sum over the entries of a sample; every code base takes their mean, and so does the
        default.
    C2  The error is that of what is predicted. In terms of eps it weighs steps otherwise: of x_0 by
        (1 - alpha_bar) / alpha_bar, of v by 1 / alpha_bar, of the score by 1 / (1 - alpha_bar).
    C3  The model gets t as it was given, so one step an example; its output may be a Tensor, then so is the loss.
    C4  One number an example of *T, not their mean: what draws the loss against t, or weighs steps, needs them apart.

Laws
    L1 a_model_that_is_right_loses_nothing   L2 a_constant_error_is_its_square
    L3 expected_loss_of_the_exact_model      L4 weights_of_the_four_predictions
"""

from __future__ import annotations

import math

from autodiff import namespace
from ref.diffusion.convert import check_prediction, weights
from ref.diffusion.noised import levels, noised
from ref.diffusion.run_stages import check_shape
from ref.spec import bind, spec

REDUCTIONS = ("mean", "sum")
SIGNATURE = "x0[*S], t:int[*T], noise[*S], alpha_bar[N] -> [*T]"


@spec("diffusion.simple_loss", SIGNATURE)
def simple_loss(x0, t, noise, alpha_bar, *, model, prediction="eps", reduction="mean"):
    """The loss of each example.

    Parameters
    ----------
    x0, noise : float[*S]
        Clean samples, and standard normal noise.
    t : int[*T]
        Steps in 1 .. N; *T are leading axes of *S.
    alpha_bar : float[N]
        Of any float dtype.
    model : callable
        model(x_t, t) -> float[*S].
    prediction : "eps", "x0", "v" or "score"
        What the model predicts.
    reduction : "mean" or "sum"
        Over the entries of an example.

    Returns
    -------
    float[*T]

    Raises
    ------
    ValueError
        Unknown names, a step outside 1 .. N, shapes that disagree, or an output of another shape.
    TypeError
        An array is not float (t: int), or x0 and noise differ in dtype.

    Complexity: one call of the model.

    >>> import numpy as np
    >>> x, t, eps = np.zeros((2, 3)), np.array([1, 2]), np.ones((2, 3))
    >>> simple_loss(x, t, eps, np.array([0.75, 0.5]), model=lambda x, t: 0 * x)
    array([1., 1.])
    """
    bind("simple_loss", SIGNATURE, x0=x0, noise=noise, t=t)
    check_prediction("simple_loss", prediction)
    if reduction not in REDUCTIONS:
        raise ValueError(f"simple_loss: reduction={reduction!r}; needed one of {REDUCTIONS}")
    x = noised(x0, t, noise, alpha_bar)
    output = model(x, t)
    check_shape("simple_loss", "the model's output", output, x)
    now, _ = levels("simple_loss", t, alpha_bar, x)
    wide = namespace(alpha_bar)
    p, q = weights("eps", prediction, wide.sqrt(now), wide.sqrt(1 - now))
    target = x * _cast(wide, p, x) + noise * _cast(wide, q, x)
    error = output - target
    lead, rest = tuple(t.shape), tuple(x.shape[len(t.shape) :])
    total = namespace(error).sum(namespace(error).reshape(error * error, (*lead, math.prod(rest))), axis=-1)
    return total / max(math.prod(rest), 1) if reduction == "mean" else total


def _cast(xp, weight, x):
    return xp.astype(weight, x.dtype) if hasattr(weight, "dtype") else weight
