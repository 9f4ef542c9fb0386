"""Functional transforms over trees of arrays, nestable in any order.

    evaluation   one run of f with its variables on the tape; what may leave it, and as what
    reverse      value_and_grad, grad, vjp, elementwise_grad
    directional  jvp, linearize, linear_transpose
    jacobians    jacfwd, jacrev, jacobian, hessian
    curvature    hvp in three ways, ggnvp
    between      gradients of tensors with respect to tensors

A result is a Tensor exactly when something outside is being differentiated with respect to it (an
enclosing transform, or a tensor with ``requires_grad`` that the function closes over); otherwise
it is a raw array. Complex numbers: see `autodiff.rules_complex` for the convention.
"""

from autodiff.transforms.between import gradients
from autodiff.transforms.curvature import ggnvp, hvp
from autodiff.transforms.directional import jvp, linear_transpose, linearize
from autodiff.transforms.jacobians import hessian, jacfwd, jacobian, jacrev
from autodiff.transforms.reverse import elementwise_grad, grad, value_and_grad, vjp

__all__ = [
    "elementwise_grad",
    "ggnvp",
    "grad",
    "gradients",
    "hessian",
    "hvp",
    "jacfwd",
    "jacobian",
    "jacrev",
    "jvp",
    "linear_transpose",
    "linearize",
    "value_and_grad",
    "vjp",
]
