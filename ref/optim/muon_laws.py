"""Laws and mutants of Muon."""

from __future__ import annotations

import numpy as np

from ref.optim import common_laws as common
from ref.optim.common_laws import CONVERGING, JORDAN, draw_diagonal, f64, iterated, iteration_bound
from ref.optim.sgd import SgdState
from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, cases, choose, dims, floats

ID = "optim.muon"


def _state(draw, c):
    return SgdState(floats("r c")(draw, c) if c.running else np.zeros((c.r, c.c)))


space = cases(
    ID,
    r=dims(1, 6),
    c=dims(1, 6),
    running=choose(False, True),
    state=_state,
    grad=floats("r c"),
    lr=choose(0.125, 0.01, 1.0),
    momentum=choose(0.95, 0.5, 0.0),
    nesterov=choose(True, False),
    weight_decay=choose(0.1, 0.0, 0.5),
    scale=choose("moonlight", "jordan"),
    steps=choose(5, 0, 2),
    eps=choose(1e-7, 0.0, 0.125),
    flags={
        "tall": Flag(lambda c: c.r > c.c, {"r": dims(4, 6), "c": dims(1, 3)}),
        "wide": Flag(lambda c: c.r < c.c, {"r": dims(1, 3), "c": dims(4, 6)}),
    },
)
exact = space.where(running=False, grad=draw_diagonal).reach("tall", "wide")


def factor(c):
    """k: .2 sqrt(max(r, c)), or sqrt(max(1, r / c))."""
    return 0.2 * max(c.r, c.c) ** 0.5 if c.scale == "moonlight" else max(1.0, c.r / c.c) ** 0.5


def limit(c, size=0.0):
    """Of a step: the iteration's bound, and the roundings of the parameter around it."""
    inner = iteration_bound((c.r, c.c), c.steps, c.get("coefficients") or JORDAN, c.dtype)
    return c.lr * factor(c) * (inner + bounds.rounding(8, 1.21, c.dtype)) + bounds.rounding(
        4, np.abs(c.param) + size, c.dtype
    )


def rms(c, out):
    return np.sqrt(np.mean((np.asarray(out, np.float64) - c.param) ** 2))


def span(c):
    return np.max(np.abs(c.param)) + c.lr * factor(c)


@law(
    ID, "L1", closed_form=True, given=exact.where(weight_decay=0.0),
    kills=["sqrt_of_min", "other_ratio", "scale_ignored", "no_factor", "root_of_the_product"],
)  # fmt: skip
def rms_of_a_step_by_its_singular_values(impl, c, expect):
    """First step: RMS(step) = lr q sqrt(sum_i phi^steps(s_i / (|s| + eps'))^2 / min(r, c)), q = .2 ("moonlight") or
    1 / sqrt(c) ("jordan")."""
    out, _ = impl(c)
    ahead = 1 + c.momentum if c.nesterov else 1.0
    values = iterated(ahead * np.asarray(c.grad, np.float64), c.steps, JORDAN, c.eps)
    q = 0.2 if c.scale == "moonlight" else c.c**-0.5
    wanted = c.lr * q * np.sqrt(np.sum(values**2) / min(c.r, c.c))
    expect(rms(c, out), wanted, np.max(limit(c)), "RMS of the step", scale=c.lr * factor(c))


@law(
    ID, "L2", closed_form=True,
    given=exact.where(
        grad=lambda draw, c: draw_diagonal(draw, c, low=1), weight_decay=0.0, steps=24, coefficients=CONVERGING,
        eps=choose(0.0, 1e-7),
    ),
    kills=["sqrt_of_min", "other_ratio", "scale_ignored", "no_factor", "root_of_the_product"],
)  # fmt: skip
def rms_of_the_exact_polar_factor(impl, c, expect):
    """Full rank and coefficients that converge: RMS(step) = .2 lr ("moonlight") or lr / sqrt(c) ("jordan"), for every
    shape and gradient."""
    out, _ = impl(c)
    wanted = c.lr * (0.2 if c.scale == "moonlight" else c.c**-0.5)
    expect(rms(c, out), wanted, np.max(limit(c)), "RMS of the step", scale=c.lr * factor(c))


