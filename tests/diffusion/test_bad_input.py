"""What the algorithms of diffusion say of bad input: function, what arrived, what was needed."""

import numpy as np
import pytest

from ref.diffusion.alpha_bar import alpha_bar
from ref.diffusion.ancestral_ve import ancestral_ve
from ref.diffusion.annealed_langevin import annealed_langevin
from ref.diffusion.convert import convert
from ref.diffusion.cosine_schedule import cosine_schedule
from ref.diffusion.ddim import ddim
from ref.diffusion.ddpm import ddpm
from ref.diffusion.denoising_score_matching import denoising_score_matching
from ref.diffusion.discrete_sde import discrete_sde
from ref.diffusion.discretized_gaussian import discretized_gaussian
from ref.diffusion.divergence import divergence
from ref.diffusion.dpm_solver_1 import dpm_solver_1
from ref.diffusion.dpm_solver_2 import dpm_solver_2
from ref.diffusion.dpm_solver_pp_2m import dpm_solver_pp_2m
from ref.diffusion.edm import edm
from ref.diffusion.edm_precondition import edm_precondition
from ref.diffusion.edm_sigmas import edm_sigmas
from ref.diffusion.empirical_score import empirical_score
from ref.diffusion.euler_maruyama import euler_maruyama
from ref.diffusion.explicit_score_matching import explicit_score_matching
from ref.diffusion.flow_matching_loss import flow_matching_loss
from ref.diffusion.flow_path import flow_path
from ref.diffusion.flow_sampler import flow_sampler
from ref.diffusion.gaussian_flow import gaussian_flow
from ref.diffusion.gaussian_model import gaussian_model
from ref.diffusion.gaussian_velocity import gaussian_velocity
from ref.diffusion.guided import guided
from ref.diffusion.implicit_score_matching import implicit_score_matching
from ref.diffusion.langevin import langevin
from ref.diffusion.langevin_corrector import langevin_corrector
from ref.diffusion.linear_schedule import linear_schedule
from ref.diffusion.mala import mala
from ref.diffusion.ncsnv2_sigmas import ncsnv2_sigmas
from ref.diffusion.ncsnv2_step_size import ncsnv2_step_size
from ref.diffusion.noised import noised
from ref.diffusion.ode_log_likelihood import ode_log_likelihood
from ref.diffusion.posterior import posterior
from ref.diffusion.predictor_corrector import predictor_corrector
from ref.diffusion.prior_kl import prior_kl
from ref.diffusion.probability_flow import probability_flow
from ref.diffusion.propagate_moments import propagate_moments
from ref.diffusion.reverse_diffusion import reverse_diffusion, ve_forward, vp_forward
from ref.diffusion.reverse_kernel import reverse_kernel
from ref.diffusion.reverse_sde import reverse_sde
from ref.diffusion.run_stages import Stage, run_stages
from ref.diffusion.simple_loss import simple_loss
from ref.diffusion.sliced_score_matching import sliced_score_matching
from ref.diffusion.sub_vp import sub_vp
from ref.diffusion.timesteps import timesteps
from ref.diffusion.tweedie import tweedie
from ref.diffusion.ve import ve
from ref.diffusion.vlb_term import vlb_term
from ref.diffusion.vp import vp

X, Z, ONE = np.ones((2, 3)), np.zeros((2, 3)), np.array(1)
T = np.array([1, 2])
BARS = np.array([0.9, 0.5])
LINE = lambda x, t=None: x * -1.0  # noqa: E731
SHORT = lambda x, t=None: x[..., :1]  # noqa: E731
F32 = X.astype(np.float32)
STAGES = [Stage(1.0, 1.0, 0.5, noise=1.0)]

