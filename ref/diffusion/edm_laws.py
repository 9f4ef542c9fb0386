"""Laws and mutants of EDM's sampler."""

from __future__ import annotations

import math

import numpy as np

from ref.diffusion.common_laws import (
    DOUBLE,
    follow,
    gaussian,
    moments,
    response,
    returns,
    runner,
    shaped_noise,
    shows_order,
)
from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, batch, cases, choose, dims, rng

ID = "diffusion.edm"


def levels(draw, c):
    """Falling sigmas of quarters, N + 1 of them, the last 0 or above."""
    found = np.sort(rng(draw).permutation(np.arange(1, 33))[: c.N + 1])[::-1] / 4.0
    if c.to_zero:
        found[-1] = 0.0
    return found


space = cases(
    ID,
    B=batch(2, 3, large=60),
    N=dims(1, 4, large=15),
    to_zero=choose(True, False),
    sigmas=levels,
    order=choose(2, 1),
    churn=choose(0.0, 0.5, 1.0, 40.0),
    churn_min=choose(0.0, 1.0),
    churn_max=choose(math.inf, 4.0),
    churn_noise=choose(1.0, 1.25),
    noise=shaped_noise(lambda c: c.N),
    outputs=shaped_noise(lambda c: 2 * c.N),
    denoiser=lambda draw, c: lambda x, sigma: x * 0.25,
    flags={
        "ends_at_zero": Flag(lambda c: c.sigmas[-1] == 0, {"to_zero": True}),
        "ends_above": Flag(lambda c: c.sigmas[-1] > 0, {"to_zero": False}),
        "churns": Flag(lambda c: c.churn > 0 and c.churn_min == 0, {"churn": choose(1.0, 40.0), "churn_min": 0.0}),
        "churns_here_and_there": Flag(lambda c: c.churn > 0 and len(set(gammas(c))) > 1,
                                      {"churn": 40.0, "churn_min": 1.0, "churn_max": 4.0, "N": 4}),
        "calm": Flag(lambda c: c.churn == 0, {"churn": 0.0}),
        "some": Flag(lambda c: 0 not in c.B, {"B": choose((), (3,))}),
    },
)  # fmt: skip
some = space.where(some=True)


def gammas(c):
    sigmas = np.asarray(c.sigmas, np.float64)[:-1]
    most = min(c.churn / len(sigmas), 2**0.5 - 1)
    return [most if c.churn_min <= s <= c.churn_max else 0.0 for s in sigmas]


@law(
    ID, "L1", closed_form=True, given=some.reach("ends_at_zero", "ends_above", "churns_here_and_there", "calm"),
    kills=["heun_at_zero", "churn_not_divided", "churn_unbounded", "noise_of_the_difference", "level_not_raised",
           "second_slope_at_the_start", "euler_always", "range_ignored", "noise_scale_ignored"],
)  # fmt: skip
def each_stage_by_the_algorithm(impl, c, expect):
    """Algorithm 2: raise sigma by 1 + gamma and add sqrt(sigma^^2 - sigma^2) S_noise z; d = (x - D) / sigma^; Euler to
    sigma'; unless sigma' = 0 the slope there, (y - D') / sigma', averaged in."""
    rows, sigmas = [], np.asarray(c.sigmas, np.float64).tolist()
    for gamma, sigma, to in zip(gammas(c), sigmas[:-1], sigmas[1:], strict=True):
        hat = sigma * (1 + gamma)
        if gamma:
            rows.append((None, 1.0, 0.0, 0.0, c.churn_noise * math.sqrt(hat**2 - sigma**2)))
        h = to - hat
        # y = x + h (x - D) / hat = p x + q D.
        p, q = 1 + h / hat, -h / hat
        if c.order == 1 or to == 0:
            rows.append((hat, p, q))
            continue
        rows += [(hat, 1.0, 0.0), (to, 1 + h / (2 * hat) + h / (2 * to) * p, -h / (2 * to),
                                   -h / (2 * hat) + h / (2 * to) * q, 0.0, p, q)]  # fmt: skip
    follow(impl, c, expect, rows, argument="denoiser", wide=64)