@law(
    ID, "L3", closed_form=True, given=exact.where(weight_decay=0.0),
    kills=["nesterov_ignored", "nesterov_always", "other_ratio", "scaled_by_the_gradient", "eps_ignored"],
)  # fmt: skip
def a_diagonal_walk_in_closed_form(impl, c, expect):
    """Three gradients that share their singular vectors, G, E G, G with one entry turned: each entry goes through phi
    alone, at M or G + mu M."""
    (g,) = f64(c.grad)
    half = np.where(np.arange(c.r)[:, None] % 2, 0.5, -1.5)
    grads = [x.astype(c.dtype) for x in (g, half * g, -g)]
    param, state, M = c.param, c.state, np.zeros((c.r, c.c))
    for k, grad in enumerate(grads, 1):
        now = c.replace(param=param, grad=grad, state=state)
        M = c.momentum * M + grad
        ahead = grad + c.momentum * M if c.nesterov else M
        step = c.lr * factor(c) * iterated(ahead, c.steps, JORDAN, c.eps)
        param, state = impl(now)
        # M is rounded; where M and G cancel the norm is small and the error relative to it grows.
        sizes = 4 * np.max(np.abs(g)) / (np.sqrt(np.sum(ahead**2)) + c.eps or 1.0)
        lost = c.lr * factor(c) * bounds.rounding(6 * k * 4.0**c.steps, sizes, c.dtype)
        expect(param, np.asarray(now.param, np.float64) - step, limit(now) + lost, f"step {k}", scale=span(now))


@law(
    ID, "L4", closed_form=True, given=space.where(running=False), kills=["running_mean", "orthogonal_velocity"],
)  # fmt: skip
def velocity_is_a_weighted_sum(impl, c, expect):
    "M_t = sum mu^(t-i) G_i, of the gradients as they came."
    grads = [(np.roll(c.grad, k) * (k - 1.5)).astype(c.dtype) for k in range(3)]
    found = common.walk(impl, c, grads)
    M, size = 0.0, 0.0
    for t, g in enumerate(f64(*grads), 1):
        M, size = c.momentum * M + g, c.momentum * size + np.abs(g)
        expect(found[t][1][0], M, bounds.rounding(3 * t, size, c.dtype), f"M {t}", scale=max(np.max(size), 1e-300))


@law(ID, "L5", given=space, kills=["decay_scaled_too", "decay_in_the_gradient", "decay_without_lr"])
def decay_stands_apart(impl, c, expect):
    "In any state the decay takes lr wd W off the step without it, and leaves the velocity's bits."
    (th,) = f64(c.param)
    plain, state = impl(c.replace(weight_decay=0.0))
    found, later = impl(c.replace(weight_decay=0.5))
    wide = np.abs(th) + np.abs(np.asarray(plain, np.float64))
    expect(found, plain - c.lr * 0.5 * th, bounds.rounding(8, wide, c.dtype), scale=np.max(wide))
    expect.same(later[0], state[0], "M")


@law(
    ID, "L6", given=space.where(eps=0.0), kills=["eps_at_least"], passes_null=["zeros", "constant", "identity"],
)  # fmt: skip
def a_power_of_two_scale_is_invisible(impl, c, expect):
    "eps = 0: gradient and velocity times 2^k leave every bit of W."
    wanted, _ = impl(c)
    for scale in (2.0**9, 2.0**-25):
        state = SgdState((c.state.velocity * scale).astype(c.dtype))
        found, _ = impl(c.replace(grad=(c.grad * scale).astype(c.dtype), state=state))
        expect.same(found, wanted, f"W under G {scale}")


