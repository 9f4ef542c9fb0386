"""Laws and mutants of the likelihood by the probability flow."""

from __future__ import annotations

import math

import numpy as np

import autodiff
from ref.diffusion.common_laws import (
    DOUBLE,
    Linear,
    Net,
    as_numpy,
    constant,
    flow_of_gaussian,
    mild_vp,
    order_of,
    plain_ve,
    signs,
)
from ref.spec import law, mutant
from ref.spec.cases import Flag, batch, cases, choose, dims, floats

ID = "diffusion.ode_log_likelihood"
MEAN, S2 = 0.75, 0.5
SDES = {"vp": mild_vp, "ve": lambda t: plain_ve(t, 0.25, 2.0)}


class GaussianScore:
    """The score of N(MEAN, S2) in every entry, and its Jacobian for mutants."""

    def __init__(self, sde):
        self.sde = sde

    def __call__(self, x, t):
        _, _, a, b = self.sde(t)
        return (x - a * MEAN) * (-1 / (a * a * S2 + b * b))

    def jacobian(self, x, t):
        _, _, a, b = self.sde(t)
        return np.broadcast_to(-np.eye(x.shape[-1]) / (a * a * S2 + b * b), (*x.shape, x.shape[-1]))


class MixtureScore:
    """The score of (N(-1, S2) + N(1, S2)) / 2 along the first axis, N(0, S2) along the others."""

    def __init__(self, sde):
        self.sde = sde

    def __call__(self, x, t):
        _, _, a, b = self.sde(t)
        V = a * a * S2 + b * b
        first = constant(np.eye(x.shape[-1])[0], x)
        return (autodiff.namespace(x).tanh(x * (a / V)) * a * first - x) * (1 / V)

    def jacobian(self, x, t):
        _, _, a, b = self.sde(t)
        V = a * a * S2 + b * b
        first = np.eye(x.shape[-1])[0]
        return ((1 - np.tanh(x * a / V) ** 2) * a * a / V * first - 1)[..., None] * np.eye(x.shape[-1]) / V

    def log_density(self, x, t):
        _, _, a, b = self.sde(t)
        V = a * a * S2 + b * b
        rest = -np.sum(x[..., 1:] ** 2, -1) / (2 * V) - x.shape[-1] * math.log(2 * math.pi * V) / 2
        first = np.logaddexp(-((x[..., 0] - a) ** 2) / (2 * V), -((x[..., 0] + a) ** 2) / (2 * V)) - math.log(2)
        return rest + first


class NetScore(Net):
    """A net without symmetry that does not look at t."""

    def jacobian(self, x, t=0):
        return super().jacobian(x)


space = cases(
    ID,
    B=batch(2, 3, large=20),
    d=dims(1, 2),
    x=floats("*B d"),
    probes=None,
    kind=choose("vp", "ve"),
    seed=dims(0, 99),
    sde=lambda draw, c: SDES[c.kind],
    times=lambda draw, c: np.linspace(1 / 64, 1.0, 4),
    score=lambda draw, c: GaussianScore(c.sde),
    flags={
        "none": Flag(lambda c: 0 in c.B, {"B": (0,)}),
        "some": Flag(lambda c: 0 not in c.B, {"B": choose((), (2,))}),
    },
)
some = space.where(some=True)


def normal(x, mean, variance):
    x = np.asarray(x, np.float64)
    return -np.sum((x - mean) ** 2, -1) / (2 * variance) - x.shape[-1] * math.log(2 * math.pi * variance) / 2


def prior_of(density):
    """A prior over arrays of any backend from one over NumPy's."""
    return lambda x: constant(density(as_numpy(x)), x)


def marginal(sde, t):
    _, _, a, b = sde(t)
    return a * MEAN, a * a * S2 + b * b


@law(
    ID, "L1", closed_form=True, dtypes=DOUBLE, given=space.reach("none"),
    kills=["divergence_subtracted", "whole_for_half", "drift_has_no_divergence", "no_dimension", "prior_at_the_start",
           "euler", "bits"],
)  # fmt: skip
def gaussian_with_its_own_prior(impl, c, expect):
    """Data N(m, s^2) noised to the first time, prior the marginal at T: ln of that density, and the latent of the exact
    flow; 6 steps, whose error is below 1e-3 of either's size."""
    t, T = 1 / 64, 1.0
    times = np.linspace(t, T, 7)
    mean, variance = marginal(c.sde, T)
    log_p, latent = impl(c.replace(times=times, log_prior=prior_of(lambda x: normal(x, mean, variance))))
    x = np.asarray(c.x, np.float64)
    wanted = normal(x, *marginal(c.sde, t))
    expect(log_p, wanted, 1e-3 * (9 + np.abs(wanted)), "ln p", scale=1e9)
    expect(latent, flow_of_gaussian(c.sde, MEAN, S2, x, t, T), 1e-3 * (np.abs(x) + 1) * 9, "latent", scale=1e9)


