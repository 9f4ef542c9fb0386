"""Laws and mutants of affine coupling."""

from __future__ import annotations

import numpy as np

from ref.density.affine_coupling import SHAPES
from ref.density.common_laws import (
    WHOLE,
    cotangent,
    coupled,
    coupling_params,
    direction_of,
    roundings,
)
from ref.spec import law, mutant
from ref.spec.cases import Flag, batch, cases, choose, dims, rng

ID = "density.affine_coupling"
space = cases(
    ID,
    B=batch(2, 3, large=40),
    n=dims(1, 4, large=20),
    H=dims(0, 3, large=20),
    mask=lambda draw, c: rng(draw).random(c.n) < 0.5,
    params=coupling_params,
    inverse=choose(False, True),
    values=("dyadic", "normal"),
    flags={
        "rows": Flag(lambda c: len(c.B) == 2 and min(c.B) > 1 and c.n > 1, {"B": (2, 3), "n": dims(2, 4)}),
        "both": Flag(lambda c: c.mask.any() and not c.mask.all() and c.H > 0 and 0 not in c.B,
                     {"n": dims(2, 4), "H": dims(1, 3), "B": (2,), "mask": lambda draw, c: np.arange(c.n) % 2 == 0}),
        "back": Flag(lambda c: c.inverse, {"inverse": True}),
    },
)  # fmt: skip
both = space.where(both=True)


def wide(c, kind=np.float64):
    return {n: a.astype(kind) for n, a in c.params.items()}


def bound(c):
    """Twice what the plain form loses at this precision, and the roundings of its sums, enlarged by exp(s)."""
    kinds = (np.float64, np.longdouble) if c.dtype == np.float64 else (np.float32, np.float64)
    at = [coupled(c.x.astype(k), wide(c, k), c.mask, c.inverse) for k in kinds]
    lost = max(float(np.max(np.abs(a.astype(kinds[1]) - b), initial=0)) for a, b in zip(*at, strict=True))
    p = wide(c)
    s = np.abs(p["scale.weight"]).sum(-1) + np.abs(p["scale.bias"])
    t = np.abs(p["shift.weight"]).sum(-1) + np.abs(p["shift.bias"])
    size = (1 + s) * (np.exp(s) * (np.max(np.abs(c.x), initial=0) + t) + t)
    return 4 * lost + roundings(c, 4 * (c.n + c.H) + 40, float(np.max(size)) + s.sum())


def scale(c):
    return 1 + float(np.max(np.abs(coupled(c.x.astype(np.float64), wide(c), c.mask, c.inverse)[0]), initial=0)) + c.n


@law(
    ID, "L1", closed_form=True, given=space.reach("rows", "back"),
    kills=["mask_turned_round", "log_det_of_all_coordinates", "log_det_is_a_mean", "shift_before_scale",
           "inverse_log_det_not_negated"],
)  # fmt: skip
def silent_networks_scale_and_shift(impl, c, expect):
    """V = 0: y_j = x_j e^{c_s} + c_t where the mask is False (back: (x_j - c_t) e^{-c_s}), and log det is +- the sum of
    c_s there."""
    c = c.replace(params={n: np.zeros_like(a) if n.endswith("weight") else a for n, a in c.params.items()})
    p, x = wide(c), np.asarray(c.x, np.float64)
    s, t = (np.where(c.mask, 0, p[f"{n}.bias"]) for n in ("scale", "shift"))
    wanted = (x - t) * np.exp(-s) if c.inverse else x * np.exp(s) + t
    y, log_det = impl(c)
    expect(y, wanted, bound(c), "y", scale=scale(c))
    expect(log_det, np.full(c.B, -s.sum() if c.inverse else s.sum()), bound(c), "log det", scale=scale(c))


@law(
    ID, "L2", closed_form=True, given=both.reach("back"),
    kills=["shift_before_scale", "networks_read_everything", "inverse_log_det_not_negated"],
)  # fmt: skip
def there_and_back(impl, c, expect):
    "The inverse of y is x, and the two log determinants add up to 0."
    y, log_det = impl(c)
    back = c.replace(x=np.asarray(y), inverse=not c.inverse)
    x, other = impl(back)
    p = wide(c)
    gain = 1 + np.exp(np.max(np.abs(p["scale.weight"]).sum(-1) + np.abs(p["scale.bias"])))
    limit = 4 * gain * (bound(c) + bound(back))
    expect(x, np.asarray(c.x, np.float64), limit, "x again", scale=scale(c) + scale(back))
    expect(np.asarray(other, np.float64) + log_det, np.zeros(c.B), limit, "sum of log dets", scale=scale(c))


