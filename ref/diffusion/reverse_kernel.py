"""Reverse step: the Gaussian that a model puts on x_{t-1}.

Source: Ho, Jain & Abbeel 2020 (2006.11239) Eq. 1, 7, 11 and sec. 3.2; Nichol & Dhariwal 2021 (2102.09672) Eq. 15.

    p(x_{t-1} | x_t) = N(mean, variance)
    mean = (x_t - beta_t / sqrt(1 - alpha_bar_t) eps) / sqrt(alpha_t) = c_0 x_0hat + c_t x_t

    small     btilde_t
    large     beta_t
    learned   exp(v log beta_t + (1 - v) log btilde_t)

Notation
    eps, or what `prediction` names -> output; x_t -> x; v -> mix; the rest as in `diffusion.posterior`.

Conventions
    C1  btilde_1 = 0 would make a decoder without width: "small" and "learned" take btilde_2 for it, as both papers'
        code does (beta_1 if there is no second step). A sampler adds no noise at the last step, so this touches
        likelihoods alone.
    C2  v interpolates logarithms. It is what the network gives mapped to [0, 1]; numbers outside extrapolate.
    C3  The mean is that of the posterior at the predicted x_0, for every prediction.

Laws
    L1 mean_is_the_posterior_of_the_prediction   L2 variances_by_name
    L3 the_mix_interpolates_logarithms           L4 exact_for_gaussian_data
"""

from __future__ import annotations

from autodiff import namespace
from ref.diffusion.convert import check_prediction, weights
from ref.diffusion.noised import levels
from ref.diffusion.posterior import posterior_weights
from ref.spec import bind, spec

VARIANCES = ("small", "large", "learned")
SIGNATURE = "output[*S], x[*S], t:int[*T], alpha_bar[N], mix[*S] -> mean[*S], variance[*S]"


@spec("diffusion.reverse_kernel", SIGNATURE, grads=("output", "x", "mix"))
def reverse_kernel(output, x, t, alpha_bar, mix=None, *, prediction="eps", variance="small"):
    """Mean and variance of p(x_{t-1} | x_t).

    Parameters
    ----------
    output, x : float[*S]
        What the model said at x_t, and x_t.
    t : int[*T] or int
        Steps in 1 .. N; *T are leading axes of *S.
    alpha_bar : float[N]
        Of any float dtype.
    mix : float[*S], optional
        v, for "learned" and then needed.
    prediction : "eps", "x0", "v" or "score"
        What the output is.
    variance : "small", "large" or "learned"

    Returns
    -------
    mean, variance : float[*S]

    Raises
    ------
    ValueError
        Unknown names, a step outside 1 .. N, shapes that disagree, "learned" without mix or mix without "learned".
    TypeError
        An array is not float (t: int), or dtypes differ.

    Complexity: 4 multiply-adds an entry, an exponential if learned.

    >>> import numpy as np
    >>> mean, variance = reverse_kernel(np.zeros(1), np.ones(1), 2, np.array([0.5, 0.25]))
    >>> mean, variance
    (array([1.41421356]), array([0.33333333]))
    """
    bind("reverse_kernel", SIGNATURE, output=output, x=x, mix=mix)
    check_prediction("reverse_kernel", prediction)
    check_variance("reverse_kernel", variance)
    if (mix is None) == (variance == "learned"):
        raise ValueError(f"reverse_kernel: mix {'missing' if mix is None else 'given'} for variance={variance!r}")
    now, before = levels("reverse_kernel", t, alpha_bar, x)
    xp = namespace(alpha_bar)
    a, b = xp.sqrt(now), xp.sqrt(1 - now)
    native = native_of(prediction)
    p, q = weights(prediction, native, a, b)
    to_x, to_output, btilde = step_weights(xp.sqrt, now, before, native)
    low, high = xp.where(before == 1, floor_of(alpha_bar), btilde), (before - now) / before
    cast = lambda v: xp.astype(v + xp.zeros_like(now), x.dtype)  # noqa: E731  p and q may be plain numbers
    mean = x * cast(to_x + to_output * p) + output * cast(to_output * q)
    if variance != "learned":
        ones = namespace(x).ones_like(x)
        return mean, ones * cast(low if variance == "small" else high)
    low, high = cast(xp.log(low)), cast(xp.log(high))
    return mean, namespace(mix).exp(mix * high + (1 - mix) * low)


def check_variance(function, variance):
    """ValueError unless it is one of VARIANCES."""
    if variance not in VARIANCES:
        raise ValueError(f"{function}: variance={variance!r}; needed one of {VARIANCES}")


def native_of(prediction):
    """The form, of "eps" and "x0", in which a step from this prediction divides by nothing small."""
    return "x0" if prediction in ("x0", "v") else "eps"


def step_weights(sqrt, now, before, native):
    """(A, B, btilde): mean = A x + B output, for a model that predicts `native`."""
    c_0, c_t, btilde = posterior_weights(sqrt, now, before)
    if native == "x0":
        return c_t, c_0, btilde
    return sqrt(before / now), -sqrt(before / now) * (1 - now / before) / sqrt(1 - now), btilde


def floor_of(alpha_bar):
    """btilde_2, which stands for btilde_1 = 0; beta_1 if there is no second step."""
    if alpha_bar.shape[0] < 2:
        return 1 - alpha_bar[0]
    first, second = alpha_bar[0], alpha_bar[1]
    return (1 - first) / (1 - second) * (1 - second / first)
