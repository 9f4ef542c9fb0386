"""`closedform collectives` and `simulate`: bandwidth measured under MPI, and forecast for more ranks than there are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from backends.communicators import CommError, Nodes
from ref.demo.charts import blank

out, err = Console(), Console(stderr=True)
Picture = Annotated[Path | None, typer.Option(help="Draw it into this PNG.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print stable JSON instead of a table.")]
UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
PATIENCE = 4e9  # ranks times rounds of a recursion that is run unasked: about a minute


def register(app):
    """Add the commands to a typer app."""
    app.command()(collectives)
    app.command()(simulate)


def _usage(message):
    err.print(f"closedform: {message}", markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(2)


def _bytes(text):
    """Bytes of `64k`, `1M`, `4096`."""
    number, unit = (text, "") if text[-1:].isdigit() else (text[:-1], text[-1:].lower())
    if unit not in UNITS or not number.isdigit() or not int(number):
        _usage(f"size {text!r}; needed bytes, as in 4096, 64k or 16M")
    return int(number) * UNITS[unit]


def _size(n):
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if n >= unit:
            return f"{n / unit:.4g} {name}"
    return f"{n} B"


def _time(t):
    for unit, name in ((1, "s"), (1e-3, "ms"), (1e-6, "us")):
        if t >= unit:
            return f"{t / unit:.3g} {name}"
    return f"{t * 1e9:.3g} ns"


def _progress():
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    return Progress(*columns, console=err, transient=True)


def _folder_of(picture):
    if picture is not None and not picture.parent.is_dir():
        _usage(f"--picture {picture}: no folder {picture.parent}")


def collectives(
    names: Annotated[list[str] | None, typer.Argument(help="all_reduce, all_gather, reduce_scatter, broadcast, "
                                                           "reduce, all_to_all; all_reduce if none is named.")] = None,
    ranks: Annotated[list[int] | None, typer.Option(min=1, help="Processes; 2 if not given.")] = None,
    sizes: Annotated[list[str] | None, typer.Option("--size", help="Bytes of the array, as in 64k or 1M.")] = None,
    rounds: Annotated[int | None, typer.Option(min=5, help="Measurements; by size if not given.")] = None,
    picture: Picture = None,
    as_json: AsJson = False,
):  # fmt: skip
    """Bandwidth of the collectives under MPI: algorithm by size by ranks, beside the library's own."""
    from ref.demo import bandwidth

    _folder_of(picture)
    names, ranks = names or ["all_reduce"], ranks or [2]
    for name in names:
        if name not in bandwidth.BUS:
            _usage(f"collective {name!r}; needed one of {', '.join(bandwidth.BUS)}")
    wanted = [_bytes(text) for text in sizes or ["1k", "64k", "1M", "16M"]]
    runs = []
    try:
        with _progress() as bar:
            task = bar.add_task("measuring", total=len(ranks) * len(names))
            for n in ranks:
                for name in names:
                    bar.update(task, description=f"{name} on {n} ranks")
                    runs.append(bandwidth.measure(n, wanted, [name], rounds=rounds))
                    bar.advance(task)
    except CommError as error:
        _usage(error)
    rows = [{**row, "oversubscribed": run["oversubscribed"]} for run in runs for row in run["rows"]]
    if picture is not None:
        bandwidth.picture(picture, rows)
    if as_json:
        print(json.dumps({"library": runs[0]["library"], "rows": rows}, indent=1))
    else:
        out.print(_bandwidth_table(rows, runs[0]["library"]))


def _bandwidth_table(rows, library):
    table = Table(box=SIMPLE_HEAD, title=library)
    for head in ("collective", "algorithm"):
        table.add_column(head, no_wrap=True)
    for head in ("ranks", "size", "time", "bus GB/s", "of library's"):
        table.add_column(head, justify="right")
    for row in rows:
        own = row["algorithm"] == "library"
        ranks = f"{row['ranks']}{' *' if row['oversubscribed'] else ''}"
        table.add_row(
            row["collective"], row["algorithm"], ranks, _size(row["size"]), _time(row["seconds"]),
            f"{row['bus'] / 1e9:.2f}", "" if own else f"{row['ratio']:.2f}", style="dim" if own else None,
        )  # fmt: skip
    notes = ["bus bandwidth as nccl-tests defines it; medians of interleaved rounds"]
    notes += ["* more ranks than cores: this times the scheduler"] * any(row["oversubscribed"] for row in rows)
    table.caption = "\n".join(notes)
    return table


