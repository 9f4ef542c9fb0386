"""ref/rl/DIVERGENCES.md names options and rows that exist."""

import importlib
import inspect
import re
from pathlib import Path

import pytest

import ref.rl
from tests.deep.divergences import ROWS

HERE = Path(ref.rl.__file__).parent
TABLE = [
    [cell.strip() for cell in line.strip("|").split(" | ")]
    for line in (HERE / "DIVERGENCES.md").read_text().splitlines()
    if line.startswith("| ") and not line.startswith(("| ---", "| choice"))
]
OPTIONS = [(name, text) for row in TABLE for name, text in re.findall(r"`(\w+)\(([^`]*)\)`", row[3])]


def names():
    """Strings that some option of the family may have: those of the modules' tuples of names."""
    found = set()
    for path in HERE.glob("*.py"):
        if not path.stem.endswith("_laws"):
            constants = vars(importlib.import_module(f"ref.rl.{path.stem}"))
            tuples = (value for key, value in constants.items() if key.isupper() and isinstance(value, tuple))
            found.update(name for values in tuples for name in values if isinstance(name, str))
    return found


def test_every_row_has_its_cells_and_says_how_it_is_known():
    assert len(TABLE) > 50
    for cells in TABLE:
        assert len(cells) == 5 and cells[1] and cells[2] and cells[3], cells
        assert cells[4] == "read" or cells[4].startswith("run: "), cells


@pytest.mark.parametrize(("name", "text"), OPTIONS)
def test_an_option_exists(name, text):
    parameters = inspect.signature(getattr(importlib.import_module(f"ref.rl.{name}"), name)).parameters
    for part in filter(None, text.split(", ")):
        key, _, value = part.partition("=")
        assert key in parameters, f"{name} has no {key}"
        if value.startswith('"'):
            assert value.strip('"') in names(), f"{name}: {key}={value}"


def test_run_rows_are_the_rows_that_run():
    said = {cells[4].removeprefix("run: ") for cells in TABLE if cells[4] != "read"}
    assert said == {key for key, _ in ROWS}
