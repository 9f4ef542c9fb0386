"""Valid inputs of every primitive: a row here for each row of the engine's table.

`Draw` makes arrays from a shape and a seed. Values keep their distance from the points where a
function has no derivative; `whole` draws small integers, on which float64 sums are exact.
"""

from __future__ import annotations

import numpy as np
from hypothesis import Phase, settings
from hypothesis import strategies as st

from tests.autodiff.samples_more import MORE, MORE_ANALYTIC


class Draw:
    """A source of arrays of one shape and its relatives."""

    def __init__(self, shape, seed, whole=False, dtype=np.float64):
        self.shape, self.whole, self.dtype = tuple(shape), whole, dtype
        self.seed = seed
        self.rng = np.random.default_rng(seed)

    def __repr__(self):
        return f"Draw({self.shape}, {self.seed}, whole={self.whole})"

    def again(self):
        """The same values once more."""
        return Draw(self.shape, self.seed, self.whole, self.dtype)

    def real(self, shape=None):
        shape = self.shape if shape is None else shape
        if self.whole:
            return self.rng.integers(-6, 7, shape).astype(self.dtype)
        return self.rng.uniform(-2, 2, shape).astype(self.dtype)

    def positive(self, shape=None):
        return self.rng.uniform(0.5, 2, self.shape if shape is None else shape).astype(self.dtype)

    def nonzero(self, shape=None):
        x = self.positive(shape)
        return x * self.rng.choice(np.array([-1, 1], self.dtype), x.shape)

    def distinct(self, shape=None):
        """Values at least 0.1 apart, in random order."""
        shape = self.shape if shape is None else shape
        n = int(np.prod(shape))
        return (self.rng.permutation(n) * 0.1 - 0.05 * n).reshape(shape).astype(self.dtype)

    def partner(self):
        """A shape that broadcasts with this one: axes dropped in front, or of size 1."""
        shape = tuple(1 if self.rng.random() < 0.3 else n for n in self.shape)
        return shape[self.rng.integers(0, len(shape) + 1) :]

    def axis(self):
        return int(self.rng.integers(-len(self.shape), len(self.shape)))

    def some_axes(self):
        """None, one axis, or several; with keepdims or without."""
        n = len(self.shape)
        kind = self.rng.integers(0, 3)
        keep = bool(self.rng.integers(0, 2))
        if kind == 0 or n == 0:
            return {"axis": None, "keepdims": keep}
        if kind == 1:
            return {"axis": self.axis(), "keepdims": keep}
        axes = self.rng.permutation(n)[: self.rng.integers(1, n + 1)]
        return {"axis": tuple(int(a) for a in axes), "keepdims": keep}

    def at_least(self, ndim, size=0):
        """Shape with at least `ndim` axes, each of at least `size`."""
        shape = (2,) * (ndim - len(self.shape)) + self.shape
        self.shape = tuple(max(n, size) for n in shape)
        return self


def _pair(first, second):
    def sample(d):
        return (getattr(d, first)(), getattr(d, second)(d.partner())), {}

    return sample


def _one(kind="real", **fixed):
    return lambda d: ((getattr(d, kind)(),), dict(fixed))


def _apart(d):
    """Two arrays whose elements differ by 0.05 at least."""
    y = d.real(d.partner())
    shape = np.broadcast_shapes(d.shape, y.shape)
    x = np.broadcast_to(y, shape) + d.nonzero(shape) / 4
    return (x.astype(d.dtype), y), {}


def _reduction(kind):
    return lambda d: ((getattr(d, kind)(),), d.some_axes())


def _filled_reduction(kind):
    return lambda d: ((getattr(d.at_least(0, 1), kind)(),), d.some_axes())


def _where(d):
    y = d.real(d.partner())
    return (d.rng.random(d.partner()) < 0.5, d.real(), y), {}


def _clip(d):
    x = d.real()
    low, high = -0.8, 0.9
    for bound in (low, high):
        x = np.where(np.abs(x - bound) < 0.05, x + 0.1, x).astype(d.dtype)
    return (x,), {"min": low, "max": None if d.rng.random() < 0.3 else high}


