"""Input spaces: what a law is given.

`cases(id, **fields)` describes an algorithm's inputs. A field is a hypothesis strategy, a function
`(draw, case so far) -> value`, or a constant; an axis of the signature is a field like any other. Arrays
of the signature that no field names are filled last, by kind of values and memory layout. Every float
drawn is a dyadic number that float16 holds exactly, so one case serves all dtypes.

`.where(...)` fixes fields and asks for flags; `.reach(...)` names flags (edge classes) that a run must
have met. A flag is a predicate with an optional construction, so that rare classes are built, not hunted.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st

from ref.spec.registry import get

LAYOUTS = ("C", "F", "strided", "reversed")
ELEMENTWISE = 12  # arrays up to this size are drawn number by number, so that they shrink


class Dim(NamedTuple):
    """An axis size; `large` is the greatest size of a grown space (see `Cases.grow`)."""

    low: int
    high: int
    large: int

    def strategy(self, grown):
        """Sizes low..high; grown, up to `large`, with a liking for the edges of usual tiles."""
        if not grown or self.large <= self.high:
            return st.integers(self.low, self.high)
        tiles = [n + k for n in (16, 32, 64, 128, 256, 512) for k in (-1, 0, 1) if n + k <= self.large]
        return st.one_of(st.integers(self.low, self.large), st.sampled_from([*tiles, self.large]))


def dims(low, high, large=0):
    """An axis size between `low` and `high`, both inclusive; shrinks towards `low`.

    `large` is the greatest size when a run asks for large cases too: bugs at the edge of a tile hide
    from small ones.
    """
    return Dim(low, high, large)


class Batch(NamedTuple):
    """Sizes of a starred axis; `large` is the greatest number of rows of a grown space."""

    least: int
    axes: int
    high: int
    large: int

    def strategy(self, grown):
        """A tuple of sizes; grown, up to three axes and, where `large` says so, many rows."""
        small = st.lists(st.integers(0, self.high), min_size=self.least, max_size=self.axes)
        if not grown:
            return small.map(tuple)
        shapes = [small]
        if self.axes > 1:
            shapes.append(st.lists(st.integers(1, 2), min_size=3, max_size=3))
        if self.large:
            shapes.append(st.tuples(st.integers(1, self.large)))
        if self.large and self.axes > 1:
            shapes.append(st.tuples(st.just(3), st.integers(1, self.large // 3)))
        return st.one_of(*shapes).map(tuple)


def batch(max_axes=2, max_size=2, large=0, least=0):
    """Sizes of a `*B` axis: `least` to `max_axes` leading axes.

    A run that asks for large cases gets three axes too, and up to `large` rows.
    """
    return Batch(least, max_axes, max_size, large)


def choose(*values):
    """One of the values; shrinks towards the first."""
    return st.sampled_from(values)


def none_or(*values):
    """None, or one of the values."""
    return st.sampled_from((None, *values))


def ints(axes, low, high):
    """An integer array with the named axes; `high` may name an axis and is then exclusive."""

    def make(draw, c):
        top = c[high] - 1 if isinstance(high, str) else high
        shape = _shape(axes, c)
        if top < low:
            assume(0 in shape)
        return rng(draw).integers(low, max(top, low) + 1, shape)

    return make


def bools(axes, probability=0.6):
    """A boolean array with the named axes, True with about the given probability."""
    return lambda draw, c: draw_bools(draw, _shape(axes, c), probability)


def draw_bools(draw, shape, probability=0.6):
    """A boolean array; small ones are drawn one by one, so that they shrink (towards True)."""
    size = int(np.prod(shape, dtype=np.int64))
    if size > ELEMENTWISE:
        return np.asarray(rng(draw).random(shape) < probability)
    dropped = draw(st.lists(st.booleans(), min_size=size, max_size=size))
    return (~np.array(dropped, bool)).reshape(shape)


def floats(axes, kind="normal"):
    """A float array with the named axes and the given kind of values (see `VALUES`)."""
    return lambda draw, c: VALUES[kind](rng(draw), _shape(axes, c))


def _shape(axes, c):
    out = []
    for axis in axes.split():
        out.extend(c[axis[1:]] if axis.startswith("*") else [int(axis) if axis.isdigit() else c[axis]])
    return tuple(out)


def rng(draw):
    """A generator whose seed hypothesis draws."""
    return np.random.default_rng(draw(st.integers(0, 2**32 - 1)))


def _normal(g, shape):
    return np.clip(np.round(g.standard_normal(shape) * 64), -512, 512) / 64


VALUES = {
    "dyadic": lambda g, shape: g.integers(-8, 9, shape) / 4.0,
    "normal": _normal,
    "positive": lambda g, shape: np.abs(_normal(g, shape)) + 2.0**-6,
    "integer": lambda g, shape: g.integers(-8, 9, shape).astype(np.float64),
    "extreme": lambda g, shape: _normal(g, shape) * 64.0,
    "tiny": lambda g, shape: _normal(g, shape) * 2.0 ** -g.integers(0, 9, shape),
    "faint": lambda g, shape: _normal(g, shape) * 2.0**-13,
    "huge": lambda g, shape: _normal(g, shape) * 2.0**12,
}


class Flag(NamedTuple):
    """An edge class: `test(case)` recognises it; `build` are fields that construct it."""

    test: Any
    build: dict = MappingProxyType({})


class Case:
    """One input: arrays, options and axis sizes as attributes; `c.replace(k=...)` is another case."""

    __slots__ = ("_fields", "args", "options", "spec")

    def __init__(self, spec, fields):
        self.spec = spec
        self._fields = dict(fields)
        positional, keyword = spec.parameters
        self.args = tuple(n for n in positional if n in self._fields)
        self.options = tuple(n for n in keyword if n in self._fields)

    def __getattr__(self, name):
        try:
            return self._fields[name]
        except KeyError:
            raise AttributeError(f"case of {self.spec.id} has no field {name!r}") from None

    def __getitem__(self, name):
        return self._fields[name]

    def get(self, name, default=None):
        """The field `name`, or `default`."""
        return self._fields.get(name, default)

    def __contains__(self, name):
        return name in self._fields

    def replace(self, **fields):
        """The same case with some fields replaced; new arrays take the case's memory layout.

        (Another layout may take another path through BLAS and so give other bits.)
        """
        layout = self._fields.get("memory", "C")

        def laid(name, value):
            if isinstance(value, np.generic) and isinstance(self._fields.get(name), np.ndarray):
                value = np.asarray(value)  # arithmetic turns an array without axes into a scalar
            return lay_out(value, layout) if isinstance(value, np.ndarray) else value

        return Case(self.spec, {**self._fields, **{n: laid(n, v) for n, v in fields.items()}})

    def copy(self):
        """The same case in memory of its own: what is written into the one does not reach the other."""
        return Case(self.spec, copy.deepcopy(self._fields))

    def call_fields(self):
        """{name: value} of what the function is called with."""
        return {n: self._fields[n] for n in (*self.args, *self.options)}

    @property
    def dtype(self):
        """The float dtype of the case: that of its first float argument, float64 if it has none."""
        for value in _arrays(list(self.call_fields().values())):
            if value.dtype.kind == "f":
                return value.dtype
        return np.dtype(np.float64)

    def astype(self, dtype):
        """Float arrays cast to `dtype` in the case's memory layout; exact for every drawn value."""
        layout = self._fields.get("memory", "C")

        def cast(value):
            if isinstance(value, np.ndarray):
                value = value.astype(dtype) if value.dtype.kind == "f" else value
                return lay_out(value, layout)
            if isinstance(value, tuple) and hasattr(value, "_fields"):
                return type(value)(*map(cast, value))
            if isinstance(value, tuple | list):
                return type(value)(map(cast, value))
            return {k: cast(v) for k, v in value.items()} if isinstance(value, dict) else value

        cast_fields = {n: cast(v) for n, v in self.call_fields().items()}
        return Case(self.spec, {**self._fields, **cast_fields})

    def __repr__(self):
        return f"Case of {self.spec.id}: " + ", ".join(f"{n}={_brief(v)}" for n, v in self.call_fields().items())