SCHEDULES = [
    (linear_schedule, (0,), {}, "T=0 steps; needed at least 1"),
    (linear_schedule, (5,), {"first": 0.0}, r"first=0.0; needed a number in \(0, 1\)"),
    (linear_schedule, (5,), {"last": 1.0}, r"last=1.0; needed a number in \(0, 1\)"),
    (cosine_schedule, (-1,), {}, "T=-1 steps"),
    (cosine_schedule, (5,), {"offset": -1.0}, "offset=-1.0; needed a finite number >= 0"),
    (cosine_schedule, (5,), {"largest": 1.0}, r"largest=1.0; needed a number in \(0, 1\)"),
    (alpha_bar, (np.array([0.1, 1.0]),), {}, r"beta\[1\]=1.0; needed numbers in \(0, 1\)"),
    (alpha_bar, (np.array([0.1, 0.2, -0.5, 0.0]),), {}, r"beta\[2\]=-0.5"),
    (alpha_bar, (np.array([np.nan]),), {}, r"beta\[0\]=nan"),
    (timesteps, (4, 5), {}, "count=5 of total=4 steps"),
    (timesteps, (4, 0), {}, "T=0 steps"),
    (timesteps, (4, 2), {"spacing": "even"}, "spacing='even'; needed one of"),
    (edm_sigmas, (0,), {}, "T=0 steps"),
    (edm_sigmas, (3,), {"sigma_min": 2.0, "sigma_max": 1.0}, "needed 0 < sigma_min < sigma_max"),
    (edm_sigmas, (3,), {"rho": 0.0}, "rho=0.0; needed a positive finite number"),
    (ncsnv2_sigmas, (X[:1],), {}, "data has n=1, d=3"),
    (ncsnv2_sigmas, (X,), {}, "smallest=0.01, largest distance 0.0"),
    (ncsnv2_step_size, (np.array([1.0]),), {"steps": 3}, "sigmas has L=1; needed at least 2"),
    (ncsnv2_step_size, (np.array([1.0, 2.0]),), {"steps": 3}, r"sigmas\[1\]=2.0 after 1.0"),
    (ncsnv2_step_size, (np.array([2.0, 1.0]),), {"steps": 0}, "steps=0; needed at least 1"),
    (ncsnv2_step_size, (np.array([2.0, 1.0]),), {"steps": 1, "convention": "v1"}, "convention='v1'"),
]  # fmt: skip

FORWARD = [
    (noised, (X, np.array([0, 1]), Z, BARS), {}, r"t has 0; needed steps in 1 .. 2"),
    (noised, (X, np.array([1, 3]), Z, BARS), {}, r"t has 3; needed steps in 1 .. 2"),
    (noised, (X, np.array([1, 1, 1]), Z, BARS), {}, r"t has shape \(3,\); needed leading axes of \(2, 3\)"),
    (noised, (X, T, Z[:1], BARS), {}, r"noise has S=\(1, 3\), x0 has S=\(2, 3\)"),
    (posterior, (X, Z, 3, BARS), {}, "t has 3"),
    (reverse_kernel, (X, Z, T, BARS), {"prediction": "mean"}, "prediction='mean'; needed one of"),
    (reverse_kernel, (X, Z, T, BARS), {"variance": "middle"}, "variance='middle'; needed one of"),
    (reverse_kernel, (X, Z, T, BARS), {"variance": "learned"}, "mix missing for variance='learned'"),
    (reverse_kernel, (X, Z, T, BARS, X), {}, "mix given for variance='small'"),
    (simple_loss, (X, T, Z, BARS), {"model": SHORT}, r"the model's output has shape \(2, 1\); needed \(2, 3\)"),
    (simple_loss, (X, T, Z, BARS), {"model": LINE, "reduction": "max"}, "reduction='max'"),
    (simple_loss, (X, T, Z, BARS), {"model": LINE, "prediction": "mu"}, "prediction='mu'"),
    (vlb_term, (X, T, Z, BARS), {"model": LINE, "decoder": "pixel"}, "decoder='pixel'"),
    (vlb_term, (X, np.array([1, 9]), Z, BARS), {"model": LINE}, "t has 9"),
    (prior_kl, (X, np.zeros(0)), {}, "alpha_bar has N=0 steps"),
    (prior_kl, (X, np.array([0.5, 1.5])), {}, r"alpha_bar\[1\]=1.5"),
    (discretized_gaussian, (X, Z, X), {"bins": 1}, "bins=1"),
    (discretized_gaussian, (X, Z, Z), {}, "std has a number that is not positive"),
    (discretized_gaussian, (X, Z, X), {"low": 1.0, "high": 1.0}, "needed bins >= 2 and low < high"),
    (convert, (X, Z, BARS, BARS), {"source": "mu"}, "source='mu'; needed one of"),
    (convert, (X, Z, BARS[:1], BARS[:1]), {}, r"scale has shape \(1,\); needed leading axes of \(2, 3\)"),
    (guided, (X, Z), {"strength": np.inf}, "strength=inf; needed a finite number"),
    (guided, (X, Z), {"strength": 1.0, "convention": "s"}, "convention='s'"),
    (guided, (X, Z[:1]), {"strength": 1.0}, r"unconditional has S=\(1, 3\)"),
    (flow_path, (X, Z, np.array([0.5, 1.5])), {}, r"t has 1.5; needed times in \[0, 1\]"),
    (flow_path, (X, Z, np.array([-0.5, 0.5])), {}, "t has -0.5"),
    (flow_path, (X, Z, BARS), {"sigma_min": 1.0}, "sigma_min=1.0"),
    (flow_matching_loss, (X, Z, BARS), {"velocity": SHORT}, "the velocity has shape"),
    (flow_matching_loss, (X, Z, BARS), {"velocity": LINE, "reduction": "max"}, "reduction='max'"),
]  # fmt: skip

