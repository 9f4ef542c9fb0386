"""Rotary position embedding over two axes.

Source: MoonViT, Kimi-VL (2504.07491) sec. 2.1, its `Rope2DPosEmb`; Chu et al. 2024 (2403.00522, VisionLLaMA).

    theta_j = base^{-4 j / d},  j = 0 .. d/4 - 1
    pair 2 j      turns by  x theta_j
    pair 2 j + 1  turns by  y theta_j           pair i is channels (2 i, 2 i + 1)

Scores of rotated queries and keys depend on the two distances alone. The gradient is the rotation back.

Notation
    a[*B H T d]; (x, y) -> positions int[T 2], or [*B T 2]: column and row of a patch.

Conventions
    C1  Pairs alternate between the axes. Qwen2-VL gives each axis a half of the channels instead.
    C2  x, the column, comes first. Angles are formed in float64.

Laws
    L1 four_channels_turn_by_x_and_y        L2 every_pair_turns_by_its_axis
    L3 scores_depend_on_both_distances      L4 the_origin_changes_nothing
    L5 gradient_turns_back                  L6 equal_axes_are_one
"""

from __future__ import annotations

from autodiff import namespace
from ref.nn.rope import frequencies, turned
from ref.spec import bind, spec


@spec("nn.rope_2d", "a[*B H T d], positions:int[*P 2] -> [*B H T d]", grads=("a",))
def rope_2d(a, positions, *, base=10000.0):
    """Every pair of channels turned by its column or its row.

    Parameters
    ----------
    a : float[*B H T d]
        Queries or keys, 4 divides d; [T d] is taken too.
    positions : int[T 2] or int[*B T 2]
        (x, y) of each patch.
    base : float

    Returns
    -------
    float[*B H T d]

    Raises
    ------
    ValueError
        4 does not divide d, or the positions do not broadcast to [*B T 2].
    TypeError
        `a` is not float or the positions are not int.

    Complexity: 3 B H T d operations, T d / 2 sines.

    >>> import numpy as np
    >>> rope_2d(np.array([[1.0, 0.0, 1.0, 0.0]]), np.array([[0, 1]])).round(4)
    array([[1.    , 0.    , 0.5403, 0.8415]])
    """
    _check(a, positions)
    xp = namespace(a, positions)
    theta = frequencies(xp, a.shape[-1] // 2, base)
    angle = xp.astype(positions, xp.float64)[..., None, :] * theta[:, None]
    angle = xp.reshape(angle, (*angle.shape[:-2], a.shape[-1] // 2))
    return turned(xp, a, angle if positions.ndim == 2 else angle[..., None, :, :], "interleaved")


def _check(a, positions):
    bind("rope_2d", "a[*B T d], positions:int[*P 2]", a=a, positions=positions)
    if a.shape[-1] % 4:
        raise ValueError(f"rope_2d: a has d={a.shape[-1]}; needs a multiple of 4")
    P, full = tuple(positions.shape[:-1]), tuple(a.shape[:-1])
    spread = P if len(P) < 2 else (*P[:-1], 1, P[-1])
    fits = all(n in (1, m) for n, m in zip(spread[::-1], full[::-1], strict=False))
    if not P or len(spread) > len(full) or not fits:
        raise ValueError(
            f"rope_2d: positions have shape {tuple(positions.shape)}, a has {tuple(a.shape)}; needs [T 2] or [*B T 2]"
        )
