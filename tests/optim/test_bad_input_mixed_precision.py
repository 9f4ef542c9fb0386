"""What accumulate_gradients, parameter_groups, loss_scaler and scaled_step say of bad input."""

import math

import numpy as np
import pytest

from ref.optim.accumulate_gradients import accumulate_gradients
from ref.optim.loss_scaler import ScalerState, loss_scaler, start
from ref.optim.parameter_groups import parameter_groups
from ref.optim.scaled_step import scaled_step

G = [np.ones(3), np.ones((2, 2))]


@pytest.mark.parametrize(
    "error, parts, counts, options, said",
    [
        (ValueError, [G], [1], {"of": "max"}, "of='max'; needed one of"),
        (ValueError, [], [], {}, r"counts=\[\]; needed counts >= 0 that are not all 0"),
        (ValueError, [G], [0], {}, r"counts=\[0\]"),
        (ValueError, [G, G], [2, -1], {}, r"counts=\[2, -1\]"),
        (ValueError, [G, G], [2], {}, "more than 1 parts and 1 counts"),
        (ValueError, [G], [2, 1], {}, "1 parts and 2 counts; needed a count a part"),
        (ValueError, [G, G[:1]], [1, 1], {}, r"parts\[1\] has 1 arrays, parts\[0\] has 2"),
        (ValueError, [[]], [1], {}, r"parts\[0\] has 0 arrays"),
        (ValueError, [G, [np.ones(3), np.ones(4)]], [1, 1], {}, r"parts1_1 has n=\(4,\), parts0_1 has n=\(2, 2\)"),
        (TypeError, [[np.ones(2, int)]], [1], {}, "parts0_0 has dtype int64"),
        (TypeError, [[[1.0]]], [1], {}, "parts0_0 is a list"),
        (TypeError, [[np.ones(2)], [np.ones(2, np.float32)]], [1, 1], {}, "parts1_0 has dtype float32"),
    ],
)
def test_bad_input_of_accumulate_gradients(error, parts, counts, options, said):
    with pytest.raises(error, match=f"^accumulate_gradients: .*{said}"):
        accumulate_gradients(parts, counts, **options)


def test_a_count_is_whole():
    with pytest.raises(TypeError, match="integer"):
        accumulate_gradients([G], [1.5])


def test_parts_may_be_a_generator_and_one_is_held_at_a_time():
    held = []

    def parts():
        for k in range(3):
            held.append(k)
            yield [np.full(2, float(k))]

    assert accumulate_gradients(parts(), [1, 1, 2])[0].tolist() == [0.75, 0.75]
    assert held == [0, 1, 2]


@pytest.mark.parametrize(
    "error, shapes, options, said",
    [
        (TypeError, [("w", (2, 2))], {}, "shapes is a list; needed a dict"),
        (TypeError, {1: (2, 2)}, {}, "the name 1 is a int"),
        (TypeError, {"w": 3}, {}, "w has shape 3; needed a sequence of integers"),
        (TypeError, {"w": (2.5,)}, {}, r"w has shape \(2.5,\)"),
        (TypeError, {"w": (2, 2)}, {"embeddings": "wte"}, r"embeddings='wte'; needed a tuple of names, as \('wte',\)"),
        (ValueError, {"": (2, 2)}, {}, "empty name"),
        (ValueError, {"w": (2, -1)}, {}, r"w has shape \(2, -1\); needed sizes >= 0"),
    ],
)
def test_bad_input_of_parameter_groups(error, shapes, options, said):
    with pytest.raises(error, match=f"^parameter_groups: .*{said}"):
        parameter_groups(shapes, **options)


@pytest.mark.parametrize(
    "error, grads, state, options, said",
    [
        (ValueError, [], start(), {}, "grads is empty; needed at least one gradient"),
        (ValueError, G, start(0.0), {}, "scale=0.0; needed a finite number > 0"),
        (ValueError, G, start(math.inf), {}, "scale=inf"),
        (ValueError, G, start(), {"growth": 1.0}, "growth=1.0, backoff=0.5, interval=2000"),
        (ValueError, G, start(), {"backoff": 1.0}, "backoff=1.0"),
        (ValueError, G, start(), {"interval": 0}, "interval=0"),
        (ValueError, G, ScalerState(1.0, -1, 0), {}, "good=-1, taken=0; needed counts >= 0"),
        (TypeError, G, (1.0, 0, 0), {}, "state is a tuple; needed ScalerState"),
        (TypeError, [np.ones(2, int)], start(), {}, "g0 has dtype int64"),
        (TypeError, [G[0], G[1].astype(np.float32)], start(), {}, "g1 has dtype float32"),
    ],
)
def test_bad_input_of_loss_scaler(error, grads, state, options, said):
    with pytest.raises(error, match=f"^loss_scaler: .*{said}"):
        loss_scaler(grads, state, **options)


def test_an_interval_is_whole():
    with pytest.raises(TypeError, match="integer"):
        loss_scaler(G, start(), interval=2.5)


def test_bad_input_of_scaled_step():
    def step(p, g, s, t):
        return p, s

    with pytest.raises(ValueError, match="scaled_step: 2 params, 1 grads, 2 states; needed as many of each"):
        scaled_step(G, G[:1], [None, None], start(), step=step)
    with pytest.raises(TypeError, match="loss_scaler: state is a NoneType"):
        scaled_step(G, G, [None, None], None, step=step)
    with pytest.raises(ValueError, match="clip_by_global_norm: max_norm=0.0"):
        scaled_step(G, G, [None, None], start(), step=step, max_norm=0.0)