SCORES = [
    (divergence, (X,), {"field": SHORT}, r"the field has shape \(2, 1\)"),
    (divergence, (X, Z), {"field": LINE}, r"probes has shape \(2, 3\); needed K > 0 arrays of shape \(2, 3\)"),
    (divergence, (X, np.zeros((0, 2, 3))), {"field": LINE}, r"probes has shape \(0, 2, 3\)"),
    (explicit_score_matching, (X, Z), {"score": SHORT}, "the score has shape"),
    (explicit_score_matching, (X, Z[:, :2]), {"score": LINE}, "target has d=2, x has d=3"),
    (implicit_score_matching, (X,), {"score": SHORT}, "the field has shape"),
    (denoising_score_matching, (X, Z, np.array([1.0, 0.0])), {"score": LINE}, "std has a number that is not positive"),
    (denoising_score_matching, (X, Z, BARS), {"score": SHORT}, "the score has shape"),
    (denoising_score_matching, (X, Z, BARS), {"score": LINE, "weighting": "all"}, "weighting='all'"),
    (sliced_score_matching, (X, Z), {"score": LINE}, r"probes has shape \(2, 3\)"),
    (sliced_score_matching, (X, Z[None]), {"score": SHORT}, "the score has shape"),
    (tweedie, (X, Z, BARS[:1], BARS[:1]), {}, r"scale has shape \(1,\)"),
    (empirical_score, (X, Z[:0]), {"std": 1.0}, "data has n=0 points"),
    (empirical_score, (X, Z), {"std": 0.0}, "std=0.0; needed a positive finite number"),
    (empirical_score, (X, Z[:, :2]), {"std": 1.0}, "data has d=2, x has d=3"),
    (gaussian_model, (X, X[0], np.eye(2)), {"scale": 1.0, "std": 1.0}, "cov has d=2, x has d=3"),
    (gaussian_model, (X, X[0], np.eye(3)), {"scale": 1.0, "std": 1.0, "prediction": "u"}, "prediction='u'"),
    (gaussian_flow, (X, X[0], 0 * np.eye(3)), {"start": (1.0, 0.0), "end": (1.0, 1.0)}, "leaves a singular covariance"),
    (gaussian_velocity, (X, X[0], np.eye(3)), {"t": 1.5}, r"t=1.5; needed a time in \[0, 1\]"),
    (propagate_moments, (X[0], np.eye(2)), {"stages": [], "model": None}, "cov has d=2, mean has d=3"),
    (propagate_moments, (X[0], np.eye(3)), {"stages": STAGES, "model": lambda t: (np.eye(2), X[0])},
     "K has d=2, mean has d=3"),
]  # fmt: skip

