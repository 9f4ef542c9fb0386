"""The registry, the headers and the README say the same."""

import inspect
import re
import subprocess
import sys

import pytest

from ref.families import FAMILIES
from ref.spec import UnknownId, all_specs, get, id_of, load_laws, spec
from ref.spec.registry import FLOORS_BELOW, _modules

load_laws()
SPECS = all_specs()
each_spec = pytest.mark.parametrize("spec", SPECS, ids=[s.id for s in SPECS])
LABEL = re.compile(r"\b(L\d+) (\w+)")


@each_spec
def test_labels_match_the_laws_both_ways(spec):
    header = inspect.getdoc(sys.modules[spec.module])
    section = re.search(r"^Laws.*?\n((?:\s{2,}.*\n?|\n)*)", header, re.M)
    assert section, f"the header of {spec.module} has no Laws section"
    written = dict(LABEL.findall(section[0]))
    shared = [s for s in SPECS if s.module == spec.module]
    laws = {f"{x.label}": x.name for s in shared for x in s.laws.values()}
    assert written == laws


@each_spec
def test_lookup_inverts_naming(spec):
    assert get(spec.id) is spec
    assert id_of(spec.function) == spec.id
    assert spec.family in FAMILIES + FLOORS_BELOW


def test_an_unknown_id_names_the_nearest():
    with pytest.raises(UnknownId, match="attention.sdpa"):
        get("attention.spda")


def test_an_id_of_the_floors_below_is_found_in_a_fresh_process():
    code = "from ref.spec import get; print(get('backends.round_fp16').id)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).stdout.strip() == b"backends.round_fp16"


def test_an_id_is_taken_once():
    with pytest.raises(ValueError, match="attention.sdpa.*taken"):
        spec("attention.sdpa", "x[n] -> [n]")(get("attention.sdpa").function)


# Modules that several algorithms of their family share.
PARTS = {
    "ref.attention.rules",
    "ref.distributed.ranks",
    "ref.mdp.control",
    "ref.mdp.model",
    "ref.mdp.trajectories",
    "ref.mdp.updates",
}


def test_every_public_function_of_a_family_is_registered():
    """A module of a family either registers an algorithm, or says that it is a part (`rules`)."""
    registered = {s.module for s in SPECS}
    bare = {m for m in _modules() if not m.endswith("_laws")} - registered - PARTS
    assert not bare


def test_laws_stand_beside_their_algorithm():
    """In its own file, or made by a function of the family's `common_laws`, where a family obeys the same ones."""
    for s in SPECS:
        homes = {f"{s.module}_laws", f"{s.module.rpartition('.')[0]}.common_laws"}
        assert {x.run.__module__ for x in s.laws.values()} <= homes, s.id


@each_spec
def test_the_docstring_is_complete(spec):
    doc = inspect.getdoc(spec.function) or ""
    for section in ("Parameters\n", "Returns\n", "Raises\n", "Complexity: ", ">>> "):
        assert section in doc, f"{spec.id}: no {section.strip()!r} in the docstring"
