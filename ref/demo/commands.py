"""`closedform demo` and `closedform train`: the main job before the user's eyes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from ref.demo.figures import figures
from ref.demo.moments import moments

console = Console()
# What the model is made of, and what explains it: verified in full. The other families are sampled.
FOUNDATION = frozenset((
    *("backends.round_bf16", "nn.dropout", "nn.embedding", "nn.gelu", "nn.keep_mask", "nn.layer_norm", "nn.linear"),
    *("nn.rms_norm", "nn.rope", "nn.swiglu", "losses.softmax_cross_entropy", "losses.token_mean", "attention.flash"),
    *("attention.merge", "attention.online_softmax", "attention.safe_softmax", "attention.sdpa", "optim.adam"),
    *("optim.adam_l2", "optim.adamw", "optim.clip_by_global_norm", "optim.sgd", "optim.warmup_cosine"),
    *("training.checkpoint_segments", "training.checkpointed_gradient", "models.llama"),
))  # fmt: skip
SAMPLED = 3
VOCABULARY = 1024
# What each command trains, by measurement on the validation part.
SHORT = {"channels": 128, "layers": 3, "heads": 4, "hidden": 344}
SHORT_PLAN = {"batch": 2, "context": 128, "lr": 4e-3}
LONG = {"channels": 192, "layers": 4, "heads": 6, "hidden": 512}
LONG_PLAN = {"batch": 4, "context": 256, "lr": 3e-3, "dropout": 0.2, "bpe_dropout": 0.1, "weight_decay": 0.2}
Folder = Annotated[Path, typer.Option(help="Where the checkpoints, the loss curve and the sample go.")]
Recompute = Annotated[
    bool, typer.Option("--recompute", help="Gradient checkpointing: the same bits, less memory, more time.")
]
Steps = Annotated[int | None, typer.Option(min=2, help="Training steps; by default as many as fit the time.")]


def register(app):
    """Add the commands to a typer app."""
    app.command()(demo)
    app.command()(train)
    app.command()(figures)
    app.command()(moments)


def demo(
    out: Folder = Path("closedform-demo"),
    steps: Steps = None,
    seconds: Annotated[float, typer.Option(min=1, help="Training time that --steps is chosen for.")] = 75,
    recompute: Recompute = False,
):
    """A wrong function caught by name, every law run, a language model trained: about 5 minutes."""
    started = time.perf_counter()
    console.rule("1  a wrong attention function: the softcap after the mask")
    caught = _catch()
    console.rule("2  every law of every algorithm")
    held = _verify()
    console.rule("3  a language model from random initialisation, on the text that every Python carries")
    _forget(out)
    _language_model(out, SHORT, {**SHORT_PLAN, "checkpointed": recompute}, steps, seconds, resume=False)
    console.print(f"all done in {time.perf_counter() - started:.0f} s")
    if not caught or not held:
        raise typer.Exit(1)


def train(
    out: Folder = Path("closedform-train"),
    steps: Steps = None,
    seconds: Annotated[float, typer.Option(min=1, help="Training time that --steps is chosen for.")] = 1200,
    recompute: Recompute = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest checkpoint in --out.")] = False,
    parallel: Annotated[
        str | None, typer.Option(help="ddp, zero1, zero2, zero3 or tp, under mpiexec: the smaller model, 50 steps.")
    ] = None,
    tp: Annotated[int, typer.Option(min=1, help="With --parallel tp: ranks that a copy of the model is cut over.")] = 2,
    float64: Annotated[bool, typer.Option("--float64", help="With --parallel: in double precision.")] = False,
    against: Annotated[
        Path | None, typer.Option(help="With --parallel: losses.json of another run, to be equal within 1e-10.")
    ] = None,
):
    """The longer training run (about 20 minutes on 2 cores); `--resume` goes on to the same bits."""
    from ref.demo import checkpoint_file

    if parallel is not None:
        from ref.demo.parallel import train as train_in_parallel

        train_in_parallel(out, parallel, steps=steps, sizes=SHORT, vocabulary=VOCABULARY, double=float64,
                          recompute=recompute, resume=resume, against=against, ways=tp)  # fmt: skip
        return
    if float64 or against:
        console.print("closedform: --float64 and --against go with --parallel", soft_wrap=True)
        raise typer.Exit(2)

    if not resume and checkpoint_file.latest(out):
        console.print(f"closedform: {out} has checkpoints; go on with --resume, or name another --out", soft_wrap=True)
        raise typer.Exit(2)
    _language_model(out, LONG, {**LONG_PLAN, "checkpointed": recompute}, steps, seconds, resume=resume)


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

    rows, outcomes = [], []
    for examples, wanted in ((15, True), (SAMPLED, False)):
        specs = [s for s in all_specs() if (s.id in FOUNDATION) == wanted]
        found = run_summary(specs, examples=examples, console=Console(stderr=True), reach=False)
        rows, outcomes = rows + found[0], outcomes + found[1]
    console.print(tables.verify_table(rows, "numpy"))
    sampled = len(rows) - len(FOUNDATION)
    console.print(f"the last {sampled} are sampled, {SAMPLED} cases a law; `closedform verify` runs them in full")
    for o in (o for o in outcomes if not o.passed):
        console.print(f"broken: {o.id} {o.law} {o.name} ({o.form}, {o.dtype}): {o.broken}", markup=False)
    return all(r.holds for r in rows)


def _forget(folder):
    """Remove the checkpoints of an earlier demo: this one starts from random initialisation."""
    from ref.demo import checkpoint_file

    for path in checkpoint_file.steps(folder):
        path.unlink()


def _language_model(folder, sizes, options, steps, seconds, *, resume):
    from backends.pages import keep_freed_pages
    from ref.demo import charts, corpus
    from ref.demo.train import train as run_to_the_end
    from ref.models.llama import parameter_count

    keep_freed_pages()
    text = corpus.load()
    console.print(f"pydoc_data.topics, SHA-256 {text.sha256}")
    parts = len(text.fitting), len(text.validation), len(text.heldout)
    console.print("{} bytes for training, {} for validation, {} held out, by topic".format(*parts))
    baselines = _baselines(text)
    run = _prepared(folder, text.fitting, sizes, options, steps, seconds, resume)
    console.print(f"{parameter_count(run.config)} parameters; {len(run.bytes_of)} tokens, learned from the same text")
    console.print(f"{run.config}\n{run.plan}", highlight=False)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
               TimeRemainingColumn())  # fmt: skip
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("training", total=run.plan.steps, completed=run.step)

        def watch(run, bits):
            recent = sum(run.curve[-50:]) / len(run.curve[-50:])
            bar.update(task, completed=run.step, description=f"training text {recent:.3f} bits per byte")

        run_to_the_end(run, folder, watch=watch)
    console.print(f"temperature {run.calibrate(text.validation):.2f}, chosen on the validation part")
    score = run.bits_per_byte(text.heldout)
    table = Table(title=f"held-out text ({len(text.heldout)} bytes)")
    table.add_column("model")
    table.add_column("bits per byte", justify="right")
    for name, bits in sorted({**baselines, "this language model": score}.items(), key=lambda item: -item[1]):
        mine = name == "this language model"
        table.add_row(name, f"{bits:.3f}", style="bold" if mine else None)
    console.print(table)
    sample = run.sample(b"The ", 120).decode("utf-8", "replace")
    (Path(folder) / "sample.txt").write_text(sample)
    console.print(sample, markup=False, highlight=False)
    picture = charts.loss_curve(Path(folder) / "loss.png", _smooth(run.curve), [(run.step, score)], baselines)
    console.print(f"wrote {picture}, sample.txt and the checkpoint beside it")


def _smooth(curve, points=200):
    """(step, mean loss) of at most `points` parts of the curve: one batch is too small to show a trend."""
    part = -(-len(curve) // points)
    cuts = [curve[i : i + part] for i in range(0, len(curve), part)]
    return [(part * k + len(cut), sum(cut) / len(cut)) for k, cut in enumerate(cuts)]


def _baselines(text):
    """{name: bits per byte} of what needs no gradient.

    The orders are chosen on the validation part; then the n-grams are fitted on it too, which the model never is.
    """
    from ref.demo import ngram

    found = {"xz -9e of the held-out text alone": ngram.xz_bits_per_byte(text.heldout)}
    names = {"witten-bell": "interpolated n-gram (Witten-Bell)", "kneser-ney": "modified Kneser-Ney n-gram"}
    with console.status("n-gram baselines"):
        for smoothing, name in names.items():
            order = ngram.choose_order(text.fitting, text.validation, smoothing=smoothing)
            levels = ngram.fit(text.training, order)
            bits = ngram.bits_per_byte(levels, text.heldout, order, smoothing)
            found[f"{name}, {order} bytes of context"] = bits
    return found


def _prepared(folder, text, sizes, options, steps, seconds, resume):
    """The run to be made: taken up from a checkpoint, or with steps for about `seconds`."""
    from ref.demo import bpe, checkpoint_file
    from ref.demo.train import Plan, Run
    from ref.models.llama import Config

    merges = bpe.learn(text, VOCABULARY)
    config = Config(vocabulary=256 + len(merges), rope_layout="interleaved", tied=True, **sizes)
    path = checkpoint_file.latest(folder) if resume else None
    if path is not None:
        plan = Plan(**checkpoint_file.load(path).state["plan"])
        run = Run(text, merges, config, plan)
        run.resume(folder)
        console.print(f"going on from {path}, step {run.step} of {plan.steps}")
        return run
    if resume:
        console.print(f"no checkpoint in {folder}: starting from random initialisation")
    if steps is None:
        steps = _steps_for(seconds, Run(text, merges, config, Plan(steps=100, **options)))
    return Run(text, merges, config, Plan(steps=steps, save_every=max(50, steps // 20), **options))


def _steps_for(seconds, trial, most=60_000):
    """Steps that this machine makes in the time, by the median of a few."""
    times = []
    for _ in range(12):
        started = time.perf_counter()
        trial.advance()
        times.append(time.perf_counter() - started)
    steps = min(most, max(200, int(seconds / sorted(times)[len(times) // 2])))
    return steps // 100 * 100
