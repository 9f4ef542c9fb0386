"""How results are shown: rich tables for people, stable JSON for programs."""

from __future__ import annotations

import contextlib
import inspect
import sys

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.markup import escape
from rich.panel import Panel
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from ref.conform.check import five_lines


def spec_json(spec):
    """One entry of `list --json`."""
    killed_by = {name: [x.label for x in spec.laws.values() if name in x.kills] for name in spec.mutants}
    laws = [
        {
            "id": x.label,
            "statement": x.statement,
            "closed_form": x.closed_form,
            "needs": list(x.needs),
            "kills": list(x.kills),
            "passes_null": list(x.passes_null),
        }
        for x in spec.laws.values()
    ]
    return {
        "id": spec.id,
        "family": spec.family,
        "title": spec.title,
        "source": spec.source,
        "forms": list(spec.forms()),
        "backends": list(spec.backends),
        "laws": laws,
        "mutants": [
            {"name": m.name, "killed_by": killed_by[m.name], "thread": m.thread} for m in spec.mutants.values()
        ],
    }


def outcome_json(o):
    """One entry of `verify --json`."""
    keys = ("id", "law", "backend", "form", "dtype", "passed", "examples", "worst_error", "bound")
    return {**{k: getattr(o, k) for k in keys}, "seconds": round(o.seconds, 4)}


def spec_table(specs):
    """The table of `list`."""
    table = Table(title=f"{len(specs)} algorithms")
    table.add_column("id", no_wrap=True)
    table.add_column("title")
    table.add_column("fused")
    for name in ("laws", "mutants"):
        table.add_column(name, justify="right", no_wrap=True)
    for s in specs:
        fused = ", ".join(b for b in s.backends if "fused" in s.forms(b))
        table.add_row(s.id, s.title, fused, str(len(s.laws)), str(len(s.mutants)))
    return table


def show(spec):
    """Everything there is to read about one algorithm."""
    module = sys.modules[spec.module]
    head = Text(inspect.getdoc(module) or "")
    doc = Text(inspect.getdoc(spec.function) or "")
    laws = Table(title="Laws", show_lines=False)
    for name in ("", "law", "statement", "kills"):
        laws.add_column(name)
    for x in spec.laws.values():
        marks = " (closed form)" if x.closed_form else ""
        laws.add_row(x.label, escape(x.name), escape(x.statement + marks), ", ".join(x.kills))
    mutants = Table(title="Mutants: wrong implementations that the laws catch")
    for name in ("mutant", "the edit", "thread"):
        mutants.add_column(name)
    for m in spec.mutants.values():
        mutants.add_row(m.name, escape(inspect.getdoc(m.function) or ""), m.thread or "")
    call = f"{spec.function.__name__}{inspect.signature(spec.function)}"
    return Group(Panel(head, title=spec.id), Panel(doc, title=escape(call)), laws, mutants)


def verify_table(rows, backend):
    """The table of `verify`: one line an algorithm."""
    table = Table(title=f"laws on {backend}", box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("algorithm", overflow="fold")
    for name in ("laws", "cases", "killed", "error/bound", "s"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for r in rows:
        mark = "[green]holds[/]" if r.holds else "[red]broken[/]"
        error = "bitwise" if r.bound is None else f"{r.worst_error:.0e}/{r.bound:.0e}"
        killed = f"{r.killed}/{r.mutants}"
        table.add_row(
            r.id, f"{r.laws} x {len(r.forms)}", str(r.cases), killed, error, f"{r.seconds:.1f}", mark
        )
    return table


def check_report(report):
    """The report of `check`: a table of laws, then the failing case that says most."""
    table = Table(title=f"{report.target} as {report.id}")
    for name in ("", "law", "verdict"):
        table.add_column(name, overflow="fold")
    for name in ("cases", "error", "bound"):
        table.add_column(name, justify="right", no_wrap=True)
    colour = {"passed": "green", "failed": "bold red", "not_applicable": "dim"}
    for f in report.findings:
        o, seen = f.outcome, f.outcome.broken
        error, bound = (seen.error, seen.bound) if seen else (o.worst_error, o.bound)
        cells = ("" if x is None else f"{x:.1e}" for x in (error, bound))
        verdict = o.verdict.replace("not_applicable", "not tried")
        table.add_row(f.law.label, f.law.name, f"[{colour[o.verdict]}]{verdict}[/]", str(o.examples), *cells)
    parts = [table]
    failed = [f for f in report.findings if f.outcome.verdict == "failed"]
    if failed:
        best = max(failed, key=lambda f: (f.bug is not None, f.bug in f.law.kills))
        parts.append(_failure(best, report.target))
    else:
        judged = [f for f in report.findings if f.outcome.verdict == "passed"]
        cases = sum(f.outcome.examples for f in judged)
        parts.append(Text(f"conforms: {cases} cases under {len(judged)} laws", style="green"))
    dtypes = sorted({d for f in report.findings if f.outcome.examples for d in f.outcome.dtype.split(", ")})
    parts.append(Text(f"judged in {', '.join(dtypes)}", style="dim"))
    if report.lacks:
        parts.append(Text(f"not taken by the target, so left at its default: {', '.join(report.lacks)}", style="dim"))
    return Group(*parts)


def _failure(f, path):
    lines = [f"[bold red]{f.law.label} {f.law.name}[/] ({f.outcome.dtype}): {escape(f.law.statement)}"]
    lines.append(escape(str(f.outcome.broken)))
    if f.bug:
        lines.append(f"It does what the known bug [bold]{f.bug}[/] does, on every case tried.")
    if f.thread:
        lines.append(f"{'The same bug' if f.bug else 'A bug of this kind'}: {f.thread}")
    return Group(*lines, Panel(Text(five_lines(f, path)), title="the smallest failing case; paste to replay"))


@contextlib.contextmanager
def progress(console):
    """A spinner that names what runs; yields a function of a law. Silent without a console."""
    if console is None:
        yield lambda law: None
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    bar = Progress(*columns, console=console, transient=True)
    task = bar.add_task("", total=None)

    def tick(law):
        bar.start()  # with the first law, so that a usage error stays one line
        bar.update(task, description=f"{law.label} {law.name}")

    try:
        yield tick
    finally:
        if bar.live.is_started:
            bar.stop()