def _brief(value):
    """Arrays by dtype and shape: hypothesis asks for the text of every failing case."""
    if isinstance(value, np.ndarray):
        return f"{value.dtype}{list(value.shape)}"
    if isinstance(value, dict):
        return f"{len(value)} entries"
    return repr(value)


def _arrays(tree):
    """The arrays in a tree of tuples, lists and dicts."""
    if isinstance(tree, dict):
        tree = list(tree.values())
    if isinstance(tree, tuple | list):
        return [array for item in tree for array in _arrays(item)]
    return [tree] if isinstance(tree, np.ndarray) else []


def lay_out(array, layout):
    """The same numbers in another memory layout: C, F, strided (every second), reversed (negative)."""
    if array.ndim == 0:  # ascontiguousarray would add an axis
        return array.copy()
    if layout == "C":
        return np.ascontiguousarray(array)
    if layout == "F":
        return np.asfortranarray(array)
    if layout == "strided":
        wide = np.zeros((*array.shape[:-1], 2 * array.shape[-1]), array.dtype)
        wide[..., ::2] = array
        return wide[..., ::2]
    return np.ascontiguousarray(array[::-1])[::-1]


@dataclass(frozen=True)
class Cases:
    """A described input space; immutable, refined by `where` and `reach`."""

    id: str
    fields: dict
    flags: dict = field(default_factory=dict)
    values: tuple = ("dyadic", "normal")
    wanted: tuple = ()
    edges: tuple = ()
    fixed: dict = field(default_factory=dict)
    unset: dict = field(default_factory=dict)
    demanded: dict = field(default_factory=dict)
    grown: bool = False

    def where(self, **fixed):
        """Fix fields (by name) and ask for flags (True) or their absence (False).

        Raises
        ------
        ValueError
            A name that is neither a field nor a flag.
        """
        fields, wanted = dict(self.fields), list(self.wanted)
        for name, value in fixed.items():
            if name in self.flags:
                wanted.append((name, value))
                if value:
                    fields.update(self.flags[name].build)
            elif name == "values":
                return self.where(**{k: v for k, v in fixed.items() if k != "values"})._replace(values=value)
            elif name in self.fields or name in _names(self.id):
                fields[name] = value
            else:
                raise ValueError(
                    f"cases {self.id}: {name!r} is no field and no flag; "
                    f"fields {sorted(self.fields)}, flags {sorted(self.flags)}"
                )
        changed = {n: f for n, f in fields.items() if self.fields.get(n, fields) is not f}
        return self._replace(fields=fields, wanted=tuple(wanted), fixed={**self.fixed, **changed})

    def _replace(self, **changes):
        values = {k: getattr(self, k) for k in self.__dataclass_fields__}
        return Cases(**{**values, **changes})

    def narrow(self, **fields):
        """The cases in which the named fields have the given values, whatever the law itself fixes.

        Raises
        ------
        ValueError
            A name that is no field.
        """
        for name in fields:
            if name not in self.fields:
                raise ValueError(f"cases {self.id}: {name!r} is no field; fields {sorted(self.fields)}")
        return self._replace(fields={**self.fields, **fields, **self.fixed}, demanded={**self.demanded, **fields})

    def without(self, options):
        """The cases in which every one of the named options has its default."""
        defaults, off = get(self.id).defaults, {}
        for name in options:
            if name in self.fields:
                off |= self.unset.get(name, {name: defaults.get(name)})
        fields = {**self.fields, **off, **self.fixed}
        return self._replace(fields=fields, demanded={**self.demanded, **off})

    @property
    def impossible(self):
        """Whether a demanded value differs from one that the space fixes: no case need be drawn to see it."""
        fixed = {n: f for n, f in self.fields.items() if n in self.demanded and not isinstance(f, Dim | Batch)}
        return any(
            not _is(f, self.demanded[n])
            for n, f in fixed.items() if not isinstance(f, st.SearchStrategy) and not callable(f)
        )  # fmt: skip

    def reach(self, *edges):
        """Flags that a run over this space must have met at least once."""
        for name in edges:
            if name not in self.flags:
                raise ValueError(f"cases {self.id}: {name!r} is no flag; flags {sorted(self.flags)}")
        return self._replace(edges=self.edges + edges)

    def unreached(self):
        """The same space with nothing asked of a run: for runs of a handful of cases."""
        return self._replace(edges=())

    def strategy(self):
        """The hypothesis strategy of this space; each edge class gets a branch of its own."""
        branches = [self._strategy(False)]
        branches += [self.where(**{e: True})._strategy(False) for e in self.edges]
        if self.grown and any(isinstance(f, Dim | Batch) and f.large > f.high for f in self.fields.values()):
            branches += [self._strategy(True) for _ in range(0, len(branches), 2)]  # a third of the cases
        return st.one_of(*branches)

    def grow(self):
        """The same space with a branch of large cases (axes that declare a `large` size)."""
        return self._replace(grown=True)

    def _strategy(self, grown):
        @st.composite
        def make(draw):
            c = _Draft(get(self.id))
            for name, f in self.fields.items():
                c[name] = _field(draw, c, f, grown)
            _fill_arrays(draw, c, self.values, grown)
            case = Case(c.spec, c)
            assume(all(_is(case[name], value) for name, value in self.demanded.items()))
            for name, value in self.wanted:
                assume(bool(self.flags[name].test(case)) == value)
            return case

        return make()

    def reached(self, case):
        """The edge classes that `case` belongs to."""
        return [e for e in self.edges if self.flags[e].test(case)]


