"""What the runs of `closedform train-rl` share on the screen: the console, a bar, a table, a wrong word."""

from __future__ import annotations

from typing import NamedTuple

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

console = Console()


class Task(NamedTuple):
    """`algorithms`, the first one the default, and `run(task, algorithm, gamma, steps, seeds, out)`, which prints its
    tables, leaves its pictures in `out` and returns whether what must hold held; `discounted` where --gamma means
    something, which is in gymnasium's environments."""

    algorithms: tuple
    run: object
    discounted: bool = True


def usage(message):
    """Leave with status 2 and one line."""
    Console(stderr=True).print(f"closedform: {message}", markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(2)


def progress():
    """A progress bar that says how far, how long and how much longer."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
               TimeRemainingColumn())  # fmt: skip
    return Progress(*columns, console=console)


def table(title, first, *heads):
    """An empty table whose columns are numbers, but for the first."""
    shown = Table(title=title, box=SIMPLE_HEAD)
    shown.add_column(first)
    for head in heads:
        shown.add_column(head, justify="right")
    return shown
