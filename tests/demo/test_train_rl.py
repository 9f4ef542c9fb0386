"""`closedform train-rl` from the command line, and what its runs reach: a little in seconds, the bars in test-deep."""

import os

import numpy as np
import pytest
from typer.testing import CliRunner

from ref.cli.app import app
from ref.demo import charts, ppo, rl_pictures, tabular, train_rl
from ref.demo.environments import table

DEEP = os.environ.get("CLOSEDFORM_PROFILE") == "deep"


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setattr(train_rl.console, "_width", 120)

    def invoke(*args):
        with train_rl.console.capture() as shown:
            done = CliRunner().invoke(app, ["train-rl", *args, "--out", str(tmp_path / "out")])
        return done, shown.get()

    return invoke


def pictures(tmp_path):
    found = sorted((tmp_path / "out").iterdir())
    assert all(f.read_bytes().startswith(b"\x89PNG") for f in found)
    return [f.name for f in found]


@pytest.mark.parametrize(
    "task, algorithm, said",
    [
        ("frozenlake", "value_iteration", "0.5420259"),
        ("cliffwalking", "policy_iteration", "-12.24789"),
        ("frozenlake", "truncated_policy_iteration", "0.5420259"),
    ],
)
def test_planning_meets_the_known_values(run, tmp_path, task, algorithm, said):
    done, shown = run(task, "--algorithm", algorithm)
    assert done.exit_code == 0, done.output
    assert shown.count(said) >= 2  # found and known
    assert task != "frozenlake" or ("0.744190" in shown and "0.740165" in shown)
    assert pictures(tmp_path) == [f"{task}-{algorithm}-errors.png", f"{task}-{algorithm}-values.png"]


def test_planning_without_a_discount(run):
    done, shown = run("cliffwalking", "--gamma", "1")
    assert done.exit_code == 0 and shown.count("-13.0000000") == 3
    done, _ = run("cliffwalking", "--gamma", "1", "--algorithm", "policy_iteration")
    assert done.exit_code == 2 and "take value_iteration" in done.output


def test_a_known_value_that_is_missed_fails_the_run(run, monkeypatch):
    monkeypatch.setitem(tabular.KNOWN, ("frozenlake", 0.9), 0.07)
    done, _ = run("frozenlake", "--gamma", "0.9")
    assert done.exit_code == 1


@pytest.mark.parametrize("algorithm", [*tabular.WALKING, *tabular.EPISODES])
def test_learning_shows_exact_values(run, tmp_path, algorithm):
    done, shown = run("cliffwalking", "--algorithm", algorithm, "--steps", "8", "--seeds", "2", "--gamma", "0.9")
    assert done.exit_code == 0, done.output
    assert "best possible" in shown and "-7.458134" in shown and "seed 1" in shown
    assert pictures(tmp_path) == [f"cliffwalking-{algorithm}-curve.png", f"cliffwalking-{algorithm}-values.png"]


@pytest.mark.parametrize("task", ["cartpole", "frozenlake"])
def test_ppo_shows_every_seed(run, tmp_path, task, monkeypatch):
    monkeypatch.setitem(ppo.PLANS, task, ppo.PLANS[task]._replace(epochs=1, environments=4, horizon=8))
    done, shown = run(task, "--algorithm", "ppo", "--steps", "96", "--seeds", "2")
    assert done.exit_code == 0, done.output
    assert "100 fresh episodes" in shown and ("the bar is 400" in shown) == (task == "cartpole")
    assert pictures(tmp_path) == [f"{task}-ppo-curve.png"]


