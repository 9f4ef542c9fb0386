"""Laws and mutants of the bound's terms."""

from __future__ import annotations

import math

import numpy as np

import backends
from ref.diffusion.common_laws import DOUBLE, by_bayes, falling, gaussian, leading, over, steps_of
from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, batch, cases, choose, dims

ID = "diffusion.vlb_term"

space = cases(
    ID,
    S=batch(2, 3, large=50),
    T=leading,
    N=dims(2, 6, large=50),
    alpha_bar=falling,
    t=steps_of,
    model=lambda draw, c: lambda x, t: x * 0,
    prediction=choose("eps", "x0", "v", "score"),
    variance=choose("small", "large"),
    s2=choose(0.25, 0.5),
    decoder="gaussian",
    bins=17,
    flags={
        "mixed": Flag(
            lambda c: len(c.T) == 1 and len(c.S) > 1 and np.any(c.t == 1) and np.any(c.t > 1),
            {"S": choose((3, 2), (2, 3)), "T": lambda draw, c: c.S[:1], "N": dims(2, 3)},
        ),
        "first": Flag(lambda c: np.all(c.t == 1), {"t": lambda draw, c: np.ones(c.T, int)}),
        "later": Flag(lambda c: np.all(c.t > 1) and 0 not in c.S,
                      {"t": lambda draw, c: np.full(c.T, draw(choose(2, c.N))), "S": choose((), (2,), (3, 2))}),
        "some": Flag(lambda c: 0 not in c.S, {"S": choose((), (2,), (3, 2), (2, 2))}),
    },
)  # fmt: skip
some = space.where(some=True)


def saying(c, values):
    values = np.asarray(values, c.dtype)
    return lambda x, t: backends.namespace(x).from_numpy(values)


def parts(c):
    """(alpha_bar, alpha_bar before, x_0, eps, x_t) over the entries, in float64."""
    bars = np.concatenate([[1.0], np.asarray(c.alpha_bar, np.float64)])
    now, before = over(bars[c.t], c.S), over(bars[c.t - 1], c.S)
    x0, eps = np.asarray(c.x0, np.float64), np.asarray(c.noise, np.float64)
    return now, before, x0, eps, now**0.5 * x0 + (1 - now) ** 0.5 * eps


def kernel_variance(c):
    """v[*S] by precisions, btilde_2 for btilde_1."""
    bars = [1.0, *np.asarray(c.alpha_bar, np.float64).tolist()]
    found = np.zeros(c.T)
    for at in np.ndindex(tuple(c.T)):
        t = int(c.t[at])
        k = max(t, 2)
        found[at] = by_bayes(bars[k], bars[k - 1])[2] if c.variance == "small" else 1 - bars[t] / bars[t - 1]
    return over(found, c.S)


def told(c, x0hat):
    """(what a model says whose prediction of x_0 is x0hat, how much rounding of it moves x_0)."""
    now, _, _, _, x = parts(c)
    a, b = now**0.5, (1 - now) ** 0.5
    eps = (x - a * x0hat) / b
    return {"eps": eps, "x0": x0hat, "v": a * eps - b * x0hat, "score": -eps / b}[c.prediction]


def gaussian_kl(m_q, v_q, m_p, v_p):
    return (np.log(v_p / v_q) + (v_q + (m_q - m_p) ** 2) / v_p - 1) / 2


def limit_of(c, gap):
    now, before, x0, eps, x = parts(c)
    v = kernel_variance(c)
    size = (1 + np.abs(x0) + np.abs(eps) + np.abs(gap)) * 8 / (now * (1 - now))
    return bounds.rounding(100, (1 + np.abs(gap) / v) * size + 1 / v + np.abs(np.log(v)), c.dtype)


