"""`closedform train-diffusion`: the measures, the network and the solvers by closed forms; in a deep run the bars."""

import os
from functools import partial

import numpy as np
import pytest
from scipy.linalg import sqrtm
from typer.testing import CliRunner

from ref.cli.app import app
from ref.demo import charts, diffusion, diffusion_command, diffusion_pictures, diffusion_solvers, digits, digits_net

DEEP = os.environ.get("CLOSEDFORM_PROFILE") == "deep"


@pytest.fixture(scope="module")
def data():
    return digits.load()


@pytest.fixture(scope="module")
def few(data):
    """A hundred images to train on, fifty held out."""
    return digits.Digits(data.x[:100], data.labels[:100], data.held_x[:50], data.held_labels[:50])


@pytest.fixture(scope="module")
def judge(few):
    return digits.fit_judge(few, max_iter=20)


# The measures ----------------------------------------------------------------------------------------


def test_the_parts_are_disjoint_and_in_the_stated_order(data):
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(1797)
    assert [len(a) for a in data] == [1400, 1400, 397, 397]
    assert np.array_equal(np.concatenate([data.x, data.held_x]), images[order] / 8 - 1)
    assert np.array_equal(np.concatenate([data.labels, data.held_labels]), labels[order])


def test_frechet_distance_of_a_scaled_and_shifted_copy():
    """b = c a + s: |(1 - c) m - s|^2 + (1 - c)^2 tr S."""
    g = np.random.default_rng(0)
    for c, rows in ((1.0, 9), (3.0, 9), (0.5, 3)):  # 3 rows of 5: covariances without full rank
        a, s = g.standard_normal((rows, 5)) @ g.standard_normal((5, 5)), g.standard_normal(5)
        wanted = np.sum(((1 - c) * a.mean(0) - s) ** 2) + (1 - c) ** 2 * np.trace(np.cov(a.T))
        assert digits.frechet(a, c * a + s) == pytest.approx(wanted, rel=1e-6, abs=1e-6)


def test_frechet_distance_by_the_root_of_the_product():
    g = np.random.default_rng(1)
    a, b = g.standard_normal((20, 4)), g.standard_normal((30, 4)) @ g.standard_normal((4, 4)) + 1
    S, R = np.cov(a.T), np.cov(b.T)
    wanted = np.sum((a.mean(0) - b.mean(0)) ** 2) + np.trace(S + R - 2 * sqrtm(S @ R).real)
    assert digits.frechet(a, b) == pytest.approx(wanted) == digits.frechet(b, a)


def test_the_nearest_image_by_a_search():
    g = np.random.default_rng(2)
    x, others = g.standard_normal((7, 5)), g.standard_normal((9, 5))
    found, at = digits.nearest(x, others)
    for i, row in enumerate(x):
        each = [np.linalg.norm(row - o) for o in others]
        assert at[i] == np.argmin(each) and found[i] == pytest.approx(min(each))


def test_scores_clip_and_know_a_copy(few, judge):
    seen = judge.classifier.predict(few.x)
    copy = digits.scores(judge, few.x, seen)
    assert copy.nearest < 1e-6 and copy.agreement == 1
    beyond = digits.scores(judge, np.where(few.x >= 1, 5.0, np.where(few.x <= -1, -7.0, few.x)), seen)
    assert beyond == copy
    held = digits.scores(judge, few.held_x)
    assert held.agreement is None and held.nearest == 1 and abs(held.distance) < 1e-6
    assert digits.scores(judge, few.x, np.where(np.arange(100) < 30, seen + 1, seen)).agreement == 0.7
    with pytest.raises(ValueError, match="1 of 100 images are not finite"):
        digits.scores(judge, np.where(np.arange(100)[:, None] == 3, np.nan, few.x))


def test_references_stand_in_their_order(few, judge):
    found = digits.references(judge, few, 100)
    floor, fit, noise = (s.distance for s in found.values())
    assert 0 < floor < noise and fit < noise


# The network -----------------------------------------------------------------------------------------