def cases(id, *, values=("dyadic", "normal"), flags=None, unset=None, **fields):
    """The input space of algorithm `id`; see the module's docstring.

    `unset` says which fields make an option None, {option: {field: value}}, where it is not simply itself.
    """
    fields.setdefault("memory", choose(*LAYOUTS))
    return Cases(id, fields, dict(flags or {}), tuple(values), unset=dict(unset or {}))


class _Draft(dict):
    """A case in the making: fields by key or attribute."""

    def __init__(self, spec):
        super().__init__()
        self.spec = spec

    def __getattr__(self, name):
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


def _is(found, wanted):
    return found is wanted or (found is not None and wanted is not None and np.array_equal(found, wanted))


def _names(id):
    positional, keyword = get(id).parameters
    return positional + keyword


def _field(draw, c, f, grown):
    if isinstance(f, Dim | Batch):
        return draw(f.strategy(grown))
    if isinstance(f, st.SearchStrategy):
        return draw(f)
    return f(draw, c) if callable(f) and not hasattr(f, "tile") else f


def _fill_arrays(draw, c, values, grown):
    todo = [e for e in c.spec.signature.inputs if e.name not in c and e.kind == "float"]
    if not todo:
        return
    kind = draw(st.sampled_from(values))
    for entry in todo:
        if grown:  # a kind each, and one that a hidden constant would swallow
            kind = draw(st.sampled_from((*values, "faint")))
        shape = entry.shape(c)
        size = int(np.prod(shape, dtype=np.int64))
        if kind == "dyadic" and size <= ELEMENTWISE:
            quarters = draw(st.lists(st.integers(-8, 8), min_size=size, max_size=size))
            c[entry.name] = (np.array(quarters, np.float64) / 4).reshape(shape)
        else:
            c[entry.name] = np.asarray(VALUES[kind](rng(draw), shape))
