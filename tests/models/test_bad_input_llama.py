"""LLaMA's sizes in closed form, what it refuses, and that its options leave it the same function."""

import numpy as np
import pytest

from ref.models.llama import Config, hidden_channels, llama, parameter_count, parameter_shapes
from ref.nn.dropout import dropout

TINY = Config(vocabulary=7, channels=8, layers=2, heads=4, groups=2, hidden=12)


def params_of(config, seed=0):
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(shape) / 4 for name, shape in parameter_shapes(config).items()}


@pytest.mark.parametrize(
    ("config", "count"),
    [
        (Config(), 6_738_415_616),
        (Config(channels=5120, layers=40, heads=40, hidden=13824), 13_015_864_320),
        (Config(channels=8192, layers=80, heads=64, groups=8, hidden=28672), 68_976_648_192),
        (TINY, None),
        (TINY._replace(tied=True, layers=0), None),
    ],
)
def test_the_count_is_the_sum_of_the_shapes(config, count):
    shapes = parameter_shapes(config)
    total = sum(int(np.prod(shape)) for shape in shapes.values())
    assert parameter_count(config) == total
    assert count is None or total == count


@pytest.mark.parametrize(
    ("channels", "options", "hidden"),
    [(4096, {}, 11008), (5120, {}, 13824), (8192, {"multiplier": 1.3, "multiple_of": 4096}, 28672),
     (3, {"multiple_of": 1}, 8), (4, {"multiple_of": 1, "multiplier": 1.5}, 15)],
)  # fmt: skip
def test_hidden_channels_are_those_of_the_released_models(channels, options, hidden):
    assert hidden_channels(channels, **options) == hidden


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"heads": 3}, "channels=8, heads=3, groups=2"),
        ({"groups": 3}, "heads=4, groups=3"),
        ({"heads": 8}, "heads must divide channels into even shares"),
    ],
)
def test_sizes_that_do_not_divide_are_refused(change, said):
    for function in (parameter_shapes, parameter_count):
        with pytest.raises(ValueError, match=said):
            function(TINY._replace(**change))


def test_missing_and_unexpected_parameters_are_listed():
    params = params_of(TINY)
    params["extra.weight"] = params.pop("lm_head.weight")
    with pytest.raises(ValueError, match=r"lack \['lm_head.weight'\] and have unexpected \['extra.weight'\]"):
        llama(params, np.array([1]), TINY)


def test_a_wrong_shape_names_the_parameter():
    name = "model.layers.1.mlp.up_proj.weight"
    params = {**params_of(TINY), name: np.ones((8, 12))}
    with pytest.raises(ValueError, match=rf"{name} has shape \(8, 12\); needed \(12, 8\)"):
        llama(params, np.array([1]), TINY)


@pytest.mark.parametrize("token", [-1, 7])
def test_a_token_out_of_range_is_named(token):
    with pytest.raises(ValueError, match=f"ids hold {token}, weight has V=7"):
        llama(params_of(TINY), np.array([0, token]), TINY)


def test_kinds_and_dtypes_are_checked():
    params = params_of(TINY)
    with pytest.raises(TypeError, match="llama: tokens has dtype float64"):
        llama(params, np.array([1.0]), TINY)
    with pytest.raises(TypeError, match="model.norm.weight is float32, model.embed_tokens.weight is float64"):
        llama({**params, "model.norm.weight": np.ones(8, np.float32)}, np.array([1]), TINY)
    with pytest.raises(TypeError, match="lm_head.weight is int64"):
        llama({**params, "lm_head.weight": np.ones((7, 8), np.int64)}, np.array([1]), TINY)


def test_drop_sees_every_site_once_and_stands_where_dropout_would():
    params, tokens, sites = params_of(TINY), np.array([[1, 2, 3]]), []

    def seen(x, site):
        sites.append((site, x.shape))
        return x

    plain = llama(params, tokens, TINY)
    assert np.array_equal(llama(params, tokens, TINY, drop=seen), plain)
    assert sites == [(site, (1, 3, 8)) for site in range(5)]
    closed = llama(params, tokens, TINY, drop=lambda x, site: x if site == 0 else 0 * x)
    shallow = {n: a for n, a in params.items() if "layers" not in n}
    np.testing.assert_allclose(closed, llama(shallow, tokens, TINY._replace(layers=0)), rtol=1e-12)
    nothing = llama(params, tokens, TINY, drop=lambda x, site: dropout(x, np.zeros(x.shape, bool), rate=0.5))
    assert not nothing.any()
