"""Laws and mutants of group normalisation."""

from __future__ import annotations

import numpy as np

from ref.nn.common_laws import cotangent, roundings
from ref.spec import bounds, law, mutant
from ref.spec.cases import VALUES, Flag, batch, cases, choose, dims, rng

ID = "nn.group_norm"


def _maybe(name):
    return lambda draw, c: VALUES["normal"](rng(draw), (c.C,)) if c[name] else None


space = cases(
    ID,
    B=batch(2, 2, large=6),
    groups=dims(1, 3),
    k=dims(1, 3, large=8),
    C=lambda draw, c: c.groups * c.k,
    Y=dims(1, 3, large=8),
    X=dims(1, 3, large=8),
    eps=choose(1e-5, 1e-3, 0.25),
    has_weight=choose(True, False),
    has_bias=choose(True, False),
    weight=_maybe("has_weight"),
    bias=_maybe("has_bias"),
    values=("dyadic", "normal", "extreme"),
    unset={"weight": {"has_weight": False, "weight": None}, "bias": {"has_bias": False, "bias": None}},
    flags={
        "varied": Flag(lambda c: c.x.size > 0 and min(np.ptp(part) for _, part in parts(c)) >= 0.25,
                       {"B": choose((), (2,)), "Y": dims(2, 3)}),
        "several": Flag(lambda c: c.groups > 1 and c.k > 1 and c.Y != c.X and 0 not in c.B,
                        {"groups": dims(2, 3), "k": 2, "Y": 2, "X": 3, "B": choose((2,), (1, 2))}),
        "affine": Flag(lambda c: c.has_weight and c.has_bias, {"has_weight": True, "has_bias": True}),
        "bare": Flag(lambda c: not c.has_weight and not c.has_bias, {"has_weight": False, "has_bias": False}),
    },
)  # fmt: skip
plain = space.where(has_weight=False, has_bias=False)


def parts(c, x=None):
    """(where, entries) of every group of every image: `where` indexes x."""
    x = np.asarray(c.x if x is None else x, np.float64)
    for at in np.ndindex(x.shape[:-3]):
        for g in range(c.groups):
            where = (*at, slice(g * c.k, (g + 1) * c.k))
            yield where, x[where]


def standardised(c):
    """(u, 1 / sqrt(v + eps), error of u in roundings) by loops over groups; see layer_norm_laws for the error."""
    unit, r, lost = (np.zeros(c.x.shape) for _ in range(3))
    for where, part in parts(c):
        m = part.sum() / part.size
        v = ((part - m) ** 2).sum() / part.size
        r[where] = 1 / np.sqrt(v + c.eps if v + c.eps else 1.0)
        unit[where] = (part - m) * r[where]
        one = (part.size + 2) * np.abs(part).mean() * r[where] + np.abs(unit[where])
        lost[where] = one + np.abs(unit[where]) * ((np.abs(unit[where]) * one).mean() + part.size + 12)
    return unit, r, lost


def affine(c):
    w = np.ones(c.C) if c.weight is None else np.asarray(c.weight, np.float64)
    b = np.zeros(c.C) if c.bias is None else np.asarray(c.bias, np.float64)
    return w[:, None, None], b[:, None, None]


def near(c):
    unit, _, lost = standardised(c)
    w, b = affine(c)
    return roundings(c, 1, lost * np.abs(w) + 6 * (np.abs(unit * w) + np.abs(b)))


def size(c):
    unit, _, _ = standardised(c)
    w, b = affine(c)
    return float(np.max(np.abs(unit * w) + np.abs(b), initial=0.0))


