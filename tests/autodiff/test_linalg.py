"""Matrix functions against closed forms, and their edges."""

from __future__ import annotations

import numpy as np
import pytest

import backends
from autodiff import grad, hvp, jvp, linalg, namespace, tensor, vjp
from autodiff.ops import exp
from autodiff.ops import sum as total

RNG = np.random.default_rng(3)


def orthogonal(n):
    return np.linalg.qr(RNG.standard_normal((n, n)))[0]


def with_eigenvalues(*w):
    q = orthogonal(len(w))
    return (q * np.array(w)) @ q.T


def near(got, want, tol=1e-12):
    assert np.shape(got) == np.shape(want)
    assert np.all(np.abs(np.asarray(got) - want) <= tol * max(1.0, np.max(np.abs(want), initial=0.0))), (got, want)


A, C = RNG.standard_normal((5, 5)) + 4 * np.eye(5), RNG.standard_normal((5, 5))
S = A @ A.T
TALL, WIDE = RNG.standard_normal((6, 3)), RNG.standard_normal((3, 6))

# --- closed forms -----------------------------------------------------------------------------


@pytest.mark.parametrize("x", [A, TALL, WIDE], ids=["square", "tall", "wide"])
@pytest.mark.parametrize("name", ["svd", "qr"])
def test_a_decomposition_put_together_is_the_identity(name, x):
    c = RNG.standard_normal(x.shape)

    def f(x):
        if name == "qr":
            q, r = linalg.qr(x)
            return total((q @ r) * c)
        u, s, vt = linalg.svd(x)
        return total((u * s) @ vt * c)

    near(grad(f)(x), c)
    near(hvp(f, (x,), (c,))[0], np.zeros_like(x), 1e-10)


def test_symmetric_decompositions_put_together_are_the_symmetric_part():
    """E19, E23."""

    def by_eigh(x):
        w, v = linalg.eigh(x)
        return total((v * w) @ linalg.matrix_transpose(v) * C)

    def by_cholesky(x):
        z = linalg.cholesky(x)
        return total(z @ linalg.matrix_transpose(z) * C)

    for f in (by_eigh, by_cholesky):
        near(grad(f)(S), (C + C.T) / 2)
    skew = C - C.T
    assert np.array_equal(linalg.cholesky(S + skew), linalg.cholesky(S))


def test_inverse_three_ways():
    want = -np.linalg.inv(S).T @ C @ np.linalg.inv(S).T

    def by_eigh(x):
        w, v = linalg.eigh(x)
        return total((v / w) @ linalg.matrix_transpose(v) * C)

    near(grad(lambda x: total(linalg.inv(x) * C))(S), want)
    near(grad(lambda x: total(linalg.solve(x, np.eye(5)) * C))(S), want)
    near(grad(by_eigh)(S), (want + want.T) / 2)


def test_triangular_systems_leave_the_other_triangle_alone():
    b = RNG.standard_normal((5, 2))
    v = RNG.standard_normal((5, 2))
    for upper, part in ((True, np.triu), (False, np.tril)):
        half = part(A)
        ga, gb = vjp(lambda a, b, u=upper: linalg.solve_triangular(a, b, upper=u), A, b)[1](v)
        near(gb, np.linalg.solve(half.T, v))
        near(ga, part(-np.linalg.solve(half.T, v) @ np.linalg.solve(half, b).T))


def test_log_det_and_det():
    near(grad(lambda x: linalg.slogdet(x).logabsdet)(A), np.linalg.inv(A).T)
    near(grad(linalg.det)(A), np.linalg.det(A) * np.linalg.inv(A).T, 1e-11)
    assert linalg.slogdet(tensor(-np.eye(3))).sign == -1.0
    assert linalg.slogdet(np.eye(2, dtype=np.float16)).sign.dtype == np.float16
    # By way of cholesky: log det S = 2 sum log diag L.
    half = lambda x: 2.0 * total(namespace(x).log(linalg.diagonal(linalg.cholesky(x))))  # noqa: E731
    near(grad(half)(S), np.linalg.inv(S))


def test_trace_and_diagonal():
    x = RNG.standard_normal((2, 3, 4))
    for offset in range(-4, 6):
        near(linalg.diagonal(x, offset=offset), np.diagonal(x, offset, -2, -1))
        want = np.broadcast_to(np.eye(3, 4, offset), x.shape)
        near(grad(lambda x, k=offset: total(linalg.trace(x, offset=k)))(x), want)


