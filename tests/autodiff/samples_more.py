"""Valid inputs of the special functions, scans, windows, convolutions and matrix primitives.

Rows as in `samples`, each a function of its `Draw`. Matrices are drawn near a diagonal whose
entries lie apart: regular, with distinct eigenvalues and singular values, and with vectors whose
signs do not jump under the steps that the laws take.
"""

from __future__ import annotations

import numpy as np


def _one(kind="real"):
    return lambda d: ((getattr(d, kind)(),), {})


def _between(low, high):
    return lambda d: ((d.rng.uniform(low, high, d.shape).astype(d.dtype),), {})


def _polygamma(d):
    return (d.positive(),), {"n": int(d.rng.integers(0, 3))}


def _poles_between(d):
    """Between the poles of gamma on both sides of 0."""
    x = d.rng.uniform(0.3, 0.7, d.shape) + d.rng.integers(-3, 4, d.shape)
    return (x.astype(d.dtype),), {}


def _off_the_jumps(d):
    """Neither whole numbers nor halves."""
    x = d.rng.integers(-3, 3, d.shape) + d.rng.choice([0.25, 0.75], d.shape)
    return (x.astype(d.dtype),), {}


def _atan2(d):
    return (d.nonzero(), d.nonzero(d.partner())), {}


def _axis(d):
    d.at_least(1)
    return (d.real(),), {"axis": d.axis()}


def _cumulative_prod(d):
    d.at_least(1)
    options = {"include_initial": True} if d.rng.random() < 0.5 else {}
    x = d.real() * (d.rng.random(d.shape) < 0.8)
    return (x.astype(d.dtype),), {"axis": d.axis(), **options}


def _pad(d):
    return (d.real(),), {"widths": tuple((int(a), int(b)) for a, b in d.rng.integers(0, 3, (len(d.shape), 2)))}


# --- windows ----------------------------------------------------------------------------------