VE_SDE = {"sde": ve, "score": LINE}
SDES = [
    (vp, (1.5,), {}, r"t has 1.5; needed times in \[0, 1\]"),
    (vp, (np.array([0.5, -1.0]),), {}, "t has -1.0"),
    (vp, (0.5,), {"beta_min": 0.0}, "beta_min=0.0"),
    (ve, (-0.5,), {}, "t has -0.5"),
    (ve, (0.5,), {"sigma_min": 2.0, "sigma_max": 1.0}, "needed 0 < sigma_min < sigma_max"),
    (sub_vp, (np.array([2.0]),), {}, "t has 2.0"),
    (sub_vp, (0.5,), {"beta_max": np.inf}, "beta_max=inf"),
    (discrete_sde, (3.0, BARS), {}, r"t has 3.0; needed times in \[0, 2\]"),
    (discrete_sde, (0.5, np.zeros(0)), {}, "alpha_bar has N=0 steps"),
    (discrete_sde, (0.5, np.array([0.5, 0.0])), {}, r"alpha_bar\[1\]=0.0"),
    (reverse_sde, (X, Z, BARS), {"sde": vp, "lam": -1.0}, "lam=-1.0; needed a finite number >= 0"),
    (euler_maruyama, (X, Z), {**VE_SDE, "times": [0.5, 1.0]}, r"times\[1\]=1.0 after 0.5; needed numbers that fall"),
    (euler_maruyama, (X,), {**VE_SDE, "times": [1.0, 0.5, 0.7], "lam": 0.0}, r"times\[2\]=0.7 after 0.5"),
    (euler_maruyama, (X,), {**VE_SDE, "times": [1.0]}, "times has 1 entries; needed at least two"),
    (euler_maruyama, (X,), {**VE_SDE, "times": [1.0, 0.5, 0.2]}, "noise has 0 draws; needed 1"),
    (probability_flow, (X,), {**VE_SDE, "times": [1.0, 0.5], "method": "rk4"}, "method='rk4'"),
    (probability_flow, (X,), {"sde": ve, "score": SHORT, "times": [1.0, 0.5]}, "the model's output has shape"),
    (reverse_diffusion, (X, Z), {"score": LINE, "times": [1], "gains": [1, 1], "spreads": [1]},
     "1 times, 2 gains, 1 spreads"),
    (reverse_diffusion, (X, Z), {"score": LINE, "times": [1], "gains": [1], "spreads": [0]}, r"spreads\[0\]=0.0"),
    (ve_forward, ([1.0, 2.0],), {}, r"sigmas\[1\]=2.0 after 1.0"),
    (ve_forward, ([2.0, 0.0, -1.0],), {}, r"sigmas\[1\]=0.0 after 2.0"),
    (vp_forward, ([0.5, 1.0],), {}, r"beta\[1\]=1.0; needed numbers in \(0, 1\)"),
    (ancestral_ve, (X, Z), {"score": LINE, "sigmas": [1.0]}, "sigmas has 1 entries; needed at least two"),
    (ancestral_ve, (X, Z), {"score": LINE, "sigmas": [1.0, 1.0]}, r"sigmas\[1\]=1.0 after 1.0"),
    (langevin, (X, Z), {"score": LINE, "step": 0.0, "steps": 1}, "step=0.0; needed a positive finite number"),
    (langevin, (X, Z), {"score": LINE, "step": 1.0, "steps": -1}, "steps=-1"),
    (langevin, (X, Z[None]), {"score": LINE, "step": 1.0, "steps": 2}, "noise has 1 draws; needed 2"),
    (langevin, (X, Z[None]), {"score": LINE, "step": 1.0, "steps": 1, "convention": "v2"}, "convention='v2'"),
    (annealed_langevin, (X, Z), {"score": LINE, "sigmas": [1.0, 2.0], "step": 1.0, "steps": 1},
     r"sigmas\[1\]=2.0 after 1.0"),
    (annealed_langevin, (X, Z), {"score": LINE, "sigmas": [], "step": 1.0, "steps": 1}, "sigmas is empty"),
    (annealed_langevin, (X, Z), {"score": LINE, "sigmas": [1.0], "step": 1.0, "steps": 0}, "steps=0 a level"),
    (mala, (X, Z, BARS), {"log_density": lambda x: x, "score": LINE, "step": 1.0}, "the log-density has shape"),
    (mala, (X, Z, BARS), {"log_density": lambda x: x.sum(-1), "score": LINE, "step": -1.0}, "step=-1.0"),
    (langevin_corrector, (X, Z, Z), {"snr": 0.0}, "snr=0.0"),
    (langevin_corrector, (X, Z, Z), {"snr": 1.0, "norms": "all"}, "norms='all'"),
    (predictor_corrector, (X, Z), {"score": LINE, "stages": STAGES, "after": [], "snr": 1.0},
     "1 stages, 0 levels after"),
    (predictor_corrector, (X, Z), {"score": LINE, "stages": STAGES, "after": [1.0], "snr": 1.0, "corrections": -1},
     "corrections=-1"),
    (ode_log_likelihood, (X,), {**VE_SDE, "times": [1.0, 0.5]}, r"times\[1\]=0.5 after 1.0; needed numbers that rise"),
    (ode_log_likelihood, (X, Z), {**VE_SDE, "times": [0.5, 1.0]}, "probes has shape"),
    (ode_log_likelihood, (X,), {**VE_SDE, "times": [0.5, 1.0], "log_prior": LINE}, r"the prior has shape \(2, 3\)"),
    (edm, (X,), {"denoiser": LINE, "sigmas": [2.0, 3.0, 1.0]}, r"sigmas\[2\]=1.0 after 3.0; needed numbers that rise"),
    (edm, (X,), {"denoiser": LINE, "sigmas": [2.0, 0.0, -1.0]}, r"sigmas\[1\]=0.0 after 2.0"),
    (edm, (X,), {"denoiser": LINE, "sigmas": [2.0, 1.0], "order": 3}, "order=3; needed 1 or 2"),
    (edm, (X,), {"denoiser": LINE, "sigmas": [2.0, 1.0], "churn": -1.0}, "churn=-1.0"),
    (edm, (X,), {"denoiser": LINE, "sigmas": [1.0, 2.0], "churn": 1.0},
     r"sigmas\[1\]=2.0 after 1.0; needed numbers that fall"),
    (edm_precondition, (np.array([1.0, 0.0]),), {}, "sigma has a number that is not positive"),
    (edm_precondition, (BARS,), {"sigma_data": 0.0}, "sigma_data=0.0"),
    (dpm_solver_1, (X,), {"model": LINE, "sde": vp, "times": [1.0, 1.0]}, r"times\[1\]=1.0 after 1.0"),
    (dpm_solver_1, (X,), {"model": LINE, "sde": vp, "times": [1.0, 0.5], "prediction": "u"}, "prediction='u'"),
    (dpm_solver_2, (X,), {"model": LINE, "sde": vp, "times": [1.0, 0.0]}, "std=0.0 at t=0.0; needed a positive std"),
    (dpm_solver_pp_2m, (X,), {"model": SHORT, "sde": vp, "times": [1.0, 0.5]}, "the model's output has shape"),
    (flow_sampler, (X,), {"velocity": LINE, "times": [0.0, 0.5, 0.5]},
     r"times\[2\]=0.5 after 0.5; needed numbers that rise"),
    (flow_sampler, (X,), {"velocity": LINE, "times": [0.0, 1.0], "method": "rk4"}, "method='rk4'"),
]  # fmt: skip

