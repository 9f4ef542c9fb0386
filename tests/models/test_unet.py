"""The U-Net and ControlNet: sizes, bad input, bit-equality with the base, and that both learn."""

import numpy as np
import pytest

import backends
from autodiff import forms, tensor, value_and_grad, vjp
from ref.models.controlnet import controlnet
from ref.models.controlnet_init import control_shapes, controlnet_init, skip_widths
from ref.models.unet import Config, initial, parameter_shapes, unet

TINY = Config(channels=4, multipliers=(1, 2), attends=(False, True), groups=2, classes=2)


def given(config=TINY, N=3, size=4, seed=0, dtype=np.float64):
    g = np.random.default_rng(seed)
    base = {n: (a + g.standard_normal(a.shape) / 8).astype(dtype) for n, a in initial(config, g, dtype).items()}
    x = g.standard_normal((N, config.image_channels, size, size)).astype(dtype)
    t = g.integers(0, 100, N).astype(dtype)
    labels, condition = g.integers(0, config.classes + 1, N), g.standard_normal((N, 2, size, size)).astype(dtype)
    return x, t, labels, condition, base


@pytest.mark.parametrize("config", [Config(), TINY, TINY._replace(blocks=2, image_channels=3), TINY._replace(heads=1)])
def test_the_parameters_are_those_of_the_shapes(config):
    shapes = parameter_shapes(config)
    params = initial(config, np.random.default_rng(0))
    assert {n: a.shape for n, a in params.items()} == shapes
    assert len(skip_widths(config)) == (config.blocks + 1) * len(config.multipliers)
    control = controlnet_init(params, config, condition_channels=2)
    assert {n: a.shape for n, a in control.items()} == control_shapes(config, 2)
    assert all(a.dtype == np.float32 for a in (params | control).values())
    c = config.image_channels
    out = unet(np.zeros((2, c, 8, 8), np.float32), np.zeros(2, np.float32), np.array([0, 1]), params, config)
    assert out.shape == (2, c, 8, 8) and not out.any()


@pytest.mark.parametrize("form", ["fused", "composite"])
@pytest.mark.parametrize("backend", ["numpy", "strict"])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_controlnet_is_the_base_to_the_bit_at_the_start_and_at_scale_zero(dtype, backend, form):
    *arrays, base = given(dtype=dtype)
    control = controlnet_init(base, TINY, condition_channels=2)
    b, rng = backends.get(backend), np.random.default_rng(1)
    moved = {n: (a + rng.standard_normal(a.shape)).astype(dtype) for n, a in control.items()}
    x, t, labels, condition = (b.from_numpy(a) for a in arrays)
    base, control, moved = ({n: b.from_numpy(a) for n, a in tree.items()} for tree in (base, control, moved))
    with forms(form):
        plain = b.to_numpy(unet(x, t, labels, base, TINY))
        start = b.to_numpy(controlnet(x, t, labels, condition, base, control, TINY))
        silent = b.to_numpy(controlnet(x, t, labels, condition, base, moved, TINY, scale=0.0))
        steered = b.to_numpy(controlnet(x, t, labels, condition, base, moved, TINY))
    assert np.array_equal(start, plain) and np.array_equal(silent, plain)
    assert not np.allclose(steered, plain)


def test_training_moves_the_control_and_leaves_the_base():
    x, t, labels, condition, base = given()
    control = controlnet_init(base, TINY, condition_channels=2)
    before = {n: a.tobytes() for n, a in base.items()}
    drop = np.array([True, False, False])

    def loss(control):
        out = controlnet(x, t, labels, condition, base, control, TINY, drop=drop)
        return ((out - condition[:, :1]) ** 2).mean()

    step, losses = value_and_grad(loss), []
    for _ in range(15):
        value, g = step(control)
        losses.append(float(value))
        control = {n: a - 0.5 * g[n] for n, a in control.items()}
    assert losses[-1] < 0.8 * losses[0]
    assert {n: a.tobytes() for n, a in base.items()} == before


def test_the_base_has_no_tape_even_as_tensors():
    x, t, labels, condition, base = given()
    control = controlnet_init(base, TINY, condition_channels=2)
    taped = {n: tensor(a, requires_grad=True) for n, a in base.items()}
    trained = {n: tensor(a, requires_grad=True) for n, a in control.items()}
    controlnet(x, t, labels, condition, taped, trained, TINY).sum().backward()
    assert all(a.grad is None for a in taped.values())
    moving = {n for n, a in trained.items() if a.grad is not None and np.any(a.grad)}
    assert moving == {n for n in control if n.startswith("zero.") and "condition" not in n}


