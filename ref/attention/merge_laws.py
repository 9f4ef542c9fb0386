"""Laws and mutants of merging the states of two parts of the keys."""

from __future__ import annotations

import numpy as np

from ref.attention.common_laws import softmax_of
from ref.attention.merge import State, merge
from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, batch, cases, choose, dims, rng

ID = "attention.merge"
NAMES = ("m1", "l1", "o1", "m2", "l2", "o2")


def _part(draw, c, which):
    """A part's maxima, sums and weighted sums; where it saw nothing (-inf, 0, 0)."""
    g = rng(draw)
    nothing = g.random(c.B) < c.nothing[which]
    m = np.where(nothing, -np.inf, g.integers(-16, 17, c.B) / 4)
    size = np.where(nothing, 0, g.integers(1, 9, c.B) / 4)
    return m, size, np.where(nothing[..., None], 0, g.integers(-8, 9, (*c.B, c.e)) / 4.0)


def _fields(which):
    def first(draw, c):
        c[f"part{which}"] = _part(draw, c, which)
        return c[f"part{which}"][0]

    return {f"m{which + 1}": first, f"l{which + 1}": lambda draw, c: c[f"part{which}"][1],
            f"o{which + 1}": lambda draw, c: c[f"part{which}"][2]}  # fmt: skip


def _some(c):
    return c.m1.size > 0


states = cases(
    ID, B=batch(2, 3, large=80), e=dims(0, 4, large=140),
    nothing=choose((0.0, 0.0), (0.5, 0.5), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0)),
    **_fields(0), **_fields(1), seed=lambda draw, c: rng(draw).integers(1 << 30),
    flags={
        "both_nothing": Flag(lambda c: _some(c) and bool((np.isinf(c.m1) & np.isinf(c.m2)).any()),
                             {"nothing": (1.0, 1.0), "B": choose((), (2,))}),
        "one_nothing": Flag(lambda c: _some(c) and bool((np.isinf(c.m1) != np.isinf(c.m2)).any()),
                            {"nothing": (1.0, 0.0), "B": choose((), (2,))}),
        "no_rows": Flag(lambda c: 0 in c.B, {"B": choose((0,), (2, 0))}),
        "apart": Flag(lambda c: not (c.m1 == c.m2).any()),
        "some": Flag(_some, {"B": choose((), (1,), (2,), (3, 2)), "e": dims(1, 4, large=140)}),
    },
)  # fmt: skip
full = states.where(nothing=(0.0, 0.0), some=True)


def first(c):
    return c.m1, c.l1, c.o1


def second(c):
    return c.m2, c.l2, c.o2


def joined(impl, c, a, b):
    """impl's merge of two states."""
    given = dict(zip(NAMES, (*a, *b), strict=True))
    return impl(c.replace(**{n: np.asarray(x, c.dtype) for n, x in given.items()}, e=a[2].shape[-1], B=a[0].shape))


def sums(c, *parts):
    """(m, l, o) of the parts by their definition, in float64, and the sums of magnitudes that bound the errors."""
    parts = [[np.asarray(x, np.float64) for x in part] for part in parts]
    m = np.max([part[0] for part in parts], 0)
    top = np.where(np.isinf(m), 0, m)
    weights = [np.exp(part[0] - top) for part in parts]
    total = sum(w * part[1] for w, part in zip(weights, parts, strict=True))
    o = sum(w[..., None] * part[2] for w, part in zip(weights, parts, strict=True))
    size = sum(w[..., None] * np.abs(part[2]) for w, part in zip(weights, parts, strict=True))
    return (m, total, o), (total, size)


def error(c, size, steps=1):
    """A step rounds a difference of maxima (x e^-x <= 1), an exponential, a product and a sum."""
    return bounds.rounding(11 * steps, size, c.dtype)


def expect_state(expect, c, found, wanted, sizes, steps=1):
    """m to the bit; l and o to bounds, even where every factor is e^0.

    A kernel that forms 2^(fma(m_1, log2 e, -m log2 e)) rounds the product on one side alone, so its e^0 is 1 + u.
    """
    expect.same(found[0], wanted[0].astype(c.dtype), "m")
    expect(found[1], wanted[1], error(c, sizes[0], steps), "l", scale=np.max(sizes[0], initial=1.0))
    expect(found[2], wanted[2], error(c, sizes[1], steps), "o", scale=np.max(sizes[1], initial=1.0))


