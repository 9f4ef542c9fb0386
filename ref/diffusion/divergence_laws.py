"""Laws and mutants of the divergence."""

from __future__ import annotations

import numpy as np

from ref.diffusion.common_laws import Linear, Net, signs
from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, batch, cases, dims, rng

ID = "diffusion.divergence"


def probes(draw, c):
    """None, or K vectors a sample."""
    return None if c.K == 0 else rng(draw).integers(-8, 9, (c.K, *c.B, c.d)) / 4.0


space = cases(
    ID,
    B=batch(2, 3, large=40),
    d=dims(1, 4),
    K=dims(0, 3),
    probes=probes,
    seed=dims(0, 99),
    field=lambda draw, c: Net(c.d, 5, c.seed),
    flags={
        "exact": Flag(lambda c: c.probes is None, {"K": 0}),
        "probed": Flag(lambda c: c.probes is not None and len(c.probes) > 1, {"K": dims(2, 3)}),
        "none": Flag(lambda c: 0 in c.B, {"B": (0,)}),
        "batch": Flag(lambda c: np.prod(c.B, dtype=int) > 1, {"B": (3,)}),
    },
    unset={"probes": {"K": 0, "probes": None}},
)


def near(c, size, n=60):
    return bounds.rounding(n, size, c.dtype)


def size(J):
    return np.sum(np.abs(J), axis=(-2, -1)) + 1


@law(
    ID,
    "L1",
    closed_form=True,
    given=space.where(
        field=lambda draw, c: Linear(rng(draw).integers(-8, 9, (c.d, c.d)) / 4, rng(draw).integers(-4, 5, c.d)), K=0
    ),
    kills=["sum_of_the_jacobian", "sign_of_the_reverse", "value_of_the_divergence_point", "first_entry_alone"],
)
def linear_field(impl, c, expect):
    "f = -L (x - m): the value is that, the divergence -tr L at every x."
    value, div = impl(c)
    f = c.field
    reach = np.abs(np.asarray(c.x, np.float64)) + np.abs(f.m)
    expect(value, f.value(c.x), near(c, reach @ np.abs(f.L.T) + 1), "value", scale=9.0)
    expect(div, np.full(c.B, -np.trace(f.L)), near(c, np.abs(f.L).sum() + 1), "divergence", scale=9.0)


@law(
    ID, "L2", closed_form=True, given=space.where(K=0).reach("none", "batch"),
    kills=["sum_of_the_jacobian", "sign_of_the_reverse", "first_entry_alone", "batch_mixed", "frozen_at_zero"],
)  # fmt: skip
def exact_for_a_nonlinear_field(impl, c, expect):
    "f = V tanh(W x): sum_k (1 - tanh^2) (W V)_kk, by the Jacobian."
    value, div = impl(c)
    J = c.field.jacobian(c.x)
    expect(value, c.field.value(c.x), near(c, 9.0), "value", scale=9.0)
    expect(div, np.trace(J, axis1=-2, axis2=-1), near(c, size(J) * 9), "divergence", scale=9.0)


@law(
    ID,
    "L3",
    closed_form=True,
    given=space.where(
        probes=lambda draw, c: np.broadcast_to(signs(c.d)[:, *(None,) * len(c.B)], (2**c.d, *c.B, c.d)).copy()
    ),
    kills=["probes_not_averaged", "jacobian_times_probe_alone", "sign_of_the_reverse"],
)
def all_signs_average_to_the_trace(impl, c, expect):
    "Over all 2^d vectors of +-1 the mean of v^T J v is tr J."
    _, div = impl(c)
    J = c.field.jacobian(c.x)
    expect(div, np.trace(J, axis1=-2, axis2=-1), near(c, size(J) * 2**c.d * 9), "divergence", scale=9.0)


@law(
    ID, "L4", closed_form=True, given=space.where(K=dims(1, 3)).reach("probed"),
    kills=["jacobian_times_probe_alone", "exact_whatever_the_probes", "probes_not_averaged"],
)  # fmt: skip
def probes_are_quadratic_forms(impl, c, expect):
    "The mean over K of v^T J v, each sample with its own probes."
    _, div = impl(c)
    J, v = c.field.jacobian(c.x), np.asarray(c.probes, np.float64)
    wanted = np.einsum("k...i,...ij,k...j->...", v, J, v) / len(v)
    reach = np.einsum("k...i,...ij,k...j->...", np.abs(v), np.abs(J), np.abs(v)) + 1
    expect(div, wanted, near(c, reach * 9), "v^T J v", scale=9.0)


