"""Laws and mutants of the affine flow."""

from __future__ import annotations

import math

import numpy as np

from ref.density.common_laws import WHOLE, cotangent, coupled, coupling_params, direction_of, roundings
from ref.spec import law, mutant
from ref.spec.cases import Flag, batch, cases, dims

ID = "density.affine_flow"
NORMAL = math.log(2 * math.pi) / 2
space = cases(
    ID,
    B=batch(2, 3, large=40),
    n=dims(1, 4, large=12),
    H=dims(0, 3, large=12),
    L=dims(0, 3),
    layers=lambda draw, c: tuple(coupling_params(draw, c) for _ in range(c.L)),
    values=("dyadic", "normal"),
    flags={
        "rows": Flag(lambda c: len(c.B) == 2 and min(c.B) > 1 and c.n > 1 and c.L > 1,
                     {"B": (2, 3), "n": dims(2, 4), "L": dims(2, 3)}),
        "deep": Flag(lambda c: c.L > 1 and c.H > 0 and c.n > 1 and 0 not in c.B,
                     {"L": dims(2, 3), "H": dims(1, 3), "n": dims(2, 4), "B": (2,)}),
    },
)  # fmt: skip
deep = space.where(deep=True)


def wide(c, kind=np.float64):
    return [{n: a.astype(kind) for n, a in layer.items()} for layer in c.layers]


def flowed(x, layers, *, mask=lambda j, level: (j - level) % 2 == 0, sign=1, total=sum, normal=NORMAL, every=False,
           base=lambda z: -(z * z) / 2):  # fmt: skip
    """(log p, z), with parts that an edit replaces."""
    n, dets, z = x.shape[-1], [0 * x[..., :0].sum(-1)], x
    for level, p in enumerate(layers):
        keep = {"counted": lambda s, mask: s} if every else {}
        z, log_det = coupled(z, p, mask(np.arange(n), level), **keep)
        dets.append(log_det)
    return (base(z) - normal).sum(-1) + sign * total(dets), z


def bound(c):
    """Twice what the plain form loses at this precision, and roundings of each layer enlarged by those after it."""
    kinds = (np.float64, np.longdouble) if c.dtype == np.float64 else (np.float32, np.float64)
    at = [flowed(c.x.astype(k), wide(c, k)) for k in kinds]
    lost = max(float(np.max(np.abs(a.astype(kinds[1]) - b), initial=0)) for a, b in zip(*at, strict=True))
    gain, top = 1.0, 1 + float(np.max(np.abs(c.x), initial=0))
    for p in wide(c):
        s = np.abs(p["scale.weight"]).sum(-1) + np.abs(p["scale.bias"])
        t = np.abs(p["shift.weight"]).sum(-1) + np.abs(p["shift.bias"])
        grow = float(np.max((1 + s) * np.exp(s))) + float(np.max(t))
        gain, top = gain * grow, top * grow
    size = gain + float(np.max(np.abs(at[1][1]), initial=0)) ** 2 + float(np.max(np.abs(at[1][0]), initial=0)) + top
    return 4 * lost + roundings(c, 4 * (c.n + c.H) * (c.L + 1) + 40, size)


def scale(c):
    log_prob, z = flowed(c.x.astype(np.float64), wide(c))
    return 1 + c.n + float(np.max(np.abs(log_prob), initial=0)) + float(np.max(np.abs(z), initial=0))


@law(ID, "L1", closed_form=True, given=space.where(L=0), kills=["normaliser_of_one_coordinate", "variance_two"])
def no_layers_is_the_standard_normal(impl, c, expect):
    "No layers: z = x and log p = -|x|^2 / 2 - n log(2 pi) / 2."
    log_prob, z = impl(c)
    x = np.asarray(c.x, np.float64)
    wanted = -(x * x).sum(-1) / 2 - c.n * NORMAL
    expect(log_prob, wanted, roundings(c, c.n + 8, (x * x).sum(-1) + c.n), "log p")
    expect.same(z, c.x, "z")


