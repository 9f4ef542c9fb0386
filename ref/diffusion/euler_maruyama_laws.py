"""Laws and mutants of Euler-Maruyama."""

from __future__ import annotations

import math

import numpy as np

from ref.diffusion.common_laws import (
    DOUBLE,
    falling_times,
    follow,
    gaussian,
    mild_vp,
    moments,
    order_of,
    plain_sub_vp,
    plain_ve,
    plain_vp,
    response,
    returns,
    runner,
    shaped_noise,
)
from ref.spec import law, mutant
from ref.spec.cases import Flag, batch, cases, choose, dims

ID = "diffusion.euler_maruyama"
SDES = {"vp": plain_vp, "ve": lambda t: plain_ve(t, 0.25, 8.0), "sub_vp": plain_sub_vp}

space = cases(
    ID,
    B=batch(2, 3, large=60),
    K=dims(1, 5, large=30),
    kind=choose("vp", "ve", "sub_vp"),
    sde=lambda draw, c: SDES[c.kind],
    times=falling_times(0.125, 1.0),
    lam=choose(1.0, 0.0, 0.5, 2.0),
    last_noise=choose(False, True),
    noise=shaped_noise(lambda c: c.K),
    outputs=shaped_noise(lambda c: c.K),
    score=lambda draw, c: lambda x, t: x * -0.5,
    flags={
        "one_step": Flag(lambda c: c.K == 1, {"K": 1}),
        "several": Flag(lambda c: c.K > 1, {"K": dims(2, 5)}),
        "flow": Flag(lambda c: c.lam == 0, {"lam": 0.0}),
        "noisy": Flag(lambda c: c.lam > 0, {"lam": choose(1.0, 0.5, 2.0)}),
        "some": Flag(lambda c: 0 not in c.B, {"B": choose((), (3,))}),
    },
)
some = space.where(some=True)


def rows(c):
    found, times = [], np.asarray(c.times, np.float64).tolist()
    for k in range(len(times) - 1):
        f, g, _, _ = c.sde(times[k])
        dt = times[k] - times[k + 1]
        last = k == len(times) - 2 and not c.last_noise
        spread = 0.0 if last else c.lam * g * math.sqrt(dt)
        found.append((times[k], 1 - dt * f, dt * (1 + c.lam**2) / 2 * g * g, 0.0, spread))
    return found


@law(
    ID, "L1", closed_form=True, given=some.reach("one_step", "several", "flow"),
    kills=["forward_drift", "score_subtracted", "half_for_every_lambda", "noise_without_lambda", "step_for_its_root",
           "coefficients_of_the_end", "noise_at_the_last_step"],
)  # fmt: skip
def each_step_by_its_terms(impl, c, expect):
    "x - dt f x + dt (1 + lambda^2) / 2 g^2 s + lambda g sqrt(dt) z, dt = t - t' > 0, with f, g and s of t."
    follow(impl, c, expect, rows(c), argument="score", wide=4)


@law(
    ID, "L2", closed_form=True, dtypes=DOUBLE, given=some.where(lam=choose(1.0, 2.0)),
    kills=["forward_drift", "half_for_every_lambda", "noise_without_lambda", "step_for_its_root", "score_subtracted"],
)  # fmt: skip
def first_order_in_mean_and_variance(impl, c, expect):
    """Data N(m, s^2), VP, from the exact marginal at t = 1 to t = 1/64, 32 and 64 steps with noise at all: the errors
    of mean and variance against the marginal are small and fall by half, within .1 in order."""
    m, s2, errors = 1.5, 0.25, []
    for K in (32, 64):
        times = np.linspace(1.0, 1 / 64, K + 1)
        model = gaussian(lambda t: mild_vp(t)[2:], m, s2, "score")
        _, parts = response(
            impl, c, expect, K, model, calls=K, argument="score", times=times, sde=mild_vp, last_noise=True
        )
        (_, _, a, b), (_, _, a_to, b_to) = mild_vp(1.0), mild_vp(1 / 64)
        mean, variance = moments(parts, a * m, a * a * s2 + b * b)
        errors.append((mean - a_to * m, variance - (a_to**2 * s2 + b_to**2)))
    for name, pair in zip(("mean", "variance"), zip(*errors, strict=True), strict=True):
        expect.holds(bool(pair[0] and pair[1]), f"the errors of the {name} are not 0")
        expect.at_most(abs(pair[1]), 0.1, f"the error of the {name}")
        expect(order_of(pair), 1.0, 0.1, f"order of the {name}", scale=2.0)