@pytest.mark.parametrize(
    "args, said",
    [
        (["lake"], "no task 'lake'; there are frozenlake, frozenlake8x8, cliffwalking, cartpole, arithmetic"),
        (["cartpole", "--algorithm", "sarsa"], "no algorithm 'sarsa' for cartpole; there are ppo"),
        (["frozenlake", "--gamma", "1.5"], "--gamma 1.5; needed 0 to 1"),
        (["cartpole", "--steps", "9"], "--steps 9; needed at least 256, one iteration"),
    ],
)
def test_wrong_words_are_one_line(run, args, said):
    done, _ = run(*args)
    assert done.exit_code == 2 and said in done.output and len(done.output.strip().splitlines()) == 1


@pytest.mark.parametrize(
    "draw",
    [
        lambda path: rl_pictures.value_map(path, "frozenlake", table("frozenlake"), np.zeros(16), np.zeros((17, 4))),
        lambda path: rl_pictures.value_map(
            path, "frozenlake", table("frozenlake"), np.full(17, np.nan), np.zeros((17, 4))
        ),
        lambda path: rl_pictures.error_curve(path, [], 0.9, "k"),
        lambda path: rl_pictures.error_curve(path, [(0, np.inf)], 0.9, "k"),
        lambda path: charts.curves(path, {}, {}, "x", "y"),
        lambda path: charts.curves(path, {"a": [(0, np.nan)]}, {}, "x", "y"),
    ],
)
def test_what_cannot_be_drawn_is_refused(draw, tmp_path):
    with pytest.raises(ValueError, match="^(value_map|error_curve|curves): "):
        draw(tmp_path / "x.png")
    assert not list(tmp_path.iterdir())


# What is learned: a smoke of seconds, and the bars under the deep profile ------------------------------


def test_q_learning_walks_along_the_cliff():
    """-13, the best there is, by the greedy policy; Sarsa, which counts its own slips, keeps away from the edge."""
    small = table("cliffwalking")
    settings = tabular.LEARNING["cliffwalking"]
    settings = settings if DEEP else settings._replace(steps=6000)
    run = tabular.walk(small, "q_learning", 1.0, settings, 0, points=2)
    assert tabular.worth(small, run.policy, 1.0) == pytest.approx(-13, abs=1e-9)
    if DEEP:
        run = tabular.walk(small, "sarsa", 1.0, settings, 0, points=2)
        assert -17 - 1e-9 <= tabular.worth(small, run.policy, 1.0) <= -15 + 1e-9


def test_ppo_balances_the_pole():
    """Deep: median of 5 seeds at least 400 mean return over 100 episodes, within 100 000 steps. Else: a run of 5000
    steps holds the pole three times as long as chance does (22 steps)."""
    plan = ppo.PLANS["cartpole"]
    assert plan.steps == 100_000
    plan, seeds, bar = (plan, range(5), 400) if DEEP else (plan._replace(steps=5000), range(1), 66)
    found = []
    for seed in seeds:
        agent, curve = ppo.train("cartpole", plan, seed)
        assert curve[-1][0] <= plan.steps
        found.append(np.mean(ppo.play(agent, "cartpole", 100 if DEEP else 20, 10_000 + seed)))
    print(found)
    assert np.median(found) >= bar


def test_ppo_crosses_the_lake():
    """Deep: at least .70 within the limit of steps by the greedy policy of the median of 3 seeds; .744190 is possible,
    and never more."""
    small, plan = table("frozenlake"), ppo.PLANS["frozenlake"]
    found = []
    for seed in range(3) if DEEP else range(1):
        agent, _ = ppo.train("frozenlake", plan if DEEP else plan._replace(steps=1024, epochs=1), seed)
        found.append(list(train_rl._exactly(small, agent)))
    print(found)
    assert np.min(found) >= 0 and np.max(found) <= tabular.WITHIN_LIMIT["frozenlake"][0] + 1e-6
    assert not DEEP or np.median(found, axis=0)[1] >= 0.70


def test_a_run_is_the_same_twice():
    plan = ppo.PLANS["cartpole"]._replace(steps=600)
    one, two = (ppo.train("cartpole", plan, 3)[0].flat for _ in range(2))
    assert (one == two).all()
