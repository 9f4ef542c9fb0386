"""GPT block: pre-normalised attention and feed-forward layers with dropout, as GPT-2 and Megatron have them.

Source: Radford et al. 2019 (GPT-2) sec. 2.3; Korthikanti et al. 2022 (2205.05198) Fig. 2, whose accounting of
activations is a law of this block.

    x <- x + drop(W_o o + b_o),       o = drop(softmax(Q K^T / sqrt e)) V causal, Q, K, V = W n + b, n = LN_1(x)
    x <- x + drop(W_d u + b_d),       u = gelu(W_u n + b_u),                          n = LN_2(x)

Notation
    x[*B T d]; heads -> H, a head has e = (rows of W_q) / H channels, F = rows of W_u. A rank of a tensor-parallel
    group holds some of the heads and of the hidden channels: the same code, with fewer rows in W_q, W_k, W_v, W_u.

Conventions
    C1  GELU by tanh, eps 1e-5, biases everywhere, dropout at three sites: the weights of attention, and what either
        branch adds. Site i of a block drops by the counter rule of seed + i.
    C2  "lean" (the default) keeps for the backward what Korthikanti counts: layer norm its input, GELU its input,
        softmax its output. Otherwise each is composed of elementary primitives, and they keep what they need.
    C3  `recompute` "attention" runs the core of attention again in the backward (Korthikanti's selective
        recomputation), "block" the whole block; the bits are the same.
    C4  Scores are divided by sqrt(e) after the product, and softmax, not the scores, is dropped.

Laws
    L1 silent_branches_change_nothing       L2 one_token_reads_its_own_value
    L3 later_tokens_are_invisible           L4 the_block_is_the_equations_written_out
    L5 gradient_is_the_slope                L6 recomputation_gives_the_same_bits
    L7 dropout_keeps_what_the_counter_keeps
"""

from __future__ import annotations

import math

from autodiff import checkpoint, namespace
from autodiff.primitive import Primitive
from ref.nn.dropout import dropout
from ref.nn.gelu import gelu
from ref.nn.layer_norm import layer_norm
from ref.nn.linear import linear
from ref.nn.rms_norm import mean
from ref.spec import bind, spec

EPS = 1e-5
RECOMPUTE = (None, "attention", "block")
SHAPES = {
    "ln_1.weight": ("d",), "ln_1.bias": ("d",),
    "attn.q.weight": ("D", "d"), "attn.q.bias": ("D",),
    "attn.k.weight": ("D", "d"), "attn.k.bias": ("D",),
    "attn.v.weight": ("D", "d"), "attn.v.bias": ("D",),
    "attn.out.weight": ("d", "D"), "attn.out.bias": ("d",),
    "ln_2.weight": ("d",), "ln_2.bias": ("d",),
    "mlp.up.weight": ("F", "d"), "mlp.up.bias": ("F",),
    "mlp.down.weight": ("d", "F"), "mlp.down.bias": ("d",),
}  # fmt: skip


@spec("models.gpt_block", "x[*B T d], params:tree -> [*B T d]", grads=("x", "params"))
def gpt_block(x, params, *, heads, rate=0.0, seed=0, lean=True, recompute=None):
    """One block of a GPT.

    Parameters
    ----------
    x : float[*B T d]
    params : {str: float array}
        Names and axes as in SHAPES; D = heads x e.
    heads : int
    rate : float
        Probability of being dropped.
    seed : int
        Of the three masks.
    lean : bool
        Keep one array for each of layer norm, GELU and softmax (C2).
    recompute : None, "attention" or "block"
        What is run again in the backward (C3).

    Returns
    -------
    float[*B T d]

    Raises
    ------
    ValueError
        Parameters are missing, unexpected or of another shape, heads do not divide D, rate outside [0, 1), or an
        unknown `recompute`.
    TypeError
        An array is not float, or dtypes or backends differ.

    Complexity: 2 B T (4 d D + 2 d F) + 4 B T^2 D operations.

    >>> import numpy as np
    >>> shapes = {n: tuple({"d": 2, "D": 2, "F": 4}[a] for a in axes) for n, axes in SHAPES.items()}
    >>> gpt_block(np.ones((1, 2)), {n: np.zeros(s) for n, s in shapes.items()}, heads=1)
    array([[1., 1.]])
    """
    _check(x, params, heads, rate, recompute)
    if recompute == "block":
        return checkpoint(_block, x, params, heads, rate, seed, lean, False)
    return _block(x, params, heads, rate, seed, lean, recompute == "attention")


