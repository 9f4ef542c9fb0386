"""Scaled and two-dimensional rotary embeddings: bad input, known configurations, and what scaling breaks."""

import math

import numpy as np
import pytest

from autodiff import forms
from ref.nn.rope import rope
from ref.nn.rope_2d import rope_2d
from ref.nn.rope_dynamic_ntk import rope_dynamic_ntk
from ref.nn.rope_layout import rope_layout
from ref.nn.rope_linear import rope_linear
from ref.nn.rope_llama3 import rope_llama3
from ref.nn.rope_yarn import rope_yarn

THETA = 10000.0 ** (-np.arange(4) / 4)
LENGTHS = {"length": 8, "trained_length": 4}
A, AT = np.zeros((3, 4)), np.zeros((3, 2), int)

CASES = [
    (rope_linear, ValueError, (THETA,), {"factor": 0.5}, "rope_linear: factor=0.5; needed at least 1"),
    (rope_linear, ValueError, (THETA[None],), {"factor": 2.0}, r"theta has shape \(1, 4\) \(2 axes\)"),
    (rope_linear, TypeError, (np.arange(4),), {"factor": 2.0}, "theta has dtype int64; .* must be float"),
    (rope_dynamic_ntk, ValueError, (THETA,), {**LENGTHS, "factor": 0.0}, "rope_dynamic_ntk: factor=0.0"),
    (rope_dynamic_ntk, ValueError, (THETA,), {**LENGTHS, "length": 0}, "length=0, trained_length=4; both must"),
    (rope_dynamic_ntk, ValueError, (THETA,), {**LENGTHS, "trained_length": 0}, "length=8, trained_length=0"),
    (rope_dynamic_ntk, ValueError, (THETA[None],), LENGTHS, "theta has shape"),
    (rope_dynamic_ntk, TypeError, (np.arange(4),), LENGTHS, "theta has dtype int64"),
    (rope_yarn, ValueError, (THETA,), {"factor": float("nan"), "trained_length": 4}, "rope_yarn: factor=nan"),
    (rope_yarn, ValueError, (THETA,), {"factor": 2.0, "trained_length": 0}, "rope_yarn: trained_length=0"),
    (rope_yarn, ValueError, (THETA,), {"factor": 2.0, "trained_length": 4, "ramp": "linear"}, "ramp='linear'; needed"),
    (rope_yarn, ValueError, (THETA,), {"factor": 2.0, "trained_length": 4, "beta_fast": 1.0}, "beta_fast=1.0, beta_sl"),
    (rope_yarn, ValueError, (THETA[None],), {"factor": 2.0, "trained_length": 4}, "theta has shape"),
    (rope_yarn, TypeError, (np.arange(4),), {"factor": 2.0, "trained_length": 4}, "theta has dtype int64"),
    (rope_llama3, ValueError, (THETA,), {"factor": 0.0}, "rope_llama3: factor=0.0"),
    (rope_llama3, ValueError, (THETA,), {"trained_length": 0}, "rope_llama3: trained_length=0"),
    (rope_llama3, ValueError, (THETA,), {"low_rotations": 4.0}, "high_rotations=4.0, low_rotations=4.0; needed"),
    (rope_llama3, ValueError, (THETA[None],), {}, "theta has shape"),
    (rope_llama3, TypeError, (np.arange(4),), {}, "theta has dtype int64"),
    (rope_2d, ValueError, (A[:, :2], AT), {}, "rope_2d: a has d=2; needs a multiple of 4"),
    (rope_2d, ValueError, (A, AT[:2]), {}, r"positions have shape \(2, 2\), a has \(3, 4\); needs \[T 2\]"),
    (rope_2d, ValueError, (A, AT[0]), {}, r"positions have shape \(2,\)"),
    (rope_2d, ValueError, (A, np.zeros((3, 3), int)), {}, r"positions\[\*P 2\] needs 2"),
    (rope_2d, TypeError, (A, AT.astype(float)), {}, "positions has dtype float64"),
    (rope_2d, TypeError, (A.astype(int), AT), {}, "a has dtype int64"),
    (rope_layout, ValueError, (A,), {"heads": 2}, "weight has O=3 rows; heads=2 must divide them into even shares"),
    (rope_layout, ValueError, (A.T,), {"heads": 0}, "heads=0"),
    (rope_layout, ValueError, (A.T,), {"heads": 1, "to": "neox"}, "to='neox'; needed one of"),
    (rope_layout, TypeError, (A.T.astype(int),), {"heads": 1}, "weight has dtype int64"),
]


@pytest.mark.parametrize("function, error, args, options, said", CASES)
def test_it_says_what_arrived_and_what_was_needed(function, error, args, options, said):
    with pytest.raises(error, match=said):
        function(*args, **options)


def test_deepseek_v3_turns_without_a_factor():
    """mscale = mscale_all_dim = 1: the quotient is 1, and the softmax's scale takes (0.1 ln 40 + 1)^2 instead."""
    theta = 10000.0 ** (-np.arange(32) / 32)
    scaled, a = rope_yarn(theta, factor=40.0, trained_length=4096, mscale=1.0, mscale_all_dim=1.0)
    assert a == 1.0
    # i(32) = 32 ln(4096 / 64 pi) / ln 10^4 = 10.47 and i(1) = 22.51: pairs 0..10 stay, 23..31 are divided.
    assert np.array_equal(scaled[:11], theta[:11]) and np.array_equal(scaled[23:], theta[23:] / 40)
    assert ((scaled[11:23] < theta[11:23]) & (scaled[11:23] > theta[11:23] / 40)).all()


def scores(theta, shift, a=1.0):
    """Of one query and one key, 100 tokens apart, moved by `shift`."""
    q, k = np.random.default_rng(0).standard_normal((2, 1, len(theta) * 2))
    turn = {"theta": theta, "attention_factor": a}
    return float(np.sum(rope(q, np.array([shift + 100]), **turn) * rope(k, np.array([shift]), **turn)))


@pytest.mark.parametrize("form", ["composite", "fused"])
def test_dynamic_ntk_past_its_length_is_not_invariant_to_a_shift(form):
    """Each length has its own frequencies: the same distance scores otherwise; with frozen ones it does not."""
    theta = 10000.0 ** (-np.arange(16) / 16)

    def of_length(n):
        return rope_dynamic_ntk(theta, length=n, trained_length=512)

    with forms(form):
        assert math.isclose(scores(of_length(101), 0), scores(of_length(501), 400), rel_tol=1e-10)
        assert not math.isclose(scores(of_length(601), 500), scores(of_length(1101), 1000), rel_tol=1e-3)
        assert math.isclose(scores(of_length(1101), 500), scores(of_length(1101), 1000), rel_tol=1e-10)


@pytest.mark.parametrize("form", ["composite", "fused"])
def test_yarn_scales_a_score_by_the_square_of_its_factor(form):
    theta, a = rope_yarn(10000.0 ** (-np.arange(16) / 16), factor=4.0, trained_length=512)
    with forms(form):
        assert math.isclose(scores(theta, 7, a), a * a * scores(theta, 7), rel_tol=1e-12)
