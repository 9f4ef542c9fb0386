"""Laws and mutants of LLaMA."""

from __future__ import annotations

import numpy as np

from ref.models.llama import LAYER, Config, llama, parameter_shapes
from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, batch, cases, choose, dims, ints, rng

ID = "models.llama"
EMBED, HEAD, FINAL = "model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"


def draw_config(draw, c):
    return Config(
        vocabulary=c.V, channels=c.G * c.R * c.e, layers=c.layers, heads=c.G * c.R, groups=c.G, hidden=c.F,
        eps=c.eps, rope_base=c.base, rope_layout=c.turned, tied=c.tied,
    )  # fmt: skip


def draw_params(draw, c):
    """Matrices of variance near 1 / in, norms near 1; all of them float16 numbers."""
    g, params = rng(draw), {}
    for name, shape in parameter_shapes(c.config).items():
        size = 1.0 if name in (EMBED, HEAD) else 2.0 ** -round(np.log2(max(shape[-1], 1)) / 2)
        w = np.clip(np.round(g.standard_normal(shape) * 16), -64, 64) / 16
        params[name] = 1 + w / 8 if len(shape) == 1 else w * size
    return params


def draw_positions(draw, c):
    if c.numbered == "none":
        return None
    rows = c.B if c.numbered == "own" else ()
    return np.cumsum(rng(draw).integers(1, 4, (*rows, c.T)), -1)


space = cases(
    ID,
    B=batch(2, 2), T=dims(1, 5, large=70), V=dims(2, 6), G=dims(1, 2), R=dims(1, 2), e=choose(4, 2, 8), F=dims(1, 5),
    layers=dims(1, 2), eps=choose(1e-5, 0.25), base=choose(10000.0, 3.0), turned=choose("half", "interleaved"),
    checkpointed=choose(False, True),
    tied=choose(True, False), numbered=choose("none", "row", "own"), config=draw_config, params=draw_params,
    tokens=ints("*B T", 0, "V"), positions=draw_positions,
    unset={"positions": {"numbered": "none", "positions": None}},
    flags={
        "grouped": Flag(lambda c: c.R > 1 and c.G > 1 and c.layers > 0 and c.tokens.size > 0,
                        {"R": 2, "G": 2, "B": (2,)}),
        "own": Flag(lambda c: c.numbered == "own" and c.B == (2,), {"numbered": "own", "B": (2,)}),
        "some": Flag(lambda c: c.tokens.size > 0, {"B": choose((), (2,))}),
        "long": Flag(lambda c: c.T > 2 and c.tokens.size > 0, {"T": dims(3, 5), "B": choose((), (2,))}),
    },
)  # fmt: skip
some = space.where(some=True)


# The model said again, with loops over layers, heads and rows ----------------------------------------


def slow(c, params=None, dtype=np.longdouble, **edit):
    """Logits in `dtype` (real or complex), in the order of the equations."""
    return written_out(params or c.params, c.tokens, c.config, c.positions, dtype, **edit)


