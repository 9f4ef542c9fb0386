"""The README tells the truth: its table is the registry, its first example runs as shown."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bench import report
from ref.cli.app import app
from ref.cli.readme import ALGORITHMS, END, START, renewed, summary, table

README = (Path(__file__).resolve().parents[2] / "README.md").read_text()


def test_the_table_is_fresh():
    assert renewed(README) == README, "run `make table`"
    assert ALGORITHMS.read_text() == table(), "run `make table`"


def test_the_results_are_the_measured_ones():
    assert report.PAGE.read_text() == report.markdown(), "run `python -m bench.report`"
    assert report.markdown().count("\n| ") > 20


def test_a_stale_table_is_noticed():
    stale = README.replace(START, START + "| x |\n", 1)
    assert renewed(stale) == renewed(README) != stale
    assert summary().count("\n") > 3 and table().count("\n") > 3 * summary().count("\n")


def test_a_readme_without_marks_is_refused():
    with pytest.raises(ValueError, match="marks"):
        renewed(README.replace(END, ""))


def test_the_first_example_ends_as_shown(tmp_path, monkeypatch):
    code = re.search(r"```python\n(.*?)```", README, re.S)[1]
    assert len(code.strip().splitlines()) <= 12
    shown = re.search(r"```\n\$ closedform (check .*?)\n(.*?)```", README, re.S)
    (tmp_path / "mine.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, shown[1].split())
    assert done.exit_code == 1
    said = " ".join(done.stdout.split())
    for line in shown[2].strip().splitlines():
        if line.strip() and line.strip() != "...":
            assert " ".join(line.split()) in said
