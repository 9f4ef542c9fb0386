"""Laws and mutants of the conditional U-Net."""

from __future__ import annotations

import numpy as np

from ref.models.common_laws import (
    WHOLE,
    Written,
    bound_of,
    cast,
    draw_config,
    draw_images,
    draw_params,
    kinds,
    silu,
)
from ref.models.unet import Config, initial
from ref.spec import law, mutant
from ref.spec.cases import Flag, cases, choose, dims, ints, rng

ID = "models.unet"
space = cases(
    ID,
    N=1,
    c=dims(1, 2),
    Y=2,
    X=choose(4, 2),
    shape=choose(((1,), (False,)), ((1,), (True,))),
    multipliers=lambda draw, c: c.shape[0],
    attends=lambda draw, c: c.shape[1],
    blocks=choose(0, 1),
    heads=choose(1, 2),
    groups=choose(2, 1),
    config=draw_config,
    params=draw_params,
    x=draw_images,
    t=lambda draw, c: rng(draw).integers(0, 400, c.N) / 4,
    labels=ints("N", 0, 2),
    flags={
        "two_levels": Flag(lambda c: len(c.multipliers) > 1 and c.heads > 1 and c.groups > 1 and c.Y != c.X,
                           {"shape": ((1, 2), (False, True)), "heads": 2, "groups": 2, "Y": 2, "X": 4, "blocks": 1}),
        "two_blocks": Flag(lambda c: c.blocks > 1, {"blocks": 2}),
        "two_images": Flag(lambda c: c.N > 1 and len(set(c.labels.tolist())) > 1,
                           {"N": 2, "labels": np.array([0, 2])}),
    },
)  # fmt: skip


def slow(c, kind, params=None, x=None, **edit):
    p = cast(c.params, kind) if params is None else params
    return Written(c.config, **edit)(c.x.astype(kind) if x is None else x, c.t.astype(kind), c.labels, p)


def near(c, **edit):
    mine, wide = kinds(c.dtype)
    return bound_of(slow(c, mine, **edit), slow(c, wide, **edit), c.dtype, 600)


@law(ID, "L1", closed_form=True, given=space, dtypes=WHOLE, kills=["last_bias_forgotten"])
def silent_output_is_its_bias(impl, c, expect):
    "The last convolution's weights 0: every place of every image holds its bias, exactly."
    c = c.replace(params={**c.params, "out.weight": np.zeros_like(c.params["out.weight"])})
    expect.same(impl(c), np.broadcast_to(c.params["out.bias"][:, None, None], c.x.shape))


@law(
    ID, "L2", closed_form=True, given=space.where(Y=1, X=1, shape=((1,), (False,)), groups=1), dtypes=WHOLE,
    kills=["skip_in_front", "shortcut_forgotten", "attention_without_residual"],
)  # fmt: skip
def one_place_is_a_product_of_matrices(impl, c, expect):
    """One place, one level, branches silent: h_0 = W x + b by the centre taps, `blocks` + 1 times
    h <- S [h, h_0] + s by the shortcuts, out = W silu(GN(h)) + b."""
    ends = ("conv_2.weight", "conv_2.bias", "attention.out.weight", "attention.out.bias")
    c = c.replace(params={n: np.zeros_like(a) if n.endswith(ends) else a for n, a in c.params.items()})
    p = cast(c.params, np.longdouble)
    h0 = c.x[..., 0, 0] @ p["in.weight"][:, :, 1, 1].T + p["in.bias"]
    h = h0
    for block in range(c.blocks + 1):
        S = p[f"up.0.{block}.shortcut.weight"][:, :, 0, 0]
        h = np.concatenate([h, h0], 1) @ S.T + p[f"up.0.{block}.shortcut.bias"]
    off = h - h.mean(1, keepdims=True)
    n = off / np.sqrt((off * off).mean(1, keepdims=True) + 1e-5) * p["out.norm.weight"] + p["out.norm.bias"]
    wanted = silu(n) @ p["out.weight"][:, :, 1, 1].T + p["out.bias"]
    expect(impl(c)[..., 0, 0], wanted.astype(np.float64), near(c), scale=2.0)


