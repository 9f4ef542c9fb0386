"""Derivatives of products: matmul, vecdot, einsum."""

from __future__ import annotations

import math
import string
from typing import Any

from autodiff.primitive import conjugated, fit, primitive


@primitive("matmul", ((1,), (0,)), kind="multilinear")
def matmul(xp: Any, g: Any, node: Any) -> tuple:
    ea, eb = node.edges
    a, b = node.saved
    ga = None if ea is None else fit(xp, _left(xp, g, ea, b), ea)
    gb = None if eb is None else fit(xp, _right(xp, g, a, eb), eb)
    return ga, gb


def _left(xp: Any, g: Any, ea: Any, b: Any) -> Any:
    if len(ea.shape) == 1:
        if b.ndim == 1:
            return b * g
        return xp.sum(b * xp.expand_dims(g, axis=-2), axis=-1)
    if b.ndim == 1:
        return xp.expand_dims(g, axis=-1) * b
    return g @ xp.matrix_transpose(b)


def _right(xp: Any, g: Any, a: Any, eb: Any) -> Any:
    if len(eb.shape) == 1:
        if a.ndim == 1:
            return a * g
        return xp.sum(a * xp.expand_dims(g, axis=-1), axis=tuple(range(a.ndim - 1)))
    if a.ndim == 1:
        return xp.expand_dims(a, axis=-1) * xp.expand_dims(g, axis=-2)
    if len(eb.shape) == 2 and a.ndim > 2:
        # One product over all rows; a product a batch entry would have to be summed after.
        rows = math.prod(a.shape[:-1])
        a = xp.reshape(a, (rows, a.shape[-1]))
        g = xp.reshape(g, (rows, g.shape[-1]))
    return xp.matrix_transpose(a) @ g


@primitive("vecdot", ((1,), (0,)), kind="multilinear")
def vecdot(xp: Any, g: Any, node: Any) -> tuple:
    ex, ey = node.edges
    x, y = node.saved
    g = xp.expand_dims(g, axis=node.params.get("axis", -1))
    # The first argument is conjugated: Re(g conj(u) y) = Re(conj(g y) u).
    gx = None if ex is None else fit(xp, conjugated(xp, y * g), ex)
    gy = None if ey is None else fit(xp, conjugated(xp, x) * g, ey)
    return gx, gy


@primitive(
    "einsum",
    "others",
    forward=lambda xp, *xs, subscripts: xp.einsum(subscripts, *xs),
    kind="multilinear",
)
def einsum(xp: Any, g: Any, node: Any) -> tuple:
    """Another einsum: the operand's letters become the output, the output's an input."""
    *terms, out = node.params["subscripts"].replace("->", ",").split(",")
    return tuple(
        None if edge is None else fit(xp, _operand(xp, g, terms, out, i, node), edge)
        for i, edge in enumerate(node.edges)
    )


def _operand(xp: Any, g: Any, terms: list, out: str, i: int, node: Any) -> Any:
    names = [t for j, t in enumerate(terms) if j != i]
    values = [v for j, v in enumerate(node.saved) if j != i]
    fresh = iter(sorted(set(string.ascii_letters) - set("".join((*terms, out)))))
    known = set("".join((*names, out)))
    target = ""
    for letter, n in zip(terms[i], node.edges[i].shape, strict=True):
        if letter in target:
            # A letter that stands twice reads a diagonal: its cotangent lives there alone.
            twin = next(fresh)
            names.append(letter + twin)
            values.append(xp.eye(n, dtype=g.dtype))
            target += twin
            continue
        if letter not in known:
            names.append(letter)
            values.append(xp.ones((n,), dtype=g.dtype))
            known.add(letter)
        target += letter
    return xp.einsum(",".join((out, *names)) + "->" + target, g, *values)


def spell_out(subscripts: str, shapes: list[tuple]) -> tuple[str, list[tuple]]:
    """Subscripts without ellipsis and with an output; shapes without the axes that broadcast."""
    text = subscripts.replace(" ", "")
    left, arrow, out = text.partition("->")
    terms = left.split(",")
    if len(terms) != len(shapes):
        raise ValueError(
            f"einsum: {subscripts!r} names {len(terms)} operands, {len(shapes)} arrived"
        )
    if not arrow:
        letters = left.replace(",", "").replace("...", "")
        once = sorted(c for c in set(letters) if letters.count(c) == 1)
        out = ("..." if "..." in left else "") + "".join(once)
    if "..." not in left:
        return ",".join(terms) + "->" + out, shapes
    spare = [c for c in string.ascii_letters if c not in text]
    wide = 0
    sizes: dict[str, int] = {}
    hidden = []
    for term, shape in zip(terms, shapes, strict=True):
        at = term.find("...")
        width = len(shape) - len(term.replace("...", "")) if at >= 0 else 0
        wide = max(wide, width)
        mine = dict(zip(reversed(spare[:width]), shape[at : at + width], strict=True))
        hidden.append(mine)
        for c, n in mine.items():
            if n != 1 and sizes.setdefault(c, n) != n:
                raise ValueError(f"einsum: {subscripts!r} broadcasts {sizes[c]} with {n}")
    new_terms, new_shapes = [], []
    for term, shape, mine in zip(terms, shapes, hidden, strict=True):
        kept = [c for c, n in mine.items() if n != 1 or c not in sizes]
        at = term.find("...")
        new_terms.append(term.replace("...", "".join(kept)))
        middle = tuple(mine[c] for c in kept)
        new_shapes.append(shape[:at] + middle + shape[at + len(mine) :] if mine else shape)
    if wide and "..." not in out:
        raise ValueError(f"einsum: {subscripts!r} has '...' in an operand, not in the output")
    dots = "".join(reversed(spare[:wide]))
    return ",".join(new_terms) + "->" + out.replace("...", dots), new_shapes
