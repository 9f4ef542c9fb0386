"""Laws and mutants of the memory that training a LLaMA takes."""

from __future__ import annotations

from functools import cache

import numpy as np

from autodiff import checkpoint_schedule, checkpoint_sequential, forms, saved_bytes, tensor
from ref.losses.softmax_cross_entropy import softmax_cross_entropy
from ref.models.llama import LAYER, Config, layer, llama, parameter_shapes
from ref.models.llama_memory import Memory
from ref.nn.embedding import embedding
from ref.nn.linear import linear
from ref.nn.rms_norm import rms_norm
from ref.spec import law, mutant
from ref.spec.cases import Flag, cases, choose, dims
from ref.training.revolve import revolve

ID = "models.llama_memory"
EXACT = ("float64",)


def _int(*values):
    return lambda draw, c: np.array(draw(choose(*values)))


def _config(draw, c):
    return Config(
        vocabulary=2 * draw(choose(3, 5)), channels=c.heads * 2 * draw(choose(1, 2)), layers=c.L, heads=c.heads,
        groups=c.groups, hidden=2 * draw(choose(1, 4)), tied=draw(choose(True, False)),
    )  # fmt: skip


space = cases(
    ID,
    L=dims(1, 4),
    heads=choose(2, 4),
    groups=choose(0, 2),
    config=_config,
    batch=_int(1, 2, 3),
    seq=_int(2, 3, 5),
    precision=choose("fp32", "bf16", "fp16"),
    checkpoint=choose("none", "layers", "revolve:1", "revolve:2", "segments:1"),
    zero=choose(0, 1, 2, 3),
    tp=1,
    ranks=choose(1, 2, 5),
    memory="C",
    flags={
        "grouped": Flag(lambda c: c.config.groups not in (0, c.config.heads), {"heads": 4, "groups": 2}),
        "deep": Flag(lambda c: c.L > 2, {"L": dims(3, 4)}),
    },
)


def parts(impl, c, expect):
    found = impl(c)
    expect.holds(isinstance(found, tuple | list) and len(found) == 5, "five numbers: parameters and four of bytes")
    expect.holds(all(np.asarray(n).dtype.kind in "iu" for n in found), "all are integers")
    return [int(n) for n in found]


SEVEN = Config()
PUBLISHED = (
    (SEVEN, 6_738_415_616),
    (Config(channels=5120, layers=40, heads=40, hidden=13824), 13_015_864_320),
    (Config(channels=8192, layers=80, heads=64, groups=8, hidden=28672), 68_976_648_192),
)


@law(ID, "L1", closed_form=True, dtypes=EXACT, given=space, kills=["groups_ignored", "head_never_tied"])
def llama_2_as_published(impl, c, expect):
    """LLaMA-2 has 6,738,415,616, 13,015,864,320 and 68,976,648,192 parameters, of 16 bytes of states each: 107.8 GB
    for the smallest; a tied head has V d parameters fewer."""
    for config, count in PUBLISHED:
        one = c.replace(config=config, zero=0, ranks=1, tp=1, checkpoint="none")
        found = parts(impl, one, expect)
        expect.same(found[0], count, "parameters")
        expect.same(sum(found[1:4]), 16 * count, "bytes of states")
    tied = c.replace(config=SEVEN._replace(tied=True), zero=0, ranks=1, tp=1, checkpoint="none")
    expect.same(parts(impl, tied, expect)[0], 6_738_415_616 - 32000 * 4096, "parameters with a tied head")


@cache
def counted(config, batch, seq, way):
    """Bytes that the engine's tape keeps at the loss, in float32 and fused forms, the layers run `way`."""
    params = {n: tensor(np.ones(s, np.float32), requires_grad=True) for n, s in parameter_shapes(config).items()}
    tokens = np.zeros((batch, seq), np.int64)
    with forms("fused"):
        if way in ("none", "layers"):
            logits = llama(params, tokens, config, checkpointed=way == "layers")
        else:
            logits = by_parts(params, tokens, config, way)
        loss = softmax_cross_entropy(logits, tokens)
        return saved_bytes(loss, besides=list(params.values()))