@pytest.mark.parametrize("ord", [1, 1.5, 2, 3, np.inf])
def test_vector_norms(ord):  # noqa: A002
    x = np.array([[3.0, -4.0, 1.0], [0.0, 0.0, 0.0]])
    n = np.linalg.norm(x[0], ord)
    near(linalg.vector_norm(x, axis=1, ord=ord), [n, 0.0])
    g = grad(lambda x: total(linalg.vector_norm(x, axis=1, ord=ord)))(x)
    slope = (np.abs(x[0]) / n) ** (ord - 1) if ord < np.inf else np.array([0, 1.0, 0])
    near(g[0], np.sign(x[0]) * slope)
    if ord != np.inf:  # E8: all entries tie at 0, and |x| has slope 0 there
        assert np.array_equal(g[1], [0, 0, 0])
    for scale in (1e200, 1e-200):
        near(linalg.vector_norm(x[0] * scale, ord=ord) / scale, n)
        near(grad(lambda x: linalg.vector_norm(x, ord=ord))(x[0] * scale), g[0])
    assert linalg.vector_norm(x, axis=(0, 1), keepdims=True, ord=ord).shape == (1, 1)
    assert np.array_equal(linalg.vector_norm(np.zeros((0, 2)), axis=0, ord=ord), [0, 0])
    assert linalg.vector_norm(np.array(-2.0), ord=ord) == 2.0


@pytest.mark.parametrize("ord", ["fro", "nuc", 1, 2, np.inf, -1, -2, -np.inf])
def test_matrix_norms(ord):  # noqa: A002
    x = np.stack([TALL, 2 * TALL[::-1]])
    want = np.linalg.norm(x, ord, axis=(-2, -1))
    near(linalg.matrix_norm(x, ord=ord), want)
    assert linalg.matrix_norm(x, ord=ord, keepdims=True).shape == (2, 1, 1)
    # Euler: a norm is homogeneous of degree 1, <grad, x> = |x|.
    g = grad(lambda x: total(linalg.matrix_norm(x, ord=ord)))(x)
    near(np.sum(g * x, axis=(-2, -1)), want)


# --- repeated eigenvalues and singular values -------------------------------------------------

REPEATED = {
    "identity": np.eye(4),
    "two pairs": with_eigenvalues(2.0, 2.0, 0.5, 0.5),
    "zero matrix": np.zeros((3, 3)),
    "one pair": with_eigenvalues(-1.0, 3.0, 3.0),
}


@pytest.mark.parametrize("x", REPEATED.values(), ids=REPEATED)
def test_spectral_losses_at_repeated_eigenvalues(x):
    """E24: d trace f(x) = f'(x), a function of the matrix, whatever basis eigh took."""
    w, q = np.linalg.eigh(x)
    f = lambda x: total(exp(linalg.eigvalsh(x)))  # noqa: E731
    want = (q * np.exp(w)) @ q.T
    near(grad(f)(x), want, 1e-13)
    u = RNG.standard_normal(x.shape)
    near(jvp(f, (x,), (u,))[1], np.sum(want * u), 1e-13)
    near(grad(lambda x: total(linalg.eigh(x).eigenvalues ** 2))(x), 2 * x, 1e-13)


def test_losses_of_vectors_at_repeated_eigenvalues_are_nan_and_of_no_other_matrix():
    """E24: undetermined, so NaN; a stack's other matrices keep their gradient."""
    stack = np.stack([np.eye(3), with_eigenvalues(1.0, 2.0, 4.0)])
    c = C[:3, :3]

    def f(x):
        w, v = linalg.eigh(x)
        return total((v * exp(w)[..., None, :]) @ linalg.matrix_transpose(v) * c)

    g = grad(f)(stack)
    assert np.all(np.isnan(g[0])) and np.all(np.isfinite(g[1]))
    w, q = np.linalg.eigh(stack[1])
    # Daleckii and Krein: the divided differences of exp in the basis of eigenvectors.
    gap = w[:, None] - w + np.eye(3)
    divided = np.where(np.eye(3) == 1, np.exp(w), (np.exp(w)[:, None] - np.exp(w)) / gap)
    near(g[1], q @ (divided * (q.T @ ((c + c.T) / 2) @ q)) @ q.T)
    # A vector whose eigenvalue stands alone has its slope also beside a pair.
    x = np.diag([1.0, 1.0, 3.0])
    lone = grad(lambda x: total(linalg.eigh(x).eigenvectors[2, 2] ** 2))(x)
    near(lone, np.zeros((3, 3)))
    along = jvp(lambda x: linalg.eigh(x).eigenvectors, (x,), (np.ones((3, 3)),))[1]
    assert np.all(np.isnan(along[:2, :2])) and np.all(np.isfinite(along[:, 2]))