@law(
    ID, "L5", closed_form=True, needs=("vjp",), given=space.where(B=(2,), K=0), kills=["not_differentiable_twice"],
)  # fmt: skip
def gradient_of_the_divergence(impl, c, expect):
    "The cotangents (0, 1) and (1, 0) pull back to d tr J / dx and to J^T 1: a second backward through the first."
    one, zero = np.ones(c.B, c.dtype), np.zeros((*c.B, c.d), c.dtype)
    of_div = impl.vjp(c, (zero, one))["x"]
    of_value = impl.vjp(c, (zero + 1, 0 * one))["x"]
    J = c.field.jacobian(c.x)
    expect(of_div, c.field.slope_of_the_trace(c.x), near(c, 4.0 * 5 * 4 * 9), "of the divergence", scale=99.0)
    expect(of_value, np.sum(J, axis=-2), near(c, size(J)[..., None] * 9), "of the value", scale=99.0)


# Mutants ---------------------------------------------------------------------------------------------


def still(d=2):
    """The default-size test: a field that is 0."""
    return lambda: ((np.ones((2, d)),), {"field": Linear(np.zeros((d, d)), np.zeros(d))})


def by_jacobian(x, probes=None, *, field, **edit):
    """Value and trace from the field's own Jacobian, whose parts an edit replaces."""
    J = edit.get("at", lambda field, x: field.jacobian(x))(field, x)
    if probes is None or edit.get("exact"):
        div = edit.get("trace", lambda J: np.trace(J, axis1=-2, axis2=-1))(J)
    else:
        forms = [edit.get("form", lambda J, v: np.einsum("...i,...ij,...j->...", v, J, v))(J, v) for v in probes]
        div = edit.get("mean", lambda f: sum(f) / len(f))(forms)
    return np.asarray(field.value(x), x.dtype), np.asarray(edit.get("sign", 1) * div, x.dtype) + np.zeros(
        x.shape[:-1], x.dtype
    )


@mutant(ID, default_case=still())
def sum_of_the_jacobian(*args, **options):
    "The gradient of the sum of all outputs, summed: right for a diagonal Jacobian."
    return by_jacobian(*args, trace=lambda J: J.sum((-2, -1)), **options)


@mutant(ID, default_case=still())
def sign_of_the_reverse(*args, **options):
    "-div f."
    return by_jacobian(*args, sign=-1, **options)


@mutant(ID, default_case=still())
def value_of_the_divergence_point(x, probes=None, *, field):
    "The value at 2 x: what remains of a second evaluation."
    return np.asarray(field.value(2 * x), x.dtype), by_jacobian(x, probes, field=field)[1]


@mutant(ID, default_case=still())
def first_entry_alone(*args, **options):
    "d times the first diagonal entry."
    return by_jacobian(*args, trace=lambda J: J.shape[-1] * J[..., 0, 0], **options)


@mutant(ID, default_case=still())
def batch_mixed(*args, **options):
    "The batch's mean divergence in every place."

    def trace(J):
        found = np.trace(J, axis1=-2, axis2=-1)
        return np.full(found.shape, found.mean() if found.size else 0.0)

    return by_jacobian(*args, trace=trace, **options)


@mutant(ID, default_case=still())
def frozen_at_zero(*args, **options):
    "The Jacobian at x = 0."
    return by_jacobian(*args, at=lambda field, x: field.jacobian(0 * x), **options)


@mutant(ID, default_case=still())
def probes_not_averaged(*args, **options):
    "The sum over probes: right for one."
    return by_jacobian(*args, mean=sum, **options)


@mutant(ID, default_case=still())
def jacobian_times_probe_alone(*args, **options):
    "1^T J v: the first cotangent is forgotten."
    return by_jacobian(*args, form=lambda J, v: np.einsum("...ij,...j->...", J, v), **options)


@mutant(ID, default_case=still())
def exact_whatever_the_probes(*args, **options):
    "The trace, probes ignored."
    return by_jacobian(*args, exact=True, **options)


def _vjp_of_the_value(g, x, probes=None, *, field):
    return {"x": np.asarray(np.einsum("...i,...ij->...j", g[0], field.jacobian(x)), x.dtype)}


@mutant(ID, default_case=still(), vjp=_vjp_of_the_value)
def not_differentiable_twice(*args, **options):
    "The divergence is a constant of the backward pass."
    return by_jacobian(*args, **options)
