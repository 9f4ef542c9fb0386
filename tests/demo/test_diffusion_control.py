"""`closedform train-diffusion control`: edges, what is compared with what, and in a deep run the bars."""

import os

import numpy as np
import pytest
from typer.testing import CliRunner

from ref.cli.app import app
from ref.demo import diffusion_command, diffusion_control, digits
from ref.demo.diffusion import Plan
from ref.models.unet import Config

DEEP = os.environ.get("CLOSEDFORM_PROFILE") == "deep"
SMALL = Config(channels=4, multipliers=(1,), attends=(False,), groups=2)


@pytest.fixture(scope="module")
def few():
    data = digits.load()
    return digits.Digits(data.x[:40], data.labels[:40], data.held_x[:6], data.held_labels[:6])


def test_edges_of_a_plane_are_its_slope():
    """x = p column + q row: the gradient's size is hypot(p, q) wherever no border is near."""
    row, column = np.mgrid[:8, :8]
    for p, q in ((0.0, 0.0), (0.25, 0.0), (0.0, -0.5), (0.3, 0.4)):
        found = diffusion_control.edges((p * column + q * row + 0.7).reshape(1, 64))
        assert found.shape == (1, 1, 8, 8)
        np.testing.assert_allclose(found[0, 0, 1:-1, 1:-1], np.hypot(p, q), atol=1e-12)


def test_edges_turn_with_the_image_and_see_no_level(few):
    x = few.x.reshape(-1, 8, 8)
    turned = diffusion_control.edges(np.rot90(x, axes=(1, 2)))
    np.testing.assert_allclose(turned, np.rot90(diffusion_control.edges(x), axes=(2, 3)), atol=1e-6)
    np.testing.assert_allclose(diffusion_control.edges(3 - 2 * x), 2 * diffusion_control.edges(x), atol=1e-5)


def test_an_untrained_control_is_the_base_and_training_it_leaves_the_base(few):
    base = diffusion_control.train_base(few, Plan(steps=2, batch=4), config=SMALL).params
    before = {name: a.copy() for name, a in base.items()}
    none = diffusion_control.train_control(few, base, Plan(steps=0), config=SMALL).params
    start = diffusion_control.errors(base, none, few.held_x, config=SMALL, steps=3)
    assert start.base == start.control == start.shuffled > 0
    trained = diffusion_control.train_control(few, base, Plan(2, 4, lr=0.1, decay=0.0), config=SMALL).params
    after = diffusion_control.errors(base, trained, few.held_x, config=SMALL, steps=3)
    assert after.base == start.base and len({*after[:3]}) == 3
    assert all(np.array_equal(a, base[name]) for name, a in before.items())


def test_shuffled_samples_are_judged_by_their_own_images_edges(few, monkeypatch):
    """A model that draws the very image whose edges it is given: no error; shuffled, that of the neighbour's edges."""
    images, known = few.held_x.reshape(-1, 8, 8), diffusion_control.edges(few.held_x).astype(np.float32)

    def steered(base, control, conditions, labels, config):
        assert np.all(labels == 10)  # no sample is told its digit
        return np.stack([images[np.abs(known - c).sum((1, 2, 3)).argmin()] for c in conditions])

    monkeypatch.setattr(diffusion_control, "_steered", steered)
    monkeypatch.setattr(diffusion_control, "_base", lambda params, labels, config: images * np.any(labels != 10))
    monkeypatch.setattr(diffusion_control, "ddim", lambda noise, *, model, **_: model[:, None])
    found = diffusion_control.errors(None, None, few.held_x)
    assert found.control < 1e-12
    neighbours = np.mean((known - known[[-1, *range(len(known) - 1)]]) ** 2)
    assert found.shuffled == pytest.approx(neighbours, rel=1e-5)
    assert found.base == pytest.approx(np.mean(known**2), rel=1e-5)


def test_the_command_trains_both_and_compares_them(tmp_path, monkeypatch, few):
    """A step of a small one; in a deep run all of it, and the bars."""
    monkeypatch.setattr(diffusion_command.console, "_width", 120)
    if not DEEP:
        monkeypatch.setattr(digits, "load", lambda: few)
        monkeypatch.setattr(diffusion_control, "CONFIG", SMALL)
    args = [] if DEEP else ["--steps", "1"]
    with diffusion_command.console.capture() as shown:
        done = CliRunner().invoke(app, ["train-diffusion", "control", "--out", str(tmp_path), *args])
    print(shown.get())
    assert done.exit_code == 0, done.output
    for said in ("base", "control", "shuffled", "<= 0.5", "over the base's"):
        assert said in shown.get()
    assert (tmp_path / "control.png").read_bytes().startswith(b"\x89PNG")
    assert all(list((tmp_path / name).glob("step-*.safetensors")) for name in ("unet", "controlnet"))