def written_out(
    params, tokens, config, positions, dtype, *, norm=None, key_head=None, seen=None, score_channels=None,
    second_norm="post_attention_layernorm.weight", gate="gate", up="up", parallel=False, layout=None, turn_keys=True,
    embedded=1.0, head=None, final=True, carried=None,
):  # fmt: skip
    p = {name: np.asarray(a, dtype) for name, a in params.items()}
    norm, d, H = norm or plain_norm, config.channels, config.heads
    e, R = d // H, H // (config.groups or H)
    T = tokens.shape[-1]
    positions = np.arange(T) if positions is None else positions
    positions = np.broadcast_to(positions, tokens.shape)
    x = p[EMBED][tokens] * dtype(embedded)
    for i in range(config.layers):
        w = {name: p[f"model.layers.{i}.{name}"] for name in LAYER}
        n = norm(x, w["input_layernorm.weight"], config.eps)
        q, k, v = (n @ w[f"self_attn.{j}_proj.weight"].T for j in "qkv")
        o = np.zeros(x.shape, dtype)
        for h in range(H):
            g = h // R if key_head is None else key_head(h, R, config.groups or H)
            mine, its = slice(h * e, h * e + e), slice(g * e, g * e + e)
            a = rotated(q[..., mine], positions, config, layout)
            b = rotated(k[..., its], positions, config, layout) if turn_keys else k[..., its]
            for t in range(T):
                last = t + 1 if seen is None else seen(t, T)
                s = np.einsum("...e,...se->...s", a[..., t, :], b[..., :last, :])
                s = s / np.sqrt(dtype(e if score_channels is None else score_channels(e, d)))
                r = np.exp(s - np.max(s.real, -1, keepdims=True))
                r = r / r.sum(-1, keepdims=True)
                o[..., t, mine] = np.einsum("...s,...se->...e", r, v[..., :last, its])
        o = o @ w["self_attn.o_proj.weight"].T
        y = x + o if carried is None else carried(n, o)
        n = norm(x if parallel else y, w[second_norm], config.eps)
        z = n @ w[f"mlp.{gate}_proj.weight"].T
        hidden = z / (1 + np.exp(-z)) * (n @ w[f"mlp.{up}_proj.weight"].T)
        x = y + hidden @ w["mlp.down_proj.weight"].T
    x = norm(x, p[FINAL], config.eps) if final else x
    return x @ (head(p) if head else p[EMBED if config.tied else HEAD]).T


def plain_norm(x, weight, eps):
    return x / np.sqrt((x * x).sum(-1, keepdims=True) / x.shape[-1] + x.dtype.type(eps)) * weight