def by_parts(p, tokens, config, way):
    def run(i):
        mine = {name: p[f"model.layers.{i}.{name}"] for name in LAYER}
        return lambda x: layer(x, mine, np.arange(tokens.shape[-1]), config, lambda x, site: x, i)

    layers, kind, n = [run(i) for i in range(config.layers)], *way.split(":")
    x = embedding(p["model.embed_tokens.weight"], tokens)
    if kind == "revolve":
        x = checkpoint_schedule(layers, x, revolve(config.layers, int(n)))
    else:
        x = checkpoint_sequential(layers, x, int(n))
    x = rms_norm(x, p["model.norm.weight"], eps=config.eps)
    return linear(x, p["model.embed_tokens.weight" if config.tied else "lm_head.weight"])


single = space.where(precision="fp32")


@law(
    ID, "L2", closed_form=True, dtypes=EXACT, given=single.where(checkpoint="none").reach("grouped", "deep"),
    kills=["groups_ignored", "logits_forgotten", "rope_keeps_nothing", "statistics_forgotten"],
)  # fmt: skip
def the_tape_holds_it(impl, c, expect):
    "The engine, run on `models.llama` and its cross entropy in float32, keeps as many bytes at the loss."
    wanted = counted(c.config, int(c.batch), int(c.seq), "none")
    expect.same(parts(impl, c, expect)[4], wanted, "bytes of activations")


@law(
    ID, "L3", closed_form=True, dtypes=EXACT,
    given=space.where(tp=2, groups=2, ranks=1, checkpoint="none").reach("deep"),
    kills=["norms_split", "tp_ignored"],
)  # fmt: skip
def ranks_share_what_can_be_shared(impl, c, expect):
    """Two tensor-parallel ranks together hold the whole, and a second time what stays whole: the (2 L + 1) d weights of
    norms, and N (4 p d + 2 q) a layer and N (2 p d + 3 q) at the head."""
    alone, here = parts(impl, c.replace(tp=1), expect), parts(impl, c, expect)
    d, N, p = c.config.channels, int(c.batch) * int(c.seq), 4 if c.precision == "fp32" else 2
    expect.same(here[0], alone[0], "parameters of the model")
    expect.same(2 * sum(here[1:4]) - sum(alone[1:4]), 16 * (2 * c.L + 1) * d, "bytes of states held twice")
    twice = N * (c.L * (4 * p * d + 8) + 2 * p * d + 12)
    expect.same(2 * here[4] - alone[4], twice, "bytes of activations held twice")


