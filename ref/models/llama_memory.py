"""Memory of training a LLaMA: model states and activations, before anything is run.

Source: Rajbhandari et al. 2020 (1910.02054) for states; Korthikanti et al. 2022 (2205.05198) sec. 4 for the way of
counting activations; Griewank & Walther 2000 and Chen et al. 2016 for what checkpointing keeps.

    N = batch seq tokens, p bytes an element, q = max(p, 4) bytes of a statistic; g = G e channels of the keys
    layer       A = N (p (8 d + 3 g + 3 F) + q (H + 2))
                normalised rows and what they are made of 4 d, q before and after RoPE 2 d, k likewise 2 g, v g,
                o by heads and joined 2 d, gate, up and their product 3 F; two root mean squares, H log-sum-exps
    state       U = N p d, the input of a layer
    head        N (p (2 d + V) + q) + 2 N q: final norm, logits, two numbers a token of the cross entropy
    checkpoint  none L A + head;  layers (L - 1) U + max(U + head, A)
                segments:K over lengths l_1 .. l_K: max of (K - 1) U + l_K A + head and, for j < K, (j - 1) U + l_j A
                revolve:S min(S, L - 1) U + A + head

Notation
    d -> channels, H -> heads, G -> groups, e = d / H, F -> hidden, V -> vocabulary, L -> layers of a Config.

Conventions
    C1  What the fused forms save, attention by tiles: no N x N array. No dropout.
    C2  Tensor parallelism splits heads, hidden channels and vocabulary; rows of d channels stay whole, as in the paper
        without sequence parallelism.
    C3  Not counted: a layer's temporaries and cotangents, the allocator's, and what communication needs. Where o
        has one head or one token, joining it is a view and takes nothing; it is counted all the same.

Laws
    L1 llama_2_as_published                  L2 the_tape_holds_it
    L3 ranks_share_what_can_be_shared        L4 checkpoints_keep_what_they_say
"""

from __future__ import annotations

import operator
from typing import NamedTuple

from ref.models.llama import Config, parameter_shapes
from ref.spec import spec
from ref.training.state_bytes import BYTES, state_bytes

KEYS = {
    "vocab_size": "vocabulary", "hidden_size": "channels", "num_hidden_layers": "layers",
    "num_attention_heads": "heads", "intermediate_size": "hidden",
}  # fmt: skip
WHOLE = ("layernorm.weight", "model.norm.weight")


class Memory(NamedTuple):
    """Parameters, and bytes on one rank."""

    parameters: int
    weights: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def states(self):
        return self.weights + self.gradients + self.optimizer

    @property
    def total(self):
        return self.states + self.activations


@spec("models.llama_memory", "config:tree, batch:int[], seq:int[] -> memory:tree", backends=("numpy",))
def llama_memory(config, batch, seq, *, precision="bf16", checkpoint="none", zero=0, tp=1, ranks=1):
    """Bytes that training takes on one rank: states, and activations at their peak.

    Parameters
    ----------
    config : Config
    batch, seq : int
        Sequences on a rank, tokens of each.
    precision : "fp32", "bf16" or "fp16"
    checkpoint : str
        "none", "layers" (every layer), "segments:K" or "revolve:S".
    zero : 0, 1, 2 or 3
    tp, ranks : int
        Tensor-parallel and data-parallel ranks; tp divides heads, groups, hidden and vocabulary.

    Returns
    -------
    Memory

    Raises
    ------
    ValueError
        A size below 1, an unknown precision, stage or checkpoint, segments <= 0 or more than layers, snaps < 1, or
        a size that tp does not divide.
    TypeError
        Not integers.

    Complexity: parameters are counted by shape, a layer at a time.

    >>> m = llama_memory(Config(), 1, 4096)
    >>> m.parameters, round(m.states / 1e9, 1), round(m.activations / 1e9, 1)
    (6738415616, 107.8, 20.8)
    """
    batch, seq, tp = (operator.index(n) for n in (batch, seq, tp))
    _check(config, batch, seq, precision, tp)
    parameters = sum(_size(shape) for shape in parameter_shapes(config).values())
    local = sum(
        _size(shape) // (1 if name.endswith(WHOLE) else tp) for name, shape in parameter_shapes(config).items()
    )
    states = state_bytes(local, precision=precision, zero=zero, ranks=ranks)
    layer, state, head = layer_bytes(config, batch * seq, BYTES[precision][0], tp)
    kept = kept_bytes(checkpoint, config.layers, layer, state, head)
    return Memory(parameters, *states, kept)


