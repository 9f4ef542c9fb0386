"""What the losses say of bad input: the function, what arrived, what was needed. In both forms."""

import numpy as np
import pytest

from autodiff import forms
from ref.losses.softmax_cross_entropy import softmax_cross_entropy
from ref.losses.token_mean import token_mean

X, T, LOSS, MASK = np.zeros((2, 3)), np.array([0, 2]), np.zeros((2, 3)), np.ones((2, 3), bool)

CASES = [
    (softmax_cross_entropy, ValueError, (X, T + 1), {}, r"a target is 3, logits have V=3 classes; needs 0\.\.2"),
    (softmax_cross_entropy, ValueError, (X, T - 1), {}, r"a target is -1, .* needs 0\.\.2"),
    (softmax_cross_entropy, ValueError, (X, T - 1), {"ignore_index": -2}, r"needs 0\.\.2 or ignore_index=-2"),
    (softmax_cross_entropy, ValueError, (X, T[:1]), {}, r"targets has B=\(1,\), logits has B=\(2,\)"),
    (softmax_cross_entropy, ValueError, (np.zeros((2, 0)), T), {}, "logits have V=0 classes"),
    (softmax_cross_entropy, TypeError, (X, T.astype(float)), {}, r"targets has dtype float64; .* must be int"),
    (softmax_cross_entropy, TypeError, (X.astype(int), T), {}, r"logits has dtype int64; .* must be float"),
    (token_mean, ValueError, (LOSS, ~MASK), {}, r"token_mean: no position of \(2, 3\) is kept"),
    (token_mean, ValueError, (LOSS, MASK), {"count": 0}, "token_mean: count=0; needed at least 1"),
    (token_mean, ValueError, (LOSS, MASK[:, :2]), {}, r"mask has B=\(2, 2\), loss has B=\(2, 3\)"),
    (token_mean, TypeError, (LOSS, LOSS), {}, r"mask has dtype float64; .* must be bool"),
    (token_mean, TypeError, (LOSS.astype(int), MASK), {}, "loss has dtype int64"),
]


@pytest.mark.parametrize("form", ["fused", "composite"])
@pytest.mark.parametrize("function, error, args, options, said", CASES)
def test_bad_input_is_named(function, error, args, options, said, form):
    with forms(form), pytest.raises(error, match=said):
        function(*args, **options)


@pytest.mark.parametrize("form", ["fused", "composite"])
def test_no_classes_and_nothing_that_counts(form):
    with forms(form):
        assert softmax_cross_entropy(np.zeros((2, 0)), np.array([9, 9]), ignore_index=9).tolist() == [0, 0]