def _block(x, p, heads, rate, seed, lean, again):
    n = _norm(x, p, "ln_1", lean)
    q, k, v = (_split(_affine(n, p, f"attn.{name}"), heads) for name in "qkv")
    core = (_core, q, k, v, rate, seed, lean)
    o = _joined(checkpoint(*core) if again else _core(*core[1:]))
    x = x + _drop(_affine(o, p, "attn.out"), rate, seed + 1)
    n = _norm(x, p, "ln_2", lean)
    h = _affine(n, p, "mlp.up")
    u = GELU(h) if lean else gelu.composite(h, approximate="tanh")
    return x + _drop(_affine(u, p, "mlp.down"), rate, seed + 2)


def _core(q, k, v, rate, seed, lean):
    xp = namespace(q, k, v)
    s = xp.matmul(q, xp.matrix_transpose(k)) * (1 / math.sqrt(q.shape[-1]))
    weights = SOFTMAX(s) if lean else _softmax(xp, s)
    return xp.matmul(_drop(weights, rate, seed), v)


def _drop(x, rate, seed):
    return dropout(x, rate=rate, seed=seed) if rate else x


def _affine(x, p, name):
    return linear(x, p[f"{name}.weight"], p[f"{name}.bias"])


def _norm(x, p, name, lean):
    norm = NORM if lean else layer_norm.composite
    return norm(x, p[f"{name}.weight"], p[f"{name}.bias"])


def _split(x, heads):
    """x[*B T (H e)] -> [*B H T e]."""
    xp = namespace(x)
    return xp.moveaxis(xp.reshape(x, (*x.shape[:-1], heads, x.shape[-1] // heads)), -2, -3)


def _joined(o):
    """o[*B H T e] -> [*B T (H e)]."""
    xp = namespace(o)
    o = xp.moveaxis(o, -3, -2)
    return xp.reshape(o, (*o.shape[:-2], o.shape[-2] * o.shape[-1]))


# Lean primitives: one array kept for each --------------------------------------------------------------


def _softmax(xp, s):
    """Causal softmax over the last axis."""
    T = s.shape[-1]
    keep = xp.reshape(xp.arange(T), (T, 1)) >= xp.arange(T)
    s = xp.where(keep, s, -math.inf)
    e = xp.exp(s - xp.max(s, axis=-1, keepdims=True))
    return e / xp.sum(e, axis=-1, keepdims=True)


def _softmax_vjp(xp, g, node):
    p = node.saved[1]
    return ((g - xp.sum(g * p, axis=-1, keepdims=True)) * p,)


def _norm_vjp(xp, g, node):
    x, weight = node.saved[:2]
    centred = x - mean(xp, x)
    r = xp.sqrt(mean(xp, centred * centred) + EPS)
    u, gw = centred / r, g * weight
    dx = (gw - mean(xp, gw) - u * mean(xp, gw * u)) / r
    rows = tuple(range(len(g.shape) - 1))
    return dx, xp.sum(g * u, axis=rows), xp.sum(g, axis=rows)


def _gelu_vjp(xp, g, node):
    x = node.saved[0]
    z = xp.clip(x, -10.0, 10.0)
    a = math.sqrt(2 / math.pi)
    t = xp.tanh((z + z * z * z * 0.044715) * a)
    return (g * ((t + 1.0) * 0.5 + z * (1.0 - t * t) * (z * z * (3 * 0.044715) + 1.0) * (a / 2)),)


SOFTMAX = Primitive("causal_softmax", _softmax_vjp, ((1,),), forward=_softmax)
NORM = Primitive("layer_norm", _norm_vjp, ((0, 1), (0,), ()), forward=lambda xp, *a: layer_norm.composite(*a, eps=EPS))
GELU = Primitive("gelu_tanh", _gelu_vjp, ((0,),), forward=lambda xp, x: gelu.composite(x, approximate="tanh"))


def _check(x, params, heads, rate, recompute):
    bind("gpt_block", "x[*B T d]", x=x)
    missing, extra = sorted(SHAPES.keys() - params.keys()), sorted(params.keys() - SHAPES.keys())
    if missing or extra:
        raise ValueError(f"gpt_block: params lack {missing} and have unexpected {extra}")
    text = ", ".join(f"{n.replace('.', '_')}[{' '.join(axes)}]" for n, axes in SHAPES.items())
    dims = bind("gpt_block", f"x[*B T d], {text}", x=x, **{n.replace(".", "_"): a for n, a in params.items()})
    if heads < 1 or dims["D"] % heads:
        raise ValueError(f"gpt_block: heads={heads}; needed a divisor of D={dims['D']}, the rows of attn.q.weight")
    if not 0 <= rate < 1:
        raise ValueError(f"gpt_block: rate={rate}; needed 0 <= rate < 1")
    if recompute not in RECOMPUTE:
        raise ValueError(f"gpt_block: recompute={recompute!r}; needed one of {RECOMPUTE}")
