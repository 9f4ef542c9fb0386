"""`closedform train-diffusion TASK`: diffusion models of scikit-learn's digits, trained and judged before your eyes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

console = Console()
AGREEMENT, DISTANCE, NEAREST = 0.95, 3.0, 0.8  # what the median of the seeds must reach
BITS, SOLVER_ERROR = 2.96, 0.01  # bits per dimension: the Gaussian fit's, and what the solver may be off
CONTROLLED, SHUFFLED = 0.5, 0.1  # the condition's error over the base's, and how near shuffled conditions come to it
SHOWN = 10


def register(app):
    """Add the command to a typer app."""
    app.command("train-diffusion")(train_diffusion)


def train_diffusion(
    task: Annotated[str, typer.Argument(help="samples, solvers, bits or control.")] = "samples",
    out: Annotated[Path, typer.Option(help="Folder for the weights and the pictures.")] = Path("closedform-diffusion"),
    seeds: Annotated[int, typer.Option(min=1, help="Runs of `samples`; the bars are for the median of 3.")] = 1,
    steps: Annotated[int | None, typer.Option(min=1, help="Training steps; each task has its own default.")] = None,
):
    """Diffusion on scikit-learn's digits: samples by class, solvers compared, bits per dimension, ControlNet."""
    from backends.pages import keep_freed_pages
    from ref.demo import digits

    if task not in TASKS:
        message = f"closedform: no task {task!r}; there are {', '.join(TASKS)}"
        Console(stderr=True).print(message, markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(2)
    keep_freed_pages()
    out.mkdir(parents=True, exist_ok=True)
    if not TASKS[task](digits.load(), out, seeds, steps):
        raise typer.Exit(1)


# Samples by class ------------------------------------------------------------------------------------


def samples(data, out, seeds, steps):
    """Train, sample, judge; whether the bars were met, where the training was not cut short."""
    from ref.demo import diffusion, digits

    judge = _judge(data)
    count = digits.SAMPLES
    found, references = {}, digits.references(judge, data, count)
    for seed in range(seeds):
        params = _trained(data, out, seed, steps)
        with console.status(f"{count} samples, seed {seed}"):
            x = diffusion.samples(params, count, seed)
        found[f"seed {seed}"] = digits.scores(judge, x, digits.asked(count))
        if not seed:
            _draw(data, judge, params, x, out)
    median = digits.Scores(*(float(np.median([s[k] for s in found.values()])) for k in range(3)))
    console.print(_scores_table(count, {**references, **found, f"median of {seeds}": median}))
    met = median.agreement >= AGREEMENT and median.nearest >= NEAREST
    met &= median.distance < min(DISTANCE, references["Gaussian fit"].distance)
    return met or steps is not None


def _judge(data):
    from ref.demo import digits

    with console.status("the judge"):
        judge = digits.fit_judge(data)
    console.print(f"{len(data.x)} digits to train on, {len(data.held_x)} held out, of which the judge reads "
                  f"{100 * judge.accuracy:.1f} %")  # fmt: skip
    return judge


def _trained(data, out, seed, steps):
    from ref.demo import diffusion

    plan = diffusion.Plan() if steps is None else diffusion.Plan(steps=steps)
    made = _with_bar(f"seed {seed}", plan, lambda watch: diffusion.train(data, plan, seed=seed, watch=watch))
    path = diffusion.save(out / f"samples-seed-{seed}", made.params, {"step": plan.steps, "seed": seed})
    console.print(f"{made.seconds:.0f} CPU seconds; wrote {path}")
    return made.params


def _with_bar(name, plan, work):
    """What `work(watch)` gives, its steps and losses shown as it goes."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
               TimeRemainingColumn())  # fmt: skip
    with Progress(*columns, console=console) as bar:
        line = bar.add_task(name, total=plan.steps)

        def watch(step, losses):
            if step % 20 == 0 or step == plan.steps:
                recent = f"{name}: loss {np.mean(losses[-100:]):.4f}"
                bar.update(line, completed=step, description=recent)

        return work(watch)


def _scores_table(count, rows):
    table = Table(title=f"{count} samples, clipped, against the held-out digits", box=SIMPLE_HEAD)
    table.add_column("")
    for head in ("agreement", "Frechet distance", "to the nearest training image"):
        table.add_column(head, justify="right")
    for name, s in rows.items():
        agreement = "" if s.agreement is None else f"{s.agreement:.3f}"
        table.add_row(name, agreement, f"{s.distance:.2f}", f"{s.nearest:.2f}")
    table.add_row("needed", f">= {AGREEMENT}", f"< {DISTANCE:g}, < Gaussian", f">= {NEAREST}", style="bold")
    return table


def _draw(data, judge, params, x, out):
    from ref.demo import diffusion, digits
    from ref.demo.charts import curves
    from ref.demo.diffusion_pictures import image_rows

    grid = {str(k): x[k : SHOWN * SHOWN : SHOWN] for k in range(SHOWN)}
    left, states, guesses = diffusion.strip(params)
    rows = {f"{t} steps left": s for t, s in zip(left, states, strict=True)}
    rows |= {f"x_0 from {t}": s for t, s in zip(left[:-1], guesses[:-1], strict=True)}
    first = np.clip(x[: 2 * SHOWN], -1, 1)
    _, at = digits.nearest(first.astype(np.float64), judge.training)
    pairs = {"samples": first[:SHOWN], "nearest": data.x[at[:SHOWN]]}
    pairs |= {"more samples": first[SHOWN:], "nearest to these": data.x[at[SHOWN:]]}
    lines = {
        name: list(enumerate(diffusion.losses_by_step(params, part[: len(data.held_x)], labels[: len(data.held_x)]), 1))
        for name, part, labels in (
            ("training part", data.x, data.labels), ("held out", data.held_x, data.held_labels),
        )
    }  # fmt: skip
    written = (
        image_rows(out / "samples.png", grid, "samples, by the digit asked for"),
        image_rows(out / "strip.png", rows, "denoising"),
        image_rows(out / "nearest.png", pairs, "samples, and the training images nearest to them"),
        curves(out / "loss.png", lines, {}, "t", "mean |eps - eps_theta|^2", log=True),
    )
    console.print(f"wrote {', '.join(map(str, written))}", soft_wrap=True)


# Solvers ---------------------------------------------------------------------------------------------


def solvers(data, out, seeds, steps):
    """Frechet distance by evaluations of the network, for every solver; takes up the weights in `out`."""
    from ref.demo import checkpoint_file, diffusion, diffusion_solvers, digits, digits_net
    from ref.demo.charts import curves

    judge = _judge(data)
    path = checkpoint_file.latest(out / "samples-seed-0") if steps is None else None
    if path is None:
        params = _trained(data, out, 0, steps)
    else:
        params = checkpoint_file.load(path, like=digits_net.initial(np.random.default_rng(0))).arrays
        console.print(f"weights from {path}")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as bar:
        line = bar.add_task("", total=len(diffusion_solvers.SOLVERS) * len(diffusion_solvers.BUDGETS))
        found = diffusion_solvers.compare(
            params, judge, budgets=diffusion_solvers.BUDGETS, count=digits.SAMPLES,
            tick=lambda name, row: bar.update(line, advance=1, description=name),
        )  # fmt: skip
    table = Table(title=f"Frechet distance (agreement) of {digits.SAMPLES} samples", box=SIMPLE_HEAD)
    table.add_column("evaluations, at most")
    for budget in diffusion_solvers.BUDGETS:
        table.add_column(str(budget), justify="right")
    for name, rows in found.items():
        table.add_row(name, *(f"{r.scores.distance:.2f} ({r.scores.agreement:.2f})" for r in rows))
    console.print(table)
    references = digits.references(judge, data, digits.SAMPLES)
    levels = {name: references[name].distance for name in list(references)[:2]}
    lines = {name: [(r.evaluations, r.scores.distance) for r in rows] for name, rows in found.items()}
    labels = ("evaluations of the network", "Frechet distance")
    console.print(f"wrote {curves(out / 'solvers.png', lines, levels, *labels, log=True)}; T = {diffusion.T}")
    return True


# Bits per dimension ----------------------------------------------------------------------------------


def bits(data, out, seeds, steps):
    """Bits of the held-out digits, beside what needs no network."""
    from ref.demo import diffusion_bits
    from ref.demo.charts import curves

    plan = diffusion_bits.PLAN if steps is None else diffusion_bits.PLAN._replace(steps=steps)
    made, base = _with_bar("dequantised digits", plan, lambda watch: diffusion_bits.train(data.x, plan, watch=watch))
    _keep(out / "bits", made, plan, {f"gaussian.{name}": a for name, a in base._asdict().items()})
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
               TimeRemainingColumn())  # fmt: skip
    with Progress(*columns, console=console) as bar:
        line = bar.add_task("exact divergence", total=len(data.held_x))
        found = diffusion_bits.bits_per_dimension(
            made.params, base, data.held_x, steps=diffusion_bits.STEPS,
            watch=lambda done: bar.update(line, completed=done),
        )  # fmt: skip
    references = diffusion_bits.references(data.x, data.held_x)
    table = Table(title=f"bits per dimension of {len(data.held_x)} held-out digits", box=SIMPLE_HEAD)
    table.add_column("")
    table.add_column("bits", justify="right")
    for name, value in sorted({**references, "this model": found.mean}.items(), key=lambda item: -item[1]):
        table.add_row(name, f"{value:.3f}", style="bold" if name == "this model" else None)
    console.print(table)
    gap = found.mean - references["independent histograms"]
    console.print(f"{diffusion_bits.STEPS} Runge-Kutta steps; half as many change the mean by {found.solver_error:.4f} "
                  f"bits; the gap to the histograms is {gap:.2f}")  # fmt: skip
    ordered = list(enumerate(np.sort(found.each), 1))
    labels = ("held-out digits, in order", "bits per dimension")
    console.print(f"wrote {curves(out / 'bits.png', {'this model': ordered}, references, *labels)}")
    return (found.mean < BITS and found.solver_error < SOLVER_ERROR) or steps is not None


def _keep(folder, made, plan, more=None):
    from ref.demo import diffusion

    path = diffusion.save(folder, {**made.params, **(more or {})}, {"step": plan.steps})
    console.print(f"{made.seconds:.0f} CPU seconds; wrote {path}")


# ControlNet ------------------------------------------------------------------------------------------


def control(data, out, seeds, steps):
    """A U-Net, a ControlNet over it, and how well samples keep to the edges that they were given."""
    from ref.demo import diffusion_control
    from ref.demo.diffusion_pictures import image_rows

    first, second = diffusion_control.BASE, diffusion_control.CONTROL
    if steps is not None:
        first, second = first._replace(steps=steps), second._replace(steps=steps)
    config = diffusion_control.CONFIG
    base = _with_bar("U-Net", first, lambda watch: diffusion_control.train_base(
        data, first, config=config, watch=watch))  # fmt: skip
    _keep(out / "unet", base, first)
    over = _with_bar("ControlNet", second, lambda watch: diffusion_control.train_control(
        data, base.params, second, config=config, watch=watch))  # fmt: skip
    _keep(out / "controlnet", over, second)
    with console.status("samples"):
        found = diffusion_control.errors(base.params, over.params, data.held_x, config=config)
    table = Table(title=f"edges of {len(data.held_x)} samples against held-out edges", box=SIMPLE_HEAD)
    for head in ("", "mean square error", "over the base's", "needed"):
        table.add_column(head, justify="right" if head else "left")
    for name, needed in (("base", ""), ("control", f"<= {CONTROLLED}"), ("shuffled", f"1 +- {SHUFFLED}")):
        value = getattr(found, name)
        table.add_row(name, f"{value:.4f}", f"{value / found.base:.3f}", needed)
    console.print(table)
    held = data.held_x[:SHOWN]
    rows = {"held out": held, "edges": 2 * diffusion_control.edges(held) - 1}
    rows |= {name: x[: len(held)] for name, x in found.images.items()}
    console.print(f"wrote {image_rows(out / 'control.png', rows, 'steered by edges; shuffled: by the edges before')}")
    met = found.control <= CONTROLLED * found.base and abs(found.shuffled / found.base - 1) <= SHUFFLED
    return met or steps is not None


TASKS = {"samples": samples, "solvers": solvers, "bits": bits, "control": control}
