"""`closedform checkpoints`, `precision` and `memory`: what training takes, before it is run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

out, err = Console(), Console(stderr=True)
Picture = Annotated[Path | None, typer.Option(help="Draw it into this PNG.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print stable JSON instead of a table.")]


def register(app):
    """Add the commands to a typer app."""
    app.command()(checkpoints)
    app.command()(precision)


def _usage(message):
    err.print(f"closedform: {message}", markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(2)


def _folder_of(picture):
    if picture is not None and not picture.parent.is_dir():
        _usage(f"--picture {picture}: no folder {picture.parent}")


def checkpoints(
    layers: Annotated[int, typer.Option(min=1, help="Length of the chain.")] = 24,
    picture: Picture = None,
    as_json: AsJson = False,
):
    """Every checkpointing policy on one chain: memory and recomputation, measured and in closed form."""
    from ref.demo import checkpointing

    _folder_of(picture)
    snapshots = sorted({s for s in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, layers - 1) if 1 <= s < max(layers, 2)})
    rows, plain = [], None
    for name, policy in checkpointing.policies(layers, snapshots).items():
        found = checkpointing.measure(policy, layers)
        plain = plain or found.gradients
        same = all(np.array_equal(a, b) for a, b in zip(found.gradients, plain, strict=True))
        rows.append(
            {"policy": name, "units": found.units, "units_formula": policy.units, "again": found.again,
             "again_formula": policy.again, "offloaded": found.offloaded, "same_bits": same}
        )  # fmt: skip
    if picture is not None:
        points = {r["policy"]: (r["units"], r["again"]) for r in rows}
        checkpointing.picture(picture, layers, points, range(1, max(layers, 2)))
    if as_json:
        print(json.dumps(rows, indent=1))
    else:
        out.print(_checkpoint_table(rows))
    if not all(r["same_bits"] and r["units"] == r["units_formula"] and r["again"] == r["again_formula"] for r in rows):
        raise typer.Exit(1)


def _checkpoint_table(rows):
    table = Table(box=SIMPLE_HEAD)
    table.add_column("policy")
    for head in ("units", "formula", "runs again", "formula", "to a file", "bits"):
        table.add_column(head, justify="right")
    for r in rows:
        numbers = (r["units"], r["units_formula"], r["again"], r["again_formula"], r["offloaded"])
        table.add_row(r["policy"], *(f"{x:g}" for x in numbers), "same" if r["same_bits"] else "[red]other[/]")
    return table


def precision(
    steps: Annotated[int, typer.Option(min=1, help="Steps of gradient descent.")] = 1500,
    picture: Picture = None,
    as_json: AsJson = False,
):
    """Least squares in bfloat16: where pure bfloat16 stalls, and masters or random rounding do not."""
    from ref.demo import precision as runs

    _folder_of(picture)
    found = {kind: runs.train(kind, steps) for kind in runs.KINDS}
    if picture is not None:
        runs.picture(picture, {kind: run.losses for kind, run in found.items()})
    if as_json:
        rows = [{"kept": k, "first": r.losses[0], "last": r.losses[-1], "still": r.still} for k, r in found.items()]
        print(json.dumps(rows, indent=1))
        return
    table = Table("weights kept in", box=SIMPLE_HEAD)
    for head in ("first loss", "last loss", "steps without a change"):
        table.add_column(head, justify="right")
    for kind, run in found.items():
        table.add_row(kind, f"{run.losses[0]:.3g}", f"{run.losses[-1]:.3g}", str(run.still))
    out.print(table)
