"""`closedform train-density`: five models of binarised digits; losses as a table, curves and samples as a picture."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from ref.demo.charts import blank

console = Console()
SHOWN = 20  # images of each model in the picture


class Row(NamedTuple):
    """A line of the table: how many numbers the model may choose, losses in nats an image."""

    model: str
    numbers: int
    epoch: int | None
    fitting: float
    selection: float
    test: float


def register(app):
    """Add the command to a typer app."""
    app.command("train-density")(train_density)


def train_density(
    out: Annotated[Path, typer.Option(help="Folder for the picture.")] = Path("closedform-density"),
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the 1200 digits.")] = 60,
    seed: Annotated[int, typer.Option(min=0, help="Of the initial weights, batches and samples.")] = 0,
):
    """Independent bits, naive Bayes, FVSBN, NADE and MADE on binarised digits (two minutes on 2 cores)."""
    from backends.pages import keep_freed_pages
    from ref.demo import density

    keep_freed_pages()
    out.mkdir(parents=True, exist_ok=True)
    digits = density.load()
    sizes = tuple(len(x) for x in digits[:3])
    console.print(
        "scikit-learn's digits, a bit a pixel: {} to fit, {} to choose the epoch, {} to test, once".format(*sizes)
    )
    counts = density.counted(digits)
    models = density.models(digits, seed=seed)
    fitted = _train(models, digits, epochs, seed)
    rows = [_counted_row(name, *numbers, digits) for name, numbers in counts.items()]
    for model, found in zip(models, fitted, strict=True):
        losses = (density.loss(model, x, found.params) for x in digits[:3])
        rows.append(Row(model.name, model.numbers, found.epoch, *losses))
    console.print(_table(rows))
    images = {"digits": digits.test[:SHOWN].reshape(-1, density.SIDE, density.SIDE)}
    images |= {name: density.sampled_counts(*numbers, SHOWN, seed) for name, numbers in counts.items()}
    images |= {m.name: density.samples(m, f.params, SHOWN, seed) for m, f in zip(models, fitted, strict=True)}
    curves = {m.name: f.selection for m, f in zip(models, fitted, strict=True)}
    path = picture(out / "density.png", curves, {r.model: r.selection for r in rows[:2]}, images)
    console.print(f"wrote {path}")
    return rows


def _train(models, digits, epochs, seed):
    from ref.demo import density

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
               TimeRemainingColumn())  # fmt: skip
    with Progress(*columns, console=console) as bar:
        tasks = {m.name: bar.add_task(m.name, total=epochs) for m in models}
        fitted = []
        for model in models:

            def watch(epoch, fitting, selection, name=model.name):
                text = f"{name:6} {fitting:6.2f} nats, {selection:6.2f} on the selection part"
                bar.update(tasks[name], completed=epoch, description=text)

            fitted.append(density.fit(model, digits, epochs=epochs, seed=seed, watch=watch))
    return fitted


def _counted_row(name, prior, theta, digits):
    from ref.demo import density

    losses = (density.counted_loss(x, prior, theta) for x in digits[:3])
    return Row(name, theta.size + len(prior) - 1, None, *losses)


def _table(rows):
    table = Table(title="-log p(x), nats an image; the test part is touched once")
    for name in ("model", "numbers", "epoch", "fitted on", "selection", "test", "bits a pixel"):
        table.add_column(name, justify="left" if name == "model" else "right")
    for r in rows:
        epoch = "" if r.epoch is None else str(r.epoch)
        losses = [f"{x:.2f}" for x in (r.fitting, r.selection, r.test)]
        table.add_row(r.model, str(r.numbers), epoch, *losses, f"{r.test / math.log(2) / 64:.3f}")
    return table


def picture(path, curves, levels, images):
    """Losses by epoch, and a row of images for each model, as PNG; returns its path.

    Raises
    ------
    ValueError
        A loss that is not finite.
    """
    for name, values in {**curves, **{n: [v] for n, v in levels.items()}}.items():
        if not np.isfinite(values).all():
            raise ValueError(f"picture: {name} has a loss that is not finite")

    figure, save = blank((13, 5))
    left, right = figure.subplots(1, 2, width_ratios=(2, 3))
    for name, values in curves.items():
        left.plot(np.arange(1, len(values) + 1), values, label=f"{name}: {min(values):.2f}")
    for i, (name, value) in enumerate(levels.items()):
        left.axhline(value, color=f"C{len(curves) + i}", linestyle="--", label=f"{name}: {value:.2f}")
    left.set(title="selection part", xlabel="epoch", ylabel="-log p(x), nats an image")
    left.grid(alpha=0.3)
    left.legend()
    side = next(iter(images.values())).shape[-1]
    rows = [np.concatenate(np.pad(x, ((0, 0), (1, 1), (1, 1)), constant_values=0.5), axis=1) for x in images.values()]
    right.imshow(np.concatenate(rows), cmap="gray_r", vmin=0, vmax=1)
    right.set_yticks([(k + 0.5) * (side + 2) - 0.5 for k in range(len(images))], list(images))
    right.set_xticks([])
    right.set_title("images, and samples of each model")
    return save(path)
