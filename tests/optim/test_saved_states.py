"""Every optimizer's state through a real file, at every step, and torch's layout there and back."""

import math

import numpy as np
import pytest

from ref.demo import checkpoint_file
from ref.optim import adafactor as factored
from ref.optim import adamw as adamw_module
from ref.optim import amsgrad as ams
from ref.optim import ema as averages
from ref.optim import lion as lions
from ref.optim import sgd as sgds
from ref.optim.adam import adam
from ref.optim.adamw import AdamState, adamw
from ref.optim.from_torch import LAYOUT, from_torch, to_torch
from ref.optim.loss_scaler import ScalerState
from ref.optim.loss_scaler import start as scaler_start
from ref.optim.muon import muon
from ref.optim.scaled_step import scaled_step
from ref.optim.warmup_cosine import warmup_cosine

OPTIMIZERS = {
    "adamw": (adamw, adamw_module.start),
    "adam": (adam, adamw_module.start),
    "amsgrad": (ams.amsgrad, ams.start),
    "lion": (lions.lion, lions.start),
    "sgd": (lambda *a: sgds.sgd(*a, momentum=0.9), sgds.start),
    "muon": (muon, sgds.start),
    "adafactor": (factored.adafactor, factored.start),
    "ema": (lambda p, g, s: averages.ema(p + g, s), averages.start),
}


def gradients(count=5):
    rng = np.random.default_rng(0)
    return [rng.standard_normal((4, 3)).astype(np.float32) for _ in range(count)]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_state_in_a_file_continues_to_the_same_bits(name, tmp_path):
    step, start = OPTIMIZERS[name]
    param = np.ones((4, 3), np.float32)
    state, straight = start(param), []
    for g in gradients():
        param, state = step(param, g, state)
        straight.append((param, state))
    for k, (param, state) in enumerate(straight[:-1], 1):
        arrays = {"w": param, **to_torch({"w": state})}
        path = checkpoint_file.save(tmp_path, arrays, {"step": k})
        found = checkpoint_file.load(path, like=arrays).arrays
        param, state = found.pop("w"), from_torch(found)["w"]
        for g in gradients()[k:]:
            param, state = step(param, g, state)
        for a, b in zip((param, *state), (straight[-1][0], *straight[-1][1]), strict=True):
            assert np.asarray(a).tobytes() == np.asarray(b).tobytes() and np.asarray(a).dtype == np.asarray(b).dtype


def test_a_vector_of_adafactor_has_no_columns():
    state = factored.adafactor(np.ones(3), np.arange(3.0), factored.start(np.ones(3)))[1]
    flat = to_torch({"w": state})
    assert sorted(flat) == ["w.rows", "w.step"]
    back = from_torch(flat)["w"]
    assert back.columns is None and np.array_equal(back.rows, state.rows) and back.t == 1


def test_a_state_of_another_kind_is_refused():
    with pytest.raises(TypeError, match="to_torch: the state of w is a ScalerState; needed one of AdamState"):
        to_torch({"w": scaler_start()})


@pytest.mark.parametrize(
    "error, arrays, order, said",
    [
        (ValueError, {"exp_avg": np.ones(2)}, None, "the key 'exp_avg' has no dot"),
        (ValueError, {"w.exp_avg": np.ones(2), "w.step": np.ones(())}, None, "w has the leaves exp_avg, step; needed"),
        (ValueError, {"state.0.exp_avg": np.ones(2)}, None, "'state.0' has index 0 and there is no order"),
        (ValueError, {"state.2.exp_avg": np.ones(2)}, ["a", "b"], "has index 2 and there is an order of 2"),
        (TypeError, {"w.exp_avg": [1.0]}, None, "w.exp_avg is a list; needed an array"),
        (TypeError, {"w.exp_avg": np.ones(2, int)}, None, "exp_avg of w has dtype int64; needed float"),
    ],
)
def test_bad_input_of_from_torch(error, arrays, order, said):
    with pytest.raises(error, match=f"^from_torch: .*{said}"):
        from_torch(arrays, order=order)


@pytest.mark.parametrize("step", [1.5, -1.0, math.nan])
def test_a_step_that_counts_nothing(step):
    arrays = {"w.step": np.array(step), "w.exp_avg": np.ones(2), "w.exp_avg_sq": np.ones(2)}
    with pytest.raises(ValueError, match="step of w is .*; needed a whole number >= 0"):
        from_torch(arrays)


def test_moments_of_different_shapes():
    arrays = {"w.step": np.array(1.0), "w.exp_avg": np.ones(2), "w.exp_avg_sq": np.ones(3)}
    with pytest.raises(ValueError, match=r"exp_avg_sq of w has shape \(3,\), exp_avg has \(2,\)"):
        from_torch(arrays)


def test_there_and_back():
    states = {f"layer.{k}": kind(*(3 if f == "t" else np.full(2, i + k + 0.5) for i, f in enumerate(kind._fields)))
              for k, kind in enumerate(LAYOUT)}  # fmt: skip
    flat = to_torch(states)
    assert flat["layer.0.step"].dtype == np.float32 and flat["layer.0.step"].shape == ()
    back = from_torch(flat)
    assert list(back) == list(states)
    for name, state in states.items():
        assert type(back[name]) is type(state)
        assert all(np.array_equal(a, b) for a, b in zip(back[name], state, strict=True))


def test_mixed_precision_with_adamw_and_a_schedule_skips_what_overflows():
    """AdamW, clipping and a warm-up under a scaled loss: overflows leave t, the schedule and every bit."""

    def update(param, grad, state, t):
        return adamw(param, grad, state, lr=warmup_cosine(t, peak=1e-2, warmup=2, total=8))

    def train(flow):
        params = [np.ones(3, np.float32), np.ones((2, 2), np.float32)]
        states, scaler = [adamw_module.start(p) for p in params], scaler_start()
        rng = np.random.default_rng(0)
        for good in flow:
            grads = [(rng.standard_normal(p.shape).astype(np.float32) if good else p) * scaler.scale for p in params]
            grads = [g.astype(np.float32) for g in grads]
            if not good:
                grads[1][0, 0] = np.nan
            params, states, scaler = scaled_step(params, grads, states, scaler, step=update, max_norm=1.0)
        return params, states, scaler

    params, states, scaler = train([True, False, True, False, False, True])
    wanted, others, straight = train([True, True, True])
    assert all(a.tobytes() == b.tobytes() for a, b in zip(params, wanted, strict=True))
    assert [s.t for s in states] == [s.t for s in others] == [3, 3]
    assert scaler == ScalerState(2.0**13, 1, 3) and straight == ScalerState(2.0**16, 3, 3)
    assert isinstance(states[0], AdamState)