@law(
    ID, "L1", closed_form=True, given=some.where(later=True),
    kills=["divergence_the_other_way", "variance_term_dropped", "one_step_late", "output_is_eps", "halves_missing",
           "bits"],
)  # fmt: skip
def terms_are_divergences_of_gaussians(impl, c, expect):
    """t > 1, a model whose x_0 is off by 1/2: KL between the posteriors at the two x_0, with btilde and v, by
    precisions."""
    now, before, x0, _, x = parts(c)
    weights = np.array([by_bayes(*p) for p in zip(now.ravel(), before.ravel(), strict=True)]).reshape(*c.S, 3)
    c_0, c_t, btilde = weights[..., 0], weights[..., 1], weights[..., 2]
    off = x0 + 0.5
    wanted = gaussian_kl(c_0 * x0 + c_t * x, btilde, c_0 * off + c_t * x, kernel_variance(c))
    out = impl(c.replace(model=saying(c, told(c, off))))
    expect(out, wanted, limit_of(c, c_0 * 0.5), "L_{t-1}", scale=1e9)


@law(
    ID, "L2", closed_form=True, given=some.where(later=True, prediction="eps"),
    kills=["halves_missing", "one_step_late", "divergence_the_other_way", "simple_weights"],
)  # fmt: skip
def weight_of_the_noise_error(impl, c, expect):
    "eps_theta = eps + e against e = 0: the term grows by beta^2 / (2 v alpha (1 - alpha_bar)) e^2 (Eq. 12)."
    now, before, _, eps, _ = parts(c)
    right = np.asarray(impl(c.replace(model=saying(c, eps))), np.float64)
    off = np.asarray(impl(c.replace(model=saying(c, eps + 2))), np.float64)
    beta, alpha = 1 - now / before, now / before
    gap = beta / (alpha * (1 - now)) ** 0.5 * 2
    wanted = gap**2 / (2 * kernel_variance(c))
    expect(off - right, wanted, 2 * limit_of(c, gap), "the growth", scale=1e9)


@law(
    ID,
    "L3",
    closed_form=True,
    dtypes=DOUBLE,
    given=some.where(
        variance="learned", S=choose((2,), (3,)), T=lambda draw, c: c.S, N=dims(2, 5), s2=choose(0.25, 0.5)
    ),
    kills=[
        "divergence_the_other_way",
        "variance_term_dropped",
        "halves_missing",
        "no_constant",
        "bits",
        "first_term_is_a_divergence",
    ],
)
def the_bound_is_tight_for_gaussian_data(impl, c, expect):
    """x_0 ~ N(m, s^2), p(x_T) = q(x_T), the exact reverse kernel and a decoder of variance Var(x_0 | x_1): L_0 + .. +
    L_T is -ln N(x_0; m, s^2). Expectations over q(x_t | x_0) by the two signs of eps = +-1."""
    m, bars = 1.5, [1.0, *np.asarray(c.alpha_bar, np.float64).tolist()]
    x0, total = np.asarray(c.x0, np.float64), 0.0
    for t in range(1, c.N + 1):
        now, before = bars[t], bars[t - 1]
        base = gaussian(lambda t, now=now: (now**0.5, (1 - now) ** 0.5), m, c.s2, c.prediction)
        left = c.s2 * (1 - now) / (now * c.s2 + 1 - now)
        c_0, _, small = by_bayes(now, before)
        low = math.log(by_bayes(bars[max(t, 2)], bars[max(t, 2) - 1])[2])
        mix = (math.log(small + c_0**2 * left) - low) / (math.log(1 - now / before) - low)
        for sign in (1.0, -1.0):
            case = c.replace(t=np.full(c.T, t), noise=np.full(c.S, sign), model=lambda x, t, base=base, mix=mix: (
                base(x, t), x * 0 + mix))  # fmt: skip
            total = total + np.asarray(impl(case), np.float64) / 2
    last = bars[-1]
    total = total + gaussian_kl(last**0.5 * x0, 1 - last, last**0.5 * m, last * c.s2 + 1 - last)
    wanted = (math.log(2 * math.pi * c.s2) + (x0 - m) ** 2 / c.s2) / 2
    expect(total, wanted, bounds.rounding(1e5, 1 + (x0 - m) ** 2, "float64") / min(bars), "the bound", scale=1e9)


