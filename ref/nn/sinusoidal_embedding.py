"""Sinusoidal embedding of a position or a time.

Source: Vaswani et al. 2017 (1706.03762) sec. 3.5; diffusion times: Ho et al. 2020 (2006.11239) appendix B and its code;
Dhariwal & Nichol 2021 (2105.05233), code.

    f_i = P^(-i / h'),   i = 0 .. h - 1,  h = channels / 2
    attention   [sin f_0 t, cos f_0 t, sin f_1 t, cos f_1 t, ..]         h' = h
    ddpm        [sin f_0 t, .., sin f_{h-1} t, cos f_0 t, ..]            h' = h - 1, so the last frequency is 1 / P
    adm         [cos f_0 t, .., cos f_{h-1} t, sin f_0 t, ..]            h' = h

Notation
    t[*B], P -> max_period, f -> frequencies.

Conventions
    C1  Three layouts that libraries mix; weights trained under one are useless under another. All have f_0 = 1.
    C2  t is float; a time in [0, 1] is to be scaled first (by 1000, mostly), or every channel is nearly constant.
    C3  An even number of channels, at least 4 for ddpm. (tensor2tensor pads an odd one with a zero.)

Laws
    L1 time_zero                            L2 frequencies_by_name
    L3 inner_products_read_the_difference   L4 a_later_time_is_a_rotation
    L5 slope_in_time
"""

from __future__ import annotations

import math

from autodiff import namespace
from ref.spec import bind, spec

CONVENTIONS = ("attention", "ddpm", "adm")


@spec("nn.sinusoidal_embedding", "t[*B] -> [*B channels]", grads=("t",))
def sinusoidal_embedding(t, *, channels, convention="attention", max_period=10000.0):
    """Sines and cosines of t at frequencies from 1 down to about 1 / max_period.

    Parameters
    ----------
    t : float[*B]
    channels : int
        Even.
    convention : "attention", "ddpm" or "adm"
        The layout of the channels (C1).
    max_period : float

    Returns
    -------
    float[*B channels]

    Raises
    ------
    ValueError
        channels is odd or too small, max_period is not above 0, or an unknown convention.
    TypeError
        t is not float.

    Complexity: B channels sines.

    >>> import numpy as np
    >>> sinusoidal_embedding(np.array(0.0), channels=4, convention="ddpm")
    array([0., 0., 1., 1.])
    """
    bind("sinusoidal_embedding", "t[*B]", t=t)
    least = 4 if convention == "ddpm" else 2
    if convention not in CONVENTIONS:
        raise ValueError(f"sinusoidal_embedding: convention={convention!r}; needed one of {CONVENTIONS}")
    if channels < least or channels % 2:
        raise ValueError(f"sinusoidal_embedding: channels={channels}; {convention} needs an even number >= {least}")
    if not (max_period > 0 and math.isfinite(max_period)):
        raise ValueError(f"sinusoidal_embedding: max_period={max_period}; needed a finite number > 0")
    xp, half = namespace(t), channels // 2
    last = half - 1 if convention == "ddpm" else half
    frequencies = xp.exp(xp.arange(half, dtype=xp.float64) * (-math.log(max_period) / last))
    angle = t[..., None] * xp.astype(frequencies, t.dtype)
    sin, cos = xp.sin(angle), xp.cos(angle)
    if convention == "attention":
        return xp.reshape(xp.stack([sin, cos], axis=-1), (*t.shape, channels))
    return xp.concat([sin, cos] if convention == "ddpm" else [cos, sin], axis=-1)
