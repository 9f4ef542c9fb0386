"""Laws and mutants of ControlNet."""

from __future__ import annotations

import numpy as np

from ref.models.common_laws import (
    WHOLE,
    Written,
    bound_of,
    cast,
    draw_arrays,
    draw_config,
    draw_images,
    kinds,
)
from ref.models.controlnet_init import control_shapes, controlnet_init
from ref.models.unet import Config, initial, parameter_shapes
from ref.spec import law, mutant
from ref.spec.cases import Flag, cases, choose, dims, ints, rng

ID = "models.controlnet"
STARTS = ("the copy of the base", "a random copy", "anything")


def draw_control(draw, c):
    """At the start: zero convolutions of zeros about the base's copy or a random one; or anything."""
    g = rng(draw)
    control = draw_arrays(g, control_shapes(c.config, c.d))
    if c.start != "anything":
        control |= {n: np.zeros_like(a) for n, a in control.items() if n.startswith("zero.")}
    if c.start == "the copy of the base":
        control |= {f"copy.{n}": a.copy() for n, a in c.base.items() if f"copy.{n}" in control}
    return control


space = cases(
    ID,
    N=1,
    c=1,
    d=dims(1, 2),
    Y=2,
    X=choose(4, 2),
    shape=choose(((1,), (False,)), ((1,), (True,))),
    multipliers=lambda draw, c: c.shape[0],
    attends=lambda draw, c: c.shape[1],
    blocks=choose(0, 1),
    heads=2,
    groups=2,
    config=draw_config,
    base=lambda draw, c: draw_arrays(rng(draw), parameter_shapes(c.config)),
    start=choose(*STARTS),
    control=draw_control,
    x=draw_images,
    condition=lambda draw, c: rng(draw).integers(-4, 5, (c.N, c.d, c.Y, c.X)) / 4,
    t=lambda draw, c: rng(draw).integers(0, 400, c.N) / 4,
    labels=ints("N", 0, 1),
    dropped=choose(False, True),
    drop=lambda draw, c: rng(draw).random(c.N) < 0.5 if c.dropped else None,
    scale=choose(1.0, 0.5, 2.0),
    unset={"drop": {"dropped": False, "drop": None}},
    flags={
        "two_levels": Flag(lambda c: len(c.multipliers) > 1 and c.Y != c.X and c.blocks > 0,
                           {"shape": ((1, 2), (False, True)), "X": 4, "N": 1, "blocks": 1}),
        "some_dropped": Flag(lambda c: c.drop is not None and c.drop.any() and not c.drop.all(),
                             {"N": 2, "dropped": True, "drop": np.array([True, False])}),
    },
)  # fmt: skip
begun = space.where(start=choose(*STARTS[:2]))
free = space.where(start="anything")


class Steered(Written):
    """The equations at once, over `Written`, whose parts an edit replaces."""

    def __init__(self, config, *, read=lambda mine, base: mine, middle=True, skips=True, order=lambda n: range(n),
                 hinted=True, strength=lambda s: s, **edit):  # fmt: skip
        super().__init__(config, **edit)
        self.read, self.with_middle, self.with_skips, self.order = read, middle, skips, order
        self.hinted, self.strength = hinted, strength

    def __call__(self, x, t, labels, condition, base, control, scale):
        e = self.embedded(t, labels, base)
        h, skips = self.encoded(x, e, base)
        copy = {n.removeprefix("copy."): a for n, a in control.items() if n.startswith("copy.")}
        hint = one_by_one(condition, control, "condition") if self.hinted else 0
        m, kept = self.encoded(x, self.embedded(t, labels, copy), copy, hint=hint)
        k = h.dtype.type(self.strength(scale))
        order = list(self.order(len(skips)))
        if self.with_middle:
            h = h + one_by_one(self.read(m, h), control, "middle") * k
        if self.with_skips:
            skips = [
                s + one_by_one(self.read(kept[i], s), control, f"skip.{order[i]}") * k for i, s in enumerate(skips)
            ]
        return self.decoded(h, skips, e, base)


