"""Implementations that compute nothing: no algorithm's set of laws may pass one of them.

Source: the ways in which kernel benchmarks were fooled (KernelBench issues: zeros passed, NaN matched
anything, a cached output was returned).
"""

from __future__ import annotations

import numpy as np

from ref.conform.impl import Target, _map, _sizes, leaves
from ref.spec.cases import Case

NUMBERS = ("zeros", "constant", "identity")  # at least one closed-form law must kill each of these


def _outputs(spec, c, fill):
    """Arrays of the signature's shapes and dtypes, made by `fill(shape, dtype)`."""
    kinds = {"int": np.int64, "bool": np.bool_}
    sizes = _sizes(spec, c)
    made = [fill(e.shape(sizes), kinds.get(e.kind, c.dtype)) for e in spec.signature.outputs]
    return made[0] if len(made) == 1 else tuple(made)


def _gradients(spec, c, fill):
    return {n: _map(lambda a: fill(a.shape, a.dtype), c[n]) for n in spec.grads if n in c and c[n] is not None}


def _identity_fill(c):
    source = next((c[n] for n in c.args if isinstance(c[n], np.ndarray) and c[n].size), np.zeros(1))
    return lambda shape, dtype: np.resize(source, shape).astype(dtype)


def nulls(spec):
    """{name: Target} of the null implementations of an algorithm.

    zeros, constant (a non-zero one), identity (the first input, repeated to the output's shape), nan,
    mutated (the right answer, after the input was overwritten), wrong_dtype, cached (the first answer,
    for ever).
    """
    if any(e.kind == "tree" for e in spec.signature.outputs):
        return _tree_nulls(spec)
    fills = {
        "zeros": lambda c: np.zeros,
        "constant": lambda c: lambda shape, dtype: np.full(shape, 1, dtype),
        "identity": _identity_fill,
        "nan": lambda c: lambda s, d: np.full(s, np.nan if np.dtype(d).kind == "f" else 0, d),
    }
    made = {name: _filled(spec, name, fill) for name, fill in fills.items()}
    return {**made, **_wrapped(spec)}


def _filled(spec, name, fill):
    def function(*args, **options):
        c = _case(spec, args, options)
        return _outputs(spec, c, fill(c))

    def vjp(g, *args, **options):
        c = _case(spec, args, options)
        return _gradients(spec, c, fill(c))

    return Target(name, function, vjp)


def _wrapped(spec):
    """Nulls that do the work and spoil it."""

    def mutated(*args, **options):
        out = _map(np.copy, spec.function(*args, **options))
        for a in leaves(args):
            if isinstance(a, np.ndarray) and a.size:
                a[...] = 0
                break
        return out

    def wrong_dtype(*args, **options):
        other = {"f": np.float16, "i": np.float64, "b": np.int8}
        return _map(lambda a: a.astype(other[a.dtype.kind]), _map(np.asarray, spec.function(*args, **options)))

    kept = []

    def cached(*args, **options):
        if not kept:
            kept.append(spec.function(*args, **options))
        return kept[0]

    return {f.__name__: Target(f.__name__, f, differentiable=False) for f in (mutated, wrong_dtype, cached)}


def _tree_nulls(spec):
    """For algorithms that return a state: the same nulls over the leaves of the true result's tree."""

    def leafwise(name, change):
        def function(*args, **options):
            return _map(lambda a: change(np.asarray(a)), spec.function(*args, **options))

        return Target(name, function, differentiable=False)

    positional = spec.parameters[0]

    def identity(*args, **options):
        given = dict(zip(positional, args, strict=False))
        outs = [given.get(e.name, args[0]) for e in spec.signature.outputs]
        return outs[0] if len(outs) == 1 else tuple(outs)

    made = {
        "zeros": leafwise("zeros", np.zeros_like),
        "constant": leafwise("constant", np.ones_like),
        "identity": Target("identity", lambda *a, **o: _map(np.copy, identity(*a, **o)), differentiable=False),
        "nan": leafwise("nan", lambda a: np.full_like(a, np.nan if a.dtype.kind == "f" else 0)),
    }
    return {**made, **_wrapped(spec)}


def _case(spec, args, options):
    positional, _ = spec.parameters
    return Case(spec, {**dict(zip(positional, args, strict=False)), **options})