def test_a_gradient_of_some_parameters_alone():
    x, t, labels, _, base = given(N=1)
    some = {n: a for n, a in base.items() if n.startswith(("time.", "out"))}
    (found,) = vjp(lambda p: unet(x, t, labels, {**base, **p}, TINY), some)[1](np.ones_like(x))
    (whole,) = vjp(lambda p: unet(x, t, labels, p, TINY), base)[1](np.ones_like(x))
    for name, a in found.items():
        np.testing.assert_allclose(a, whole[name], rtol=1e-12)


def changed(args, i, value):
    return (*args[:i], value, *args[i + 1 :])


X, T, LABELS, CONDITION, BASE = given()
UNET = (X, T, LABELS, BASE, TINY)
CONTROL = controlnet_init(BASE, TINY, condition_channels=2)
STEERED = (X, T, LABELS, CONDITION, BASE, CONTROL, TINY)
SHORT = {k: a for k, a in BASE.items() if k != "out.bias"}


@pytest.mark.parametrize(
    ("function", "error", "args", "options", "said"),
    [
        (unet, ValueError, changed(UNET, 0, X[:, :, :3]), {}, "unet: x is 3 by 4; 2 levels need multiples of 2"),
        (unet, ValueError, changed(UNET, 0, np.ones((3, 2, 4, 4))), {}, "x has c=2 channels, config.image_channels=1"),
        (unet, ValueError, changed(UNET, 1, T[:2]), {}, "unet: t has N=2, x has N=3"),
        (unet, ValueError, changed(UNET, 2, LABELS * 0 + 3), {}, r"ids hold 3, weight has V=3 rows; needs 0\.\.2"),
        (unet, ValueError, changed(UNET, 3, SHORT), {}, r"unet: params lack \['out.bias'\] and have unexpected \[\]"),
        (unet, ValueError, changed(UNET, 3, {**BASE, "in.bias": np.ones(5)}), {}, r"in.bias has shape \(5,\); needed"),
        (unet, TypeError, changed(UNET, 3, {**BASE, "in.bias": np.ones(4, "f4")}), {}, "in.bias is float32, x float64"),
        (unet, TypeError, changed(UNET, 2, T), {}, r"unet: labels has dtype float64; labels\[N\] must be int"),
        (unet, ValueError, changed(UNET, 4, TINY._replace(groups=3)), {}, "a level has 4 channels, groups=3, heads=2"),
        (unet, ValueError, changed(UNET, 4, TINY._replace(attends=(True,))), {}, "2 multipliers and 1 attends"),
        (controlnet, ValueError, changed(STEERED, 3, CONDITION[..., :3]), {},
         "the condition has width 3, x has 4; needed a condition of the images' size, 4 by 4"),
        (controlnet, ValueError, changed(STEERED, 3, CONDITION[:, :, :2]), {}, "the condition has height 2, x has 4"),
        (controlnet, ValueError, changed(STEERED, 3, CONDITION[:2]), {}, "controlnet: condition has N=2, x has N=3"),
        (controlnet, ValueError, changed(STEERED, 3, CONDITION[:, :1]), {},
         r"zero.condition.weight has shape \(4, 2, 1, 1\); needed \(4, 1, 1, 1\)"),
        (controlnet, ValueError, changed(STEERED, 5, BASE), {}, "controlnet: params lack .*'copy.class.weight'"),
        (controlnet, TypeError, STEERED, {"drop": np.ones(3)}, r"drop has dtype float64; drop\[N\] must be bool"),
        (controlnet_init, ValueError, (BASE, TINY), {"condition_channels": 0}, "condition_channels=0; needed at least"),
        (controlnet_init, ValueError, (SHORT, TINY), {"condition_channels": 1}, r"params lack \['out.bias'\]"),
        (controlnet_init, TypeError, ({}, TINY), {"condition_channels": 1}, "params hold no float arrays"),
    ],
)  # fmt: skip
def test_bad_input_is_named(function, error, args, options, said):
    with pytest.raises(error, match=said):
        function(*args, **options)