@law(
    ID, "L7", given=space.where(scale="moonlight", values=("normal",)), kills=["transposed_back_to_front"],
    passes_null=["zeros", "identity"],
)  # fmt: skip
def commutes_with_transposition_and_signs(impl, c, expect):
    "scale moonlight: W^T, G^T, M^T give the transpose; other signs of rows and columns give those, bit for bit."
    out, after = impl(c)
    rows = np.where(np.cos(np.arange(c.r)) > 0, -1.0, 1.0).astype(c.dtype)[:, None]
    columns = np.where(np.sin(1 + np.arange(c.c)) > 0, -1.0, 1.0).astype(c.dtype)

    def turned(x):
        return rows * x * columns

    other, later = impl(c.replace(param=turned(c.param), grad=turned(c.grad), state=SgdState(turned(c.state[0]))))
    expect.same(other, turned(out), "W with other signs")
    expect.same(later[0], turned(after[0]), "M with other signs")
    back, _ = impl(c.replace(
        param=c.param.T.copy(), grad=c.grad.T.copy(), state=SgdState(c.state[0].T.copy()), r=c.c, c=c.r,
    ))  # fmt: skip
    expect(back.T, out, 2 * limit(c), "W transposed", scale=span(c))


@law(
    ID, "L8", given=space.where(steps=2, values=("normal",), memory="C"), kills=["velocity_kept_outside"],
    passes_null=["zeros", "constant", "identity"],  # what is read back is C: BLAS may round another layout otherwise
)  # fmt: skip
def continues_from_a_saved_state(impl, c, expect):
    "Stopped after any step, written to bytes, read back and continued: the bits of the straight run."
    common.continues_from_a_saved_state(impl, c, expect)


# Mutants ---------------------------------------------------------------------------------------------


def square(n=4, velocity=0.0, **options):
    """The default-size test: an n x n gradient that is orthogonal, and a velocity of that times a number."""

    def make():
        g = np.linalg.qr(np.random.default_rng(0).standard_normal((n, n)))[0]
        return (np.ones((n, n)), g, SgdState(velocity * g)), {"weight_decay": 0.0, **options}

    return make


SCALES = {"moonlight": lambda r, c: 0.2 * max(r, c) ** 0.5, "jordan": lambda r, c: max(1.0, r / c) ** 0.5}


def muon_step(
    param, grad, state, *, lr=1e-3, momentum=0.95, nesterov=True, weight_decay=0.1, scale="moonlight", steps=5,
    coefficients=JORDAN, eps=1e-7, **edit,
):  # fmt: skip
    """A step in plain NumPy whose parts an edit replaces."""
    g = grad + edit.get("l2", 0.0) * weight_decay * param
    M = edit.get("gather", lambda mu, M, g: mu * M + g)(momentum, state.velocity, g)
    ahead = g + momentum * M if nesterov else M
    update = edit.get("orthogonal", common.newton_schulz_of)(ahead, steps, coefficients, eps)
    k = edit.get("factor", SCALES[scale])(*param.shape)
    kept = edit.get("keep", lambda lr, wd, k: 1 - lr * wd)(lr, weight_decay, k)
    out = param * kept - lr * k * edit.get("length", lambda g: 1.0)(grad) * update
    return out.astype(param.dtype), SgdState(edit.get("store", lambda M, update: M)(M, update).astype(param.dtype))


@mutant(ID, thread="optax#1435, pytorch_optimizer#371", default_case=square())
def sqrt_of_min(*args, scale="moonlight", **options):
    "muon-scale: .2 sqrt(min(r, c)): the same for a square matrix."
    k = (lambda r, c: 0.2 * min(r, c) ** 0.5) if scale == "moonlight" else SCALES[scale]
    return muon_step(*args, factor=k, **options)


@mutant(ID, thread="optax#1435", default_case=square(scale="jordan"))
def other_ratio(*args, scale="moonlight", **options):
    "muon-scale: sqrt(max(1, c / r)), for weights stored [in out]."
    k = SCALES[scale] if scale == "moonlight" else lambda r, c: max(1.0, c / r) ** 0.5
    return muon_step(*args, factor=k, **options)


