"""Laws and mutants of the forward process."""

from __future__ import annotations

import numpy as np

from ref.diffusion.common_laws import falling, leading, over, steps_of
from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, batch, cases, choose, dims

ID = "diffusion.noised"

space = cases(
    ID,
    S=batch(3, 3, large=50),
    T=leading,
    N=dims(1, 6, large=50),
    alpha_bar=falling,
    t=steps_of,
    flags={
        "per_example": Flag(
            lambda c: len(c.T) == 1 and len(c.S) > 1 and len(set(c.t.tolist())) > 1,
            {"S": choose((2, 2), (3, 2), (2, 3)), "T": lambda draw, c: c.S[:1], "N": dims(3, 6)},
        ),
        "last": Flag(lambda c: np.any(c.t == c.N), {"t": lambda draw, c: np.full(c.T, c.N)}),
        "none": Flag(lambda c: 0 in c.S, {"S": (0, 2)}),
        "some": Flag(lambda c: 0 not in c.S, {"S": choose((), (2,), (3, 2), (2, 2))}),
    },
)
some = space.where(some=True)


def level(c):
    return over(np.asarray(c.alpha_bar, np.float64)[np.asarray(c.t) - 1], c.S)


@law(
    ID, "L1", closed_form=True, given=space.reach("per_example", "last", "none"),
    kills=["one_step_late", "variance_for_deviation", "beta_for_one_minus_alpha_bar", "signal_kept", "last_axis"],
)  # fmt: skip
def coefficients_of_the_closed_marginal(impl, c, expect):
    "x_t = a x_0 + b eps with a^2 = alpha_bar_t and b^2 = 1 - alpha_bar_t, the square roots by powers of 1/2."
    bar = level(c)
    x0, eps = np.asarray(c.x0, np.float64), np.asarray(c.noise, np.float64)
    a, b = bar**0.5, (1 - bar) ** 0.5
    expect(impl(c), a * x0 + b * eps, bounds.rounding(12, a * np.abs(x0) + b * np.abs(eps), c.dtype), scale=1.0)


@law(
    ID, "L2", closed_form=True, given=some.where(N=dims(2, 6), T=()),
    kills=["one_step_late", "beta_for_one_minus_alpha_bar", "signal_kept", "variance_for_deviation"],
)  # fmt: skip
def t_kernels_in_a_row(impl, c, expect):
    """N(sqrt(1 - beta) x, beta) applied t times, beta_i = 1 - alpha_bar_i / alpha_bar_{i-1}: the coefficient of x_0 is
    multiplied, the variance goes to (1 - beta) variance + beta; the marginal has both."""
    bars = np.concatenate([[1.0], np.asarray(c.alpha_bar, np.float64)])
    one, zero = np.ones(c.S, c.dtype), np.zeros(c.S, c.dtype)
    gain, variance = 1.0, 0.0
    for t in range(1, c.N + 1):
        alpha = bars[t] / bars[t - 1]
        gain, variance = np.sqrt(alpha) * gain, alpha * variance + 1 - alpha
        step = np.full(c.T, t)
        limit = bounds.rounding(8 * (t + 1), 1.0, c.dtype)
        expect(impl(c.replace(x0=one, noise=zero, t=step)), np.full(c.S, gain), limit, f"gain at {t}", scale=1.0)
        found = np.asarray(impl(c.replace(x0=zero, noise=one, t=step)), np.float64)
        expect(found**2, np.full(c.S, variance), limit, f"variance at {t}", scale=1.0)


@law(
    ID, "L3", given=some.where(per_example=True), kills=["last_axis", "first_step_for_all"],
    passes_null=["zeros", "constant", "identity"],
)  # fmt: skip
def each_example_has_its_own_step(impl, c, expect):
    "An example alone, with its own t, has the bits it has in the batch."
    out = impl(c)
    for i in range(c.S[0]):
        alone = c.replace(
            x0=c.x0[i : i + 1].copy(), noise=c.noise[i : i + 1].copy(), t=c.t[i : i + 1].copy(),
            S=(1, *c.S[1:]), T=(1,),
        )  # fmt: skip
        expect.same(impl(alone), out[i : i + 1], f"example {i}")


