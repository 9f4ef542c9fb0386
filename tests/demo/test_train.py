"""The language model learns, resumes to the same bits after SIGKILL, and says what it refuses."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from autodiff import tensor
from ref.demo import checkpoint_file
from ref.demo.language_model import Config, initial, logits
from ref.demo.train import Plan, Run, rate, train

ROOT = Path(__file__).resolve().parents[2]
TINY = Config(channels=16, layers=2, heads=2, hidden=24, context=12)
TEXT = b"the quick brown fox jumps over the lazy dog. " * 20


def tiny_plan(**changes):
    return Plan(**{"steps": 12, "batch": 2, "lr": 1e-2, "save_every": 3, **changes})


def test_logits_do_not_depend_on_later_tokens():
    params = initial(TINY, np.random.default_rng(0))
    tokens = np.random.default_rng(1).integers(0, 256, (2, 10))
    other = tokens.copy()
    other[:, 6:] = 7
    a, b = logits(params, tokens, TINY), logits(params, other, TINY)
    assert a.shape == (2, 10, 256) and a.dtype == np.float32
    assert np.array_equal(a[:, :6], b[:, :6])
    assert not np.array_equal(a[:, 6:], b[:, 6:])


def test_checkpointed_layers_give_the_same_bits():
    found = []
    for checkpointed in (False, True):
        run = Run(TEXT, TINY, tiny_plan(checkpointed=checkpointed))
        losses = [run.advance() for _ in range(3)]
        found.append((losses, {n: p.data.copy() for n, p in run.params.items()}))
    assert found[0][0] == found[1][0]
    assert all(np.array_equal(found[0][1][n], found[1][1][n]) for n in found[0][1])


def test_the_gradient_is_the_slope_of_the_loss():
    from ref.losses.softmax_cross_entropy import softmax_cross_entropy

    values = {n: a.astype(np.float64) for n, a in initial(TINY, np.random.default_rng(0)).items()}
    tokens = np.random.default_rng(1).integers(0, 256, (2, 9))
    rng = np.random.default_rng(2)
    u = {n: rng.standard_normal(a.shape) for n, a in values.items()}

    def loss(params):
        return softmax_cross_entropy(logits(params, tokens[:, :-1], TINY), tokens[:, 1:]).mean()

    params = {n: tensor(a, requires_grad=True) for n, a in values.items()}
    loss(params).backward()
    along = sum(float(np.vdot(params[n].grad, u[n])) for n in params)

    def central(h):
        ends = [float(loss({n: a + s * h * u[n] for n, a in values.items()})) for s in (1, -1)]
        return (ends[0] - ends[1]) / (2 * h)

    # Richardson: the error of the pair is O(h^4), the direction is about 90 long
    assert along == pytest.approx((4 * central(5e-6) - central(1e-5)) / 3, rel=1e-8)


def test_it_learns_a_text_that_repeats():
    run = Run(TEXT, TINY, tiny_plan(steps=150, batch=4, lr=2e-2))
    first = run.advance()
    losses = [run.advance() for _ in range(149)]
    assert first > 7.5
    assert np.mean(losses[-10:]) < 2.0
    assert run.bits_per_byte(TEXT[:200], stride=6) < 2.5
    assert run.sample(b"the", 5, seed=1) == run.sample(b"the", 5, seed=1)


def test_the_code_length_scores_every_byte_once_whatever_the_stride():
    run = Run(TEXT, TINY, tiny_plan())
    short = TEXT[: TINY.context + 1]
    assert run.bits_per_byte(short, stride=3) == pytest.approx(run.bits_per_byte(short, stride=12), rel=1e-9)
    fresh = run.bits_per_byte(TEXT[:100], stride=5)
    assert 7.5 < fresh < 8.5


def test_the_schedule_warms_up_peaks_and_ends_at_a_tenth():
    plan = Plan(steps=100, lr=1.0, warmup=0.1)
    rates = [rate(plan, t) for t in range(101)]
    assert rates[:10] == pytest.approx([(t + 1) / 10 for t in range(10)])
    assert max(rates) == 1.0 == rates[10] and rates[100] == pytest.approx(0.1)
    assert all(a >= b for a, b in zip(rates[10:], rates[11:], strict=False))
    assert sum(rates[10:100]) == pytest.approx(90 * 0.55 + 0.45, rel=1e-12)


CHILD = """
    import os, signal, sys
    from ref.demo import checkpoint_file
    from ref.demo.language_model import Config
    from ref.demo.train import Plan, Run, train

    folder, kill = sys.argv[1], sys.argv[2]
    text = b"the quick brown fox jumps over the lazy dog. " * 20
    config = Config(channels=16, layers=2, heads=2, hidden=24, context=12)
    run = Run(text, config, Plan(steps=12, batch=2, lr=1e-2, save_every=3))
    run.resume(folder)

    def die():
        os.kill(os.getpid(), signal.SIGKILL)

    if kill == "step":
        train(run, folder, watch=lambda run, loss: run.step == 8 and die())
    elif kill == "write":
        replace = os.replace
        os.replace = lambda *a: die() if run.step == 9 else replace(*a)
        train(run, folder)
    else:
        train(run, folder)
"""


def child(folder, kill):
    code = textwrap.dedent(CHILD)
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, "-c", code, str(folder), kill], env=env, timeout=100).returncode


@pytest.mark.parametrize("kill, left", [("step", 6), ("write", 6)])
def test_killed_and_resumed_in_a_fresh_process_it_ends_in_the_same_bits(tmp_path, kill, left):
    assert child(tmp_path / "whole", "never") == 0
    assert child(tmp_path / "cut", kill) == -signal.SIGKILL
    assert checkpoint_file.load(checkpoint_file.latest(tmp_path / "cut")).state["step"] == left
    assert child(tmp_path / "cut", "never") == 0
    whole, cut = (checkpoint_file.load(checkpoint_file.latest(tmp_path / n)) for n in ("whole", "cut"))
    assert whole.state == cut.state and whole.state["step"] == 12
    assert whole.arrays.keys() == cut.arrays.keys()
    assert all(np.array_equal(whole.arrays[n], cut.arrays[n]) for n in whole.arrays)


def test_another_plan_is_not_resumed(tmp_path):
    run = Run(TEXT, TINY, tiny_plan())
    train(run, tmp_path, until=3)
    with pytest.raises(ValueError, match=r"has plan .*'lr': 0.01.*this run has .*'lr': 0.5"):
        Run(TEXT, TINY, tiny_plan(lr=0.5)).resume(tmp_path)
    assert not Run(TEXT, TINY, tiny_plan()).resume(tmp_path / "empty")


def test_a_text_shorter_than_the_context_is_refused():
    with pytest.raises(ValueError, match="text has 12 bytes; more than 12 are needed"):
        Run(TEXT[:12], TINY)


def test_a_step_takes_time_but_not_long():
    run = Run(TEXT, TINY, tiny_plan())
    run.advance()
    started = time.process_time()
    run.advance()
    assert time.process_time() - started < 1.0
