"""MADE's masks: which weights an autoencoder keeps so that each output reads earlier inputs alone.

Source: Germain et al. 2015 (1502.03509) Eq. 8 and 9, Algorithm 1; several layers: sec. 4.2, Eq. 12 and 13.

    M^l[k', k] = 1 if m^l(k') >= m^{l-1}(k)         into a hidden layer
    M^V[d, k]  = 1 if m^0(d)  >  m^L(k)             into the output
    paths from input d' to output d: (M^V M^L .. M^1)[d, d'] = 0 unless m^0(d) > m^0(d')

Notation
    m^0 -> degrees[0][n], the place of each input in the order, 1 .. n; m^l -> degrees[l], the number of inputs that a
    hidden unit may read; M -> masks, one a layer of weights [out in], True = keep.

Conventions
    C1  >= into hidden layers, > into the output. With >= at the end an output sees its own input, and the loss falls to
        nothing; with > within, a unit of degree 1 reads nothing.
    C2  Hidden degrees are 1 .. n - 1 (1 if n = 1): a unit of degree n would reach no output.
    C3  Without hidden layers the one mask is strictly lower triangular in the order: that of `density.fvsbn`.

Laws
    L1 paths_lead_to_later_outputs_alone    L2 a_unit_reads_its_degree
    L3 no_hidden_layer_is_a_strict_order    L4 every_degree_opens_every_path
"""

from __future__ import annotations

from autodiff import namespace
from ref.spec import bind, spec
from ref.spec.signature import kind_of


@spec("density.made_masks", "degrees:tree -> masks:tree")
def made_masks(degrees):
    """The masks between layers of units with the given degrees.

    Parameters
    ----------
    degrees : sequence of int arrays
        degrees[0] is a permutation of 1 .. n; each further one has the degrees of a hidden layer.

    Returns
    -------
    tuple of bool arrays
        [hidden_1 n], [hidden_2 hidden_1], .., [n hidden_L].

    Raises
    ------
    ValueError
        degrees[0] is no permutation of 1 .. n, a hidden degree is out of range, or there are no degrees.
    TypeError
        Degrees that are not int.

    Complexity: the number of weights.

    >>> import numpy as np
    >>> for mask in made_masks((np.array([2, 1, 3]), np.array([1, 2]))):
    ...     print(mask.astype(int).tolist())
    [[0, 1, 0], [1, 1, 0]]
    [[1, 0], [0, 0], [1, 1]]
    """
    degrees = tuple(degrees)
    if not degrees:
        raise ValueError("made_masks: degrees is empty; needed those of the inputs")
    xp = namespace(*degrees)
    _check(xp, degrees)
    inner = [after[:, None] >= before[None, :] for before, after in zip(degrees[:-1], degrees[1:], strict=True)]
    return (*inner, degrees[0][:, None] > degrees[-1][None, :])


def sequential_degrees(n, widths):
    """Degrees of the natural order: hidden unit k has degree k mod (n - 1) + 1, so each comes equally often.

    >>> sequential_degrees(3, (4,))
    (array([1, 2, 3]), array([1, 2, 1, 2]))
    """
    import numpy as np

    return (np.arange(1, n + 1), *(np.arange(width) % max(n - 1, 1) + 1 for width in widths))


def _check(xp, degrees):
    for level, each in enumerate(degrees):
        bind("made_masks", "degrees:any[units]", degrees=each)
        if kind_of(each.dtype) != "int":
            raise TypeError(f"made_masks: degrees[{level}] has dtype {each.dtype}; needed int")
    n = degrees[0].shape[0]
    if not bool(xp.all(xp.sort(degrees[0]) == xp.arange(1, n + 1))):
        raise ValueError(f"made_masks: degrees[0] is no permutation of 1..{n}, the places of the inputs")
    top = max(n - 1, 1)
    for level, each in enumerate(degrees[1:], 1):
        if each.shape[0] and not bool(xp.all((each >= 1) & (each <= top))):
            raise ValueError(f"made_masks: degrees[{level}] holds {int(xp.min(each))}..{int(xp.max(each))}; "
                             f"needed 1..{top}")  # fmt: skip