@law(ID, "L4", closed_form=True, needs=("vjp",), given=some, kills=["gradient_of_the_noise_dropped"])
def gradients_are_the_coefficients(impl, c, expect):
    "d x_t / d x_0 = sqrt(alpha_bar_t), d x_t / d eps = sqrt(1 - alpha_bar_t)."
    found = impl.vjp(c, np.full(c.S, 2.0, c.dtype))
    bar, limit = level(c), bounds.rounding(12, 2.0, c.dtype)
    expect(found["x0"], 2 * bar**0.5, limit, "gradient of x_0")
    expect(found["noise"], 2 * (1 - bar) ** 0.5, limit, "gradient of the noise")


# Mutants ---------------------------------------------------------------------------------------------


def batch_of(shape=(4,), bar=0.5, t=1, x=1.0, eps=1.0, count=1):
    """The default-size test: one level for all."""
    return lambda: ((np.full(shape, x), np.full(shape[:1], t), np.full(shape, eps), np.full(count, bar)), {})


def forward(x0, t, noise, alpha_bar, **edit):
    """x_t in plain NumPy, whose parts an edit replaces."""
    bars = np.asarray(alpha_bar, np.float64)
    bar = edit.get("at", lambda bars, t: bars[t - 1])(bars, np.asarray(t))
    bar = edit.get("lay", over)(bar, x0.shape)
    a = edit.get("signal", np.sqrt)(bar)
    b = edit.get("spread", lambda bar: np.sqrt(1 - bar))(bar)
    return (a * x0 + b * noise).astype(x0.dtype)


@mutant(ID, default_case=batch_of(count=2))
def one_step_late(*args):
    "off-by-one: alpha_bar[t], as if steps counted from 0; the last stays itself."
    return forward(*args, at=lambda bars, t: bars[np.minimum(t, len(bars) - 1)])


@mutant(ID, default_case=batch_of(eps=0.0))
def variance_for_deviation(*args):
    "1 - alpha_bar for its root."
    return forward(*args, spread=lambda bar: 1 - bar)


@mutant(ID, default_case=batch_of())
def beta_for_one_minus_alpha_bar(x0, t, noise, alpha_bar):
    "sqrt(beta_t): right at t = 1."
    bars = np.concatenate([[1.0], np.asarray(alpha_bar, np.float64)])
    beta = 1 - bars[np.asarray(t)] / bars[np.asarray(t) - 1]
    return forward(x0, t, noise, alpha_bar, spread=lambda bar: np.sqrt(over(beta, x0.shape)))


@mutant(ID, default_case=batch_of(x=0.0))
def signal_kept(*args):
    "VE for VP: x_0 + sqrt(1 - alpha_bar) eps."
    return forward(*args, signal=np.ones_like)


@mutant(ID, default_case=batch_of((3, 3)))
def last_axis(*args):
    "t broadcasts along the last axis: the same for one level, an error no test of a square batch sees."

    def lay(bar, shape):
        if bar.ndim == 1 and len(shape) > 1:
            return np.broadcast_to(np.resize(bar, shape[-1]), shape)
        return over(bar, shape)

    return forward(*args, lay=lay)


@mutant(ID, default_case=batch_of())
def first_step_for_all(*args):
    "One t for the whole batch: the first."
    return forward(*args, at=lambda bars, t: np.full(t.shape, bars[np.ravel(t)[0] - 1]) if t.size else bars[t - 1])


@mutant(ID, default_case=batch_of(), vjp=lambda g, x0, t, noise, alpha_bar: {
    "x0": forward(g, t, np.zeros_like(g), alpha_bar), "noise": np.zeros_like(g)})  # fmt: skip
def gradient_of_the_noise_dropped(*args):
    "The noise is a constant."
    return forward(*args)
