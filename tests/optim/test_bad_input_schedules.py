"""What the further schedules say of bad input, and that a Python int gives a Python float."""

import numpy as np
import pytest

from ref.optim.inverse_sqrt import inverse_sqrt
from ref.optim.noam import noam
from ref.optim.warmup_linear import warmup_linear
from ref.optim.wsd import wsd

GOOD = {
    warmup_linear: {"peak": 1.0, "warmup": 2, "total": 6},
    wsd: {"peak": 1.0, "warmup": 2, "decay": 3, "total": 8},
    inverse_sqrt: {"peak": 1.0, "warmup": 2},
    noam: {"channels": 16, "warmup": 2},
}
EVERY = [
    (ValueError, -1, {}, "step has -1; needed steps >= 0"),
    (ValueError, np.array([3, -2]), {}, "step has -2"),
    (TypeError, np.array([1.0]), {}, "step has dtype float64"),
    (TypeError, 1, {"warmup": 0.5}, "integer"),
]
OWN = {
    warmup_linear: [
        (ValueError, 1, {"peak": -1.0}, "peak=-1.0; needed a finite number >= 0"),
        (ValueError, 1, {"final": np.nan}, "final=nan"),
        (ValueError, 1, {"warmup": 6}, "warmup=6, total=6; needed 0 <= warmup < total"),
    ],
    wsd: [
        (ValueError, 1, {"peak": np.inf}, "peak=inf; needed a finite number >= 0"),
        (ValueError, 1, {"final": -1.0}, "final=-1.0"),
        (ValueError, 1, {"decay": 0}, "warmup=2, decay=0, total=8; needed 1 <= decay <= total - warmup"),
        (ValueError, 1, {"decay": 7}, "decay=7"),
        (ValueError, 1, {"warmup": 8}, "warmup=8, total=8"),
        (ValueError, 1, {"shape": "cosine"}, "shape='cosine'; needed one of"),
        (ValueError, 1, {"shape": "exponential"}, "peak=1.0, final=0.0; an exponential needs both > 0"),
        (TypeError, 1, {"decay": 1.5}, "integer"),
    ],
    inverse_sqrt: [
        (ValueError, 1, {"peak": -1.0}, "peak=-1.0; needed a finite number >= 0"),
        (ValueError, 1, {"warmup": 0}, "warmup=0; needed at least 1"),
    ],
    noam: [
        (ValueError, 1, {"factor": -1.0}, "factor=-1.0; needed a finite number >= 0"),
        (ValueError, 1, {"channels": 0}, "channels=0; needed at least 1"),
        (ValueError, 1, {"warmup": 0}, "warmup=0; needed at least 1"),
        (TypeError, 1, {"channels": 1.5}, "integer"),
    ],
}


@pytest.mark.parametrize("schedule, row", [(f, row) for f in GOOD for row in EVERY + OWN[f]])
def test_bad_input_is_named(schedule, row):
    error, step, options, said = row
    with pytest.raises(error, match=said) as caught:
        schedule(step, **{**GOOD[schedule], **options})
    assert "integer" in said or str(caught.value).startswith(schedule.__name__ + ":")


@pytest.mark.parametrize("schedule", GOOD)
def test_a_plain_step_has_a_plain_rate(schedule):
    rates = [schedule(t, **GOOD[schedule]) for t in range(12)]
    assert all(type(r) is float for r in rates)
    assert rates == schedule(np.arange(12), **GOOD[schedule]).tolist()
