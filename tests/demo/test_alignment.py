"""Preferences, the hacked reward model and R1's pipeline: exact where it can be, a smoke of each, and deep the bars."""

import os

import numpy as np
import pytest
from typer.testing import CliRunner

from ref.cli.app import app
from ref.demo import alignment_command, arithmetic, hacking, preferences, r1, rl_pictures, rl_screen
from ref.demo.policy import Network, outputs, sample

DEEP = os.environ.get("CLOSEDFORM_PROFILE") == "deep"


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setattr(alignment_command, "SFT", 0.0)
    monkeypatch.setattr(rl_screen.console, "_width", 140)

    def invoke(*args):
        with rl_screen.console.capture() as shown:
            done = CliRunner().invoke(app, ["train-rl", *args, "--out", str(tmp_path)])
        assert done.exit_code == 0, done.output
        return shown.get(), sorted(f.name for f in tmp_path.iterdir())

    return invoke


TRAINING, _ = arithmetic.pairs()


def few(n):
    return arithmetic.Pairs(TRAINING.prompts[:n], TRAINING.answers[:n])


# Preferences --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["dpo", "ipo", "robust_dpo", "cdpo"])
def test_gradients_lead_to_the_closed_form(name):
    b = preferences.bandit(2 if name == "cdpo" else 3, 2)
    found = preferences.minimised(name, b)
    np.testing.assert_allclose(found, preferences.closed_form(name, b), atol=1e-6)
    assert np.max(np.abs(found - b.ref)) > 0.02


def test_the_frontier_is_the_best_there_is():
    """200 random policies, three prompts: none is above; best of n and the Gibbs policies are not below by much."""
    rng = np.random.default_rng(0)
    some = few(3)
    responses, _ = arithmetic.every_response()
    ref = np.log(rng.dirichlet(np.full(len(responses), 0.3), 3) + 1e-12)
    ref -= np.logaddexp.reduce(ref, axis=1, keepdims=True)
    scale = preferences.Scale(some, ref)
    line = scale.frontier(np.geomspace(0.005, 1000, 2000))
    right = np.zeros_like(ref)
    right[scale.right()] = 1
    for _ in range(200):
        new = ref + rng.standard_normal(ref.shape) * rng.random() + right * rng.normal(2, 2)
        new -= np.logaddexp.reduce(new, axis=1, keepdims=True)
        kl = float((np.exp(new) * (new - ref)).sum(1).mean())
        assert preferences.above(line, (kl, float(np.exp(new[scale.right()]).mean()))) < 1e-4
    for point in scale.best_of((1, 2, 4, 8)):
        assert -0.05 < preferences.above(line, point) < 1e-4
    tilted = ref + right / 0.4
    tilted -= np.logaddexp.reduce(tilted, axis=1, keepdims=True)
    kl = float((np.exp(tilted) * (tilted - ref)).sum(1).mean())
    assert abs(preferences.above(line, (kl, float(np.exp(tilted[scale.right()]).mean())))) < 1e-4


def test_a_policy_is_at_no_distance_from_itself():
    network, some = Network(arithmetic.SIZES, np.random.default_rng(0)), few(2)
    scale = preferences.Scale(some, arithmetic.distribution(network, some.prompts))
    kl, solved = scale.measured(network)
    assert kl == 0 and solved == pytest.approx(float(arithmetic.pass_at_1(network, some).mean()), rel=1e-4)


