"""`check`: somebody's function under the laws of an algorithm, the failing case shrunk to five lines."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import itertools
import math
import os
import sys
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from ref.conform.expect import LawBroken
from ref.conform.impl import Impl, Target, TooSlow, Widened, lacks_of, leaves
from ref.conform.runner import FEWEST, outcome_of, run_law, sample
from ref.spec import get, load_laws
from ref.spec.cases import Case

OURS = ("ref", "autodiff", "backends")
DEFAULT = ("float64", "float32")


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
                "error": _plain(f.outcome.broken.error if f.outcome.broken else f.outcome.worst_error),
                "bound": _plain(f.outcome.broken.bound if f.outcome.broken else f.outcome.bound),
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
        with quiet():
            module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
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


def quiet():
    """What a target prints goes to the error stream: the report alone is on the other."""
    return contextlib.redirect_stdout(sys.stderr)


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
    lift = getattr(spec.function, "lift", None)  # what one rank does, made a function of all ranks' arrays
    function = function if lift is None else lift(function)
    try:
        lacks = lacks_of(spec, function)
    except TypeError as error:
        raise BadTarget(f"target {path!r}: {error}") from error
    return Target(path, function, vjp if grads else None, grads and vjp is None, True, lacks)


def check(
    id, target, *, grads=False, where=None, examples=200, dtype=None, seed=None, limit=None, progress=lambda law: None
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
        Cases a law, in each dtype.
    dtype : str, optional
        The one float dtype to judge in. If not given, float64, and float32 as far as the function keeps to it.
    limit : float, optional
        The most seconds that one call may take; the first slower one ends the judgement.
    progress : callable
        Called with each law before it runs.

    Returns
    -------
    Report

    Raises
    ------
    UnknownId, BadTarget
    ValueError
        `where` names no field, or leaves no law a case.
    """
    spec = get(id)
    if not isinstance(target, Target):
        target = as_target(spec, target, grads=grads)
    target = target._replace(limit=limit)
    load_laws([id])
    outcomes, late = [], None
    for law in spec.laws.values():
        given = law.given.narrow(**where or {}).without(target.lacks)
        progress(law)
        if late is None:
            try:
                with quiet():
                    outcome = _judge(law, spec, target, dtype, given, examples, seed)
            except TooSlow as error:
                late = LawBroken(f"{error}; judged no further")
                outcome = skipped(law)._replace(verdict="failed", broken=late)
        else:
            outcome = skipped(law)
        outcomes.append((law, outcome, given))
    if all(o.verdict == "not_applicable" for _, o, _ in outcomes):
        raise ValueError(f"{id}: no law has a case that this function and these options allow; nothing was judged")
    with quiet():
        findings = _findings(spec, target, outcomes)
    broken = any(f.outcome.verdict == "failed" for f in findings)
    return Report(id, target.name, "broken" if broken else "conforms", tuple(findings), target.lacks)