@law(
    ID,
    "L4",
    closed_form=True,
    dtypes=DOUBLE,
    given=some.where(
        first=True,
        decoder=choose("gaussian", "discretized"),
        bins=choose(5, 17),
        x0=lambda draw, c: np.asarray(
            np.round(np.cos(7.0 * np.arange(np.prod(c.S, dtype=int))).reshape(c.S) * (c.bins - 1) / 2)
            / ((c.bins - 1) / 2)
        ),
    ).reach("first"),
    kills=["first_term_is_a_divergence", "no_constant", "zero_at_the_first_step", "always_a_density"],
)
def the_first_term_is_a_likelihood(impl, c, expect):
    """t = 1, predicted x_0 off by 1/4: -ln N(x_0; x_0 + 1/4, v), or minus the logarithm of the bin of x_0, half a bin
    to each side and the outer bins to infinity."""
    x0 = np.asarray(c.x0, np.float64)
    v = kernel_variance(c)
    out = impl(c.replace(model=saying(c, told(c, x0 + 0.25))))
    if c.decoder == "gaussian":
        wanted = (np.log(2 * math.pi * v) + 0.0625 / v) / 2
    else:
        h = 1 / (c.bins - 1)
        up, down = (h - 0.25) / v**0.5, (-h - 0.25) / v**0.5
        below = lambda z: math.erfc(-z / math.sqrt(2)) / 2  # noqa: E731
        p = np.zeros(c.S)
        for at in np.ndindex(tuple(c.S)):
            top = 1.0 if x0[at] > 1 - h else below(up[at])
            p[at] = top - (0.0 if x0[at] < -1 + h else below(down[at]))
        wanted = -np.log(p)
    expect(out, wanted, bounds.rounding(4000, (1 + np.abs(wanted)) / v, "float64") * c.bins, "L_0", scale=1e9)


@law(
    ID, "L5", given=some.where(mixed=True).reach("mixed"), kills=["last_axis"],
    passes_null=["zeros", "constant", "identity"],
)  # fmt: skip
def each_example_has_its_own_step(impl, c, expect):
    """An example alone, with its own t, has the bits it has in a batch where some are at the first step and some are
    not."""
    out = impl(c)
    for i in range(c.S[0]):
        cut = {name: c[name][i : i + 1].copy() for name in ("x0", "noise", "t")}
        expect.same(impl(c.replace(**cut, S=(1, *c.S[1:]), T=(1,))), out[i : i + 1], f"example {i}")


# Mutants ---------------------------------------------------------------------------------------------


def exact(N=2, t=2, bar=0.5, **options):
    """The default-size test: x_0 = 0 known exactly, at a later step."""

    def make():
        args = np.zeros(3), np.full(3, t), np.zeros(3), np.cumprod(np.full(N, bar))
        return args, {"model": lambda x, t: 0 * x, **options}

    return make