def one_by_one(h, p, name):
    """The 1x1 convolution Z of that name."""
    w, b = p[f"zero.{name}.weight"][:, :, 0, 0], p[f"zero.{name}.bias"]
    return np.moveaxis(np.tensordot(w, h, ((1,), (1,))), 0, 1) + b[:, None, None]


def labels_of(c):
    return c.labels if c.drop is None else np.where(c.drop, c.config.classes, c.labels)


def slow(c, kind, control=None, **edit):
    control = cast(c.control, kind) if control is None else control
    call = Steered(c.config, **edit)
    return call(c.x.astype(kind), c.t.astype(kind), labels_of(c), c.condition.astype(kind), cast(c.base, kind), control,
                c.scale)  # fmt: skip


def near(c):
    mine, wide = kinds(c.dtype)
    return bound_of(slow(c, mine), slow(c, wide), c.dtype, 1200)


def base_alone(c, kind):
    """The locked network's output, said again."""
    return Written(c.config)(c.x.astype(kind), c.t.astype(kind), labels_of(c), cast(c.base, kind))


def expect_the_base(c, expect, out):
    mine, wanted = (base_alone(c, kind) for kind in kinds(c.dtype))
    size = 2 + float(np.max(np.abs(wanted)))
    expect(out, wanted.astype(np.float64), bound_of(mine, wanted, c.dtype, 600), "the base's output", scale=size)


def cotangent(c):
    return np.cos(1.0 + np.arange(c.x.size)).reshape(c.x.shape).astype(c.dtype)


@law(
    ID, "L1", closed_form=True, given=begun.reach("some_dropped"), dtypes=("float32",),
    kills=["zero_convolutions_have_ones", "drop_ignored"],
)  # fmt: skip
def at_the_start_it_is_the_base(impl, c, expect):
    """Zero convolutions of zeros: the base's output; no bit of it changes with the copy, the condition or the scale, 0
    among them."""
    out = impl(c)
    expect_the_base(c, expect, out)
    other = {n: a + 1 if n.startswith("copy.") else a for n, a in c.control.items()}
    changed = c.replace(control=other, condition=c.condition * 2 - 1)
    expect.same(impl(changed.replace(scale=-3.0)), out, "another copy, condition and scale")
    expect.same(impl(changed.replace(scale=0.0)), out, "scale 0")


@law(
    ID, "L2", closed_form=True, needs=("vjp",), dtypes=WHOLE,
    given=space.where(start=STARTS[0]).reach("two_levels"),
    kills=["decoder_detached", "copy_has_a_gradient_at_once", "gradient_without_the_scale", "biases_have_no_gradient"],
)  # fmt: skip
def first_gradient_is_that_of_the_zero_convolutions(impl, c, expect):
    """At the start, with g_i the cotangent of what the decoder reads at i (a skip, the middle) and f_i the base's own
    feature there: d W_i = k sum g_i f_i^T, d b_i = k sum g_i over images and places, and each other gradient exactly 0.
    g_i by complex steps through the decoder, along a change at one place by U f_i + v."""
    g, found = cotangent(c), impl.vjp(c, cotangent(c))
    outer = {n for n in c.control if n.startswith("zero.") and not n.startswith("zero.condition")}
    for name, a in found["control"].items():
        if name in outer:
            expect.holds(np.any(a), f"the gradient of {name} must not be 0")
        else:
            expect.same(a, np.zeros(a.shape), f"gradient of {name}")
    plain = Written(c.config)
    base = cast(c.base, np.float64)
    e = plain.embedded(c.t, labels_of(c), base)
    m, skips = plain.encoded(c.x, e, base)
    limit = 64 * near(c)
    for place, feature in (("middle", m), *((f"skip.{i}", s) for i, s in enumerate(skips))):
        U, v = (np.sin(2.0 + np.arange(c.control[f"zero.{place}.{n}"].size)) for n in ("weight", "bias"))
        U = U.reshape(c.control[f"zero.{place}.weight"].shape)
        p = {f"zero.{place}.weight": U, f"zero.{place}.bias": v}
        change = 1e-30j * one_by_one(feature, p, place)
        read = [s + change if place == f"skip.{i}" else s for i, s in enumerate(skips)]
        out = plain.decoded(m + change if place == "middle" else m, read, e, base)
        terms = c.scale * g * out.imag / 1e-30
        total = sum(np.vdot(found["control"][n], u) for n, u in p.items())
        size = max(float(np.abs(terms).sum()), 1.0)
        expect(np.asarray(total), np.asarray(terms.sum()), limit * size, f"gradient at {place}", scale=size)


