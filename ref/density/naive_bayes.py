"""Naive Bayes on bits: features that are independent given the class.

Source: Maron 1961; McCallum & Nigam 1998, "A comparison of event models for naive Bayes text classification", Eq. 1-3
(the multi-variate Bernoulli model).

    p(x, y = c) = pi_c prod_i theta_ci^x_i (1 - theta_ci)^(1 - x_i)
    p(y = c | x) = p(x, c) / sum_b p(x, b),   p(x) = sum_c p(x, c)
    log p(a | x) - log p(b | x) = w_0 + sum_i w_i x_i:  linear,  w_i = logit theta_ai - logit theta_bi
    d log p(x) / d theta_ci = p(c | x) (x_i / theta_ci - (1 - x_i) / (1 - theta_ci))

Notation
    x[*B n] of zeros and ones, pi -> prior[C], theta[C n] = p(x_i = 1 | c).

Conventions
    C1  An absent feature counts, by log(1 - theta); the multinomial model, which counts words, has no such factor.
    C2  Products are sums of logarithms, and the posterior is normalised by log-sum-exp: 64 features of 1e-6 each are no
        underflow.
    C3  theta strictly between 0 and 1 (smoothed counts are); a prior may be 0.

Laws
    L1 posterior_by_enumeration             L2 the_evidence_sums_to_one
    L3 log_odds_are_linear                  L4 one_class_is_independent_bits
    L5 a_thousand_features                  L6 gradient_is_weighted_by_the_posterior
"""

from __future__ import annotations

from autodiff import namespace
from autodiff.special import logsumexp
from autodiff.tensor import raw
from ref.density.bernoulli import check_binary
from ref.spec import bind, spec

SIGNATURE = "x[*B n], prior[C], theta[C n] -> posterior[*B C], log_evidence[*B]"


@spec("density.naive_bayes", SIGNATURE, grads=("theta",))
def naive_bayes(x, prior, theta):
    """The class of bit strings, and their probability.

    Parameters
    ----------
    x : float[*B n]
        Zeros and ones.
    prior : float[C]
        Probabilities of the classes.
    theta : float[C n]
        Probability that feature i is 1 in class c.

    Returns
    -------
    posterior : float[*B C]
        p(c | x).
    log_evidence : float[*B]
        log p(x), in nats.

    Raises
    ------
    ValueError
        x is not binary, theta not strictly within (0, 1), the prior negative or not summing to 1, or axes disagree.
    TypeError
        An array is not float, or dtypes or backends differ.

    Complexity: B C n multiply-adds.

    >>> import numpy as np
    >>> naive_bayes(np.array([1.0]), np.array([0.5, 0.5]), np.array([[0.75], [0.25]]))[0]
    array([0.75, 0.25])
    """
    bind("naive_bayes", SIGNATURE, x=x, prior=prior, theta=theta)
    check_binary("naive_bayes", x)
    _check(prior, theta)
    xp = namespace(x, prior, theta)
    present, absent = xp.log(theta), xp.log1p(-theta)
    joint = xp.matmul(x, xp.matrix_transpose(present)) + xp.matmul(xp.subtract(1.0, x), xp.matrix_transpose(absent))
    joint = joint + xp.log(prior)
    log_evidence = logsumexp(joint, axis=-1)
    return xp.exp(joint - log_evidence[..., None]), log_evidence


def _check(prior, theta):
    prior, theta = raw(prior), raw(theta)
    xp = namespace(prior, theta)
    total = float(xp.sum(prior))
    if not (bool(xp.all(prior >= 0)) and abs(total - 1) <= 1e-5):
        raise ValueError(f"naive_bayes: prior sums to {total:.6g}, its least is {float(xp.min(prior)):g}; "
                         "needed probabilities that sum to 1")  # fmt: skip
    if not bool(xp.all((theta > 0) & (theta < 1))):
        raise ValueError("naive_bayes: theta holds a number that is not strictly within (0, 1); smooth the counts")
