"""LLaMA with every matrix cut over the ranks: Megatron's tensor parallelism.

Source: Shoeybi et al. 2019, Megatron-LM (1909.08053) sec. 3, fig. 3 and 4; the model: `models.llama`.

    x_t = g(E_r[token_t])                                              rank r's rows of E
    x <- x + g(W_o,r Attention(RoPE(W_q,r n), RoPE(W_k,r n), W_v,r n)),     n = f(RMSNorm(x) g_1)    rank r's heads
    x <- x + g(W_down,r (silu(W_gate,r n) * W_up,r n)),                     n = f(RMSNorm(x) g_2)    rank r's hidden
    logits_r = W_head,r f(RMSNorm(x) g)                                rank r's classes
    f, g    `copy_to_ranks` and the all-reduce of `row_parallel_linear`: each other's adjoint

Notation
    n -> comm.size, r -> comm.rank; E, H, G, F, V as in `models.llama`. Parameters: {name: this rank's part} (`shard`).

Conventions
    C1  Cut along their rows: embedding, head, W_q, W_k, W_v, W_gate, W_up; along their columns: W_o, W_down; the norms
        are on every rank. n divides G, so that a key head and the query heads that read it are on one rank; F and V
        need not divide. A tied head is the embedding's own cut.
    C2  Between f and g a rank does H / n heads or F / n channels of the work; what stands outside (norms, residuals) is
        done by all alike, and gives the same bits. So the norms' gradients are whole on every rank, not to be summed.
    C3  f stands once before the projections that share its input: one all-reduce backward, not three.
    C4  Logits stay cut, for `vocabulary_parallel_cross_entropy`.

Laws
    L1 without_layers_a_bigram              L2 logits_are_those_of_one_rank
    L3 gradients_are_those_of_one_rank      L4 bytes_are_the_formula
    L5 recomputed_layers_give_the_same_bits
"""

from __future__ import annotations

import numpy as np

from autodiff import checkpoint, namespace
from backends.communicators import chunks
from ref.attention.flash import flash
from ref.attention.rules import causal
from ref.distributed.copy_to_ranks import copy_to_ranks
from ref.distributed.ranks import on_tensors
from ref.distributed.row_parallel_linear import row_parallel_linear
from ref.distributed.vocabulary_parallel_embedding import vocabulary_parallel_embedding
from ref.models.llama import LAYER, parameter_shapes
from ref.nn.linear import linear
from ref.nn.rms_norm import rms_norm
from ref.nn.rope import rope
from ref.nn.swiglu import swiglu
from ref.spec import bind, spec


def axis_of(name):
    """The axis along which a parameter is cut, None for one that every rank has.

    >>> [axis_of(n) for n in ("model.layers.3.mlp.up_proj.weight", "model.layers.3.mlp.down_proj.weight")]
    [0, 1]
    """
    if "norm" in name.split(".")[-2]:
        return None
    return int(name.endswith(("o_proj.weight", "down_proj.weight")))


def shard(params, n, r):
    """{name: rank r's part of n} of all parameters, as copies.

    >>> shard({"lm_head.weight": np.arange(3.0).reshape(3, 1), "model.norm.weight": np.ones(1)}, 2, 0)
    {'lm_head.weight': array([[0.]]), 'model.norm.weight': array([1.])}
    """
    parts = {}
    for name, a in params.items():
        axis = axis_of(name)
        part = a if axis is None else np.moveaxis(chunks(np.moveaxis(a, axis, 0), n)[r], 0, axis)
        parts[name] = np.array(part, order="C")
    return parts


