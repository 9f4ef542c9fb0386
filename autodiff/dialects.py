"""The transforms under the names of JAX and of HIPS autograd, where the name differs.

Under the same name and with the same meaning in JAX: grad, value_and_grad, vjp, jvp, jacfwd,
jacrev, hessian, linearize, custom_vjp, and tree_map, tree_flatten, tree_unflatten, tree_leaves,
tree_structure, tree_reduce; in HIPS autograd: grad, value_and_grad, elementwise_grad, jacobian,
hessian. What differs:

  D1  ``checkpoint(f, *args)`` is torch's and calls f. JAX's and HIPS's ``checkpoint(f)`` gives a
      function: that is `remat`.
  D2  hvp, jvp and ggnvp take their direction with the arguments; the curried HIPS forms are
      hessian_vector_product, make_jvp, make_vjp, make_ggnvp.
  D3  Gradients of complex numbers are torch's, the conjugate of what both give.
  D4  ``jax.linear_transpose`` transposes; `linear_transpose` gives the adjoint of a complex map.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any

from autodiff.checkpoint import checkpoint
from autodiff.tensor import Tensor
from autodiff.transforms import grad, hvp, jvp, vjp
from autodiff.transforms.curvature import ggnvp
from autodiff.tree import tree_map

__all__ = [
    "grad_named",
    "hessian_vector_product",
    "make_ggnvp",
    "make_jvp",
    "make_vjp",
    "multigrad_dict",
    "remat",
    "stop_gradient",
]


def stop_gradient(tree: Any) -> Any:
    """JAX: the same values, of which no derivative is taken.

    Examples
    --------
    >>> grad(lambda x: x * stop_gradient(x))(3.0)
    np.float64(3.0)
    """
    return tree_map(lambda x: x.detach() if isinstance(x, Tensor) else x, tree)


def remat(f: Callable) -> Callable:
    """JAX's and HIPS's checkpoint: f, which keeps its arguments alone for the backward.

    Examples
    --------
    >>> grad(remat(lambda x: x * x * x))(2.0)
    np.float64(12.0)
    """

    @wraps(f)
    def call(*args: Any, **options: Any) -> Any:
        return checkpoint(lambda *a: f(*a, **options), *args)

    return call


def _at(args: tuple, argnum: int, x: Any) -> tuple:
    return (*args[:argnum], x, *args[argnum + 1 :])


def _one(f: Callable, args: tuple, argnum: int) -> Callable:
    return lambda x: f(*_at(args, argnum, x))


def hessian_vector_product(f: Callable, argnum: int = 0) -> Callable:
    """HIPS: ``hessian_vector_product(f)(*args, v)`` is the Hessian in one argument times v.

    Examples
    --------
    >>> hessian_vector_product(lambda x: x * x * x)(2.0, 1.0)
    np.float64(12.0)
    """

    def product(*args: Any) -> Any:
        *args, v = args
        return hvp(_one(f, tuple(args), argnum), (args[argnum],), (v,))[0]

    return product


def make_vjp(f: Callable, argnum: int = 0) -> Callable:
    """HIPS: ``make_vjp(f)(*args)`` is (pullback, value); the pullback gives one cotangent.

    Examples
    --------
    >>> pull, value = make_vjp(lambda x: x * x)(3.0)
    >>> value, pull(1.0)
    (np.float64(9.0), np.float64(6.0))
    """

    def made(*args: Any) -> tuple:
        value, pullback = vjp(_one(f, args, argnum), args[argnum])
        return lambda g: pullback(g)[0], value

    return made


def make_jvp(f: Callable, argnum: int = 0) -> Callable:
    """HIPS: ``make_jvp(f)(*args)(v)`` is (value, derivative along v).

    Examples
    --------
    >>> make_jvp(lambda x: x * x)(3.0)(1.0)
    (np.float64(9.0), np.float64(6.0))
    """

    def made(*args: Any) -> Callable:
        return lambda v: jvp(_one(f, args, argnum), (args[argnum],), (v,))

    return made


def make_ggnvp(f: Callable, g: Callable | None = None, f_argnum: int = 0) -> Callable:
    """HIPS: ``make_ggnvp(f, g)(*args)(v)`` is J^T H J v, J of f and H of g; g is half the sum of
    squares by default.

    Examples
    --------
    >>> make_ggnvp(lambda x: x * x)(3.0)(1.0)
    np.float64(36.0)
    """

    def made(*args: Any) -> Callable:
        return lambda v: ggnvp(_one(f, args, f_argnum), (args[f_argnum],), (v,), g)[0]

    return made


def grad_named(f: Callable, argname: str) -> Callable:
    """HIPS: the gradient with respect to the positional argument of that name.

    Raises
    ------
    ValueError
        f has no argument of that name.

    Examples
    --------
    >>> grad_named(lambda x, y: x * y, "y")(3.0, 5.0)
    np.float64(3.0)
    """
    names = list(inspect.signature(f).parameters)
    if argname not in names:
        raise ValueError(f"grad_named: f has no argument {argname!r}; it has {', '.join(names)}")
    return grad(f, names.index(argname))


def multigrad_dict(f: Callable) -> Callable:
    """HIPS: the gradients with respect to all arguments, as a dict by name.

    Examples
    --------
    >>> multigrad_dict(lambda x, y: x * y)(3.0, y=5.0)
    {'x': np.float64(5.0), 'y': np.float64(3.0)}
    """
    signature = inspect.signature(f)

    def gradients(*args: Any, **options: Any) -> dict:
        bound = signature.bind(*args, **options)
        bound.apply_defaults()

        def of_dict(values: dict) -> Any:
            bound.arguments.update(values)
            return f(*bound.args, **bound.kwargs)

        return grad(of_dict)(dict(bound.arguments))

    return gradients
