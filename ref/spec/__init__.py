"""The registry: algorithms, laws and mutants, and the vocabulary in which laws are written.

An algorithm imports `spec` and `bind` from here; a `*_laws.py` file adds `law`, `mutant`, `bounds` and
(from `ref.spec.cases`, which needs hypothesis) its input spaces.
"""

from ref.spec import bounds
from ref.spec.registry import (
    Law,
    Mutant,
    Spec,
    UnknownId,
    all_specs,
    get,
    id_of,
    law,
    load_all,
    load_laws,
    mutant,
    spec,
)
from ref.spec.signature import bind

__all__ = [
    "Law",
    "Mutant",
    "Spec",
    "UnknownId",
    "all_specs",
    "bind",
    "bounds",
    "get",
    "id_of",
    "law",
    "load_all",
    "load_laws",
    "mutant",
    "spec",
]
