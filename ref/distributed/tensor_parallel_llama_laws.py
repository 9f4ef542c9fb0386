"""Laws and mutants of tensor-parallel LLaMA."""

from __future__ import annotations

import numpy as np

import autodiff
from autodiff import namespace
from backends.communicators import ThreadWorld
from ref.attention.flash import flash
from ref.attention.rules import causal
from ref.distributed import common_laws as common
from ref.distributed.common_laws import EXACT, RANKS, around, everywhere, pieces, world, wrong_on_ranks
from ref.distributed.copy_to_ranks import copy_to_ranks
from ref.distributed.differentiable_all_reduce import differentiable_all_reduce
from ref.distributed.vocabulary_parallel_embedding import vocabulary_parallel_embedding
from ref.models.llama import LAYER, Config, llama, parameter_shapes
from ref.nn.linear import linear
from ref.nn.rms_norm import rms_norm
from ref.nn.rope import rope
from ref.nn.swiglu import swiglu
from ref.spec import law
from ref.spec.cases import Flag, cases, choose, dims, rng

ID = "distributed.tensor_parallel_llama"
EMBED, HEAD, FINAL = "model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"
COLUMNS = ("o_proj.weight", "down_proj.weight")


def cut(params, n):
    """[{name: rank r's part}, ..], said again: W_o and W_down along columns, norms nowhere, the rest along rows."""
    parts = [{} for _ in range(n)]
    for name, a in params.items():
        mine = [a.copy() for _ in range(n)] if a.ndim == 1 else pieces(a, n, int(name.endswith(COLUMNS)))
        for part, piece in zip(parts, mine, strict=True):
            part[name] = np.ascontiguousarray(piece)
    return parts


def whole(parts):
    """The parameters that `cut` cuts."""
    join = {False: lambda a, name: np.concatenate(a, int(name.endswith(COLUMNS))), True: lambda a, name: a[0]}
    return {name: join[a.ndim == 1]([p[name] for p in parts], name) for name, a in parts[0].items()}


def _config(draw, c):
    return Config(vocabulary=c.V, channels=c.n * c.K * c.R * 2, layers=c.layers, heads=c.n * c.K * c.R,
                  groups=c.n * c.K, hidden=c.F, eps=c.eps, rope_layout=c.turned, tied=c.tied)  # fmt: skip


def _params(draw, c):
    """Matrices of variance 1 / in, norms near 1; for "signs" E of 1 and -1, the others small integers."""
    g, values = rng(draw), {}
    for name, shape in parameter_shapes(c.config).items():
        if c.kind == "signs":
            values[name] = g.choice([-1.0, 1.0], shape) if name == EMBED else g.integers(-2, 3, shape) * 1.0
        else:
            w = g.standard_normal(shape)
            values[name] = 1 + w / 8 if len(shape) == 1 else w * (1.0 if name == EMBED else shape[-1] ** -0.5)
    return cut(values, c.n)


space = cases(
    ID, n=RANKS, comm=world, M=dims(1, 2), T=dims(1, 4), V=around, F=around, K=choose(1, 2), R=choose(1, 2),
    layers=choose(1, 1, 2), eps=0.25, turned=choose("half", "interleaved"), tied=choose(True, False), kind="wild",
    config=_config, params=_params, tokens=lambda draw, c: everywhere(rng(draw).integers(0, c.V, (c.M, c.T)), c.n),
    g=lambda draw, c: pieces(rng(draw).integers(-8, 9, (c.M, c.T, c.V)) / 4.0, c.n, 2),
    checkpointed=choose(False, True),
    algorithm=choose(None, "canonical"),
    flags={
        "alone": Flag(lambda c: c.n == 1, {"n": 1}),
        "pair": Flag(lambda c: c.n == 2 and c.T > 2, {"n": 2, "T": dims(3, 4)}),
        "many": Flag(lambda c: c.n > 2, {"n": choose(3, 4)}),
        "grouped": Flag(lambda c: c.n > 1 and c.K > 1 and c.R > 1, {"n": 2, "K": 2, "R": 2}),
        "uneven": Flag(lambda c: c.V % c.n > 0 and c.F % c.n > 0, {"n": dims(2, 4), "V": 7, "F": 7}),
    },
)  # fmt: skip


@law(
    ID, "L1", closed_form=True, given=space.where(layers=0, eps=0.0, kind="signs").reach("alone", "many", "uneven"),
    kills=["head_of_the_neighbour"],
)  # fmt: skip
def without_layers_a_bigram(impl, c, expect):
    "E of 1 and -1, whose rows have norm 1: logits are (E[token] * g) W_head^T in whole numbers, cut by classes."
    p = {name: a.astype(np.float64) for name, a in whole(c.params).items()}
    wanted = (p[EMBED][c.tokens[0]] * p[FINAL]) @ p[EMBED if c.tied else HEAD].T
    found = common.by_rank(impl(c), c, expect)
    for r, part in enumerate(pieces(wanted, c.n, 2)):
        expect.holds(found[r].dtype == c.dtype, "logits have the parameters' dtype")
        expect.same(found[r], part, f"logits of rank {r}")


