"""Conditional U-Net: the noise predictor of a diffusion model, small enough for digits.

Source: Ho et al. 2020 (2006.11239) appendix B, after Ronneberger et al. 2015 (1505.04597); classes and the null class:
Ho & Salimans 2022 (2207.12598) sec. 3.2.

    e = W_2 silu(W_1 sinusoid(t) + b_1) + b_2 + E[label]                          E[classes] is the null class
    R(h) = S h + conv_2 silu(GN_2(conv_1 silu(GN_1(h)) + W silu(e) + b))          S: 1x1 where channels change, else 1
    A(h) = h + W_o attention(q, k, v),   q, k, v = W GN(h)                        over all places of the image
    down    h <- conv_in x, kept;  a level: R (and A), kept, `blocks` times;  between levels: 3x3 of stride 2, kept
    middle  R, A, R
    up      a level: R (and A) of [h, the skip kept last], `blocks` + 1 times;  between levels: each place twice, 3x3
    out = conv silu(GN(h))

Notation
    x[N c Y X], t[N], labels[N]; convolutions are 3x3 with a border of zeros, their weights [out in 3 3].

Conventions
    C1  Skips are taken last in, first out, and stand behind h in the concatenation.
    C2  Conditioning is added between the convolutions of R (Ho); ADM scales and shifts instead.
    C3  The null class is a learned row of its own, not a zero vector, and not class 0.
    C4  The sinusoid is nn.sinusoidal_embedding's "ddpm".
    C5  Attention is scaled by 1 / sqrt(channels of a head); R and A are not divided by sqrt(2).

Laws
    L1 silent_output_is_its_bias            L2 one_place_is_a_product_of_matrices
    L3 equations_written_out                L4 an_image_is_its_own
    L5 the_null_class_is_a_row_of_its_own   L6 time_and_class_enter_by_their_sum
    L7 gradient_is_the_slope
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from autodiff import namespace
from autodiff.convolution import conv
from ref.attention.sdpa import sdpa
from ref.nn.embedding import embedding
from ref.nn.group_norm import group_norm
from ref.nn.linear import linear
from ref.nn.silu import silu
from ref.nn.sinusoidal_embedding import sinusoidal_embedding
from ref.spec import bind, spec
from ref.spec.signature import dtype_name, kind_of


class Config(NamedTuple):
    """Sizes: channels of the images, of the first level; of level l over the first, which levels attend."""

    image_channels: int = 1
    channels: int = 32
    multipliers: tuple = (1, 2)
    attends: tuple = (False, True)
    blocks: int = 1
    heads: int = 2
    groups: int = 8
    classes: int = 10

    @property
    def embedded(self):
        """Channels of the embedding of time and class."""
        return 4 * self.channels


SIGNATURE = "x[N c Y X], t[N], labels:int[N], params:tree, config:tree -> [N c Y X]"


@spec("models.unet", SIGNATURE, grads=("x", "params"))
def unet(x, t, labels, params, config):
    """The prediction for noisy images x at times t.

    Parameters
    ----------
    x : float[N c Y X]
    t : float[N]
    labels : int[N]
        0 .. classes - 1, or `classes` for none.
    params : {str: float array}
        As `parameter_shapes(config)` has them.
    config : Config

    Returns
    -------
    float[N c Y X]

    Raises
    ------
    ValueError
        Parameters are missing, unexpected or of another shape (the message names them), sizes that do not divide,
        images of other channels, or a label out of range.
    TypeError
        An array is not float, labels are not int, or dtypes or backends differ.

    Complexity: N Y X times the number of weights of each level over 4^level, and attention's N T^2.

    >>> config = Config(channels=4, multipliers=(1,), attends=(False,), groups=2)
    >>> params = {name: np.zeros(shape) for name, shape in parameter_shapes(config).items()}
    >>> params["out.bias"] += 0.5
    >>> unet(np.zeros((1, 1, 1, 2)), np.array([3.0]), np.array([10]), params, config)
    array([[[[0.5, 0.5]]]])
    """
    check("unet", x, t, labels, params, config)
    e = embedded(t, labels, params, config)
    h, skips = encoded(x, e, params, config)
    return decoded(h, skips, e, params, config)


def embedded(t, labels, p, config):
    """e[N 4 channels] of times and classes."""
    sinusoid = sinusoidal_embedding(t, channels=config.channels, convention="ddpm")
    hidden = silu(linear(sinusoid, p["time.0.weight"], p["time.0.bias"]))
    return linear(hidden, p["time.1.weight"], p["time.1.bias"]) + embedding(p["class.weight"], labels)


def encoded(x, e, p, config, hint=None):
    """(h after the middle, the skips in the order they were kept); `hint` is added behind the first convolution."""
    h = convolved(x, p, "in")
    h = h if hint is None else namespace(h, hint).add(h, hint)
    skips = [h]
    for level, attends in enumerate(config.attends):
        for block in range(config.blocks):
            h = stage(h, e, p, f"down.{level}.{block}", attends, config)
            skips.append(h)
        if level < len(config.multipliers) - 1:
            h = convolved(h, p, f"down.{level}.smaller", stride=2)
            skips.append(h)
    h = stage(h, e, p, "middle.0", True, config)
    return stage(h, e, p, "middle.1", False, config), skips


def decoded(h, skips, e, p, config):
    """The output from the middle's h and the skips."""
    xp, skips = namespace(h, *skips, *p.values()), list(skips)
    for level in reversed(range(len(config.multipliers))):
        for block in range(config.blocks + 1):
            h = xp.concat([h, skips.pop()], axis=1)
            h = stage(h, e, p, f"up.{level}.{block}", config.attends[level], config)
        if level:
            h = convolved(doubled(xp, h), p, f"up.{level}.larger")
    return convolved(silu(normed(h, p, "out.norm", config)), p, "out")