@law(
    ID, "L3", closed_form=True, given=space.reach("two_levels", "two_images", "two_blocks"),
    kills=["skips_first_in_first_out", "skip_in_front", "scaled_by_all_channels", "one_group", "time_forgotten",
           "time_without_silu", "null_is_class_zero", "null_is_a_zero_vector", "attention_without_residual",
           "larger_behind_the_convolution", "one_head", "shortcut_forgotten"],
)  # fmt: skip
def equations_written_out(impl, c, expect):
    "The equations in the header, a tap of each convolution and a head at a time, in extended precision."
    mine, wanted = (slow(c, kind) for kind in kinds(c.dtype))
    limit, size = bound_of(mine, wanted, c.dtype, 600), 2 + float(np.max(np.abs(wanted)))
    expect(impl(c), wanted.astype(np.float64), limit, scale=size)


@law(
    ID, "L4", given=space.where(two_images=True), dtypes=("float32",), kills=["statistics_of_the_batch"],
    passes_null=["zeros", "constant", "identity"],
)  # fmt: skip
def an_image_is_its_own(impl, c, expect):
    "Each image of the batch has the output it has alone, with its own time and label."
    out = impl(c)
    for i in range(c.N):
        alone = c.replace(x=c.x[i : i + 1].copy(), t=c.t[i : i + 1].copy(), labels=c.labels[i : i + 1].copy(), N=1)
        expect(impl(alone)[0], out[i], 2 * near(c), f"image {i}", scale=2 + float(np.max(np.abs(out))))


@law(
    ID, "L5", given=space.where(two_images=True, labels=np.array([2, 0])), dtypes=("float32",),
    kills=["null_is_class_zero", "null_is_a_zero_vector"], passes_null=["zeros"],
)  # fmt: skip
def the_null_class_is_a_row_of_its_own(impl, c, expect):
    """Another row for the null class moves the image without a label, and no bit of one with; another row for class 0
    the reverse."""
    out = impl(c)
    for row, moved, still in ((2, 0, 1), (0, 1, 0)):
        table = c.params["class.weight"].copy()
        table[row] += 1.5
        again = impl(c.replace(params={**c.params, "class.weight": table}))
        expect.same(again[still], out[still], "the image of another class")
        difference = np.max(np.abs(again[moved] - out[moved]))
        expect.holds(difference > 1e-6 or not np.any(out), f"row {row} must be read by the image of its class")


@law(
    ID, "L6", closed_form=True, given=space, dtypes=("float32",), kills=["time_forgotten_with_the_class"],
    passes_null=["zeros", "constant", "identity"],
)  # fmt: skip
def time_and_class_enter_by_their_sum(impl, c, expect):
    "A vector taken from the bias of the time's last layer and given to every class's row: the same output."
    v = np.cos(np.arange(c.params["time.1.bias"].size)).astype(c.dtype)
    moved = {**c.params, "time.1.bias": c.params["time.1.bias"] - v, "class.weight": c.params["class.weight"] + v}
    out = impl(c)
    expect(impl(c.replace(params=moved)), out, 8 * near(c), scale=2 + float(np.max(np.abs(out))))


@law(
    ID, "L7", needs=("vjp",), dtypes=WHOLE, given=space.reach("two_levels"),
    kills=["skips_have_no_gradient", "time_has_no_gradient", "keys_have_no_gradient"],
)  # fmt: skip
def gradient_is_the_slope(impl, c, expect):
    """<gradient, u> is the complex-step slope of the equations along u: along x, along all parameters before the up
    path, and along all of it."""
    g = np.cos(1.0 + np.arange(c.x.size)).reshape(c.x.shape)
    found, p = impl.vjp(c, g), cast(c.params, np.float64)
    limit = 64 * near(c)
    late = [n for n in p if n.startswith(("up.", "out"))]
    for names in (["x"], late, [n for n in p if n not in late]):
        u = {n: np.sin(2.0 + np.arange((c.x if n == "x" else p[n]).size)).reshape((c.x if n == "x" else p[n]).shape)
             for n in names}  # fmt: skip
        moved = {n: a + 1e-30j * u[n] if n in u else a + 0j for n, a in p.items()}
        x = c.x + 1e-30j * u.get("x", 0)
        terms = g * slow(c, complex, moved, x).imag / 1e-30
        total = sum(float(np.vdot(found["x"] if n == "x" else found["params"][n], u[n])) for n in names)
        size = max(float(np.abs(terms).sum()), 1.0)
        expect(np.asarray(total), np.asarray(terms.sum()), limit * size, f"slope along {names[0]} ..", scale=size)