def test_second_derivatives_at_repeated_eigenvalues_are_nan():
    """E27."""
    f = lambda x: total(exp(linalg.eigvalsh(x)))  # noqa: E731
    assert np.all(np.isnan(hvp(f, (np.eye(3),), (C[:3, :3],))[0]))
    x = with_eigenvalues(1.0, 2.0, 4.0)
    assert np.all(np.isfinite(hvp(f, (x,), (C[:3, :3],))[0]))


def test_an_asymmetric_loss_of_equal_eigenvalues_gets_a_subgradient():
    g = grad(lambda x: linalg.eigvalsh(x)[2])(np.eye(3))
    near(np.trace(g), 1.0)
    assert np.linalg.eigvalsh(g)[0] >= -1e-15  # v v^T


def test_singular_values_repeated_and_zero():
    """E25: nuclear and Frobenius norms at equal singular values, and at rank 1."""
    nuclear = lambda x: linalg.matrix_norm(x, ord="nuc")  # noqa: E731
    q = orthogonal(4)
    near(grad(nuclear)(3.0 * q), q)
    near(grad(nuclear)(q[:, :2]), q[:, :2])
    near(jvp(nuclear, (3.0 * q,), (C[:4, :4],))[1], np.sum(q * C[:4, :4]))
    rank1 = np.outer([1.0, 2.0, 2.0], [0.0, 3.0, 4.0])
    near(grad(lambda x: total(linalg.svdvals(x) ** 2))(rank1), 2 * rank1)
    g = grad(nuclear)(rank1)
    near(np.linalg.svd(g)[1], np.ones(3))  # a subgradient: u v^T and some pair of null vectors
    near(np.sum(g * rank1), 15.0)

    def polar(x):
        u, _, vt = linalg.svd(x)
        return total((u @ vt) * C[:4, :4])

    assert np.all(np.isnan(grad(polar)(q)))
    x = orthogonal(4) * np.array([1.0, 2, 3, 4]) @ q
    # The polar factor does not change when x is scaled: <grad, x> = 0.
    near(np.sum(grad(polar)(x) * x), 0.0)

    def null_vector(x):
        return linalg.svd(x).U[0, 2] ** 2

    assert np.all(np.isnan(grad(null_vector)(np.outer(np.ones(4), [1.0, 2.0, 3.0]))))


# --- singular matrices ------------------------------------------------------------------------


def _cofactors(x):
    n = len(x)
    minor = lambda i, j: np.linalg.det(np.delete(np.delete(x, i, 0), j, 1))  # noqa: E731
    return np.array([[(-1) ** (i + j) * minor(i, j) for j in range(n)] for i in range(n)])


@pytest.mark.parametrize("rank", [0, 1, 2, 3])
def test_det_at_any_rank(rank):
    """E21: det(x + t e) = det x + t <cof x, e> + t^2 <x, cof e> + t^3 det e, for 3 by 3."""
    x, e = RNG.standard_normal((3, rank)) @ RNG.standard_normal((rank, 3)), C[:3, :3]
    near(grad(linalg.det)(x), _cofactors(x))
    near(np.sum(hvp(linalg.det, (x,), (e,))[0] * e), 2 * np.sum(x * _cofactors(e)))
    again = grad(lambda x: total(grad(linalg.det)(x) * e))(x)
    near(again, hvp(linalg.det, (x,), (e,))[0])


def test_det_of_two_by_two_has_a_constant_hessian():
    e = np.array([[1.0, 2.0], [3.0, 4.0]])
    for x in (np.zeros((2, 2)), e, np.ones((2, 2))):
        near(hvp(linalg.det, (x,), (e,))[0], [[4.0, -3.0], [-2.0, 1.0]])


