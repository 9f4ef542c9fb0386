"""Parameter groups: which parameters decay, and which Muon takes.

Source: Loshchilov & Hutter 2019 (1711.05101) for the decay; the practice of GPT-2 and its descendants (Karpathy's
nanoGPT, LLaMA) not to decay norms and biases; Jordan et al. 2024 and Liu et al. 2025 (2502.16982) for Muon's part.

    fewer than two axes                       -> "no_decay"     norms, biases, scalars
    a component of the name in `embeddings`   -> "no_decay"     tables, and the head that shares or mirrors one
    two axes, with muon=True                  -> "muon"         hidden matrices
    else                                      -> "decay"

Notation
    shapes -> {name: shape}; names are dotted, as those of a state dict.

Conventions
    C1  A component is what stands between dots: "model.embed_tokens.weight" has "embed_tokens". Parts of a component
        do not count: "embedder" is no "embed".
    C2  nanoGPT decays its embeddings: embeddings=().
    C3  Every name is in exactly one group, in the order of `shapes`; groups may be empty.
    C4  Muon takes no embeddings and no head; convolutions (four axes) stay with "decay".

Laws
    L1 few_axes_do_not_decay                 L2 embeddings_do_not_decay
    L3 matrices_go_to_muon_when_asked        L4 the_groups_are_a_partition_in_order
    L5 a_new_parameter_moves_no_other        L6 a_block_of_llama_in_full
"""

from __future__ import annotations

import operator

from ref.spec import spec

EMBEDDINGS = ("embed", "embedding", "embeddings", "embed_tokens", "wte", "wpe", "lm_head")


@spec("optim.parameter_groups", "shapes:tree -> groups:tree", backends=("numpy",))
def parameter_groups(shapes, *, embeddings=EMBEDDINGS, muon=False):
    """Sort parameters into groups by their names and shapes.

    Parameters
    ----------
    shapes : dict of str to sequence of int
        As a tuple `x.shape` or an array of sizes.
    embeddings : tuple of str
        Components of names that mark tables and heads (C1).
    muon : bool
        Whether hidden matrices get a group of their own.

    Returns
    -------
    dict of str to list of str
        Names by group: "decay", "no_decay" and, with `muon`, "muon".

    Raises
    ------
    ValueError
        An empty name, or a negative size (the message names the parameter).
    TypeError
        shapes is no dict, a name is no string, a shape is no sequence of integers, or embeddings is a string.

    Complexity: one pass over the names.

    >>> shapes = {"wte.weight": (50, 8), "h.0.attn.weight": (8, 8), "h.0.attn.bias": (8,)}
    >>> parameter_groups(shapes)
    {'decay': ['h.0.attn.weight'], 'no_decay': ['wte.weight', 'h.0.attn.bias']}
    """
    _check(shapes, embeddings)
    groups = {"decay": [], "no_decay": [], **({"muon": []} if muon else {})}
    for name, shape in shapes.items():
        if len(shape) < 2 or set(name.split(".")) & set(embeddings):
            group = "no_decay"
        else:
            group = "muon" if muon and len(shape) == 2 else "decay"
        groups[group].append(name)
    return groups


def _check(shapes, embeddings):
    if not isinstance(shapes, dict):
        raise TypeError(f"parameter_groups: shapes is a {type(shapes).__name__}; needed a dict of name to shape")
    if isinstance(embeddings, str):
        raise TypeError(f"parameter_groups: embeddings={embeddings!r}; needed a tuple of names, as ({embeddings!r},)")
    for name, shape in shapes.items():
        if not isinstance(name, str):
            raise TypeError(f"parameter_groups: the name {name!r} is a {type(name).__name__}; needed a string")
        if not name:
            raise ValueError("parameter_groups: a parameter has an empty name")
        try:
            sizes = [operator.index(n) for n in shape]
        except TypeError:
            raise TypeError(f"parameter_groups: {name} has shape {shape!r}; needed a sequence of integers") from None
        if min(sizes, default=0) < 0:
            raise ValueError(f"parameter_groups: {name} has shape {tuple(sizes)}; needed sizes >= 0")
