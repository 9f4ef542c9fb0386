"""A verification, one row an algorithm: laws, mutants killed, the comparison nearest to its bound."""

from __future__ import annotations

from typing import NamedTuple

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ref.conform.impl import own
from ref.conform.matrix import draw, kills, named_pairs, plan
from ref.conform.runner import run_law


class Row(NamedTuple):
    """One algorithm's verification; `survivors` are mutants that a law names and did not kill."""

    id: str
    forms: tuple
    laws: int
    cases: int
    mutants: int
    killed: int
    survivors: tuple
    worst_error: float | None
    bound: float | None
    seconds: float
    holds: bool


def run_summary(specs, *, backend="numpy", form=None, examples=25, console=None, reach=True):
    """Run all rows of `plan` and the named kills; returns (rows, outcomes).

    A law's cases are drawn once for every form, dtype and mutant. With `reach` off, a short run need not meet every
    edge class.
    """
    todo = list(plan(specs, backend=backend, form=form))
    outcomes, rows = [], []
    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        console=console, transient=True, disable=console is None,
    ) as bar:  # fmt: skip
        task = bar.add_task("laws", total=len(todo))
        for spec in specs:
            mine = [row for row in todo if row[0] is spec]
            if not mine:
                continue
            found, drawn = [], draw(spec, examples)
            for _, law, each_form, dtype in mine:
                bar.update(task, description=f"{spec.id} {law.label}")
                given = law.given if reach else law.given.unreached()
                setup = {"backend": backend, "form": each_form, "dtype": dtype, "examples": examples}
                found.append(run_law(law, spec, own(spec), given=given, cases=drawn[law.label], **setup))
                bar.advance(task)
            rows.append(_row(spec, found, drawn))
            outcomes += found
    return rows, outcomes


def _row(spec, outcomes, drawn):
    killed, survivors = set(), []
    for law, mutant in named_pairs(spec):
        if kills(spec, law, mutant, cases=drawn[law.label]) or kills(spec, law, mutant):
            killed.add(mutant.name)
        else:
            survivors.append(f"{spec.id} {mutant.name} ({law.label})")
    bounded = [o for o in outcomes if o.bound]
    worst = max(bounded, key=lambda o: o.worst_error / o.bound, default=None)
    return Row(
        spec.id, tuple(dict.fromkeys(o.form for o in outcomes)), len({o.law for o in outcomes}),
        sum(o.examples for o in outcomes), len(spec.mutants), len(killed), tuple(survivors),
        worst and worst.worst_error, worst and worst.bound, sum(o.seconds for o in outcomes),
        not survivors and all(o.passed for o in outcomes),
    )  # fmt: skip