def _reshape(d):
    x = d.real()
    flat = (x.size,) if x.size else tuple(reversed(x.shape))
    return (x,), {"shape": flat if d.rng.random() < 0.5 else tuple(reversed(x.shape))}


def _broadcast(d):
    small = d.partner()
    return (d.real(small),), {"shape": (2, *d.shape) if d.rng.random() < 0.5 else d.shape}


def _squeeze(d):
    k = int(d.rng.integers(0, len(d.shape) + 1))
    return (d.real((*d.shape[:k], 1, *d.shape[k:])),), {"axis": k}


def _permute(d):
    return (d.real(),), {"axes": tuple(int(a) for a in d.rng.permutation(len(d.shape)))}


def _concat(d):
    d.at_least(1)
    axis = d.axis() % len(d.shape)
    parts = []
    for _ in range(d.rng.integers(1, 4)):
        shape = list(d.shape)
        shape[axis] = int(d.rng.integers(0, 4))
        parts.append(d.real(tuple(shape)))
    return tuple(parts), {"axis": axis, "sizes": tuple(p.shape[axis] for p in parts)}


def _stack(d):
    axis = int(d.rng.integers(0, len(d.shape) + 1))
    return tuple(d.real() for _ in range(d.rng.integers(1, 4))), {"axis": axis}


def _roll(d):
    d.at_least(1)
    return (d.real(),), {"shift": int(d.rng.integers(-3, 4)), "axis": d.axis()}


def _index(d):
    """A shape and an index of it: basic, whole rows, or one array an axis; repeats included."""
    d.at_least(2, 1)
    n, m = d.shape[:2]
    kinds = [
        (slice(None, None, 2), Ellipsis, slice(0, 1)),
        (int(d.rng.integers(-n, n)),),
        (None, Ellipsis, slice(None, None, -1)) if d.shape[-1] else (None,),
        d.rng.integers(0, n, (int(d.rng.integers(0, 5)),)),
        (d.rng.integers(0, n, 4), d.rng.integers(0, m, 4)),
        (slice(None), d.rng.integers(0, m, (2, 3))),
    ]
    return kinds[d.rng.integers(0, len(kinds))]


def _getitem(d):
    index = _index(d)
    return (d.real(),), {"index": index}


def _scatter(d):
    index = _index(d)
    return (d.real(np.empty(d.shape)[index].shape),), {"shape": d.shape, "index": index}


def _take(d):
    d.at_least(1, 1)
    axis = d.axis() % len(d.shape)
    return (d.real(),), {"axis": axis, "indices": d.rng.integers(0, d.shape[axis], 3)}


def _take_along(d):
    d.at_least(1, 1)
    axis = d.axis() % len(d.shape)
    shape = list(d.shape)
    shape[axis] = int(d.rng.integers(0, 4))
    return (d.real(),), {"axis": axis, "indices": d.rng.integers(0, d.shape[axis], shape)}


def _cumulative(d):
    d.at_least(1)
    options = {"include_initial": True} if d.rng.random() < 0.5 else {}
    return (d.real(),), {"axis": d.axis(), **options}


def _matmul(d):
    n, k, m = (int(v) for v in d.rng.integers(0, 4, 3))
    batch = d.shape[:2]
    other = tuple(1 if d.rng.random() < 0.5 else b for b in batch)
    cases = [
        ((k,), (k,)),
        ((k,), (*batch, k, m)),
        ((*batch, n, k), (k,)),
        ((*batch, n, k), (k, m)),
        ((*batch, n, k), (*other, k, m)),
        ((n, k), (*batch, k, m)),
    ]
    a, b = cases[d.rng.integers(0, len(cases))]
    return (d.real(a), d.real(b)), {}


def _vecdot(d):
    d.at_least(1)
    last = d.shape[-1]
    other = tuple(1 if d.rng.random() < 0.3 else n for n in d.shape[:-1])
    return (d.real(), d.real((*other, last))), {"axis": -1}


