"""An implementation as a law sees it: NumPy cases in, NumPy results out, every call guarded.

Guards, at each call: the inputs are untouched, then and later; shapes and dtypes are the signature's (a
state's those of the state given); no NaN (and no infinity, unless lawful) comes of finite inputs; the
output shares no memory with an input or with an earlier output. A broken guard is a broken law.
"""

from __future__ import annotations

import contextlib
import inspect
import signal
import threading
from typing import Any, NamedTuple

import numpy as np

import autodiff
import backends
from ref.conform.expect import LawBroken
from ref.spec.signature import kind_of


class Target(NamedTuple):
    """What is judged: a function over arrays and, where it has one, its vjp.

    `vjp(g, *args, **options)` returns {name: cotangent} or a tuple in the order of the spec's `grads`; with
    `differentiable` the function takes `autodiff` Tensors instead. `foreign` functions get rules as arrays;
    `lacks` are the options that the function does not take; `limit` is the most seconds that a call may take.
    """

    name: str
    function: Any
    vjp: Any = None
    differentiable: bool = True
    foreign: bool = False
    lacks: tuple = ()
    limit: float | None = None

    def offers(self, need):
        """Whether it can give "vjp", "jvp" or "hvp"; "plan": it works through our communicator or rule alone."""
        if need == "plan":
            return not self.foreign
        return self.differentiable or (need == "vjp" and self.vjp is not None)


class TooSlow(BaseException):
    """A call took more than its limit. No Exception: neither the target nor the search may catch it."""


@contextlib.contextmanager
def _judged(limit=None):
    """What the target raises is a broken law; what a law or the runner raises is an error of ours."""
    try:
        with _limited(limit):
            yield
    except NotOffered:
        raise
    except (Exception, SystemExit, GeneratorExit) as error:
        raise LawBroken(f"raised {type(error).__name__}: {error}") from error


