"""Laws and mutants of the Newton-Schulz iteration."""

from __future__ import annotations

import numpy as np

from ref.optim import common_laws as common
from ref.optim.common_laws import CONVERGING, JORDAN, iterated, iteration_bound, newton_schulz_of
from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, batch, cases, choose, dims

ID = "optim.newton_schulz"


def _full_rank(draw, c):
    return common.draw_diagonal(draw, c, low=1)


space = cases(
    ID,
    B=batch(1, 3),
    r=dims(1, 6),
    c=dims(1, 6),
    steps=choose(5, 1, 0, 3),
    coefficients=choose(JORDAN, CONVERGING),
    eps=choose(1e-7, 0.0, 0.125),
    flags={
        "tall": Flag(lambda c: c.r > c.c, {"r": dims(4, 6), "c": dims(1, 3)}),
        "wide": Flag(lambda c: c.r < c.c, {"r": dims(1, 3), "c": dims(4, 6)}),
        "batch": Flag(lambda c: c.B and c.B[0] > 1, {"B": (2,)}),
        "some": Flag(lambda c: np.any(c.x) and 0 not in c.B),
    },
)
one = space.where(B=())
exact = one.where(x=common.draw_diagonal, coefficients=JORDAN).reach("tall", "wide")


def limit(c):
    return iteration_bound((c.r, c.c), c.steps, c.coefficients, c.dtype)


@law(
    ID, "L1", closed_form=True, given=exact,
    kills=["one_step_too_few", "cubic_alone", "spectral_norm", "eps_is_a_floor", "eps_ignored"],
)  # fmt: skip
def singular_values_go_through_phi(impl, c, expect):
    "A diagonal, its rows, columns and signs shuffled: each entry s becomes phi^steps(s / (|s| + eps)) where it stood."
    wanted = iterated(c.x, c.steps, c.coefficients, c.eps)
    expect(impl(c), wanted, limit(c), scale=1.0)


@law(
    ID, "L2", closed_form=True, given=one.where(coefficients=JORDAN, eps=0.0),
    kills=["one_step_too_few", "cubic_alone"],
)  # fmt: skip
def rank_one_is_its_own_direction(impl, c, expect):
    "X = u v^T, eps = 0: phi^steps(1) u v^T / (|u| |v|)."
    u, v = 1 + np.arange(c.r) / 4, (-1.0) ** np.arange(c.c) * (2 - np.arange(c.c) / 4)
    out = impl(c.replace(x=np.outer(u, v).astype(c.dtype)))
    wanted = common.phi(1.0, c.steps, JORDAN) * np.outer(u, v) / np.sqrt(u @ u * (v @ v))
    expect(out, wanted, limit(c), scale=1.0)


@law(
    ID, "L3", closed_form=True,
    given=one.where(x=_full_rank, steps=24, coefficients=CONVERGING, eps=choose(0.0, 1e-7)).reach("tall", "wide"),
    kills=["coefficients_ignored", "cubic_alone"],
)  # fmt: skip
def converging_coefficients_give_the_polar_factor(impl, c, expect):
    "(15/8, -5/4, 3/8): after 24 steps every non-zero singular value is 1, and the rows or columns are orthonormal."
    out = np.asarray(impl(c), np.float64)
    expect(out, np.sign(np.asarray(c.x, np.float64)), limit(c), scale=1.0)
    gram = out @ out.T if c.r <= c.c else out.T @ out
    expect(gram, np.eye(min(c.r, c.c)), 4 * min(c.r, c.c) * limit(c), "Gram matrix", scale=1.0)


@law(
    ID, "L4", closed_form=True, given=one.where(steps=choose(5, 3), coefficients=JORDAN, values=("normal",)),
    kills=["spectral_norm_squared", "no_norm"], passes_null=["zeros"],
)  # fmt: skip
def no_singular_value_above_the_peak(impl, c, expect):
    "phi maps [0, 1.2024] into itself: its peak at x^2 = (-3 b - sqrt(9 b^2 - 20 a c)) / (10 c), so |X|_2 <= 1.2024."
    a, b, q = JORDAN
    peak = common.phi(np.sqrt((-3 * b - np.sqrt(9 * b * b - 20 * a * q)) / (10 * q)), 1, JORDAN)
    norm = np.linalg.norm(np.asarray(impl(c), np.float64), 2)
    expect.at_most(norm, peak + min(c.r, c.c) * np.max(limit(c)), "greatest singular value")


@law(
    ID, "L5", given=one.where(r=dims(1, 3), c=dims(1, 6)), kills=["transposed_back_to_front"],
    passes_null=["zeros", "constant", "identity"],
)  # fmt: skip
def transposes_commute(impl, c, expect):
    "NS(X^T) = NS(X)^T."
    out = impl(c)
    other = impl(c.replace(x=c.x.T.copy(), r=c.c, c=c.r))
    expect(other.T, out, 2 * limit(c), scale=1.0)


@law(
    ID, "L6", given=one.where(values=("normal",)), kills=["entries_clipped"], passes_null=["zeros", "identity"],
)  # fmt: skip
def commutes_with_signs_and_rotations(impl, c, expect):
    "Rows and columns with other signs give those, bit for bit; NS(Q X) = Q NS(X) for a Householder reflection Q."
    out = impl(c)
    rows = np.where(np.cos(np.arange(c.r)) > 0, -1.0, 1.0).astype(c.dtype)[:, None]
    columns = np.where(np.sin(1 + np.arange(c.c)) > 0, -1.0, 1.0).astype(c.dtype)
    expect.same(impl(c.replace(x=rows * c.x * columns)), rows * out * columns, "other signs")
    w = np.ones(c.r)
    Q = np.eye(c.r) - 2 * np.outer(w, w) / c.r
    turned = impl(c.replace(x=(Q @ c.x).astype(c.dtype)))
    # Q X is rounded, by (r + 2) u |X|, which the steps enlarge by at most 4 each as they do their own errors.
    given = bounds.rounding((c.r + 2) * 4.0**c.steps, 1.0, c.dtype)
    expect(turned, Q @ np.asarray(out, np.float64), c.r * (2 * limit(c) + given), "rotated", scale=1.0)


