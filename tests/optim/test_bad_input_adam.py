"""What adam and adam_l2 say of bad input."""

import array_api_strict
import numpy as np
import pytest

from ref.optim.adam import adam
from ref.optim.adam_l2 import adam_l2
from ref.optim.adamw import AdamState, start

TH, G = np.ones(3), np.full(3, 0.5)


@pytest.mark.parametrize("step", [adam, adam_l2])
@pytest.mark.parametrize(
    "error, grad, state, options, said",
    [
        (ValueError, G, start(TH), {"lr": -1.0}, "lr=-1.0; needed a finite number >= 0"),
        (ValueError, G, start(TH), {"lr": np.nan}, "lr=nan"),
        (ValueError, G, start(TH), {"eps": -1e-8}, "eps=-1e-08"),
        (ValueError, G, start(TH), {"beta1": 1.0}, r"beta1=1.0; needed a number in \[0, 1\)"),
        (ValueError, G, start(TH), {"beta2": -0.5}, "beta2=-0.5"),
        (ValueError, np.array([0, np.nan, 1]), start(TH), {"name": "w"}, r"gradient of w has NaN \(1 of 3"),
        (ValueError, np.array([0, -np.inf, 1]), start(TH), {"name": "w"}, "gradient of w has an infinity"),
        (ValueError, np.ones(4), start(TH), {}, r"grad has n=\(4,\), param has n=\(3,\)"),
        (ValueError, G, AdamState(np.zeros(3), np.zeros(2), 0), {}, r"v has n=\(2,\)"),
        (ValueError, G, AdamState(np.zeros(3), np.zeros(3), -1), {}, "t=-1"),
        (TypeError, G, (np.zeros(3), np.zeros(3), 0), {}, "state is a tuple; needed AdamState"),
        (TypeError, G.astype(np.float32), start(TH), {}, "grad has dtype float32, param has float64"),
        (TypeError, G.astype(int), start(TH), {}, "grad has dtype int64"),
    ],
)
def test_bad_input_is_named(step, error, grad, state, options, said):
    with pytest.raises(error, match=rf"^{step.__name__}: .*{said}"):
        step(TH, grad, state, **options)


def test_options_of_one_alone():
    with pytest.raises(ValueError, match="adam: eps_mode='root'; needed one of"):
        adam(TH, G, start(TH), eps_mode="root")
    with pytest.raises(ValueError, match="adam_l2: weight_decay=-0.1"):
        adam_l2(TH, G, start(TH), weight_decay=-0.1)


def test_mixed_backends_are_refused():
    with pytest.raises(TypeError, match="strict"):
        adam(TH, array_api_strict.ones(3), start(TH))
