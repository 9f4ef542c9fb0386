"""The commands: list, show, verify, check; demo and train are in `ref.demo`.

Exit status: 0 only if all passed, 1 if a law is broken, 2 on usage (a bad id or path: one line).
"""

from __future__ import annotations

import ast
import json
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from ref.cli import budget, collectives, tables
from ref.demo import commands, density_command, diffusion_command, train_rl
from ref.spec import UnknownId, all_specs, get, load_laws

app = typer.Typer(
    help="Modern deep-learning algorithms, their laws, and a judge for your own implementation.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
commands.register(app)
budget.register(app)
collectives.register(app)
density_command.register(app)
diffusion_command.register(app)
train_rl.register(app)
out, err = Console(), Console(stderr=True)

FULL = 25
AsJson = Annotated[bool, typer.Option("--json", help="Print stable JSON instead of tables.")]
Backend = Annotated[str, typer.Option(help="numpy, strict or cupy.")]


def usage(message):
    """Leave with status 2 and one line."""
    err.print(f"closedform: {message}", markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(2)


def find(id):
    """The Spec of an id, or one line with the nearest id and status 2."""
    try:
        return get(id)
    except UnknownId as error:
        usage(error)


def parse_where(pairs):
    """{field: value} of texts like `R=1`; values are Python literals."""
    fields = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        try:
            fields[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            usage(f"--where {pair!r}; needed FIELD=VALUE with a literal value, as in R=1")
    return fields


@app.command("list")
def list_(as_json: AsJson = False):
    """Every algorithm with its laws and mutants."""
    specs = all_specs()
    load_laws()
    if as_json:
        print(json.dumps([tables.spec_json(s) for s in specs], indent=1))
    else:
        out.print(tables.spec_table(specs))


@app.command()
def show(id: str):
    """The equations, conventions, laws and mutants of one algorithm."""
    spec = find(id)
    load_laws([id])
    out.print(tables.show(spec))


@app.command()
def verify(
    ids: Annotated[list[str] | None, typer.Argument(help="Algorithms; all if none is named.")] = None,
    backend: Backend = "numpy",
    form: Annotated[str | None, typer.Option(help="composite, fused or compiled; all if not given.")] = None,
    examples: Annotated[
        int, typer.Option(min=5, help=f"Cases a law; under {FULL} a run need not meet every edge class.")
    ] = FULL,
    as_json: AsJson = False,
):
    """Run every law of every algorithm on a backend, and every mutant under the laws that name it."""
    from ref.conform.summary import run_summary

    if form not in (None, "composite", "fused", "compiled"):
        usage(f"form {form!r}; needed composite, fused or compiled")
    specs = [find(i) for i in ids] if ids else all_specs()
    try:
        rows, outcomes = run_summary(
            specs, backend=backend, form=form, examples=examples, reach=examples >= FULL,
            console=None if as_json else err,
        )  # fmt: skip
    except (RuntimeError, ValueError) as error:
        usage(error)
    if as_json:
        print(json.dumps([tables.outcome_json(o) for o in outcomes], indent=1))
    else:
        out.print(tables.verify_table(rows, backend))
        for outcome in (o for o in outcomes if not o.passed):
            out.print(f"[red]broken[/] {outcome.id} {outcome.law} {outcome.name} "
                      f"({outcome.form}, {outcome.dtype}): {escape(str(outcome.broken))}")  # fmt: skip
    survivors = [name for row in rows for name in row.survivors]
    if survivors and not as_json:
        out.print(f"[red]mutants that survived the law that names them:[/] {', '.join(survivors)}")
    if not outcomes:
        usage(f"nothing to verify: no named algorithm is declared for backend {backend!r} in that form")
    if survivors or not all(o.passed for o in outcomes):
        raise typer.Exit(1)


@app.command()
def check(
    id: str,
    target: Annotated[str, typer.Argument(help="module:function, importable from here.")],
    grads: Annotated[bool, typer.Option("--grads", help="Judge its gradients too.")] = False,
    examples: Annotated[int, typer.Option(min=5, help="Cases a law.")] = 200,
    dtype: Annotated[
        str | None, typer.Option(help="float64, float32 or float16 alone; float64 and float32 if not given.")
    ] = None,
    limit: Annotated[float, typer.Option(min=0, help="The most seconds a call may take; 0 is no limit.")] = 60.0,
    where: Annotated[
        list[str] | None, typer.Option(help="Fix a field of the input space, as in R=1 (no grouped heads).")
    ] = None,
    as_json: AsJson = False,
):
    """Judge your own function by the laws of an algorithm."""
    from ref.conform.check import BadTarget, as_target
    from ref.conform.check import check as run_check

    if dtype not in (None, "float64", "float32", "float16"):
        usage(f"dtype {dtype!r}; needed float64, float32 or float16")
    spec = find(id)
    try:
        target = as_target(spec, target, grads=grads)
        with tables.progress(err if not as_json else None) as tick:
            report = run_check(
                id, target, grads=grads, where=parse_where(where or []), examples=examples, dtype=dtype, limit=limit,
                progress=tick,
            )  # fmt: skip
    except (BadTarget, ValueError) as error:
        usage(error)
    if as_json:
        print(json.dumps(report.as_json(), indent=1, allow_nan=False))
    else:
        out.print(tables.check_report(report))
    if report.verdict != "conforms":
        raise typer.Exit(1)