def ve(sigma):
    return 0.0, 0.0, 1.0, float(sigma)


def grid(N):
    return np.exp(np.linspace(math.log(10.0), math.log(0.05), N + 1))


def exact():
    return gaussian(lambda sigma: (1.0, float(sigma)), 1.5, 0.25, "x0")


@law(
    ID, "L2", closed_form=True, dtypes=DOUBLE, given=some.where(calm=True),
    kills=["euler_always", "second_slope_at_the_start"],
)  # fmt: skip
def order_on_a_gaussian(impl, c, expect):
    """N(m, s^2), sigma from 10 to .05, without the step to 0: against the exact flow order 1 (Euler) or 2 (Heun),
    within .1."""
    run = runner(impl, c, grid="sigmas", denoiser=exact(), noise=None)
    shows_order(run, [grid(N) for N in (16, 32)], ve, c.order, expect)


@law(
    ID, "L3", closed_form=True, given=some.where(ends_at_zero=True),
    kills=["heun_at_zero", "noise_at_the_end", "stops_before_zero"],
)  # fmt: skip
def the_last_step_is_the_denoiser(impl, c, expect):
    "sigma_N = 0: what the denoiser said last is the sample; one that says 3 gives 3, whatever was churned."
    calls = []

    def told(x, sigma):
        calls.append(float(sigma))
        return x * 0.0 + 3.0

    out = impl(c.replace(denoiser=told))
    expect(out, np.full(c.B, 3.0), bounds.rounding(40, 3.0, c.dtype), "the sample")
    expect.holds(len(calls) == (1 if c.order == 1 else 2) * c.N - (c.order - 1), "two calls a step, one at the last")
    last = float(c.sigmas[-2]) * (1 + gammas(c)[-1])
    expect(calls[-1], last, bounds.rounding(8, last, c.dtype), "the last sigma asked")


@law(
    ID, "L4", closed_form=True, dtypes=DOUBLE, given=some.where(N=1, churns=True, churn_noise=1.0, to_zero=False),
    kills=["noise_of_the_difference", "level_not_raised", "churn_unbounded"],
)  # fmt: skip
def churn_keeps_the_marginal(impl, c, expect):
    """N(m, s^2) at sigma: after the churn mean and variance are those of the raised level, m and s^2 + sigma^^2, with
    sigma^ = sigma (1 + min(S_churn, sqrt(2) - 1)); the denoiser is asked there."""
    seen, _ = response(impl, c, expect, 1, lambda x, sigma: x * 0.5, calls=c.order, argument="denoiser")
    t, *parts = seen[0]
    raised = float(c.sigmas[0]) * (1 + gammas(c)[0])
    mean, variance = moments(parts, 1.5, 0.25 + float(c.sigmas[0]) ** 2)
    limit = bounds.rounding(60, 9 + raised**2, "float64")
    expect(float(t), raised, limit, "sigma^", scale=9.0)
    expect(mean, 1.5, limit, "mean", scale=9.0)
    expect(variance, 0.25 + raised**2, limit, "variance", scale=9.0)


@law(
    ID, "L5", closed_form=True, dtypes=DOUBLE, given=some.where(calm=True),
    kills=["euler_always", "second_slope_at_the_start"],
)  # fmt: skip
def there_and_back(impl, c, expect):
    "Without churn, up the sigmas and down again is the identity to order 1 (Euler) or 3 (Heun)."
    run = runner(impl, c, grid="sigmas", denoiser=exact(), noise=None)
    returns(run, [grid(N) for N in (16, 32)], 1 if c.order == 1 else 3, expect)


# Mutants ---------------------------------------------------------------------------------------------