@law(
    ID, "L7", given=space.where(eps=0.0).reach("batch"), kills=["eps_at_least", "entries_clipped"],
    passes_null=["zeros", "constant"],
)  # fmt: skip
def a_power_of_two_scale_is_invisible(impl, c, expect):
    "eps = 0: X times 2^k leaves every bit."
    wanted = impl(c)
    for scale in (2.0**9, 2.0**-25):
        expect.same(impl(c.replace(x=(c.x * scale).astype(c.dtype))), wanted, f"X {scale}")


@law(
    ID, "L8", given=space.where(batch=True), kills=["one_norm_for_the_batch"],
    passes_null=["zeros", "constant", "identity"],
)  # fmt: skip
def matrices_of_a_batch_are_alone(impl, c, expect):
    "Each matrix of a stack gives what it gives alone."
    out = impl(c)
    for i in range(c.B[0]):
        expect(impl(c.replace(x=c.x[i].copy(), B=())), out[i], 2 * limit(c), f"matrix {i}", scale=1.0)


@law(
    ID, "L9", closed_form=True, given=space.reach("tall", "wide"), kills=["zero_over_zero"],
    passes_null=["zeros", "identity", "mutated"],
)  # fmt: skip
def zero_stays_zero(impl, c, expect):
    "X = 0 gives 0, at eps = 0 too, and beside a matrix that is not 0."
    expect.same(impl(c.replace(x=np.zeros_like(c.x))), np.zeros_like(c.x))


# Mutants ---------------------------------------------------------------------------------------------


def square(scale=1.0, n=4, **options):
    """The default-size test: a well-conditioned n x n matrix."""

    def make():
        x = np.linalg.qr(np.random.default_rng(0).standard_normal((n, n)))[0] * scale
        return (x,), options

    return make


def ns(x, *, steps=5, coefficients=JORDAN, eps=1e-7, **edit):
    return newton_schulz_of(x, steps, coefficients, eps, **edit)


@mutant(ID, default_case=square(coefficients=CONVERGING, steps=30))
def one_step_too_few(x, *, steps=5, **options):
    "steps - 1: nobody sees it after convergence."
    return ns(x, steps=max(steps - 1, 0), **options)


@mutant(ID, default_case=square(coefficients=(1.5, -0.5, 0.0), steps=12))
def cubic_alone(x, *, coefficients=JORDAN, **options):
    "The fifth power is dropped."
    a, b, _ = coefficients
    return ns(x, coefficients=(a, b, 0.0), **options)


@mutant(ID, default_case=square())
def coefficients_ignored(x, *, coefficients=JORDAN, **options):
    "Always Jordan's."
    return ns(x, **options)


@mutant(ID, default_case=square(coefficients=CONVERGING, steps=30))
def spectral_norm(x, **options):
    "Divides by the greatest singular value."
    return ns(x, norm=lambda X: np.linalg.norm(X, 2, axis=(-2, -1), keepdims=True), **options)


@mutant(ID, default_case=square(coefficients=CONVERGING, steps=30))
def spectral_norm_squared(x, **options):
    "Divides by the square of the greatest singular value: right where that is 1."
    return ns(x, norm=lambda X: np.linalg.norm(X, 2, axis=(-2, -1), keepdims=True) ** 2, **options)


@mutant(ID, default_case=square(n=1, eps=0.0))
def no_norm(x, **options):
    "Not normalised at all."
    return ns(x, norm=lambda X: np.ones((*X.shape[:-2], 1, 1), X.dtype), **options)


@mutant(ID, default_case=square())
def eps_is_a_floor(x, **options):
    "max(|X|, eps), not |X| + eps."
    return ns(x, floor=np.maximum, **options)


@mutant(ID, default_case=square())
def eps_ignored(x, *, eps=1e-7, **options):
    "eps is accepted and dropped."
    return ns(x, eps=0.0, **options)


@mutant(ID, default_case=square())
def eps_at_least(x, *, eps=1e-7, **options):
    "eps is raised to 1e-7 where it is less."
    return ns(x, eps=max(eps, 1e-7), **options)


@mutant(ID, default_case=square())
def transposed_back_to_front(x, **options):
    "A tall matrix is transposed and its result only reshaped back."
    out = ns(np.ascontiguousarray(np.swapaxes(x, -1, -2)) if x.shape[-2] > x.shape[-1] else x, **options)
    return out.reshape(x.shape)


@mutant(ID, default_case=square())
def entries_clipped(x, **options):
    "Entries are clipped to [-1, 1] before anything else."
    low = np.where(x < -1, -1, x)
    return ns(np.where(low > 1, 1.25, low).astype(x.dtype), **options)


@mutant(ID, default_case=square())
def one_norm_for_the_batch(x, **options):
    "The norm of the whole stack."
    return ns(x, norm=lambda X: np.sqrt(np.sum(X * X, keepdims=True)), **options)


@mutant(ID, default_case=square())
def zero_over_zero(x, **options):
    "NaN where the matrix and eps are 0."
    return ns(x, guarded=False, **options)
