"""Bad input of adamw, and the in-place form against the readable one."""

import numpy as np
import pytest

from backends.fused.numpy.adamw import adamw_
from backends.threads import threads
from ref.optim.adamw import AdamState, adamw, start

TH, G = np.ones(3), np.full(3, 0.5)


@pytest.mark.parametrize(
    "grad, state, options, said",
    [
        (G, start(TH), {"lr": -1.0}, "adamw: lr=-1.0; needed a number >= 0"),
        (G, start(TH), {"eps": float("nan")}, "eps=nan"),
        (G, start(TH), {"weight_decay": -0.1}, "weight_decay=-0.1"),
        (G, start(TH), {"beta1": 1.0}, r"beta1=1.0; needed a number in \[0, 1\)"),
        (G, start(TH), {"beta2": -0.1}, "beta2=-0.1"),
        (np.array([1.0, np.nan, 0.0]), start(TH), {"name": "layers.3.w"}, "the gradient of layers.3.w has NaN"),
        (np.ones(4), start(TH), {}, r"grad has n=\(4,\), param has n=\(3,\)"),
        (G, AdamState(np.zeros(2), np.zeros(3), 0), {}, r"m has n=\(2,\)"),
        (G, AdamState(np.zeros(3), np.zeros(3), -1), {}, "t=-1"),
    ],
)
def test_bad_input_is_named(grad, state, options, said):
    with pytest.raises(ValueError, match=said):
        adamw(TH, grad, state, **options)


def test_mixed_dtypes_are_refused():
    with pytest.raises(TypeError, match="grad has dtype float32, param has float64"):
        adamw(TH, G.astype(np.float32), start(TH))


@pytest.mark.parametrize("n", [1, 5, 200_003])
def test_the_in_place_form_is_the_readable_one_for_any_number_of_threads(n):
    rng = np.random.default_rng(n)
    options = {"lr": 1e-2, "beta1": 0.9, "beta2": 0.95, "eps": 1e-8, "weight_decay": 0.1}
    found = []
    for count in (1, 2):
        rng = np.random.default_rng(n)
        param = rng.standard_normal(n)
        wanted, state = param.copy(), start(param)
        m, v = np.zeros(n), np.zeros(n)
        with threads(count):
            for t in range(1, 4):
                grad = rng.standard_normal(n)
                adamw_(param, grad, m, v, t, **options)
                wanted, state = adamw(wanted, grad, state, **options)
        assert np.max(np.abs(param - wanted)) <= 1e-14
        found.append(param)
    assert np.array_equal(*found)
