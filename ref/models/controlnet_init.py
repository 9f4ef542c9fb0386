"""ControlNet at its start: a copy of the base's encoder and middle, and convolutions of zeros around it.

Source: Zhang, Rao & Agrawala 2023 (2302.05543) sec. 3.1 and 3.2.

    W_c <- W of the encoder and middle, and of the time and class embeddings that they read
    Z(c; W_z, b_z): 1x1 convolutions, W_z = 0, b_z = 0, one for the condition, one behind each skip and the middle

Notation
    W -> params, as `unet` has them; W_c -> "copy.*", Z -> "zero.condition", "zero.skip.i", "zero.middle".

Conventions
    C1  The copy has memory of its own: training it never moves the base.
    C2  The copy starts as the base, not at random: with zeros around it either gives the base's output, but only the
        copy starts from features that are worth something.
    C3  The condition has the size of the images and goes straight through its 1x1 convolution. Stable Diffusion's goes
        through a small network first, to reach the size of the latents.

Laws
    L1 the_copy_is_the_base                 L2 zero_convolutions_are_zero
    L3 training_the_copy_leaves_the_base
"""

from __future__ import annotations

from autodiff import namespace
from ref.models.unet import check_params, parameter_shapes
from ref.spec import spec
from ref.spec.signature import kind_of

COPIED = ("time.", "class.", "in.", "down.", "middle.")


@spec("models.controlnet_init", "params:tree, config:tree -> control:tree")
def controlnet_init(params, config, *, condition_channels):
    """The trainable parameters of a ControlNet over a U-Net.

    Parameters
    ----------
    params : {str: float array}
        The base's, as `parameter_shapes(config)` of `unet` has them.
    config : Config
    condition_channels : int

    Returns
    -------
    {str: float array}
        As `control_shapes(config, condition_channels)` has them.

    Raises
    ------
    ValueError
        Parameters are missing, unexpected or of another shape, or condition_channels < 1.
    TypeError
        Parameters that are not of one float dtype.

    Complexity: a copy.

    >>> import numpy as np
    >>> from ref.models.unet import Config, initial
    >>> control = controlnet_init(initial(Config(), np.random.default_rng(0)), Config(), condition_channels=1)
    >>> sum(int(np.prod(a.shape)) for a in control.values())
    330272
    """
    first = next(iter(params.values()), None)
    if first is None or kind_of(first.dtype) != "float":
        raise TypeError("controlnet_init: params hold no float arrays; needed the base's")
    check_params("controlnet_init", params, parameter_shapes(config), first.dtype)
    xp = namespace(*params.values())
    control = {}
    for name, shape in control_shapes(config, condition_channels).items():
        if name.startswith("copy."):
            control[name] = xp.asarray(params[name.removeprefix("copy.")], copy=True)
        else:
            control[name] = xp.zeros(shape, dtype=first.dtype)
    return control


def control_shapes(config, condition_channels):
    """{name: shape} of every trainable parameter."""
    if condition_channels < 1:
        raise ValueError(f"controlnet_init: condition_channels={condition_channels}; needed at least 1")
    base = parameter_shapes(config)
    shapes = {f"copy.{name}": shape for name, shape in base.items() if name.startswith(COPIED)}
    shapes |= _zero("condition", condition_channels, base["in.bias"][0])
    for i, width in enumerate(skip_widths(config)):
        shapes |= _zero(f"skip.{i}", width, width)
    return shapes | _zero("middle", width, width)


def skip_widths(config):
    """Channels of the skips, in the order they are kept."""
    widths = [config.channels * m for m in config.multipliers]
    kept = [widths[0]]
    for level, width in enumerate(widths):
        kept += [width] * (config.blocks + (level < len(widths) - 1))
    return kept


def _zero(name, before, after):
    return {f"zero.{name}.weight": (after, before, 1, 1), f"zero.{name}.bias": (after,)}