@law(
    ID, "L1", closed_form=True,
    given=space.where(k=choose(1, 2), Y=1, X=lambda draw, c: 2 // c.k).reach("affine", "bare"),
    kills=["eps_outside_the_root", "eps_ignored", "variance_of_a_sample"],
)  # fmt: skip
def two_entries(impl, c, expect):
    "Groups of two entries a and b, h = (a - b) / 2: u = (h, -h) / sqrt(h^2 + eps)."
    wanted = np.zeros(c.x.shape)
    for where, part in parts(c):
        a, b = part.reshape(-1)
        h = (a - b) / 2
        wanted[where] = (np.array([h, -h]) / np.sqrt(h * h + c.eps)).reshape(part.shape)
    w, b = affine(c)
    expect(impl(c), wanted * w + b, near(c), scale=size(c))


@law(
    ID, "L2", closed_form=True, given=plain.where(varied=True).reach("several"),
    kills=["variance_of_a_sample", "channels_interleaved", "over_the_places_alone", "over_the_channels_alone"],
)  # fmt: skip
def groups_are_standardised(impl, c, expect):
    "w = 1, b = 0: each group of each image has mean 0 and mean of squares v / (v + eps)."
    out, limit = np.asarray(impl(c), np.float64), near(c)
    unit, r, _ = standardised(c)
    for where, part in parts(c, out):
        expect(part.mean(), 0.0, limit[where].mean(), "mean", scale=1.0)
        slack = 3 * (np.abs(unit[where]) * limit[where]).mean()
        expect((part * part).mean(), 1 - c.eps * r[where].flat[0] ** 2, slack, "mean of squares")
    expect.holds(True, "every group was looked at")


@law(
    ID, "L3", given=space.reach("several"), kills=["statistics_of_the_batch", "one_group"],
    passes_null=["zeros", "constant", "identity"],
)  # fmt: skip
def a_group_is_its_own(impl, c, expect):
    "Other numbers in one group of one image leave all other groups and images, to the bit."
    out = impl(c)
    for where, _ in parts(c):
        x = c.x.copy()
        x[where] = x[where] * 2 + 1
        other = np.ones(c.x.shape, bool)
        other[where] = False
        expect.same(impl(c.replace(x=x))[other], out[other], "the other groups")
    expect.same(out.shape, c.x.shape, "shape")


@law(
    ID, "L4", closed_form=True, given=space.where(varied=True, values=("dyadic", "normal")).reach("several"),
    kills=["variance_by_squares", "mean_not_subtracted"], passes_null=["zeros", "constant"],
)  # fmt: skip
def a_shift_of_a_group_is_invisible(impl, c, expect):
    "x + a_g, another a_g in each group: the same output, also for a_g near 1024."
    for a in (1.0, 1024.0):
        moved = c.replace(x=c.x + (a * (1 + np.arange(c.C) // c.k)).astype(c.dtype)[:, None, None])
        expect(impl(moved), impl(c), near(c) + near(moved), f"shifted by {a} (1 + g)", scale=size(c))


@law(
    ID, "L5", closed_form=True, given=plain.where(k=1, varied=True), kills=["one_group", "over_the_channels_alone"],
)  # fmt: skip
def one_channel_a_group_is_instance_norm(impl, c, expect):
    "G = C: every channel of every image has its own mean and variance over the places."
    x = np.asarray(c.x, np.float64)
    off = x - x.mean((-1, -2), keepdims=True)
    wanted = off / np.sqrt((off * off).mean((-1, -2), keepdims=True) + c.eps)
    expect(impl(c), wanted, near(c), scale=size(c))


@law(
    ID, "L6", given=space.where(has_weight=True, has_bias=True).reach("several"),
    kills=["bias_before_the_weight", "weight_by_group"],
)  # fmt: skip
def weight_and_bias_come_last(impl, c, expect):
    "y(x; w, b) = y(x; none, none) w_c + b_c, a channel at a time."
    w, b = affine(c)
    bare = c.replace(weight=None, bias=None)
    wanted = np.asarray(impl(bare), np.float64) * w + b
    expect(impl(c), wanted, near(c) + near(bare) * np.abs(w), scale=size(c))


@law(
    ID, "L7", closed_form=True, given=space.reach("several", "affine"),
    kills=["eps_outside_the_root", "eps_ignored", "channels_interleaved", "weight_by_group", "one_group",
           "statistics_of_the_batch", "over_the_places_alone", "over_the_channels_alone", "bias_before_the_weight",
           "always_in_float32"],
)  # fmt: skip
def equations_by_loops(impl, c, expect):
    "The equations in the header, a group of an image at a time."
    unit, _, _ = standardised(c)
    w, b = affine(c)
    expect(impl(c), unit * w + b, near(c), scale=size(c))


@law(
    ID, "L8", closed_form=True, needs=("vjp",),
    given=space.where(values=("dyadic", "normal")).reach("several", "affine"),
    kills=["mean_held_constant", "variance_held_constant", "bias_gradient_of_one_place"],
)  # fmt: skip
def gradient_is_the_closed_form(impl, c, expect):
    "dx = (g w)^T (I - 1 1^T / m - u u^T / m) / sqrt(v + eps) in each group of m entries; dw = sum g u, db = sum g."
    g = cotangent(c, c.x.shape)
    wide = np.asarray(g, np.float64)
    unit, r, lost = standardised(c)
    w, _ = affine(c)
    found, wanted, limit = impl.vjp(c, g), np.zeros(c.x.shape), np.zeros(c.x.shape)
    for where, part in parts(c):
        u, gw = unit[where], (wide * w)[where]
        wanted[where] = r[where] * (gw - gw.mean() - u * (gw * u).mean())
        most = np.abs(gw) + np.abs(gw).mean() + np.abs(u) * (np.abs(gw * u)).mean()
        err = lost[where]
        slack = err * np.abs(gw * u).mean() + np.abs(u) * (np.abs(gw) * (err + (part.size + 8) * np.abs(u))).mean()
        slack = slack + (part.size + 8) * most + most * ((np.abs(u) * err).mean() + part.size + 12)
        limit[where] = roundings(c, 1, r[where] * slack)
    top = float(np.max(r * np.abs(wide * w), initial=0)) * 4
    expect(found["x"], wanted, limit, "dx", scale=top)
    n = max(wide.size // max(c.C, 1), 1)
    for name, terms, error in (("weight", wide * unit, lost + (n + 8) * np.abs(unit)), ("bias", wide, n + 8.0)):
        if name in found:
            axes = tuple(i for i in range(wide.ndim) if i != wide.ndim - 3)
            size_ = np.abs(terms).sum(axes)
            expect(found[name], terms.sum(axes), roundings(c, 1, (np.abs(wide) * error).sum(axes)), f"d {name}",
                   scale=float(np.max(size_, initial=0)))  # fmt: skip


@law(
    ID, "L9", given=space.where(values=("extreme",), varied=True), kills=["squares_in_half"], dtypes=("float16",),
    passes_null=["wrong_dtype"],
)  # fmt: skip
def half_precision_does_not_overflow(impl, c, expect):
    "float16, |x| up to 60000: the output is that of float64, to float32 inside and the roundings of the result."
    c = c.replace(x=np.clip(c.x.astype(np.float64) * 2.0**8, -60000, 60000).astype(np.float16))
    unit, _, lost = standardised(c)
    w, b = affine(c)
    inside = bounds.rounding(1, lost * np.abs(w), "float32")
    tiny = 2.0**-24 * (1 + np.abs(w))  # half a subnormal, in the quotient and in the product
    expect(impl(c), unit * w + b, inside + roundings(c, 3, np.abs(unit * w) + np.abs(b)) + tiny, scale=size(c))


# Mutants ---------------------------------------------------------------------------------------------


def default(groups=1, C=4, Y=2, X=2, B=(3,), eps=1e-6, scale=1.0):
    """The default-size test: random images, weight 1, bias 0, a small eps."""

    def make():
        x = np.random.default_rng(0).standard_normal((*B, C, Y, X)) * scale
        return (x, np.ones(C), np.zeros(C)), {"groups": groups, "eps": eps}

    return make


def edited(x, weight, bias, groups, eps, *, split=None, axes=None, variance=None, root=None, wide=None, centre=None,
           last=None):  # fmt: skip
    """Group normalisation by reshaping, with parts that an edit replaces."""
    *B, C, Y, X = x.shape
    e = x.dtype.type(eps)
    inner = x if wide is None else wide(x)
    z = inner.reshape(*B, groups, C // groups, Y, X) if split is None else split(inner)
    axes = (-1, -2, -3) if axes is None else axes
    count = z.dtype.type(max(np.prod([z.shape[a] for a in axes]), 1))
    m = z.sum(axes, keepdims=True) / count
    off = z - m if centre is None else centre(z, m)
    v = (off * off).sum(axes, keepdims=True) / count if variance is None else variance(z, off, axes)
    u = off / (np.sqrt(v + e) if root is None else root(v, e))
    u = (u if split is None else np.swapaxes(u, -3, -4)).reshape(x.shape).astype(x.dtype)
    w, b = (1 if weight is None else weight[:, None, None]), (0 if bias is None else bias[:, None, None])
    return (u * w + b if last is None else last(u, w, b)).astype(x.dtype)


def _mutant(name, doc, default_case=None, **edit):
    def wrong(x, weight=None, bias=None, *, groups, eps=1e-5):
        return edited(x, weight, bias, groups, eps, **edit)

    wrong.__name__, wrong.__doc__ = name, doc
    mutant(ID, default_case=default_case or default())(wrong)


_mutant("eps_outside_the_root", "(x - m) / (std + eps).", root=lambda v, e: np.sqrt(v) + e)
_mutant("eps_ignored", "eps is accepted and dropped.", root=lambda v, e: np.sqrt(np.where(v > 0, v, 1)))
_mutant("variance_of_a_sample", "The variance divides by m - 1.", default(C=64, Y=64, X=64, B=()),
        variance=lambda z, off, axes: (off * off).sum(axes, keepdims=True)
        / max(np.prod([z.shape[a] for a in axes]) - 1, 1))  # fmt: skip
_mutant("variance_by_squares", "mean x^2 - m^2: cancels far from 0.",
        variance=lambda z, off, axes: np.maximum((z * z).mean(axes, keepdims=True)
                                                 - z.mean(axes, keepdims=True) ** 2, 0))  # fmt: skip
_mutant("mean_not_subtracted", "Root-mean-square normalisation of a group.",
        lambda: ((np.array([1.0, -1.0, 2.0, -2.0]).reshape(1, 4, 1, 1), None, None), {"groups": 1}),
        centre=lambda z, m: z)  # fmt: skip
_mutant("over_the_places_alone", "Instance normalisation.", default(groups=4), axes=(-1, -2))
_mutant("over_the_channels_alone", "Layer normalisation at each place.", default(Y=1, X=1), axes=(-3,))
_mutant("always_in_float32", "float32 inside whatever arrives.", wide=lambda x: x.astype(np.float32))
_mutant("squares_in_half", "Sums and squares in the dtype of the input: infinite above 255 in float16.")
_mutant("bias_before_the_weight", "(u + b) w: a bias of zeros does not tell.", last=lambda u, w, b: (u + b) * w)


@mutant(ID, default_case=default())
def channels_interleaved(x, weight=None, bias=None, *, groups, eps=1e-5):
    "Channel c belongs to group c mod G: one group does not tell."
    *B, C, Y, X = x.shape
    return edited(x, weight, bias, groups, eps,
                  split=lambda z: np.swapaxes(z.reshape(*B, C // groups, groups, Y, X), -3, -4))  # fmt: skip


@mutant(ID, default_case=default())
def one_group(x, weight=None, bias=None, *, groups, eps=1e-5):
    "groups is accepted and dropped: layer normalisation over the image."
    return edited(x, weight, bias, 1, eps)


@mutant(ID, default_case=default(B=(1,)))
def statistics_of_the_batch(x, weight=None, bias=None, *, groups, eps=1e-5):
    "Mean and variance over the images too, as batch normalisation has them."
    axes = (-1, -2, -3, *range(x.ndim - 3))
    return edited(x, weight, bias, groups, eps, axes=axes)


@mutant(ID, default_case=default())
def weight_by_group(x, weight=None, bias=None, *, groups, eps=1e-5):
    "Weight and bias of the first channel of each group for all of it."
    first = np.arange(x.shape[-3]) // (x.shape[-3] // groups) * (x.shape[-3] // groups)
    weight, bias = (None if a is None else a[first] for a in (weight, bias))
    return edited(x, weight, bias, groups, eps)


def _vjp_mutant(name, doc, *, mean=1, spread=1, places=True):
    def function(x, weight=None, bias=None, *, groups, eps=1e-5):
        return edited(x, weight, bias, groups, eps)

    def vjp(g, x, weight=None, bias=None, *, groups, eps=1e-5):
        *B, C, Y, X = x.shape
        z = x.reshape(*B, groups, -1)
        off = z - z.mean(-1, keepdims=True)
        r = 1 / np.sqrt((off * off).mean(-1, keepdims=True) + x.dtype.type(eps))
        u, gw = off * r, (g if weight is None else g * weight[:, None, None]).reshape(z.shape)
        dx = r * (gw - mean * gw.mean(-1, keepdims=True) - spread * u * (gw * u).mean(-1, keepdims=True))
        axes = tuple(i for i in range(x.ndim) if i != x.ndim - 3)
        db = g.sum(axes) if places else g[..., 0, 0].sum(tuple(range(x.ndim - 3)))
        return {"x": dx.reshape(x.shape).astype(x.dtype), "weight": (g * u.reshape(x.shape)).sum(axes).astype(x.dtype),
                "bias": db.astype(x.dtype)}  # fmt: skip

    function.__name__, function.__doc__ = name, doc
    mutant(ID, vjp=vjp, default_case=default())(function)


_vjp_mutant("mean_held_constant", "The term mean(g w) is forgotten.", mean=0)
_vjp_mutant("variance_held_constant", "The term u mean(g w u) is forgotten.", spread=0)
_vjp_mutant("bias_gradient_of_one_place", "db of the first place, not summed over all.", places=False)
