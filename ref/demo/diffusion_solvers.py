"""Solvers of one trained model: evaluations of the network against the Frechet distance of what they make.

    every solver starts from the same noise at step T and ends on the x_0 that the network predicts at step 1
    ddpm, ddim             a subsequence of the steps, spaced "linspace"
    edm                    Heun on x / a in sigma = b / a, over the levels of EDM's Eq. 5
    dpm-solver-1, -2, ++2m even steps in ln(a / b); between the steps the schedule is `diffusion.discrete_sde`
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import numpy as np

from ref.demo import digits
from ref.demo.diffusion import T, model, schedule, start
from ref.diffusion.ddim import ddim
from ref.diffusion.ddpm import ddpm
from ref.diffusion.discrete_sde import discrete_sde
from ref.diffusion.dpm_solver_1 import dpm_solver_1
from ref.diffusion.dpm_solver_2 import dpm_solver_2
from ref.diffusion.dpm_solver_pp_2m import dpm_solver_pp_2m
from ref.diffusion.edm import edm
from ref.diffusion.edm_sigmas import edm_sigmas
from ref.diffusion.timesteps import timesteps

BUDGETS = (5, 10, 20, 50, 100)


class Row(NamedTuple):
    """A run: evaluations of the network for each image, and the scores of its samples."""

    evaluations: int
    scores: digits.Scores


def time_of(sigma, bars):
    """The step, between steps too, at which std / scale is sigma."""
    logs = np.concatenate([[0.0], np.log(bars)])
    return np.interp(np.log1p(np.square(sigma)), -logs, np.arange(len(logs)))


def sigma_at(t, bars):
    """std / scale at step t = 1 .. T."""
    return float(np.sqrt((1 - bars[t - 1]) / bars[t - 1]))


def even_times(count, bars):
    """count + 1 times from T to 1 with equal steps in ln(scale / std)."""
    times = time_of(np.geomspace(sigma_at(T, bars), sigma_at(1, bars), count + 1), bars)
    times[[0, -1]] = T, 1
    return times


def _ddpm(n, x, eps, bars, g):
    return ddpm(x, g, model=eps, alpha_bar=bars, steps=timesteps(T, n, spacing="linspace"))


def _ddim(n, x, eps, bars, g):
    return ddim(x, model=eps, alpha_bar=bars, steps=timesteps(T, n, spacing="linspace"))


def _edm(n, x, eps, bars, g):
    """(n + 1) / 2 steps: two evaluations each, one at the last."""
    most, least = (sigma_at(t, bars) for t in (T, 1))

    def denoiser(y, sigma):
        scale = 1 / np.sqrt(1 + sigma**2)
        return y - eps(y * np.float32(scale), float(time_of(sigma, bars))) * np.float32(sigma)

    y = x * np.float32(np.sqrt(1 + most**2))
    return edm(y, denoiser=denoiser, sigmas=edm_sigmas(max((n + 1) // 2, 2), sigma_min=least, sigma_max=most))


def _to_data(x, eps, bars):
    """The predicted x_0 at step 1."""
    return dpm_solver_1(x, model=eps, sde=partial(discrete_sde, alpha_bar=bars), times=[1.0, 0.0])


def _dpm_1(n, x, eps, bars, g):
    times = [*even_times(n - 1, bars), 0.0]
    return dpm_solver_1(x, model=eps, sde=partial(discrete_sde, alpha_bar=bars), times=times)


def _dpm_2(n, x, eps, bars, g):
    times = even_times((n - 1) // 2, bars)
    return _to_data(dpm_solver_2(x, model=eps, sde=partial(discrete_sde, alpha_bar=bars), times=times), eps, bars)


def _dpm_pp_2m(n, x, eps, bars, g):
    times = [*even_times(n - 1, bars), 0.0]
    return dpm_solver_pp_2m(x, model=eps, sde=partial(discrete_sde, alpha_bar=bars), times=times)


SOLVERS = {
    "ddpm": _ddpm,
    "ddim": _ddim,
    "edm (heun)": _edm,
    "dpm-solver-1": _dpm_1,
    "dpm-solver-2": _dpm_2,
    "dpm-solver++2m": _dpm_pp_2m,
}


def run(name, budget, params, count=digits.SAMPLES, seed=0):
    """(evaluations, samples float32[count 64]) of a solver within a budget of evaluations, at least 3."""
    if name not in SOLVERS or not 3 <= budget <= T:
        raise ValueError(f"run: {name!r} with {budget} evaluations; needed one of {tuple(SOLVERS)}, and 3 to {T}")
    g, x = start(count, seed)
    eps, asked = model(params, digits.asked(count)), []

    def counting(x, t):
        asked.append(t)
        return eps(x, t)

    found = SOLVERS[name](budget, x, counting, schedule(), g)
    return len(asked), found


def compare(params, judge, *, budgets=BUDGETS, count=digits.SAMPLES, seed=0, tick=lambda name, row: None):
    """{solver: list of Row}; `tick` is called with each."""
    found = {}
    for name in SOLVERS:
        found[name] = []
        for budget in budgets:
            evaluations, x = run(name, budget, params, count, seed)
            found[name].append(Row(evaluations, digits.scores(judge, x, digits.asked(count))))
            tick(name, found[name][-1])
    return found