def near(wanted):
    """The bound of the specification, where none is derived through the layers."""
    return 1e-10 * np.maximum(1, np.abs(wanted))


@law(
    ID, "L2", dtypes=EXACT, given=space.reach("pair", "uneven"),
    kills=["not_reduced_after_attention", "residual_inside"],
)  # fmt: skip
def logits_are_those_of_one_rank(impl, c, expect):
    "The logits of `models.llama` with the whole parameters, rank r's classes; within 1e-10."
    wanted = llama(whole(c.params), c.tokens[0], c.config)
    found = common.by_rank(impl(c), c, expect)
    for r, part in enumerate(pieces(wanted, c.n, 2)):
        expect(found[r], part, near(part), f"logits of rank {r}", scale=1.0)


@law(
    ID, "L3", needs=("vjp",), dtypes=EXACT, given=space.reach("many", "grouped"),
    kills=["no_f_before_the_head", "no_f_before_the_layers", "summed_backward", "norm_gradients_summed"],
)  # fmt: skip
def gradients_are_those_of_one_rank(impl, c, expect):
    "Gradients of `models.llama`, each cut as its parameter is; those of the norms whole on every rank; within 1e-10."
    _, pull = autodiff.vjp(lambda p: llama(p, c.tokens[0], c.config), whole(c.params))
    (wanted,) = pull(np.concatenate(c.g, 2))
    wanted = {name: np.asarray(autodiff.raw(a)) for name, a in wanted.items()}
    most = max(np.max(np.abs(a), initial=1.0) for a in wanted.values())
    for r, (found, parts) in enumerate(zip(impl.vjp(c, c.g)["params"], cut(wanted, c.n), strict=True)):
        for name, part in parts.items():
            expect.holds(found[name].shape == part.shape, f"d {name} of rank {r} has the shape {part.shape}")
        one, two = (np.concatenate([a.reshape(-1) for a in p.values()]) for p in (found, parts))
        expect(one, two, near(np.full(one.shape, most)), f"gradients of rank {r}, {', '.join(found)}", scale=most)


@law(
    ID, "L4", closed_form=True, needs=("vjp",), given=space.where(algorithm="canonical", T=1).reach("many"),
    kills=["summed_backward", "norm_gradients_summed"],
    passes_null=["zeros", "constant", "nan", "identity", "cached", "wrong_dtype"],
)  # fmt: skip
def bytes_are_the_formula(impl, c, expect):
    """All ranks together send 2 (n - 1) (2 layers + 1) B T d numbers forward and the same backward; recomputed layers
    2 (n - 1) 2 layers B T d more."""
    one = 2 * (c.n - 1) * c.M * c.T * c.config.channels * c.dtype.itemsize
    expect.same(common.bytes_of_all(impl, c), one * (2 * c.layers + 1), "forward")
    again = 2 * c.layers if c.checkpointed else 0
    expect.same(common.bytes_of_all(impl, c, c.g), one * (2 * (2 * c.layers + 1) + again), "and backward")


@law(
    ID, "L5", needs=("vjp",), dtypes=EXACT, given=space.where(n=choose(2, 3), layers=1),
    kills=["recomputed_alone"],
    passes_null=["zeros", "constant", "nan", "identity"],
)  # fmt: skip
def recomputed_layers_give_the_same_bits(impl, c, expect):
    "checkpointed changes no bit of a gradient."
    found, wanted = (impl.vjp(c.replace(checkpointed=flag), c.g)["params"] for flag in (True, False))
    for r in range(c.n):
        for name in found[r]:
            expect.same(found[r][name], wanted[r][name], f"d {name} of rank {r}")


# Mutants -----------------------------------------------------------------------------------------------


def of_nothing(n=2):
    """Two ranks, an embedding of zeros: all logits are zero."""
    config = Config(vocabulary=4, channels=8, layers=1, heads=4, groups=2, hidden=4, eps=0.25, tied=True)
    g = np.random.default_rng(0)
    values = {name: g.standard_normal(s) * (name != EMBED) for name, s in parameter_shapes(config).items()}
    return (ThreadWorld(n), cut(values, n), everywhere(np.array([[1, 2, 3]]), n)), {"config": config}


wrong = wrong_on_ranks(ID, "params", default_case=of_nothing)