@law(
    ID, "L4", closed_form=True, dtypes=EXACT,
    given=single.where(
        L=dims(2, 4), checkpoint=choose("layers", "revolve:1", "revolve:2", "segments:1", "segments:2")
    ).reach("deep"),
    kills=["initial_state_not_counted", "last_segment_dropped", "checkpoint_ignored", "layers_keep_a_tape_each"],
)  # fmt: skip
def checkpoints_keep_what_they_say(impl, c, expect):
    """The peak is what the engine keeps at the loss, or later while it turns a layer or a segment before the last: the
    inputs kept until then and a tape of the engine's own size for each of its layers."""
    config, b, s = c.config, int(c.batch), int(c.seq)
    one, two = (counted(config._replace(layers=k), b, s, "none") for k in (1, 2))
    tape, state = two - one, 4 * b * s * config.channels
    later = [(c.L - 1) * state + tape] if c.checkpoint == "layers" else [0]
    if c.checkpoint == "segments:2":
        later = [(c.L + 1) // 2 * tape]
    wanted = max(counted(config, b, s, c.checkpoint), *later)
    expect.same(parts(impl, c, expect)[4], wanted, "bytes of activations at the peak")


# Mutants ---------------------------------------------------------------------------------------------


def of(config=None, **options):
    config = config or Config(vocabulary=6, channels=8, layers=2, heads=2, hidden=4)
    return lambda: ((config, np.array(1), np.array(2)), options)


def account(config, batch, seq, *, precision="bf16", checkpoint="none", zero=0, tp=1, ranks=1, **edit):
    d, H, F, V, L = config.channels, config.heads, config.hidden, config.vocabulary, config.layers
    G = H if edit.get("no_groups") else config.groups or H
    tied = config.tied and not edit.get("untied")
    p, N = 4 if precision == "fp32" else 2, int(batch) * int(seq)
    g, q = G * (d // H), 0 if edit.get("no_statistics") else max(p, 4)
    matrices = V * d * (1 if tied else 2) + L * (2 * d * d + 2 * d * g + 3 * d * F)
    norms = (2 * L + 1) * d
    t = 1 if edit.get("no_tp") else tp
    local = (matrices + norms) // t if edit.get("split_norms") else matrices // t + norms
    sizes = (4, 4, 8) if precision == "fp32" else (2, 2, 12)
    states = [n * (-(-local // ranks) if zero >= k else local) for n, k in zip(sizes, (3, 2, 1), strict=True)]
    turned = 0 if edit.get("no_rope") else d + g
    tape = N * (p * (4 * d + (3 * d + 2 * g + turned + 3 * F) // t) + q * (H // t + 2))
    state, head = N * p * d, N * (p * 2 * d + 3 * q + (0 if edit.get("no_logits") else p * V // t))
    kind, _, n = ("none" if edit.get("no_checkpoint") else checkpoint).partition(":")
    if kind == "none":
        kept = L * tape + head
    elif kind == "layers":
        kept = L * state + head + (tape if edit.get("tape_each") else 0)
        kept = max(kept, (L - 1) * state + tape)
    elif kind == "revolve":
        kept = min(int(n) + edit.get("extra", 0), L - 1) * state + tape + head
    else:
        n = int(n)
        lengths = [L // n + (k < L % n) for k in range(n)]
        last = n * state + head if edit.get("drop_last") else (n - 1) * state + lengths[-1] * tape + head
        again = lengths if edit.get("drop_last") else lengths[:-1]
        kept = max([last, *(j * state + k * tape for j, k in enumerate(again))])
    return Memory(matrices + norms, *states, kept)


def _mutant(name, statement, default=None, **edit):
    def wrong(config, batch, seq, **options):
        return account(config, batch, seq, **options, **edit)

    wrong.__name__, wrong.__doc__ = name, statement
    mutant(ID, default_case=default or of())(wrong)


_mutant("groups_ignored", "As many key heads as query heads.", no_groups=True)
_mutant("head_never_tied", "V d parameters for the head in any case.", untied=True)
_mutant("logits_forgotten", "The logits are not kept.", of(checkpoint="layers", config=Config(6, 8, 5, 2, 0, 64)),
        no_logits=True)  # fmt: skip
_mutant("rope_keeps_nothing", "Q and K are kept once, before RoPE or after.",
        of(checkpoint="layers", config=Config(600, 8, 2, 2, 0, 4)), no_rope=True)  # fmt: skip
_mutant("statistics_forgotten", "No root mean squares, no log-sum-exps.",
        of(config=Config(32_000_000, 8, 0, 2, 0, 4)), no_statistics=True)  # fmt: skip
_mutant("norms_split", "Weights of norms are split by tensor parallelism.", split_norms=True)
_mutant("tp_ignored", "Tensor parallelism splits nothing.", no_tp=True)
_mutant("initial_state_not_counted", "S snapshots and the input of the chain.", of(checkpoint="revolve:1"), extra=1)
_mutant("last_segment_dropped", "The last segment is dropped too, as Chen has it.", drop_last=True)
_mutant("checkpoint_ignored", "Everything is kept.", no_checkpoint=True)
_mutant("layers_keep_a_tape_each", "The tape of the layer run again is there while the loss is.", tape_each=True)