@law(ID, "L1", closed_form=True, given=states.reach("both_nothing", "one_nothing", "no_rows"), kills=["nan_of_nothing"])
def nothing_is_the_identity(impl, c, expect):
    "(-inf, 0, 0) merged with a state, on either side, is that state; with itself too."
    for a in (first(c), second(c)):
        empty = (np.full_like(a[0], -np.inf), np.zeros_like(a[1]), np.zeros_like(a[2]))
        for found in (joined(impl, c, a, empty), joined(impl, c, empty, a)):
            expect_state(expect, c, found, a, (a[1], np.abs(a[2])))


@law(ID, "L2", closed_form=True, given=full, kills=["averaged", "first_part_alone"])
def equal_maxima_add(impl, c, expect):
    "m_1 = m_2: (m, l_1 + l_2, o_1 + o_2)."
    wanted = c.m1, c.l1.astype(float) + c.l2, c.o1.astype(float) + c.o2
    expect_state(expect, c, impl(c.replace(m2=c.m1.copy())), wanted, (wanted[1], np.abs(c.o1) + np.abs(c.o2)))


@law(
    ID, "L3", closed_form=True, given=states.where(e=dims(1, 4, large=140)),
    kills=["o_not_rescaled", "l_not_rescaled", "second_maximum_taken", "base_two"],
)  # fmt: skip
def sums_of_exponentials_add(impl, c, expect):
    "m = max, l e^m = l_1 e^{m_1} + l_2 e^{m_2}, o e^m = o_1 e^{m_1} + o_2 e^{m_2}."
    expect_state(expect, c, impl(c), *sums(c, first(c), second(c)))


@law(
    ID, "L4", given=states.reach("one_nothing"), kills=["second_maximum_taken", "first_part_alone"],
    passes_null=["zeros", "constant"],
)  # fmt: skip
def order_is_immaterial(impl, c, expect):
    "merge(a, b) = merge(b, a)."
    _, sizes = sums(c, first(c), second(c))
    wanted = joined(impl, c, second(c), first(c))
    expect_state(expect, c, impl(c), wanted, sizes, steps=2)


@law(
    ID, "L5", given=states.reach("one_nothing"), kills=["averaged"],
    passes_null=["zeros", "constant", "identity"],
)  # fmt: skip
def grouping_is_immaterial(impl, c, expect):
    "merge(merge(a, b), z) = merge(a, merge(b, z))."
    m, size, o = second(c)
    shift = np.asarray(1.5 - np.arange(m.size).reshape(m.shape) % 4, c.dtype)
    a, b, z = first(c), second(c), (m[...] + shift, size[...] * c.dtype.type(2), -o)
    _, sizes = sums(c, a, b, z)
    left = joined(impl, c, joined(impl, c, a, b), z)
    right = joined(impl, c, a, joined(impl, c, b, z))
    expect_state(expect, c, left, right, sizes, steps=4)


@law(
    ID, "L6", closed_form=True, given=states.where(B=(), e=dims(1, 3)),
    kills=["o_not_rescaled", "l_not_rescaled", "averaged", "nan_of_nothing", "base_two"],
)  # fmt: skip
def any_partition_gives_the_whole(impl, c, expect):
    "Keys cut into any parts (empty ones too), merged in any order: o / l is softmax(s) V, m + log l is logsumexp s."
    g = np.random.default_rng(c.seed)
    n = int(g.integers(0, 9))
    s, v = g.integers(-32, 33, n) / 4.0, g.integers(-8, 9, (n, c.e)) / 4.0
    owner = g.integers(0, 4, n)
    pool = [_state(s[owner == i], v[owner == i]) for i in range(4)]
    while len(pool) > 1:
        pool = [pool[i] for i in g.permutation(len(pool))]
        pool = [tuple(joined(impl, c, pool[0], pool[1])), *pool[2:]]
    m, total, o = (np.asarray(x, np.float64) for x in pool[0])
    lse = np.logaddexp.reduce(s, initial=-np.inf)
    relative = error(c, 8.0 + n, steps=4)
    expect(m + np.log(total) if total else m, lse, relative + bounds.rounding(3, 9, c.dtype), "lse", scale=9.0)
    expect(o / (total if total else 1), softmax_of(s) @ v, 2 * 2 * relative, "o / l", scale=2.0)