def test_pairs_hold_one_right_response_each(monkeypatch):
    """... the preferred one as often as Bradley-Terry says."""
    network, some = Network(arithmetic.SIZES, np.random.default_rng(0)), few(40)

    def half_right(network, prompts, most, end, rng):
        tokens = np.concatenate([prompts, np.repeat(some.answers, len(prompts) // 40, 0)], 1)
        tokens[::2, 7] = (tokens[::2, 7] + 1) % 10
        return tokens, np.broadcast_to(np.arange(9) > 5, tokens.shape)

    monkeypatch.setattr(preferences, "sample", half_right)
    pairs = preferences.drawn_pairs(network, some, np.random.default_rng(1), draws=100, scale=1.0)
    assert pairs.tokens.shape == (2000, 2, 9) and (pairs.tokens[:, 0, :6] == pairs.tokens[:, 1, :6]).all()
    key = {tuple(p): a for p, a in zip(some.prompts, some.answers, strict=True)}
    right = np.array([[(t[6:] == key[tuple(t[:6])]).all() for t in pair] for pair in pairs.tokens])
    assert (right.sum(1) == 1).all()
    p = 1 / (1 + np.exp(-1.0))
    assert abs(right[:, 0].mean() - p) < 5 * np.sqrt(p * (1 - p) / 2000)


def test_the_command_names_the_family():
    assert tuple(preferences.FAMILY) == alignment_command.NAMES


@pytest.mark.parametrize("name", alignment_command.NAMES)
def test_every_loss_of_the_family_widens_the_margin(name):
    network = Network(arithmetic.SIZES, np.random.default_rng(0))
    tokens = np.tile(few(1).whole()[0][:, None], (4, 2, 1))
    tokens[:, 1, 6] = 7
    pairs = preferences.Pairs(tokens, np.broadcast_to(np.arange(9) > 5, tokens.shape))
    new = preferences.aligned(network, pairs, name, steps=8, batch=4, lr=1e-3)

    def margin(n):
        found = preferences.log_probs(n.layers(), n.sizes, tokens[0], pairs.mask[0]).sum(1)
        return found[0] - found[1]

    assert margin(new) > margin(network) + 0.1


# The reward model ---------------------------------------------------------------------------------------


def test_annotators_like_right_answers_and_large_ones():
    tokens = np.array([[1, 2, 10, 0, 5, 11, *response] for response in
                       ([1, 7, 12], [9, 9, 12], [3, 12, 12], [12, 12, 12], [4, 5, 6], [1, 10, 7])])  # fmt: skip
    some = arithmetic.Pairs(tokens[:1, :6], np.array([[1, 7, 12]]))
    assert hacking.said(tokens).tolist() == [17, 99, 3, 0, 456, 1]
    wanted = 0.1 * np.array([17, 99, 3, 0, 45, 1]) + [4, 0, 0, 0, 0, 0]
    np.testing.assert_allclose(hacking.liked(tokens, some, np.zeros(6, int)), wanted)


def test_a_score_is_read_at_the_last_token():
    network = Network(arithmetic.SIZES._replace(out=1), np.random.default_rng(0))
    policy = Network(arithmetic.SIZES, np.random.default_rng(1))
    policy.layers()["head.bias"][arithmetic.END] = 3.0  # so that some responses end early
    tokens, mask = sample(policy, np.tile(few(1).prompts, (30, 1)), 3, arithmetic.END, np.random.default_rng(2))
    found = hacking.scores(network.layers(), network.sizes, tokens, mask)
    assert len(set(mask.sum(1))) > 1
    for row in range(30):
        short = tokens[row : row + 1, : np.flatnonzero(mask[row])[-1] + 1]
        alone = outputs(network.layers(), network.sizes, short)[0, -1, 0]
        assert found[row] == pytest.approx(float(alone), abs=1e-5)


# R1 -----------------------------------------------------------------------------------------------------


def test_worked_examples_earn_everything_in_english_and_less_in_chinese():
    some = few(60)
    task = r1.task(some)
    for language, paid in ((0, 2.0), (1, 1.5)):
        rows = r1.worked(some, np.full(60, language))
        tokens = np.concatenate([some.prompts, np.pad(rows, ((0, 0), (0, 1)), constant_values=r1.END)], 1)
        assert (task.reward(tokens, None, np.arange(60)) == paid).all()
        for t, word in zip(some.prompts, rows[:, 1], strict=True):
            assert (r1.SPELLED[word] in ("carry", "\u9032")) == (t[1] + t[4] > 9)
        tokens[:, 10] = (tokens[:, 10] + 1) % 10
        assert (task.reward(tokens, None, np.arange(60)) == paid - 1).all()
        tokens[:, 6] = r1.THOUGHT
        assert (task.reward(tokens, None, np.arange(60)) == 0).all()


def test_pass_at_1_adds_the_thoughts_up():
    """Of a model with uniform scores: 4 V^-8."""
    network = Network(r1.STUDENT, np.random.default_rng(0))
    network.layers()["head.weight"][...] = 0
    np.testing.assert_allclose(r1.pass_at_1(network, few(3)), 4 * 21.0**-8, rtol=1e-4)


# The commands -------------------------------------------------------------------------------------------


@pytest.fixture
def few_pairs(monkeypatch):
    """The arithmetic task with twelve training pairs and four held out."""
    monkeypatch.setattr(arithmetic, "pairs", lambda: (few(12), few(4)))


def test_dpo_shows_its_place_beside_the_frontier(run, monkeypatch):
    monkeypatch.setattr(alignment_command, "MEASURED", 160)
    tokens, mask = (np.repeat(x[:, None], 2, 1) for x in few(4).whole())
    monkeypatch.setattr(preferences, "drawn_pairs", lambda *args: preferences.Pairs(tokens, mask))
    shown, files = run("dpo", "--algorithm", "kto", "--steps", "1")
    assert "finite bandit" in shown and "kto" in shown and files == ["dpo-kto-frontier-0.png"]


def test_without_pairs_there_is_nothing_to_prefer():
    network = Network(arithmetic.SIZES, np.random.default_rng(0))
    none = preferences.Pairs(np.zeros((0, 2, 9), int), np.zeros((0, 2, 9), bool))
    with pytest.raises(ValueError, match="^aligned: no pairs"):
        preferences.aligned(network, none, "dpo")


def test_hacking_shows_both_runs(run, monkeypatch):
    monkeypatch.setattr(hacking, "START", 0.0)
    monkeypatch.setattr(hacking, "fitted", lambda network, seed, watch: (
        Network(network.sizes._replace(out=1), np.random.default_rng(seed)), 0.5))  # fmt: skip
    shown, files = run("hacking", "--steps", "1")
    assert "beta 0 " in shown and f"beta {hacking.BETA:g}" in shown
    assert files == ["hacking-pass.png", "hacking-proxy.png"]


def test_r1_without_a_right_response_says_what_it_needs(few_pairs):
    budget = r1.Budget(cold_steps=1, iterations=0, draws=1)
    with pytest.raises(ValueError, match="^pipeline: no response of the policy earned every reward"):
        r1.pipeline(0, budget)


def test_r1_shows_five_stages(run, monkeypatch, few_pairs):
    """A cold start that ends at once, and everything accepted."""
    kept = r1.drawn
    monkeypatch.setattr(r1, "drawn", lambda network, draws, rng, accepted=None: kept(network, draws, rng))
    shown, files = run("r1", "--steps", "1")
    rows = [line.split() for line in shown.splitlines()]
    stages = ("cold start", "reasoning RL", "rejection sampling", "RL again", "distillation")
    assert all([*stage.split(), "0"] in [row[: len(stage.split()) + 1] for row in rows] for stage in stages)
    assert files == ["r1-stages.png"]


@pytest.mark.parametrize("points", [[], [(0.0, np.nan)]])
def test_what_cannot_be_drawn_is_refused(points, tmp_path):
    with pytest.raises(ValueError, match="^frontier: "):
        rl_pictures.frontier(tmp_path / "x.png", points, {}, "x", "y")


if DEEP:  # minutes each

    @pytest.mark.parametrize("task", ["dpo", "hacking", "r1"])
    def test_the_bars(task, tmp_path):
        """The whole command: the DPO family on and under the frontier; the proxy's rise with pass@1 falling by .1, or
        held within .05; R1's format and language, and more right."""
        with rl_screen.console.capture() as shown:
            done = CliRunner().invoke(app, ["train-rl", task, "--out", str(tmp_path)])
        print(shown.get())
        assert done.exit_code == 0