def simulate(
    algorithms: Annotated[list[str] | None, typer.Argument(help="As in distributed.rounds; the all-reduces if none "
                                                                "is named.")] = None,
    ranks: Annotated[list[int] | None, typer.Option(min=1, help="100, 1000, 10000 and 100000 if not given.")] = None,
    size: Annotated[str, typer.Option(help="Bytes of the array, as in 64k or 1M.")] = "64M",
    alpha: Annotated[float, typer.Option(min=0, help="Seconds a message.")] = 2e-6,
    bandwidth: Annotated[float, typer.Option(min=1, help="Bytes a second of a link, 1 / beta.")] = 12.5e9,
    combine: Annotated[float, typer.Option(min=1, help="Bytes a second combined, 1 / gamma.")] = 100e9,
    node: Annotated[int, typer.Option(min=1, help="Ranks of a machine.")] = 1,
    node_alpha: Annotated[float, typer.Option(min=0, help="Seconds a message inside a machine.")] = 5e-7,
    node_bandwidth: Annotated[float, typer.Option(min=1, help="Bytes a second inside a machine.")] = 300e9,
    stragglers: Annotated[float, typer.Option(min=0, max=1, help="Share of ranks that are slow.")] = 0.0,
    slow: Annotated[float, typer.Option(min=1, help="By what factor.")] = 3.0,
    dies: Annotated[list[str] | None, typer.Option(help="RANK@SECOND: this rank dies then.")] = None,
    seed: Annotated[int, typer.Option(help="Which ranks are slow.")] = 0,
    patient: Annotated[bool, typer.Option("--patient", help="Run long recursions too (minutes).")] = False,
    picture: Picture = None,
    as_json: AsJson = False,
):  # fmt: skip
    """Seconds of a collective on 100 to 100000 ranks by a model: in closed form, and with stragglers."""
    from ref.distributed.rounds import ROUNDS

    _folder_of(picture)
    names = algorithms or ["ring_all_reduce", "recursive_doubling_all_reduce", "halving_doubling_all_reduce"]
    for name in names:
        if name not in ROUNDS:
            _usage(f"algorithm {name!r}; needed one of {', '.join(ROUNDS)}")
    model = {
        "rates": np.array([alpha, 1 / bandwidth, 1 / combine]), "slow": slow, "share": stragglers, "seed": seed,
        "topology": Nodes(node, node_alpha, 1 / node_bandwidth) if node > 1 else None,
        "dies": dict(_death(text) for text in dies or []), "patient": patient,
    }  # fmt: skip
    rows, length = [], -(-_bytes(size) // 4)
    with _progress() as bar:
        for name in names:
            for n in ranks or (100, 1000, 10_000, 100_000):
                rows.append(_forecast(name, n, length, model, bar))
    if picture is not None:
        _draw(picture, rows, size)
    if as_json:
        print(json.dumps(rows, indent=1))
    else:
        out.print(_forecast_table(rows, size))


def _death(text):
    rank, at, second = text.partition("@")
    try:
        return int(rank), float(second if at else "")
    except ValueError:
        _usage(f"--dies {text!r}; needed RANK@SECOND, as in 7@0.5")


def _forecast(name, n, length, model, bar):
    """One row: the closed form, and the recursion where something makes it differ."""
    from ref.distributed.cost import cost
    from ref.distributed.forecast import forecast
    from ref.distributed.rounds import ROUNDS

    dies = {r: t for r, t in model["dies"].items() if r < n}
    factors = np.ones(n)
    factors[np.random.default_rng(model["seed"]).permutation(n)[: round(model["share"] * n)]] = model["slow"]
    row = {"algorithm": name, "ranks": n, "seconds": float(cost(n, 4 * length, model["rates"], name=name)),
           "slowest": None, "hang": None}  # fmt: skip
    plain = model["topology"] is None and not dies and factors.max() == 1
    around = any(word in name for word in ("ring", "canonical", "pairwise", "scatter_gather"))
    steps = 2 * n if around else 40
    if plain or (not model["patient"] and steps * n > PATIENCE):
        return row
    task = bar.add_task(f"{name} on {n} ranks", total=None if name not in ROUNDS else steps)
    ends = forecast(
        n, length, model["rates"], name=name, slow=factors, topology=model["topology"], dies=dies,
        progress=lambda k: bar.update(task, completed=k) if k % 64 == 0 else None,
    )  # fmt: skip
    bar.remove_task(task)
    finite = ends[np.isfinite(ends)]
    return {**row, "slowest": float(finite.max()) if len(finite) else None, "hang": int(n - len(finite))}


def _forecast_table(rows, size):
    table = Table(box=SIMPLE_HEAD, title=f"{size} of float32")
    table.add_column("algorithm", no_wrap=True)
    for head in ("ranks", "closed form", "slowest rank", "hang"):
        table.add_column(head, justify="right")
    for row in rows:
        slowest = "" if row["slowest"] is None else _time(row["slowest"])
        table.add_row(row["algorithm"], f"{row['ranks']:,}", _time(row["seconds"]), slowest, f"{row['hang'] or ''}")
    table.caption = "closed form: equal ranks and links; slowest rank: max-plus recursion with what was asked for"
    return table


def _draw(path, rows, size):
    figure, save = blank((7, 4.4))
    axes = figure.subplots()
    for i, name in enumerate(dict.fromkeys(row["algorithm"] for row in rows)):
        mine = [row for row in rows if row["algorithm"] == name]
        label = name.replace("_", " ")
        axes.plot([r["ranks"] for r in mine], [r["seconds"] for r in mine], f"C{i}-", label=label)
        hit = [(r["ranks"], r["slowest"]) for r in mine if r["slowest"]]
        if hit:
            axes.plot(*zip(*hit, strict=True), f"C{i}o--", label=f"{label}, as asked for")
    axes.set(xscale="log", yscale="log", xlabel="ranks", ylabel="seconds", title=f"{size}, alpha-beta-gamma model")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    save(path)