@contextlib.contextmanager
def _limited(seconds):
    """TooSlow after so many seconds, where the system can interrupt (POSIX, main thread)."""
    if not seconds or not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_):
        raise TooSlow(f"a call took more than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


class NotOffered(Exception):
    """A law asked for what the target does not have."""


class _Cotangents(dict):
    """{name: cotangent}; one of an optional argument that the target does not give is no fault of its."""

    def __missing__(self, name):
        raise NotOffered(name)


class Widened(LawBroken):
    """The output has a wider float dtype than the input."""


class Impl:
    """Calls a target on cases; one instance serves one run of one law."""

    def __init__(self, spec, target, *, backend="numpy", form="fused", dtype="float64", guarded=True):
        self.spec, self.target, self.form = spec, target, form
        self.backend, self.dtype, self.guarded = backends.get(backend), np.dtype(dtype), guarded
        self._earlier: list = []  # (array, copy) of the last outputs
        self._given: list = []  # and of the last inputs, by name

    def __call__(self, c):
        """The function's result on case `c`: arrays (or a tree of them) in NumPy."""
        fields = self._fields(c)
        before = _snapshot(fields)
        args = [fields[n] for n in c.args if n in fields]
        options = {n: fields[n] for n in c.options if n in fields}
        with autodiff.forms(self.form), _judged(self.target.limit):
            raw = self.target.function(*args, **options)
            out = self._back(raw)
        if self.guarded:
            self._guard_untouched(before)
            self._guard_fresh([raw, out], fields)
        if self.target.foreign:
            out = self._lawful_tree(out, c)
        if self.guarded:
            self._guard_output(out, c)
        return out

    def vjp(self, c, g):
        """{name: cotangent} of the case's gradient arguments under the output cotangent `g`."""
        names = [n for n in self.spec.grads if n in c and c[n] is not None and not hasattr(c[n], "tile")]
        fields = self._fields(c)
        g = _map(lambda a: self._carry(np.asarray(a, self.dtype), c), g)
        before = _snapshot({**fields, "the cotangent": g})
        with autodiff.forms(self.form), _judged(self.target.limit):
            if self.target.vjp is not None:
                args = [fields[n] for n in c.args if n in fields]
                found = self.target.vjp(g, *args, **{n: fields[n] for n in c.options if n in fields})
                found = found if isinstance(found, dict) else dict(zip(self.spec.grads, found, strict=False))
            else:
                self._require_differentiable("vjp")
                _, pull = autodiff.vjp(self._closure(c, fields, names), *(fields[n] for n in names))
                found = dict(zip(names, pull(g), strict=True))
            missing = [n for n in names if found.get(n) is None and n in c.args]
            if missing:
                raise ValueError(f"the vjp gives no cotangent of {', '.join(missing)}")
            out = _Cotangents({n: self._back(found[n]) for n in names if found.get(n) is not None})
        if self.guarded:
            self._guard_untouched(before)
            self._guard_fresh([found, out], fields, may_repeat=True)
            for n in out:
                for found, given in zip(leaves(out[n]), leaves(c[n]), strict=True):
                    _guard_shape(f"gradient of {n}", found, given.shape, self.dtype, self.spec.id)
        return out

    def jvp(self, c, tangents):
        """The output tangent under {name: tangent}."""
        self._require_differentiable("jvp")
        names = list(tangents)
        fields = self._fields(c)
        directions = [self._carry(np.asarray(tangents[n], self.dtype), c) for n in names]
        with autodiff.forms(self.form), _judged():
            primals = [fields[n] for n in names]
            _, out = autodiff.jvp(self._closure(c, fields, names), primals, directions)
        return self._back(out)

    def _fields(self, c):
        """What the target is called with, carried over; an option it lacks must have its default and is left out."""
        fields = c.call_fields()
        for name in self.target.lacks:
            value, default = fields.pop(name, None), self.spec.defaults.get(name)
            if value is not None and (isinstance(value, np.ndarray) or value != default):
                raise NotOffered(name)
        return {n: self._carry(v, c) for n, v in fields.items()}

    def _require_differentiable(self, need):
        if not self.target.differentiable:
            raise NotOffered(need)

    def _closure(self, c, fields, names):
        def call(*values):
            given = {**fields, **dict(zip(names, values, strict=True))}
            args = [given[n] for n in c.args if n in given]
            return self.target.function(*args, **{n: given[n] for n in c.options if n in given})

        return call

    def _carry(self, value, c):
        if isinstance(value, np.ndarray):
            same = self.backend.name == "numpy"
            return value if same else self.backend.from_numpy(value.copy(order="C"))
        if hasattr(value, "tile") and self.target.foreign:
            return np.array(value.tile(np, np.arange(c.T), np.arange(c.S), c.T, c.S))
        if not _is_tree(value):
            return value
        # Arithmetic turns an array without axes into a scalar: in a tree of arrays it is an array again.
        return _map(lambda v: self._carry(np.asarray(v) if isinstance(v, np.floating) else v, c), value)

    def _back(self, value):
        if _is_tree(value):
            return _map(self._back, value)
        if autodiff.is_tensor(value):
            value = autodiff.raw(value)
        if isinstance(value, np.ndarray | np.generic):
            return np.asarray(value)
        if isinstance(value, self.backend.array_class):
            return self.backend.to_numpy(value)
        return np.asarray(value) if hasattr(value, "shape") else value

    def _lawful_tree(self, out, c):
        """The same numbers in the containers that the laws read: a list of outputs as a tuple, a state as its class."""
        entries = self.spec.signature.outputs
        if len(entries) > 1 and isinstance(out, list):
            out = tuple(out)
        if len(entries) > 1 and isinstance(out, tuple) and len(out) == len(entries):
            return tuple(_like(c.get(e.name), x) if e.kind == "tree" else x for e, x in zip(entries, out, strict=True))
        return out

    def _guard_untouched(self, before):
        for name, array, old in before:
            if old.tobytes() != np.asarray(self._back(array)).tobytes():
                raise LawBroken(f"guard: the input {name} was changed in place")
        for name, array, old in self._given:
            if old.tobytes() != np.asarray(self._back(array)).tobytes():
                raise LawBroken(f"guard: an earlier call's input {name} was changed")
        self._given = (self._given + before)[-8:]

    def _guard_fresh(self, results, fields, may_repeat=False):
        outs = {id(a): a for a in leaves(results) if isinstance(a, np.ndarray) and a.size}.values()
        given = [(n, a) for n, value in fields.items() for a in leaves(value) if isinstance(a, np.ndarray)]
        for out in outs:
            for name, leaf in given:
                if np.may_share_memory(out, leaf):
                    raise LawBroken(f"guard: the output shares memory with the input {name}")
            for old, _ in () if may_repeat else self._earlier:
                if np.may_share_memory(out, old):
                    raise LawBroken("guard: the output is an earlier call's output")
        for old, copy in self._earlier:
            if old.tobytes() != copy.tobytes():
                raise LawBroken("guard: an earlier call's output was changed")
        self._earlier = (self._earlier + [(o, o.copy()) for o in outs])[-8:]

    def _guard_output(self, out, c):
        entries, outs = self.spec.signature.outputs, [out]
        if len(entries) > 1:
            if not isinstance(out, tuple) or len(out) != len(entries):
                raise LawBroken(f"guard: {len(entries)} outputs wanted, got {type(out).__name__}")
            outs = list(out)
        clean = not any(_has_nonfinite(v) for v in leaves(list(c.call_fields().values())))
        for entry, leaf in zip(entries, outs, strict=True):
            label = f"output {entry.name}".strip()
            if entry.kind == "tree":
                self._guard_tree(entry.name, leaf, c)
                continue
            dtype = self.dtype if entry.kind == "float" else None
            _guard_shape(label, leaf, entry.shape(_sizes(self.spec, c)), dtype, self.spec.id)
            if entry.kind not in ("float", "any") and kind_of(leaf.dtype) != entry.kind:
                raise LawBroken(f"guard: {label} has dtype {leaf.dtype}, wanted {entry.kind}")
            if clean and leaf.dtype.kind == "f":
                if np.isnan(leaf).any():
                    raise LawBroken(f"guard: {label} has NaN, and no input had")
                if not self.spec.infinite and not np.isfinite(leaf).all():
                    raise LawBroken(f"guard: {label} has an infinity, and no input had")

    def _guard_tree(self, name, found, c):
        """A state or a list that came in goes out with the same shapes and dtypes."""
        given = c.get(name)
        if not _is_tree(given):
            return
        before, after = leaves(given), leaves(found)
        if len(before) != len(after) or isinstance(given, dict) != isinstance(found, dict):
            raise LawBroken(f"guard: output {name} has {len(after)} entries, wanted {len(before)}")
        for old, new in zip(before, after, strict=True):
            if isinstance(old, np.ndarray):
                _guard_shape(f"an entry of {name}", new, old.shape, old.dtype, self.spec.id)


def _like(given, found):
    """A plain tuple, list or dict as the NamedTuple that was given, where the entries agree."""
    fields = getattr(given, "_fields", None)
    if fields is None or isinstance(found, type(given)):
        return found
    if isinstance(found, dict):
        found = [found[n] for n in fields] if found.keys() == set(fields) else None
    if not isinstance(found, tuple | list) or len(found) != len(fields):
        raise LawBroken(f"guard: the state is no {type(given).__name__}{fields}, nor a tuple, list or dict of these")
    return type(given)(*found)


def _sizes(spec, c):
    """Axis sizes read off the arrays of the case (a replaced array may have changed them)."""
    sizes = {n: c[n] for e in (*spec.signature.inputs, *spec.signature.outputs)
             for n in (a.lstrip("*") for a in e.axes) if n in c}
    for entry in spec.signature.inputs:
        value = c.get(entry.name)
        if hasattr(value, "_asdict"):
            sizes.update(value._asdict())  # a config names sizes too
        if isinstance(value, np.ndarray):
            fixed = [a for a in entry.axes if not a.startswith("*")]
            split = value.ndim - len(fixed)
            sizes.update(zip(fixed, value.shape[split:], strict=True))
            if len(fixed) < len(entry.axes):
                sizes[entry.axes[0][1:]] = value.shape[:split]
    return sizes


def _guard_shape(label, array, shape, dtype, id):
    if not isinstance(array, np.ndarray):
        raise LawBroken(f"guard: {label} is a {type(array).__name__}, wanted an array")
    if array.shape != tuple(shape):
        raise LawBroken(f"guard: {label} has shape {array.shape}, wanted {tuple(shape)}")
    if dtype is not None and array.dtype != dtype:
        wider = array.dtype.kind == "f" and array.dtype.itemsize > np.dtype(dtype).itemsize
        raise (Widened if wider else LawBroken)(f"guard: {label} has dtype {array.dtype}, wanted {dtype}")


def _has_nonfinite(value):
    return isinstance(value, np.ndarray) and value.dtype.kind == "f" and not np.isfinite(value).all()


def _is_tree(value):
    return isinstance(value, tuple | list | dict)


def _map(f, tree):
    if isinstance(tree, dict):
        return {k: _map(f, v) for k, v in tree.items()}
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(*(_map(f, v) for v in tree))
    if isinstance(tree, tuple | list):
        return type(tree)(_map(f, v) for v in tree)
    return tree if tree is None else f(tree)


def leaves(tree):
    """The leaves of a tree of tuples, lists and dicts."""
    if isinstance(tree, dict):
        tree = list(tree.values())
    if isinstance(tree, tuple | list):
        return [leaf for item in tree for leaf in leaves(item)]
    return [tree]


def _snapshot(fields):
    return [
        (name, leaf, np.asarray(leaf).copy())
        for name, value in fields.items()
        for leaf in leaves(value)
        if hasattr(leaf, "shape") and isinstance(leaf, np.ndarray)
    ]


def own(spec):
    """The project's own implementation of a spec as a Target."""
    return Target(spec.id, spec.function, getattr(spec.function, "vjp", None))


def of_mutant(mutant):
    """A mutant as a Target; it is plain NumPy, so it has gradients only where it brings a vjp."""
    return Target(mutant.name, mutant.function, mutant.vjp, differentiable=False)


def lacks_of(spec, function):
    """The optional parameters of a spec that a function does not take; () if that cannot be told.

    Raises
    ------
    TypeError
        The function cannot be called with what every call passes.
    """
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return ()
    params = signature.parameters.values()
    positional, keyword = spec.parameters
    kinds = {p.kind for p in params}
    names = {p.name for p in params if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    places = sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) and p.name not in keyword for p in params)
    taken = positional if inspect.Parameter.VAR_POSITIONAL in kinds else positional[:places]
    options = [n for n in keyword if inspect.Parameter.VAR_KEYWORD in kinds or n in names]
    lacks = [n for n in (*positional, *keyword) if n not in (*taken, *options)]
    try:
        signature.bind(*taken, **dict.fromkeys(options))
        needed = [n for n in lacks if n not in spec.defaults]
        if needed:
            raise TypeError(f"it takes no {', '.join(needed)}")
    except TypeError as error:
        raise TypeError(f"{error}; {spec.id} is called as {inspect.signature(spec.function)}") from error
    return tuple(lacks)
