"""Divergence of a vector field, exact or by random probes.

Source: Hutchinson 1990 (Comm. Stat. Simul. 19:433); Grathwohl et al. 2019 (1810.01367) sec. 3; Song et al. 2021
(2011.13456) Eq. 40.

    div f(x) = tr J(x) = sum_i d f_i / d x_i,   J = df / dx
    E_v[v^T J v] = tr J  for  E[v v^T] = I

Notation
    f -> field; v -> probes, K of them.

Conventions
    C1  Every sample x[*B] is alone: field takes a batch and mixes no two of its samples.
    C2  Without probes the trace is exact: d backward passes through one run of the field. With probes one pass each,
        and their mean.
    C3  Probes of +-1 have the least variance; normal ones are the paper's other choice. A vector on the unit sphere has
        E[v v^T] = I / d: multiply it by sqrt(d).
    C4  What comes out can be differentiated again, with respect to x and to what the field closes over.

Laws
    L1 linear_field                          L2 exact_for_a_nonlinear_field
    L3 all_signs_average_to_the_trace        L4 probes_are_quadratic_forms
    L5 gradient_of_the_divergence
"""

from __future__ import annotations

from autodiff import namespace, raw, vjp
from ref.diffusion.run_stages import check_shape
from ref.spec import bind, spec

SIGNATURE = "x[*B d], probes:tree -> value[*B d], div[*B]"


@spec("diffusion.divergence", SIGNATURE, grads=("x",))
def divergence(x, probes=None, *, field, name="divergence"):
    """The field and its divergence.

    Parameters
    ----------
    x : float[*B d]
    probes : float[K *B d], optional
        Vectors with E[v v^T] = I, at least one.
    field : callable
        float[*B d] -> float[*B d].
    name : str
        Whose messages these are.

    Returns
    -------
    value : float[*B d]
        field(x).
    div : float[*B]

    Raises
    ------
    ValueError
        The field's value has another shape than x, or probes do not have shape [K *B d] with K > 0.
    TypeError
        An array is not float, or dtypes or backends differ.

    Complexity: one forward pass and d (or K) backward passes.

    >>> import numpy as np
    >>> divergence(np.array([[1.0, 2.0]]), field=lambda x: x * x)
    (array([[1., 4.]]), array([6.]))
    """
    sizes = bind(name, "x[*B d]", x=x)
    if probes is not None:
        check_probes(name, probes, x)
    value, pull = vjp(field, x)
    check_shape(name, "the field", value, x)
    xp = namespace(raw(x))
    total = xp.zeros(tuple(x.shape[:-1]), dtype=x.dtype)
    if probes is None:
        units = xp.eye(sizes["d"], dtype=x.dtype)
        for i in range(sizes["d"]):
            total = pull(xp.broadcast_to(units[i, :], tuple(x.shape)) * 1.0)[0][..., i] + total
        return value * 1.0, total * 1.0
    for k in range(probes.shape[0]):
        v = probes[k, ...] * 1.0
        moved = pull(v)[0]
        total = namespace(moved).sum(moved * v, axis=-1) + total
    return value * 1.0, total / probes.shape[0]


def check_probes(function, probes, x):
    """ValueError unless probes holds K > 0 arrays of the shape and dtype of x."""
    shape = tuple(getattr(probes, "shape", ()))
    if not shape or shape[0] < 1 or shape[1:] != tuple(x.shape):
        raise ValueError(f"{function}: probes has shape {shape}; needed K > 0 arrays of shape {tuple(x.shape)}")
    bind(function, "x[*B], probe[*B]", x=x, probe=probes[0, ...])
