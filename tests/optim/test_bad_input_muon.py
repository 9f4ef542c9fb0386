"""What newton_schulz and muon say of bad input."""

import numpy as np
import pytest

from ref.optim.muon import muon
from ref.optim.newton_schulz import newton_schulz
from ref.optim.sgd import SgdState, start

W, G = np.ones((2, 3)), np.full((2, 3), 0.5)


@pytest.mark.parametrize(
    "error, x, options, said",
    [
        (ValueError, np.ones(3), {}, r"x has shape \(3,\) \(1 axes\); x\[\*B r c\] needs at least 2"),
        (ValueError, G, {"steps": -1}, "steps=-1; needed at least 0"),
        (ValueError, G, {"coefficients": (1.0, 2.0)}, "2 coefficients; needed three"),
        (ValueError, G, {"eps": -1.0}, "eps=-1.0; needed a finite number >= 0"),
        (ValueError, G * np.inf, {"name": "w"}, "w has an infinity"),
        (TypeError, np.ones((2, 3), int), {}, "x has dtype int64"),
        (TypeError, [[1.0]], {}, "x is a list"),
    ],
)
def test_bad_input_of_newton_schulz(error, x, options, said):
    with pytest.raises(error, match=f"^newton_schulz: .*{said}"):
        newton_schulz(x, **options)


def test_steps_are_whole():
    with pytest.raises(TypeError, match="integer"):
        newton_schulz(G, steps=2.5)


@pytest.mark.parametrize(
    "error, param, grad, state, options, said",
    [
        (ValueError, W, G, start(W), {"lr": -1.0}, "lr=-1.0; needed a finite number >= 0"),
        (ValueError, W, G, start(W), {"weight_decay": -1.0}, "weight_decay=-1.0"),
        (ValueError, W, G, start(W), {"eps": np.inf}, "eps=inf"),
        (ValueError, W, G, start(W), {"momentum": 1.0}, r"momentum=1.0; needed a number in \[0, 1\)"),
        (ValueError, W, G, start(W), {"scale": "none"}, "scale='none'; needed one of"),
        (ValueError, W, G * np.nan, start(W), {"name": "w"}, "gradient of w has NaN"),
        (ValueError, W, G.T, start(W), {}, "grad has r=3, param has r=2"),
        (ValueError, W, G, SgdState(np.zeros((2, 2))), {}, "velocity has c=2"),
        (ValueError, np.ones(3), np.ones(3), SgdState(np.ones(3)), {}, r"param has shape \(3,\)"),
        (ValueError, W[:0], G[:0], SgdState(W[:0]), {}, "param has r=0, c=3; needed a row and a column"),
        (TypeError, W, G, (W,), {}, "state is a tuple; needed SgdState"),
        (TypeError, W, G.astype(np.float32), start(W), {}, "grad has dtype float32, param has float64"),
    ],
)
def test_bad_input_of_muon(error, param, grad, state, options, said):
    with pytest.raises(error, match=f"^muon: .*{said}"):
        muon(param, grad, state, **options)


def test_what_newton_schulz_refuses_muon_refuses():
    with pytest.raises(ValueError, match="steps=-1"):
        muon(W, G, start(W), steps=-1)


def test_muon_after_five_steps_stays_near_the_size_of_adamw():
    """Real size: a Gaussian gradient's singular values fill a wide range, and the RMS comes out near .2."""
    g = np.random.default_rng(0).standard_normal((128, 192))
    zero = np.zeros_like(g)
    step, _ = muon(zero, g, start(zero), lr=1.0, weight_decay=0.0)
    assert 0.15 < np.sqrt(np.mean(step**2)) < 0.22