@law(
    ID, "L3", closed_form=True, given=some.where(noisy=True, several=True, last_noise=False),
    kills=["noise_at_the_last_step"],
)  # fmt: skip
def no_noise_at_the_last_step(impl, c, expect):
    "The draw after the last but one does nothing; all before it count. With last_noise it counts too."
    _, (_, _, weights) = response(impl, c, expect, c.K, lambda x, t: x * -0.125, argument="score")
    expect.same(weights[-1], 0.0, "weight of the last draw")
    expect.holds(bool(np.all(weights[:-1] != 0)), "every other draw counts")
    _, (_, _, weights) = response(impl, c, expect, c.K, lambda x, t: x * -0.125, argument="score", last_noise=True)
    expect.holds(bool(weights[-1] != 0), "with last_noise the last draw counts")


@law(ID, "L4", closed_form=True, dtypes=DOUBLE, given=some.where(lam=0.0), kills=["forward_drift", "score_subtracted"])
def there_and_back(impl, c, expect):
    "lambda = 0: up the times and down again is the identity to first order."
    model = gaussian(lambda t: mild_vp(t)[2:], 1.5, 0.25, "score")
    grids = [np.linspace(1.0, 1 / 64, K + 1) for K in (32, 64)]
    run = runner(impl, c, sde=mild_vp, score=model, noise=None)
    returns(run, grids, 1.0, expect)
    a, b = mild_vp(1.0)[2:]
    a_to, b_to = mild_vp(1 / 64)[2:]
    wanted = a * 1.5 + math.sqrt((a * a / 4 + b * b) / (a_to**2 / 4 + b_to**2)) * (0.875 - a_to * 1.5)
    expect(run(0.875, grids[1][::-1].copy()), wanted, 0.1, "where it went", scale=1.0)


# Mutants ---------------------------------------------------------------------------------------------


def still(K=2, **options):
    """The default-size test: x = 0, no score, no noise."""

    def make():
        fields = {"score": lambda x, t: 0 * x, "sde": plain_vp, "times": np.linspace(1.0, 0.5, K + 1), **options}
        return (np.zeros(3), np.zeros((K, 3))), fields

    return make


def walk(x, noise=None, *, score, sde, times, lam=1.0, last_noise=False, **edit):
    times, x, k = np.asarray(times, np.float64).tolist(), np.array(x), 0
    for i in range(len(times) - 1):
        t, to = times[i], times[i + 1]
        f, g, _, _ = sde(to if edit.get("late") else t)
        h = to - t
        s = score(x, t)
        weight = edit.get("weight", lambda lam: (1 + lam**2) / 2)(lam)
        moved = x + h * (edit.get("f", 1) * f * x - edit.get("s", 1) * weight * g * g * s)
        noisy = lam > 0 and (i < len(times) - 2 or last_noise or edit.get("noisy"))
        if noisy and noise is not None and k < len(noise):
            moved = moved + lam * g * edit.get("root", np.sqrt)(abs(h)) * noise[k]
            k += 1
        x = np.asarray(moved, x.dtype)
    return x


@mutant(ID, thread="conditional-flow-matching#85", default_case=still())
def forward_drift(*args, **options):
    "reverse-drift: -f x."
    return walk(*args, f=-1, **options)


@mutant(ID, thread="conditional-flow-matching#85", default_case=still())
def score_subtracted(*args, **options):
    "reverse-drift: the score's term with the other sign."
    return walk(*args, s=-1, **options)


@mutant(ID, default_case=still())
def half_for_every_lambda(*args, **options):
    "g^2 s / 2 always: the flow's drift with the SDE's noise."
    return walk(*args, weight=lambda lam: 0.5, **options)


@mutant(ID, default_case=still())
def noise_without_lambda(x, noise=None, *, lam=1.0, **options):
    "g sqrt(h) z."
    return walk(x, noise if noise is None or lam == 0 else np.asarray(noise) / lam, lam=lam, **options)


@mutant(ID, default_case=still())
def step_for_its_root(*args, **options):
    "g h z."
    return walk(*args, root=lambda h: h, **options)


@mutant(ID, default_case=still())
def coefficients_of_the_end(*args, **options):
    "f and g of t'."
    return walk(*args, late=True, **options)


@mutant(ID, default_case=still())
def noise_at_the_last_step(*args, **options):
    "Noise at every step."
    return walk(*args, noisy=True, **options)