def test_the_network_written_out():
    g = np.random.default_rng(3)
    p = {n: a.astype(np.float64) for n, a in digits_net.initial(g, hidden=6).items()}
    x, t, labels = g.standard_normal((3, 64)), np.array([1.0, 7.5, 20.0]), np.array([0, 10, 4])
    found = digits_net.network(x, t, labels, p, steps=20)
    for i in range(3):
        angles = 50 * t[i] / 20 * 1e4 ** -(np.arange(32) / 31)
        s = np.concatenate([np.sin(angles), np.cos(angles)])
        h = p["in.weight"] @ x[i] + p["time.weight"] @ s + p["label.weight"] @ p["class.weight"][labels[i]]
        h = h + p["in.bias"] + p["time.bias"] + p["label.bias"]
        for k in range(3):
            n = (h - h.mean()) / np.sqrt(h.var() + 1e-5)
            n = p[f"block.{k}.1.weight"] @ n + p[f"block.{k}.1.bias"]
            h = h + p[f"block.{k}.2.weight"] @ (n / (1 + np.exp(-n))) + p[f"block.{k}.2.bias"]
        np.testing.assert_allclose(found[i], p["out.weight"] @ h + p["out.bias"], rtol=1e-9, atol=1e-10)
    one = digits_net.network(x, 7.5, np.full(3, 10), p, steps=20)
    np.testing.assert_allclose(one[1], found[1], rtol=1e-12)


# Training and sampling -------------------------------------------------------------------------------


def test_descent_ends_at_the_minimum_with_the_average_of_what_it_saw():
    target = {"a": np.arange(3.0), "b": np.full((2, 2), -1.0)}
    path = []

    def loss(p):
        path.append(float(p["a"].data[0]))
        return sum(((p[n] - v) * (p[n] - v)).sum() for n, v in target.items())

    plan = diffusion.Plan(steps=800, lr=0.05, decay=0.9)
    made = diffusion.descend({n: np.full(v.shape, 4.0) for n, v in target.items()}, loss, plan)
    assert all(np.abs(made.params[n] - v).max() < 1e-2 for n, v in target.items())
    assert made.losses[0] == pytest.approx(16 + 9 + 4 + 4 * 25) and len(made.losses) == 800
    short = diffusion.descend({"a": np.full(3, 4.0)}, lambda p: (p["a"] * p["a"]).sum(), plan._replace(steps=1))
    np.testing.assert_allclose(short.params["a"], 0.9 * 4 + 0.1 * (4 - 0.05), rtol=1e-6)  # Adam's first step is lr


def test_descent_refuses_a_loss_that_is_not_finite():
    with pytest.raises(ValueError, match="descend: the loss at step 1 is nan"):
        diffusion.descend({"a": np.ones(2)}, lambda p: (p["a"] * np.nan).sum(), diffusion.Plan(steps=3))


def test_training_is_a_function_of_its_seed_and_lowers_the_loss(few):
    plan = diffusion.Plan(steps=25, batch=32)
    one, again, other = (diffusion.train(few, plan, seed=s) for s in (0, 0, 1))
    assert one.losses == again.losses != other.losses
    assert all(np.array_equal(a, again.params[n]) for n, a in one.params.items())
    assert np.mean(one.losses[-5:]) < 0.6 * np.mean(one.losses[:5])


def test_training_draws_every_step_and_each_image_with_its_label(few, monkeypatch):
    seen, loss, network = [], diffusion.simple_loss, digits_net.network

    def watched_loss(x, t, noise, bars, *, model):
        seen.append([x, t, noise, None])
        return loss(x, t, noise, bars, model=model)

    def watched_network(x, t, labels, p, *, steps):
        seen[-1][3] = labels
        return network(x, t, labels, p, steps=steps)

    monkeypatch.setattr(diffusion, "simple_loss", watched_loss)
    monkeypatch.setattr(digits_net, "network", watched_network)
    diffusion.train(few, diffusion.Plan(steps=2, batch=1500))
    x, t, noise, labels = (np.concatenate(a) for a in zip(*seen, strict=True))
    assert set(t) == set(range(1, 201))  # 3000 draws: all but never one is missing in this seed
    at = {row.tobytes(): label for row, label in zip(few.x, few.labels, strict=True)}
    assert [at[row.tobytes()] for row in x] == labels.tolist() and len({r.tobytes() for r in x}) > 90
    assert abs(noise.mean()) < 0.01 and abs(noise.std() - 1) < 0.01


