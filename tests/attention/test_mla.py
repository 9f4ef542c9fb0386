"""Latent attention beyond its laws: ranks, what cannot be absorbed, slopes, checkpoints' names, bad input."""

import numpy as np
import pytest

import autodiff
from autodiff import forms
from ref.attention.mla import Config, Yarn, mla, of_layer, parameter_shapes, scale_of
from ref.nn.rope import rope

each_form = pytest.mark.parametrize("form", ["composite", "fused"])
SMALL = Config(heads=3, nope=4, rope=2, value=5, latent=6, query_latent=5, yarn=Yarn(40.0, 16, mscale_all_dim=1.0))


def made(config, channels=7, T=5, dtype=np.float64):
    g = np.random.default_rng(0)
    shapes = parameter_shapes(config, channels)
    params = {name: g.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}
    return params, g.standard_normal((2, T, channels)).astype(dtype)


@each_form
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_prefill_expanded_then_tokens_absorbed_is_the_whole(form, dtype):
    params, x = made(SMALL, dtype=dtype)
    with forms(form):
        whole, cache = mla(params, x, SMALL)
        y, held = mla(params, x[:, :2], SMALL)
        parts = [y]
        for t in range(2, 5):
            y, held = mla(params, x[:, t : t + 1], SMALL, cache=held, absorbed=True)
            parts.append(y)
    tolerance = 1e-12 if dtype == np.float64 else 2e-4
    assert np.allclose(np.concatenate(parts, 1), whole, rtol=tolerance, atol=tolerance)
    assert np.allclose(held, cache, rtol=tolerance, atol=tolerance) and held.dtype == dtype


@each_form
@pytest.mark.parametrize("absorbed", [False, True])
def test_gradients_are_slopes(form, absorbed):
    """Central differences along a direction in every parameter and in x, the cache in the loss too."""
    params, x = made(SMALL)
    g = np.random.default_rng(1)
    step = {name: g.standard_normal(w.shape) for name, w in params.items()}, g.standard_normal(x.shape)

    def loss(params, x):
        y, cache = mla(params, x, SMALL, absorbed=absorbed)
        return (y * y).sum() + (cache * cache * cache).sum()

    with forms(form):
        of_params, of_x = autodiff.grad(loss, (0, 1))(params, x)
        slope = sum(float((of_params[n] * step[0][n]).sum()) for n in params) + float((of_x * step[1]).sum())
        h = 1e-6
        there, back = (
            float(loss({n: w + s * step[0][n] for n, w in params.items()}, x + s * step[1])) for s in (h, -h)
        )
    assert np.isclose(slope, (there - back) / (2 * h), rtol=1e-6)


@pytest.mark.parametrize("absorbed", [False, True])
def test_a_shift_of_all_positions_is_invisible(absorbed):
    params, x = made(SMALL)
    wanted, _ = mla(params, x, SMALL, absorbed=absorbed)
    far, _ = mla(params, x, SMALL, absorbed=absorbed, positions=np.arange(5) + 1000)
    gap, _ = mla(params, x, SMALL, absorbed=absorbed, positions=np.arange(5) * 3)
    assert np.allclose(far, wanted, rtol=1e-9, atol=1e-9) and not np.allclose(gap, wanted, rtol=1e-3)


def logits_without_rope(latent, nope, tokens=12):
    """q^C . W^UK c of one head for every pair of tokens."""
    g = np.random.default_rng(2)
    x = g.standard_normal((tokens, 9))
    c = x @ g.standard_normal((9, latent))
    return (x @ g.standard_normal((9, nope))) @ (c @ g.standard_normal((latent, nope))).T


@pytest.mark.parametrize("latent, nope", [(2, 5), (5, 3), (4, 4)])
def test_without_rope_the_logits_of_a_head_have_the_latents_rank(latent, nope):
    """Rank of the bilinear form: min(d_h, d_c), read off through the layer itself as differences of log weights."""
    assert np.linalg.matrix_rank(logits_without_rope(latent, nope)) == min(latent, nope)
    config = Config(heads=1, nope=nope, rope=2, value=1, latent=latent)
    params, _ = made(config, channels=9)
    # RoPE's share of the scores is taken out by zero weights; two cached tokens and one query read a difference.
    params["q_proj.weight"][nope:] = 0
    x = np.random.default_rng(3).standard_normal((10, 9))
    kv = params["kv_a_proj_with_mqa.weight"][:latent]
    c = x @ kv.T
    c = c / np.sqrt((c * c).mean(-1, keepdims=True) + 1e-6) * params["kv_a_layernorm.weight"]
    values = c @ params["kv_b_proj.weight"][nope:].T
    found = np.zeros((10, 9))
    for i in range(10):
        for j in range(9):  # a weight of keys j + 1 and 0 by token i, as both are cached and i itself is far away
            cache = np.concatenate((c[[0, j + 1]], np.zeros((2, 2))), 1)
            y, _ = mla(params, x[i : i + 1], config, cache=cache)
            q = params["q_proj.weight"][:nope] @ x[i]
            own = q @ params["kv_b_proj.weight"][:nope] @ np.stack((c[0], c[j + 1], c[i]), 1) * scale_of(config)
            p = np.exp(own - own.max())
            wanted = params["o_proj.weight"][:, 0] * (p @ values[[0, j + 1, i], 0] / p.sum())
            assert np.allclose(y[0], wanted, rtol=1e-9, atol=1e-9)
            found[i, j] = own[1] - own[0]
    assert np.linalg.matrix_rank(found, tol=1e-9 * np.abs(found).max()) <= min(latent, nope)