def stepped(tree, gradients, rate=0.25):
    """One step of gradient descent."""
    return {n: (a - rate * gradients[n]).astype(a.dtype) for n, a in tree.items()}


@law(
    ID, "L3", closed_form=True, needs=("vjp",), dtypes=("float32",),
    given=space.where(start=STARTS[0], condition=lambda draw, c: rng(draw).integers(4, 9, (c.N, c.d, c.Y, c.X)) / 4),
    kills=["copy_never_learns", "decoder_detached", "condition_never_learns"],
    passes_null=["constant", "identity", "nan"],
)  # fmt: skip
def after_one_step_the_copy_learns(impl, c, expect):
    "After one step every matrix of the copy has a gradient, and so has the condition's convolution."
    control = stepped(c.control, impl.vjp(c, cotangent(c))["control"])
    found = impl.vjp(c.replace(control=control), cotangent(c))["control"]
    for name, a in found.items():
        if a.ndim > 1 or name.startswith("zero."):
            expect.holds(np.any(a), f"{name} must have a gradient after one step")


@law(
    ID, "L4", closed_form=True, needs=("vjp",), dtypes=("float32",), given=space, kills=["base_not_locked"],
    passes_null=["zeros"],
)  # fmt: skip
def the_base_stays_as_it_was(impl, c, expect):
    "Two steps of gradient descent on everything that has a gradient: the base keeps every byte."
    base, control = c.base, c.control
    for _ in range(2):
        found = impl.vjp(c.replace(base=base, control=control), cotangent(c))
        base, control = stepped(base, found["base"]), stepped(control, found["control"])
    for name, a in base.items():
        expect.holds(a.tobytes() == c.base[name].astype(a.dtype).tobytes(), f"{name} must keep its bytes")


@law(
    ID, "L5", closed_form=True, given=free.where(scale=0.0).reach("some_dropped"), dtypes=("float32",),
    kills=["scale_ignored"],
)  # fmt: skip
def scale_zero_is_the_base(impl, c, expect):
    "k = 0: the base's output, whatever the control holds, to the bit what it is with a control of zeros at k = 1."
    out = impl(c)
    expect_the_base(c, expect, out)
    none = {n: 0 * a if n.startswith("zero.") else a for n, a in c.control.items()}
    expect.same(impl(c.replace(scale=1.0, control=none)), out, "zero convolutions of zeros")


@law(
    ID, "L6", closed_form=True, given=free.reach("two_levels", "some_dropped"),
    kills=["scale_ignored", "scale_squared", "hint_forgotten", "copy_reads_the_base", "middle_not_steered",
           "skips_not_steered", "skips_in_reverse", "drop_ignored", "drop_of_the_condition", "dropped_is_class_zero",
           "zero_convolutions_have_ones"],
)  # fmt: skip
def equations_written_out(impl, c, expect):
    "The equations in the header, in extended precision."
    mine, wanted = (slow(c, kind) for kind in kinds(c.dtype))
    size = 2 + float(np.max(np.abs(wanted)))
    expect(impl(c), wanted.astype(np.float64), bound_of(mine, wanted, c.dtype, 1200), scale=size)