SINGULAR = np.ones((2, 3, 3))
REFUSED = {
    "inv": (lambda: linalg.inv(SINGULAR), "inv: matrices of shape (2, 3, 3): needed invertible"),
    "solve": (lambda: linalg.solve(SINGULAR, np.ones(3)), "solve: matrices of shape (2, 3, 3) and (3,): needed"),
    "cholesky": (lambda: linalg.cholesky(-np.eye(2)), "cholesky: matrices of shape (2, 2): needed positive"),
    "solve_triangular": (
        lambda: linalg.solve_triangular(np.zeros((2, 2)), np.ones((2, 1))),
        "solve_triangular: a of shape (2, 2) has 0 on its diagonal",
    ),
    "logabsdet": (
        lambda: grad(lambda x: total(linalg.slogdet(x).logabsdet))(np.diag([1.0, 0.0])),
        "logabsdet: a matrix of x of shape (2, 2) is singular",
    ),
    "qr": (
        lambda: grad(lambda x: total(linalg.qr(x).Q))(np.array([[1.0, 0.0], [0.0, 0.0]])),
        "solve_triangular: a of shape (2, 2) has 0 on its diagonal",
    ),
    "qr mode": (lambda: linalg.qr(A, mode="complete"), "qr: mode is 'complete'; needed 'reduced'"),
    "svd full": (lambda: linalg.svd(A, full_matrices=True), "svd: full_matrices=True asks for a basis"),
    "vector_norm": (lambda: linalg.vector_norm(A, ord=0.5), "vector_norm: ord is 0.5; needed a number >= 1"),
    "matrix_norm": (lambda: linalg.matrix_norm(A, ord=3), "matrix_norm: ord is 3; needed fro"),
}


@pytest.mark.parametrize("call, said", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_is_said(call, said):
    """E19, E20, E22, E26, and options without a derivative."""
    with pytest.raises(ValueError) as error:
        call()
    assert said in str(error.value)


def test_log_det_of_a_singular_matrix_has_a_value():
    assert linalg.slogdet(np.diag([1.0, 0.0])) == (0.0, -np.inf)


def test_signs_are_fixed():
    """The largest entry of an eigenvector, or of a column of U, is positive."""
    for x in (S, TALL, WIDE, np.stack([A, -A])):
        u, s, vt = linalg.svd(x)
        near((u * s[..., None, :]) @ vt, x)
        assert np.all(np.max(u, axis=-2) == np.max(np.abs(u), axis=-2))
    w, v = linalg.eigh(S)
    near((v * w) @ v.T, S)
    assert np.all(np.max(v, axis=0) == np.max(np.abs(v), axis=0))


# --- sizes, backends, namespaces --------------------------------------------------------------


def test_matrices_without_rows():
    x = np.zeros((2, 0, 0))
    for name in ("inv", "cholesky", "det"):
        out, pull = vjp(getattr(linalg, name), x)
        assert pull(np.ones_like(out))[0].shape == x.shape
    assert np.array_equal(linalg.det(x), [1.0, 1.0])
    assert linalg.eigh(x).eigenvalues.shape == (2, 0) and linalg.svd(np.zeros((0, 3))).Vh.shape == (0, 3)


@pytest.mark.parametrize("name", ["numpy", "strict"])
def test_a_tensor_namespace_has_linalg(name):
    backend = backends.get(name)
    t = tensor(backend.from_numpy(S), requires_grad=True)
    xp = namespace(t)
    xp.linalg.trace(xp.linalg.inv(t)).backward()
    near(backend.to_numpy(t.grad), -np.linalg.inv(S) @ np.linalg.inv(S))


# --- nesting ----------------------------------------------------------------------------------

LOG_DET = {
    "slogdet": lambda x: linalg.slogdet(x).logabsdet,
    "eigh": lambda x: total(namespace(x).log(linalg.eigvalsh(x))),
    "cholesky": lambda x: 2.0 * total(namespace(x).log(linalg.diagonal(linalg.cholesky(x)))),
    "svd": lambda x: total(namespace(x).log(linalg.svdvals(x))),
    "qr": lambda x: total(namespace(x).log(namespace(x).abs(linalg.diagonal(linalg.qr(x).R)))),
    "det": lambda x: namespace(x).log(linalg.det(x)),
}


@pytest.mark.parametrize("name", LOG_DET)
def test_three_derivatives_of_log_det_nested_both_ways(name):
    """log det(S + t E) has the derivatives tr M, -tr M^2, 2 tr M^3 at t = 0, M = S^-1 E."""
    e = (C + C.T) / 2
    m = np.linalg.solve(S, e)
    want = [np.trace(m), -np.trace(m @ m), 2 * np.trace(m @ m @ m)]
    f = lambda t: LOG_DET[name](t * e + S)  # noqa: E731
    along = lambda g: lambda t: jvp(g, (t,), (1.0,))[1]  # noqa: E731
    ways = (
        (grad(f), grad(grad(f)), grad(grad(grad(f)))),
        (along(f), along(along(f)), along(along(along(f)))),
        (grad(f), along(grad(f)), grad(along(grad(f)))),
    )
    for derivatives in ways:
        for k, g in enumerate(derivatives):
            near(g(0.0), want[k], 1e-9)
