"""Affine stages: what every linear sampler is, and the loop that runs one.

Source: Karras et al. 2022 (2206.00364) Alg. 1-2 and Song et al. 2021 (2011.13456) Alg. 1 for the loop; the table of
coefficients is the usual one of linear multistep and Runge-Kutta methods.

    m  = model(at_x x + at_last l, t)
    x' = A x + B m + C l + c z,   l' = m          z ~ N(0, I), one draw a stage with c != 0

Notation
    A, B, C, c -> Stage.x, .model, .last, .noise; l -> the model's last output, 0 before the first.

Conventions
    C1  A stage with t = None evaluates nothing: x' = A x + C l + c z, and l stays.
    C2  The state is (x, l) alone, so that means and covariances of Gaussian data propagate exactly
        (`diffusion.propagate_moments`): a two-stage method keeps x in its first stage and evaluates at at_x x +
        at_last l.
    C3  Draws are taken in order, by the stages that have c != 0 alone: a last stage without noise takes none. More
        may be given than are taken.
    C4  The model gets t as it stands in the table, a Python number, one for the whole batch.

Laws
    L1 the_recursion_by_hand                 L2 affine_in_the_state_and_the_noise
    L3 draws_are_taken_in_order              L4 stages_compose
"""

from __future__ import annotations

from typing import Any, NamedTuple

from autodiff import namespace, raw
from ref.spec import bind, spec


class Stage(NamedTuple):
    """Coefficients of one stage; see the module's header."""

    t: Any
    x: float = 1.0
    model: float = 0.0
    last: float = 0.0
    noise: float = 0.0
    at_x: float = 1.0
    at_last: float = 0.0


@spec("diffusion.run_stages", "x[*B], noise:tree -> [*B]")
def run_stages(x, noise, *, stages, model, name="run_stages"):
    """Carry x through the stages.

    Parameters
    ----------
    x : float[*B]
    noise : sequence of float[*B], float[k *B], generator, or None
        The draws; a generator is asked for `standard_normal(shape)` as they are needed.
    stages : sequence of Stage
    model : callable
        model(x, t) -> float[*B].
    name : str
        Whose messages these are.

    Returns
    -------
    float[*B]

    Raises
    ------
    ValueError
        Too few draws, or the model's output or a draw has another shape than x.
    TypeError
        x is not a float array.

    Complexity: one call of the model a stage, 4 multiply-adds an entry.

    >>> import numpy as np
    >>> halve = [Stage(t, x=0.5, model=0.5) for t in (2, 1)]
    >>> run_stages(np.array([8.0]), None, stages=halve, model=lambda x, t: 0 * x + t)
    array([3.])
    """
    bind(name, "x[*B]", x=x)
    draw = draws(name, noise, x, sum(bool(s.noise) for s in stages))
    last, x = namespace(x).zeros_like(x), x * 1.0
    for s in stages:
        out = last
        if s.t is not None:
            at = x if (s.at_x, s.at_last) == (1.0, 0.0) else x * float(s.at_x) + last * float(s.at_last)
            out = model(at, s.t)
            check_shape(name, "the model's output", out, x)
        moved = x * float(s.x)
        for coefficient, term in ((s.model if s.t is not None else 0.0, out), (s.last, last)):
            moved = moved + term * float(coefficient) if coefficient else moved
        x = moved + draw() * float(s.noise) if s.noise else moved
        last = out
    return x


def check_shape(function, what, found, x):
    """ValueError unless `found` is an array of the shape of x."""
    shape = getattr(found, "shape", None)
    if shape is None or tuple(shape) != tuple(x.shape):
        raise ValueError(f"{function}: {what} has shape {shape}; needed {tuple(x.shape)}, as x")


def draws(function, noise, x, needed):
    """A function that gives the next draw; ValueError if there are fewer than `needed`."""
    shape = tuple(x.shape)
    if hasattr(noise, "standard_normal"):
        like = raw(x)
        return lambda: namespace(like).asarray(noise.standard_normal(shape), dtype=like.dtype)
    count = 0 if noise is None else noise.shape[0] if hasattr(noise, "shape") else len(noise)
    if count < needed:
        raise ValueError(f"{function}: noise has {count} draws; needed {needed}, of shape {shape} each")
    left = iter(range(count))

    def draw():
        k = next(left)
        z = noise[k, ...] if hasattr(noise, "shape") else noise[k]
        check_shape(function, f"draw {k} of the noise", z, x)
        return z

    return draw


def numbers(values):
    """The entries of an array or a sequence as Python floats."""
    if hasattr(values, "shape"):
        return [float(values[i]) for i in range(values.shape[0])]
    return [float(v) for v in values]