@law(
    ID, "L7", given=free.where(some_dropped=True), dtypes=("float32",),
    kills=["drop_ignored", "drop_of_the_condition", "dropped_is_class_zero"],
    passes_null=["zeros", "constant", "identity"],
)  # fmt: skip
def a_dropped_label_is_the_null_class(impl, c, expect):
    "Dropping is calling with the null class: the same bits; and with nobody dropped as without the argument."
    by_hand = c.replace(labels=labels_of(c), drop=None)
    expect.same(impl(c), impl(by_hand), "dropped, and labelled as null")
    nobody = c.replace(drop=np.zeros(c.N, bool))
    expect.same(impl(nobody), impl(c.replace(drop=None)), "nobody dropped")


@law(
    ID, "L8", closed_form=True, given=free, dtypes=("float32",), kills=["condition_enters_twice"],
    passes_null=["zeros", "constant", "identity"],
)  # fmt: skip
def the_condition_enters_by_its_convolution(impl, c, expect):
    "Twice the condition under half of the weights: the same bits. Weights 0: any condition gives the same bits."
    half = {**c.control, "zero.condition.weight": c.control["zero.condition.weight"] / 2}
    expect.same(impl(c.replace(condition=c.condition * 2, control=half)), impl(c), "twice the condition")
    none = {**c.control, "zero.condition.weight": 0 * c.control["zero.condition.weight"]}
    blind = c.replace(control=none)
    expect.same(impl(blind.replace(condition=c.condition + 1)), impl(blind), "no weights")


@law(
    ID, "L9", needs=("vjp",), dtypes=WHOLE, given=free.reach("two_levels"),
    kills=["decoder_detached", "copy_never_learns", "gradient_without_the_scale"],
)  # fmt: skip
def gradient_is_the_slope(impl, c, expect):
    "<gradient, u> is the complex-step slope of the equations along u: along the copy, and along the zero convolutions."
    g, found, p = cotangent(c), impl.vjp(c, cotangent(c))["control"], cast(c.control, complex)
    limit = 64 * near(c)
    for part in ("copy.", "zero."):
        u = {n: np.sin(2.0 + np.arange(a.size)).reshape(a.shape) for n, a in p.items() if n.startswith(part)}
        terms = g * slow(c, complex, {n: a + 1e-30j * u.get(n, 0) for n, a in p.items()}).imag / 1e-30
        total = sum(float(np.vdot(found[n], v)) for n, v in u.items())
        size = max(float(np.abs(terms).sum()), 1.0)
        expect(np.asarray(total), np.asarray(terms.sum()), limit * size, f"slope along {part}*", scale=size)


# Mutants ---------------------------------------------------------------------------------------------


def default():
    """The default-size test: a fresh ControlNet over a fresh model, whose last convolution is zero."""
    config = Config(channels=4, multipliers=(1,), attends=(False,), groups=2, classes=2)
    g = np.random.default_rng(0)
    base = initial(config, g, np.float64)
    control = controlnet_init(base, config, condition_channels=1)
    x, condition = g.standard_normal((2, 2, 1, 4, 4))
    return (x, np.array([3.0, 70.0]), np.array([0, 1]), condition, base, control, config), {}


def steered(
    x, t, labels, condition, base, control, config, drop, scale, *, replaced=None, kept=lambda drop, c: c, **edit
):
    """The output with an edit; `replaced` is what a dropped label becomes."""
    if drop is not None:
        condition = kept(drop, condition)
        labels = np.where(drop, config.classes if replaced is None else replaced(labels), labels)
    return Steered(config, **edit)(x, t, labels, condition, base, control, scale).astype(x.dtype)


def _mutant(name, doc, **edit):
    def wrong(x, t, labels, condition, base, control, config, *, drop=None, scale=1.0):
        return steered(x, t, labels, condition, base, control, config, drop, scale, **edit)

    wrong.__name__, wrong.__doc__ = name, doc
    mutant(ID, default_case=default)(wrong)


