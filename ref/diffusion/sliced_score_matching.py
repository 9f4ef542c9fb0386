"""Sliced score matching: implicit score matching along random directions.

Source: Song, Garg, Shi & Ermon 2020 (1905.07088) Eq. 7 and Eq. 8 (variance-reduced).

    J = E_v E_p[ v^T grad s(x) v + (v^T s(x))^2 / 2 ]
    J = E_v E_p[ v^T grad s(x) v + |s(x)|^2 / 2 ]         variance-reduced, E[v v^T] = I

Notation
    v -> directions, K of them a sample; the term of each sample, averaged over K -> the result.

Conventions
    C1  E[v v^T] = I makes both equal implicit score matching on average: normal or +-1. A vector on the unit sphere
        needs sqrt(d) times it.
    C2  v^T grad s v takes one backward pass, whatever d; the loss is differentiated through it.
    C3  The reduced form has the exact |s|^2 and is what the paper trains with (SSM-VR).

Laws
    L1 quadratic_form_of_the_jacobian        L2 all_signs_average_to_the_implicit_form
    L3 the_reduced_form_knows_the_norm       L4 gradient_through_the_slice
"""

from __future__ import annotations

from autodiff import namespace, vjp
from ref.diffusion.divergence import check_probes
from ref.diffusion.run_stages import check_shape
from ref.spec import bind, spec


@spec("diffusion.sliced_score_matching", "x[*B d], directions:tree -> [*B]", grads=("x",))
def sliced_score_matching(x, directions, *, score, reduced=False):
    """The term of each sample.

    Parameters
    ----------
    x : float[*B d]
    directions : float[K *B d]
        At least one a sample.
    score : callable
        s, from float[*B d] to float[*B d], each sample alone.
    reduced : bool
        The variance-reduced form.

    Returns
    -------
    float[*B]

    Raises
    ------
    ValueError
        The score has another shape than x, or directions do not have shape [K *B d] with K > 0.
    TypeError
        An array is not float, or dtypes or backends differ.

    Complexity: one call of the score and K backward passes.

    >>> import numpy as np
    >>> v = np.array([[[1.0, 1.0]], [[1.0, -1.0]]])
    >>> sliced_score_matching(np.array([[3.0, 4.0]]), v, score=lambda x: -x)
    array([10.5])
    """
    bind("sliced_score_matching", "x[*B d]", x=x)
    check_probes("sliced_score_matching", directions, x)
    s, pull = vjp(score, x)
    check_shape("sliced_score_matching", "the score", s, x)
    terms = []
    for k in range(directions.shape[0]):
        v = directions[k, ...] * 1.0
        moved = pull(v)[0]
        curvature = namespace(moved).sum(moved * v, axis=-1)
        along = namespace(s).sum(s * s if reduced else s * v, axis=-1)
        terms.append(curvature + (along if reduced else along * along) / 2)
    return sum(terms[1:], terms[0]) / len(terms)