@law(
    ID, "L2", closed_form=True, given=space.reach("rows"),
    kills=["log_det_subtracted", "masks_do_not_alternate", "last_log_det_alone", "normaliser_of_one_coordinate"],
)  # fmt: skip
def silent_networks_are_a_gaussian(impl, c, expect):
    """All weights 0: z_j = a_j x_j + b_j, composed over the layers that change j: x_j has mean -b_j / a_j and standard
    deviation 1 / a_j."""
    quiet = tuple({n: np.zeros_like(a) if n.endswith("weight") else a for n, a in p.items()} for p in c.layers)
    c = c.replace(layers=quiet)
    x, wanted = np.asarray(c.x, np.float64), np.zeros(c.B)
    for j in range(c.n):
        a, b = 1.0, 0.0
        for level, p in enumerate(wide(c)):
            if (j - level) % 2:
                s = math.exp(p["scale.bias"][j])
                a, b = a * s, b * s + p["shift.bias"][j]
        mean, std = -b / a, 1 / a
        wanted = wanted - ((x[..., j] - mean) / std) ** 2 / 2 - math.log(std) - NORMAL
    expect(impl(c)[0], wanted, bound(c), "log p", scale=scale(c))


SIDE = np.arange(-48, 49) / 4.0


@law(
    ID, "L3", closed_form=True, dtypes=WHOLE, given=space.where(n=2, L=dims(1, 3), H=dims(1, 2)),
    kills=["log_det_subtracted", "variance_two", "last_log_det_alone", "log_det_of_all_coordinates"],
)  # fmt: skip
def it_integrates_to_one(impl, c, expect):
    """n = 2, scales between e^-1/2 and e^1/2: the trapezoid rule over a square of side 24 in steps of 1/4, which is
    exact to 1e-8 for densities as smooth and as narrow as these."""
    layers = tuple({n: a / 8 if n.startswith("scale") else a / 8 if n.startswith("shift") else a for n, a in p.items()}
                   for p in c.layers)  # fmt: skip
    x = np.stack(np.meshgrid(SIDE, SIDE), -1).reshape(-1, 2)
    p = np.exp(impl(c.replace(x=x, layers=layers, B=(len(x),)))[0])
    expect(p.sum() / 16, 1.0, 1e-8, "integral over the plane")


@law(
    ID, "L4", closed_form=True, needs=("vjp",), dtypes=WHOLE, given=deep,
    kills=["log_det_of_all_coordinates"],
)  # fmt: skip
def log_det_of_the_jacobian(impl, c, expect):
    "log p(x) - log N(z) = log |det dz / dx|, with the Jacobian a cotangent at a time."
    one = c.replace(x=c.x.reshape(-1, c.n)[:1], B=(1,))
    log_prob, z = impl(one)
    J = np.zeros((c.n, c.n))
    for j in range(c.n):
        g = np.zeros((1, c.n))
        g[0, j] = 1
        J[j] = impl.vjp(one, (np.zeros(1), g))["x"][0]
    sign, wanted = np.linalg.slogdet(J)
    expect.same(sign, 1.0, "sign of the determinant")
    found = log_prob[0] + (z[0] ** 2).sum() / 2 + c.n * NORMAL
    limit = 64 * c.n * np.sum(np.abs(np.linalg.inv(J))) * bound(one)
    expect(np.asarray(found), np.asarray(wanted), limit, "log det", scale=scale(one))


@law(
    ID, "L5", closed_form=True, given=space.reach("rows", "deep"),
    kills=["masks_do_not_alternate", "log_det_subtracted", "last_log_det_alone", "log_det_of_all_coordinates",
           "layers_in_reverse", "first_layer_changes_even_coordinates"],
)  # fmt: skip
def layers_one_after_another(impl, c, expect):
    "The equations in the header, layer by layer, in extended precision."
    wanted = flowed(c.x.astype(np.longdouble), wide(c, np.longdouble))
    for found, w, what in zip(impl(c), wanted, ("log p", "z"), strict=True):
        expect(found, w.astype(np.float64), bound(c), what, scale=scale(c))


@law(ID, "L6", needs=("vjp",), dtypes=WHOLE, given=deep, kills=["log_det_has_no_gradient"])
def gradient_is_the_slope(impl, c, expect):
    "<gradient of log p, u> is the complex-step slope of the equations along u: along x, and along every parameter."
    g = cotangent(c, c.B)
    found, layers, x = impl.vjp(c, (g, np.zeros(c.x.shape))), wide(c), np.asarray(c.x, np.float64)
    places = [("x", None)] + [(name, level) for level in range(c.L) for name in layers[level]]
    for name, level in places:
        at = x if level is None else layers[level][name]
        u = direction_of(at)
        moved = [dict(p) for p in layers]
        if level is not None:
            moved[level][name] = at + 1e-30j * u
        terms = g * flowed(x + 1e-30j * u if level is None else x, moved)[0].imag / 1e-30
        got = found["x"] if level is None else found["layers"][level][name]
        size = (1 + np.abs(u).sum()) * c.x.size * scale(c)
        limit = 64 * size * bound(c) * (1 + np.abs(terms).sum())
        expect(np.vdot(got, u), terms.sum(), limit, f"slope along {name} {level}", scale=size)


