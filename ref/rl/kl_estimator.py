"""Estimators of KL(pi | ref) from samples of pi, and the gradient that each has in expectation.

Source: Schulman 2020, Approximating KL Divergence, for k1, k2, k3; Shao et al. 2024 (2402.03300) Eq. 4 puts k3 into the
loss; NeMo-RL #2506 and trl #3025 are what follows from differentiating the wrong one.

    u = ref(y) / pi(y),   y ~ pi
    k1 = -log u           E k1 = KL(pi | ref)                  E grad k1 = 0
    k2 = (log u)^2 / 2    E k2 is another number                E grad k2 = grad KL(pi | ref)
    k3 = u - 1 - log u    E k3 = KL(pi | ref), k3 >= 0          E grad k3 = grad KL(ref | pi), the other direction
    abs = |log u|
    weighted by rho = pi / pi_old, pi_old held fixed, y ~ pi_old = pi:
                          E grad (rho k1) = E grad (rho k3) = grad KL(pi | ref)

Notation
    log pi(y) -> log_probs, log ref(y) -> ref_log_probs, log pi_old(y) -> old_log_probs.

Conventions
    C1  As a reward (detached) k1 is right. As a loss that is differentiated k1 does nothing on average, and k3 pulls
        along the forward direction: say kind="k2", or give old_log_probs, or gradient="k2" (verl's "k1+", "k3+").
    C2  gradient="k2" keeps the value of `kind` and takes the gradient of k2.
    C3  clamp bounds log u to [-clamp, clamp] first (verl: 20, gradient 0 beyond); bound the result (verl: 10)
        with clamp_value. Neither is a default.
    C4  ref is data: no gradient flows to it, nor to pi_old.

Laws
    L1 value_is_the_definition              L2 expected_value_over_all_outcomes
    L3 expected_gradient_over_all_outcomes  L4 gradient_is_the_definition
    L5 k3_is_the_bregman_distance           L6 clamped_far_away
"""

from __future__ import annotations

from autodiff import namespace
from ref.rl.reduce import data
from ref.spec import bind, spec

SIGNATURE = "log_probs[*B], ref_log_probs[*B] -> [*B]"
KINDS = ("k1", "k2", "k3", "abs")


@spec("rl.kl_estimator", SIGNATURE, grads=("log_probs",))
def kl_estimator(
    log_probs, ref_log_probs, *, kind, gradient=None, old_log_probs=None, clamp=None, clamp_value=None
):  # fmt: skip
    """One sample's estimate of KL(pi | ref), element by element.

    Parameters
    ----------
    log_probs, ref_log_probs : float[*B]
    kind : "k1", "k2", "k3" or "abs"
    gradient : "k2", optional
        The value of `kind`, the gradient of k2 (C2).
    old_log_probs : float[*B], optional
        Weighs the estimate by rho = pi / pi_old.
    clamp, clamp_value : float, optional
        Bounds of |log u| and of the estimate (C3).

    Returns
    -------
    float[*B]

    Raises
    ------
    ValueError
        Shapes that differ, an unknown kind or gradient, or a bound that is not positive.
    TypeError
        An array is not float, or dtypes or backends differ.

    Complexity: one or two exponentials an element.

    >>> import numpy as np
    >>> kl_estimator(np.log([0.5]), np.log([0.25]), kind="k3").round(4)
    array([0.1931])
    """
    signature = SIGNATURE.split("->")[0] + ", old_log_probs[*B]"
    bind("kl_estimator", signature, log_probs=log_probs, ref_log_probs=ref_log_probs, old_log_probs=old_log_probs)
    check_kind("kl_estimator", kind, gradient, clamp, clamp_value)
    xp = namespace(log_probs, ref_log_probs, old_log_probs)
    log_u = xp.subtract(data(ref_log_probs), log_probs)
    if clamp is not None:
        log_u = xp.clip(log_u, -clamp, clamp)
    found = _estimate(xp, kind, log_u)
    if gradient == "k2":
        k2 = _estimate(xp, "k2", log_u)
        found = data(found) + (k2 - data(k2))
    if clamp_value is not None:
        found = xp.clip(found, -clamp_value, clamp_value)
    if old_log_probs is not None:
        found = found * xp.exp(log_probs - data(old_log_probs))
    return found


def _estimate(xp, kind, log_u):
    if kind == "k1":
        return -log_u
    if kind == "k2":
        return log_u * log_u / 2
    if kind == "abs":
        return xp.abs(log_u)
    return xp.expm1(log_u) - log_u


def check_kind(function, kind, gradient, clamp, clamp_value):
    """ValueError unless the options of an estimator are known."""
    if kind not in KINDS:
        raise ValueError(f"{function}: kind={kind!r}; needed one of {', '.join(KINDS)}")
    if gradient not in (None, "k2"):
        raise ValueError(f"{function}: gradient={gradient!r}; needed None or 'k2'")
    for name, value in (("clamp", clamp), ("clamp_value", clamp_value)):
        if value is not None and not value > 0:
            raise ValueError(f"{function}: {name}={value}; needed > 0")
