"""What sgd says of bad input."""

import numpy as np
import pytest

from ref.optim.sgd import SgdState, sgd, start

TH, G = np.ones(3), np.full(3, 0.5)


@pytest.mark.parametrize(
    "error, grad, state, options, said",
    [
        (ValueError, G, start(TH), {"lr": -1.0}, "sgd: lr=-1.0; needed a finite number >= 0"),
        (ValueError, G, start(TH), {"weight_decay": -1.0}, "sgd: weight_decay=-1.0"),
        (ValueError, G, start(TH), {"momentum": 1.0}, r"sgd: momentum=1.0; needed a number in \[0, 1\)"),
        (ValueError, G, start(TH), {"form": "keras"}, "sgd: form='keras'; needed one of"),
        (ValueError, np.array([0, np.nan, 1]), start(TH), {"name": "w"}, "sgd: the gradient of w has NaN"),
        (ValueError, np.array([0, np.inf, 1]), start(TH), {"name": "w"}, "sgd: the gradient of w has an infinity"),
        (ValueError, np.ones(4), start(TH), {}, r"sgd: grad has n=\(4,\), param has n=\(3,\)"),
        (ValueError, G, SgdState(np.zeros(2)), {}, r"sgd: velocity has n=\(2,\)"),
        (TypeError, G, None, {}, "sgd: state is a NoneType; needed SgdState"),
        (TypeError, G.astype(np.float32), start(TH), {}, "sgd: grad has dtype float32"),
        (TypeError, [1.0, 2.0, 3.0], start(TH), {}, "sgd: grad is a list"),
    ],
)
def test_bad_input_is_named(error, grad, state, options, said):
    with pytest.raises(error, match=said):
        sgd(TH, grad, state, **options)
