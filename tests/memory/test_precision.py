"""Pure bfloat16 stalls where its updates fall below half a gap; masters and random rounding converge."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from ref.cli.app import app
from ref.demo import precision
from tests.demo.test_charts import pixels

STEPS = 700


@pytest.fixture(scope="module")
def runs():
    return {kind: precision.train(kind, STEPS) for kind in precision.KINDS}


def test_pure_bfloat16_stalls_and_masters_converge(runs):
    first, last = ({k: r.losses[i] for k, r in runs.items()} for i in (0, -1))
    assert len(set(first.values())) == 1
    assert last["bfloat16"] > 0.3 * first["bfloat16"] and runs["bfloat16"].still > STEPS / 2
    for kind in ("float32 masters", "bfloat16, stochastic"):
        assert last[kind] < 0.01 * last["bfloat16"]
        assert last[kind] < 1.5 * last["float32"] + 1e-4


def test_at_the_stall_every_update_is_at_most_half_a_gap(runs):
    """The gradient again, in float64: lr |g| <= half the gap on the update's side, but for the products' rounding."""
    X, target = precision.problem()
    w = runs["bfloat16"].weights.astype(np.float64)
    update = -precision.RATE * X.T @ (X @ (w - target)) / len(X)
    exponent = np.frexp(w)[1] - 8
    half = np.ldexp(0.5, exponent - ((np.frexp(w)[0] == 0.5) & (update < 0)))
    assert np.all(np.abs(update) <= half * (1 + 2.0**-5)) and np.max(np.abs(update) / half) > 0.5


def test_runs_repeat_and_bad_ones_are_refused(runs):
    again = precision.train("bfloat16, stochastic", 40)
    assert again.losses == precision.train("bfloat16, stochastic", 40).losses
    for kind, steps in (("fp8", 3), ("bfloat16", 0)):
        with pytest.raises(ValueError, match=f"train: kind='{kind}', steps={steps}; needed one of"):
            precision.train(kind, steps)


def test_the_picture(tmp_path, runs):
    path = precision.picture(tmp_path / "a.png", {k: r.losses for k, r in runs.items()})
    width, height, rows = pixels(path.read_bytes())
    assert width >= 600 and height >= 400 and len(set(rows)) > 20
    for bad in ({}, {"a": []}, {"a": [1.0, float("nan")]}, {"a": [-1.0]}):
        with pytest.raises(ValueError, match="picture: losses has runs"):
            precision.picture(tmp_path / "b.png", bad)


def test_the_command(tmp_path):
    run = CliRunner().invoke(app, ["precision", "--steps", "5", "--picture", str(tmp_path / "a.png"), "--json"])
    assert run.exit_code == 0 and [r["kept"] for r in json.loads(run.stdout)] == list(precision.KINDS)
    assert (tmp_path / "a.png").stat().st_size > 1000
    table = CliRunner().invoke(app, ["precision", "--steps", "3"])
    assert table.exit_code == 0 and "float32 masters" in table.stdout
    assert CliRunner().invoke(app, ["precision", "--picture", "/no/such/folder/a.png"]).exit_code == 2
