"""`closedform demo` and `closedform train`: the main job before the user's eyes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

console = Console()
Folder = Annotated[Path, typer.Option(help="Where the checkpoint and the loss curve go.")]


def register(app):
    """Add both commands to a typer app."""
    app.command()(demo)
    app.command()(train)


def demo(
    out: Folder = Path("runs/demo"),
    steps: Annotated[int, typer.Option(min=1, help="Training steps of the language model.")] = 1300,
):
    """A wrong function caught by name, every law run, a language model trained: under 6 minutes."""
    started = time.perf_counter()
    console.rule("1  a wrong attention function: the softcap after the mask")
    caught = _catch()
    console.rule("2  every law of every algorithm")
    held = _verify()
    console.rule("3  a language model from random initialisation, on the text that every Python carries")
    _language_model(out, steps=steps, batch=4, lr=6e-3, resume=False)
    console.print(f"all done in {time.perf_counter() - started:.0f} s")
    if not caught or not held:
        raise typer.Exit(1)


def train(
    out: Folder = Path("runs/train"),
    steps: Annotated[int, typer.Option(min=1, help="Training steps.")] = 20_000,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest checkpoint in --out.")] = False,
):
    """The longer training run (about 20 minutes on 2 cores); `--resume` goes on to the same bits."""
    _language_model(out, steps=steps, batch=4, lr=4e-3, resume=resume)


def _catch():
    """Whether `check` named the bug in `wrong_attention`; prints its report."""
    from ref.cli import tables
    from ref.conform.check import check

    with tables.progress(Console(stderr=True)) as tick:
        report = check("attention.sdpa", "ref.demo.wrong_attention:attention", progress=tick)
    console.print(tables.check_report(report))
    return any(f.bug == "mask_then_cap" for f in report.findings)


def _verify():
    """Whether all laws hold and every mutant was killed; prints the table."""
    from ref.cli import tables
    from ref.conform.summary import run_summary
    from ref.spec import all_specs

    rows, outcomes = run_summary(all_specs(), examples=15, console=Console(stderr=True), reach=False)
    console.print(tables.verify_table(rows, "numpy"))
    for o in (o for o in outcomes if not o.passed):
        console.print(f"broken: {o.id} {o.law} {o.name} ({o.form}, {o.dtype}): {o.broken}", markup=False)
    return all(r.holds for r in rows)


def _language_model(folder, *, steps, batch, lr, resume):
    from backends.threads import threads
    from ref.demo import charts, corpus
    from ref.demo.train import Plan, Run
    from ref.demo.train import train as run_to_the_end

    text = corpus.load()
    console.print(f"pydoc_data.topics, SHA-256 {text.sha256}")
    console.print(f"{len(text.training)} bytes for training, {len(text.heldout)} held out, by topic")
    baselines = _baselines(text)
    run = Run(text.training, plan=Plan(steps=steps, batch=batch, lr=lr, save_every=max(100, steps // 10)))
    if resume and not run.resume(folder):
        console.print(f"no checkpoint in {folder}: starting from random initialisation")
    console.print(f"{sum(p.size for p in run.params.values())} parameters, {run.config}, from step {run.step}")
    curve = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
               TimeRemainingColumn())  # fmt: skip
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("training", total=steps, completed=run.step)

        def watch(run, loss):
            curve.append((run.step, loss))
            recent = sum(x for _, x in curve[-50:]) / len(curve[-50:])
            bar.update(task, completed=run.step, description=f"training {recent:.3f} bits per byte")

        with threads(1):  # products this small lose more to a second BLAS thread than they gain
            run_to_the_end(run, folder, watch=watch)
    with threads(1):
        score = run.bits_per_byte(text.heldout)
    table = Table(title="held-out text, bits per byte")
    table.add_column("model")
    table.add_column("bits per byte", justify="right")
    for name, bits in [*baselines.items(), ("this model", score)]:
        table.add_row(name, f"{bits:.3f}")
    console.print(table)
    console.print(run.sample(b"The ", 300).decode("utf-8", "replace"), markup=False, highlight=False)
    picture = charts.loss_curve(Path(folder) / "loss.png", curve, [(run.step, score)], baselines)
    console.print(f"wrote {picture} and the checkpoint beside it")


def _baselines(text):
    """{name: bits per byte} of what needs no gradient."""
    from ref.demo import ngram

    with console.status("xz and n-gram baselines"):
        order = ngram.choose_order(text.fitting, text.validation)
        levels = ngram.fit(text.training, order)
        return {
            "xz -9e of the held-out text alone": ngram.xz_bits_per_byte(text.heldout),
            f"Kneser-Ney n-gram, order {order}": ngram.bits_per_byte(levels, text.heldout, order),
        }