def _judge(law, spec, target, dtype, given, examples, seed):
    """The law's outcome in the dtype, or in each of the default ones: the first that fails, else all in one."""
    total, judged = skipped(law), {}
    if given.impossible:
        return total
    # A small case shrinks faster. What is drawn for the first dtype serves the other, unless it must be shrunk there.
    spaces = ((given, max(examples // 4, FEWEST), []), (given.grow(), examples, []))
    dtypes = [d for d in (DEFAULT if dtype is None else (dtype,)) if d in law.dtypes]
    for each, (space, count, drawn) in itertools.product(dtypes, spaces):
        run = partial(run_law, law, spec, target, dtype=each, given=space, examples=count, seed=seed)
        found = run(cases=drawn) if drawn else run(shrink=True, keep=drawn)
        if dtype is None and isinstance(found.broken, Widened):  # it computes in float64 whatever arrives
            continue
        if found.verdict == "failed" and each != dtypes[0]:
            shrunk = run(shrink=True)
            found = shrunk if shrunk.verdict == "failed" else found
        if found.verdict == "failed" and found.case is None:  # no fault of the target: a narrowed space
            verdict = "passed" if found.examples >= FEWEST else "not_applicable"
            found = found._replace(verdict=verdict, broken=None)
        if found.verdict == "not_applicable":
            return total
        if found.verdict == "failed":
            return found._replace(examples=total.examples + found.examples)
        if found.verdict == "passed":
            worst = max((total, found), key=lambda o: o.worst_error / o.bound if o.bound else -1.0)
            judged[each] = None
            both = {"examples": total.examples + found.examples, "dtype": ", ".join(judged)}
            total = found._replace(worst_error=worst.worst_error, bound=worst.bound, **both)
    return total


def skipped(law):
    """The outcome of a law that was not tried."""
    return outcome_of(law, "numpy", "fused", law.dtypes[0], "not_applicable", None, 0.0)


def _findings(spec, target, outcomes):
    """Findings; a failing law whose mutants do what the target does carries that mutant's name."""
    failing = [(g, o.dtype) for _, o, g in outcomes if o.verdict == "failed" and o.case is not None]
    bug = _identify(spec, target, failing)
    found = []
    for law, outcome, _ in outcomes:
        named = bug if outcome.verdict == "failed" and bug in law.kills else None
        known = [named] if named else law.kills if outcome.verdict == "failed" else ()
        threads = [spec.mutants[n].thread for n in known if spec.mutants[n].thread]
        found.append(Finding(law, outcome, named, threads[0] if threads else None))
    return found


def _identify(spec, target, spaces, examples=30):
    """The mutant that agrees with the target on every sampled case of the (space, dtype), or None."""
    cases = [(c.astype(dtype), dtype) for given, dtype in spaces for c in sample(given, examples)]
    got = [_output(spec, target, *c) for c in cases]
    for mutant in spec.mutants.values():
        other = Target(mutant.name, mutant.function, differentiable=False)
        if cases and mutant.vjp is None and all(
            _alike(g, _output(spec, other, *c)) for g, c in zip(got, cases, strict=True)
        ):  # fmt: skip
            return mutant.name
    return None


def _output(spec, target, case, dtype):
    """The target's output leaves on a case, or None where it raises."""
    try:
        with np.errstate(all="ignore"):
            return [np.asarray(a) for a in leaves(Impl(spec, target, dtype=dtype, guarded=False)(case))]
    except (Exception, TooSlow):
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
        law.run(Impl(spec, target, dtype=case.dtype), case, Expect())


def five_lines(finding, path):
    """The failing case as five lines to paste."""
    case, broken = finding.outcome.case, finding.outcome.broken
    if case is None:
        return f"# {broken}"
    fields = ", ".join(f"{n}={_literal(case[n])}" for n in case._fields)
    return (
        f"import numpy as np{_imports(case)}\nfrom ref.conform.check import replay\n"
        f"case = dict({fields})\n"
        f'replay("{finding.law.id}", "{finding.law.label}", "{path}", **case)\n'
        f"# {str(broken or LawBroken('broken')).replace(chr(10), ' ')}"
    )


def _imports(case):
    """Import lines for the classes and rules that the case's literals name."""
    text = ""
    values = case._fields.values()
    classes = {type(v) for v in values if hasattr(v, "_fields") or type(v).__module__.startswith("backends.")}
    for cls in sorted(classes, key=lambda x: x.__name__):
        text += f"; from {cls.__module__} import {cls.__name__}"
    if any(name in repr(v) for v in case._fields.values() if hasattr(v, "tile") for name in ("causal", "window")):
        text += "; from ref.attention.rules import causal, window"
    return text


def _literal(value):
    if isinstance(value, np.ndarray):
        if value.size == 0:
            return f"np.zeros({value.shape}, {str(value.dtype)!r})"
        return f"np.array({_numbers(value.tolist())}, {str(value.dtype)!r})"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k!r}: {_literal(v)}" for k, v in value.items()) + "}"
    if hasattr(value, "_fields"):
        return f"{type(value).__name__}({', '.join(map(_literal, value))})"
    if isinstance(value, tuple | list):
        inner = "".join(f"{_literal(v)}, " for v in value)
        return f"({inner})" if isinstance(value, tuple) else f"[{inner}]"
    if isinstance(value, np.generic):
        value = value.item()
    return _numbers(value)


def _numbers(value):
    """repr, in which inf and nan can be read back."""
    if isinstance(value, list):
        return f"[{', '.join(map(_numbers, value))}]"
    return f"float({str(value)!r})" if isinstance(value, float) and not math.isfinite(value) else repr(value)


def _plain(value):
    """A case, or a part of one, as JSON: what JSON has no number for (NaN, infinities) and rules are strings."""
    if isinstance(value, Case):
        value = value.call_fields()
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if hasattr(value, "_asdict"):
        return _plain(value._asdict())
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, int | float | str | None) else repr(value)