SAMPLE = {"model": LINE, "alpha_bar": BARS}
SAMPLERS = [
    (run_stages, (X, None), {"stages": STAGES, "model": LINE}, "noise has 0 draws; needed 1, of shape"),
    (run_stages, (X, np.zeros((1, 2))), {"stages": STAGES, "model": LINE}, r"draw 0 of the noise has shape \(2,\)"),
    (run_stages, (X, [Z]), {"stages": STAGES, "model": SHORT}, "the model's output has shape"),
    (ddpm, (X, Z), {**SAMPLE, "alpha_bar": [0.9, 0.95]}, r"alpha_bar\[1\]=0.95 after 0.9; needed numbers that fall"),
    (ddpm, (X, Z), {**SAMPLE, "alpha_bar": [1.0, 0.5]}, r"alpha_bar\[0\]=1.0 after 1.0"),
    (ddpm, (X, Z), {**SAMPLE, "steps": [2, 1]}, "steps has 1 after 2; needed a strictly rising subsequence"),
    (ddpm, (X, Z), {**SAMPLE, "steps": [1, 1]}, "steps has 1 after 1"),
    (ddpm, (X, Z), {**SAMPLE, "steps": [0, 1]}, r"steps has t=0; needed steps in 1 .. 2"),
    (ddpm, (X, Z), {**SAMPLE, "steps": [1, 3]}, "steps has t=3"),
    (ddpm, (X, Z), {**SAMPLE, "steps": []}, "steps is empty"),
    (ddpm, (X, Z), {**SAMPLE, "variance": "mid"}, "variance='mid'"),
    (ddpm, (X, Z), {**SAMPLE, "prediction": "mu"}, "prediction='mu'"),
    (ddpm, (X, Z), {**SAMPLE, "clip": 0.0}, "clip=0.0; needed a number > 0"),
    (ddpm, (X, None), SAMPLE, "noise has 0 draws; needed 1"),
    (ddpm, (X, [Z]), {**SAMPLE, "variance": "learned", "model": lambda x, t: (x, x[:1])}, "the model's mix has shape"),
    (ddim, (X,), {**SAMPLE, "eta": 1.5}, r"eta=1.5; needed a number in \[0, 1\]"),
    (ddim, (X,), {**SAMPLE, "eta": 0.5}, "noise has 0 draws; needed 1"),
    (ddim, (X,), {**SAMPLE, "steps": [2, 2]}, "steps has 2 after 2"),
    (ddim, (X,), {**SAMPLE, "model": SHORT}, "the model's output has shape"),
]  # fmt: skip