def test_the_schedule_ends_in_noise():
    bars = diffusion.schedule()
    assert len(bars) == 200 and bars[-1] < 1e-4 and bars[0] == 1 - 5e-4


@pytest.fixture
def point(monkeypatch):
    """Data that are one image: eps = (x - sqrt(alpha_bar) c) / sqrt(1 - alpha_bar), between steps too."""
    c, bars = np.linspace(-1, 1, 64, dtype=np.float32), diffusion.schedule()
    logs = np.concatenate([[0.0], np.log(bars)])

    def model(params, labels):
        def eps(x, t):
            bar = np.exp(np.interp(t, np.arange(201), logs))
            return ((x - np.sqrt(bar) * c) / np.sqrt(1 - bar)).astype(np.float32)

        return eps

    monkeypatch.setattr(diffusion, "model", model)
    monkeypatch.setattr(diffusion_solvers, "model", model)
    return c


def test_samples_of_one_image_are_that_image(point):
    assert np.abs(diffusion.samples(None, 12) - point).max() < 1e-4
    left, states, guesses = diffusion.strip(None, shown=5)
    assert left == [200, 150, 100, 50, 0] and states.shape == guesses.shape == (5, 10, 64)
    assert np.abs(guesses - point).max() < 1e-3 and np.abs(states[-1] - point).max() < 1e-4
    distance = [np.abs(s - point).mean() for s in states]
    assert all(a > b for a, b in zip(distance[:-1], distance[1:], strict=True))


@pytest.mark.parametrize("name", diffusion_solvers.SOLVERS)
def test_every_solver_finds_one_image_within_its_budget(point, name):
    """One point has a flow that every exponential solver follows exactly; the others are exact at their last step."""
    for budget in (3, 6, 9):
        evaluations, x = diffusion_solvers.run(name, budget, None, 5)
        assert budget - 1 <= evaluations <= budget
        assert np.abs(x - point).max() < 1e-3, budget


@pytest.mark.parametrize("name", diffusion_solvers.SOLVERS)
def test_every_solver_finds_the_spread_of_a_gaussian(monkeypatch, name):
    """N(1, .25 I): 60 evaluations bring its mean and deviation; ancestral steps that of their own recursion."""
    bars = diffusion.schedule()
    logs = np.concatenate([[0.0], np.log(bars)])

    def eps(x, t):
        bar = np.exp(np.interp(t, np.arange(201), logs))
        return (np.sqrt(1 - bar) * (x - np.sqrt(bar)) / (0.25 * bar + 1 - bar)).astype(np.float32)

    monkeypatch.setattr(diffusion_solvers, "model", lambda params, labels: eps)
    _, x = diffusion_solvers.run(name, 60, None, 100)
    assert x.mean() == pytest.approx(1, abs=0.03)  # 6400 draws: .006 is one deviation
    first_order = name in ("ddim", "dpm-solver-1")  # they leave .024, the others sampling error, .005
    wanted = _ancestral_deviation(bars, 60) if name == "ddpm" else 0.5
    assert x.std() == pytest.approx(wanted, abs=0.03 if first_order else 0.018)


def _ancestral_deviation(bars, count):
    """Of the exact model of N(1, .25) under the small variance, from N(0, 1)."""
    V = 1.0
    steps = np.round(np.linspace(200, 1, count)).astype(int)
    for t, s in zip(steps, [*steps[1:], 0], strict=True):
        now, before = bars[t - 1], bars[s - 1] if s else 1.0
        k = 0.25 * np.sqrt(now) / (0.25 * now + 1 - now)  # x_0 = 1 + k (x - sqrt(now))
        slope = (np.sqrt(before) * (before - now) / before * k + np.sqrt(now / before) * (1 - before)) / (1 - now)
        V = slope**2 * V + (1 - before) / (1 - now) * (before - now) / before
    return np.sqrt(V)


