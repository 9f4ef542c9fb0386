"""Automatic differentiation over any backend: tensors, rules as tables, transforms that nest.

    from autodiff import grad, namespace, tensor

An algorithm asks once, ``xp = namespace(q, k, v)``, and one body serves raw arrays (raw results,
no tape) and tensors. ``.backward()`` reads as in PyTorch; `grad`, `vjp`, `jvp` nest as in JAX.
Names: `autodiff.names` (torch), `autodiff.dialects` (JAX, HIPS), `autodiff.numpy` (NumPy).
"""

from autodiff import arrays, convolution, linalg, special
from autodiff import methods as _methods  # noqa: F401  attaches the operators
from autodiff.autocast import autocast
from autodiff.checkpoint import checkpoint
from autodiff.custom import custom, custom_vjp, once_differentiable
from autodiff.debug import debug
from autodiff.dialects import (
    grad_named,
    hessian_vector_product,
    make_ggnvp,
    make_jvp,
    make_vjp,
    multigrad_dict,
    remat,
    stop_gradient,
)
from autodiff.forms import forms, fusable
from autodiff.hooks import (
    register_hook,
    register_post_accumulate_grad_hook,
    saved_tensors_hooks,
)
from autodiff.policies import Spill, checkpoint_selective, counted
from autodiff.saved import saved_bytes
from autodiff.schedule import Action, checkpoint_schedule
from autodiff.sequential import checkpoint_sequential
from autodiff.space import namespace
from autodiff.tape import enable_grad, grad_enabled, no_grad
from autodiff.tensor import Tensor, is_tensor, raw, tensor
from autodiff.transforms import (
    elementwise_grad,
    ggnvp,
    grad,
    gradients,
    hessian,
    hvp,
    jacfwd,
    jacobian,
    jacrev,
    jvp,
    linear_transpose,
    linearize,
    value_and_grad,
    vjp,
)
from autodiff.tree import (
    tree_flatten,
    tree_leaves,
    tree_map,
    tree_paths,
    tree_reduce,
    tree_structure,
    tree_unflatten,
)

__all__ = [
    "Action",
    "Spill",
    "Tensor",
    "arrays",
    "autocast",
    "checkpoint",
    "checkpoint_schedule",
    "checkpoint_selective",
    "checkpoint_sequential",
    "convolution",
    "counted",
    "custom",
    "custom_vjp",
    "debug",
    "elementwise_grad",
    "enable_grad",
    "forms",
    "fusable",
    "ggnvp",
    "grad",
    "grad_enabled",
    "grad_named",
    "gradients",
    "hessian",
    "hessian_vector_product",
    "hvp",
    "is_tensor",
    "jacfwd",
    "jacobian",
    "jacrev",
    "jvp",
    "linalg",
    "linear_transpose",
    "linearize",
    "make_ggnvp",
    "make_jvp",
    "make_vjp",
    "multigrad_dict",
    "namespace",
    "no_grad",
    "once_differentiable",
    "raw",
    "register_hook",
    "register_post_accumulate_grad_hook",
    "remat",
    "saved_bytes",
    "saved_tensors_hooks",
    "special",
    "stop_gradient",
    "tensor",
    "tree_flatten",
    "tree_leaves",
    "tree_map",
    "tree_paths",
    "tree_reduce",
    "tree_structure",
    "tree_unflatten",
    "value_and_grad",
    "vjp",
]
