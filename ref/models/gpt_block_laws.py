"""Laws and mutants of the GPT block."""

from __future__ import annotations

import math

import numpy as np

from ref.models.gpt_block import SHAPES
from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, batch, cases, choose, dims, rng

ID = "models.gpt_block"
LN = ("ln_1.weight", "ln_2.weight")


def _params(draw, c):
    sizes, g = {"d": c.d, "D": c.heads * c.e, "F": c.F}, rng(draw)
    made = {n: np.round(g.standard_normal([sizes[a] for a in axes]) * 16) / 32 for n, axes in SHAPES.items()}
    return made | {n: 1 + made[n] / 4 for n in LN}


def _x(draw, c):
    """Rows that are far from constant, so that layer norm is well conditioned."""
    return np.round(rng(draw).standard_normal((*c.B, c.T, c.d)) * 32) / 32 + np.arange(c.d) % 2


space = cases(
    ID,
    B=batch(1, 2),
    T=dims(1, 4),
    d=dims(2, 4),
    e=dims(1, 3),
    F=dims(1, 5),
    heads=dims(1, 2),
    params=_params,
    x=_x,
    rate=0.0,
    seed=choose(0, 7, 2**40),
    lean=choose(True, False),
    recompute=choose(None, "attention", "block"),
    memory="C",
    flags={
        "long": Flag(lambda c: c.T > 1 and np.prod(c.B, dtype=int) > 0, {"T": dims(2, 4), "B": ()}),
        "own_width": Flag(lambda c: c.heads * c.e != c.d, {"heads": 2, "d": 3, "e": 1}),
        "some": Flag(lambda c: np.prod(c.B, dtype=int) > 0, {"B": ()}),
    },
)
some = space.where(some=True)


def slow(c, params=None, x=None, kind=np.longdouble, keep=None):
    """The equations, a row and a head at a time; `keep` gives the mask of a site, scaled, or 1."""
    p = {n: a.astype(kind) for n, a in (params or c.params).items()}
    x = (c.x if x is None else x).astype(kind)
    keep = keep or (lambda site, shape: np.ones(shape))

    def norm(row, name):
        m = row.sum() / c.d
        return (row - m) / np.sqrt(((row - m) ** 2).sum() / c.d + 1e-5) * p[f"{name}.weight"] + p[f"{name}.bias"]

    def affine(row, name):
        return p[f"{name}.weight"] @ row + p[f"{name}.bias"]

    kept = [keep(0, (*c.B, c.heads, c.T, c.T)), keep(1, x.shape), keep(2, x.shape)]
    out = x.copy()
    for at in np.ndindex(*c.B):
        n = [norm(row, "ln_1") for row in x[at]]
        q, k, v = ([affine(row, f"attn.{a}") for row in n] for a in "qkv")
        for t in range(c.T):
            o = np.zeros(c.heads * c.e, kind)
            for h in range(c.heads):
                part = slice(h * c.e, (h + 1) * c.e)
                s = np.array([q[t][part] @ k[j][part] for j in range(t + 1)]) / np.sqrt(kind(c.e))
                w = np.exp(s - np.max(s.real))
                w = w / w.sum() * kept[0][(*at, h, t)][: t + 1]
                o[part] = sum(w[j] * v[j][part] for j in range(t + 1))
            row = x[at][t] + affine(o, "attn.out") * kept[1][at][t]
            a = affine(norm(row, "ln_2"), "mlp.up")
            u = a * (1 + np.tanh(np.sqrt(2 / np.pi) * (a + 0.044715 * a**3))) / 2
            out[at][t] = row + affine(u, "mlp.down") * kept[2][at][t]
    return out


def bound_of(c):
    """Twice the error of the block in plain NumPy at the same precision, and the roundings of its longest sums."""
    wide = {n: a.astype(np.longdouble) for n, a in c.params.items()}
    naive = block(c.x, c.params, c.heads, c.rate, c.seed)
    exact = block(c.x.astype(np.longdouble), wide, c.heads, c.rate, c.seed)
    p = {n: np.abs(a.astype(np.float64)) for n, a in c.params.items()}

    def size(name):
        return float(np.max(p[f"{name}.weight"].sum(-1) * math.sqrt(c.d) + p[f"{name}.bias"], initial=1))

    magnitude = (size("attn.out") * size("attn.v") + size("mlp.down") * size("mlp.up")) / (1 - c.rate) ** 2
    roundings = 4 * c.d + 2 * c.heads * c.e + c.F + c.T + 40
    error = float(np.max(np.abs(naive - exact), initial=0))
    return 2 * error + bounds.rounding(roundings, magnitude + np.max(np.abs(c.x), initial=0), dtype(c))