def still(**options):
    """The default-size test: x and the denoiser's word are 0, no noise."""
    fields = {"denoiser": lambda x, s: 0 * x, "sigmas": np.array([2.0, 1.0]), **options}
    return lambda: ((np.zeros(3), np.zeros((2, 3))), fields)


def solve(
    x, noise=None, *, denoiser, sigmas, order=2, churn=0.0, churn_min=0.0, churn_max=math.inf, churn_noise=1.0, **edit
):  # fmt: skip
    sigmas, x, k = np.asarray(sigmas, np.float64).tolist(), np.array(x), 0
    if edit.get("short") and sigmas[-1] == 0 and len(sigmas) > 2:
        sigmas = sigmas[:-1]
    N = len(sigmas) - 1
    most = min(churn if edit.get("whole") else churn / N, edit.get("bound", 2**0.5 - 1))
    for sigma, to in zip(sigmas[:-1], sigmas[1:], strict=True):
        gamma = most if churn_min <= sigma <= churn_max or edit.get("everywhere") else 0.0
        hat = sigma * (1 + gamma)
        if gamma and noise is not None and k < len(noise):
            width = edit.get("width", lambda hat, s: math.sqrt(hat**2 - s**2))(hat, sigma)
            x = np.asarray(x + width * (1.0 if edit.get("plain") else churn_noise) * noise[k], x.dtype)
            k += 1
        hat = sigma if edit.get("unraised") else hat
        d = (x - denoiser(x, hat)) / hat
        y = np.asarray(x + (to - hat) * d, x.dtype)
        second = order == 2 and not edit.get("euler") and (to > 0 or edit.get("to_zero"))
        if second:
            at = max(to, 1e-3)
            asked = x if edit.get("stale") else y
            d2 = (asked - denoiser(asked, at)) / at
            y = np.asarray(x + (to - hat) * (d + d2) / 2, x.dtype)
        x = y
    if edit.get("noisy") and noise is not None and len(noise):
        x = np.asarray(x + sigmas[-2] * 0.1 * noise[-1], x.dtype)
    return x


@mutant(ID, default_case=still())
def heun_at_zero(*args, **options):
    "Heun at the step to 0, sigma' kept from it by 1e-3."
    return solve(*args, to_zero=True, **options)


@mutant(ID, default_case=still())
def churn_not_divided(*args, **options):
    "gamma = S_churn, not S_churn / N."
    return solve(*args, whole=True, **options)


@mutant(ID, default_case=still())
def churn_unbounded(*args, **options):
    "gamma past sqrt(2) - 1."
    return solve(*args, bound=math.inf, **options)


@mutant(ID, default_case=still())
def noise_of_the_difference(*args, **options):
    "(sigma^ - sigma) z."
    return solve(*args, width=lambda hat, s: hat - s, **options)


@mutant(ID, default_case=still())
def level_not_raised(*args, **options):
    "Noise is added and the denoiser asked at the old sigma."
    return solve(*args, unraised=True, **options)


@mutant(ID, default_case=still())
def second_slope_at_the_start(*args, **options):
    "The second slope at x, not at the Euler step."
    return solve(*args, stale=True, **options)


@mutant(ID, default_case=still())
def euler_always(*args, **options):
    "Order 1 under either name."
    return solve(*args, euler=True, **options)


@mutant(ID, default_case=still())
def range_ignored(*args, **options):
    "Churn at all levels."
    return solve(*args, everywhere=True, **options)


@mutant(ID, default_case=still())
def noise_scale_ignored(*args, **options):
    "S_noise = 1."
    return solve(*args, plain=True, **options)


@mutant(ID, default_case=still())
def noise_at_the_end(*args, **options):
    "Noise at the last step."
    return solve(*args, noisy=True, **options)


@mutant(ID, default_case=still())
def stops_before_zero(*args, **options):
    "The step to 0 is left out."
    return solve(*args, short=True, **options)
