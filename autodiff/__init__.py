"""Automatic differentiation over any backend: tensors, rules as tables, transforms that nest.

    from autodiff import grad, namespace, tensor

An algorithm asks once, ``xp = namespace(q, k, v)``, and one body serves raw arrays (raw results,
no tape) and tensors. ``.backward()`` reads as in PyTorch; `grad`, `vjp`, `jvp` nest as in JAX.
"""

from autodiff import methods as _methods  # noqa: F401  attaches the operators
from autodiff.autocast import autocast
from autodiff.checkpoint import checkpoint, checkpoint_sequential, saved_bytes
from autodiff.forms import custom, forms, fusable
from autodiff.hooks import (
    register_hook,
    register_post_accumulate_grad_hook,
    saved_tensors_hooks,
)
from autodiff.policies import Spill, checkpoint_selective, counted
from autodiff.schedule import Action, checkpoint_schedule
from autodiff.space import namespace
from autodiff.tape import enable_grad, grad_enabled, no_grad
from autodiff.tensor import Tensor, is_tensor, raw, tensor
from autodiff.transforms import grad, hvp, jacobian, jvp, value_and_grad, vjp
from autodiff.tree import tree_flatten, tree_map, tree_paths, tree_unflatten

__all__ = [
    "Action",
    "Spill",
    "Tensor",
    "autocast",
    "checkpoint",
    "checkpoint_schedule",
    "checkpoint_selective",
    "checkpoint_sequential",
    "counted",
    "custom",
    "enable_grad",
    "forms",
    "fusable",
    "grad",
    "grad_enabled",
    "hvp",
    "is_tensor",
    "jacobian",
    "jvp",
    "namespace",
    "no_grad",
    "raw",
    "register_hook",
    "register_post_accumulate_grad_hook",
    "saved_bytes",
    "saved_tensors_hooks",
    "tensor",
    "tree_flatten",
    "tree_map",
    "tree_paths",
    "tree_unflatten",
    "value_and_grad",
    "vjp",
]
