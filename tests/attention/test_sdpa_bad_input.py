"""What sdpa and the rules say of bad input: the function, what arrived, what was needed."""

import numpy as np
import pytest

from ref.attention.rules import causal, window
from ref.attention.sdpa import sdpa


def x(*shape, dtype=np.float64):
    return np.zeros(shape, dtype)


Q, K, V = x(2, 4, 3), x(1, 5, 3), x(1, 5, 2)


@pytest.mark.parametrize(
    "error, args, options, said",
    [
        (ValueError, (Q, K, x(1, 4, 2)), {}, r"sdpa: v has S=4, k has S=5; .* must share S"),
        (ValueError, (Q, x(1, 5, 4), V), {}, "sdpa: k has d=4, q has d=3"),
        (ValueError, (x(3, 4, 3), x(2, 5, 3), x(2, 5, 2)), {}, "q has H=3 heads, k has G=2; G must divide H"),
        (ValueError, (x(2, 4, 0), x(1, 5, 0), V), {}, "q has d=0"),
        (ValueError, (x(4, 3), K, V), {}, r"q has shape \(4, 3\) \(2 axes\).*at least 3"),
        (ValueError, (x(7, 2, 4, 3), x(6, 1, 5, 3), x(6, 1, 5, 2)), {}, r"k has B=\(6,\), q has B=\(7,\)"),
        (TypeError, (Q.astype(np.int64), K, V), {}, "q has dtype int64; .* must be float"),
        (TypeError, (Q, [[1.0]], V), {}, "k is a list; .* must be an array"),
        (TypeError, (Q, K, V), {"mask": np.ones((4, 5))}, "mask has dtype float64; .* must be bool"),
        (ValueError, (Q, K, V), {"mask": np.ones((5, 4), bool)}, r"mask has shape \(5, 4\); it must broadcast"),
        (ValueError, (Q, K, V), {"bias": np.ones((3, 4, 5))}, r"bias has shape .*\(2, 4, 5\)"),
        (ValueError, (Q, K, V), {"softcap": 0.0}, "softcap=0.0; needed a number > 0"),
        (ValueError, (Q, K, V), {"softcap": -1.0}, "softcap=-1.0"),
        (ValueError, (Q, K, V), {"softcap": float("nan")}, "softcap=nan"),
    ],
)
def test_sdpa_names_what_arrived_and_what_was_needed(error, args, options, said):
    with pytest.raises(error, match=said):
        sdpa(*args, **options)


def test_mixed_backends_are_refused():
    strict = pytest.importorskip("array_api_strict")
    with pytest.raises(TypeError, match="strict"):
        sdpa(Q, strict.zeros(K.shape), V)


def test_mixed_dtypes_are_refused():
    with pytest.raises(TypeError, match="k has dtype float32, q has float64"):
        sdpa(Q, K.astype(np.float32), V)


def test_rules_refuse_bad_arguments():
    with pytest.raises(ValueError, match="align='middle'; needed one of"):
        causal("middle")
    with pytest.raises(ValueError, match="left=-1, right=0"):
        window(-1)
