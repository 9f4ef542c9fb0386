"""`closedform moments`: a sampler's error against its steps, exactly, for Gaussian data.

Every sampler is affine on the exact model of N(m, S), so mean and covariance of what it makes come without sampling
(`diffusion.propagate_moments`): from the exact marginal at the noisy end to the marginal at the clean end, which the
step to noise level 0 is left out of. Orders are those of the last two rows.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from ref.demo.charts import blank
from ref.diffusion.alpha_bar import alpha_bar
from ref.diffusion.ancestral_ve import ancestral_ve_stages
from ref.diffusion.annealed_langevin import annealed_stages
from ref.diffusion.ddim import ddim_stages
from ref.diffusion.ddpm import ddpm_stages
from ref.diffusion.dpm_solver_1 import dpm_solver_1_stages
from ref.diffusion.dpm_solver_2 import dpm_solver_2_stages, half_log_snr
from ref.diffusion.dpm_solver_pp_2m import dpm_solver_pp_2m_stages
from ref.diffusion.edm import edm_stages
from ref.diffusion.edm_sigmas import edm_sigmas
from ref.diffusion.euler_maruyama import euler_maruyama_stages
from ref.diffusion.flow_sampler import flow_stages
from ref.diffusion.gaussian_model import affine_model
from ref.diffusion.gaussian_velocity import gaussian_velocity
from ref.diffusion.langevin import langevin_stages
from ref.diffusion.linear_schedule import linear_schedule
from ref.diffusion.ncsnv2_sigmas import geometric_sigmas
from ref.diffusion.ncsnv2_step_size import ncsnv2_step_size
from ref.diffusion.probability_flow import probability_flow_stages
from ref.diffusion.propagate_moments import propagate_moments
from ref.diffusion.reverse_diffusion import reverse_diffusion_stages, ve_forward
from ref.diffusion.timesteps import timesteps
from ref.diffusion.vp import vp

T, LAST = 1000, 0.01  # steps of the discrete schedule; where continuous time ends
HIGH, LOW = 50.0, 0.05  # noise levels of VE and EDM
STEPS = (16, 32, 64, 128, 256)


class Run(NamedTuple):
    """Stages, the affine model they ask, and (scale, std) where they start and end."""

    stages: list
    model: Callable
    start: tuple
    end: tuple


class Row(NamedTuple):
    """Errors of one run: of the mean the largest entry, of the covariance the Frobenius norm, both over the exact one's
    size; the orders are against the row before."""

    steps: int
    evaluations: int
    mean_error: float
    cov_error: float
    mean_order: float | None
    cov_order: float | None


def _discrete(make, prediction="eps"):
    """A sampler of the discrete schedule on N + 1 steps from T to 1, without the step from 1 to 0."""

    def run(N, mean, cov):
        bars = alpha_bar(linear_schedule(T))
        stages = make(bars, steps=timesteps(T, N + 1, spacing="linspace"))[:-1]
        level = lambda t: (math.sqrt(bars[t - 1]), math.sqrt(1 - bars[t - 1]))  # noqa: E731
        return Run(stages, affine_model(mean, cov, level, prediction), level(T), level(1))

    return run


def _kernel(sde, t):
    return sde(float(t))[2:]


def _even_times(N):
    return np.linspace(1.0, LAST, N + 1)


def _even_log_snr(N):
    """Times of VP with equal steps in ln(scale / std)."""
    from scipy.optimize import brentq

    first, last = (half_log_snr("moments", vp, t) for t in (1.0, LAST))
    inner = np.linspace(first, last, N + 1)[1:-1]
    roots = [brentq(lambda t, v=v: half_log_snr("moments", vp, t) - v, LAST / 2, 1.0, xtol=1e-15) for v in inner]
    return np.array([1.0, *roots, LAST])


def _continuous(make, grid, prediction):
    """A sampler of the VP SDE."""

    def run(N, mean, cov):
        times = grid(N)
        kernel = partial(_kernel, vp)
        return Run(make(vp, times), affine_model(mean, cov, kernel, prediction), kernel(times[0]), kernel(times[-1]))

    return run


def _levels(make, grid, prediction):
    """A sampler over noise levels of VE."""

    def run(N, mean, cov):
        sigmas = grid(N)
        model = affine_model(mean, cov, lambda sigma: (1.0, float(sigma)), prediction)
        return Run(make(sigmas), model, (1.0, float(sigmas[0])), (1.0, float(sigmas[-1])))

    return run


def _geometric(N):
    return geometric_sigmas(HIGH, LOW, N + 1)


def _edm_grid(N):
    return edm_sigmas(np.array(N + 1), sigma_min=LOW, sigma_max=HIGH)[:-1]


def _flow(method):
    def run(N, mean, cov):
        def model(t):
            rows = np.concatenate([np.zeros((1, len(mean))), np.eye(len(mean))])
            found = gaussian_velocity(rows, mean, cov, t=t)
            return (found[1:] - found[0]).T, found[0]

        return Run(flow_stages(np.linspace(0.0, 1.0, N + 1), method), model, (0.0, 1.0), (1.0, 0.0))

    return run


def _langevin(N, mean, cov):
    """From the data themselves for a time of 8 times the least variance: what is left is the bias of the step."""
    step = 8 * float(np.linalg.eigvalsh(cov)[0]) / N
    model = affine_model(mean, cov, lambda t: (1.0, 0.0), "score")
    return Run(langevin_stages(step, N), model, (1.0, 0.0), (1.0, 0.0))


def _annealed(N, mean, cov):
    """N steps at each of 10 levels, with NCSNv2's step size."""
    sigmas = geometric_sigmas(HIGH, LOW, 10)
    stages = annealed_stages(sigmas, float(ncsnv2_step_size(sigmas, steps=N)), N, denoise=False)
    model = affine_model(mean, cov, lambda sigma: (1.0, sigma), "score")
    return Run(stages, model, (1.0, HIGH), (1.0, LOW))