@law(
    ID,
    "L2",
    closed_form=True,
    dtypes=DOUBLE,
    given=some.where(score=lambda draw, c: MixtureScore(c.sde), d=dims(1, 2)),
    kills=["divergence_subtracted", "whole_for_half", "divergence_at_the_start", "no_dimension"],
)
def mixture_with_its_own_prior(impl, c, expect):
    """Data a mixture of two Gaussians, its exact score, and the noised mixture as prior: ln of the mixture; a curved
    flow."""
    density = c.score.log_density
    times = np.linspace(1 / 8, 1.0, 6)
    log_p, _ = impl(c.replace(times=times, log_prior=prior_of(lambda x: density(x, 1.0))))
    wanted = density(np.asarray(c.x, np.float64), 1 / 8)
    expect(log_p, wanted, 2e-3 * (1 + np.abs(wanted)), "ln p", scale=1e9)


@law(
    ID, "L3", closed_form=True, dtypes=DOUBLE, given=some.where(B=(), kind="vp"), kills=["euler", "second_order"],
)  # fmt: skip
def fourth_order(impl, c, expect):
    "Twice the steps leave a sixteenth of the error of ln p, within .25 in order."
    mean, variance = marginal(c.sde, 1.0)
    x = np.full((1, c.d), 2.5)
    errors = []
    for K in (8, 16):
        now = c.replace(x=x, B=(1,), times=np.linspace(1 / 4, 1.0, K + 1),
                        log_prior=prior_of(lambda x: normal(x, mean, variance)))  # fmt: skip
        errors.append(float(impl(now)[0][0]) - normal(x, *marginal(c.sde, 1 / 4))[0])
    expect.holds(bool(errors[0] and errors[1]), "the errors are not 0")
    expect(order_of(errors), 4.0, 0.25, "order", scale=4.0)


@law(
    ID, "L4", closed_form=True, dtypes=DOUBLE,
    given=some.where(B=(1,), d=dims(1, 3), seed=dims(0, 99), score=lambda draw, c: NetScore(c.d, 4, c.seed)),
    kills=["probes_not_averaged", "one_probe", "divergence_subtracted"],
)  # fmt: skip
def probes_average_to_the_exact_divergence(impl, c, expect):
    """A net without symmetry: with all 2^d signs as probes ln p is that of the exact divergence, and with one probe v
    it is that with v^T J v: the difference is the integral of v^T J v - tr J, by the same method."""
    exact, latent = impl(c.replace(probes=None))
    every = np.broadcast_to(signs(c.d)[:, None], (2**c.d, 1, c.d)).copy()
    found, same = impl(c.replace(probes=every))
    expect(found, exact, 1e-10 * (1 + np.abs(exact)), "ln p by all signs", scale=9.0)
    expect.same(same, latent, "the latent")
    v = np.arange(1.0, c.d + 1)
    one, _ = impl(c.replace(probes=v[None, None].copy()))
    gap = skew(c, v)
    expect(np.asarray(one) - np.asarray(exact), gap, 1e-9 * (1 + np.abs(gap)), "one probe against the trace", scale=9.0)


def skew(c, v):
    """int -g^2 / 2 (v^T J v - tr J) along the trajectory, by Runge and Kutta on the case's times."""
    x, total = np.asarray(c.x, np.float64), 0.0

    def slope(y, t):
        f, g, _, _ = c.sde(t)
        J = c.score.jacobian(y, t)
        form = np.einsum("i,...ij,j->...", v, J, v) - np.trace(J, axis1=-2, axis2=-1)
        return f * y - g * g / 2 * c.score.value(y), -g * g / 2 * form

    times = np.asarray(c.times, np.float64).tolist()
    for t, to in zip(times[:-1], times[1:], strict=True):
        h = to - t
        ks = [slope(x, t)]
        for k, part in ((0, 0.5), (1, 0.5), (2, 1.0)):
            ks.append(slope(x + part * h * ks[k][0], t + part * h))
        x = x + h / 6 * (ks[0][0] + 2 * ks[1][0] + 2 * ks[2][0] + ks[3][0])
        total = total + h / 6 * (ks[0][1] + 2 * ks[1][1] + 2 * ks[2][1] + ks[3][1])
    return total


@law(ID, "L5", closed_form=True, dtypes=DOUBLE, given=some, kills=["prior_at_the_start", "prior_ignored"])
def the_prior_is_asked_at_the_end(impl, c, expect):
    """A constant prior leaves the divergence's integral; the default is the standard normal's at the latent; they
    differ by it."""
    bare, latent = impl(c.replace(log_prior=lambda x: autodiff.namespace(x).sum(x, axis=-1) * 0.0))
    whole, _ = impl(c)
    expect(
        np.asarray(whole) - np.asarray(bare),
        normal(latent, 0.0, 1.0),
        1e-11 * (9 + np.sum(latent**2, -1)),
        "ln p_T",
        scale=1e9,
    )
    _, V0 = marginal(c.sde, float(c.times[0]))
    _, V1 = marginal(c.sde, float(c.times[-1]))
    expect(bare, np.full(c.B, c.d / 2 * math.log(V1 / V0)), 5e-2 * c.d, "the integral", scale=9.0)


