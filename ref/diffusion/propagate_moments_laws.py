"""Laws and mutants of moment propagation."""

from __future__ import annotations

import numpy as np

from ref.diffusion.run_stages import Stage
from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, cases, dims, floats, rng

ID = "diffusion.propagate_moments"


def stages(draw, c):
    """K stages with coefficients of eighths; some draw nothing, some evaluate nothing, some off the state."""
    g, found = rng(draw), []
    for k in range(c.K):
        A, B, C, z, p, q = (float(v) for v in g.integers(-8, 9, 6) / 8)
        t = None if g.random() < 0.25 else k + 1
        p, q = (p, q) if g.random() < 0.4 else (1.0, 0.0)
        found.append(Stage(t, A, B, C, 0.0 if g.random() < 0.4 else z, p, q))
    return found


def covariance(draw, c):
    L = np.tril(rng(draw).integers(-4, 5, (c.d, c.d)) / 4.0)
    return L @ L.T


class Affine:
    """t -> (K, k) with fixed matrices that depend on t; arrays of the kind of `like`."""

    def __init__(self, d, seed):
        g = np.random.default_rng(seed)
        self.K, self.k = g.integers(-4, 5, (6, d, d)) / 8, g.integers(-4, 5, (6, d)) / 4

    def at(self, t):
        return self.K[t], self.k[t]


space = cases(
    ID,
    d=dims(1, 3),
    K=dims(0, 4),
    mean=floats("d"),
    cov=covariance,
    stages=stages,
    seed=dims(0, 99),
    affine=lambda draw, c: Affine(c.d, c.seed),
    model=None,
    flags={
        "no_stage": Flag(lambda c: c.K == 0, {"K": 0}),
        "silent": Flag(lambda c: any(s.t is None for s in c.stages), {"K": dims(3, 4)}),
        "off_the_state": Flag(lambda c: any(s.at_last for s in c.stages[1:]), {"K": 4}),
        "noisy": Flag(lambda c: any(s.noise for s in c.stages), {"K": dims(3, 4)}),
    },
)


def run(impl, c, **fields):
    """The implementation with the model's matrices on the backend of what it is given."""
    now = c.replace(**fields)
    affine = now.affine

    def model(t):
        return tuple(constant_like(v, now, impl) for v in affine.at(t))

    return impl(now.replace(model=model))


def constant_like(v, c, impl):
    return impl.backend.from_numpy(v.astype(c.dtype)) if hasattr(impl, "backend") else v.astype(c.dtype)


def near(c, size):
    return bounds.rounding(60 * c.d * (c.K + 1), size, c.dtype)


def paths(c):
    """[(y, weight)] of x after the stages for x = 0, each axis, each unit draw, by running the recursion on a basis."""
    d = c.d
    count = sum(bool(s.noise) for s in c.stages)
    starts = np.concatenate([np.zeros((1, d)), np.eye(d), np.zeros((count * d, d))])
    x, last, drawn = starts, np.zeros_like(starts), 0
    for s in c.stages:
        m = last
        if s.t is not None:
            K, k = c.affine.at(s.t)
            m = (s.at_x * x + s.at_last * last) @ K.T + k
        z = np.zeros_like(x)
        if s.noise:
            z[1 + d + drawn * d : 1 + d + (drawn + 1) * d] = np.eye(d)
            drawn += 1
        x = s.x * x + (s.model * m if s.t is not None else 0) + s.last * last + s.noise * z
        last = m
    return x


@law(
    ID, "L1", closed_form=True, given=space.reach("no_stage", "silent", "off_the_state", "noisy"),
    kills=["memory_forgotten", "covariance_with_the_memory_lost", "noise_not_squared", "offset_forgotten",
           "evaluated_at_the_state", "transposed"],
)  # fmt: skip
def by_running_the_sampler_on_a_basis(impl, c, expect):
    """The sampler is affine: run on 0, on each axis and on each unit draw it gives a matrix G and columns N with
    mean' = G mean + o, Cov' = G Cov G^T + N N^T."""
    out = paths(c)
    origin, G, N = out[0], (out[1 : 1 + c.d] - out[0]).T, (out[1 + c.d :] - out[0]).T
    mean, cov = np.asarray(c.mean, np.float64), np.asarray(c.cov, np.float64)
    found = run(impl, c)
    size = (4.0 * c.d) ** c.K
    expect(found[0], G @ mean + origin, near(c, size * (np.abs(mean).max() + 1)), "mean", scale=1e9)
    expect(found[1], G @ cov @ G.T + N @ N.T, near(c, size**2 * (np.abs(cov).sum() + 1)), "covariance", scale=1e9)


@law(
    ID, "L2", closed_form=True,
    given=space.where(stages=lambda draw, c: [s._replace(model=0.0, last=0.0) for s in stages(draw, c)]),
    kills=["noise_not_squared", "noise_of_one_axis"],
)  # fmt: skip
def no_model_is_a_random_walk(impl, c, expect):
    "B = C = 0: mean prod A, covariance prod A^2 Cov + sum of c^2 times the later A^2, on the diagonal."
    gain, noise = 1.0, 0.0
    for s in c.stages:
        gain, noise = s.x * gain, s.x**2 * noise + s.noise**2
    mean, cov = run(impl, c)
    m, S = np.asarray(c.mean, np.float64), np.asarray(c.cov, np.float64)
    expect(mean, gain * m, near(c, np.abs(m).max() + 1), "mean", scale=1e9)
    expect(cov, gain**2 * S + noise * np.eye(c.d), near(c, np.abs(S).sum() + c.K + 1), "covariance", scale=1e9)