@spec(
    "distributed.tensor_parallel_llama", "comm:tree, params:tree, tokens:int[n M T] -> :tree", grads=("params",),
    backends=("numpy",),
)  # fmt: skip
@on_tensors("params")
def tensor_parallel_llama(comm, params, tokens, *, config, checkpointed=False, drop=None, algorithm=None):
    """This rank's logits of the next token at every position, of arrays or Tensors.

    Parameters
    ----------
    comm : Communicator
        Or a world, with params and tokens one a rank.
    params : {str: float array}
        `shard` of what `models.llama` takes.
    tokens : int[*B T]
        The same on every rank.
    config : Config
        Of the whole model.
    checkpointed : bool
        Recompute each layer in the backward, its all-reduces too.
    drop : callable, optional
        As of `models.llama`; every rank drops the same.
    algorithm : str, optional
        As of `all_reduce`.

    Returns
    -------
    float[*B T V_r]
        Of classes V r // n .. V (r + 1) // n.

    Raises
    ------
    ValueError
        n does not divide the groups, a parameter is missing, unexpected or of another shape than this rank's part.
    TypeError
        The tokens are not int, or the dtypes differ.

    Complexity: 1 / n of `models.llama`'s; 2 layers + 1 all-reduces of B T d numbers forward and as many backward, and
    2 layers more when recomputed.

    >>> from backends.communicators import ThreadWorld
    >>> from ref.models.llama import Config
    >>> tiny = Config(vocabulary=3, channels=4, layers=0, heads=2, hidden=2, eps=0.0, tied=True)
    >>> E = np.array([[1.0, -1.0, 1.0, 1.0], [3.0, 3.0, 3.0, 3.0], [0.0, 2.0, 0.0, 1.0]])
    >>> whole = {"model.embed_tokens.weight": E, "model.norm.weight": np.ones(4)}
    >>> parts = [shard(whole, 2, r) for r in range(2)]
    >>> [y.tolist() for y in tensor_parallel_llama(ThreadWorld(2), parts, np.array([[1], [1]]), config=tiny)]
    [[[2.0]], [[12.0, 3.0]]]
    """
    _check(comm, params, tokens, config)
    positions, drop = np.arange(tokens.shape[-1]), drop or _keep_all
    E = params["model.embed_tokens.weight"]
    x = vocabulary_parallel_embedding(comm, E, tokens, vocabulary=config.vocabulary, algorithm=algorithm)
    x = drop(x, 0)
    for i in range(config.layers):
        mine = {name: params[f"model.layers.{i}.{name}"] for name in LAYER}
        call = (_layer, comm, x, mine, positions, config, drop, i, algorithm)
        x = checkpoint(*call) if checkpointed else call[0](*call[1:])
    x = copy_to_ranks(comm, rms_norm(x, params["model.norm.weight"], eps=config.eps), algorithm=algorithm)
    return linear(x, E if config.tied else params["lm_head.weight"])


def _keep_all(x, site):
    return x


def _layer(comm, x, p, positions, config, drop, i, algorithm):
    """x[*B T d] after layer i with this rank's parameters {name without its prefix: array}."""
    n = copy_to_ranks(comm, rms_norm(x, p["input_layernorm.weight"], eps=config.eps), algorithm=algorithm)
    o = _attention(n, p, positions, config)
    x = x + drop(row_parallel_linear(comm, o, p["self_attn.o_proj.weight"], algorithm=algorithm), 2 * i + 1)
    n = copy_to_ranks(comm, rms_norm(x, p["post_attention_layernorm.weight"], eps=config.eps), algorithm=algorithm)
    hidden = swiglu(linear(n, p["mlp.gate_proj.weight"]), linear(n, p["mlp.up_proj.weight"]))
    return x + drop(row_parallel_linear(comm, hidden, p["mlp.down_proj.weight"], algorithm=algorithm), 2 * i + 2)


def _attention(n, p, positions, config):
    """Causal self-attention of this rank's heads: n[*B T d] -> [*B T (H / n) e]."""
    xp, e = namespace(n, *p.values()), config.channels // config.heads

    def heads(x):  # [*B T (h e)] -> [*B h T e]
        return xp.moveaxis(xp.reshape(x, (*x.shape[:-1], x.shape[-1] // e, e)), -2, -3)

    turn = {"layout": config.rope_layout, "base": config.rope_base}
    q, k, v = (heads(linear(n, p[f"self_attn.{name}_proj.weight"])) for name in "qkv")
    o, _ = flash(rope(q, positions, **turn), rope(k, positions, **turn), v, mask=causal())
    o = xp.moveaxis(o, -3, -2)
    return xp.reshape(o, (*o.shape[:-2], o.shape[-2] * e))


def _check(comm, params, tokens, config):
    function, n, r = "tensor_parallel_llama", comm.size, comm.rank
    bind(function, "tokens:int[*B T]", tokens=tokens)
    shapes, groups = parameter_shapes(config), config.groups or config.heads
    if groups % n:
        raise ValueError(f"{function}: {n} ranks for G={groups} key heads; n must divide G")
    missing, extra = sorted(shapes.keys() - params.keys()), sorted(params.keys() - shapes.keys())
    if missing or extra:
        raise ValueError(f"{function}: params lack {missing} and have unexpected {extra}")
    for name, whole in shapes.items():
        axis, part = axis_of(name), list(whole)
        if axis is not None:
            part[axis] = whole[axis] * (r + 1) // n - whole[axis] * r // n
        if tuple(params[name].shape) != tuple(part):
            raise ValueError(
                f"{function}: {name} has shape {tuple(params[name].shape)} on rank {r} of {n}; needed {tuple(part)}"
            )
