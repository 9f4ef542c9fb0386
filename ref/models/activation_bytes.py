"""Activation memory of a GPT block: what the backward needs, in bytes, to the byte.

Source: Korthikanti et al. 2022 (2205.05198) Eq. 1-6 and Table 2.

    none, one rank               s b h (34 + 5 a s / h)
    tensor parallel t            s b h (10 + 24 / t + 5 a s / (h t))
    tensor and sequence          s b h / t (34 + 5 a s / h)
    attention run again          the same without 5 a s / h
    block run again              2 s b h       (with sequence parallelism 2 s b h / t)

at 2 bytes an element, 1 byte an element of a dropout mask, and 4 h hidden channels. It is the sum of what each
primitive of `models.gpt_block` declares to save, at p bytes an element, F hidden channels:

    two layer norms 2 p h, inputs of QKV and of the first layer 2 p h, two masks 2 h           whole on each rank
    Q, K, V, the projection's input 4 p h, GELU's input, the second layer's 2 p F       split over t ranks
    softmax, the dropped weights 2 p a s, their mask a s                                       split over t ranks

each times s b. Weights are not activations, and the output is counted where it is read.

Notation
    s -> s tokens, b -> b sequences, h -> h channels, a -> a heads, t -> tp.

Conventions
    C1  Without dropout there are no masks, and the weights of attention are kept once.
    C2  The paper counts one layer; `layers` multiplies. Embedding, final norm and logits are not in it.
    C3  With lean=False every function is composed of elementary primitives: `composite_bytes` says what they save.

Laws
    L1 the_papers_formulas                   L2 the_tape_holds_it
    L3 ranks_share_the_whole                 L4 the_composed_tape_holds_it
"""

from __future__ import annotations

import operator

from ref.models.gpt_block import RECOMPUTE
from ref.spec import spec


@spec("models.activation_bytes", "s:int[], b:int[], h:int[], a:int[] -> bytes:tree", backends=("numpy",))
def activation_bytes(
    s, b, h, a, *, hidden=None, element=2, dropout=True, tp=1, sequence_parallel=False, recompute=None, layers=1,
    lean=True,
):  # fmt: skip
    """Bytes that the layers of a GPT keep for the backward, on each rank.

    Parameters
    ----------
    s, b, h, a : int
        Tokens of a sequence, sequences, channels, heads.
    hidden : int, optional
        Channels of the feed-forward layer; 4 h if not given.
    element : int
        Bytes of an element.
    dropout : bool
    tp : int
        Tensor-parallel ranks; they divide a and hidden.
    sequence_parallel : bool
        What tensor parallelism leaves whole is split along the sequence; tp divides s.
    recompute : None, "attention" or "block"
    layers : int
    lean : bool
        As in `models.gpt_block`.

    Returns
    -------
    int

    Raises
    ------
    ValueError
        A size below 1, one that does not divide, an unknown `recompute`, or sequence_parallel without lean.
    TypeError
        A size is no integer.

    Complexity: constant.

    >>> activation_bytes(2048, 1, 12288, 96) == 2048 * 12288 * (34 + 5 * 96 * 2048 // 12288)
    True
    """
    s, b, h, a, t, p, F, layers = _sizes(s, b, h, a, hidden, element, tp, layers)
    if recompute not in RECOMPUTE:
        raise ValueError(f"activation_bytes: recompute={recompute!r}; needed one of {RECOMPUTE}")
    if sequence_parallel and (not lean or s % t):
        raise ValueError(
            f"activation_bytes: sequence_parallel with s={s}, tp={t}, lean={lean}; tp must divide s, and lean be True"
        )
    if recompute == "block":
        return layers * p * s * b * h // (t if sequence_parallel else 1)
    if not lean:
        return layers * composite_bytes(s, b, h, a, F, t, p, dropout, recompute is None)
    whole = s * b * (4 * p * h + (2 * h if dropout else 0))
    split = s * b * (4 * p * h + 2 * p * F)
    core = a * s * s * b * (2 * p + 1 if dropout else p) if recompute is None else 0
    return layers * (whole // (t if sequence_parallel else 1) + (split + core) // t)


def composite_bytes(s, b, h, a, F, t, p, dropout, core):  # noqa: N803
    """Bytes of a block of elementary primitives; 2-byte rows are normalised in float32.

    Layer norm keeps its differences from the mean, their norm and their quotient, the normalised row (in p bytes beside
    the one in float32, where p = 2); GELU its input, clipped twice, the square, the hyperbolic tangent and the
    gate; softmax its argument, maximum, exponentials and their sum, the causal mask, and the weights, of which dropout
    keeps a mask and a copy more.
    """
    wide = max(p, 4)
    norms = 2 * ((h + 1) * wide + p * h + (wide * h if p < wide else 0))
    rows = s * b * (norms + 2 * p * h + (2 * h if dropout else 0) + (4 * p * h + 7 * p * F) // t)
    weights = a * s * b * (3 * p * s + 2 * p + ((p + 1) * s if dropout else 0)) // t + s * s
    return rows + (weights if core else 0)


def _sizes(s, b, h, a, hidden, element, tp, layers):
    named = {"s": s, "b": b, "h": h, "a": a, "tp": tp, "element": element,
             "hidden": 4 * operator.index(h) if hidden is None else hidden, "layers": layers}  # fmt: skip
    named = {name: operator.index(n) for name, n in named.items()}
    for name, n in named.items():
        if n < 1:
            raise ValueError(f"activation_bytes: {name}={n}; needed at least 1")
    s, b, h, a, t, p, F, layers = named.values()
    if h % a or a % t or F % t:
        raise ValueError(f"activation_bytes: h={h}, a={a}, hidden={F}, tp={t}; a divides h, tp divides a and hidden")
    return s, b, h, a, t, p, F, layers