@law(
    ID, "L3", closed_form=True, needs=("vjp",), dtypes=WHOLE, given=both.reach("back"),
    kills=["log_det_of_all_coordinates"],
)  # fmt: skip
def log_det_of_the_jacobian(impl, c, expect):
    "log |det J| with J of cotangents, a row each: triangular in the order (passing, changed), diagonal e^s."
    y, log_det = impl(c)
    x = c.x.reshape(-1, c.n)[:1]
    one = c.replace(x=x, B=(1,))
    J = np.zeros((c.n, c.n))
    for j in range(c.n):
        g = np.zeros((1, c.n))
        g[0, j] = 1
        J[j] = impl.vjp(one, (g, np.zeros(1)))["x"][0]
    sign, wanted = np.linalg.slogdet(J)
    expect.same(sign, 1.0, "sign of the determinant")
    inverse = np.linalg.inv(J)
    limit = 64 * c.n * np.sum(np.abs(inverse)) * bound(c)
    expect(np.asarray(log_det).reshape(-1)[0], wanted, limit, "log det", scale=scale(c))
    kept = np.flatnonzero(c.mask)
    expect.same(J[kept], np.eye(c.n)[kept], "rows of what passes")
    changed = np.flatnonzero(~c.mask)
    off = J[np.ix_(changed, changed)] - np.diag(np.diag(J)[changed])
    expect.same(off, np.zeros_like(off), "changed coordinates in one another")


@law(
    ID, "L4", given=both, kills=["mask_turned_round"], passes_null=["identity"],
)  # fmt: skip
def what_passes_keeps_its_bits(impl, c, expect):
    "y = x, to the bit, where the mask is True; all of x where it is True throughout, with log det 0."
    expect.same(impl(c)[0][..., c.mask], c.x[..., c.mask], "what passes")
    y, log_det = impl(c.replace(mask=np.ones(c.n, bool)))
    expect.same(y, c.x, "y with everything passing")


@law(
    ID, "L5", closed_form=True, given=space.reach("rows", "both", "back"),
    kills=["mask_turned_round", "networks_read_everything", "log_det_of_all_coordinates", "linear_hidden_units",
           "shift_before_scale", "log_det_is_a_mean", "scale_without_the_exponential"],
)  # fmt: skip
def equations_written_out(impl, c, expect):
    "The equations in the header, in extended precision."
    k = np.longdouble
    wanted = coupled(c.x.astype(k), wide(c, k), c.mask, c.inverse)
    for found, w, what in zip(impl(c), wanted, ("y", "log det"), strict=True):
        expect(found, w.astype(np.float64), bound(c), what, scale=scale(c))


@law(
    ID, "L6", needs=("vjp",), dtypes=WHOLE, given=both.reach("back"),
    kills=["slope_of_the_scale_forgotten", "log_det_has_no_gradient"],
)  # fmt: skip
def gradient_is_the_slope(impl, c, expect):
    "<gradient, u> of <g, y> + <h, log det> is the complex-step slope of the equations along u."
    g = (cotangent(c, c.x.shape), cotangent(c, c.B))
    found, p, x = impl.vjp(c, g), wide(c), np.asarray(c.x, np.float64)
    for name in ("x", *SHAPES):
        at = x if name == "x" else p[name]
        u = direction_of(at)
        moved = p if name == "x" else {**p, name: at + 1e-30j * u}
        out = coupled(x + 1e-30j * u if name == "x" else x, moved, c.mask, c.inverse)
        terms = [np.sum(w * o.imag) / 1e-30 for w, o in zip(g, out, strict=True)]
        got = found["x"] if name == "x" else found["params"][name]
        size = 1 + np.abs(u).sum() * c.x.size
        expect(np.vdot(got, u), sum(terms), 64 * size * bound(c) * (1 + np.abs(terms).sum()), f"slope along {name}",
               scale=size)  # fmt: skip


# Mutants ---------------------------------------------------------------------------------------------


