"""Wrong rules of the special functions, scans, convolutions and matrix primitives.

`edited` makes one from the right rule by changing a piece of its text.
"""

from __future__ import annotations

import inspect
import sys
import textwrap

import numpy as np

from autodiff.primitive import TABLE, fit
from tests.autodiff import laws


def edited(name, old, new, attribute="vjp"):
    """The rule of `name` with `old`, which stands in it once, replaced by `new`."""
    rule = getattr(TABLE[name], attribute)
    text = textwrap.dedent(inspect.getsource(rule))
    text = text[text.index("def ") :]
    assert text.count(old) == 1, (name, old, text.count(old))
    scope = dict(vars(sys.modules[rule.__module__]))
    scope["TABLE"] = TABLE
    exec(text.replace(old, new), scope)  # noqa: S102
    return scope[rule.__name__]


def unary(rule):
    return lambda xp, g, node: (rule(xp, g, node.saved[-1]),)


def _one_side(xp, g, node):
    (ex, ey), (x, z) = node.edges, (node.saved[0], node.saved[2])
    if ex is None or ey is None:
        return TABLE["hypot"].right(xp, g, node)
    return fit(xp, g * (x / z), ex), fit(xp, g * (x / z), ey)


def _by_division(xp, g, node):
    (x,) = node.saved
    axis = node.params["axis"]
    if node.params.get("include_initial"):
        g = g[(*(slice(None),) * (axis % x.ndim), slice(1, None), ...)]
    later = xp.flip(xp.cumulative_sum(xp.flip(g * xp.cumulative_prod(x, axis=axis), axis=axis), axis=axis), axis=axis)
    with np.errstate(all="ignore"):
        return (later / x,)


def _last_window_wins(xp, g, node):
    out = xp.overlap_add(g, node.edges[0].shape[-len(node.params["size"]) :], *_two(node))
    count = xp.overlap_add(xp.ones_like(g), node.edges[0].shape[-len(node.params["size"]) :], *_two(node))
    return (out / xp.where(count == 0.0, 1.0, count),)


def _two(node):
    return node.params["strides"], node.params["dilation"]


def _det_by_inverse(xp, g, node):
    x = node.saved[0]
    z = TABLE["det"](x)
    return ((g * z)[..., None, None] * xp.matrix_transpose(TABLE["inv"](x)),)


SLOPE, DUAL, TWICE = laws.slope, laws.duality, laws.double_backward