_mutant("scale_ignored", "scale is accepted and dropped.", strength=lambda s: 1.0)
_mutant("scale_squared", "The scale before and after the zero convolution.", strength=lambda s: s * s)
_mutant("hint_forgotten", "The condition is read by nothing.", hinted=False)
_mutant("copy_reads_the_base", "Zero convolutions over the base's own features.", read=lambda mine, base: base)
_mutant("middle_not_steered", "Nothing is added to the middle.", middle=False)
_mutant("skips_not_steered", "Nothing is added to the skips.", skips=False)
_mutant("drop_ignored", "drop is accepted and ignored.", replaced=lambda labels: labels)
_mutant("dropped_is_class_zero", "A dropped label is class 0.", replaced=lambda labels: 0 * labels)
_mutant("drop_of_the_condition", "Dropping blanks the condition as well.",
        kept=lambda drop, c: c * ~drop[:, None, None, None])  # fmt: skip


@mutant(ID, default_case=default)
def skips_in_reverse(x, t, labels, condition, base, control, config, *, drop=None, scale=1.0):
    "The zero convolutions numbered in the order in which the decoder takes the skips."

    def order(n):
        widths = [control[f"zero.skip.{i}.bias"].size for i in range(n)]
        turned = list(reversed(range(n)))
        return [j if widths[j] == widths[i] else i for i, j in enumerate(turned)]

    return steered(x, t, labels, condition, base, control, config, drop, scale, order=order)


@mutant(ID, default_case=default)
def zero_convolutions_have_ones(x, t, labels, condition, base, control, config, *, drop=None, scale=1.0):
    "1 + W for W: an identity for a zero at the start."
    moved = {n: a + (np.eye(*a.shape[:2])[:, :, None, None] if n.startswith("zero.") and a.ndim > 1 else 0)
             for n, a in control.items()}  # fmt: skip
    return steered(x, t, labels, condition, base, moved, config, drop, scale)


@mutant(ID, default_case=default)
def condition_enters_twice(x, t, labels, condition, base, control, config, *, drop=None, scale=1.0):
    "The condition is added to the copy's images as well."
    with_it = steered(x + condition[:, :1] * np.any(control["zero.middle.weight"]), t, labels, condition, base, control,
                      config, drop, scale)  # fmt: skip
    return with_it


def _vjp_mutant(name, doc, factor=lambda n, k: 1, trace=lambda n: 0, of_base=None):
    """The right gradient times factor(name, scale) plus trace(name); `of_base` makes one of the base."""

    def function(x, t, labels, condition, base, control, config, *, drop=None, scale=1.0):
        return steered(x, t, labels, condition, base, control, config, drop, scale)

    def vjp(g, x, t, labels, condition, base, control, config, *, drop=None, scale=1.0):
        from autodiff import vjp as pull
        from ref.models.controlnet import controlnet

        def call(control):
            return controlnet(x, t, labels, condition, base, control, config, drop=drop, scale=scale)

        (found,) = pull(call, control)[1](g)
        own = {n: 0 * a + (of_base(n, found) if of_base else 0) for n, a in base.items()}
        return {"base": own, "control": {n: a * factor(n, scale) + trace(n) for n, a in found.items()}}

    function.__name__, function.__doc__ = name, doc
    mutant(ID, vjp=vjp, default_case=default)(function)


def _not(*parts):
    return lambda n, k: 0 if any(part in n for part in parts) else 1


_vjp_mutant("decoder_detached", "The base is locked by cutting its activations off the tape.", _not(""))
_vjp_mutant("copy_never_learns", "The copy is locked with the base.", _not("copy."))
_vjp_mutant("condition_never_learns", "The condition's convolution is a constant.", _not("condition"))
_vjp_mutant("biases_have_no_gradient", "Zero convolutions have weights alone.",
            lambda n, k: 0 if n.startswith("zero.") and n.endswith("bias") else 1)  # fmt: skip
_vjp_mutant("gradient_without_the_scale", "The scale is applied forward alone.", lambda n, k: 1 / k if k else 1)
_vjp_mutant("copy_has_a_gradient_at_once", "A trace of something in the copy's gradient.",
            trace=lambda n: 1e-12 * n.startswith("copy."))  # fmt: skip
_vjp_mutant("base_not_locked", "The base moves by what its copy learns.",
            of_base=lambda n, found: 1e-3 + found.get(f"copy.{n}", 0))  # fmt: skip
