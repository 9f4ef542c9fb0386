"""What is public, under which id, and what judges it: specs, laws, mutants.

`@spec` registers an algorithm and returns the same function; lookup inverts naming (`get(id).function`,
`id_of(function)`); an id is taken once, for ever. `@law` and `@mutant` hang on a spec by its id.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import pkgutil
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

from ref.families import FAMILIES
from ref.spec.signature import Signature, parse

_SPECS: dict[str, Spec] = {}
_IDS: dict[int, str] = {}
FLOORS_BELOW = ("backends", "autodiff")
_GUARDED_NEEDS = ("vjp", "jvp", "hvp", "plan")


class UnknownId(LookupError):
    """No such id; the message names the nearest one."""


@dataclass(frozen=True)
class Law:
    """A property that every implementation of an algorithm has.

    `run(impl, case, expect)` calls the implementation on the case and states what must hold. `needs` names
    what the implementation must offer besides the call ("vjp", "jvp", "hvp"; "plan": it works through
    our communicator or rule alone, and so shows its schedule).
    `kills` names the mutants it must catch, `passes_null` the null implementations that obey it by nature.
    A law that kills nothing is labelled `documentation`.
    """

    id: str
    label: str
    run: Callable
    given: object
    closed_form: bool = False
    needs: tuple[str, ...] = ()
    kills: tuple[str, ...] = ()
    passes_null: tuple[str, ...] = ()
    dtypes: tuple[str, ...] = ("float64", "float32")
    documentation: bool = False

    @property
    def name(self):
        return self.run.__name__

    @property
    def statement(self):
        return " ".join(self.run.__doc__.split())


@dataclass(frozen=True)
class Mutant:
    """A wrong implementation: one plausible edit that passes the default-size test `default_case`."""

    id: str
    function: Callable
    thread: str | None = None
    default_case: Callable | None = None
    vjp: Callable | None = None

    @property
    def name(self):
        return self.function.__name__


@dataclass
class Spec:
    """An algorithm: its function, its signature in named axes, its laws and mutants.

    `grads` are the arguments that carry gradients; `backends` the array libraries it is declared for;
    `infinite` says that an infinite output is lawful (a log-sum-exp of nothing).
    """

    id: str
    function: Callable
    signature: Signature
    text: str
    grads: tuple[str, ...]
    backends: tuple[str, ...]
    infinite: bool
    title: str
    source: str
    laws: dict[str, Law] = field(default_factory=dict)
    mutants: dict[str, Mutant] = field(default_factory=dict)

    @property
    def family(self):
        return self.id.split(".")[0]

    @property
    def module(self):
        return self.function.__module__

    def forms(self, backend="numpy"):
        """"composite", and "fused" and "compiled" as the backend offers them."""
        from backends.fused import find, find_compiled

        there = {"composite": True, "fused": find(self.id, backend), "compiled": find_compiled(self.id, backend)}
        return tuple(form for form, found in there.items() if found)

    @cached_property
    def parameters(self):
        """(positional names, keyword names) of the function."""
        params = inspect.signature(self.function).parameters.values()
        return (
            tuple(p.name for p in params if p.kind is p.POSITIONAL_OR_KEYWORD),
            tuple(p.name for p in params if p.kind is p.KEYWORD_ONLY),
        )

    @property
    def defaults(self):
        """{name: default} of the function's optional parameters."""
        params = inspect.signature(self.function).parameters.values()
        return {p.name: p.default for p in params if p.default is not p.empty}


