"""The lists of algorithms, made from the registry: `python -m ref.cli.readme` renews them.

README.md has a line a family, between two marks; ref/ALGORITHMS.md a line an algorithm.
"""

from __future__ import annotations

from collections import defaultdict
from importlib import import_module
from pathlib import Path

from ref.spec import all_specs, load_laws

HEAD = "Made from the registry by `make table`. `closedform show ID` prints an algorithm's equations, laws and mutants."
START, END = "<!-- algorithms -->\n", "<!-- /algorithms -->\n"
ROOT = Path(__file__).resolve().parents[2]
README, ALGORITHMS = ROOT / "README.md", ROOT / "ref" / "ALGORITHMS.md"


def table():
    """ref/ALGORITHMS.md, whole."""
    load_laws()
    rows = ["| id | algorithm | forms | laws | mutants |", "| --- | --- | --- | --: | --: |"]
    for s in all_specs():
        forms = ", ".join(s.forms())
        rows.append(f"| `{s.id}` | {s.title} | {forms} | {len(s.laws)} | {len(s.mutants)} |")
    return f"# Algorithms\n\n{HEAD}\n\n" + "\n".join(rows) + "\n"


def summary():
    """The README's table: families, their algorithms, how many laws and mutants."""
    load_laws()
    families = defaultdict(list)
    for s in all_specs():
        families[s.id.partition(".")[0]].append(s)
    rows = ["| family | algorithms | laws | mutants |", "| --- | --- | --: | --: |"]
    for family, specs in families.items():
        what = _subject(family)
        names = ", ".join(f"`{s.id.partition('.')[2]}`" for s in specs)
        laws, mutants = (sum(len(getattr(s, kind)) for s in specs) for kind in ("laws", "mutants"))
        rows.append(f"| **{family}** | {what}: {names} | {laws} | {mutants} |")
    return "\n".join(rows) + "\n"


def _subject(family):
    """The first words of the family's docstring."""
    module = import_module(f"{'backends.low_precision' if family == 'backends' else f'ref.{family}'}")
    return module.__doc__.strip().splitlines()[0].split(":")[0].rstrip(".")


def renewed(text):
    """`text` with the part between the two marks replaced by the summary.

    Raises
    ------
    ValueError
        A mark is missing.
    """
    head, start, rest = text.partition(START)
    _, end, tail = rest.partition(END)
    if not start or not end:
        raise ValueError(f"README: needed the marks {START.strip()} and {END.strip()}")
    return head + start + summary() + end + tail


if __name__ == "__main__":
    README.write_text(renewed(README.read_text()))
    ALGORITHMS.write_text(table())