SAMPLERS = {
    "ddpm-small": _discrete(partial(ddpm_stages, variance="small")),
    "ddpm-large": _discrete(partial(ddpm_stages, variance="large")),
    "ddim": _discrete(ddim_stages),
    "ddim-eta-1": _discrete(partial(ddim_stages, eta=1.0)),
    "euler-maruyama": _continuous(partial(euler_maruyama_stages, last_noise=True), _even_times, "score"),
    "reverse-diffusion": _levels(
        lambda s: reverse_diffusion_stages(*ve_forward(s), last_noise=True), _geometric, "score"
    ),
    "ancestral-ve": _levels(ancestral_ve_stages, _geometric, "score"),
    "flow-ode-euler": _continuous(partial(probability_flow_stages, method="euler"), _even_times, "score"),
    "flow-ode-heun": _continuous(partial(probability_flow_stages, method="heun"), _even_times, "score"),
    "edm-euler": _levels(partial(edm_stages, order=1), _edm_grid, "x0"),
    "edm-heun": _levels(edm_stages, _edm_grid, "x0"),
    "edm-churn": _levels(partial(edm_stages, churn=8.0), _edm_grid, "x0"),
    "dpm-solver-1": _continuous(dpm_solver_1_stages, _even_log_snr, "eps"),
    "dpm-solver-2": _continuous(dpm_solver_2_stages, _even_log_snr, "eps"),
    "dpm-solver-pp-2m": _continuous(dpm_solver_pp_2m_stages, _even_log_snr, "x0"),
    "flow-matching-euler": _flow("euler"),
    "flow-matching-heun": _flow("heun"),
    "langevin": _langevin,
    "annealed-langevin": _annealed,
}


def gaussian(variances=(0.05, 0.25, 1.0), mean=1.5):
    """(m, S): alternating entries of size `mean`, covariance with the given eigenvalues in a turned basis.

    >>> m, S = gaussian((1.0, 4.0))
    >>> bool(np.allclose(np.linalg.eigvalsh(S), [1, 4]))
    True
    """
    d = len(variances)
    Q = np.linalg.qr(np.cos(1.0 + np.arange(d * d).reshape(d, d)) + np.eye(d))[0]
    return mean * (-1.0) ** np.arange(d), Q @ np.diag(np.asarray(variances, np.float64)) @ Q.T


def measure(name, steps=STEPS, data=None, tick=lambda row: None):
    """The errors of a sampler.

    Parameters
    ----------
    name : str
        Of SAMPLERS.
    steps : sequence of int
        Rising.
    data : (m[d], S[d d]), optional
        `gaussian()` if not given.
    tick : callable
        Called with each row.

    Returns
    -------
    list of Row

    Raises
    ------
    ValueError
        Unknown sampler, or steps that do not rise from at least 1.
    """
    if name not in SAMPLERS:
        raise ValueError(f"moments: no sampler {name!r}; there are {', '.join(SAMPLERS)}")
    if not len(steps) or any(b <= a for a, b in zip([0, *steps[:-1]], steps, strict=True)):
        raise ValueError(f"moments: steps {list(steps)}; needed rising numbers of at least 1")
    m, S = gaussian() if data is None else data
    rows = []
    for N in steps:
        run = SAMPLERS[name](N, m, S)
        (a, b), (a_to, b_to) = run.start, run.end
        eye = np.eye(len(m))
        mean, cov = propagate_moments(a * m, a * a * S + b * b * eye, stages=run.stages, model=run.model)
        exact = a_to * a_to * S + b_to * b_to * eye
        of_mean = float(np.max(np.abs(mean - a_to * m)) / np.max(np.abs(a_to * m)))
        of_cov = float(np.linalg.norm(cov - exact) / np.linalg.norm(exact))
        before = rows[-1] if rows else None
        orders = [
            _order(old, new, before, N) if before else None
            for old, new in ((before and before.mean_error, of_mean), (before and before.cov_error, of_cov))
        ]
        rows.append(Row(N, sum(s.t is not None for s in run.stages), of_mean, of_cov, *orders))
        tick(rows[-1])
    return rows