# Mutants ---------------------------------------------------------------------------------------------


def default(n=2, L=2, same=False):
    """The default-size test: fresh layers, whose networks are zero."""

    def make():
        g, layers = np.random.default_rng(0), []
        for _ in range(L):
            p = {"hidden.weight": g.standard_normal((3, n)), "hidden.bias": g.standard_normal(3)}
            p |= {f"{k}.{w}": np.zeros((n, 3) if w == "weight" else n) for k in ("scale", "shift")
                  for w in ("weight", "bias")}  # fmt: skip
            layers.append(p)
        return (g.standard_normal((4, n)), tuple(layers)), {}

    return make


def made(x, layers, **edit):
    return tuple(a.astype(x.dtype) for a in flowed(x, layers, **edit))


@mutant(ID, default_case=default())
def log_det_subtracted(x, layers):
    "log N(z) - log |det|: right for the inverse maps."
    return made(x, layers, sign=-1)


@mutant(ID, default_case=default())
def masks_do_not_alternate(x, layers):
    "Every layer passes the even coordinates: they keep the marginals of the base."
    return made(x, layers, mask=lambda j, level: j % 2 == 0)


@mutant(ID, default_case=default())
def first_layer_changes_even_coordinates(x, layers):
    "The parity is one layer late."
    return made(x, layers, mask=lambda j, level: (j - level) % 2 == 1)


@mutant(ID, default_case=default(L=1))
def last_log_det_alone(x, layers):
    "The sum overwritten at each layer."
    return made(x, layers, total=lambda dets: dets[-1])


@mutant(ID, default_case=default(n=1))
def normaliser_of_one_coordinate(x, layers):
    "log(2 pi) / 2 once, not n times."
    return made(x, layers, normal=NORMAL / x.shape[-1])


@mutant(ID, default_case=lambda: ((np.zeros((3, 2)), ()), {}))
def variance_two(x, layers):
    "e^{-z^2} with the normaliser of e^{-z^2 / 2}."
    return made(x, layers, base=lambda z: -(z * z))


@mutant(ID, default_case=default(L=1))
def layers_in_reverse(x, layers):
    "The last layer first."
    n, dets, z = x.shape[-1], 0, x
    for level, p in reversed(list(enumerate(layers))):
        z, log_det = coupled(z, p, (np.arange(n) - level) % 2 == 0)
        dets = dets + log_det
    return ((-z * z / 2 - NORMAL).sum(-1) + dets).astype(x.dtype), (z + 0).astype(x.dtype)


def _pulled(moved):
    """The vjp of a wrong function, a direction at a time by complex steps."""

    def vjp(g, x, layers):
        out = {"x": np.zeros(x.shape), "layers": tuple({n: np.zeros(a.shape) for n, a in p.items()} for p in layers)}
        places = [(x, out["x"], None, None)]
        places += [(a, out["layers"][k][n], k, n) for k, p in enumerate(layers) for n, a in p.items()]
        for a, slot, k, n in places:
            for at in np.ndindex(a.shape):
                u = np.zeros(a.shape, complex)
                u[at] = 1e-30j
                there = [dict(p) for p in layers]
                if k is not None:
                    there[k][n] = a + u
                log_prob, z = moved(a + u if k is None else x, there, x, layers)
                slot[at] = float((g[0] * log_prob.imag).sum() + (g[1] * z.imag).sum()) / 1e-30
        return out

    return vjp


@mutant(ID, default_case=default(), vjp=_pulled(lambda x, p, *held: flowed(x, p, every=True)))
def log_det_of_all_coordinates(x, layers):
    "s is summed before it is masked."
    return made(x, layers, every=True)


def _no_log_det(x, layers, x0, layers0):
    return flowed(x, layers, total=lambda dets: 0 * dets[-1])


@mutant(ID, default_case=default(), vjp=_pulled(_no_log_det))
def log_det_has_no_gradient(x, layers):
    "The determinants are reported and not trained."
    return made(x, layers)