def term(
    x0, t, noise, alpha_bar, *, model, prediction="eps", variance="small", decoder="gaussian", bins=256, **edit
):  # fmt: skip
    """The terms in plain NumPy, whose parts an edit replaces."""
    bars = np.concatenate([[1.0], np.asarray(alpha_bar, np.float64)])
    if edit.get("last") and t.ndim == 1 and x0.ndim > 1:
        t = np.broadcast_to(np.resize(t, x0.shape[-1]), x0.shape)
    given = over(bars[t], x0.shape)
    x = (np.sqrt(given) * x0 + np.sqrt(1 - given) * noise).astype(x0.dtype)
    m = model(x, t)
    m, mix = m if variance == "learned" else (m, None)
    k = np.minimum(t + edit.get("shift", 0), len(bars) - 1)
    now, before = over(bars[k], x.shape), over(bars[k - 1], x.shape)
    a, b = np.sqrt(now), np.sqrt(1 - now)
    x0hat = {"eps": (x - b * m) / a, "x0": m, "v": a * x - b * m, "score": (x + b * b * m) / a}[
        edit.get("take", prediction)
    ]
    beta = 1 - now / before
    small = (1 - before) / (1 - now) * beta
    second = (1 - bars[1]) / (1 - bars[2]) * (1 - bars[2] / bars[1]) if len(bars) > 2 else 1 - bars[1]
    low = np.where(small == 0, edit.get("first_low", second), small)
    v = {
        "small": lambda: low,
        "large": lambda: beta,
        "learned": lambda: np.exp(mix * np.log(beta) + (1 - mix) * np.log(low)),
    }[variance]()
    weight_0, weight_t = np.sqrt(before) * beta / (1 - now), np.sqrt(now / before) * (1 - before) / (1 - now)
    m_q, m_p = weight_0 * x0 + weight_t * x, weight_0 * x0hat + weight_t * x
    q = np.where(small == 0, 1 if not edit.get("divergence_first") else second, small)
    found = edit.get("kl", gaussian_kl)(m_q, q, m_p, v)
    constant = edit.get("constant", math.log(2 * math.pi))
    start = (np.log(v) + constant + (x0 - m_p) ** 2 / v) / 2
    if decoder == "discretized" and not edit.get("density"):
        h, s = 1 / (bins - 1), np.sqrt(v)
        phi = np.vectorize(lambda z: math.erfc(-z / math.sqrt(2)) / 2, otypes=[float])
        up = np.where(x0 > 1 - h, 1.0, phi((x0 + h - m_p) / s))
        start = -np.log(np.maximum(up - np.where(x0 < h - 1, 0.0, phi((x0 - h - m_p) / s)), 1e-300))
    out = np.where((small == 0) & (not edit.get("divergence_first")), start, found)
    return np.asarray(out * edit.get("unit", 1.0), x.dtype)


@mutant(ID, default_case=exact())
def divergence_the_other_way(*args, **options):
    "KL(p, q)."
    return term(*args, kl=lambda m_q, v_q, m_p, v_p: gaussian_kl(m_p, v_p, m_q, v_q), **options)


@mutant(ID, default_case=exact())
def variance_term_dropped(*args, **options):
    "(mean_q - mean_p)^2 / (2 v) alone: the same where v = btilde."
    return term(*args, kl=lambda m_q, v_q, m_p, v_p: (m_q - m_p) ** 2 / (2 * v_p), **options)


@mutant(ID, default_case=exact())
def one_step_late(*args, **options):
    "off-by-one: the kernels of step t + 1 at x_t."
    return term(*args, shift=1, **options)


@mutant(ID, default_case=exact())
def output_is_eps(*args, **options):
    "The prediction is ignored."
    return term(*args, take="eps", **options)


@mutant(ID, default_case=exact())
def halves_missing(*args, **options):
    "Twice the divergence."
    return term(*args, kl=lambda *a: 2 * gaussian_kl(*a), **options)


@mutant(ID, default_case=exact())
def simple_weights(*args, **options):
    "Weight 1 for every step, as L_simple."
    return term(*args, kl=lambda m_q, v_q, m_p, v_p: (m_q - m_p) ** 2, **options)


@mutant(ID, default_case=exact())
def bits(*args, **options):
    "Bits for nats."
    return term(*args, unit=1 / math.log(2), **options)


@mutant(ID, default_case=exact())
def no_constant(*args, **options):
    "L_0 without ln(2 pi) / 2."
    return term(*args, constant=0.0, **options)


@mutant(ID, default_case=exact())
def first_term_is_a_divergence(*args, **options):
    "L_0 as a KL to the posterior with btilde_2."
    return term(*args, divergence_first=True, **options)


@mutant(ID, default_case=exact())
def zero_at_the_first_step(*args, **options):
    "btilde_1 kept from 0 by 1e-20 alone: the decoder has no width."
    return term(*args, first_low=1e-20, **options)


@mutant(ID, default_case=exact())
def last_axis(*args, **options):
    "One step an example, laid along the last axis: an error that no square batch at one step shows."
    return term(*args, last=True, **options)


@mutant(ID, default_case=exact())
def always_a_density(*args, **options):
    "discretized is a density."
    return term(*args, density=True, **options)