def dtype(c):
    return c.x.dtype


@law(ID, "L1", closed_form=True, given=space, kills=["residual_after_the_norm", "out_bias_dropped"])
def silent_branches_change_nothing(impl, c, expect):
    "W_o = 0 and W_d = 0: x + b_o + b_d, whatever else the block holds."
    p = {n: np.zeros_like(a) if n in ("attn.out.weight", "mlp.down.weight") else a for n, a in c.params.items()}
    b = p["attn.out.bias"].astype(np.float64) + p["mlp.down.bias"]
    expect(impl(c.replace(params=p)), c.x + b, bounds.rounding(4, np.abs(c.x) + 1 + np.abs(b), dtype(c)))


@law(
    ID, "L2", closed_form=True, given=some.where(T=1).reach("own_width"),
    kills=["second_norm_is_the_first", "variance_by_d_minus_one", "exact_gelu"],
)  # fmt: skip
def one_token_reads_its_own_value(impl, c, expect):
    "T = 1: attention gives the token's own value, and no score matters."
    p = {n: a.astype(np.longdouble) for n, a in c.params.items()}

    def norm(row, name):
        off = row - row.mean(-1, keepdims=True)
        return off / np.sqrt((off**2).mean(-1, keepdims=True) + 1e-5) * p[f"{name}.weight"] + p[f"{name}.bias"]

    x = c.x.astype(np.longdouble)
    v = norm(x, "ln_1") @ p["attn.v.weight"].T + p["attn.v.bias"]
    x = x + v @ p["attn.out.weight"].T + p["attn.out.bias"]
    a = norm(x, "ln_2") @ p["mlp.up.weight"].T + p["mlp.up.bias"]
    u = a * (1 + np.tanh(np.sqrt(2 / np.pi) * (a + 0.044715 * a**3))) / 2
    wanted = x + u @ p["mlp.down.weight"].T + p["mlp.down.bias"]
    expect(impl(c), wanted.astype(np.float64), bound_of(c), scale=8.0)


@law(
    ID, "L3", dtypes=("float64",), given=space.where(long=True), kills=["sees_the_next_token"],
    passes_null=["zeros", "constant", "identity"],
)  # fmt: skip
def later_tokens_are_invisible(impl, c, expect):
    "Other rows after t change no bit of the rows up to t."
    t, other = c.T // 2, c.x.copy()
    other[..., t:, :] = other[..., t:, :] * 2 - 1
    expect.same(impl(c.replace(x=other))[..., :t, :], impl(c)[..., :t, :], "rows before t")


@law(
    ID, "L4", given=some.reach("long", "own_width"),
    kills=["scaled_by_all_channels", "sees_the_next_token", "heads_interleaved", "exact_gelu"],
)  # fmt: skip
def the_block_is_the_equations_written_out(impl, c, expect):
    "The equations in the header, with loops over heads and rows, in extended precision."
    expect(impl(c), slow(c).astype(np.float64), bound_of(c), scale=8.0)


@law(
    ID, "L5", needs=("vjp",), dtypes=("float64",), given=some.reach("long"), kills=["query_has_no_gradient"],
)  # fmt: skip
def gradient_is_the_slope(impl, c, expect):
    "<gradient, u> is the complex-step derivative of the equations along u: along x, and along each parameter."
    g = np.cos(1.0 + np.arange(c.x.size)).reshape(c.x.shape)
    found = impl.vjp(c, g)
    for name in ("x", *SHAPES):
        at = c.x if name == "x" else c.params[name]
        u = np.sin(2.0 + np.arange(at.size)).reshape(at.shape)
        moved = c.params if name == "x" else c.params | {name: at + 1e-30j * u}
        terms = g * slow(c, moved, c.x + 1e-30j * u if name == "x" else None, np.complex128).imag / 1e-30
        got = found["x"] if name == "x" else found["params"][name]
        limit = 4 * bound_of(c) * max(float(np.abs(terms).sum()), 1.0)
        expect(np.asarray(float(np.vdot(got, u))), np.asarray(terms.sum()), limit, f"slope along {name}", scale=1.0)


