"""Complex numbers: every primitive that takes them, and the convention as a user meets it."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given

import backends
from autodiff import (
    backward,
    checkpoint,
    custom,
    elementwise_grad,
    forward,
    grad,
    gradients,
    hessian,
    hooks,
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
from autodiff.primitive import TABLE, fit
from autodiff.transforms import reverse
from tests.autodiff.laws import moved, richardson
from tests.autodiff.samples import SAMPLES, Draw, draws, examples

SUPPORTED = sorted(name for name, row in TABLE.items() if row.complex)
# Not holomorphic: they look at the real part, the imaginary part or the size.
BROKEN = {"abs", "angle", "conj", "imag", "real", "vecdot"}
each = pytest.mark.parametrize("name", SUPPORTED)
Z = np.array([0.5 + 1.0j, -1.5 + 0.25j, 2.0 - 0.75j])
W = np.array([1.0 - 2.0j, 0.5j, -0.25 + 1.0j])


class ComplexDraw(Draw):
    """Complex values, now and then real ones, clear of the branch cuts along the negative axis."""

    share = 0.8

    def _some(self, x, spread=2.0):
        if self.rng.random() > self.share:
            return x
        return x + 1j * self.rng.uniform(-spread, spread, np.shape(x)).astype(self.dtype)

    def real(self, shape=None):
        return self._some(super().real(shape))

    def positive(self, shape=None):
        return self._some(super().positive(shape))

    def nonzero(self, shape=None):
        return self._some(super().positive(shape), 1.0)


class AllComplex(ComplexDraw):
    share = 1.1


def setting(name, d, kind=ComplexDraw):
    """(f of the floating arguments alone, those arguments, directions, cotangent, the draw)."""
    d = kind(d.shape, d.seed)
    if name == "complex":
        args, params = SAMPLES[name](Draw(d.shape, d.seed))
    else:
        args, params = SAMPLES[name](d)
    if name == "astype":
        params = {"dtype": np.dtype(complex)}
    slots = [i for i, a in enumerate(args) if a.dtype.kind in "fc"]

    def f(*xs):
        full = list(args)
        for i, x in zip(slots, xs, strict=True):
            full[i] = x
        return TABLE[name](*full, **params)

    xs = tuple(args[i] for i in slots)
    out = f(*xs)
    return f, xs, tuple(like(d, x) for x in xs), like(d, out), d


def like(d, x):
    """Values of the shape and kind of x."""
    x = np.asarray(x)
    v = d.rng.uniform(-1, 1, x.shape)
    return v + 1j * d.rng.uniform(-1, 1, x.shape) if x.dtype.kind == "c" else v


def inner(a, b):
    """Re(sum(conj(v) u)), summed over the arguments."""
    assert [np.shape(x) for x in a] == [np.shape(y) for y in b]
    return sum(float(np.real(np.sum(np.conj(x) * y))) for x, y in zip(a, b, strict=True))


def size_of(*parts):
    return 1 + sum(float(np.sum(np.abs(x))) for part in parts for x in part)


def given_draws(law, name, count):
    @examples(count)
    @given(draws(max_dims=2))
    def check(d):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            law(name, d)

    check()


# --- laws of a primitive ----------------------------------------------------------------------


def adjoint(name, d):
    """<v, J u> = <J* v, u> with Re(conj(v) u); each cotangent has the dtype of its argument."""
    f, xs, u, v, _ = setting(name, d)
    out, tangent = jvp(f, xs, u)
    back = vjp(f, *xs)[1](v)
    assert [b.dtype for b in back] == [x.dtype for x in xs] and tangent.dtype == np.asarray(out).dtype
    assert abs(inner((v,), (tangent,)) - inner(back, u)) <= 1e-12 * size_of(back, (tangent,))


def slope(name, d):
    """The pullback is the adjoint of the slope that differences of f show."""
    f, xs, u, v, _ = setting(name, d)
    back = vjp(f, *xs)[1](v)
    change = np.asarray(richardson(f, xs, u))
    assert abs(inner((v,), (change,)) - inner(back, u)) <= 1e-8 * size_of(back, (change,))


def taylor(name, d):
    """|f(z + h u) - f(z) - h J u| falls with h^2."""
    f, xs, u, v, _ = setting(name, d)
    value, tangent = jvp(f, xs, u)

    def rest(h):
        ends = [f(*moved(xs, u, s * h)) - value - s * h * tangent for s in (1, -1)]
        return float(np.max(np.abs(ends), initial=0.0))

    top = 1 + float(np.max(np.abs(value), initial=0.0))
    assert rest(2.0**-12) <= rest(2.0**-8) / 128 + 1e-13 * top


def shortcut_is_derived(name, d):
    f, xs, u, v, _ = setting(name, d)
    row = TABLE[name]
    short = jvp(f, xs, u)[1]
    kind, rule = row.kind, row.jvp
    row.kind = row.jvp = None
    try:
        derived = jvp(f, xs, u)[1]
    finally:
        row.kind, row.jvp = kind, rule
    assert np.allclose(short, derived, rtol=1e-12, atol=1e-12)


def second_order(name, d):
    """The Hessian of a real energy is symmetric, and its three products agree."""
    f, xs, u, v, d = setting(name, d)
    w = tuple(like(d, x) for x in xs)

    def energy(*zs):
        y = f(*zs)
        xp = namespace(y)
        product = xp.multiply(y, v) if v.dtype.kind == "f" else xp.multiply(y, np.conj(v))
        return xp.sum(xp.real(product)) + xp.sum(xp.square(xp.real(y)) + xp.square(xp.imag(y)))

    left, right = hvp(energy, xs, u), hvp(energy, xs, w)
    assert abs(inner(left, w) - inner(right, u)) <= 1e-11 * size_of(left, right)
    for mode in ("reverse_over_reverse", "reverse_over_forward"):
        for a, b in zip(hvp(energy, xs, u, mode=mode), left, strict=True):
            assert np.allclose(a, b, rtol=1e-11, atol=1e-11)


def cauchy_riemann(name, d):
    """J (i u) = i J u, and the pullback is linear over the complex numbers too."""
    f, xs, u, v, d = setting(name, d, AllComplex)
    _, along = jvp(f, xs, u)
    turned = jvp(f, xs, tuple(1j * t for t in u))[1]
    assert np.allclose(turned, 1j * along, rtol=1e-12, atol=1e-12)
    pull = vjp(f, *xs)[1]
    for a, b in zip(pull(1j * v), pull(v), strict=True):
        assert np.allclose(a, 1j * b, rtol=1e-12, atol=1e-12)


def breaks_cauchy_riemann(name, d):
    """J (i u) is not i J u wherever J u is not 0."""
    f, xs, u, _, d = setting(name, d, AllComplex)
    _, along = jvp(f, xs, u)
    turned = jvp(f, xs, tuple(1j * t for t in u))[1]
    nowhere = along.size == 0 or not np.any(np.abs(along) > 1e-6)
    assert nowhere or not np.allclose(turned, 1j * along, rtol=1e-6, atol=1e-9)


def narrow_stays_narrow(name, d):
    """float32 and complex64 stay what they are, forward and backward."""
    f, xs, u, v, _ = setting(name, d)
    small = {"f": np.float32, "c": np.complex64}
    ts = [tensor(x.astype(small[x.dtype.kind]), True) for x in xs]
    out = f(*ts)
    assert out.dtype == small[np.asarray(v).dtype.kind]
    out.backward(v.astype(out.dtype))
    for t in ts:
        assert t.grad.dtype == t.dtype and t.grad.shape == t.shape


def strict_agrees(name, d):
    """array-api-strict computes the same values and gradients."""
    strict = backends.get("strict")
    f, xs, u, v, _ = setting(name, d)
    args, params = SAMPLES[name](Draw(d.shape, d.seed) if name == "complex" else ComplexDraw(d.shape, d.seed))
    over = {k: strict.from_numpy(p) if isinstance(p, np.ndarray) else p for k, p in params.items()}
    if name == "astype":
        over["dtype"] = strict.complex128
    ts = [tensor(strict.from_numpy(a), a.dtype.kind in "fc") for a in args]
    out = TABLE[name](*ts, **over)
    out.backward(strict.from_numpy(v))
    wanted = vjp(f, *xs)[1](v)
    got = [strict.to_numpy(t.grad) for t in ts if t.grad is not None]
    assert len(got) == len(wanted)
    for a, b in zip(got, wanted, strict=True):
        assert np.allclose(a, b, rtol=1e-12, atol=1e-12)


LAWS = (adjoint, slope, taylor, shortcut_is_derived, second_order)


@each
@pytest.mark.parametrize("law", LAWS, ids=lambda f: f.__name__)
def test_complex_primitive(law, name):
    given_draws(law, name, 10)


@pytest.mark.parametrize("name", sorted(set(SUPPORTED) - BROKEN - {"complex"}))
def test_holomorphic_primitive(name):
    given_draws(cauchy_riemann, name, 10)


@pytest.mark.parametrize("name", sorted(BROKEN))
def test_primitive_that_is_not_holomorphic(name):
    given_draws(breaks_cauchy_riemann, name, 10)


@pytest.mark.parametrize("name", sorted(set(SUPPORTED) - {"astype"}))
def test_precision_is_kept(name):
    given_draws(narrow_stays_narrow, name, 10)


# The indices that the standard takes are judged with real numbers.
@pytest.mark.parametrize("name", sorted(set(SUPPORTED) - {"getitem", "scatter_add"}))
def test_strict_agrees(name):
    given_draws(strict_agrees, name, 5)


# --- wrong rules ------------------------------------------------------------------------------


def _rule(name, wrong):
    return lambda m: m.setattr(TABLE[name], "vjp", wrong)


def _linear_vecdot(xp, g, node):
    x, y = node.saved
    g = xp.expand_dims(g, axis=-1)
    return fit(xp, y * g, node.edges[0]), fit(xp, xp.conj(x) * g, node.edges[1])


def _size_for_real(xp, g, node):
    out = []
    for edge, other in zip(node.edges, reversed(node.saved), strict=True):
        part = g * other
        out.append(fit(xp, part if edge.dtype.kind == "c" else xp.abs(part), edge))
    return tuple(out)


def _set(owner, name, value):
    return lambda m: m.setattr(owner, name, value)


# (what is wrong, how, a check that fails on it)
MUTANTS = [
    ("the gradient is JAX's", _set(backward, "turned", lambda g: g), lambda: law_on_draws(adjoint, "multiply")),
    ("abs without a conjugate", _rule("abs", lambda xp, g, n: (g * (n.saved[0] / xp.abs(n.saved[0])),)),
     lambda: law_on_draws(slope, "abs")),
    ("vecdot conjugates one cotangent", _rule("vecdot", _linear_vecdot), lambda: law_on_draws(adjoint, "vecdot")),
    ("conj passes g on", _rule("conj", lambda xp, g, n: (fit(xp, g, n.edges[0]),)),
     lambda: law_on_draws(adjoint, "conj")),
    ("sign of imag", _rule("imag", lambda xp, g, n: (fit(xp, g * 1j, n.edges[0]),)),
     lambda: law_on_draws(slope, "imag")),
    ("sign of the imaginary part", _rule("complex", lambda xp, g, n: (xp.real(g), xp.imag(g))),
     lambda: law_on_draws(slope, "complex")),
    ("abs is taken for diagonal", _set(forward, "_any_complex", lambda values: False),
     lambda: law_on_draws(shortcut_is_derived, "abs")),
    ("J* for J", _set(forward, "turned", lambda g: g), lambda: law_on_draws(adjoint, "prod")),
    ("hooks see JAX's", _set(hooks, "is_complex", lambda node: False),
     lambda: test_hooks_checkpoints_and_second_backwards_keep_the_convention()),
    ("f' conjugated", _set(reverse, "conjugate", lambda tree: tree),
     lambda: test_holomorphic_functions_have_their_complex_derivative("log")),
    ("a real factor gets the size", _rule("multiply", _size_for_real), lambda: law_on_draws(adjoint, "multiply")),
]  # fmt: skip


def law_on_draws(law, name):
    sizes = np.random.default_rng(5)
    for seed in range(40):
        law(name, Draw(sizes.integers(1, 4, sizes.integers(0, 3)), seed))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("breaks, check", [m[1:] for m in MUTANTS], ids=[m[0] for m in MUTANTS])
def test_a_wrong_rule_is_caught(breaks, check, monkeypatch):
    check()
    breaks(monkeypatch)
    with pytest.raises(Exception) as caught:  # noqa: PT011  a law may fail in its own way
        check()
    assert isinstance(caught.value, (AssertionError, TypeError))


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
