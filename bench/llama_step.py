"""A training step of a small LLaMA (d 256, 4 layers, 8 heads, 256 tokens, batch 4, V 1024), AdamW.

Ours is the readable model of ref/models/llama.py, its gradient by the engine, a shard of the batch
to a thread, and the update as ref/demo/train.py makes it. The peers pack q, k, v and gate, up into
one product each, and use their fused attention and optimizer.
"""

import functools

import numpy as np

from bench.common import Case, Engine, Ratio, main
from ref.models.llama import Config, parameter_shapes

CONFIG = Config(vocabulary=1024, channels=256, layers=4, heads=8, hidden=688)
BATCH, TOKENS = 4, 256
RATE, BETA1, BETA2, EPS, DECAY = 1e-3, 0.9, 0.999, 1e-8, 0.01


@functools.cache
def start():
    """{name: parameter}, inputs and targets; the same for all engines."""
    rng = np.random.default_rng(0)
    values = {}
    for name, shape in parameter_shapes(CONFIG).items():
        std = 1.0 if "embed" in name else shape[-1] ** -0.5
        a = np.ones(shape) if len(shape) == 1 else rng.standard_normal(shape) * std
        values[name] = a.astype(np.float32)
    return values, *rng.integers(0, CONFIG.vocabulary, (2, BATCH, TOKENS))


def ours(threads):
    from autodiff import value_and_grad
    from backends.fused.steps import adamw_
    from backends.threads import run_tiles
    from backends.threads import threads as thread_count
    from ref.losses.softmax_cross_entropy import softmax_cross_entropy
    from ref.models.llama import llama

    values, x, y = start()
    flat, params = views(values)
    gradient, slots = views(values)
    m, v = np.zeros_like(flat), np.zeros_like(flat)
    rows = np.array_split(np.arange(BATCH), threads)
    count = iter(range(1, 10**9))

    def loss(params, x, y):
        return softmax_cross_entropy(llama(params, x, CONFIG), y).sum() * (1 / (BATCH * TOKENS))

    def gradients():
        found = [None] * threads

        def shard(k):
            found[k] = value_and_grad(loss)(params, x[rows[k]], y[rows[k]])

        with thread_count(threads):
            run_tiles(shard, range(threads))
        for name, slot in slots.items():
            slot[...] = found[0][1][name]
            for _, g in found[1:]:
                slot += g[name]
        return float(sum(value for value, _ in found))

    def step(_):
        gradients()
        with thread_count(threads):
            adamw_(flat, gradient, m, v, next(count), lr=RATE, beta1=BETA1, beta2=BETA2, eps=EPS, weight_decay=DECAY)

    return Engine({"step": step}, lambda: {"loss": gradients(), **packed(slots)})


def views(values):
    """One flat copy of all arrays, and {name: the view of its part}."""
    flat = np.concatenate([a.reshape(-1) for a in values.values()])
    ends = np.cumsum([a.size for a in values.values()])
    parts = np.split(flat, ends[:-1])
    return flat, {n: p.reshape(a.shape) for (n, a), p in zip(values.items(), parts, strict=True)}


def packed(values):
    """{name: array} with q, k, v and gate, up joined, as the peers hold them."""
    out = {}
    for name, a in values.items():
        if "q_proj" in name:
            trio = [values[name.replace("q_proj", f"{c}_proj")] for c in "qkv"]
            out[name.replace("q_proj", "qkv")] = np.concatenate(trio)
        elif "gate_proj" in name:
            out[name.replace("gate_proj", "gate_up")] = np.concatenate([a, values[name.replace("gate", "up")]])
        elif not any(f"{c}_proj" in name for c in ("k", "v", "up")):
            out[name] = a
    return out


