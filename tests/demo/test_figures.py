"""The figures' numbers against closed forms, and that PNGs come of them."""

import subprocess
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

from ref.cli.app import app
from ref.demo.figures import FIGURES, Panel, draw, least_squares_panels, mean_estimation_panels, robbins_monro_panels
from ref.demo.figures import weight_decay_panels as decay_panels


def test_one_over_k_finds_the_root_and_fast_rates_do_not():
    quiet, noisy = robbins_monro_panels()
    for panel in (quiet, noisy):
        ends = {label: y[-1] for label, (_, y) in panel.lines.items()}
        assert abs(ends["a = 1 / k"] - 1) < 0.2 and ends["a = 1 / (k + 1)^2"] > 1.9
    settled = np.array(noisy.lines["a = 0.2"][1][50:])
    assert np.std(settled) > 3 * np.std(noisy.lines["a = 1 / k"][1][50:])


def test_the_running_mean_is_drawn():
    paths, gaps = mean_estimation_panels()
    points = np.stack(paths.lines["points"], axis=1)
    x, y = paths.lines["BGD, m = 100"]
    assert np.allclose([x[1], y[1]], points.mean(0), atol=1e-12) and (x[0], y[0]) == (20.0, 20.0)
    for m, label in ((1, "SGD, m = 1"), (5, "MBGD, m = 5"), (50, "MBGD, m = 50")):
        (k, seen), (_, wanted) = gaps.lines[label], gaps.lines[f"s / sqrt({m} k)"]
        assert np.allclose(wanted**2 * m * k, np.sum(points.var(0)), rtol=1e-12)
        assert np.max(np.abs(seen / wanted - 1)) < 0.25  # the mean square of 100 runs is off by a tenth of itself


def test_batch_descent_falls_and_single_points_stay_noisy():
    losses, _ = least_squares_panels()
    ends = {label: np.mean(y[-100:]) for label, (_, y) in losses.lines.items()}
    assert ends["BGD, m = 200"] < 1e-12 < ends["MBGD, m = 20"] < ends["SGD, m = 1"]
    batch = losses.lines["BGD, m = 200"][1]
    assert np.all(np.diff(batch[:50]) < 0)


def test_decoupled_decay_does_not_look_at_the_gradient():
    """AdamW leaves (1 - lr wd)^t of every weight; Adam + L2 almost all of one with large gradients, and nothing (but
    its own noise) of one with small ones."""
    panel, _ = decay_panels()
    left = panel.levels["(1 - lr wd)^t"]
    assert abs(left - 0.995**400) < 1e-15
    sizes, decoupled = panel.lines["AdamW"]
    assert np.max(np.abs(decoupled - left)) < 0.1
    _, coupled = panel.lines["Adam + L2"]
    assert coupled[sizes > 50].min() > 0.9 and np.abs(coupled[sizes < 0.01]).max() < 0.05


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_a_png_and_the_same_twice(name, tmp_path):
    data = [draw(tmp_path / f"{k}.png", FIGURES[name]()).read_bytes() for k in range(2)]
    assert data[0][:8] == b"\x89PNG\r\n\x1a\n" and data[0] == data[1] and len(data[0]) > 10_000


@pytest.mark.parametrize("x, log", [([1.0, np.nan], ""), ([1.0, 0.0], "x")])
def test_what_cannot_be_drawn_is_named(x, log, tmp_path):
    with pytest.raises(ValueError, match="draw: 'a' of 'title' has x that cannot be drawn"):
        draw(tmp_path / "a.png", [Panel("title", "x", "y", {"a": (x, [1.0, 2.0])}, {}, log)])
    assert not list(tmp_path.iterdir())


def test_the_command_draws_what_is_named(tmp_path):
    found = CliRunner().invoke(app, ["figures", "robbins_monro", "--out", str(tmp_path / "new")])
    assert found.exit_code == 0 and [p.name for p in (tmp_path / "new").iterdir()] == ["robbins_monro.png"]
    found = CliRunner().invoke(app, ["figures", "cube", "--out", str(tmp_path)])
    assert found.exit_code == 2 and "no figure 'cube'; there are robbins_monro" in found.output


def test_matplotlib_is_imported_only_to_draw():
    code = "import sys, ref.demo.figures; assert 'matplotlib' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
