"""The moments of samplers against what their laws say, and that tables, JSON and a PNG come of them."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from ref.cli.app import app
from ref.demo import moments
from tests.demo.test_charts import pixels

FIRST = {
    *("ddpm-large", "ddim", "euler-maruyama", "ancestral-ve", "flow-ode-euler", "edm-euler", "dpm-solver-1"),
    *("flow-matching-euler", "langevin"),
}  # fmt: skip
SECOND = {"flow-ode-heun", "edm-heun", "edm-churn", "dpm-solver-2", "dpm-solver-pp-2m", "flow-matching-heun"}


@pytest.mark.parametrize("name", sorted(FIRST | SECOND))
def test_measured_orders(name):
    (_, row) = moments.measure(name, (64, 128))
    assert abs(row.cov_order - (1 if name in FIRST else 2)) < 0.1
    assert row.cov_error < (0.07 if name in FIRST else 0.01)


def test_ddim_with_eta_1_is_ddpm_with_the_small_variance():
    ours, theirs = (moments.measure(name, (16,))[0] for name in ("ddim-eta-1", "ddpm-small"))
    assert abs(ours.cov_error - theirs.cov_error) < 1e-12


def test_large_and_small_variances_are_exact_for_the_data_they_are_exact_for():
    unit = moments.gaussian((1.0, 1.0))
    assert moments.measure("ddpm-large", (16,), unit)[0].cov_error < 1e-12
    assert moments.measure("ddpm-small", (16,), unit)[0].cov_error > 1e-2
    point = moments.gaussian((1e-14, 1e-14))
    assert moments.measure("ddpm-small", (16,), point)[0].cov_error < 1e-9
    assert moments.measure("ancestral-ve", (16,), point)[0].cov_error < 1e-9


def test_every_sampler_makes_a_row_and_evaluations_are_counted():
    for name in moments.SAMPLERS:
        (row,) = moments.measure(name, (8,))
        heun = name in ("flow-ode-heun", "edm-heun", "edm-churn", "dpm-solver-2", "flow-matching-heun")
        assert row.evaluations == {True: 16, False: 80 if name == "annealed-langevin" else 8}[heun]
        assert np.isfinite(row.cov_error) and row.mean_order is None


@pytest.mark.parametrize("name, steps", [("dddm", (8,)), ("ddim", ()), ("ddim", (8, 8)), ("ddim", (0,))])
def test_what_cannot_be_measured_is_named(name, steps):
    with pytest.raises(ValueError, match=f"^moments: .*{name if name == 'dddm' else 'needed rising numbers'}"):
        moments.measure(name, steps)


def test_the_picture_is_a_png_and_the_same_twice(tmp_path):
    found = {name: moments.measure(name, (8, 16)) for name in ("ddim", "edm-heun")}
    data = [moments.picture(tmp_path / f"{k}.png", found).read_bytes() for k in range(2)]
    width, height, rows = pixels(data[0])
    assert data[0] == data[1] and width >= 600 and height >= 400 and len(set(rows)) > 20
    with pytest.raises(ValueError, match="picture: found has"):
        moments.picture(tmp_path / "x.png", {})


def test_the_command(tmp_path):
    args = ["moments", "ddim", "dpm-solver-2", "--steps", "8,16", "--out", str(tmp_path / "a.png")]
    run = CliRunner().invoke(app, args)
    assert run.exit_code == 0 and "dpm-solver-2" in run.stdout and (tmp_path / "a.png").stat().st_size > 1000
    found = json.loads(CliRunner().invoke(app, [*args, "--json"]).stdout)
    assert [r["steps"] for r in found["ddim"]] == [8, 16] and found["dpm-solver-2"][1]["evaluations"] == 32
    bad = ["--steps", "8,x"], ["--variances", "0"], ["--mean", "0"], ["--out", "/no/such/folder/a.png"], ["dddm"]
    for wrong in bad:
        assert CliRunner().invoke(app, [*args, *wrong]).exit_code == 2, wrong