def torch_eager(threads, compiled=False):
    import torch
    from torch.nn import functional

    torch.set_num_threads(threads)
    values, x, y = start()
    params = {n: torch.from_numpy(a.copy()).requires_grad_() for n, a in packed(values).items()}
    x, y = torch.from_numpy(x), torch.from_numpy(y.reshape(-1))
    optimizer = torch.optim.AdamW(
        params.values(), lr=RATE, betas=(BETA1, BETA2), eps=EPS, weight_decay=DECAY, fused=True
    )
    d, heads = CONFIG.channels, CONFIG.heads
    e = d // heads
    angle = torch.arange(TOKENS)[:, None] * CONFIG.rope_base ** (-torch.arange(0, e, 2) / e)
    cos, sin = angle.cos()[:, None], angle.sin()[:, None]

    def turn(q):
        a, b = q[..., : e // 2], q[..., e // 2 :]
        return torch.cat((a * cos - b * sin, a * sin + b * cos), -1).transpose(1, 2)

    def loss():
        h = functional.embedding(x, params["model.embed_tokens.weight"])
        for i in range(CONFIG.layers):
            p = {n.split(".", 3)[-1]: a for n, a in params.items() if f"layers.{i}." in n}
            n = functional.rms_norm(h, (d,), p["input_layernorm.weight"], CONFIG.eps)
            q, k, v = functional.linear(n, p["self_attn.qkv.weight"]).view(BATCH, TOKENS, 3, heads, e).unbind(2)
            o = functional.scaled_dot_product_attention(turn(q), turn(k), v.transpose(1, 2), is_causal=True)
            h = h + functional.linear(o.transpose(1, 2).reshape(BATCH, TOKENS, d), p["self_attn.o_proj.weight"])
            n = functional.rms_norm(h, (d,), p["post_attention_layernorm.weight"], CONFIG.eps)
            gate, up = functional.linear(n, p["mlp.gate_up.weight"]).chunk(2, -1)
            h = h + functional.linear(functional.silu(gate) * up, p["mlp.down_proj.weight"])
        h = functional.rms_norm(h, (d,), params["model.norm.weight"], CONFIG.eps)
        return functional.cross_entropy(functional.linear(h, params["lm_head.weight"]).flatten(0, 1), y)

    loss = torch.compile(loss) if compiled else loss

    def step(_):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    def values_():
        optimizer.zero_grad()
        found = loss()
        found.backward()
        return {"loss": float(found.detach()), **{n: p.grad.numpy().copy() for n, p in params.items()}}

    return Engine({"step": step}, values_)


def jax_jitted(threads):
    import jax
    import jax.numpy as jnp

    values, x, y = start()
    params = {n: jnp.asarray(a) for n, a in packed(values).items()}
    x, y = jnp.asarray(x), jnp.asarray(y.reshape(-1))
    d, heads = CONFIG.channels, CONFIG.heads
    e = d // heads
    angle = np.arange(TOKENS)[:, None] * CONFIG.rope_base ** (-np.arange(0, e, 2) / e)
    cos, sin = (jnp.asarray(f(angle)[:, None], jnp.float32) for f in (np.cos, np.sin))

    def turn(q):
        a, b = q[..., : e // 2], q[..., e // 2 :]
        return jnp.concatenate((a * cos - b * sin, a * sin + b * cos), -1)

    def norm(h, w):
        return h * jax.lax.rsqrt((h * h).mean(-1, keepdims=True) + CONFIG.eps) * w

    def loss(params):
        h = params["model.embed_tokens.weight"][x]
        for i in range(CONFIG.layers):
            p = {n.split(".", 3)[-1]: a for n, a in params.items() if f"layers.{i}." in n}
            qkv = norm(h, p["input_layernorm.weight"]) @ p["self_attn.qkv.weight"].T
            q, k, v = jnp.moveaxis(qkv.reshape(BATCH, TOKENS, 3, heads, e), 2, 0)
            o = jax.nn.dot_product_attention(turn(q), turn(k), v, is_causal=True)
            h = h + o.reshape(BATCH, TOKENS, d) @ p["self_attn.o_proj.weight"].T
            n = norm(h, p["post_attention_layernorm.weight"]) @ p["mlp.gate_up.weight"].T
            gate, up = jnp.split(n, 2, -1)
            h = h + (jax.nn.silu(gate) * up) @ p["mlp.down_proj.weight"].T
        logits = norm(h, params["model.norm.weight"]) @ params["lm_head.weight"].T
        return -jax.nn.log_softmax(logits.reshape(-1, CONFIG.vocabulary))[jnp.arange(y.size), y].mean()

    @functools.partial(jax.jit, donate_argnums=(0,))
    def update(state):
        params, m, v, t = state
        g = jax.grad(loss)(params)
        t = t + 1
        m = jax.tree.map(lambda m, g: BETA1 * m + (1 - BETA1) * g, m, g)
        v = jax.tree.map(lambda v, g: BETA2 * v + (1 - BETA2) * g * g, v, g)
        c1, c2 = 1 - BETA1**t, 1 - BETA2**t
        params = jax.tree.map(
            lambda p, m, v: p * (1 - RATE * DECAY) - RATE * (m / c1) / (jnp.sqrt(v / c2) + EPS), params, m, v
        )
        return params, m, v, t

    def fresh(value=None):
        return jax.tree.map(lambda p: jnp.zeros_like(p) if value is None else p + 0, params)

    state = [(fresh(0), fresh(), fresh(), jnp.float32(0))]

    def step(_):
        state[0] = update(state[0])
        jax.block_until_ready(state[0])

    def values_():
        value, g = jax.jit(jax.value_and_grad(loss))(params)
        return {"loss": float(value), **{n: np.asarray(a) for n, a in g.items()}}

    return Engine({"step": step}, values_)


WORK = f"LLaMA step (d {CONFIG.channels}, {CONFIG.layers} layers, T {TOKENS}, B {BATCH})"
CASES = [
    Case(
        "step",
        {
            "torch": torch_eager,
            "compiled torch": functools.partial(torch_eager, compiled=True),
            "jitted jax": jax_jitted,
            "ours": ours,
        },
        tuple(
            Ratio(WORK, ("ours", "step"), (peer, "step"), target)
            for peer, target in (
                ("torch", {1: 0.85, 2: 0.90}),
                ("compiled torch", {1: 1.0, 2: 1.0}),
                ("jitted jax", {1: 0.75, 2: 0.75}),
            )
        ),
        rounds=11,
        samples=5,
    )
]

if __name__ == "__main__":
    main("bench.llama_step", CASES)
