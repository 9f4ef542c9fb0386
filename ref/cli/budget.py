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
GB = 1e9
Picture = Annotated[Path | None, typer.Option(help="Draw it into this PNG.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print stable JSON instead of a table.")]


def register(app):
    """Add the commands to a typer app."""
    app.command()(checkpoints)
    app.command()(precision)
    app.command()(memory)


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


def memory(
    config: Annotated[Path, typer.Argument(help="config.json of a LLaMA-style model, Hugging Face's names.")],
    batch: Annotated[int, typer.Option(help="Sequences on a rank.")] = 1,
    seq: Annotated[int, typer.Option(help="Tokens of a sequence.")] = 2048,
    precision: Annotated[str, typer.Option(help="fp32, bf16 or fp16 (the latter two with float32 masters).")] = "bf16",
    checkpoint: Annotated[str, typer.Option(help="none, layers, segments:K or revolve:S.")] = "none",
    zero: Annotated[int, typer.Option(help="Stage of ZeRO, 0 to 3.")] = 0,
    tp: Annotated[int, typer.Option(help="Tensor-parallel ranks.")] = 1,
    ranks: Annotated[int, typer.Option(help="Data-parallel ranks.")] = 1,
    gpu: Annotated[float | None, typer.Option(help="Memory of a GPU in GB (1e9 bytes).")] = None,
    as_json: AsJson = False,
):
    """Bytes that training takes on one rank, by formula: parameters, states, activations; and what fits a GPU."""
    from ref.models.llama_memory import from_hugging_face, llama_memory

    fields = _read_json(config)
    options = {"precision": precision, "zero": zero, "tp": tp, "ranks": ranks}
    try:
        model = from_hugging_face(fields)
        found = llama_memory(model, batch, seq, checkpoint=checkpoint, **options)
        fitting = None if gpu is None else _fitting(model, batch, seq, options, gpu)
    except ValueError as error:
        _usage(error)
    if as_json:
        row = {**found._asdict(), "states": found.states, "total": found.total}
        more = {} if gpu is None else {"fits": found.total <= gpu * GB, "fitting": fitting}
        print(json.dumps({**row, **more}, indent=1))
        return
    out.print(_memory_table(found))
    if gpu is not None:
        verdict = "[green]fits[/]" if found.total <= gpu * GB else "[red]does not fit[/]"
        out.print(f"{found.total / GB:.1f} GB {verdict} {gpu:g} GB, without temporaries and buffers")
        out.print(_fitting_table(fitting))


def _read_json(path):
    try:
        fields = json.loads(path.read_text())
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        _usage(f"{path}: {error}")
    if not isinstance(fields, dict):
        _usage(f"{path}: a JSON object is needed, got {type(fields).__name__}")
    return fields


def _fitting(model, batch, seq, options, gpu):
    """Which checkpoint policies and stages of ZeRO fit, all else as given: rows of (checkpoint, zero, GB, fits)."""
    from ref.models.llama_memory import llama_memory

    if not gpu > 0:
        raise ValueError(f"memory: --gpu {gpu:g}; needed more than 0 GB")
    root = max(1, round(model.layers**0.5))
    rows = []
    for checkpoint in ("none", f"segments:{root}", "layers", "revolve:2"):
        for zero in (0, 1, 2, 3) if options["ranks"] > 1 else (options["zero"],):
            total = llama_memory(model, batch, seq, checkpoint=checkpoint, **{**options, "zero": zero}).total
            rows.append({"checkpoint": checkpoint, "zero": zero, "total": total, "fits": total <= gpu * GB})
    return rows


def _memory_table(found):
    table = Table("on one rank", box=SIMPLE_HEAD)
    table.add_column("bytes", justify="right")
    table.add_column("GB", justify="right")
    for name in ("weights", "gradients", "optimizer", "states", "activations", "total"):
        n = getattr(found, name)
        table.add_row(name, f"{n:,}", f"{n / GB:,.1f}", style="bold" if name in ("states", "total") else None)
    table.caption = f"{found.parameters:,} parameters"
    return table


def _fitting_table(rows):
    table = Table("checkpoint", box=SIMPLE_HEAD)
    for stage in sorted({r["zero"] for r in rows}):
        table.add_column(f"ZeRO {stage}, GB", justify="right")
    for name in dict.fromkeys(r["checkpoint"] for r in rows):
        mine = [r for r in rows if r["checkpoint"] == name]
        table.add_row(name, *(f"{r['total'] / GB:,.1f}{'' if r['fits'] else ' !'}" for r in mine))
    table.caption = "! does not fit"
    return table
