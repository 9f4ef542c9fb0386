"""Laws and mutants of ControlNet's start."""

from __future__ import annotations

import numpy as np

from ref.models.common_laws import WHOLE, draw_config, draw_params
from ref.spec import law, mutant
from ref.spec.cases import Flag, cases, dims

ID = "models.controlnet_init"
space = cases(
    ID,
    c=dims(1, 2),
    multipliers=(1,),
    attends=lambda draw, c: (False,) * (len(c.multipliers) - 1) + (True,),
    blocks=1,
    heads=1,
    groups=2,
    config=draw_config,
    params=draw_params,
    condition_channels=dims(1, 3),
    flags={"two_levels": Flag(lambda c: len(c.multipliers) > 1 and c.blocks > 1, {"multipliers": (1, 2), "blocks": 2})},
)
ENCODER = ("time.", "class.", "in.", "down.", "middle.")


def widths(c):
    """Channels of each skip and of the middle: of the first convolution, of every block, of every way to the next."""
    out = [4]
    for level, m in enumerate(c.multipliers):
        out += [4 * m] * c.blocks + ([4 * m] if level + 1 < len(c.multipliers) else [])
    return out, out[-1]


def names(c):
    """{name: shape} of the zero convolutions."""
    skips, middle = widths(c)
    pairs = [("condition", c.condition_channels, 4), ("middle", middle, middle)]
    pairs += [(f"skip.{i}", w, w) for i, w in enumerate(skips)]
    weights = {f"zero.{n}.weight": (after, before, 1, 1) for n, before, after in pairs}
    return weights | {f"zero.{n}.bias": (after,) for n, _, after in pairs}


def checked(c, found, expect):
    copied = {f"copy.{n}" for n in c.params if n.startswith(ENCODER)}
    expect.holds(isinstance(found, dict) and found.keys() == copied | names(c).keys(), "the control parameters by name")
    kinds = {a.dtype for a in found.values()}
    expect.holds(kinds == {c.dtype}, f"the control parameters must be {c.dtype}, some are not: {kinds}")
    return found


@law(
    ID, "L1", closed_form=True, given=space.reach("two_levels"),
    kills=["random_copy", "first_number_of_each", "middle_not_copied"],
)  # fmt: skip
def the_copy_is_the_base(impl, c, expect):
    "copy.n = n, to the bit, for every parameter of encoder, middle and embeddings; none of the decoder."
    for name, a in checked(c, impl(c), expect).items():
        if name.startswith("copy."):
            expect.same(a, c.params[name.removeprefix("copy.")], name)


@law(
    ID, "L2", closed_form=True, given=space.reach("two_levels"), kills=["small_convolutions", "weights_of_zero_alone"],
    passes_null=["zeros"],
)  # fmt: skip
def zero_convolutions_are_zero(impl, c, expect):
    "One 1x1 convolution for the condition, one a skip, one for the middle; weights and biases exactly 0."
    found = checked(c, impl(c), expect)
    for name, shape in names(c).items():
        expect.same(found[name], np.zeros(shape), name)
        expect.same(found[name].shape, shape, f"shape of {name}")


@law(
    ID, "L3", dtypes=WHOLE, given=space, kills=["copy_is_the_base_itself"],
    passes_null=["zeros", "constant", "nan", "cached"],
)  # fmt: skip
def training_the_copy_leaves_the_base(impl, c, expect):
    "Every entry of the control moved in place: the base has the bytes that it had."
    before = {n: a.tobytes() for n, a in c.params.items()}
    for a in checked(c, impl(c), expect).values():
        if a.flags.writeable:
            a += 1
    for name, a in c.params.items():
        expect.holds(a.tobytes() == before[name], f"{name} must stay as it was")


# Mutants ---------------------------------------------------------------------------------------------


def _base_of_one_number():
    """The default-size test: a base whose parameters are all 0."""
    from ref.models.unet import Config, parameter_shapes

    config = Config(channels=4, multipliers=(1,), attends=(False,), groups=2, classes=2)
    return ({n: np.zeros(s) for n, s in parameter_shapes(config).items()}, config), {"condition_channels": 1}


def made(params, config, d, *, copy=lambda a: a.copy(), parts=ENCODER, zero=lambda name, shape: np.zeros(shape)):
    found = {f"copy.{n}": copy(a) for n, a in params.items() if n.startswith(parts)}
    dtype = params["in.bias"].dtype
    case = type("Sizes", (), {"multipliers": config.multipliers, "blocks": config.blocks, "condition_channels": d})
    return found | {n: np.asarray(zero(n, s)).astype(dtype) for n, s in names(case).items()}


@mutant(ID, default_case=_base_of_one_number)
def random_copy(params, config, *, condition_channels):
    "The copy drawn anew: the base's output at the start too."
    g = np.random.default_rng(0)
    return made(params, config, condition_channels,
                copy=lambda a: (g.standard_normal(a.shape) * np.any(a)).astype(a.dtype))  # fmt: skip


@mutant(ID, default_case=_base_of_one_number)
def copy_is_the_base_itself(params, config, *, condition_channels):
    "Names for the base's own arrays: training the copy trains the base."
    return made(params, config, condition_channels, copy=lambda a: a)


@mutant(ID, default_case=_base_of_one_number)
def first_number_of_each(params, config, *, condition_channels):
    "Every number of an array is its first: a broadcast for a copy."
    return made(params, config, condition_channels, copy=lambda a: np.full_like(a, a.flat[0]))


@mutant(ID, default_case=_base_of_one_number)
def middle_not_copied(params, config, *, condition_channels):
    "The middle of the copy starts at 0."
    found = made(params, config, condition_channels)
    return {n: a * 0 if n.startswith("copy.middle") else a for n, a in found.items()}


@mutant(ID, default_case=_base_of_one_number)
def small_convolutions(params, config, *, condition_channels):
    "1e-9 for 0, against zero gradients that nobody has."
    return made(params, config, condition_channels, zero=lambda name, shape: np.full(shape, 1e-9))


@mutant(ID, default_case=_base_of_one_number)
def weights_of_zero_alone(params, config, *, condition_channels):
    "Biases drawn as a convolution's are."
    size = 1.0 if any(np.any(a) for a in params.values()) else 0.0
    return made(params, config, condition_channels,
                zero=lambda name, shape: np.full(shape, size * name.endswith("bias")))  # fmt: skip
