"""Rotary position embedding.

Source: Su et al. 2021 (2104.09864) Eq. 34, sec. 3.4.2; the half layout: GPT-NeoX, `rotate_half` of Hugging Face.

    theta_i = base^{-2 i / d},  i = 0 .. d/2 - 1
    (a, b)  -> (a cos m theta_i - b sin m theta_i,  a sin m theta_i + b cos m theta_i)      at position m
    interleaved: (a, b) = (x_{2i}, x_{2i+1})        half: (a, b) = (x_i, x_{i + d/2})

With a = 1, R_m is orthogonal and R_m^T R_n = R_{n-m}: scores of rotated queries and keys depend on n - m alone.
The gradient is the rotation back, dx = R_m^T g. An attention factor a, which YaRN has, multiplies every rotation:
R_m R_n = a R_{m+n}. Other frequencies come as `theta` (`rope_linear`, `rope_dynamic_ntk`, `rope_yarn`, `rope_llama3`).

Notation
    x[*B H T d], m -> positions int[T], or [*B T] where the rows of a batch differ; all heads share them.

Conventions
    C1  Two layouts, both named: interleaved (the paper, Meta, DeepSeek) and half (Hugging Face, GPT-NeoX). On
        weights whose output rows were permuted (h, d/2, 2) -> (h, 2, d/2) half gives what interleaved gives.
    C2  Positions count from 0, and may be negative or start anywhere.
    C3  Angles are formed in float64, then their cosines cast: at position 10^5 a float32 angle is wrong in
        the third digit. `theta` is best given in float64.
    C4  The attention factor is on queries and keys alike, so a score takes its square. DeepSeek puts most of it into
        the softmax's scale instead.

Laws
    L1 two_channels_turn_by_their_position  L2 every_pair_turns_by_its_angle
    L3 length_is_kept                       L4 scores_depend_on_the_distance
    L5 rotations_add                        L6 position_zero_changes_nothing
    L7 layouts_agree_on_permuted_channels   L8 gradient_turns_back
    L9 a_batch_row_has_its_own_positions    L10 given_frequencies_and_a_factor
    L11 two_turns_take_the_factor_twice     L12 gradient_takes_the_factor
"""

from __future__ import annotations

from autodiff import fusable, namespace
from ref.spec import bind, spec

LAYOUTS = ("interleaved", "half")


@spec("nn.rope", "x[*B H T d], positions:int[*P] -> [*B H T d]", grads=("x",))
@fusable("nn.rope", tensors=("x",))
def rope(x, positions, *, layout="interleaved", base=10000.0, theta=None, attention_factor=1.0):
    """Every pair of channels turned by its position times its frequency.

    Parameters
    ----------
    x : float[*B H T d]
        Queries or keys, d even; [T d] is taken too.
    positions : int[T] or int[*B T]
    layout : {"interleaved", "half"}
        Which channels form a pair (C1).
    base : float
        Frequencies are base^(-2 i / d).
    theta : float[d/2], optional
        The frequencies themselves, of any float dtype; `base` then says nothing.
    attention_factor : float
        Multiplies the result.

    Returns
    -------
    float[*B H T d]

    Raises
    ------
    ValueError
        d is odd, the layout is unknown, theta has not d/2 frequencies, or the positions do not broadcast to [*B T].
    TypeError
        `x` or theta is not float, or the positions are not int.

    Complexity: 3 B H T d operations, T d / 2 sines.

    >>> import numpy as np
    >>> x = np.array([[[1.0, 0.0], [1.0, 0.0]]])
    >>> rope(x, np.array([0, 1])).round(4)
    array([[[1.    , 0.    ],
            [0.5403, 0.8415]]])
    """
    _check(x, positions, layout, theta)
    xp = namespace(x, positions, theta)
    theta = frequencies(xp, x.shape[-1], base) if theta is None else xp.astype(theta, xp.float64)
    angle = xp.astype(positions, xp.float64)[..., None] * theta
    return turned(xp, x, angle if positions.ndim == 1 else angle[..., None, :, :], layout, attention_factor)


def frequencies(xp, d, base=10000.0):
    """theta_i = base^(-2 i / d), float64[d/2]."""
    return base ** (xp.arange(d // 2, dtype=xp.float64) * (-2 / max(d, 1)))


def turned(xp, x, angle, layout, attention_factor=1.0):
    """x[... T d] with pair i turned by angle[... T i]."""
    cos, sin = (xp.astype(f(angle) * attention_factor, x.dtype) for f in (xp.cos, xp.sin))
    d = x.shape[-1]
    if layout == "half":
        a, b = x[..., : d // 2], x[..., d // 2 :]
        return xp.concat((a * cos - b * sin, a * sin + b * cos), axis=-1)
    pairs = xp.reshape(x, (*x.shape[:-1], d // 2, 2))
    a, b = pairs[..., 0], pairs[..., 1]
    return xp.reshape(xp.stack((a * cos - b * sin, a * sin + b * cos), axis=-1), x.shape)


def _check(x, positions, layout, theta):
    bind("rope", "x[*B T d], positions:int[*P]", x=x, positions=positions)
    if x.shape[-1] % 2:
        raise ValueError(f"rope: x has d={x.shape[-1]}; needs an even head dimension")
    if layout not in LAYOUTS:
        raise ValueError(f"rope: layout={layout!r}; needed one of {LAYOUTS}")
    if theta is not None and bind("rope", "theta[n]", theta=theta)["n"] != x.shape[-1] // 2:
        raise ValueError(f"rope: theta has {theta.shape[0]} frequencies, x has d={x.shape[-1]}; needs d/2")
    P, full = tuple(positions.shape), tuple(x.shape[:-1])
    spread = P if len(P) < 2 else (*P[:-1], 1, P[-1])
    fits = all(n in (1, m) for n, m in zip(spread[::-1], full[::-1], strict=False))
    if not P or len(spread) > len(full) or not fits:
        raise ValueError(f"rope: positions have shape {P}, x has {tuple(x.shape)}; needs [T] or [*B T]")