def test_rope_on_the_whole_key_cannot_be_absorbed():
    """R between W^UK and q: one matrix for each distance, no single one to put on the query's side."""
    g = np.random.default_rng(4)
    up, c = g.standard_normal((4, 6)), g.standard_normal((3, 6))
    q, at = g.standard_normal((1, 4)), np.array([0, 1, 5])
    turned = rope(c @ up.T, at) @ rope(q, np.array([5])).T
    absorbed = c @ (rope(q, np.array([5])) @ up).T
    assert not np.allclose(turned[1:], absorbed[1:], rtol=1e-3)
    assert np.allclose(turned[0], absorbed[0])  # position 0 turns nothing
    forms_of_distance = [up.T @ rope(np.eye(4), np.full(4, m)) for m in range(4)]
    stacked = np.stack([m.ravel() for m in forms_of_distance])
    assert np.linalg.matrix_rank(stacked) > 1


def test_the_cache_of_deepseek_v2_is_34560_numbers_a_token():
    """60 layers of 512 + 64; multi-head attention of the same heads would hold 60 x 128 x (192 + 128)."""
    config = Config(heads=1, nope=1, rope=64, value=1, latent=512)
    params = {name: np.zeros(shape) for name, shape in parameter_shapes(config, 2).items()}
    assert 60 * mla(params, np.zeros((1, 2)), config)[1].size == 34_560


MOONLIGHT = {
    "q_proj.weight": (3072, 2048), "kv_a_proj_with_mqa.weight": (576, 2048), "kv_a_layernorm.weight": (512,),
    "kv_b_proj.weight": (4096, 512), "o_proj.weight": (2048, 2048),
}  # fmt: skip


def test_names_and_shapes_are_those_of_the_checkpoints():
    """Moonlight: q_lora_rank null, 16 heads. DeepSeek-V3: 1536, 128 heads, 7168 channels."""
    assert parameter_shapes(Config(16, 128, 64, 128, 512), 2048) == MOONLIGHT
    v3 = parameter_shapes(Config(128, 128, 64, 128, 512, query_latent=1536), 7168)
    assert v3["q_a_proj.weight"] == (1536, 7168) and v3["q_b_proj.weight"] == (24576, 1536)
    assert v3["kv_b_proj.weight"] == (32768, 512) and v3["o_proj.weight"] == (7168, 16384)
    whole = {f"model.layers.3.self_attn.{name}": name for name in MOONLIGHT} | {"model.norm.weight": 0}
    assert of_layer(whole, 3) == {name: name for name in MOONLIGHT}
    with pytest.raises(ValueError, match="no parameter begins with 'model.layers.4.self_attn.'"):
        of_layer(whole, 4)


def test_the_scale_has_yarns_square():
    assert np.isclose(scale_of(Config(128, 128, 64, 128, 512)), 192**-0.5)
    stretched = Config(128, 128, 64, 128, 512, yarn=Yarn(40.0, 4096, mscale_all_dim=1.0))
    assert np.isclose(scale_of(stretched), (0.1 * np.log(40) + 1) ** 2 / np.sqrt(192))
    unset = stretched._replace(yarn=Yarn(40.0, 4096))
    assert np.isclose(scale_of(unset), 192**-0.5)


P, X = made(SMALL)
LESS = {name: w for name, w in P.items() if name != "kv_a_layernorm.weight"}
BAD = [
    (ValueError, (LESS, X, SMALL), {}, r"mla: params lack \['kv_a_layernorm.weight'\] and have unexpected \[\]"),
    (ValueError, (P, X, SMALL._replace(query_latent=None)), {}, r"lack \['q_proj.weight'\] .* 'q_b_proj.weight'"),
    (ValueError, (P, X, SMALL._replace(value=4)), {}, r"kv_b_proj.weight has shape \(27, 6\); needed \(24, 6\)"),
    (ValueError, (P, X[..., 1:], SMALL), {}, r"q_a_proj.weight has shape \(5, 7\); needed \(5, 6\)"),
    (ValueError, (P, X, SMALL._replace(rope=3)), {}, "config has rope=3; needed an even number"),
    (ValueError, (P, X, SMALL), {"cache": np.zeros((2, 3, 7))}, r"cache has shape \(2, 3, 7\); needed \(2, 3, 8\)"),
    (ValueError, (P, X, SMALL), {"cache": np.zeros((3, 8))}, r"cache has shape \(3, 8\)|cache has B="),
    (TypeError, (P, X.astype(np.float32), SMALL), {}, "q_a_proj.weight is float64, x is float32"),
    (TypeError, (P, X.astype(int), SMALL), {}, "x has dtype int64"),
    (TypeError, (P, X, SMALL), {"cache": np.zeros((2, 3, 8), np.float32)}, "cache has dtype float32"),
]


@pytest.mark.parametrize("error, args, options, said", BAD)
def test_it_says_what_arrived_and_what_was_needed(error, args, options, said):
    with pytest.raises(error, match=said):
        mla(*args, **options)