def rotated(x, positions, config, layout=None):
    """x[*B T e]: pair i turned by position * base^{-2 i / e}."""
    e, out = x.shape[-1], np.zeros_like(x)
    for i in range(e // 2):
        half = (layout or config.rope_layout) == "half"
        j, k = (i, i + e // 2) if half else (2 * i, 2 * i + 1)
        angle = positions.astype(np.longdouble) * np.longdouble(config.rope_base) ** (-2 * i / np.longdouble(e))
        cos, sin = np.cos(angle).astype(x.dtype), np.sin(angle).astype(x.dtype)
        out[..., j] = x[..., j] * cos - x[..., k] * sin
        out[..., k] = x[..., j] * sin + x[..., k] * cos
    return out


# Bounds ----------------------------------------------------------------------------------------------


def dtype_of(c):
    return c.params[EMBED].dtype


def bound_of(c):
    """Twice what the plain form loses in this dtype, and the roundings of the last product.

    Of a logit sum_j n_j g_j w_j: d in the product, d / 2 + 8 in the norm; |n| = sqrt(d), so sum_j |n_j g_j w_j| is
    at most sqrt(d) |g w|.
    """
    lost = np.abs(slow(c, dtype=dtype_of(c).type).astype(np.longdouble) - slow(c))
    head = (c.params[EMBED if c.config.tied else HEAD] * c.params[FINAL]).astype(np.float64)
    size, d = np.sqrt(c.config.channels * np.sum(head * head, -1)), c.config.channels
    return 2 * float(np.max(lost, initial=0)) + bounds.rounding(1.5 * d + 8, size, dtype_of(c))


def scale_of(c):
    return float(np.max(np.abs(slow(c)), initial=0))


def with_silent_branches(c):
    """The case with W_o = 0 and W_down = 0 in every layer."""
    quiet = {n: np.zeros_like(a) for n, a in c.params.items() if n.endswith(("o_proj.weight", "down_proj.weight"))}
    return c.replace(params={**c.params, **quiet})


def bigram(c):
    """RMSNorm(E[token]) g against the head, a token at a time."""
    p = {n: a.astype(np.float64) for n, a in c.params.items()}
    out = np.zeros((*c.tokens.shape, c.config.vocabulary))
    for at in np.ndindex(c.tokens.shape):
        x = p[EMBED][c.tokens[at]]
        n = x / np.sqrt(np.mean(x * x) + c.config.eps) * p[FINAL]
        for v in range(c.config.vocabulary):
            out[(*at, v)] = np.sum(n * p[EMBED if c.config.tied else HEAD][v])
    return out


# Laws ------------------------------------------------------------------------------------------------


@law(ID, "L1", closed_form=True, given=space.where(layers=0, some=True),
     kills=["no_final_norm", "head_is_the_embedding", "eps_outside_the_root"])  # fmt: skip
def without_layers_a_bigram(impl, c, expect):
    "No layers: logits = W_head (RMSNorm(E[token]) g), a function of the token alone."
    expect(impl(c), bigram(c), bound_of(c))


@law(ID, "L2", closed_form=True, given=some, kills=["residual_after_the_norm", "head_is_the_embedding"])
def silent_branches_change_nothing(impl, c, expect):
    "W_o = 0 and W_down = 0: whatever else the layers hold, the logits are those without layers."
    c = with_silent_branches(c)
    expect(impl(c), bigram(c), bound_of(c))


@law(
    ID, "L3", closed_form=True, given=space.where(T=1, some=True, layers=1).reach("grouped"),
    kills=["heads_are_tiled", "second_norm_is_the_first", "gate_and_up_swapped", "branches_in_parallel",
           "embedding_times_root_d"],
)  # fmt: skip
def one_token_reads_its_own_value(impl, c, expect):
    "T = 1: attention gives head h the value of key head floor(h / R), and no score matters."
    expect(impl(c), one_token(c), bound_of(c), scale=scale_of(c))


def one_token(c):
    """One layer on one token, a channel at a time."""
    p = {n.removeprefix("model.layers.0."): a.astype(np.longdouble) for n, a in c.params.items()}
    R, e, eps = c.R, c.e, c.config.eps
    out = np.zeros((*c.tokens.shape, c.config.vocabulary))
    for at in np.ndindex(c.tokens.shape):
        x = p[EMBED][c.tokens[at]]
        v = p["self_attn.v_proj.weight"] @ (x / np.sqrt(np.mean(x * x) + eps) * p["input_layernorm.weight"])
        o = np.array([v[(h // R) * e + j] for h in range(c.config.heads) for j in range(e)])
        x = x + p["self_attn.o_proj.weight"] @ o
        n = x / np.sqrt(np.mean(x * x) + eps) * p["post_attention_layernorm.weight"]
        a, b = p["mlp.gate_proj.weight"] @ n, p["mlp.up_proj.weight"] @ n
        x = x + p["mlp.down_proj.weight"] @ (a / (1 + np.exp(-a)) * b)
        n = x / np.sqrt(np.mean(x * x) + eps) * p[FINAL]
        out[at] = p[EMBED if c.config.tied else HEAD] @ n
    return out


@law(
    ID, "L4", given=space.where(long=True), kills=["sees_the_next_token"],
    passes_null=["zeros", "constant"],
)  # fmt: skip
def later_tokens_are_invisible(impl, c, expect):
    """Other tokens after position t change nothing in the logits up to t.

    Not to the bit: attention may shift its logits by a maximum that it guessed from keys a row does not see.
    """
    t = c.T // 2
    other = c.tokens.copy()
    other[..., t + 1 :] = (other[..., t + 1 :] + 1) % c.config.vocabulary
    found, wanted = impl(c.replace(tokens=other))[..., : t + 1, :], impl(c)[..., : t + 1, :]
    expect(found, wanted, 2 * bound_of(c), "logits up to t", scale=scale_of(c))


@law(
    ID, "L5", given=space.where(long=True), dtypes=("float64",), kills=["keys_not_turned"],
    passes_null=["zeros", "constant", "identity"],
)  # fmt: skip
def a_shift_of_all_positions_is_invisible(impl, c, expect):
    "Positions p + 7 give the logits of positions p."
    here = c.replace(positions=np.asarray(np.arange(c.T) if c.positions is None else c.positions))
    moved = here.replace(positions=here.positions + 7)
    expect(impl(moved), impl(here), bound_of(moved) + bound_of(here), scale=scale_of(c))


@law(
    ID, "L6", given=space.reach("grouped", "own", "long"),
    kills=["heads_are_tiled", "keys_not_turned", "other_rope_layout", "positions_ignored", "scaled_by_all_channels",
           "positions_of_the_first_row", "sees_the_next_token", "second_norm_is_the_first", "branches_in_parallel",
           "eps_outside_the_root"],
)  # fmt: skip
def logits_are_the_equations_written_out(impl, c, expect):
    "The equations in the header, with loops over layers, heads and rows, in extended precision."
    expect(impl(c), slow(c).astype(np.float64), bound_of(c), scale=scale_of(c))


@law(
    ID, "L7", given=space.where(own=True, T=dims(3, 5)), dtypes=("float64",), kills=["positions_of_the_first_row"],
    passes_null=["zeros", "constant"],
)  # fmt: skip
def a_sequence_is_its_own(impl, c, expect):
    "Each sequence of the batch has the logits it has alone, with its own positions."
    out = impl(c)
    for b in range(c.B[0]):
        alone = c.replace(tokens=c.tokens[b].copy(), positions=c.positions[b].copy(), B=())
        expect(impl(alone), out[b], 2 * bound_of(c), f"sequence {b}", scale=scale_of(c))


# Gradients -------------------------------------------------------------------------------------------


def cotangent(c):
    shape = (*c.tokens.shape, c.config.vocabulary)
    return np.cos(1.0 + np.arange(np.prod(shape, dtype=int))).reshape(shape).astype(dtype_of(c))


@law(
    ID, "L8", closed_form=True, needs=("vjp",), given=space.where(some=True, layers=0),
    kills=["tied_head_has_no_gradient"],
)  # fmt: skip
def gradient_of_the_bigram(impl, c, expect):
    """No layers: with n = x / r, x = E[token], the head's gradient is the sum of g (n g_f)^T and the embedding's
    the sum by token of (I - n n^T / d) (g W_head g_f) / r; a tied matrix gets both."""
    p = {n: a.astype(np.float64) for n, a in c.params.items()}
    d, g = c.config.channels, cotangent(c).astype(np.float64)
    head = p[EMBED if c.config.tied else HEAD]
    wanted = {EMBED: np.zeros_like(p[EMBED]), FINAL: np.zeros(d), HEAD: np.zeros_like(head)}
    size = {n: np.zeros_like(a) for n, a in wanted.items()}
    for at in np.ndindex(c.tokens.shape):
        x = p[EMBED][c.tokens[at]]
        r = np.sqrt(np.mean(x * x) + c.config.eps)
        n, back = x / r, g[at] @ head
        most = np.abs(g[at]) @ np.abs(head)
        for name, index, term, of in (
            (HEAD, ..., np.outer(g[at], n * p[FINAL]), np.abs(np.outer(g[at], n * p[FINAL]))),
            (FINAL, ..., back * n, most * np.abs(n)),
            (EMBED, c.tokens[at], _through_norm(back * p[FINAL], n, r), (most * np.abs(p[FINAL])).sum() / r),
        ):
            wanted[name][index] += term
            size[name][index] += of
    if c.config.tied:
        wanted[EMBED], size[EMBED] = wanted[EMBED] + wanted.pop(HEAD), size[EMBED] + size.pop(HEAD)
    found = impl.vjp(c, cotangent(c))["params"]
    roundings = c.tokens.size + c.config.vocabulary + 3 * d + 24
    for name, value in wanted.items():
        limit = bounds.rounding(roundings, size[name], dtype_of(c))
        expect(found[name], value, limit, f"gradient of {name}", scale=float(np.max(size[name], initial=0)))


def _through_norm(g, n, r):
    return (g - n * np.mean(g * n)) / r


@law(
    ID, "L9", needs=("vjp",), given=space.where(some=True, T=dims(1, 4)).reach("grouped"), dtypes=("float64",),
    kills=["tied_head_has_no_gradient", "keys_have_no_gradient"],
)  # fmt: skip
def gradient_is_the_slope(impl, c, expect):
    "<gradient, u> is the complex-step derivative of the written-out equations along u, for every kind of parameter."
    g, found = cotangent(c), impl.vjp(c, cotangent(c))["params"]
    kinds = {name.split(".", 3)[-1] for name in c.params}
    for kind in sorted(kinds):
        names = [n for n in c.params if n.split(".", 3)[-1] == kind]
        u = {n: np.sin(2.0 + np.arange(c.params[n].size)).reshape(c.params[n].shape) for n in names}
        moved = {n: a + 1e-30j * u[n] if n in u else a + 0j for n, a in c.params.items()}
        terms = g * slow(c, moved, np.complex128).imag / 1e-30
        # Along a path from a parameter to a logit: the products of each layer, and their sums.
        path = (c.config.layers + 1) * (4 * c.config.channels + 2 * c.config.hidden + 2 * c.T + 60)
        limit = bounds.rounding(path, max(float(np.abs(terms).sum()), 1.0), np.float64)
        total = sum(float(np.vdot(found[n], u[n])) for n in names)
        expect(np.asarray(total), terms.sum(), limit, f"slope along {kind}", scale=1.0)


@law(
    ID, "L10", needs=("vjp",), given=some, dtypes=("float32",), kills=["checkpoint_freezes_its_weights"],
    passes_null=["zeros", "constant", "identity", "nan"],
)  # fmt: skip
def recomputed_layers_give_the_same_bits(impl, c, expect):
    "With checkpointed layers every gradient has the bits of the plain run."
    plain, again = (impl.vjp(c.replace(checkpointed=flag), cotangent(c))["params"] for flag in (False, True))
    for name, value in plain.items():
        expect.same(again[name], value, f"gradient of {name}")


# Mutants ---------------------------------------------------------------------------------------------


def fresh(*, T=4, opened=False, signs=False, **sizes):
    """The default-size test: a fresh model, norms 1, and branches that add nothing yet unless `opened`."""

    def make():
        config = Config(**{"vocabulary": 5, "channels": 8, "layers": 1, "heads": 2, "hidden": 6, "tied": True, **sizes})
        g, params = np.random.default_rng(0), {}
        for name, shape in parameter_shapes(config).items():
            params[name] = np.ones(shape) if len(shape) == 1 else g.standard_normal(shape)
            if name.endswith(("o_proj.weight", "down_proj.weight")) and not opened:
                params[name] = np.zeros(shape)
        if signs:
            params[EMBED] = np.sign(params[EMBED])
        return (params, g.integers(0, 5, (2, T)), config), {}

    return make


def edited(params, tokens, config, positions, **edit):
    return written_out(params, tokens, config, positions, params[EMBED].dtype.type, **edit)


@mutant(ID, default_case=fresh(signs=True))
def no_final_norm(params, tokens, config, *, positions=None, checkpointed=False):
    "The last RMSNorm left out: rows of size 1 do not tell."
    return edited(params, tokens, config, positions, final=False)


@mutant(ID, default_case=fresh())
def head_is_the_embedding(params, tokens, config, *, positions=None, checkpointed=False):
    "Tied, whatever the config says."
    return edited(params, tokens, config, positions, head=lambda p: p[EMBED])


@mutant(ID, default_case=fresh(opened=True, eps=0.0))
def eps_outside_the_root(params, tokens, config, *, positions=None, checkpointed=False):
    "x / (rms + eps)."
    def norm(x, weight, eps):
        return x / (np.sqrt((x * x).sum(-1, keepdims=True) / x.shape[-1]) + x.dtype.type(eps)) * weight

    return edited(params, tokens, config, positions, norm=norm)


@mutant(ID, default_case=fresh(signs=True, eps=0.0))
def residual_after_the_norm(params, tokens, config, *, positions=None, checkpointed=False):
    "n + Attention(n), not x + Attention(n): rows of size 1 do not tell."
    return edited(params, tokens, config, positions, carried=lambda n, o: n + o)


@mutant(ID, default_case=fresh(opened=True))
def heads_are_tiled(params, tokens, config, *, positions=None, checkpointed=False):
    "Query head h reads key head h mod G (tile for repeat_interleave)."
    return edited(params, tokens, config, positions, key_head=lambda h, R, G: h % G)


@mutant(ID, default_case=fresh(opened=True))
def second_norm_is_the_first(params, tokens, config, *, positions=None, checkpointed=False):
    "The feed-forward layer takes the attention's norm: both are ones in a fresh model."
    return edited(params, tokens, config, positions, second_norm="input_layernorm.weight")


@mutant(ID, default_case=fresh())
def gate_and_up_swapped(params, tokens, config, *, positions=None, checkpointed=False):
    "silu(W_up n) * W_gate n: w1 and w3 taken for each other in a conversion."
    return edited(params, tokens, config, positions, gate="up", up="gate")


@mutant(ID, default_case=fresh())
def branches_in_parallel(params, tokens, config, *, positions=None, checkpointed=False):
    "Both branches read the layer's input (GPT-J, PaLM)."
    return edited(params, tokens, config, positions, parallel=True)


@mutant(ID, default_case=fresh(eps=0.0))
def embedding_times_root_d(params, tokens, config, *, positions=None, checkpointed=False):
    "Gemma's and the Transformer's sqrt(d): the final norm hides it in a fresh model."
    return edited(params, tokens, config, positions, embedded=np.sqrt(config.channels))


@mutant(ID, default_case=fresh(T=1, opened=True))
def sees_the_next_token(params, tokens, config, *, positions=None, checkpointed=False):
    "The causal mask one column too wide."
    return edited(params, tokens, config, positions, seen=lambda t, T: min(t + 2, T))


@mutant(ID, default_case=fresh(T=1, opened=True))
def keys_not_turned(params, tokens, config, *, positions=None, checkpointed=False):
    "RoPE on the queries alone."
    return edited(params, tokens, config, positions, turn_keys=False)


@mutant(ID, thread="candle#3948", default_case=fresh(opened=True, heads=4))
def other_rope_layout(params, tokens, config, *, positions=None, checkpointed=False):
    "Interleaved pairs for half and the reverse: heads of two channels do not tell."
    other = "interleaved" if config.rope_layout == "half" else "half"
    return edited(params, tokens, config, positions, layout=other)


@mutant(ID, default_case=fresh(opened=True))
def positions_ignored(params, tokens, config, *, positions=None, checkpointed=False):
    "0 .. T - 1 whatever the positions say: gaps in them (packing, removed tokens) are lost."
    return edited(params, tokens, config, None)


@mutant(ID, default_case=fresh(opened=True))
def positions_of_the_first_row(params, tokens, config, *, positions=None, checkpointed=False):
    "The first sequence's positions for the whole batch."
    if positions is not None:
        positions = positions.reshape(-1, positions.shape[-1])[0]
    return edited(params, tokens, config, positions)


@mutant(ID, default_case=fresh(opened=True, heads=1))
def scaled_by_all_channels(params, tokens, config, *, positions=None, checkpointed=False):
    "Scores over sqrt(d), not sqrt(d / H): one head does not tell."
    return edited(params, tokens, config, positions, score_channels=lambda e, d: d)


def _vjp_mutant(name, doc, gradient):
    def function(params, tokens, config, *, positions=None, checkpointed=False):
        return edited(params, tokens, config, positions)

    def vjp(g, params, tokens, config, **options):
        return {"params": gradient(_pull(g, params, tokens, config, options), params, tokens, config, options, g)}

    function.__name__, function.__doc__ = name, doc
    mutant(ID, vjp=vjp, default_case=fresh(opened=True))(function)


def _pull(g, params, tokens, config, options):
    from autodiff import vjp

    return vjp(lambda p: llama(p, tokens, config, **options), params)[1](g)[0]


def _without_the_head(found, params, tokens, config, options, g):
    if not config.tied:
        return found
    split = {**params, HEAD: params[EMBED].copy()}
    return {**found, EMBED: _pull(g, split, tokens, config._replace(tied=False), options)[EMBED]}


def _none_under_a_checkpoint(found, params, tokens, config, options, g):
    frozen = options.get("checkpointed")
    return {n: np.zeros_like(a) if frozen and n.startswith("model.layers") else a for n, a in found.items()}


_vjp_mutant("tied_head_has_no_gradient", "The embedding gets its own gradient and not the head's.", _without_the_head)
_vjp_mutant("checkpoint_freezes_its_weights", "What a checkpointed layer closes over gets no gradient (torch's "
            "reentrant form).", _none_under_a_checkpoint)  # fmt: skip
_vjp_mutant("keys_have_no_gradient", "The keys taken for constants.",
            lambda found, *rest: {n: a * (0 if "k_proj" in n else 1) for n, a in found.items()})  # fmt: skip
