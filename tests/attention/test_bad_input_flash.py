"""What flash says of bad input, in either form: the function, what arrived, what was needed."""

import array_api_strict
import numpy as np
import pytest

from autodiff import forms
from ref.attention.flash import flash


def x(*shape, dtype=np.float64):
    return np.zeros(shape, dtype)


Q, K, V = x(2, 4, 3), x(1, 5, 3), x(1, 5, 2)


@pytest.mark.parametrize("form", ["composite", "fused"])
@pytest.mark.parametrize(
    "error, args, options, said",
    [
        (ValueError, (Q, K, x(1, 4, 2)), {}, r"flash: v has S=4, k has S=5; .* must share S"),
        (ValueError, (Q, x(1, 5, 4), V), {}, "flash: k has d=4, q has d=3"),
        (ValueError, (x(3, 4, 3), x(2, 5, 3), x(2, 5, 2)), {}, "q has H=3 heads, k has G=2; G must divide H"),
        (TypeError, (Q.astype(np.int64), K, V), {}, "q has dtype int64; .* must be float"),
        (TypeError, (Q, K.astype(np.float32), V), {}, "k has dtype float32, q has float64"),
        (TypeError, (Q, [[1.0]], V), {}, "k is a list; .* must be an array|list is no array"),
        (TypeError, (Q, K, V), {"mask": np.ones((4, 5))}, "mask has dtype float64; .* must be bool"),
        (ValueError, (Q, K, V), {"mask": np.ones((5, 4), bool)}, r"mask has shape \(5, 4\); it must broadcast"),
        (ValueError, (Q, K, V), {"bias": np.ones((3, 4, 5))}, r"bias has shape .*\(2, 4, 5\)"),
        (ValueError, (Q, K, V), {"softcap": 0.0}, "softcap=0.0; needed a number > 0"),
        (ValueError, (Q, K, V), {"block_rows": 0}, "flash: block_rows=0; needed at least 1"),
        (ValueError, (Q, K, V), {"block_cols": -3}, "flash: block_cols=-3; needed at least 1"),
    ],
)
def test_flash_names_what_arrived_and_what_was_needed(form, error, args, options, said):
    with forms(form), pytest.raises(error, match=said):
        flash(*args, **options)


def test_an_empty_head_dimension_is_refused():
    with forms("composite"), pytest.raises(ValueError, match="flash: q has d=0"):
        flash(x(2, 4, 0), x(1, 5, 0), V)


def test_two_backends_are_refused():
    with pytest.raises(TypeError, match="strict"):
        flash(Q, array_api_strict.zeros(K.shape), V)
