"""The table of algorithms in the README, made from the registry: `python -m ref.cli.readme` renews it."""

from __future__ import annotations

from pathlib import Path

from ref.spec import all_specs, load_laws

START, END = "<!-- algorithms -->\n", "<!-- /algorithms -->\n"


def table():
    """The table as Markdown."""
    load_laws()
    rows = ["| id | algorithm | forms | laws | mutants |", "| --- | --- | --- | --: | --: |"]
    for s in all_specs():
        forms = ", ".join(s.forms())
        rows.append(f"| `{s.id}` | {s.title} | {forms} | {len(s.laws)} | {len(s.mutants)} |")
    return "\n".join(rows) + "\n"


def renewed(text):
    """`text` with the part between the two marks replaced by the table.

    Raises
    ------
    ValueError
        A mark is missing.
    """
    head, start, rest = text.partition(START)
    _, end, tail = rest.partition(END)
    if not start or not end:
        raise ValueError(f"README: needed the marks {START.strip()} and {END.strip()}")
    return head + start + table() + end + tail


if __name__ == "__main__":
    path = Path(__file__).resolve().parents[2] / "README.md"
    path.write_text(renewed(path.read_text()))