def stage(h, e, p, name, attends, config):
    """R, and A behind it if the stage attends."""
    n = convolved(silu(normed(h, p, f"{name}.norm_1", config)), p, f"{name}.conv_1")
    n = n + linear(silu(e), p[f"{name}.time.weight"], p[f"{name}.time.bias"])[..., None, None]
    n = convolved(silu(normed(n, p, f"{name}.norm_2", config)), p, f"{name}.conv_2")
    h = (convolved(h, p, f"{name}.shortcut", padding=0) if f"{name}.shortcut.weight" in p else h) + n
    return attended(h, p, f"{name}.attention", config) if attends else h


def attended(h, p, name, config):
    """A: every place reads every other."""
    xp, (N, C, Y, X) = namespace(h, *p.values()), h.shape
    rows = xp.matrix_transpose(xp.reshape(normed(h, p, f"{name}.norm", config), (N, C, Y * X)))
    qkv = linear(rows, p[f"{name}.qkv.weight"], p[f"{name}.qkv.bias"])
    qkv = xp.moveaxis(xp.reshape(qkv, (N, Y * X, 3, config.heads, C // config.heads)), 1, 3)  # [N 3 H T e]
    o = xp.reshape(xp.moveaxis(sdpa(qkv[:, 0, ...], qkv[:, 1, ...], qkv[:, 2, ...]), 1, 2), (N, Y * X, C))
    o = linear(o, p[f"{name}.out.weight"], p[f"{name}.out.bias"])
    return h + xp.reshape(xp.matrix_transpose(o), h.shape)


def convolved(h, p, name, stride=1, padding=1):
    """Convolution with its bias."""
    return conv(h, p[f"{name}.weight"], stride=stride, padding=padding) + p[f"{name}.bias"][:, None, None]


def normed(h, p, name, config):
    """Group normalisation with its weight and bias."""
    return group_norm(h, p[f"{name}.weight"], p[f"{name}.bias"], groups=config.groups)


def doubled(xp, h):
    """Each place of h[N C Y X] twice in both directions."""
    N, C, Y, X = h.shape
    return xp.reshape(xp.broadcast_to(h[:, :, :, None, :, None], (N, C, Y, 2, X, 2)), (N, C, 2 * Y, 2 * X))


# Parameters ------------------------------------------------------------------------------------------


def parameter_shapes(config):
    """{name: shape} of every parameter.

    Raises
    ------
    ValueError
        groups or heads do not divide the channels of a level, or multipliers and attends are not of one length.

    >>> sum(int(np.prod(s)) for s in parameter_shapes(Config()).values())
    702753
    """
    widths = _widths(config)
    E, c, last = config.embedded, config.image_channels, len(widths) - 1
    shapes = {"time.0.weight": (E, config.channels), "time.0.bias": (E,), "time.1.weight": (E, E), "time.1.bias": (E,),
              "class.weight": (config.classes + 1, E), **_conv("in", c, widths[0])}  # fmt: skip
    h, kept = widths[0], [widths[0]]
    for level, width in enumerate(widths):
        for block in range(config.blocks):
            shapes |= _stage(f"down.{level}.{block}", h, width, E, config.attends[level])
            h = width
            kept.append(h)
        if level < last:
            shapes |= _conv(f"down.{level}.smaller", h, h)
            kept.append(h)
    shapes |= _stage("middle.0", h, h, E, True) | _stage("middle.1", h, h, E, False)
    for level in reversed(range(len(widths))):
        for block in range(config.blocks + 1):
            shapes |= _stage(f"up.{level}.{block}", h + kept.pop(), widths[level], E, config.attends[level])
            h = widths[level]
        if level:
            shapes |= _conv(f"up.{level}.larger", h, h)
    return shapes | {"out.norm.weight": (h,), "out.norm.bias": (h,)} | _conv("out", h, c)


def initial(config, rng, dtype=np.float32):
    """{name: array}: weights N(0, 1 / fan-in), biases 0, norms 1; weights 0 where a branch or the network ends."""
    values = {}
    for name, shape in parameter_shapes(config).items():
        ends = name.endswith(("conv_2.weight", "attention.out.weight")) or name == "out.weight"
        if len(shape) == 1 or ends:
            values[name] = np.full(shape, 1.0 if "norm" in name and name.endswith("weight") else 0.0, dtype)
        else:
            fan = 1 if name == "class.weight" else int(np.prod(shape[1:]))
            values[name] = (rng.standard_normal(shape) / fan**0.5).astype(dtype)
    return values


def _conv(name, before, after, size=3):
    return {f"{name}.weight": (after, before, size, size), f"{name}.bias": (after,)}


def _linear(name, before, after):
    return {f"{name}.weight": (after, before), f"{name}.bias": (after,)}


def _norm(name, width):
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _stage(name, before, after, E, attends):
    shapes = _norm(f"{name}.norm_1", before) | _conv(f"{name}.conv_1", before, after)
    shapes |= _linear(f"{name}.time", E, after) | _norm(f"{name}.norm_2", after)
    shapes |= _conv(f"{name}.conv_2", after, after)
    shapes |= _conv(f"{name}.shortcut", before, after, 1) if before != after else {}
    if attends:
        at = f"{name}.attention"
        shapes |= (
            _norm(f"{at}.norm", after) | _linear(f"{at}.qkv", after, 3 * after) | _linear(f"{at}.out", after, after)
        )
    return shapes


def _widths(config):
    widths = [config.channels * m for m in config.multipliers]
    if len(widths) != len(config.attends) or not widths:
        raise ValueError(f"unet: {len(widths)} multipliers and {len(config.attends)} attends; needed one each a level")
    for width in widths:
        if width % config.groups or width % config.heads:
            raise ValueError(
                f"unet: a level has {width} channels, groups={config.groups}, heads={config.heads}; both must divide it"
            )
    return widths


def check(function, x, t, labels, params, config):
    """Validate what the network is given."""
    dims = bind(function, SIGNATURE, x=x, t=t, labels=labels)
    check_params(function, params, parameter_shapes(config), x.dtype)
    if dims["c"] != config.image_channels:
        raise ValueError(f"{function}: x has c={dims['c']} channels, config.image_channels={config.image_channels}")
    step = 2 ** (len(config.multipliers) - 1)
    if dims["Y"] % step or dims["X"] % step:
        raise ValueError(
            f"{function}: x is {dims['Y']} by {dims['X']}; {len(config.multipliers)} levels need multiples of {step}"
        )


def check_params(function, params, shapes, dtype):
    """Validate {name: array} against {name: shape}; all of the float dtype of the images."""
    missing, extra = sorted(shapes.keys() - params.keys()), sorted(params.keys() - shapes.keys())
    if missing or extra:
        raise ValueError(f"{function}: params lack {missing} and have unexpected {extra}")
    for name, shape in shapes.items():
        if tuple(params[name].shape) != shape:
            raise ValueError(f"{function}: {name} has shape {tuple(params[name].shape)}; needed {shape}")
        if params[name].dtype != dtype or kind_of(dtype) != "float":
            raise TypeError(f"{function}: {name} is {dtype_name(params[name].dtype)}, x {dtype_name(dtype)}; "
                            "all must share a float dtype")  # fmt: skip
