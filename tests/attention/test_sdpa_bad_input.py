"""What sdpa and the rules say of bad input: the function, what arrived, what was needed."""

import array_api_strict
import numpy as np
import pytest

from autodiff import forms, tensor
from ref.attention.flash import flash
from ref.attention.rules import causal, relative, segments, window
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
        (TypeError, (Q, K, V), {"bias": np.ones((4, 5), np.float32)}, "bias has dtype float32, q has float64"),
        (TypeError, (Q, K, V), {"bias": np.ones((4, 5), int)}, "bias has dtype int64; .* must be float"),
        (TypeError, (Q, K, V), {"bias": causal()}, r"bias=causal\('bottom_right'\) is a rule of a mask"),
        (TypeError, (Q, K, V), {"mask": relative([0.0])}, r"mask=relative\(\[0.0\], 0\) is a rule of a bias"),
        (ValueError, (Q, K, V), {"mask": segments([0, 3, 5])}, "they end at 5 rows and 5 columns; T=4, S=5"),
        (ValueError, (Q, K, V), {"softcap": 0.0}, "softcap=0.0; needed a number > 0"),
        (ValueError, (Q, K, V), {"softcap": -1.0}, "softcap=-1.0"),
        (ValueError, (Q, K, V), {"softcap": float("nan")}, "softcap=nan"),
    ],
)
def test_sdpa_names_what_arrived_and_what_was_needed(error, args, options, said):
    with pytest.raises(error, match=said):
        sdpa(*args, **options)


@pytest.mark.parametrize("form", ["composite", "fused"])
def test_flash_refuses_the_same(form):
    """In every form, and where a bias that requires grad sends it to the form that is all at once."""
    with forms(form):
        with pytest.raises(ValueError, match="flash: q has d=0"):
            flash(x(2, 4, 0), x(1, 5, 0), V)
        with pytest.raises(TypeError, match="flash: bias has dtype float32, q has float64"):
            flash(Q, K, V, bias=np.ones((4, 5), np.float32))
        with pytest.raises(TypeError, match="flash: mask=.* is a rule of a bias"):
            flash(Q, K, V, mask=relative([0.0]))
        with pytest.raises(ValueError, match=r"flash: bias has shape \(3, 4, 5\)"):
            flash(Q, K, V, bias=tensor(np.ones((3, 4, 5)), requires_grad=True))
        with pytest.raises(ValueError, match="flash: block_rows=0"):
            flash(Q, K, V, bias=tensor(np.ones((4, 5)), requires_grad=True), block_rows=0)


def test_mixed_backends_are_refused():
    with pytest.raises(TypeError, match="strict"):
        sdpa(Q, array_api_strict.zeros(K.shape), V)


def test_mixed_dtypes_are_refused():
    with pytest.raises(TypeError, match="k has dtype float32, q has float64"):
        sdpa(Q, K.astype(np.float32), V)


def test_rules_refuse_bad_arguments():
    with pytest.raises(ValueError, match="align='middle'; needed one of"):
        causal("middle")
    with pytest.raises(ValueError, match="left=-1, right=0"):
        window(-1)
    with pytest.raises(ValueError, match="segments: rows begins with .* needed 0"):
        segments([1, 2])
    with pytest.raises(ValueError, match="segments: rows begins with nothing"):
        segments([])
    with pytest.raises(ValueError, match="cols falls from 3 to 2 at segment 1"):
        segments([0, 1, 2], [0, 3, 2])
    with pytest.raises(ValueError, match="rows has 2 segments, cols 1; needed as many"):
        segments([0, 1, 2], [0, 2])
    with pytest.raises(TypeError, match=r"inside=relative\(\[0.0\], 0\); needed a mask rule"):
        segments([0, 1], inside=relative([0.0]))
    with pytest.raises(ValueError, match="relative: left=1, 1 values"):
        relative([0.0], 1)
    with pytest.raises(ValueError, match="relative: left=0, 0 values"):
        relative([])
