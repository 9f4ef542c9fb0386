"""ControlNet: a trainable copy of a locked U-Net's encoder that steers it by an image.

Source: Zhang, Rao & Agrawala 2023 (2302.05543) Eq. 1-3 and sec. 3.2-3.3; prompts dropped half of the time: sec. 3.3;
conditioning scale: the authors' `control_scales`.

    y_c = F(x; W) + Z(F(x + Z(c; W_z1); W_c); W_z2)                      Eq. 2: F a block, Z a 1x1 convolution
    on the U-Net:  (m, s) = encoder(x; W),   (m', s') = encoder(x + Z(c); W_c)
    out = decoder(m + k Z(m'), s_i + k Z_i(s'_i); W)
    labels of dropped images become the null class

Notation
    W -> base, locked; W_c, W_z1, W_z2 -> control, as `controlnet_init` makes them; c -> condition[N d Y X]; k -> scale.

Conventions
    C1  The base is locked: no gradient reaches its parameters, though gradients run through its decoder.
    C2  x + Z(c) is formed behind the first convolution, where features have the width of Z(c).
    C3  Dropping the prompt (`drop`) acts on the labels that both the base and the copy see, never on the condition; the
        paper drops with probability 1/2, so the copy must read semantics off the condition.
    C4  `scale` multiplies what is added, after the zero convolutions; 0 is the base, to the bit.

Laws
    L1 at_the_start_it_is_the_base          L2 first_gradient_is_that_of_the_zero_convolutions
    L3 after_one_step_the_copy_learns       L4 the_base_stays_as_it_was
    L5 scale_zero_is_the_base               L6 equations_written_out
    L7 a_dropped_label_is_the_null_class    L8 the_condition_enters_by_its_convolution
    L9 gradient_is_the_slope
"""

from __future__ import annotations

from autodiff import namespace
from autodiff.tensor import raw
from ref.models.controlnet_init import control_shapes
from ref.models.unet import check, check_params, convolved, decoded, embedded, encoded
from ref.spec import bind, spec

SIGNATURE = (
    "x[N c Y X], t[N], labels:int[N], condition[N d Y X], base:tree, control:tree, config:tree, drop:bool[N] "
    "-> [N c Y X]"
)


@spec("models.controlnet", SIGNATURE, grads=("base", "control"))
def controlnet(x, t, labels, condition, base, control, config, *, drop=None, scale=1.0):
    """The steered prediction for noisy images x at times t.

    Parameters
    ----------
    x : float[N c Y X]
    t : float[N]
    labels : int[N]
        0 .. classes - 1, or `classes` for none.
    condition : float[N d Y X]
        An image of the same size: edges, say.
    base, control : {str: float array}
        As `unet` takes them, and as `controlnet_init` makes them.
    config : Config
    drop : bool[N], optional
        The images whose label is replaced by the null class.
    scale : float
        Strength of the condition.

    Returns
    -------
    float[N c Y X]

    Raises
    ------
    ValueError
        As `unet`; a condition of another size than x (the message names both), or wrong control parameters.
    TypeError
        As `unet`, or drop is not bool.

    Complexity: that of the U-Net and of its encoder once more.

    >>> import numpy as np
    >>> from ref.models.controlnet_init import controlnet_init
    >>> from ref.models.unet import Config, initial
    >>> config = Config(channels=4, multipliers=(1,), attends=(False,), groups=2)
    >>> base = initial(config, np.random.default_rng(0), np.float64)
    >>> control = controlnet_init(base, config, condition_channels=1)
    >>> x = np.ones((1, 1, 2, 2))
    >>> controlnet(x, np.array([3.0]), np.array([10]), x, base, control, config).shape
    (1, 1, 2, 2)
    """
    _check(x, t, labels, condition, base, control, config, drop)
    base = {name: raw(a) for name, a in base.items()}  # locked: values without their tape
    if drop is not None:
        labels = namespace(labels, drop).where(drop, config.classes, labels)
    e = embedded(t, labels, base, config)
    h, skips = encoded(x, e, base, config)
    copy = {name.removeprefix("copy."): a for name, a in control.items() if name.startswith("copy.")}
    hint = convolved(condition, control, "zero.condition", padding=0)
    m, kept = encoded(x, embedded(t, labels, copy, config), copy, config, hint=hint)
    xp = namespace(x, *control.values())
    h = xp.add(h, convolved(m, control, "zero.middle", padding=0) * scale)
    for i, k in enumerate(kept):
        skips[i] = xp.add(skips[i], convolved(k, control, f"zero.skip.{i}", padding=0) * scale)
    return decoded(h, skips, e, base, config)


def _check(x, t, labels, condition, base, control, config, drop):
    check("controlnet", x, t, labels, base, config)
    for name, at in (("height", -2), ("width", -1)):
        if len(getattr(condition, "shape", ())) == 4 and condition.shape[at] != x.shape[at]:
            raise ValueError(
                f"controlnet: the condition has {name} {condition.shape[at]}, x has {x.shape[at]}; "
                f"needed a condition of the images' size, {x.shape[-2]} by {x.shape[-1]}"
            )
    dims = bind("controlnet", SIGNATURE, x=x, t=t, labels=labels, condition=condition, drop=drop)
    check_params("controlnet", control, control_shapes(config, dims["d"]), x.dtype)