ALL = SCHEDULES + FORWARD + SCORES + SDES + SAMPLERS


@pytest.mark.parametrize(
    "function, args, options, said", ALL, ids=[f"{f.__name__}-{i}" for i, (f, *_) in enumerate(ALL)]
)
def test_bad_values(function, args, options, said):
    with pytest.raises(ValueError, match=said) as caught:
        function(*args, **options)
    name = str(caught.value).split(":")[0]
    assert name.isidentifier(), f"the message does not begin with a function's name: {caught.value}"


TYPES = [
    (linear_schedule, (5.0,), {}),
    (alpha_bar, (np.array([1, 0]),), {}),
    (noised, (X, T * 1.0, Z, BARS), {}),
    (noised, (X, T, Z.astype(np.float32), BARS), {}),
    (simple_loss, (X, [1, 2], Z, BARS), {"model": LINE}),
    (run_stages, ([1.0], None), {"stages": [], "model": LINE}),
    (ddpm, (X.astype(int), Z), SAMPLE),
    (ddim, (1.0,), SAMPLE),
    (vp, (np.array([1]),), {}),
    (langevin, (X, Z), {"score": LINE, "step": 1.0, "steps": 1.5}),
    (flow_sampler, ([1.0],), {"velocity": LINE, "times": [0.0, 1.0]}),
    (implicit_score_matching, (X.astype(int),), {"score": LINE}),
    (gaussian_model, (F32, X[0], np.eye(3)), {"scale": 1.0, "std": 1.0}),
]


@pytest.mark.parametrize("function, args, options", TYPES, ids=[f"{f.__name__}-{i}" for i, (f, *_) in enumerate(TYPES)])
def test_bad_types(function, args, options):
    with pytest.raises(TypeError):
        function(*args, **options)


def test_float32_samples_stay_float32_under_a_float64_schedule():
    out = ddim(F32, model=LINE, alpha_bar=BARS)
    assert out.dtype == np.float32
    assert ddpm(F32, np.random.default_rng(0), model=LINE, alpha_bar=BARS).dtype == np.float32
    assert noised(F32, T, F32, BARS).dtype == np.float32
    assert simple_loss(F32, T, F32, BARS, model=LINE).dtype == np.float32


def test_coefficients_are_formed_in_the_schedules_own_dtype():
    """1 - alpha_bar of 1e-4 in float32 would be off by a part in a thousand."""
    bars = alpha_bar(linear_schedule(1000))
    found = noised(np.zeros(1, np.float32), np.array([1]), np.ones(1, np.float32), bars)
    assert abs(float(found[0]) / np.sqrt(1e-4) - 1) < 1e-7
    _, variance = posterior(np.zeros(1, np.float32), np.zeros(1, np.float32), np.array([2]), bars)
    exact = (1 - bars[0]) / (1 - bars[1]) * (1 - bars[1] / bars[0])
    assert abs(float(variance[0]) / exact - 1) < 1e-6