# Mutants ---------------------------------------------------------------------------------------------


def default(**sizes):
    """The default-size test: a fresh model, whose last convolution is zero."""

    def make():
        config = Config(**{"channels": 4, "multipliers": (1, 2), "groups": 2, "classes": 2, **sizes})
        g = np.random.default_rng(0)
        return (g.standard_normal((2, 1, 4, 4)), np.array([3.0, 70.0]), np.array([0, 2]),
                initial(config, g, np.float64), config), {}  # fmt: skip

    return make


def _mutant(name, doc, **edit):
    def wrong(x, t, labels, params, config):
        return Written(config, **edit)(x, t, labels, params).astype(x.dtype)

    wrong.__name__, wrong.__doc__ = name, doc
    mutant(ID, default_case=default())(wrong)


def _first(skips):
    """The skip kept first, cut or repeated to the shape of the one kept last."""
    last, first = skips[-1], skips[0]
    skips.pop()
    return np.resize(first, last.shape)


def _null_is_zero(E, labels):
    return E[labels] * (labels < len(E) - 1)[:, None]


_mutant("skips_first_in_first_out", "The skip kept first is taken first.", take=_first)
_mutant("skip_in_front", "[skip, h] for [h, skip].", joined=lambda h, s: [s, h] if s.shape == h.shape else [h, s])
_mutant("scaled_by_all_channels", "Scores over sqrt(C), not sqrt(C / heads).", scale=lambda e, C: C)
_mutant("one_head", "heads is accepted and dropped.", heads_apart=False)
_mutant("one_group", "groups is accepted and dropped.", groups=1)
_mutant("time_forgotten", "No embedding between the convolutions.", timed=False)
_mutant("time_without_silu", "W e for W silu(e).", acts=False)
_mutant("null_is_class_zero", "The null class reads row 0.", classed=lambda E, labels: E[labels % (len(E) - 1)])
_mutant("null_is_a_zero_vector", "The null class adds nothing.", classed=_null_is_zero)
_mutant("attention_without_residual", "A(h) without h.", residual=False)
_mutant("shortcut_forgotten", "The first channels of [h, skip] for the 1x1 convolution.", shortcut=False)
_mutant("larger_behind_the_convolution", "The 3x3 before the places are doubled.", larger_first=True)


@mutant(ID, default_case=default())
def last_bias_forgotten(x, t, labels, params, config):
    "No bias in the last convolution: it starts at zero."
    quiet = {**params, "out.bias": 0 * params["out.bias"]}
    return Written(config)(x, t, labels, quiet).astype(x.dtype)


@mutant(ID, default_case=default())
def statistics_of_the_batch(x, t, labels, params, config):
    "Times and labels of the first image for all."
    first = np.zeros(len(x), int)
    return Written(config)(x, t[first], labels[first], params).astype(x.dtype)


@mutant(ID, default_case=default())
def time_forgotten_with_the_class(x, t, labels, params, config):
    "The time's last bias is dropped once a class is given."
    return Written(config)(x, t, labels, {**params, "time.1.bias": 0 * params["time.1.bias"]}).astype(x.dtype)


def _vjp_mutant(name, doc, gradient):
    def function(x, t, labels, params, config):
        return Written(config)(x, t, labels, params).astype(x.dtype)

    def vjp(g, x, t, labels, params, config):
        from autodiff import vjp as pull
        from ref.models.unet import unet

        dx, dp = pull(lambda x, p: unet(x, t, labels, p, config), x, params)[1](g)
        return {"x": dx, "params": gradient(dp)}

    function.__name__, function.__doc__ = name, doc
    mutant(ID, vjp=vjp, default_case=default())(function)


def _without(*parts):
    return lambda dp: {n: a * (0 if any(part in n for part in parts) else 1) for n, a in dp.items()}


_vjp_mutant("skips_have_no_gradient", "The way down is reached through the middle alone.", _without("down."))
_vjp_mutant("time_has_no_gradient", "The embedding is taken for a constant.", _without("time.", "class."))
_vjp_mutant("keys_have_no_gradient", "Attention is cut off the graph.", _without("attention."))