def _sliding(d):
    """(batch, spatial, size, places, strides, dilation) of one or two axes."""
    n = int(d.rng.integers(1, 3))
    size, strides, dilation = (tuple(int(v) for v in d.rng.integers(1, 3, n)) for _ in range(3))
    rest = d.rng.integers(0, 3, n)
    rows = list(zip(size, strides, dilation, rest, strict=True))
    spatial = tuple(int(dl * (k - 1) + 1 + r) for k, s, dl, r in rows)
    places = tuple(int(r // s + 1) for k, s, dl, r in rows)
    return d.shape[:2], spatial, size, places, {"strides": strides, "dilation": dilation}


def _windows(d):
    batch, spatial, size, _, options = _sliding(d)
    return (d.real((*batch, *spatial)),), {"size": size, **options}


def _overlap_add(d):
    batch, spatial, size, places, options = _sliding(d)
    return (d.real((*batch, *size, *places)),), {"shape": spatial, **options}


def _convolution(d):
    """Shapes of x, w and y, and the options."""
    _, spatial, size, places, options = _sliding(d)
    groups = int(d.rng.integers(1, 3))
    n, channels, filters = (int(v) for v in d.rng.integers((0, 0, 1), 3, 3))
    x, w = (n, groups * channels, *spatial), (groups * filters, channels, *size)
    return x, w, (n, groups * filters, *places), {**options, "groups": groups}


def _convolve(d):
    x, w, _, options = _convolution(d)
    return (d.real(x), d.real(w)), options


def _convolve_input(d):
    x, w, y, options = _convolution(d)
    return (d.real(y), d.real(w)), {"shape": x[2:], **options}


def _convolve_weight(d):
    x, w, y, options = _convolution(d)
    return (d.real(x), d.real(y)), {"size": w[2:], **options}


# --- matrices ---------------------------------------------------------------------------------


def _near_diagonal(d, m, n):
    """Singular values near 1, 2.2, 3.4 in random order, all other entries 0.1 to 0.25."""
    shape = (*d.shape[:1], m, n)
    x = d.nonzero(shape) / 8 + np.sign(d.nonzero(shape)) / 32
    k = min(m, n)
    for at in np.ndindex(shape[:-2]):
        values = (1.0 + 1.2 * d.rng.permutation(3)[:k]) * d.rng.choice([-1.0, 1.0], k)
        x[(*at, range(k), range(k))] = values
    return x.astype(d.dtype)


def _order(d, high=4):
    return int(d.rng.integers(0, high))


def _regular(d):
    n = _order(d)
    return (_near_diagonal(d, n, n),), {}


def _maybe_singular(d):
    (x,), options = _regular(d)
    n = x.shape[-1]
    rank = n - int(d.rng.integers(0, 3))
    if rank < n:
        x[..., max(rank, 0) :, :] = 0.0
    return (x,), options


def _positive_definite(d):
    """With an antisymmetric part, which must change nothing."""
    n = _order(d)
    x = _near_diagonal(d, n, n)
    odd = np.triu(d.real(x.shape), 1)
    even = x @ np.swapaxes(x, -1, -2) + 0.5 * np.eye(n)
    return ((even + odd - np.swapaxes(odd, -1, -2)).astype(d.dtype),), {}


def _symmetric(d):
    n = _order(d)
    x = _near_diagonal(d, n, n)
    odd = np.triu(d.real(x.shape), 1)
    low = np.tril(x)
    even = low + np.swapaxes(np.tril(x, -1), -1, -2)
    return ((even + odd - np.swapaxes(odd, -1, -2)).astype(d.dtype),), {}


def _any_matrix(d):
    return (_near_diagonal(d, _order(d), _order(d)),), {}


def _solve(d):
    n, k = _order(d), _order(d)
    a = _near_diagonal(d, n, n)
    batch = a.shape[:-2]
    shapes = [(n,), (*batch, n, k), (n, k), (2, *batch, n, k)]
    return (a, d.real(shapes[d.rng.integers(0, 4)])), {}


def _solve_triangular(d):
    n, k = _order(d), _order(d)
    a = _near_diagonal(d, n, n)
    shape = (n, k) if d.rng.random() < 0.5 else (*a.shape[:-2], n, k)
    return (a, d.real(shape)), {"upper": bool(d.rng.integers(0, 2))}


MORE = {
    "tan": _between(-1.2, 1.2),
    "asin": _between(-0.8, 0.8),
    "acos": _between(-0.8, 0.8),
    "atan": _one(),
    "sinh": _one(),
    "cosh": _one(),
    "asinh": _one(),
    "acosh": _between(1.3, 3.0),
    "atanh": _between(-0.8, 0.8),
    "atan2": _atan2,
    "hypot": _atan2,
    "rsqrt": _one("positive"),
    "erfc": _one(),
    "log1mexp": _between(0.2, 2.0),
    "gammaln": _poles_between,
    "polygamma": _polygamma,
    "sign": _one("nonzero"),
    "floor": _off_the_jumps,
    "ceil": _off_the_jumps,
    "round": _off_the_jumps,
    "trunc": _off_the_jumps,
    "cumulative_prod": _cumulative_prod,
    "softmax": _axis,
    "log_softmax": _axis,
    "pad": _pad,
    "windows": _windows,
    "overlap_add": _overlap_add,
    "convolve": _convolve,
    "convolve_input": _convolve_input,
    "convolve_weight": _convolve_weight,
    "cholesky": _positive_definite,
    "inv": _regular,
    "solve": _solve,
    "solve_triangular": _solve_triangular,
    "det": _maybe_singular,
    "cofactor": _regular,
    "logabsdet": _regular,
    "eigh": _symmetric,
    "svd": _any_matrix,
    "qr": _any_matrix,
}

# Functions that NumPy evaluates on complex arrays as the analytic continuation.
MORE_ANALYTIC = frozenset(
    (
        *("tan", "sinh", "cosh", "atan", "asinh", "cumulative_prod", "pad", "windows"),
        *("overlap_add", "convolve", "convolve_input", "convolve_weight", "inv", "solve", "det"),
    )
)