def _state(s, v):
    m = np.max(s, initial=-np.inf)
    p = np.exp(s - m)
    return m, p.sum(), p @ v


@law(ID, "L7", given=states.where(e=dims(1, 4, large=140)).reach("one_nothing", "both_nothing"),
     kills=["empty_part_by_multiplying"], passes_null=["zeros", "constant", "identity"])  # fmt: skip
def junk_of_an_empty_part_is_invisible(impl, c, expect):
    "Where m is -inf, o may hold NaN, infinities or 1e30: no bit of the result changes."
    junk = np.array([np.nan, np.inf, -np.inf, 1e30])[np.arange(c.e) % 4]
    pairs = (("o1", "m1"), ("o2", "m2"))
    spoilt = {o: np.where(np.isinf(c[m])[..., None], junk, c[o]).astype(c.dtype) for o, m in pairs}
    for name, x, y in zip("mlo", impl(c.replace(**spoilt)), impl(c), strict=True):
        expect.same(x, y, name)


@law(ID, "L8", closed_form=True, given=full, kills=["no_maximum"])
def a_far_part_vanishes(impl, c, expect):
    "m_2 = m_1 + 1e4, or 1e4 below: the higher part."
    for sign in (1, -1):
        far = c.replace(m2=(c.m1 + sign * c.dtype.type(1e4)).astype(c.dtype))
        wanted = second(far) if sign > 0 else first(far)
        expect_state(expect, c, impl(far), wanted, (wanted[1], np.abs(wanted[2])))


@law(
    ID, "L9", closed_form=True, needs=("vjp",), given=full.where(apart=True),
    kills=["gradient_misses_the_maximum", "gradient_not_rescaled"],
)  # fmt: skip
def gradient_is_the_closed_form(impl, c, expect):
    """With w_i = e^{m_i - m} and t_i = w_i (g_l l_i + <g_o, o_i>): dl_i = w_i g_l, do_i = w_i g_o; dm of the
    smaller maximum is its t_i, of the larger g_m minus the other's t."""
    n = c.m1.size
    g = [np.cos(k + np.arange(n)).reshape(c.m1.shape) for k in (0.0, 1.0)]
    g.append(np.cos(2.0 + np.arange(n * c.e)).reshape(c.o1.shape))
    found = impl.vjp(c, State(*g))
    m1, l1, o1, m2, l2, o2 = (np.asarray(c[x], np.float64) for x in NAMES)
    m = np.maximum(m1, m2)
    w = np.exp(m1 - m), np.exp(m2 - m)
    t = [x * (g[1] * y + (g[2] * z).sum(-1)) for x, y, z in zip(w, (l1, l2), (o1, o2), strict=True)]
    size = np.abs(l1) + np.abs(l2) + np.abs(o1).sum(-1) + np.abs(o2).sum(-1) + 1
    for i, other, larger in ((0, 1, m1 > m2), (1, 0, m2 > m1)):
        limit = bounds.rounding(11 + 4 * c.e, size, c.dtype)
        expect(found[f"m{i + 1}"], np.where(larger, g[0] - t[other], t[i]), limit, f"dm{i + 1}", scale=size)
        expect(found[f"l{i + 1}"], w[i] * g[1], error(c, np.abs(w[i] * g[1])), f"dl{i + 1}")
        expect(found[f"o{i + 1}"], w[i][..., None] * g[2], error(c, np.abs(w[i][..., None] * g[2])), f"do{i + 1}")


# Mutants ---------------------------------------------------------------------------------------------


def default(gap=0.0, rows=3):
    """The default-size test: two parts of a few rows, their maxima `gap` apart."""

    def make():
        g = np.random.default_rng(0)
        m = g.standard_normal(rows)
        parts = [(m + k * gap, g.random(rows) + 1, g.standard_normal((rows, 2))) for k in range(2)]
        return (*parts[0], *parts[1]), {}

    return make


def edited(m1, l1, o1, m2, l2, o2, *, top=np.maximum, exp=np.exp, guard=True, select=True, rescale="lo"):
    """The merge with one of its parts replaced."""
    m = top(m1, m2)
    base = np.where(np.isneginf(m), 0, m) if guard else m
    w1, w2 = exp(m1 - base), exp(m2 - base)
    if select:
        o1, o2 = (np.where(np.isneginf(x)[..., None], 0, o) for x, o in ((m1, o1), (m2, o2)))
    one = np.ones_like(w1)
    v1, v2 = (w1, w2) if "o" in rescale else (one, one)
    w1, w2 = (w1, w2) if "l" in rescale else (one, one)
    out = m, l1 * w1 + l2 * w2, o1 * v1[..., None] + o2 * v2[..., None]
    return tuple(np.asarray(x, np.asarray(m1).dtype) for x in out)


