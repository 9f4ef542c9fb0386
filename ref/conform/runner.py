"""Runs one law on one implementation and says what happened."""

from __future__ import annotations

import contextlib
import time
import zlib
from typing import Any, NamedTuple

import hypothesis
import numpy as np
from hypothesis import HealthCheck, Phase, settings
from hypothesis.errors import Flaky, Unsatisfiable, UnsatisfiedAssumption
from hypothesis.internal.conjecture import providers

from ref.conform.expect import Expect, LawBroken
from ref.conform.impl import Impl, NotOffered

FEWEST = 5  # a run that judged fewer cases than this judged nothing

# Numbers mined from the source files would make a run depend on unrelated code.
if hasattr(providers, "_get_local_constants"):
    _NO_CONSTANTS = providers.Constants()
    providers._get_local_constants = lambda: _NO_CONSTANTS


class Outcome(NamedTuple):
    """One law on one implementation.

    `verdict` is "passed", "failed" or "not_applicable"; `worst_error` and `bound` are of the comparison that
    came nearest to its bound (None where the law is bitwise); `case` is the failing case, `broken` why.
    """

    id: str
    law: str
    name: str
    backend: str
    form: str
    dtype: str
    verdict: str
    examples: int
    worst_error: float | None
    bound: float | None
    seconds: float
    case: Any = None
    broken: LawBroken | None = None

    @property
    def passed(self):
        return self.verdict != "failed"


class _Failed(Exception):
    pass


class _Run:
    """The state of a run: cases judged, edges met, the worst comparison, the last failure."""

    def __init__(self, law, spec, target, backend, form, dtype, guarded):
        self.law, self.spec, self.target = law, spec, target
        self.setup = {"backend": backend, "form": form, "dtype": dtype, "guarded": guarded}
        self.examples, self.reached, self.failure = 0, set(), None
        self.ratio, self.error, self.bound = -1.0, None, None

    def judge(self, case):
        case = case.astype(self.setup["dtype"])
        impl, expect = Impl(self.spec, self.target, **self.setup), Expect()
        try:
            with np.errstate(all="ignore"):
                self.law.run(impl, case, expect)
            if not expect.made:
                raise LawBroken("the law compared nothing on this case")
        except LawBroken as broken:
            self.failure = (case, broken)
        self.examples += 1
        self.reached.update(self.law.given.reached(case))
        if expect.worst_error is not None and expect._worst_ratio > self.ratio:
            self.ratio, self.error, self.bound = expect._worst_ratio, expect.worst_error, expect.bound
        return self.failure is None


def run_law(
    law,
    spec,
    target,
    *,
    backend="numpy",
    form="fused",
    dtype="float64",
    examples=25,
    shrink=False,
    seed=None,
    guarded=True,
    given=None,
    cases=None,
    keep=None,
):
    """Judge `target` by `law`.

    Parameters
    ----------
    law, spec, target : Law, Spec, Target
    backend, form, dtype : str
        What arrays the target is given, which form of our own functions runs, float dtype of the case.
    examples : int
        Cases to judge; edge classes the law declares take their share.
    shrink : bool
        Reduce a failing case to a smallest one (else the first found is reported).
    seed : int, optional
        Else derived from the law's id and label, so that every run is the same.
    given : Cases, optional
        A narrower input space than the law's own.
    cases : list of Case, optional
        Judge copies of these, drawn before, and draw none: many targets then share one drawing.
    keep : list, optional
        The cases that are drawn and judged are put into it, as they were before.

    Returns
    -------
    Outcome
    """
    if not all(target.offers(need) for need in law.needs):
        return outcome_of(law, backend, form, dtype, "not_applicable", None, 0.0)
    started, setup = time.perf_counter(), (law, spec, target, backend, form, dtype, guarded)
    run, verdict = _Run(*setup), None
    if cases:
        examples, verdict = len(cases), _go_through(run, cases)
    if verdict is None:
        run = _Run(*setup)
        verdict = _search(run, given or law.given, examples, shrink, seed, keep)
    if verdict == "passed":
        verdict = _seek_missed(run, given or law.given, shrink, seed, keep)
    if verdict == "passed":
        verdict = _check_coverage(run, given or law.given, examples)
    return outcome_of(law, backend, form, dtype, verdict, run, time.perf_counter() - started)


def seed_of(law):
    """The seed of a law's runs, so that every run is the same."""
    return zlib.crc32(f"{law.id} {law.label}".encode())


def _go_through(run, cases):
    """The verdict over copies of `cases`; None if one of them says nothing of this target: others must be drawn."""
    try:
        return "passed" if all(run.judge(case.copy()) for case in cases) else "failed"
    except NotOffered:
        return "not_applicable"
    except UnsatisfiedAssumption:
        return None


def _search(run, given, examples, shrink, seed, keep):
    phases = (Phase.generate, Phase.shrink) if shrink else (Phase.generate,)
    if seed is None:
        seed = seed_of(run.law)

    failures = []

    @hypothesis.seed(seed)
    @settings(
        max_examples=examples,
        phases=phases,
        database=None,
        deadline=None,
        report_multiple_bugs=False,
        print_blob=False,
        suppress_health_check=list(HealthCheck),
    )
    @hypothesis.given(given.strategy())
    def body(case):
        run.failure = None
        before = None if keep is None else case.copy()
        good = run.judge(case)
        if keep is not None:
            keep.append(before)
        if not good:
            failures.append(run.failure)
            raise _Failed

    try:
        body()
    except _Failed:
        return "failed"
    except Flaky:  # it failed, and not when called again: the target has a state
        run.failure = failures[-1]
        return "failed"
    except NotOffered:
        return "not_applicable"
    except Unsatisfiable:
        run.failure = (None, LawBroken("no case satisfies the law's premises"))
        return "failed"
    return "passed"


def sample(given, examples, seed=0):
    """A list of cases of an input space; fewer where its premises are rarely met, [] if never."""
    found = []

    @hypothesis.seed(seed)
    @settings(max_examples=examples, phases=(Phase.generate,), database=None, deadline=None,
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @hypothesis.given(given.strategy())
    def collect(case):
        found.append(case)

    with contextlib.suppress(Unsatisfiable):
        collect()
    return found


def _seek_missed(run, given, shrink, seed, keep):
    """Hypothesis may not have tried an edge class's branch in so few cases: draw some from that branch alone.

    A space that was narrowed may hold no such case, which hundreds of rejected draws would only confirm.
    """
    if given.demanded:
        return "passed"
    for edge in given.edges:
        if edge not in run.reached:
            verdict = _search(run, given.where(**{edge: True}).unreached(), FEWEST, shrink, seed, keep)
            if verdict == "failed" and run.failure[0] is not None:
                return verdict
    return "passed"


def _check_coverage(run, given, examples):
    missed = [e for e in given.edges if e not in run.reached]
    if run.examples < min(FEWEST, examples):
        run.failure = (None, LawBroken(f"only {run.examples} cases were judged; the rest was rejected"))
    elif missed:
        run.failure = (None, LawBroken(f"edge classes never reached: {', '.join(missed)}"))
    else:
        return "passed"
    return "failed"


def outcome_of(law, backend, form, dtype, verdict, run, seconds):
    """The Outcome of a run (None: there was none)."""
    case, broken = run.failure if run and run.failure and verdict == "failed" else (None, None)
    return Outcome(
        law.id, law.label, law.name, backend, form, str(dtype), verdict,
        run.examples if run else 0, run.error if run else None, run.bound if run else None,
        seconds, case, broken,
    )  # fmt: skip