def default(n=2, inverse=False, **given):
    """The default-size test: a fresh layer, whose two networks are zero."""

    def make():
        g, sizes = np.random.default_rng(0), {"n": n, "H": 3}
        params = {name: g.standard_normal([sizes[a] for a in axes.split()]) for name, axes in SHAPES.items()}
        params |= {n: np.zeros_like(a) for n, a in params.items() if n.startswith(("scale", "shift"))}
        return (g.standard_normal((4, n)), params, np.arange(n) % 2 == 0), {"inverse": inverse}

    return make


def made(x, params, mask, inverse, **edit):
    return tuple(a.astype(x.dtype) for a in coupled(x, params, mask, inverse, **edit))


@mutant(ID, default_case=default())
def mask_turned_round(x, params, mask, *, inverse=False):
    "True is changed."
    return made(x, params, ~mask, inverse)


@mutant(ID, default_case=default())
def networks_read_everything(x, params, mask, *, inverse=False):
    "The networks read x, not b * x: no longer invertible by this formula."
    return made(x, params, mask, inverse, read=lambda mask, x: x)


def _all_counted(x, p, mask, inverse, *held):
    return coupled(x, p, mask, inverse, counted=lambda s, mask: s)


@mutant(ID, default_case=default(), vjp=lambda *args, **options: _pulled(_all_counted)(*args, **options))
def log_det_of_all_coordinates(x, params, mask, *, inverse=False):
    "s is summed before it is masked."
    return made(x, params, mask, inverse, counted=lambda s, mask: s)


@mutant(ID, default_case=default())
def log_det_is_a_mean(x, params, mask, *, inverse=False):
    "The mean of s."
    return made(x, params, mask, inverse, counted=lambda s, mask: np.where(mask, 0, s) / s.shape[-1])


@mutant(ID, default_case=default())
def shift_before_scale(x, params, mask, *, inverse=False):
    "Back by x e^{-s} - t: the steps undone in the wrong order."
    return made(x, params, mask, inverse, back=lambda x, s, t: x * np.exp(-s) - t)


@mutant(ID, default_case=default(inverse=True))
def inverse_log_det_not_negated(x, params, mask, *, inverse=False):
    "sum s also on the way back."
    y, log_det = made(x, params, mask, inverse)
    return y, -log_det if inverse else log_det


@mutant(ID, default_case=default())
def scale_without_the_exponential(x, params, mask, *, inverse=False):
    "x (1 + s) for x e^s: the same to first order."
    return made(x, params, mask, inverse, there=lambda x, s, t: x * (1 + s) + t)


@mutant(ID, default_case=default())
def linear_hidden_units(x, params, mask, *, inverse=False):
    "No tanh."
    return made(x, params, mask, inverse, act=lambda a: a)


def _pulled(moved):
    """The vjp of a wrong function, a direction at a time by complex steps."""

    def vjp(g, x, params, mask, *, inverse=False):
        out = {"x": np.zeros(x.shape), "params": {n: np.zeros(a.shape) for n, a in params.items()}}
        for name, a in (("x", x), *params.items()):
            slot = out["x"] if name == "x" else out["params"][name]
            for at in np.ndindex(a.shape):
                u = np.zeros(a.shape, complex)
                u[at] = 1e-30j
                here = (x + u, params) if name == "x" else (x, {**params, name: a + u})
                y, d = moved(*here, mask, inverse, x, params)
                slot[at] = float((g[0] * y.imag).sum() + (g[1] * d.imag).sum()) / 1e-30
        return out

    return vjp


def _vjp_mutant(name, doc, moved):
    def function(x, params, mask, *, inverse=False):
        return made(x, params, mask, inverse)

    function.__name__, function.__doc__ = name, doc
    mutant(ID, vjp=_pulled(moved), default_case=default())(function)


def _scale_held(x, p, mask, inverse, x0, p0):
    held = coupled(x0, p0, mask, inverse, give_scale=True)
    return coupled(x, p, mask, inverse, scale_is=held)


def _no_log_det(x, p, mask, inverse, x0, p0):
    y, d = coupled(x, p, mask, inverse)
    return y, 0 * d


_vjp_mutant("slope_of_the_scale_forgotten", "e^s is a constant in the backward.", _scale_held)
_vjp_mutant("log_det_has_no_gradient", "The determinant is reported and not trained.", _no_log_det)
