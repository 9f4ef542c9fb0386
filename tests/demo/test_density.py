"""`closedform train-density`: the split, that training improves on counting, and in a deep run the bars."""

import os

import numpy as np
import pytest
from typer.testing import CliRunner

from ref.cli.app import app
from ref.demo import density, density_command

DEEP = os.environ.get("CLOSEDFORM_PROFILE") == "deep"


@pytest.fixture(scope="module")
def digits():
    return density.load()


def test_the_parts_are_binary_and_disjoint_and_in_the_stated_order(digits):
    from sklearn.datasets import load_digits

    images = load_digits().data[np.random.default_rng(0).permutation(1797)] > 8
    assert [len(x) for x in digits[:3]] == [1200, 200, 397]
    assert np.array_equal(np.concatenate(digits[:3]), images)
    assert all(x.dtype == np.float32 for x in digits[:3])


def test_independent_bits_have_the_loss_of_their_frequencies(digits):
    ones = (digits.fitting.sum(0) + 1) / (len(digits.fitting) + 2)
    x = digits.selection
    wanted = -(x * np.log(ones) + (1 - x) * np.log(1 - ones)).sum(1).mean()
    assert density.counted_loss(x, *density.counted(digits)["independent bits"]) == pytest.approx(wanted, rel=1e-5)


def test_every_model_starts_near_independent_bits(digits):
    start = density.counted_loss(digits.selection, *density.counted(digits)["independent bits"])
    for model in density.models(digits, hidden=8, width=16):
        assert abs(density.loss(model, digits.selection, model.params) - start) < 1.5
        assert model.numbers <= sum(a.size for a in model.params.values())


def test_a_run_is_a_function_of_its_seed_and_keeps_its_best_epoch(digits):
    small = digits._replace(fitting=digits.fitting[:100])
    model = density.models(small, hidden=4, width=8)[2]
    first, again = (density.fit(model, small, epochs=3, seed=1) for _ in range(2))
    assert first.selection == again.selection
    assert first.epoch == 1 + int(np.argmin(first.selection))
    assert density.loss(model, small.selection, first.params) == min(first.selection)
    assert density.fit(model, small, epochs=3, seed=2).selection != first.selection


def test_the_command_trains_shows_and_draws(tmp_path, monkeypatch):
    """One epoch in a run for a commit; in a deep one all of them, and the bars."""
    monkeypatch.setattr(density_command.console, "_width", 120)
    rows = []
    monkeypatch.setattr(
        density_command, "_table", lambda found, table=density_command._table: rows.extend(found) or table(found)
    )
    with density_command.console.capture() as shown:
        args = [] if DEEP else ["--epochs", "1"]
        done = CliRunner().invoke(app, ["train-density", "--out", str(tmp_path / "here"), *args])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "here" / "density.png").read_bytes().startswith(b"\x89PNG")
    for said in ("1200 to fit, 200 to choose the epoch, 397 to test", "FVSBN", "NADE", "MADE", "bits a pixel"):
        assert said in shown.get()
    test = {r.model: r.test for r in rows}
    assert 24.5 < test["independent bits"] < 24.7
    assert test["naive Bayes"] < 20.0
    for name in ("FVSBN", "NADE", "MADE"):
        assert test[name] < test["independent bits"]
    if DEEP:
        assert test["FVSBN"] < 19.0
        assert test["NADE"] < min(test["FVSBN"], 18.3)
        assert test["MADE"] < test["FVSBN"]


def test_samples_are_binary_images_and_a_function_of_the_seed(digits):
    model = density.models(digits, hidden=4, width=8)[1]
    x = density.samples(model, model.params, 5, seed=3)
    assert x.shape == (5, 8, 8) and set(np.unique(x)) <= {0.0, 1.0}
    assert np.array_equal(x, density.samples(model, model.params, 5, seed=3))
    y = density.sampled_counts(*density.counted(digits)["naive Bayes"], 5)
    assert y.shape == (5, 8, 8) and set(np.unique(y)) <= {0.0, 1.0}


def test_a_loss_that_is_not_finite_is_not_drawn(tmp_path):
    with pytest.raises(ValueError, match="picture: NADE has a loss that is not finite"):
        density_command.picture(tmp_path / "x.png", {"NADE": [1.0, float("nan")]}, {}, {"digits": np.zeros((1, 8, 8))})
