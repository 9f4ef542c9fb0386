"""What amsgrad says of bad input."""

import numpy as np
import pytest

from ref.optim.amsgrad import AmsgradState, amsgrad, start

TH, G = np.ones(3), np.full(3, 0.5)


@pytest.mark.parametrize(
    "error, grad, state, options, said",
    [
        (ValueError, G, start(TH), {"lr": -1.0}, "lr=-1.0; needed a finite number >= 0"),
        (ValueError, G, start(TH), {"eps": np.nan}, "eps=nan"),
        (ValueError, G, start(TH), {"beta1": 1.0}, r"beta1=1.0; needed a number in \[0, 1\)"),
        (ValueError, G, start(TH), {"beta2": -0.5}, "beta2=-0.5"),
        (ValueError, G, start(TH), {"form": "keras"}, "form='keras'; needed one of"),
        (ValueError, np.array([0, np.nan, 1]), start(TH), {"name": "w"}, r"gradient of w has NaN \(1 of 3"),
        (ValueError, np.ones(4), start(TH), {}, r"grad has n=\(4,\), param has n=\(3,\)"),
        (ValueError, G, start(TH)._replace(v_max=np.zeros(2)), {}, r"v_max has n=\(2,\)"),
        (ValueError, G, start(TH)._replace(t=-1), {}, "t=-1; needed a count >= 0"),
        (TypeError, G, tuple(start(TH)), {}, "state is a tuple; needed AmsgradState"),
        (TypeError, G.astype(np.float32), start(TH), {}, "grad has dtype float32, param has float64"),
    ],
)
def test_bad_input_is_named(error, grad, state, options, said):
    with pytest.raises(error, match=f"^amsgrad: .*{said}"):
        amsgrad(TH, grad, state, **options)


def test_an_integer_state_is_refused():
    with pytest.raises(TypeError, match="m has dtype int64"):
        amsgrad(TH, G, AmsgradState(np.zeros(3, int), np.zeros(3), np.zeros(3), 0))
