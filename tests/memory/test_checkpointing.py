"""The chain under every policy: measured units and runs are the formulas; the picture and the command."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from ref.cli.app import app
from ref.demo import checkpointing
from tests.demo.test_charts import pixels


@pytest.mark.parametrize("n", [1, 2, 5, 12])
def test_every_policy_measures_what_its_formula_says(n):
    policies = checkpointing.policies(n, [1, 2, 4])
    found = {name: checkpointing.measure(policy, n, rows=2, channels=3) for name, policy in policies.items()}
    for name, policy in policies.items():
        assert (found[name].units, found[name].again) == (policy.units, policy.again), name
        for a, b in zip(found[name].gradients, found["keep everything"].gradients, strict=True):
            assert np.array_equal(a, b), name
    written = {name: f.offloaded for name, f in found.items() if f.offloaded}
    assert written == {"products to a file": 5 * n}


def test_the_picture_has_the_points_and_the_optimum(tmp_path, monkeypatch):
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figures, print_png = [], FigureCanvasAgg.print_png
    monkeypatch.setattr(
        FigureCanvasAgg, "print_png", lambda self, *a, **kw: [figures.append(self.figure), print_png(self, *a, **kw)]
    )
    points = {"keep everything": (130, 0), "Revolve, 3": (16, 15), "Revolve, 2": (15, 20)}
    path = checkpointing.picture(tmp_path / "a.png", 10, points, [1, 2, 3])
    width, height, rows = pixels(path.read_bytes())
    assert width >= 600 and height >= 400 and len(set(rows)) > 20
    drawn = {line.get_label(): line.get_xydata().tolist() for line in figures[0].axes[0].get_lines()}
    assert drawn["optimum: s states kept, t(n, s) runs again"] == [[4.5, 14], [2.0, 15], [1.5, 16]]
    assert drawn["Revolve, measured"] == [[1.5, 16], [2.0, 15]]
    assert drawn["keep everything: 130 units"] == [[0, 130]]
    assert checkpointing.picture(tmp_path / "b.png", 10, points, [1, 2, 3]).read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    "n, points, snapshots, said",
    [
        (4, {}, [1], r"measured has \{\}; needed finite pairs"),
        (4, {"a": (1.0, float("nan"))}, [1], "needed finite pairs"),
        (4, {"a": (1.0,)}, [1], "needed finite pairs"),
        (0, {"a": (1, 1)}, [1], "n=0"),
        (4, {"a": (1, 1)}, [0, 1], r"snapshots=\[0, 1\]; needed numbers of at least 1"),
    ],
)
def test_a_picture_of_nothing_is_refused(tmp_path, n, points, snapshots, said):
    with pytest.raises(ValueError, match=f"picture: .*{said}"):
        checkpointing.picture(tmp_path / "a.png", n, points, snapshots)
    assert not list(tmp_path.iterdir())


def test_the_command_prints_and_draws(tmp_path):
    run = CliRunner().invoke(app, ["checkpoints", "--layers", "5", "--picture", str(tmp_path / "a.png"), "--json"])
    rows = json.loads(run.stdout)
    assert run.exit_code == 0 and all(r["same_bits"] and r["units"] == r["units_formula"] for r in rows)
    assert (tmp_path / "a.png").stat().st_size > 1000
    table = CliRunner().invoke(app, ["checkpoints", "--layers", "3"])
    assert table.exit_code == 0 and "Revolve, 2" in table.stdout
    assert max(map(len, table.stdout.splitlines())) <= 80


@pytest.mark.parametrize("args", [["--layers", "0"], ["--picture", "/no/such/folder/a.png", "--layers", "2"]])
def test_the_command_refuses_in_one_line(args):
    run = CliRunner().invoke(app, ["checkpoints", *args])
    assert run.exit_code == 2 and "Traceback" not in run.output