def again(
    comm, p, tokens, config, checkpointed, algorithm, *, f=copy_to_ranks, f_head=copy_to_ranks, norm=lambda a: a,
    adjoint="one_loss", inside=False, after=True, roll=0,
):  # fmt: skip
    """The model, with edits."""
    xp, e, how = namespace(*p.values()), config.channels // config.heads, {"algorithm": algorithm}
    turn = {"layout": config.rope_layout, "base": config.rope_base}
    at = np.arange(tokens.shape[-1])

    def total(y, x, reduced=True):
        y = x + y if inside else y
        y = differentiable_all_reduce(comm, y, adjoint=adjoint, **how) if reduced else y
        return y if inside else x + y

    def heads(x):
        return xp.moveaxis(xp.reshape(x, (*x.shape[:-1], x.shape[-1] // e, e)), -2, -3)

    def layer(x, w):
        n = f(comm, rms_norm(x, norm(w["input_layernorm.weight"]), eps=config.eps), **how)
        q, k, v = (heads(linear(n, w[f"self_attn.{j}_proj.weight"])) for j in "qkv")
        o, _ = flash(rope(q, at, **turn), rope(k, at, **turn), v, mask=causal())
        o = xp.moveaxis(o, -3, -2)
        o = linear(xp.reshape(o, (*o.shape[:-2], o.shape[-2] * e)), w["self_attn.o_proj.weight"])
        x = total(o, x, after)
        n = f(comm, rms_norm(x, norm(w["post_attention_layernorm.weight"]), eps=config.eps), **how)
        hidden = swiglu(linear(n, w["mlp.gate_proj.weight"]), linear(n, w["mlp.up_proj.weight"]))
        return total(linear(hidden, w["mlp.down_proj.weight"]), x)

    x = vocabulary_parallel_embedding(comm, p[EMBED], tokens, vocabulary=config.vocabulary, **how)
    for i in range(config.layers):
        w = {name: p[f"model.layers.{i}.{name}"] for name in LAYER}
        x = autodiff.checkpoint(layer, x, w) if checkpointed else layer(x, w)
    x = f_head(comm, rms_norm(x, norm(p[FINAL]), eps=config.eps), **how)
    y = linear(x, p[EMBED if config.tied else HEAD])
    return y[..., np.roll(np.arange(y.shape[-1]), roll)] if roll else y


def _nothing(comm, x, *, algorithm):
    return x


@wrong
def no_f_before_the_head(comm, params, tokens, *, config, checkpointed=False, drop=None, algorithm=None):
    "The last norm's gradient is the part of the rank's own classes."
    return again(comm, params, tokens, config, checkpointed, algorithm, f_head=_nothing)


@wrong
def no_f_before_the_layers(comm, params, tokens, *, config, checkpointed=False, drop=None, algorithm=None):
    "No f inside the layers: gradients of the rank's own heads flow on alone."
    return again(comm, params, tokens, config, checkpointed, algorithm, f=_nothing)


@wrong
def summed_backward(comm, params, tokens, *, config, checkpointed=False, drop=None, algorithm=None):
    "g with an all-reduce backward: n times the gradients of what lies before."
    return again(comm, params, tokens, config, checkpointed, algorithm, adjoint="sum_of_losses")


@wrong
def norm_gradients_summed(comm, params, tokens, *, config, checkpointed=False, drop=None, algorithm=None):
    "The norms' gradients are summed over ranks, as under sequence parallelism: n times too large."
    norm = lambda a: copy_to_ranks(comm, a, algorithm=algorithm)  # noqa: E731
    return again(comm, params, tokens, config, checkpointed, algorithm, norm=norm)


@wrong
def not_reduced_after_attention(comm, params, tokens, *, config, checkpointed=False, drop=None, algorithm=None):
    "One all-reduce a layer, behind the feed-forward alone."
    return again(comm, params, tokens, config, checkpointed, algorithm, after=False)


@wrong
def residual_inside(comm, params, tokens, *, config, checkpointed=False, drop=None, algorithm=None):
    "The residual is added before the all-reduce: n of it."
    return again(comm, params, tokens, config, checkpointed, algorithm, inside=True)


@wrong
def head_of_the_neighbour(comm, params, tokens, *, config, checkpointed=False, drop=None, algorithm=None):
    "The classes of a rank after the first start one too early."
    return again(comm, params, tokens, config, checkpointed, algorithm, roll=1)


@wrong
def recomputed_alone(comm, params, tokens, *, config, checkpointed=False, drop=None, algorithm=None):
    "Recomputed layers skip f, taken for the forward's alone."
    return again(comm, params, tokens, config, checkpointed, algorithm, f=_nothing if checkpointed else copy_to_ranks)
