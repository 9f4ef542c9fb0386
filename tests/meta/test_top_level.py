"""The top level holds what the README names and nothing more."""

from fnmatch import fnmatch

from tests.meta.floors import root_of_house

ALLOWED = {
    ".ci",
    ".git",
    ".gitignore",
    "CONTRIBUTING.md",
    "LICENSE",
    "Makefile",
    "README.md",
    "autodiff",
    "backends",
    "bench",
    "pyproject.toml",
    "ref",
    "requirements",
    "tests",
}


def strangers(root):
    """Entries of the top level that are neither allowed nor ignored by git."""
    ignored = [line.rstrip("/") for line in (root / ".gitignore").read_text().split()]
    names = {p.name for p in root.iterdir()} - ALLOWED
    return sorted(n for n in names if not any(fnmatch(n, pattern) for pattern in ignored))


def test_no_stranger_at_the_top():
    assert strangers(root_of_house()) == []


def test_a_planted_stranger_is_found(tmp_path):
    (tmp_path / ".gitignore").write_text(".venv/\n*.egg-info/\n")
    for name in ("ref", ".venv", "closedform.egg-info", "utils", "notes.txt"):
        (tmp_path / name).mkdir()
    assert strangers(tmp_path) == ["notes.txt", "utils"]