@law(
    ID, "L6", needs=("vjp",), dtypes=("float32",), given=some.where(rate=0.5, recompute=None),
    kills=["block_draws_again"], passes_null=["zeros", "constant", "identity", "nan"],
)  # fmt: skip
def recomputation_gives_the_same_bits(impl, c, expect):
    "With dropout, every gradient has the bits of the plain run when the core of attention or the block is run again."
    g = np.cos(1.0 + np.arange(c.x.size)).reshape(c.x.shape).astype(c.x.dtype)
    plain = impl.vjp(c, g)
    for recompute in ("attention", "block"):
        again = impl.vjp(c.replace(recompute=recompute), g)
        expect.same(again["x"], plain["x"], f"gradient of x, {recompute} again")
        for name, value in plain["params"].items():
            expect.same(again["params"][name], value, f"gradient of {name}, {recompute} again")


@law(
    ID, "L7", given=some.where(rate=choose(0.5, 0.25)).reach("long"), dtypes=("float64",),
    kills=["dropout_of_the_scores", "one_mask_for_both_branches"],
)  # fmt: skip
def dropout_keeps_what_the_counter_keeps(impl, c, expect):
    """With the masks of Threefry-2x32 under seed, seed + 1 and seed + 2, counted row-major over what is dropped, the
    equations give the block's output."""
    keep = lambda site, shape: threefry(c.seed + site, shape, c.rate) / (1 - c.rate)  # noqa: E731
    expect(impl(c), slow(c, keep=keep).astype(np.float64), bound_of(c), scale=8.0)


