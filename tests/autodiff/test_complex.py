"""Complex numbers as a user meets them: the convention, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from autodiff import (
    checkpoint,
    custom,
    elementwise_grad,
    grad,
    gradients,
    hessian,
    hvp,
    jacfwd,
    jacrev,
    jvp,
    linearize,
    namespace,
    register_hook,
    tensor,
    value_and_grad,
    vjp,
)
from autodiff import ops as np_ops

Z = np.array([0.5 + 1.0j, -1.5 + 0.25j, 2.0 - 0.75j])
W = np.array([1.0 - 2.0j, 0.5j, -0.25 + 1.0j])

# --- the convention ---------------------------------------------------------------------------


def test_the_gradient_is_steepest_ascent_and_descent_needs_no_conjugate():
    size = lambda z: namespace(z).sum(namespace(z).abs(z - W) ** 2)  # noqa: E731
    assert np.allclose(grad(size)(Z), 2 * (Z - W), rtol=1e-15)
    # JAX and HIPS: the conjugate, dL/dx - i dL/dy
    x, y = grad(lambda x, y: size(np_ops.complex(x, y)), (0, 1))(Z.real, Z.imag)
    assert np.allclose(np.conj(grad(size)(Z)), x - 1j * y, rtol=1e-15)
    assert complex(tensor(Z[0])) == Z[0] and tensor(Z).is_complex()
    z = tensor(Z.copy(), requires_grad=True)
    for _ in range(60):
        size(z).backward()
        z.detach().assign(z.data - 0.25 * z.grad)
        z.zero_grad()
    assert np.allclose(z.data, W, rtol=1e-15)
    real_part = lambda z: namespace(z).sum(namespace(z).real(z * z))  # noqa: E731
    assert np.array_equal(grad(real_part)(Z), 2 * np.conj(Z))


HOLOMORPHIC = {
    "z^3": (lambda xp, z: z**3, lambda z: 3 * z**2, lambda z: 6 * z),
    "exp": (lambda xp, z: xp.exp(z * 1j), lambda z: 1j * np.exp(1j * z), lambda z: -np.exp(1j * z)),
    "log": (lambda xp, z: xp.log(z), lambda z: 1 / z, lambda z: -1 / z**2),
    "1/z": (lambda xp, z: 1.0 / z, lambda z: -1 / z**2, lambda z: 2 / z**3),
    "z^i": (lambda xp, z: z**1j, lambda z: 1j * z ** (1j - 1), lambda z: 1j * (1j - 1) * z ** (1j - 2)),
    "2^z": (lambda xp, z: 2.0**z, lambda z: 2**z * np.log(2), lambda z: 2**z * np.log(2) ** 2),
    "(-2)^z": (lambda xp, z: (-2.0) ** z, lambda z: (-2 + 0j) ** z * np.log(-2 + 0j),
               lambda z: (-2 + 0j) ** z * np.log(-2 + 0j) ** 2),
    "tanh": (lambda xp, z: xp.tanh(z), lambda z: 1 / np.cosh(z) ** 2, lambda z: -2 * np.tanh(z) / np.cosh(z) ** 2),
}  # fmt: skip


@pytest.mark.parametrize("name", HOLOMORPHIC)
def test_holomorphic_functions_have_their_complex_derivative(name):
    f, first, second = HOLOMORPHIC[name]
    g = lambda z: f(namespace(z), z)  # noqa: E731
    assert grad(g, holomorphic=True)(Z[0]) == pytest.approx(first(Z[0]), rel=1e-14)
    value, d = value_and_grad(g, holomorphic=True)(complex(Z[0]))
    assert value == g(Z[0]) and d == pytest.approx(first(Z[0]), rel=1e-14)
    twice = grad(grad(g, holomorphic=True), holomorphic=True)
    assert twice(Z[0]) == pytest.approx(second(Z[0]), rel=1e-13)
    assert np.allclose(elementwise_grad(g, holomorphic=True)(Z), first(Z), rtol=1e-14)
    for jac in (jacfwd, jacrev):
        assert np.allclose(jac(g, holomorphic=True)(Z), np.diag(first(Z)), rtol=1e-14, atol=1e-15)
        double = jac(jac(g, holomorphic=True), holomorphic=True)(Z)
        assert np.allclose(np.einsum("iii->i", double), second(Z), rtol=1e-13)
    assert np.allclose(jvp(g, (Z,), (W,))[1], first(Z) * W, rtol=1e-14)
    assert np.allclose(linearize(g, Z)[1](W), first(Z) * W, rtol=1e-14)
    assert np.allclose(vjp(g, Z)[1](W)[0], np.conj(first(Z)) * W, rtol=1e-14)


def test_a_real_leaf_has_a_real_gradient_through_complex_numbers():
    angles = np.array([0.3, -1.2, 2.0])
    t = tensor(angles, requires_grad=True)
    xp = namespace(t)
    phase = xp.exp(t * 1j)
    assert phase.dtype == complex
    xp.sum(xp.real(phase)).backward()
    assert t.grad.dtype == float and np.allclose(t.grad, -np.sin(angles), rtol=1e-15)
    assert np.allclose(grad(lambda t: namespace(t).sum(np_ops.angle(namespace(t).exp(t * 1j))))(angles), 1.0)
    flat = grad(lambda t: namespace(t).sum(namespace(t).abs(namespace(t).exp(t * 1j))))(angles)
    assert np.allclose(flat, 0.0, atol=1e-15)
    both = lambda x: np_ops.complex(x, x * x)  # noqa: E731
    found = jacfwd(both)(angles)
    assert np.allclose(found, np.diag(1 + 2j * angles), rtol=1e-15)
    h = hessian(lambda x: namespace(x).sum(namespace(x).real(both(x) * np.conj(W))))(angles)
    assert h.dtype == float and np.allclose(h, np.diag(2 * W.imag), rtol=1e-14)


def test_abs_and_angle_at_zero_and_infinite_parts():
    z = np.array([0.0, 3.0 + 4.0j])
    assert np.allclose(grad(lambda z: namespace(z).sum(namespace(z).abs(z)))(z), [0, 0.6 + 0.8j])
    assert np.allclose(grad(lambda z: np_ops.angle(z).sum())(z), [0, 1j / np.conj(3 + 4j)])
    made = np_ops.complex(np.array([1.0, np.inf]), np.array([np.inf, -2.0]))
    assert made.real.tolist() == [1.0, np.inf] and made.imag.tolist() == [np.inf, -2.0]
    assert np_ops.complex(np.float32(1), np.zeros(2, np.float32)).dtype == np.complex64
    assert np_ops.complex(1.0, 2.0 * np.ones(())) == 1 + 2j


def test_variances_and_norms_use_the_squared_size():
    t = tensor(Z.copy(), True)
    for got, want in [(t.var(), Z.var()), (t.std(), Z.std()), (np_ops.vector_norm(t), np.linalg.norm(Z))]:
        assert got.dtype == float and got.item() == pytest.approx(want, rel=1e-14)
    (g,) = gradients(np_ops.vector_norm(t), t)
    assert np.allclose(g, Z / np.linalg.norm(Z), rtol=1e-14)


def test_hooks_checkpoints_and_second_backwards_keep_the_convention():
    z, seen = tensor(Z.copy(), True), []
    y = z * W
    register_hook(y, seen.append)
    register_hook(z, lambda g: g * 1j)
    loss = namespace(y).sum(namespace(y).abs(y) ** 2)
    loss.backward()
    assert np.allclose(seen[0], 2 * Z * W) and np.allclose(z.grad, 1j * 2 * Z * abs(W) ** 2)
    cube = lambda z: namespace(z).sum(namespace(z).abs(z * z * z))  # noqa: E731
    assert np.array_equal(grad(lambda z: checkpoint(cube, z))(Z), grad(cube)(Z))
    assert np.allclose(hvp(lambda z: checkpoint(cube, z), (Z,), (W,))[0], hvp(cube, (Z,), (W,))[0])
    z = tensor(Z.copy(), True)
    cube(z).backward(create_graph=True)
    first = z.grad
    z.grad = None
    namespace(first).sum(namespace(first).real(first * np.conj(W))).backward()
    assert np.allclose(z.grad, hvp(cube, (Z,), (W,))[0], rtol=1e-13)
    out = z * z
    out.backward(1j * np.ones(3), retain_graph=True)
    (between,) = gradients(out, z, 1j * np.ones(3))
    assert np.allclose(between, 1j * 2 * np.conj(Z))


# --- what is refused --------------------------------------------------------------------------

REFUSED = {
    "max": lambda xp, z: xp.max(z),
    "clip": lambda xp, z: xp.clip(z, 0.0, 1.0),
    "maximum": lambda xp, z: xp.maximum(z, 0.0),
    "sigmoid": lambda xp, z: np_ops.sigmoid(z),
    "logsumexp": lambda xp, z: np_ops.logsumexp(z),
    "sign": lambda xp, z: xp.sign(z),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_complex_rule_says_so(name):
    f = lambda z: REFUSED[name](namespace(z), z)  # noqa: E731
    with pytest.raises(TypeError, match=f"{name}: got complex128"):
        vjp(f, Z)
    with pytest.raises(TypeError, match=f"{name}: got complex128"):
        jvp(f, (Z,), (W,))


@pytest.mark.parametrize(
    "call, error, said",
    [
        (lambda: grad(lambda z: z * z)(Z[0]), TypeError, "f returned complex128; the scalar must be real"),
        (lambda: grad(lambda x: x * x, holomorphic=True)(2.0), TypeError, "returned float64; the scalar must be com"),
        (lambda: elementwise_grad(lambda z: z * z)(Z), TypeError, "complex numbers; needs real ones"),
        (lambda: jacrev(lambda z: z)(Z), TypeError, "jacrev: an argument is complex128; needs real"),
        (lambda: jacfwd(lambda z: z)(Z), TypeError, "jacfwd: an argument is complex128; needs real"),
        (lambda: jacrev(lambda x: x * 1j)(Z.real), TypeError, "jacrev: f returned complex128; needs real"),
        (lambda: jacrev(lambda x: x, holomorphic=True)(Z.real), TypeError, "needs complex arguments; float64"),
        (lambda: hessian(lambda z: namespace(z).sum(namespace(z).abs(z)))(Z), TypeError, "an argument is complex"),
        (lambda: tensor(Z[:1], True).sum().backward(), ValueError, "complex128 tensor of shape .* needs a grad"),
        (lambda: (tensor(Z, True) * 2.0).backward(np.ones(3)), TypeError, "float64, needed complex128"),
        (lambda: vjp(lambda x: x, 1.0)[1](1j), TypeError, "the complex number 1j, needed float64"),
        (lambda: tensor(Z, True).astype(float), TypeError, "astype: complex128 to .*float.* drop the imaginary"),
        (lambda: custom("c", lambda x: (x, ()), lambda g, *_: (g,))(tensor(Z, True)), TypeError, "c: got complex128"),
        (lambda: gradients(tensor(Z[0], True) * 1.0, tensor(Z[0], True)), ValueError, "needs a cotangent"),
    ],
)  # fmt: skip
def test_refusals(call, error, said):
    with pytest.raises(error, match=said):
        call()
