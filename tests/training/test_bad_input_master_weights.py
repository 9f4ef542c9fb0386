"""What master_weights says of bad input."""

import numpy as np
import pytest

from ref.training.master_weights import master_weights

W, D, R = np.ones(2, np.float32), np.ones((3, 2), np.float32), np.zeros((3, 2), np.uint16)


@pytest.mark.parametrize(
    "error, args, options, said",
    [
        (ValueError, (W, D[:, :1]), {}, "updates has n=1, w has n=2"),
        (ValueError, (W, D, R[:2]), {"keep": "stochastic"}, "noise has T=2, updates has T=3"),
        (ValueError, (W, D), {"keep": "half"}, "master_weights: keep='half'; needed one of"),
        (ValueError, (W, D), {"keep": "stochastic"}, "no noise arrived for keep='stochastic'"),
        (ValueError, (W, D, R), {}, "noise arrived for keep='master'"),
        (TypeError, (W.astype(np.float64), D.astype(np.float64)), {}, "w has dtype float64; float32 is needed"),
        (TypeError, (W, D.astype(np.float64)), {}, "updates has dtype float64, w has float32"),
        (TypeError, (W, D, R.astype(int)), {"keep": "stochastic"}, "noise has dtype int64; uint16 is needed"),
    ],
)
def test_what_it_needs(error, args, options, said):
    with pytest.raises(error, match=said):
        master_weights(*args, **options)
