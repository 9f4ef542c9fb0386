"""`check`: somebody's function under the laws of an algorithm, the failing case shrunk to five lines."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from typing import Any, NamedTuple

import numpy as np

from ref.conform.expect import LawBroken
from ref.conform.impl import Impl, Target, accepts, leaves
from ref.conform.runner import FEWEST, run_law, sample
from ref.spec import get, load_laws
from ref.spec.cases import Case

OURS = ("ref", "autodiff", "backends")


class BadTarget(Exception):
    """The target cannot be loaded; the message is one line."""


class Finding(NamedTuple):
    """One law's verdict on a target; `bug` is the mutant that fails the same way, `thread` its thread."""

    law: Any
    outcome: Any
    bug: str | None
    thread: str | None


class Report(NamedTuple):
    """What `check` found: verdict "conforms" or "broken", the findings, the options the target lacks."""

    id: str
    target: str
    verdict: str
    findings: tuple
    lacks: tuple

    def as_json(self):
        """The stable JSON form: {id, target, verdict, laws: [...]}."""
        return {"id": self.id, "target": self.target, "verdict": self.verdict, "laws": [
            {
                "law": f.law.label,
                "verdict": f.outcome.verdict,
                "case": _plain(f.outcome.case),
                "error": f.outcome.broken.error if f.outcome.broken else f.outcome.worst_error,
                "bound": f.outcome.broken.bound if f.outcome.broken else f.outcome.bound,
                "thread": f.thread,
            }
            for f in self.findings
        ]}  # fmt: skip


def load_target(path):
    """The function at `module:function`, our own packages first and the working folder last on the path.

    Raises
    ------
    BadTarget
        Malformed path, no such module or function (with the nearest name), or the module's import failed.
    """
    module_name, colon, name = path.partition(":")
    if not colon or not module_name or not name:
        raise BadTarget(f"target {path!r}: needed module:function")
    top = module_name.split(".")[0]
    if top in OURS and os.path.isdir(top) and not os.path.samefile(top, _folder(top)):
        raise BadTarget(_clash(top))
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        top = str(getattr(error, "name", "") or "").split(".")[0]
        if top in OURS:
            raise BadTarget(_clash(top)) from error
        raise BadTarget(f"target {path!r}: importing {module_name} failed: {error!r}") from error
    function = module
    for part in name.split("."):
        if not hasattr(function, part):
            near = difflib.get_close_matches(name, [n for n in dir(module) if callable(getattr(module, n))], 1, 0.0)
            hint = f"; the nearest name is {near[0]!r}" if near else ""
            raise BadTarget(f"target {path!r}: {module_name} has no {name!r}{hint}")
        function = getattr(function, part)
    if not callable(function):
        raise BadTarget(f"target {path!r}: {name} is a {type(function).__name__}, not a function")
    return module, function


def _folder(package):
    """Where our own package of that name lies."""
    return os.path.dirname(importlib.import_module(package).__file__)


def _clash(package):
    return (
        f"the target has a package {package!r} of its own, which closedform's hides; expose the function from a "
        f"module that runs it in a process of its own (subprocess with .npy files)"
    )


def as_target(spec, path, *, grads=False):
    """A Target for a foreign function.

    Gradients are judged if `grads`: by `<function>_vjp(g, *args, **options)` beside it (or its attribute
    `vjp`), a dict by name or a tuple in the order of the spec's gradient arguments; else by giving the
    function `autodiff` Tensors.
    """
    module, function = load_target(path)
    vjp = getattr(function, "vjp", None) or getattr(module, f"{path.partition(':')[2]}_vjp", None)
    lacks = tuple(n for n in spec.parameters[1] if not accepts(function, n))
    return Target(path, function, vjp if grads else None, grads and vjp is None, True, lacks)


