"""The table of primitives: what it refuses, and that its documentation is fresh and complete."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from autodiff import catalogue
from autodiff.primitive import TABLE, Primitive, primitive
from backends import EXTENSIONS

HERE = Path(__file__).parent


def _rule(xp, g, node):
    return (g,)


REFUSED = {
    "no kind": ({}, "'fresh' has kind None; needed one of elementwise, linear, multilinear, derived"),
    "unknown kind": ({"kind": "flat"}, "'fresh' has kind 'flat'; needed one of"),
    "one row of positions": ({"kind": "linear", "saves": (0,)}, "'fresh' saves (0,); needed a tuple of positions"),
    "names": ({"kind": "linear", "saves": (("x",),)}, "'fresh' saves (('x',),); needed a tuple of positions"),
    "a word": ({"kind": "linear", "saves": "all"}, "'fresh' saves 'all'; needed a tuple of positions"),
}


@pytest.mark.parametrize("row, said", REFUSED.values(), ids=REFUSED)
def test_a_row_that_forward_mode_or_the_tape_cannot_read_is_refused(row, said):
    with pytest.raises((ValueError, TypeError)) as error:
        primitive("fresh", **row)(_rule)
    assert said in str(error.value) and "fresh" not in TABLE


def test_a_name_is_registered_once():
    with pytest.raises(ValueError, match="primitive: 'exp' is registered already"):
        primitive("exp", ((1,),), kind="elementwise")(_rule)
    with pytest.raises(ValueError, match="registered already"):
        TABLE["exp"] = Primitive("exp", _rule, ((1,),), kind="elementwise")


def test_the_catalogue_is_fresh():
    assert catalogue.PATH.read_text() == catalogue.catalogue(), "run `make table`"


def test_the_catalogue_reads_the_rows(monkeypatch):
    assert re.search(r"^\| `solve` \| derived \| da: a, z; db: a \|", catalogue.catalogue(), re.M)
    monkeypatch.setattr(TABLE["solve"], "saves", ((2,), (0,)))
    assert "| `solve` | derived | da: z; db: a |" in catalogue.catalogue()
    assert catalogue.kept(TABLE["einsum"]) == "the others" and catalogue.kept(TABLE["add"]) == "-"


def test_edges_are_numbered_without_gaps_and_begin_with_their_primitives():
    edges = catalogue.edges()
    assert list(edges) == [f"E{i}" for i in range(1, len(edges) + 1)]
    assert catalogue.subjects("max, min and exp of what is where: 0") == ["max", "min", "exp"]
    for label, text in edges.items():
        assert catalogue.subjects(text), (label, text)


def test_every_edge_is_named_by_a_test():
    told = "".join(p.read_text() for p in HERE.glob("test_*.py") if p.name != Path(__file__).name)
    assert set(catalogue.edges()) <= set(re.findall(r"\bE\d+\b", told))


def test_every_extension_serves_a_primitive():
    assert {n for row in TABLE.values() for n in catalogue.needs(row)} == set(EXTENSIONS)
    assert catalogue.needs(TABLE["convolve"]) == ["windows"] and catalogue.needs(TABLE["exp"]) == []