def spec(id, text, *, grads=(), backends=("numpy", "strict", "cupy"), infinite=False, title=None):
    """Register the decorated function as the algorithm `id` and return it unchanged.

    Parameters
    ----------
    id : str
        `family.name`, never reused.
    text : str
        Signature in named axes (`ref.spec.signature`).
    grads : tuple of str
        Arguments that carry gradients.
    backends : tuple of str
        Array libraries the algorithm is declared for.
    infinite : bool
        An infinite output is lawful.
    title : str, optional
        Else the first line of the module's docstring.

    Raises
    ------
    ValueError
        Id taken, or the module header has no `Source:`.
    """

    def register(function):
        if id in _SPECS:
            raise ValueError(f"spec: id {id!r} is taken by {_SPECS[id].module}")
        header = inspect.getdoc(importlib.import_module(function.__module__)) or ""
        source = re.search(r"^Source: (.*?)(?:\n\s*\n|\Z)", header, re.S | re.M)
        if source is None:
            raise ValueError(f"spec: the header of {function.__module__} has no line `Source: ...`")
        _SPECS[id] = Spec(
            id=id,
            function=function,
            signature=parse(text),
            text=text,
            grads=tuple(grads),
            backends=tuple(backends),
            infinite=infinite,
            title=title or header.splitlines()[0].rstrip("."),
            source=" ".join(source[1].split()),
        )
        _IDS[_key(function)] = id
        return function

    return register


def law(id, label, *, given, **options):
    """Register the decorated `run(impl, case, expect)` as law `label` of algorithm `id`.

    Its docstring is the statement. Options are the fields of `Law`.

    Raises
    ------
    ValueError
        No docstring, label taken, or an unknown need.
    """

    def register(run):
        owner = get(id)
        if not run.__doc__:
            raise ValueError(f"law {id} {label}: {run.__name__} has no docstring to state it")
        if label in owner.laws:
            raise ValueError(f"law {id} {label}: taken by {owner.laws[label].name}")
        made = Law(id=id, label=label, run=run, given=given, **_tuples(options))
        if unknown := set(made.needs) - set(_GUARDED_NEEDS):
            raise ValueError(f"law {id} {label}: needs {unknown}; known are {_GUARDED_NEEDS}")
        owner.laws[label] = made
        return run

    return register


def mutant(id, *, thread=None, default_case=None, vjp=None):
    """Register the decorated function as a wrong implementation of `id` that some law must kill."""

    def register(function):
        owner = get(id)
        if function.__name__ in owner.mutants:
            raise ValueError(f"mutant {id} {function.__name__}: name taken")
        owner.mutants[function.__name__] = Mutant(id, function, thread, default_case, vjp)
        return function

    return register


def _tuples(options):
    return {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}


def _key(function):
    return id(inspect.unwrap(function))


def get(id):
    """The Spec registered under `id`.

    Raises
    ------
    UnknownId
        With the nearest id.
    """
    if id not in _SPECS:
        _import_owner(id)
    if id in _SPECS:
        return _SPECS[id]
    load_all()  # the floors below register theirs in their laws
    if id in _SPECS:
        return _SPECS[id]
    near = difflib.get_close_matches(id, _SPECS, n=1, cutoff=0.0)
    raise UnknownId(f"no algorithm {id!r}; the nearest id is {near[0]!r}" if near else f"no algorithm {id!r}")


def _import_owner(id):
    family, _, name = id.partition(".")
    module = f"ref.{family}.{name}"
    if family in FAMILIES and name.isidentifier() and importlib.util.find_spec(module):
        importlib.import_module(module)


def id_of(function):
    """The id of a registered function, or None."""
    return _IDS.get(_key(function))


def _modules():
    for family in FAMILIES:
        package = importlib.import_module(f"ref.{family}")
        for info in pkgutil.iter_modules(package.__path__, f"ref.{family}."):
            yield info.name


def load_all():
    """Import every algorithm of every family, and the laws of the floors below, which register theirs."""
    for name in _modules():
        if not name.endswith("_laws"):
            importlib.import_module(name)
    for floor in FLOORS_BELOW:
        package = importlib.import_module(floor)
        for info in pkgutil.iter_modules(package.__path__, f"{floor}."):
            if info.name.endswith("_laws"):
                importlib.import_module(info.name)


def load_laws(ids=None):
    """Import the laws of the given ids, or of all: `x_laws.py` beside the module that defines each."""
    if ids is None:
        load_all()
        ids = list(_SPECS)
    for id in ids:
        module = f"{get(id).module}_laws"
        if importlib.util.find_spec(module) is not None:
            importlib.import_module(module)


def all_specs():
    """Every Spec, ordered by family and then by id."""
    load_all()
    rank = {family: i for i, family in enumerate(FAMILIES)}
    return sorted(_SPECS.values(), key=lambda s: (rank.get(s.family, -1), s.id))