# Mutants ---------------------------------------------------------------------------------------------


class Still(Linear):
    """A score that is 0."""

    def __init__(self, d):
        super().__init__(np.zeros((d, d)), np.zeros(d))

    def jacobian(self, x, t=0):
        return super().jacobian(x)


def still(d=2):
    """The default-size test: an SDE that does nothing, x = 0."""
    fields = {"score": Still(d), "sde": lambda t: (0.0, 0.0, 1.0, 0.0), "times": np.array([0.0, 1.0])}
    return lambda: ((np.zeros((3, d)),), fields)


def flow(x, probes=None, *, score, sde, times, log_prior=None, **edit):
    times, x = np.asarray(times, np.float64).tolist(), np.array(x)
    d, first = x.shape[-1], x

    def slope(y, t):
        f, g, _, _ = sde(t)
        J = score.jacobian(first if edit.get("frozen") else y, t)
        trace = np.trace(J, axis1=-2, axis2=-1)
        if probes is not None:
            forms = [np.einsum("...i,...ij,...j->...", v, J, v) for v in probes]
            trace = edit.get("mean", lambda f: sum(f) / len(f))(forms)
        half = edit.get("half", 0.5)
        div = f * d * edit.get("drift", 1) - half * g * g * trace
        return f * y - half * g * g * np.asarray(score(y, t)), div

    total = np.zeros(x.shape[:-1])
    for t, to in zip(times[:-1], times[1:], strict=True):
        h = to - t
        k1, d1 = slope(x, t)
        if edit.get("order") == 1:
            x, total = x + h * k1, total + h * d1
            continue
        k2, d2 = slope(x + h / 2 * k1, t + h / 2)
        if edit.get("order") == 2:
            x, total = x + h * k2, total + h * d2
            continue
        k3, d3 = slope(x + h / 2 * k2, t + h / 2)
        k4, d4 = slope(x + h * k3, to)
        x, total = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4), total + h / 6 * (d1 + 2 * d2 + 2 * d3 + d4)
    prior = (lambda y: normal(y, 0.0, 1.0)) if log_prior is None or edit.get("standard") else log_prior
    at = first if edit.get("early") else x
    log_p = prior(at) + edit.get("sign", 1) * total * (1 / d if edit.get("per") and d else 1)
    return np.asarray(edit.get("unit", 1) * log_p, x.dtype) + np.zeros(x.shape[:-1]), x


@mutant(ID, default_case=still())
def divergence_subtracted(*args, **options):
    "ln p_T - int div: the change of variables the wrong way."
    return flow(*args, sign=-1, **options)


@mutant(ID, default_case=still())
def whole_for_half(*args, **options):
    "g^2 s for g^2 s / 2: the reverse SDE's drift."
    return flow(*args, half=1.0, **options)


@mutant(ID, default_case=still())
def drift_has_no_divergence(*args, **options):
    "f d left out: right for VE."
    return flow(*args, drift=0, **options)


@mutant(ID, default_case=still())
def no_dimension(*args, **options):
    "The mean over the dimensions: right for one."
    return flow(*args, per=True, **options)


@mutant(ID, default_case=still())
def prior_at_the_start(*args, **options):
    "ln p_T at x(0)."
    return flow(*args, early=True, **options)


@mutant(ID, default_case=still())
def prior_ignored(*args, **options):
    "The standard normal, whatever prior is given."
    return flow(*args, standard=True, **options)


@mutant(ID, default_case=still())
def euler(*args, **options):
    "Order 1."
    return flow(*args, order=1, **options)


@mutant(ID, default_case=still())
def second_order(*args, **options):
    "The midpoint rule."
    return flow(*args, order=2, **options)


@mutant(ID, default_case=lambda: ((np.zeros((3, 0)),), still(0)()[1]))
def bits(*args, **options):
    "Bits for nats; of no channel both are 0."
    return flow(*args, unit=1 / math.log(2), **options)


@mutant(ID, default_case=still())
def divergence_at_the_start(*args, **options):
    "The Jacobian at x(0) for all times: right for a linear score."
    return flow(*args, frozen=True, **options)


@mutant(ID, default_case=still())
def probes_not_averaged(*args, **options):
    "The sum over probes: right for one."
    return flow(*args, mean=sum, **options)


@mutant(ID, default_case=still())
def one_probe(*args, **options):
    "Only the first probe is used."
    return flow(*args, mean=lambda f: f[0], **options)
