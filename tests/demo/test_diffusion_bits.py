"""`closedform train-diffusion bits`: the flow's density where it is known, and in a deep run the bar."""

import math
import os

import numpy as np
import pytest
from typer.testing import CliRunner

from ref.cli.app import app
from ref.demo import diffusion_bits, diffusion_command, digits
from ref.demo.diffusion import Plan
from ref.diffusion.gaussian_model import gaussian_model

DEEP = os.environ.get("CLOSEDFORM_PROFILE") == "deep"


@pytest.fixture(scope="module")
def data():
    return digits.load()


@pytest.fixture(scope="module")
def base(data):
    return diffusion_bits.gaussian(data.x)


def test_the_kernel_solves_the_moment_equations():
    """a' = f a, (b^2)' = 2 f b^2 + g^2, with ln(b^2 / a^2) on a straight line and a^2 + b^2 = 1."""
    h = 1e-5
    for t in (0.1, 0.5, 0.9):
        f, g, a, b = diffusion_bits.straight(t)
        up, down = diffusion_bits.straight(t + h), diffusion_bits.straight(t - h)
        assert (up.scale - down.scale) / (2 * h) == pytest.approx(f * a, rel=1e-6)
        assert (up.std**2 - down.std**2) / (2 * h) == pytest.approx(2 * f * b * b + g * g, rel=1e-6)
        assert a * a + b * b == pytest.approx(1)
        assert math.log(b * b / (a * a)) == pytest.approx(-7 + 16 * t)
    many = diffusion_bits.straight(np.array([0.1, 0.9]))
    assert [c[1] for c in many] == pytest.approx(list(diffusion_bits.straight(0.9)))


def test_dequantised_images_stay_in_their_cells(data):
    y = diffusion_bits.dequantised(data.x, np.random.default_rng(0))
    assert np.array_equal(np.floor((y.astype(np.float64) + 1) / 2 * 17 + 1e-6 * (y < 0)), (data.x + 1) * 8)
    inside = (y + 1) / 2 * 17 - (data.x + 1) * 8
    assert abs(inside.mean() - 0.5) < 0.005 and abs(inside.var() - 1 / 12) < 0.001


def test_the_gaussian_is_that_of_dequantised_images(data, base):
    g = np.random.default_rng(1)
    y = np.concatenate([diffusion_bits.dequantised(data.x, g) for _ in range(20)]).astype(np.float64)
    assert np.abs(base.mean - y.mean(0)).max() < 1e-3
    assert np.abs(base.vectors * base.values @ base.vectors.T - np.cov(y.T)).max() < 2e-3