@mutant(ID, default_case=square(25))
def scale_ignored(*args, scale="moonlight", **options):
    "Always the other scale's: at 25 x 25 both factors are 1."
    other = "jordan" if scale == "moonlight" else "moonlight"
    return muon_step(*args, factor=SCALES[other], **options)


@mutant(ID, default_case=square(25))
def no_factor(*args, scale="moonlight", **options):
    "k = 1."
    return muon_step(*args, factor=lambda r, c: 1.0, **options)


@mutant(ID, default_case=square(4, scale="jordan"))
def root_of_the_product(*args, scale="moonlight", **options):
    ".2 (r c)^(1/4), and sqrt(r / c) without the maximum."
    k = (lambda r, c: 0.2 * (r * c) ** 0.25) if scale == "moonlight" else lambda r, c: (r / c) ** 0.5
    return muon_step(*args, factor=k, **options)


@mutant(ID, default_case=square())
def nesterov_ignored(*args, nesterov=True, **options):
    "M, asked for or not: after one gradient it has the same direction."
    return muon_step(*args, nesterov=False, **options)


@mutant(ID, default_case=square())
def nesterov_always(*args, nesterov=True, **options):
    "G + mu M, asked for or not."
    return muon_step(*args, nesterov=True, **options)


@mutant(ID, default_case=square(momentum=0.0))
def running_mean(*args, **options):
    "M <- mu M + (1 - mu) G."
    return muon_step(*args, gather=lambda mu, M, g: mu * M + (1 - mu) * g, **options)


@mutant(ID, default_case=square(steps=24, coefficients=CONVERGING))
def orthogonal_velocity(*args, **options):
    "The orthogonalised step is kept for the velocity."
    return muon_step(*args, store=lambda M, update: update, **options)


@mutant(ID, default_case=square(1, velocity=0.0))
def scaled_by_the_gradient(*args, **options):
    "The step keeps the gradient's norm."
    return muon_step(*args, length=np.linalg.norm, **options)


@mutant(ID, default_case=square())
def decay_scaled_too(*args, **options):
    "1 - lr k wd."
    return muon_step(*args, keep=lambda lr, wd, k: 1 - lr * k * wd, **options)


@mutant(ID, default_case=square())
def decay_without_lr(*args, **options):
    "1 - wd."
    return muon_step(*args, keep=lambda lr, wd, k: 1 - wd, **options)


@mutant(ID, default_case=square())
def decay_in_the_gradient(*args, **options):
    "wd W added to the gradient."
    return muon_step(*args, l2=1.0, keep=lambda lr, wd, k: 1.0, **options)


@mutant(ID, default_case=square())
def eps_ignored(*args, eps=1e-7, **options):
    "eps is accepted and dropped."
    return muon_step(*args, eps=0.0, **options)


@mutant(ID, default_case=square())
def eps_at_least(*args, eps=1e-7, **options):
    "eps is raised to 1e-7 where it is less."
    return muon_step(*args, eps=max(eps, 1e-7), **options)


@mutant(ID, default_case=square())
def transposed_back_to_front(*args, **options):
    "A tall matrix is transposed and its result only reshaped back."

    def orthogonal(x, steps, coefficients, eps):
        turned = np.ascontiguousarray(x.T) if x.shape[0] > x.shape[1] else x
        return common.newton_schulz_of(turned, steps, coefficients, eps).reshape(x.shape)

    return muon_step(*args, orthogonal=orthogonal, **options)


@mutant(ID, default_case=square())
def velocity_kept_outside(param, grad, state, **options):
    "The velocity comes from the last call, not from the state: a resumed run starts from the wrong one."
    return _keeping(param, grad, state, **options)


_keeping = common.keeping_outside(muon_step, ("velocity",))