# (what is wrong, primitive, its rule, the law that sees it)
WRITTEN = [
    ("1 - z^2", "tan", unary(lambda xp, g, z: g * (1.0 - z * z)), SLOPE),
    ("1 + x^2 under the root", "asin", unary(lambda xp, g, x: g / xp.sqrt(x * x + 1.0)), SLOPE),
    ("sign", "acos", unary(lambda xp, g, x: g / xp.sqrt((1.0 - x) * (x + 1.0))), SLOPE),
    ("1 - x^2", "atan", unary(lambda xp, g, x: g / ((1.0 - x) * (x + 1.0))), laws.taylor),
    ("minus, as cos has", "cosh", unary(lambda xp, g, x: -(g * xp.sinh(x))), SLOPE),
    ("itself", "sinh", unary(lambda xp, g, x: g * xp.sinh(x)), SLOPE),
    ("no root", "asinh", unary(lambda xp, g, x: g / (x * x + 1.0)), SLOPE),
    ("x^2 + 1", "acosh", unary(lambda xp, g, x: g / xp.sqrt(x * x + 1.0)), SLOPE),
    ("x^2 - 1", "atanh", unary(lambda xp, g, x: g / ((x - 1.0) * (x + 1.0))), SLOPE),
    ("square for cube", "rsqrt", unary(lambda xp, g, z: g * (z * z * -0.5)), SLOPE),
    ("sign of erf", "erfc", unary(lambda xp, g, x: g * xp.exp(-(x * x)) * (2 / np.pi**0.5)), SLOPE),
    ("e^x for e^x - 1", "log1mexp", unary(lambda xp, g, x: g / xp.exp(x)), SLOPE),
    ("one order too far", "gammaln", unary(lambda xp, g, x: g * TABLE["polygamma"](x, n=1)), SLOPE),
    ("straight through", "floor", lambda xp, g, node: (g,), SLOPE),
    ("x for both sides", "hypot", _one_side, SLOPE),
    ("divides by the element", "cumulative_prod", _by_division, SLOPE),
    ("overlaps averaged", "windows", _last_window_wins, DUAL),
    ("det times inverse, wrong when singular", "det", _det_by_inverse, SLOPE),
]
# (what is wrong, primitive, the law that sees it, a piece of the right rule, what stands there instead)
EDITED = [
    ("order not raised", "polygamma", SLOPE, '["n"] + 1', '["n"]'),
    ("one doubling short", "cumulative_prod", SLOPE, "step < n:", "2 * step < n:"),
    ("its own factor too", "cumulative_prod", SLOPE, "[one, _part(before, axis, 0, n - 1)]", "[before]"),
    ("no mean taken off", "softmax", SLOPE, "weighted - z * xp", "weighted - z * 0.0 * xp"),
    ("z for exp z", "log_softmax", SLOPE, "xp.exp(node.saved[1])", "node.saved[1]"),
    ("starts at 0", "pad", DUAL, 'params["widths"]', 'params["widths"] and ((0, 0),) * len(node.edges[0].shape)'),
    ("steps and gaps swapped", "overlap_add", DUAL, 'p["strides"], p["dilation"]', 'p["dilation"], p["strides"]'),
    ("half of the weight's", "convolve", SLOPE, '["convolve_weight"](x, g,', '["convolve_weight"](x, g * 0.5,'),
    ("steps forgotten", "convolve", SLOPE, "_common(node)", "_common(node) | {'dilation': (1,) * (g.ndim - 2)}"),
    ("sign", "convolve_input", SLOPE, "(h, g, size", "(h, -g, size"),
    ("sign", "convolve_weight", SLOPE, '["convolve"](x, h,', '["convolve"](-x, h,'),
    ("whole diagonal", "cholesky", SLOPE, "(xp.tril(p) + xp.tril(p, k=-1)) * 0.5", "xp.tril(p)"),
    ("lower half alone", "cholesky", SLOPE, "return (symmetric(", "return (xp.tril("),
    ("not transposed", "inv", SLOPE, "turned(node.saved[1])", "node.saved[1]"),
    ("not transposed", "solve", SLOPE, '["solve"](turned(a), g), z', '["solve"](a, g), z'),
    ("upper stays upper", "solve_triangular", SLOPE, "turned(a), g, upper=not upper", "a, g, upper=upper"),
    ("other triangle too", "solve_triangular", SLOPE, ", xp.triu if upper else xp.tril", ""),
    ("sign of the bases", "cofactor", SLOPE, " * turn[..., None, None]", ""),
    ("diagonal alone", "cofactor", SLOPE, " - p * turned(m)", ""),
    ("not transposed", "logabsdet", SLOPE, 'turned(TABLE["inv"](x))', 'TABLE["inv"](x)'),
    ("not halved", "eigh", SLOPE, " * 0.5, gap", ", gap"),
    ("gap turned", "eigh", SLOPE, "(m - turned(m))", "(turned(m) - m)"),
    ("vectors left out", "eigh", TWICE, "g[..., 1:, :]", "(g[..., 1:, :] * 0.0)"),
    ("no null space, seen on tall ones", "svd", SLOPE, "if m > n:", "if False:"),
    ("no null space, seen on wide ones", "svd", SLOPE, "if n > m:", "if False:"),
    ("even half alone", "svd", SLOPE, "u @ (x + y + gs", "u @ (x + gs"),
    ("values left out", "svd", SLOPE, " + gs[..., None, :] * eye", ""),
    ("tril for both triangles", "qr", SLOPE, " + turned(xp.tril(t, k=-1))", ""),
    ("wide part dropped", "qr", SLOPE, "gq + (q @ r[..., m:]) @ turned(gy)", "gq + 0.0"),
]
MORE_MUTANTS = WRITTEN + [(what, name, edited(name, old, new), law) for what, name, law, old, new in EDITED]

# (primitive, its jvp with one edit): forward mode of its own, which must equal the derived one.
JVP_MUTANTS = [
    ("eigh", edited("eigh", "v @ turn]", "turned(v) @ turn]", "jvp")),
    ("svd", edited("svd", "v @ (x - y)", "v @ (x + y)", "jvp")),
    ("svd", edited("svd", "u @ p, s)", "0.5 * (u @ p), s)", "jvp")),
]