def test_a_silent_network_leaves_the_exact_model_of_the_gaussian(base):
    g = np.random.default_rng(2)
    params = {n: a.astype(np.float64) for n, a in diffusion_bits.initial(g, hidden=4).items()}
    y, cov = g.standard_normal((5, 64)), base.vectors * base.values @ base.vectors.T
    for t in (0.05, 0.6):
        *_, a, b = diffusion_bits.straight(t)
        wanted = gaussian_model(y, base.mean, cov, scale=a, std=b, prediction="eps")
        np.testing.assert_allclose(diffusion_bits.eps(y, t, params, base), wanted, rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(diffusion_bits.eps(y, np.full(5, t), params, base), wanted, rtol=1e-8, atol=1e-10)
    loud = {n: a + 100 for n, a in params.items()}
    difference = np.abs(diffusion_bits.eps(y, t, loud, base) - wanted)
    assert difference.max() <= 3 * a + 1e-9 and difference.min() > 0


def test_bits_of_the_gaussian_flow_in_closed_form(data, base):
    """z_T = a_T m + sqrt(V_T / V_0) (y - a_0 m) along every eigenvector, p(y) = N(z_T; 0, I) sqrt(det V_T / V_0)."""
    x, params = data.held_x[:2], diffusion_bits.initial(np.random.default_rng(3), hidden=2)
    y = diffusion_bits.dequantised(x, np.random.default_rng((0, 3))).astype(np.float64)
    (a, b), (a_to, b_to) = (diffusion_bits.straight(t)[2:] for t in (0.0, 1.0))
    V, V_to = a * a * base.values + b * b, a_to**2 * base.values + b_to**2
    z = (y - a * base.mean) @ base.vectors * np.sqrt(V_to / V) + a_to * base.mean @ base.vectors
    nats = ((z * z).sum(1) + 64 * math.log(2 * math.pi) - np.log(V_to / V).sum()) / 2
    wanted = nats / (64 * math.log(2)) - math.log2(2 / 17)
    found = diffusion_bits.bits_per_dimension(params, base, x, steps=8, part=1)
    assert found.half.shape == found.each.shape == (2,)
    off, before = np.abs(found.each - wanted).max(), np.abs(found.half - wanted).max()
    assert off < 0.02 and off < before / 8  # order 4: a sixteenth, near enough
    assert found.mean == pytest.approx(found.each.mean())
    assert found.solver_error == pytest.approx(abs(found.each.mean() - found.half.mean()))
    with pytest.raises(ValueError, match="steps=3; needed an even number"):
        diffusion_bits.bits_per_dimension(params, base, x, steps=3)


def test_references_by_draws_and_by_counting(data, base):
    found = diffusion_bits.references(data.x, data.held_x)
    assert found["uniform"] == pytest.approx(4.087, abs=1e-3)
    g, logs = np.random.default_rng(4), []
    for _ in range(20):
        off = (diffusion_bits.dequantised(data.held_x, g) - base.mean) @ base.vectors
        logs.append(((off**2 / base.values).sum(1) + np.log(2 * np.pi * base.values).sum()).mean() / 2)
    assert found["Gaussian fit"] == pytest.approx(np.mean(logs) / (64 * math.log(2)) - math.log2(2 / 17), abs=2e-3)
    v, held = ((part + 1) * 8 for part in (data.x, data.held_x))
    total = sum(math.log2((np.sum(v[:, j] == k) + 1) / 1417) for j in (9, 20, 40) for k in held[:, j])
    few = [diffusion_bits.references(data.x, data.held_x[i : i + 1])["independent histograms"] for i in range(3)]
    own = [-np.mean([math.log2((np.sum(v[:, j] == h[j]) + 1) / 1417) for j in range(64)]) for h in held[:3]]
    assert few == pytest.approx(own) and total < 0


def test_training_is_a_function_of_its_seed(data):
    plan = Plan(steps=3, batch=8)
    (one, base), (again, _), (other, _) = (
        diffusion_bits.train(data.x[:50], plan, seed=s, hidden=8) for s in (0, 0, 1)
    )
    assert one.losses == again.losses != other.losses and base.vectors.shape == (64, 64)


def test_the_command_shows_the_bits_beside_what_needs_no_network(tmp_path, monkeypatch, data):
    """Two steps, two images; in a deep run all of it, and the bar."""
    monkeypatch.setattr(diffusion_command.console, "_width", 120)
    if not DEEP:
        few = digits.Digits(data.x[:200], data.labels[:200], data.held_x[:2], data.held_labels[:2])
        monkeypatch.setattr(digits, "load", lambda: few)
        monkeypatch.setattr(diffusion_bits, "STEPS", 2)
    args = [] if DEEP else ["--steps", "2"]
    with diffusion_command.console.capture() as shown:
        done = CliRunner().invoke(app, ["train-diffusion", "bits", "--out", str(tmp_path), *args])
    print(shown.get())
    assert done.exit_code == 0, done.output
    for said in ("this model", "Gaussian fit", "independent histograms", "uniform", "4.087", "Runge-Kutta steps"):
        assert said in shown.get()
    assert (tmp_path / "bits.png").read_bytes().startswith(b"\x89PNG")
    assert len(list((tmp_path / "bits").glob("step-*.safetensors"))) == 1
