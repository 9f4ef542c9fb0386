"""What lion, adafactor and ema say of bad input."""

import numpy as np
import pytest

from ref.optim import adafactor as factored
from ref.optim import ema as averaged
from ref.optim.adafactor import AdafactorState, adafactor
from ref.optim.ema import EmaState, ema
from ref.optim.lion import LionState, lion
from ref.optim.lion import start as lion_start

TH, G = np.ones(3), np.full(3, 0.5)
X = np.ones((2, 3))
FACTORS, VECTOR = factored.start(X), factored.start(TH)


@pytest.mark.parametrize(
    "error, grad, state, options, said",
    [
        (ValueError, G, lion_start(TH), {"lr": -1.0}, "lr=-1.0; needed a finite number >= 0"),
        (ValueError, G, lion_start(TH), {"weight_decay": np.nan}, "weight_decay=nan"),
        (ValueError, G, lion_start(TH), {"beta1": 1.0}, r"beta1=1.0; needed a number in \[0, 1\)"),
        (ValueError, G, lion_start(TH), {"beta2": -0.5}, "beta2=-0.5"),
        (ValueError, G * np.nan, lion_start(TH), {"name": "w"}, "gradient of w has NaN"),
        (ValueError, np.ones(4), lion_start(TH), {}, r"grad has n=\(4,\), param has n=\(3,\)"),
        (ValueError, G, LionState(np.zeros(2)), {}, r"m has n=\(2,\)"),
        (TypeError, G, (TH,), {}, "state is a tuple; needed LionState"),
        (TypeError, G.astype(np.float32), lion_start(TH), {}, "grad has dtype float32, param has float64"),
    ],
)
def test_bad_input_of_lion(error, grad, state, options, said):
    with pytest.raises(error, match=f"^lion: .*{said}"):
        lion(TH, grad, state, **options)


@pytest.mark.parametrize(
    "error, param, grad, state, options, said",
    [
        (ValueError, X, X, FACTORS, {"lr": -1.0}, "lr=-1.0; needed a finite number >= 0"),
        (ValueError, X, X, FACTORS, {"decay_exponent": -0.8}, "decay_exponent=-0.8"),
        (ValueError, X, X, FACTORS, {"eps1": np.inf}, "eps1=inf"),
        (ValueError, X, X, FACTORS, {"eps2": -1.0}, "eps2=-1.0"),
        (ValueError, X, X, FACTORS, {"clip": 0.0}, "clip=0.0; needed a number > 0"),
        (ValueError, X, X * np.nan, FACTORS, {"name": "w"}, "gradient of w has NaN"),
        (ValueError, X, X.T, FACTORS, {}, "grad has r=3, param has r=2"),
        (ValueError, X, X, FACTORS._replace(columns=np.zeros(2)), {}, "columns has c=2"),
        (ValueError, X, X, FACTORS._replace(t=-1), {}, "t=-1"),
        (ValueError, X, X, VECTOR, {"name": "w"}, "the state of w has no columns, and w has 2 axes"),
        (ValueError, TH, TH, FACTORS, {"name": "w"}, "the state of w has columns, and w has 1 axes"),
        (ValueError, X[None], X[None], FACTORS, {"name": "w"}, r"w has shape \(1, 2, 3\); needed \[r c\] or \[n\]"),
        (TypeError, X, X, (1, 2, 3), {}, "state is a tuple; needed AdafactorState"),
        (TypeError, X, X.astype(np.float32), FACTORS, {}, "grad has dtype float32, param has float64"),
        (TypeError, X, X, AdafactorState(np.zeros(2, int), np.zeros(3), 0), {}, "rows has dtype int64"),
    ],
)
def test_bad_input_of_adafactor(error, param, grad, state, options, said):
    with pytest.raises(error, match=f"^adafactor: .*{said}"):
        adafactor(param, grad, state, **options)


@pytest.mark.parametrize(
    "error, param, state, options, said",
    [
        (ValueError, TH, averaged.start(TH), {"decay": 1.0}, r"decay=1.0; needed a number in \[0, 1\)"),
        (ValueError, TH * np.inf, averaged.start(TH), {"name": "w"}, "w has an infinity"),
        (ValueError, np.ones(2), averaged.start(TH), {}, r"average has n=\(3,\), param has n=\(2,\)"),
        (ValueError, TH, EmaState(TH, -1), {}, "t=-1; needed a count >= 0"),
        (TypeError, TH, (TH, 0), {}, "state is a tuple; needed EmaState"),
        (TypeError, TH, EmaState(TH.astype(np.float32), 0), {}, "average has dtype float32"),
        (TypeError, TH.astype(int), averaged.start(TH), {}, "param has dtype int64"),
    ],
)
def test_bad_input_of_ema(error, param, state, options, said):
    with pytest.raises(error, match=f"^ema: .*{said}"):
        ema(param, state, **options)


def test_an_uncorrected_average_starts_at_the_parameters():
    average, state = ema(TH + 8, averaged.start_at(TH), decay=0.75, corrected=False)
    assert average.tolist() == [3.0] * 3 and state.t == 1
    own = averaged.start_at(TH).average
    assert own is not TH and not np.shares_memory(own, TH)