def check(
    id, target, *, grads=False, where=None, examples=200, dtype="float64", seed=None, progress=lambda law: None
):
    """Judge a function by every law of algorithm `id`.

    Parameters
    ----------
    id : str
    target : str or Target
        `module:function`, or what `as_target` made of one.
    grads : bool
        Judge its gradients too.
    where : dict, optional
        Fields of the input space to fix, for a function that takes less than the whole of it: {"R": 1} gives
        attention no grouped heads. A law without such cases is not tried.
    examples : int
        Cases a law.
    progress : callable
        Called with each law before it runs.

    Returns
    -------
    Report

    Raises
    ------
    UnknownId, BadTarget
    ValueError
        `where` names no field.
    """
    spec = get(id)
    if not isinstance(target, Target):
        target = as_target(spec, target, grads=grads)
    path = target.name
    load_laws([id])
    outcomes, spaces = [], []
    for law in spec.laws.values():
        given = law.given.narrow(**where or {}).without(target.lacks).grow()
        progress(law)
        outcome = run_law(
            law, spec, target, dtype=dtype, examples=examples, shrink=True, seed=seed, given=given
        )
        if outcome.verdict == "failed" and outcome.case is None:  # no fault of the target: a narrowed space
            verdict = "passed" if outcome.examples >= FEWEST else "not_applicable"
            outcome = outcome._replace(verdict=verdict, broken=None)
        outcomes.append((law, outcome))
        spaces.append(given)
    findings = _findings(spec, target, outcomes, spaces, dtype)
    broken = any(f.outcome.verdict == "failed" for f in findings)
    return Report(id, path, "broken" if broken else "conforms", tuple(findings), target.lacks)


def _findings(spec, target, outcomes, spaces, dtype):
    """Findings; a failing law whose mutants do what the target does carries that mutant's name."""
    failing = [g for g, (_, o) in zip(spaces, outcomes, strict=True) if o.verdict == "failed"]
    bug = _identify(spec, target, failing, dtype)
    found = []
    for law, outcome in outcomes:
        named = bug if outcome.verdict == "failed" and bug in law.kills else None
        known = [named] if named else law.kills if outcome.verdict == "failed" else ()
        threads = [spec.mutants[n].thread for n in known if spec.mutants[n].thread]
        found.append(Finding(law, outcome, named, threads[0] if threads else None))
    return found


def _identify(spec, target, spaces, dtype, examples=30):
    """The mutant that agrees with the target on every sampled case of the spaces, or None."""
    cases = [c.astype(dtype) for given in spaces for c in sample(given, examples)]
    got = [_output(spec, target, c, dtype) for c in cases]
    for mutant in spec.mutants.values():
        other = Target(mutant.name, mutant.function, differentiable=False)
        if cases and mutant.vjp is None and all(
            _alike(g, _output(spec, other, c, dtype)) for g, c in zip(got, cases, strict=True)
        ):  # fmt: skip
            return mutant.name
    return None


def _output(spec, target, case, dtype):
    """The target's output leaves on a case, or None where it raises."""
    try:
        with np.errstate(all="ignore"):
            return [np.asarray(a) for a in leaves(Impl(spec, target, dtype=dtype, guarded=False)(case))]
    except Exception:
        return None


def _alike(a, b):
    if a is None or b is None:
        return a is b
    return len(a) == len(b) and all(x.shape == y.shape and _near(x, y) for x, y in zip(a, b, strict=True))


def _near(x, y):
    if "U" in (x.dtype.kind, y.dtype.kind):  # words, as the actions of a schedule
        return bool(np.all(x == y))
    return np.allclose(x, y, rtol=1e-6, atol=1e-9, equal_nan=True)


def replay(id, label, path, **fields):
    """Run one law on one case, as a report's five lines do; returns None or raises LawBroken."""
    from ref.conform.expect import Expect

    spec = get(id)
    load_laws([id])
    law, case = spec.laws[label], Case(spec, fields)
    target = as_target(spec, path, grads="vjp" in law.needs)
    with np.errstate(all="ignore"):
        law.run(Impl(spec, target, dtype=case.dtype), case.astype(case.dtype), Expect())


def five_lines(finding, path):
    """The failing case as five lines to paste."""
    case, broken = finding.outcome.case, finding.outcome.broken
    fields = ", ".join(f"{n}={_literal(case[n])}" for n in case._fields)
    rules = "from ref.attention.rules import causal, window\n" if "causal(" in fields or "window(" in fields else ""
    return (
        f"import numpy as np\n{rules}from ref.conform.check import replay\n"
        f"case = dict({fields})\n"
        f'replay("{finding.law.id}", "{finding.law.label}", "{path}", **case)\n'
        f"# {broken or LawBroken('broken')}"
    )


def _literal(value):
    if isinstance(value, np.ndarray):
        if value.size == 0:
            return f"np.zeros({value.shape}, {str(value.dtype)!r})"
        return f"np.array({value.tolist()!r}, {str(value.dtype)!r})"
    return repr(value)


def _plain(case):
    if case is None:
        return None
    return {n: v.tolist() if isinstance(v, np.ndarray) else v if isinstance(v, int | float | str | None) else repr(v)
            for n, v in case.call_fields().items()}  # fmt: skip