def _einsum(d):
    i, j, k = (int(v) for v in d.rng.integers(0, 4, 3))
    cases = [
        ("ij,jk->ik", [(i, j), (j, k)]),
        ("ij,ij->", [(i, j), (i, j)]),
        ("ij->ji", [(i, j)]),
        ("ij->j", [(i, j)]),
        ("ii->i", [(i, i)]),
        ("iij,j->i", [(i, i, j), (j,)]),
        ("ij,kj,k->i", [(i, j), (k, j), (k,)]),
        ("ij,k->i", [(i, j), (k,)]),
        (",i->i", [(), (i,)]),
    ]
    subscripts, shapes = cases[d.rng.integers(0, len(cases))]
    return tuple(d.real(s) for s in shapes), {"subscripts": subscripts}


def _square(name):
    return lambda d: ((d.at_least(2).real(),), {"k": int(d.rng.integers(-2, 3))})


SAMPLES = {
    "add": _pair("real", "real"),
    "subtract": _pair("real", "real"),
    "multiply": _pair("real", "real"),
    "divide": _pair("real", "nonzero"),
    "pow": _pair("positive", "real"),
    "maximum": _apart,
    "minimum": _apart,
    "logaddexp": _pair("real", "real"),
    "where": _where,
    "clip": _clip,
    "negative": _one(),
    "identity": _one(),
    "exp": _one(),
    "expm1": _one(),
    "log": _one("positive"),
    "log1p": _one("positive"),
    "sqrt": _one("positive"),
    "square": _one(),
    "abs": _one("nonzero"),
    "sin": _one(),
    "cos": _one(),
    "tanh": _one(),
    "sigmoid": _one(),
    "softplus": _one("nonzero"),
    "erf": _one(),
    "astype": lambda d: ((d.real(),), {"dtype": np.dtype(np.float64)}),
    "sum": _reduction("real"),
    "mean": _filled_reduction("real"),
    "prod": _reduction("real"),
    "max": _filled_reduction("distinct"),
    "min": _filled_reduction("distinct"),
    "logsumexp": _filled_reduction("real"),
    "cumulative_sum": _cumulative,
    "reshape": _reshape,
    "expand_dims": lambda d: ((d.real(),), {"axis": int(d.rng.integers(0, len(d.shape) + 1))}),
    "squeeze": _squeeze,
    "broadcast_to": _broadcast,
    "permute_dims": _permute,
    "matrix_transpose": lambda d: ((d.at_least(2).real(),), {}),
    "flip": lambda d: ((d.at_least(1).real(),), {"axis": d.axis()}),
    "roll": _roll,
    "tril": _square("tril"),
    "triu": _square("triu"),
    "concat": _concat,
    "stack": _stack,
    "getitem": _getitem,
    "scatter_add": _scatter,
    "take": _take,
    "take_along_axis": _take_along,
    "matmul": _matmul,
    "vecdot": _vecdot,
    "einsum": _einsum,
    **MORE,
    "conj": _one(),
    "real": _one(),
    "imag": _one(),
    "angle": _one("nonzero"),
    "complex": _pair("real", "real"),
}

# Functions that NumPy evaluates on complex arrays as the analytic continuation.
ANALYTIC = frozenset(
    (
        *("add", "subtract", "multiply", "divide", "negative", "exp", "log", "sqrt", "square"),
        *("sin", "cos", "tanh", "sum", "mean", "prod", "cumulative_sum", "reshape", "concat"),
        *("stack", "getitem", "take", "take_along_axis", "matmul", "einsum", "where", "pow"),
        *("expm1", "log1p", "permute_dims", "flip", "roll", "tril", "triu", "broadcast_to"),
        *("expand_dims", "squeeze", "matrix_transpose", "identity"),
        *MORE_ANALYTIC,
    )
)


@st.composite
def draws(draw, whole=False, max_dims=3):
    """Shapes with sizes 0 to 3, and a seed for the values."""
    shape = draw(st.lists(st.integers(0, 3), max_size=max_dims))
    return Draw(shape, draw(st.integers(0, 2**32 - 1)), whole)


def examples(n):
    """n examples at every commit, twenty times as many in a deep run."""
    return settings(max_examples=n if settings.default.max_examples <= 100 else 20 * n)


def unshrunk(check, monkeypatch):
    """Let a hypothesis test end at the first failure it finds: a mutant's smallest case is of no use."""
    if (found := getattr(check, "_hypothesis_internal_use_settings", None)) is not None:
        monkeypatch.setattr(check, "_hypothesis_internal_use_settings", settings(found, phases=(Phase.generate,)))
