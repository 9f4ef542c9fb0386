"""Laws and mutants of sliced score matching."""

from __future__ import annotations

import numpy as np

from ref.diffusion.common_laws import Linear, Net, signs
from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, batch, cases, choose, dims, floats, rng

ID = "diffusion.sliced_score_matching"

space = cases(
    ID,
    B=batch(2, 3, large=40),
    d=dims(1, 4),
    K=dims(1, 3),
    x=floats("*B d"),
    directions=lambda draw, c: rng(draw).integers(-8, 9, (c.K, *c.B, c.d)) / 4.0,
    seed=dims(0, 99),
    score=lambda draw, c: Net(c.d, 5, c.seed),
    reduced=choose(False, True),
    flags={
        "none": Flag(lambda c: 0 in c.B, {"B": (0,)}),
        "many": Flag(lambda c: len(c.directions) > 1, {"K": dims(2, 3)}),
    },
)


def near(c, size, count=1):
    return bounds.rounding(60 * (c.d + 2) * count, size, c.dtype)


def parts(c):
    return c.score.value(c.x), c.score.jacobian(c.x), np.asarray(c.directions, np.float64)


def reach(s, J, v):
    """Sizes of what is added, over the directions."""
    size = np.einsum("k...i,...ij,k...j->k...", np.abs(v), np.abs(J), np.abs(v))
    return np.max(size + np.sum(np.abs(v) * (np.abs(s) + 5), -1) ** 2 + np.sum((np.abs(s) + 5) ** 2, -1), axis=0)


@law(
    ID, "L1", closed_form=True, given=space.reach("none", "many"),
    kills=["projection_not_squared", "square_not_halved", "jacobian_times_direction_alone", "summed_over_directions",
           "never_reduced", "always_reduced"],
)  # fmt: skip
def quadratic_form_of_the_jacobian(impl, c, expect):
    "The mean over K of v^T J v + (v^T s)^2 / 2, or + |s|^2 / 2 where reduced."
    s, J, v = parts(c)
    form = np.einsum("k...i,...ij,k...j->k...", v, J, v)
    along = np.sum(s**2, -1) if c.reduced else np.sum(v * s, -1) ** 2
    expect(impl(c), np.mean(form + along / 2, axis=0), near(c, 9 * reach(s, J, v)), scale=1e9)


@law(
    ID, "L2", closed_form=True, given=space.where(
        directions=lambda draw, c: np.broadcast_to(signs(c.d)[:, *(None,) * len(c.B)], (2**c.d, *c.B, c.d)).copy()),
    kills=["projection_not_squared", "square_not_halved", "summed_over_directions", "directions_normalised"],
)  # fmt: skip
def all_signs_average_to_the_implicit_form(impl, c, expect):
    "Over all 2^d vectors of +-1 both forms average to |s|^2 / 2 + tr J, for a net without symmetry."
    s, J, v = parts(c)
    wanted = np.sum(s**2, -1) / 2 + np.trace(J, axis1=-2, axis2=-1)
    expect(impl(c), wanted, near(c, 9 * reach(s, J, v), 2**c.d), scale=1e9)


@law(
    ID, "L3", closed_form=True, given=space.where(reduced=True, directions=lambda draw, c: np.zeros((c.K, *c.B, c.d))),
    kills=["never_reduced", "square_not_halved"],
)  # fmt: skip
def the_reduced_form_knows_the_norm(impl, c, expect):
    "Directions 0: the reduced form is |s|^2 / 2, the other 0."
    s, J, v = parts(c)
    expect(impl(c), np.sum(s**2, -1) / 2, near(c, 9 * reach(s, J, v)), "reduced", scale=1e9)
    expect.same(impl(c.replace(reduced=False)), np.zeros(c.B), "not reduced")


@law(ID, "L4", closed_form=True, needs=("vjp",), given=space.where(B=(2,), K=2), kills=["slice_detached"])
def gradient_through_the_slice(impl, c, expect):
    "d / dx: of v^T J v by the second derivatives of the net, of the rest J^T s or (v^T s) J^T v."
    found = impl.vjp(c, np.ones(c.B, c.dtype))["x"]
    s, J, v = parts(c)
    wanted = 0.0
    for u in v:
        pulled = s if c.reduced else np.sum(u * s, -1)[..., None] * u
        wanted = wanted + c.score.slope_of_the_form(c.x, u, u) + np.einsum("...i,...ij->...j", pulled, J)
    size = (np.abs(s).max() + 5) * (np.abs(J).sum() + 50) * (1 + np.abs(v).max()) ** 2
    expect(found, wanted / len(v), near(c, 9 * size), scale=1e9)


# Mutants ---------------------------------------------------------------------------------------------


def still(d=2, K=1):
    """The default-size test: a score that is 0."""
    return lambda: ((np.ones((3, d)), np.ones((K, 3, d))), {"score": Linear(np.zeros((d, d)), np.zeros(d))})


def term(x, directions, *, score, reduced=False, **edit):
    s, J = score.value(x), score.jacobian(x)
    found = []
    for v in np.asarray(directions, np.float64):
        v = edit.get("direction", lambda v: v)(v)
        form = edit.get("form", lambda J, v: np.einsum("...i,...ij,...j->...", v, J, v))(J, v)
        along = np.sum(s**2, -1) if edit.get("kind", reduced) else edit.get("power", np.square)(np.sum(v * s, -1))
        found.append(form + along * edit.get("half", 0.5))
    return np.asarray(edit.get("mean", lambda f: sum(f) / len(f))(found), x.dtype)


@mutant(ID, default_case=still())
def projection_not_squared(*args, **options):
    "v^T s / 2."
    return term(*args, power=lambda y: y, **options)


@mutant(ID, default_case=still())
def square_not_halved(*args, **options):
    "(v^T s)^2."
    return term(*args, half=1.0, **options)


@mutant(ID, default_case=still())
def jacobian_times_direction_alone(*args, **options):
    "1^T J v: the sum of the score is differentiated, not v^T s."
    return term(*args, form=lambda J, v: np.einsum("...ij,...j->...", J, v), **options)


@mutant(ID, default_case=still())
def summed_over_directions(*args, **options):
    "No division by K: right for one."
    return term(*args, mean=sum, **options)


@mutant(ID, default_case=still())
def directions_normalised(*args, **options):
    "Unit vectors without sqrt(d): E[v v^T] = I / d."
    return term(*args, direction=lambda v: v / np.maximum(np.sqrt(np.sum(v * v, -1, keepdims=True)), 1e-30), **options)


@mutant(ID, default_case=still())
def never_reduced(*args, **options):
    "The reduced form is ignored."
    return term(*args, kind=False, **options)


@mutant(ID, default_case=still())
def always_reduced(*args, **options):
    "The reduced form always."
    return term(*args, kind=True, **options)


def _detached(g, x, directions, *, score, reduced=False):
    s, J, out = score.value(x), score.jacobian(x), 0.0
    for u in np.asarray(directions, np.float64):
        pulled = s if reduced else np.sum(u * s, -1)[..., None] * u
        out = out + np.einsum("...i,...ij->...j", pulled, J)
    return {"x": np.asarray(g[..., None] * out / len(directions), x.dtype)}


@mutant(ID, default_case=still(), vjp=_detached)
def slice_detached(*args, **options):
    "v^T J v is a constant of the backward pass."
    return term(*args, **options)