def _order(old, new, before, N, floor=1e-11):
    """The order between two rows; None where an error is rounding."""
    if min(old, new) < floor:
        return None
    return math.log(old / new) / math.log(N / before.steps)


def picture(path, found) -> Path:
    """Draw the errors of samplers against evaluations of the model, on logarithmic axes, as PNG.

    Parameters
    ----------
    path : path
        Its folder exists.
    found : {name: list of Row}

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ValueError
        Nothing to draw, or an error that is not finite.
    """
    good = all(rows and all(math.isfinite(r.mean_error + r.cov_error) for r in rows) for rows in found.values())
    if not found or not good:
        raise ValueError(f"picture: found has {list(found)}; needed at least one sampler, with finite errors")

    figure, save = blank((12, 5))
    for axes, field, title in zip(figure.subplots(1, 2), ("mean", "cov"), ("mean", "covariance"), strict=True):
        for i, (name, rows) in enumerate(found.items()):
            errors = [max(getattr(r, f"{field}_error"), 1e-16) for r in rows]
            order = getattr(rows[-1], f"{field}_order")
            label = name if order is None else f"{name}, {order:.2f}"
            style = ("-", "--", ":")[i // 10 % 3]
            axes.loglog([r.evaluations for r in rows], errors, style, marker=".", color=f"C{i % 10}", label=label)
        axes.set(title=f"relative error of the {title}", xlabel="evaluations of the model", ylabel="error")
        axes.grid(alpha=0.3, which="both")
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", fontsize=8, title="order of the covariance")
    return save(path)


def table(name, rows):
    """The rows of a sampler."""
    found = Table(title=name, box=SIMPLE_HEAD)
    for head in ("steps", "evaluations", "mean", "order", "covariance", "order"):
        found.add_column(head, justify="right")
    for r in rows:
        orders = ["" if o is None else f"{o:.2f}" for o in (r.mean_order, r.cov_order)]
        found.add_row(
            str(r.steps), str(r.evaluations), f"{r.mean_error:.2e}", orders[0], f"{r.cov_error:.2e}", orders[1]
        )
    return found


def moments(
    samplers: Annotated[
        list[str] | None, typer.Argument(help=f"Of {', '.join(SAMPLERS)}; all if none is named.")
    ] = None,
    steps: Annotated[str, typer.Option(help="Numbers of steps, rising.")] = ",".join(map(str, STEPS)),
    variances: Annotated[str, typer.Option(help="Variances of the data along their axes.")] = "0.05,0.25,1",
    mean: Annotated[float, typer.Option(help="Size of the entries of the data's mean.")] = 1.5,
    out: Annotated[Path, typer.Option(help="The picture: error against evaluations.")] = Path("closedform-moments.png"),
    as_json: Annotated[bool, typer.Option("--json", help="Print stable JSON instead of tables.")] = False,
):
    """A sampler's exact error against its steps for Gaussian data, with the measured order: tables and a picture."""
    err = Console(stderr=True)
    try:
        counts = [int(n) for n in steps.split(",")]
        data = gaussian([float(v) for v in variances.split(",")], mean)
        if not all(float(v) > 0 for v in variances.split(",")) or not math.isfinite(mean) or mean == 0:
            raise ValueError(
                f"moments: variances {variances}, mean {mean}; needed positive numbers and a mean that is not 0"
            )
        names = list(samplers or SAMPLERS)
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
        with Progress(*columns, console=err, transient=True, disable=as_json) as bar:
            task = bar.add_task("moments", total=len(names) * len(counts))
            found = {}
            for name in names:
                bar.update(task, description=name)
                found[name] = measure(name, counts, data, tick=lambda row: bar.advance(task))
        drawn = picture(out, found)
    except (ValueError, OSError) as error:
        err.print(f"closedform: {error}", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(2) from error
    if as_json:
        print(json.dumps({name: [r._asdict() for r in rows] for name, rows in found.items()}, indent=1))
        return
    console = Console()
    for name, rows in found.items():
        console.print(table(name, rows))
    console.print(f"wrote {drawn}")
