"""array-api-strict: refuses whatever the array API standard does not promise.

The extensions are written in the standard's own names, so that code which runs here leans on
nothing else. What cannot be is an escape: it leaves by one counted door, `escape`.
"""

import math
from collections import Counter
from functools import partial

import array_api_strict as xp
import numpy as np

from backends import einsum_terms, numpy, sliding
from backends.core import Backend
from backends.numpy import from_numpy as native_copy
from backends.scatter import check_numeric, check_shape

escapes: Counter[str] = Counter()


def load() -> Backend:
    return Backend(
        "strict",
        xp,
        type(xp.zeros(0)),
        from_numpy=lambda a: escape("from_numpy")(a),
        to_numpy=lambda x: escape("to_numpy")(x),
        extensions={
            "scatter_add": scatter_add,
            "einsum": einsum,
            "erf": lambda x: escape("erf")(x),
            "erfc": lambda x: escape("erfc")(x),
            "gammaln": lambda x: escape("gammaln")(x),
            "polygamma": lambda n, x: escape("polygamma")(n, x),
            "solve_triangular": solve_triangular,
            "windows": partial(sliding.windows, xp),
            "overlap_add": partial(sliding.overlap_add, xp),
        },
    )


def escape(name: str):
    """The function `name` of those that compute outside the standard; counts each call.

    Parameters
    ----------
    name : one of ESCAPES

    Returns
    -------
    callable
        `escapes[name]` has grown by one.

    Examples
    --------
    >>> before = escapes["to_numpy"]
    >>> escape("to_numpy")(xp.asarray([1.0, 2.0]))
    array([1., 2.])
    >>> escapes["to_numpy"] - before
    1
    """
    escapes[name] += 1
    return ESCAPES[name]


def _from_numpy(a):
    a = native_copy(a)
    try:
        return xp.asarray(a)
    except TypeError:
        raise TypeError(
            f"from_numpy: a has dtype {a.dtype}, which the array API standard lacks"
        ) from None


def _to_numpy(x):
    return np.array(np.from_dlpack(x))


def _erf(x):
    return xp.asarray(numpy.erf(np.from_dlpack(x)))


def _erfc(x):
    return xp.asarray(numpy.erfc(np.from_dlpack(x)))


def _gammaln(x):
    return xp.asarray(numpy.gammaln(np.from_dlpack(x)))


def _polygamma(n, x):
    return xp.asarray(numpy.polygamma(n, np.from_dlpack(x)))


ESCAPES = {
    "from_numpy": _from_numpy,
    "to_numpy": _to_numpy,
    "erf": _erf,
    "erfc": _erfc,
    "gammaln": _gammaln,
    "polygamma": _polygamma,
}


def solve_triangular(a, b, *, upper=False):
    # The standard has the general solver alone.
    return xp.linalg.solve(xp.triu(a) if upper else xp.tril(a), b)


def scatter_add(shape, index, values):
    check_numeric(values)
    size = math.prod(shape)
    places = _take(xp.reshape(xp.arange(size), shape), index)
    check_shape(values, places.shape)
    out = xp.zeros(size, dtype=values.dtype)
    if math.prod(places.shape) == 0:
        return xp.reshape(out, shape)
    places, values = xp.reshape(places, (-1,)), xp.reshape(values, (-1,))
    order = xp.argsort(places, stable=True)
    places, values = xp.take(places, order), xp.take(values, order)
    slots = xp.arange(size)
    first = xp.searchsorted(places, slots, side="left")
    count = xp.searchsorted(places, slots, side="right") - first
    # Round k adds the k-th value of every slot that has one: no slot is written twice in a round.
    for k in range(int(xp.max(count))):
        value = xp.take(values, xp.where(count > k, first + k, 0))
        out = xp.where(count > k, out + value, out)
    return xp.reshape(out, shape)


def _take(x, index):
    if isinstance(index, tuple):
        return x[index]
    if not hasattr(index, "dtype"):
        return x[index, ...]
    if xp.isdtype(index.dtype, "bool"):
        return x[index]
    # The standard's x[index] wants an array for every axis; over axis 0 alone it has take.
    rows = xp.take(x, xp.reshape(index, (-1,)), axis=0)
    return xp.reshape(rows, index.shape + x.shape[1:])


def einsum(subscripts, *operands):
    terms, output = einsum_terms.parse(subscripts, [x.shape for x in operands])
    wanted = [set(output).union(*terms[k + 1 :]) for k in range(len(terms))]
    x, labels = None, []
    for y, term, keep in zip(operands, terms, wanted, strict=True):
        y, term = _diagonals(y, term)
        union = labels + [c for c in term if c not in labels]
        y = _aligned(y, term, union)
        x = y if x is None else _aligned(x, labels, union) * y
        gone = tuple(axis for axis, c in enumerate(union) if c not in keep)
        x = xp.sum(x, axis=gone, dtype=x.dtype)
        labels = [c for c in union if c in keep]
    return xp.permute_dims(x, tuple(labels.index(c) for c in output))


def _diagonals(x, labels):
    labels = list(labels)
    for c in dict.fromkeys(labels):
        while labels.count(c) > 1:
            i = labels.index(c)
            j = labels.index(c, i + 1)
            x = xp.linalg.diagonal(xp.moveaxis(x, (i, j), (-2, -1)))
            labels = labels[:i] + labels[i + 1 : j] + labels[j + 1 :] + [c]
    return x, labels


def _aligned(x, labels, union):
    x = xp.permute_dims(x, tuple(labels.index(c) for c in union if c in labels))
    sizes = iter(x.shape)
    return xp.reshape(x, tuple(next(sizes) if c in labels else 1 for c in union))
