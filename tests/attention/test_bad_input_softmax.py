"""What the two softmaxes and the merge say of bad input: the function, what arrived, what was needed."""

import array_api_strict
import numpy as np
import pytest

from ref.attention.merge import merge
from ref.attention.online_softmax import online_softmax
from ref.attention.safe_softmax import safe_softmax

SOFTMAXES = pytest.mark.parametrize("softmax", [safe_softmax, online_softmax])
M, O = np.zeros(3), np.zeros((3, 2))  # noqa: E741  the paper's letter


@SOFTMAXES
@pytest.mark.parametrize(
    "error, x, said",
    [
        (TypeError, np.array([1, 2]), r"x has dtype int64; x\[\*B n\] must be float"),
        (TypeError, [1.0, 2.0], r"x is a list; x\[\*B n\] must be an array"),
        (ValueError, np.array(1.0), r"x has shape \(\) \(0 axes\); x\[\*B n\] needs at least 1"),
    ],
)
def test_a_softmax_names_what_arrived_and_what_was_needed(softmax, error, x, said):
    with pytest.raises(error, match=f"{softmax.__name__}: {said}"):
        softmax(x)


@pytest.mark.parametrize(
    "error, parts, said",
    [
        (ValueError, (M, M[:2], O, M, M, O), r"merge: l1 has B=\(2,\), m1 has B=\(3,\)"),
        (ValueError, (M, M, O, M, M, O[:, :1]), "merge: o2 has e=1, o1 has e=2"),
        (ValueError, (M, M, M[0], M, M, O), r"merge: o1 has shape \(\)"),
        (TypeError, (M, M, O, M.astype(np.float32), M, O), "merge: m2 has dtype float32, m1 has float64"),
        (TypeError, (M, M.astype(int), O, M, M, O), "merge: l1 has dtype int64; .* must be float"),
        (TypeError, (M, 1.0, O, M, M, O), "merge: l1 is a float; .* must be an array"),
    ],
)
def test_merge_names_what_arrived_and_what_was_needed(error, parts, said):
    with pytest.raises(error, match=said):
        merge(*parts)


def test_merge_refuses_two_backends():
    with pytest.raises(TypeError, match="strict"):
        merge(M, M, O, M, array_api_strict.zeros(3), O)