def test_times_between_steps_invert_the_noise_ratio():
    bars = diffusion.schedule()
    for t in (1, 2, 100, 200):
        assert diffusion_solvers.time_of(diffusion_solvers.sigma_at(t, bars), bars) == pytest.approx(t, abs=1e-9)
    times = diffusion_solvers.even_times(8, bars)
    assert times[0] == 200 and times[-1] == 1 and np.all(np.diff(times) < 0)
    with pytest.raises(ValueError, match="run: 'euler' with 9 evaluations"):
        diffusion_solvers.run("euler", 9, None)
    with pytest.raises(ValueError, match="'ddim' with 2 evaluations; needed one of .* and 3 to 200"):
        diffusion_solvers.run("ddim", 2, None)


# The command -----------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path, monkeypatch, few, judge):
    """The command on few images and 20 samples; in a deep run (`full=True`) as it is."""
    monkeypatch.setattr(diffusion_command.console, "_width", 120)

    def invoke(*args, full=False):
        if not full:
            monkeypatch.setattr(digits, "load", lambda: few)
            monkeypatch.setattr(digits, "fit_judge", lambda data: judge)
            monkeypatch.setattr(digits, "SAMPLES", 20)
            monkeypatch.setattr(diffusion_solvers, "BUDGETS", (3, 5))
        with diffusion_command.console.capture() as shown:
            done = CliRunner().invoke(app, ["train-diffusion", *args, "--out", str(tmp_path / "out")])
        return done, shown.get()

    return invoke


def written(folder):
    """Names of the files of the folder; every picture is one."""
    found = sorted(f for f in folder.rglob("*") if f.is_file())
    assert all(f.read_bytes().startswith(b"\x89PNG") for f in found if f.suffix == ".png")
    return [f.relative_to(folder).as_posix() for f in found]


def test_the_command_trains_judges_and_draws_and_the_solvers_take_its_weights(run, tmp_path):
    done, shown = run("--steps", "3", "--seeds", "2")
    assert done.exit_code == 0, done.output
    for said in ("training images (the floor)", "Gaussian fit", "noise", "seed 1", "median of 2", ">= 0.95"):
        assert said in shown
    weights = [f"samples-seed-{k}/step-00000003.safetensors" for k in range(2)]
    assert written(tmp_path / "out") == ["loss.png", "nearest.png", *weights, "samples.png", "strip.png"]
    done, shown = run("solvers")
    assert done.exit_code == 0, done.output
    assert "weights from" in shown and all(name in shown for name in diffusion_solvers.SOLVERS)
    assert "solvers.png" in written(tmp_path / "out")


def test_a_bar_that_is_missed_fails_the_run(run, monkeypatch):
    monkeypatch.setattr(diffusion, "Plan", partial(diffusion.Plan, steps=2))
    monkeypatch.setattr(diffusion_command, "_draw", lambda *_: None)
    done, _ = run()
    assert done.exit_code == 1


def test_a_wrong_word_is_one_line(run):
    done, _ = run("paint")
    assert done.exit_code == 2 and len(done.output.strip().splitlines()) == 1
    assert "no task 'paint'; there are samples, solvers" in done.output


@pytest.mark.parametrize(
    "draw",
    [
        lambda path: diffusion_pictures.image_rows(path, {}),
        lambda path: diffusion_pictures.image_rows(path, {"a": np.zeros((2, 64)), "b": np.zeros((3, 64))}),
        lambda path: diffusion_pictures.image_rows(path, {"a": np.full((1, 8, 8), np.nan)}),
        lambda path: charts.curves(path, {}, {}, "x", "y"),
        lambda path: charts.curves(path, {"a": [(0, np.inf)]}, {}, "x", "y"),
    ],
)
def test_what_cannot_be_drawn_is_refused(draw, tmp_path):
    with pytest.raises(ValueError, match="^(image_rows|curves): "):
        draw(tmp_path / "x.png")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not DEEP, reason="three trainings of minutes: in the deep profile")
def test_samples_reach_the_bars_by_the_median_of_three_seeds(run):
    """Agreement >= .95, distance < 3 and under the Gaussian fit, nearest >= .8: the command's own exit status."""
    done, shown = run("--seeds", "3", full=True)
    print(shown)
    assert done.exit_code == 0, done.output