def layer_bytes(config, N, p, tp=1):  # noqa: N803
    """(bytes of a layer's tape, of its input, of what follows the layers) for N tokens of p bytes an element."""
    d, H, F, V, q = config.channels, config.heads, config.hidden, config.vocabulary, max(p, 4)
    g = (config.groups or H) * (d // H)
    layer = N * (p * (4 * d + (4 * d + 3 * g + 3 * F) // tp) + q * (H // tp + 2))
    return layer, N * p * d, N * (p * (2 * d + V // tp) + 3 * q)


def kept_bytes(checkpoint, layers, layer, state, head):
    """Bytes at the peak under a checkpointing policy; ValueError if there is no such policy."""
    kind, _, number = checkpoint.partition(":")
    n = int(number) if number.lstrip("-").isdigit() else None
    if checkpoint == "none":
        return layers * layer + head
    if checkpoint == "layers":
        return max(layers - 1, 0) * state + max(state + head, layer) if layers else head
    if kind not in ("segments", "revolve") or n is None:
        raise ValueError(f"llama_memory: checkpoint={checkpoint!r}; needed none, layers, segments:K or revolve:S")
    if kind == "revolve":
        if n < 1:
            raise ValueError(f"llama_memory: checkpoint={checkpoint!r} has snaps={n}; needed at least 1")
        return min(n, layers - 1) * state + layer + head if layers else head
    if not 1 <= n <= layers:
        raise ValueError(f"llama_memory: checkpoint={checkpoint!r} has segments={n}; needed 1 .. layers={layers}")
    lengths = [layers // n + (k < layers % n) for k in range(n)]
    last = (n - 1) * state + lengths[-1] * layer + head
    return max([last, *(j * state + length * layer for j, length in enumerate(lengths[:-1]))])


def from_hugging_face(fields):
    """The Config of a config.json of a LLaMA-style model.

    Parameters
    ----------
    fields : dict
        vocab_size, hidden_size, num_hidden_layers, num_attention_heads, intermediate_size; num_key_value_heads and
        tie_word_embeddings if given. Others are passed over.

    Returns
    -------
    Config

    Raises
    ------
    ValueError
        Keys are missing (all of them are named), or values are no positive integers (all of them).

    >>> from_hugging_face({"vocab_size": 8, "hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 2,
    ...                    "intermediate_size": 6}).hidden
    6
    """
    missing = [key for key in KEYS if key not in fields]
    if missing:
        raise ValueError(f"from_hugging_face: config lacks {', '.join(missing)}")
    found = {key: fields[key] for key in KEYS}
    if fields.get("num_key_value_heads") is not None:
        found["num_key_value_heads"] = fields["num_key_value_heads"]
    odd = [f"{k}={v!r}" for k, v in found.items() if not isinstance(v, int) or isinstance(v, bool) or v < 1]
    if odd:
        raise ValueError(f"from_hugging_face: config has {', '.join(odd)}; needed integers of at least 1")
    e = fields.get("head_dim")
    if e is not None and e * found["num_attention_heads"] != found["hidden_size"]:
        raise ValueError(f"from_hugging_face: config has head_dim={e!r}; needed hidden_size / num_attention_heads")
    named = {name: found[key] for key, name in KEYS.items()}
    tied = bool(fields.get("tie_word_embeddings", False))
    return Config(**named, groups=found.get("num_key_value_heads", 0), tied=tied)


def _size(shape):
    out = 1
    for n in shape:
        out *= n
    return out


def _check(config, batch, seq, precision, tp):
    for name, n in (("batch", batch), ("seq", seq), ("tp", tp)):
        if n < 1:
            raise ValueError(f"llama_memory: {name}={n}; needed at least 1")
    if precision not in BYTES:
        raise ValueError(f"llama_memory: precision={precision!r}; needed one of {', '.join(BYTES)}")
    sizes = {"heads": config.heads, "groups": config.groups or config.heads, "hidden": config.hidden,
             "vocabulary": config.vocabulary}  # fmt: skip
    odd = [f"{name}={n}" for name, n in sizes.items() if n % tp]
    if odd:
        raise ValueError(f"llama_memory: tp={tp} does not divide {', '.join(odd)}")