@law(
    ID, "L3", given=space.where(K=dims(2, 4), stages=lambda draw, c: [s._replace(last=0.0, at_x=1.0, at_last=0.0)
                                                                     for s in stages(draw, c)]),
    kills=["started_from_nothing"], passes_null=["zeros", "constant", "identity"],
)  # fmt: skip
def stages_compose(impl, c, expect):
    "Without memory, the first stages and then the rest: the moments of all at once."
    cut = c.K // 2
    whole = run(impl, c)
    mean, cov = run(impl, c, stages=c.stages[:cut])
    both = run(impl, c, mean=mean, cov=cov, stages=c.stages[cut:])
    size = (4.0 * c.d) ** c.K
    for name, x, y in zip(("mean", "covariance"), both, whole, strict=True):
        limit = near(c, size**2 * (np.abs(c.cov).sum() + np.abs(c.mean).max() + 1))
        expect(x, np.asarray(y, np.float64), limit, name, scale=1e9)


@law(ID, "L4", given=space.where(d=dims(2, 3), K=dims(1, 3)), kills=["noise_of_one_axis"], passes_null=["zeros"])
def turned_with_the_data(impl, c, expect):
    "Data and model turned by an orthogonal Q: mean Q mean, covariance Q Cov Q^T."
    Q = np.linalg.qr(np.arange(1.0, c.d * c.d + 1).reshape(c.d, c.d) ** 2 + np.eye(c.d))[0]
    other = Affine(c.d, 0)
    other.K, other.k = Q @ c.affine.K @ Q.T, c.affine.k @ Q.T
    mean, cov = (np.asarray(v, np.float64) for v in run(impl, c))
    turned = run(impl, c, mean=(Q @ np.asarray(c.mean, np.float64)).astype(c.dtype), affine=other,
                 cov=(Q @ np.asarray(c.cov, np.float64) @ Q.T).astype(c.dtype))  # fmt: skip
    size = (4.0 * c.d) ** (2 * c.K) * (np.abs(c.cov).sum() + np.abs(c.mean).max() + 1)
    expect(turned[0], Q @ mean, near(c, 9 * size), "mean", scale=1e9)
    expect(turned[1], Q @ cov @ Q.T, near(c, 9 * size), "covariance", scale=1e9)


# Mutants ---------------------------------------------------------------------------------------------


def still(d=2):
    """The default-size test: a stage that leaves x."""
    model = lambda t: (np.zeros((d, d)), np.zeros(d))  # noqa: E731
    return lambda: ((np.zeros(d), np.eye(d)), {"stages": [Stage(1)], "model": model})


def carry(mean, cov, *, stages, model, **edit):
    d = len(mean)
    eye, zero = np.eye(d), np.zeros((d, d))
    state = np.concatenate([np.asarray(mean, np.float64), np.zeros(d)])
    joint = np.block([[np.asarray(cov, np.float64), zero], [zero, zero]])
    if edit.get("fresh"):
        state, joint = np.zeros_like(state), np.zeros_like(joint)
    for s in stages:
        K, k = (zero, np.zeros(d)) if s.t is None else (np.asarray(v, np.float64) for v in model(s.t))
        K = K.T if edit.get("transposed") else K
        B = 0.0 if s.t is None else s.model
        p, q = (s.at_x, s.at_last) if edit.get("at", True) else (1.0, 0.0)
        below = [zero, eye] if s.t is None else [p * K, q * K]
        M = np.block([[s.x * eye + B * p * K, s.last * eye + B * q * K], below])
        if edit.get("forget"):
            M[:, d:] = 0
        state = M @ state + np.concatenate([B * k, k]) * edit.get("offset", 1)
        joint = M @ joint @ M.T
        if edit.get("blocks"):
            joint[:d, d:] = joint[d:, :d] = 0
        spread = edit.get("spread", lambda c: c * c)(s.noise)
        joint[:d, :d] += spread * (eye if not edit.get("axis") else np.diag([1.0] + [0.0] * (d - 1)))
    return np.asarray(state[:d], mean.dtype), np.asarray(joint[:d, :d], mean.dtype)


@mutant(ID, default_case=still())
def memory_forgotten(*args, **options):
    "l does not count."
    return carry(*args, forget=True, **options)


@mutant(ID, default_case=still())
def covariance_with_the_memory_lost(*args, **options):
    "x and l taken for independent."
    return carry(*args, blocks=True, **options)


@mutant(ID, default_case=still())
def noise_not_squared(*args, **options):
    "c for c^2."
    return carry(*args, spread=abs, **options)


@mutant(ID, default_case=still())
def noise_of_one_axis(*args, **options):
    "The noise of the first axis alone."
    return carry(*args, axis=True, **options)


@mutant(ID, default_case=still())
def offset_forgotten(*args, **options):
    "The model's k is left out of the mean."
    return carry(*args, offset=0, **options)


@mutant(ID, default_case=still())
def evaluated_at_the_state(*args, **options):
    "p = 1, q = 0 always: a two-stage method as two of one."
    return carry(*args, at=False, **options)


@mutant(ID, default_case=still())
def transposed(*args, **options):
    "K^T: the same for the symmetric K of Gaussian data."
    return carry(*args, transposed=True, **options)


@mutant(ID, default_case=lambda: ((np.zeros(2), np.zeros((2, 2))), still()()[1]))
def started_from_nothing(*args, **options):
    "The moments at the start are taken for 0."
    return carry(*args, fresh=True, **options)