def threefry(seed, shape, rate):
    """Threefry-2x32, 20 rounds, as Salmon et al. print it: a number at a time."""
    out = []
    for i in range(math.prod(shape)):
        k = (seed >> 32, seed & 0xFFFFFFFF)
        k += (k[0] ^ k[1] ^ 0x1BD11BDA,)
        a, b = (0 + k[0]) % 2**32, (i + k[1]) % 2**32
        for r in range(20):
            a = (a + b) % 2**32
            turn = ((13, 15, 26, 6), (17, 29, 16, 24))[r // 4 % 2][r % 4]
            b = ((b << turn) | (b >> (32 - turn))) % 2**32 ^ a
            if r % 4 == 3:
                n = r // 4 + 1
                a, b = (a + k[n % 3]) % 2**32, (b + k[(n + 1) % 3] + n) % 2**32
        out.append(a >= rate * 2.0**32)
    return np.array(out, bool).reshape(shape)


# Mutants ---------------------------------------------------------------------------------------------


def _default(T=1, heads=1, **options):
    """The default-size test: T tokens, x normalised already, zero biases and projections to the residual."""

    def make():
        r = np.random.default_rng(0)
        sizes = {"d": 4, "D": 4, "F": 16}
        p = {n: r.standard_normal([sizes[a] for a in axes]) / 4 for n, axes in SHAPES.items()}
        for n in p:
            if n.endswith("bias") or n in ("attn.out.weight", "mlp.down.weight"):
                p[n] = np.zeros_like(p[n])
        return (r.standard_normal((2, T, 4)), p), {"heads": heads, **options}

    return make


def block(x, p, heads, rate, seed, **edit):
    """The block at once, in NumPy; each option of `edit` is one wrong step."""

    def norm(x, name):
        off = x - x.mean(-1, keepdims=True)
        count = x.shape[-1] - edit.get("ddof", 0)
        v = (off**2).sum(-1, keepdims=True) / max(count, 1)
        return off / np.sqrt(v + 1e-5) * p[f"{name}.weight"] + p[f"{name}.bias"]

    def affine(x, name):
        return x @ p[f"{name}.weight"].T + p[f"{name}.bias"] * (name not in edit.get("no_bias", ()))

    def drop(x, site):
        site = edit.get("sites", (0, 1, 2))[site]
        return x * threefry(seed + site, x.shape, rate) / (1 - rate) if rate else x

    *B, T, _ = x.shape
    n = norm(x, "ln_1")
    split = edit.get("split", lambda a: a.reshape(*B, T, heads, -1).swapaxes(-2, -3))
    q, k, v = (split(affine(n, f"attn.{a}")) for a in "qkv")
    s = q @ k.swapaxes(-1, -2) / np.sqrt(edit.get("scale", q.shape[-1]))
    s = drop(s, 0) if edit.get("drop_scores") else s
    s = np.where(np.tril(np.ones((T, T), bool), edit.get("ahead", 0)), s, -np.inf)
    w = np.exp(s - s.max(-1, keepdims=True))
    w = w / w.sum(-1, keepdims=True)
    o = ((w if edit.get("drop_scores") else drop(w, 0)) @ v).swapaxes(-2, -3).reshape(*B, T, -1)
    base = n if edit.get("post") else x
    x = base + drop(affine(o, "attn.out"), 1)
    a = affine(norm(x, edit.get("second", "ln_2")), "mlp.up")
    if edit.get("erf"):
        u = a * (1 + np.vectorize(math.erf, otypes=[float])(a / math.sqrt(2))) / 2
    else:
        u = a * (1 + np.tanh(np.sqrt(2 / np.pi) * (a + 0.044715 * a**3))) / 2
    return (x + drop(affine(u, "mlp.down"), 2)).astype(x.dtype)


def _mutant(name, statement, default=None, **edit):
    def wrong(x, params, *, heads, rate=0.0, seed=0, lean=True, recompute=None):
        options = {k: f(params, heads) if callable(f) and k == "scale" else f for k, f in edit.items()}
        return block(x, params, heads, rate, seed, **options).astype(x.dtype)

    wrong.__name__, wrong.__doc__ = name, statement
    mutant(ID, default_case=default or _default())(wrong)


def _normalised():
    (x, p), options = _default()()
    x = (x - x.mean(-1, keepdims=True)) * np.sqrt((1 - 1e-5) / x.var(-1, keepdims=True))
    return (x, {n: np.ones(4) if n in LN else a for n, a in p.items()}), options


_mutant("residual_after_the_norm", "The residual is taken after the first layer norm.", _normalised, post=True)
_mutant("out_bias_dropped", "No bias in the projection of attention.", no_bias=("attn.out",))
_mutant("second_norm_is_the_first", "The first layer norm's weights serve both.", second="ln_1")
_mutant("variance_by_d_minus_one", "The variance divides by d - 1.", ddof=1)
_mutant("exact_gelu", "GELU by the error function.", erf=True)
_mutant("sees_the_next_token", "The causal mask is one column late.", ahead=1)
_mutant("scaled_by_all_channels", "Scores divided by sqrt(D).", scale=lambda p, heads: len(p["attn.q.bias"]))
_mutant("dropout_of_the_scores", "Scores are dropped before the softmax.", drop_scores=True)
_mutant("one_mask_for_both_branches", "The feed-forward branch drops by the mask of attention's.", sites=(0, 1, 1))


@mutant(ID, default_case=_default())
def heads_interleaved(x, params, *, heads, rate=0.0, seed=0, lean=True, recompute=None):
    "Channel c belongs to head c mod H."
    def split(a):
        return np.moveaxis(a.reshape(*a.shape[:-1], -1, heads), -1, -3)

    return block(x, params, heads, rate, seed, split=split)


def _central(x, params, g, heads, f):
    """Gradients by central differences: a mutant's vjp, for small shapes."""

    def slope(a):
        out = np.zeros(a.shape)
        for at in np.ndindex(a.shape):
            keep, sides = a[at], []
            for step in (1e-6, -1e-6):
                a[at] = keep + step
                sides.append(float(np.vdot(g, f(x, params))))
            a[at] = keep
            out[at] = (sides[0] - sides[1]) / 2e-6
        return out

    x, params = x.astype(np.float64), {n: a.astype(np.float64) for n, a in params.items()}
    return {"x": slope(x), "params": {n: slope(a) for n, a in params.items()}}


def _without_query(g, x, params, *, heads, rate=0.0, seed=0, lean=True, recompute=None):
    found = _central(x, params, g, heads, lambda x, p: block(x, p, heads, rate, seed))
    found["params"] |= {n: np.zeros_like(params[n]) for n in ("attn.q.weight", "attn.k.weight")}
    return found


@mutant(ID, default_case=_default(), vjp=_without_query)
def query_has_no_gradient(x, params, *, heads, rate=0.0, seed=0, lean=True, recompute=None):
    "The scores are cut off the graph."
    return block(x, params, heads, rate, seed)


def _again(g, x, params, *, heads, rate=0.0, seed=0, lean=True, recompute=None):
    seed += 3 if recompute == "block" else 0
    kept = 1 + 1.0 * threefry(seed, x.shape, rate)
    return {"x": (g * kept).astype(x.dtype), "params": {n: np.full_like(a, kept.sum()) for n, a in params.items()}}


@mutant(ID, thread="OLMo-core#828", default_case=_default(), vjp=_again)
def block_draws_again(x, params, *, heads, rate=0.0, seed=0, lean=True, recompute=None):
    "A recomputed block draws other masks."
    return block(x, params, heads, rate, seed)
