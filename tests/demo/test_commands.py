"""`closedform demo` and `closedform train` from the command line, with a model of a few numbers."""

import json
from functools import partial

import pytest
from typer.testing import CliRunner

from ref.cli.app import app
from ref.conform import check
from ref.demo import checkpoint_file, commands
from ref.spec import all_specs

SIZES = {"channels": 16, "layers": 1, "heads": 2, "hidden": 24}
PLAN = {"batch": 2, "context": 512}  # long windows: few of them cover the held-out text
FILES = ["loss.png", "sample.txt"]


@pytest.fixture
def run(tmp_path, monkeypatch):
    for name, value in (("SHORT", SIZES), ("LONG", SIZES), ("SHORT_PLAN", PLAN), ("LONG_PLAN", PLAN),
                        ("VOCABULARY", 260)):  # fmt: skip
        monkeypatch.setattr(commands, name, value)
    monkeypatch.setattr("ref.demo.train.TEMPERATURES", (1.0, 1.25))
    monkeypatch.setattr(commands.console, "_width", 120)
    monkeypatch.chdir(tmp_path)

    def invoke(*args):
        with commands.console.capture() as shown:
            done = CliRunner().invoke(app, list(args))
        return done.exit_code, shown.get()

    return invoke


def test_train_shows_every_baseline_and_goes_on_only_if_asked_to(run, tmp_path):
    status, shown = run("train", "--steps", "4", "--out", "here")
    assert status == 0, shown
    for said in ("SHA-256", "xz -9e of the held-out text alone", "2.2", "interpolated n-gram (Witten-Bell)",
                 "modified Kneser-Ney n-gram", "this language model", "bits per byte"):  # fmt: skip
        assert said in shown
    folder = tmp_path / "here"
    assert [f for f in FILES if not (folder / f).exists()] == []
    assert (folder / "loss.png").read_bytes().startswith(b"\x89PNG")
    made = checkpoint_file.latest(folder)
    assert checkpoint_file.load(made).state["step"] == 4

    status, shown = run("train", "--steps", "4", "--out", "here")
    assert status == 2 and "--resume" in shown and "SHA" not in shown


def test_resume_takes_the_plan_of_the_checkpoint(run, monkeypatch, tmp_path):
    monkeypatch.setattr(commands, "_baselines", lambda text: {"xz": 2.2})
    assert run("train", "--steps", "3", "--out", "a")[0] == 0
    bits = checkpoint_file.latest(tmp_path / "a").read_bytes()
    status, shown = run("train", "--steps", "999", "--out", "a", "--resume")
    assert status == 0 and "step 3 of 3" in shown.replace("\n", "")
    assert checkpoint_file.latest(tmp_path / "a").read_bytes() == bits
    status, shown = run("train", "--steps", "3", "--out", "b", "--resume", "--recompute")
    assert status == 0 and "no checkpoint in b" in shown and "checkpointed=True" in shown.replace("\n", "")
    plain, recomputed = (checkpoint_file.load(checkpoint_file.latest(tmp_path / n)).arrays for n in "ab")
    assert all((plain[name] == recomputed[name]).all() for name in plain)


def test_the_demo_catches_the_wrong_function_by_name_and_starts_anew(run, monkeypatch, tmp_path):
    monkeypatch.setattr(commands, "_baselines", lambda text: {"xz": 2.2})
    monkeypatch.setattr(commands, "_verify", lambda: True)
    monkeypatch.setattr(check, "check", partial(check.check, examples=40))
    checkpoint_file.save(tmp_path / "closedform-demo", {}, {"step": 777})
    status, shown = run("demo", "--steps", "2")
    assert status == 0, shown
    for said in ("masked_keys_are_invisible", "mask_then_cap", "onnx#7865", "replay("):
        assert said in shown
    assert [p.name for p in checkpoint_file.steps(tmp_path / "closedform-demo")] == ["step-00000002.safetensors"]


def test_a_broken_law_fails_the_demo(run, monkeypatch):
    for name, value in (("_baselines", {"xz": 2.2}), ("_catch", True)):
        monkeypatch.setattr(commands, name, lambda *args, value=value: value)
    monkeypatch.setattr(commands, "_verify", lambda: False)
    assert run("demo", "--steps", "2")[0] == 1


def test_steps_fit_the_time():
    class Trial:
        def advance(self):
            pass

    assert commands._steps_for(1e9, Trial()) == 60_000
    assert commands._steps_for(1e-9, Trial()) == 200


def test_a_smooth_curve_keeps_the_mean_and_ends_at_the_last_step():
    assert commands._smooth([3.0, 2.0]) == [(1, 3.0), (2, 2.0)]
    assert commands._smooth([4.0, 2.0, 1.0, 1.0, 5.0], points=3) == [(2, 3.0), (4, 1.0), (5, 5.0)]


def test_the_plans_are_ones_that_a_checkpoint_can_hold():
    from ref.demo.train import Plan

    for options in (commands.SHORT_PLAN, commands.LONG_PLAN):
        plan = Plan(steps=2, **options)
        assert Plan(**json.loads(json.dumps(plan._asdict()))) == plan
        assert plan.batch % plan.shards == 0


def test_the_foundation_is_registered():
    assert not commands.FOUNDATION - {s.id for s in all_specs()}
