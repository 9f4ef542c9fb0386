"""Fused forms: the table of (id, backend) -> module, and the way to ask it.

A fused form computes what one composite of `ref` computes, over raw arrays: blocked, in place,
threaded; for NumPy's arrays some are also there as loops that Numba compiles, if it is installed.
Each module has

    forward(*tensors, **options) -> (out, saved)
    vjp(g, out, saved, needs, *tensors, **options) -> one cotangent a tensor, None where not needed; a form without
                                               one serves the calls that want no gradient
    supports(*tensors, **options) -> bool      optional; False sends the call to the composite
    READS_OUTPUT = False                       optional; the vjp gets None for out, and the tape does not keep it

`out` is an array or a tuple of arrays, `g` likewise (None for an output nobody used); `saved`
holds what the vjp keeps besides its inputs and outputs. No function writes to its inputs, `g`
included; outputs and cotangents are fresh arrays.
"""

import importlib

from backends.fused.compiled._loop import available

__all__ = ["COMPILED", "FORMS", "find", "find_compiled"]

_NUMPY = {
    "attention.flash": "flash",
    "losses.softmax_cross_entropy": "softmax_cross_entropy",
    "nn.embedding": "embedding",
    "nn.gelu": "gelu",
    "nn.layer_norm": "layer_norm",
    "nn.linear": "linear",
    "nn.rms_norm": "rms_norm",
    "nn.rope": "rope",
    "nn.silu": "silu",
    "nn.swiglu": "swiglu",
    "rl.clipped_surrogate": "clipped_surrogate",
    "rl.kl_loss": "kl_loss",
    "rl.preference_margin": "preference_margin",
    "rl.score_loss": "score_loss",
    "rl.sequence_log_prob": "sequence_log_prob",
}

_CUPY = {
    "attention.flash": "flash",
    "attention.paged": "paged",
    "attention.varlen": "varlen",
    "losses.softmax_cross_entropy": "softmax_cross_entropy",
    "nn.rms_norm": "rms_norm",
    "nn.rope": "rope",
}

FORMS = {
    (id, backend): f"backends.fused.{backend}.{module}"
    for backend, modules in (("numpy", _NUMPY), ("cupy", _CUPY))
    for id, module in modules.items()
}

COMPILED = {
    id: f"backends.fused.compiled.{module}"
    for id, module in {
        "nn.layer_norm": "layer_norm",
        "nn.rms_norm": "rms_norm",
        "nn.silu": "silu",
        "nn.swiglu": "swiglu",
        "rl.clipped_surrogate": "clipped_surrogate",
        "rl.preference_margin": "preference_margin",
        "rl.score_loss": "score_loss",
        "rl.sequence_log_prob": "sequence_log_prob",
    }.items()
}


def find(id, backend_name):
    """The module with the fused form of `id` on a backend, or None.

    Parameters
    ----------
    id : str
        As given to `fusable`, e.g. "attention.flash".
    backend_name : str
        `Backend.name`.

    Returns
    -------
    module or None
        Imported on the first call; whatever the import raises goes through.

    Examples
    --------
    >>> find("nn.rope", "numpy").__name__
    'backends.fused.numpy.rope'
    >>> find("nn.rope", "strict") is None
    True
    """
    return _module(FORMS.get((id, backend_name)))


def find_compiled(id, backend_name):
    """The module with the compiled form of `id`: for NumPy's arrays, and where Numba is; else None.

    >>> find_compiled("nn.rope", "numpy") is None
    True
    """
    name = COMPILED.get(id) if backend_name == "numpy" else None
    return _module(name) if name and available() else None


def _module(name):
    return None if name is None else importlib.import_module(name)