@mutant(ID, default_case=default(gap=0.5))
def nan_of_nothing(*parts):
    "(-inf) - (-inf) where both parts saw nothing."
    return edited(*parts, guard=False)


@mutant(ID, default_case=default())
def o_not_rescaled(*parts):
    "The weighted sums are added as they are."
    return edited(*parts, rescale="l")


@mutant(ID, default_case=default())
def l_not_rescaled(*parts):
    "The sums are added as they are."
    return edited(*parts, rescale="o")


@mutant(ID, default_case=default(gap=0.5))
def second_maximum_taken(*parts):
    "m = m_2: right while the second part's maximum is the larger."
    return edited(*parts, top=lambda m1, m2: m2)


@mutant(ID, default_case=default())
def base_two(*parts):
    "2^{m_i - m}: maxima of a kernel that works in base 2."
    return edited(*parts, exp=np.exp2)


@mutant(ID, thread="flash-attention split-KV combine", default_case=default(gap=0.5))
def empty_part_by_multiplying(*parts):
    "An empty part's o is multiplied by zero, and zero times NaN is NaN."
    return edited(*parts, select=False)


@mutant(ID, default_case=default(gap=0.5))
def no_maximum(m1, l1, o1, m2, l2, o2):
    "e^{m_1}, e^{m_2} as they are, the maximum divided out at the end: overflows."
    w1, w2, m = np.exp(m1), np.exp(m2), np.maximum(m1, m2)
    w = np.where(np.isneginf(m), 1, np.exp(m))
    o1, o2 = (np.where(np.isneginf(x)[..., None], 0, o) for x, o in ((m1, o1), (m2, o2)))
    out = m, (l1 * w1 + l2 * w2) / w, (o1 * w1[..., None] + o2 * w2[..., None]) / w[..., None]
    return tuple(np.asarray(x, np.asarray(m1).dtype) for x in out)


@mutant(ID, default_case=lambda: (tuple(_with_nothing()), {}))
def first_part_alone(*parts):
    "Equal or higher maxima of the first part: the second is thought to be empty."
    m, size, o = edited(*parts)
    alone = parts[0] >= parts[3]
    return m, np.where(alone, parts[1], size), np.where(alone[..., None], parts[2], o)


def _with_nothing():
    (*parts,), _ = default()()
    parts[3:] = [np.full(3, -np.inf), np.zeros(3), np.zeros((3, 2))]
    return parts


@mutant(ID, default_case=lambda: ((*_with_nothing()[3:], *_with_nothing()[3:]), {}))
def averaged(*parts):
    "Two outputs averaged, as if they were normalised and of equal weight."
    m, size, o = edited(*parts)
    return m, size, (o / 2).astype(o.dtype)


def _vjp(through_maximum, rescale):
    def vjp(g, m1, l1, o1, m2, l2, o2):
        g_m, g_l, g_o = g
        m = np.maximum(m1, m2)
        w = [np.exp(x - m) if rescale else np.ones_like(m) for x in (m1, m2)]
        t = [x * (g_l * y + (g_o * z).sum(-1)) for x, y, z in zip(w, (l1, l2), (o1, o2), strict=True)]
        both = (t[0] + t[1]) if through_maximum else 0
        dm = [t[i] + (g_m - both) * (x == m) for i, x in enumerate((m1, m2))]
        sides = [(dm[i], w[i] * g_l, w[i][..., None] * g_o) for i in range(2)]
        return tuple(np.asarray(x, np.asarray(m1).dtype) for side in sides for x in side)

    return vjp


@mutant(ID, vjp=_vjp(through_maximum=False, rescale=True), default_case=default())
def gradient_misses_the_maximum(*parts):
    "m held constant in the backward."
    return tuple(merge(*parts))


@mutant(ID, vjp=_vjp(through_maximum=True, rescale=False), default_case=default())
def gradient_not_rescaled(*parts):
    "The backward adds both parts with weight one."
    return tuple(merge(*parts))
