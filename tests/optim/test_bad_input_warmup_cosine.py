"""What warmup_cosine says of bad input, and that a Python int gives a Python float."""

import numpy as np
import pytest

from ref.optim.warmup_cosine import warmup_cosine

GOOD = {"peak": 1.0, "warmup": 2, "total": 6}


@pytest.mark.parametrize(
    "error, step, options, said",
    [
        (ValueError, -1, {}, "step has -1; needed steps >= 0"),
        (ValueError, np.array([3, -2]), {}, "step has -2"),
        (ValueError, 1, {"peak": -1.0}, "peak=-1.0; needed a finite number >= 0"),
        (ValueError, 1, {"final": np.nan}, "final=nan"),
        (ValueError, 1, {"warmup": 6}, "warmup=6, total=6; needed 0 <= warmup < total"),
        (ValueError, 1, {"warmup": -1}, "warmup=-1"),
        (TypeError, np.array([1.0]), {}, "step has dtype float64"),
        (TypeError, 1.0, {}, "float"),
        (TypeError, 1, {"warmup": 0.5}, "integer"),
    ],
)
def test_bad_input_is_named(error, step, options, said):
    with pytest.raises(error, match=said):
        warmup_cosine(step, **{**GOOD, **options})


def test_a_plain_step_has_a_plain_rate():
    rates = [warmup_cosine(t, **GOOD) for t in range(8)]
    assert all(type(r) is float for r in rates)
    assert rates == warmup_cosine(np.arange(8), **GOOD).tolist()
