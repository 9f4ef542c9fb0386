"""The arithmetic task: exact scores, what each seam does, and in a deep run the bars."""

import os

import numpy as np
import pytest
from typer.testing import CliRunner

from ref.cli.app import app
from ref.demo import arithmetic, arithmetic_command, policy, policy_training, rl_screen
from ref.demo.policy import Network, Sizes, sample
from ref.demo.policy_training import PLANS, Batch, Plan, Task, Trainer

DEEP = os.environ.get("CLOSEDFORM_PROFILE") == "deep"
ALGORITHMS = tuple(PLANS)
TINY = Sizes(vocabulary=5, places=5, out=5, channels=16, layers=1, heads=2)


@pytest.fixture(scope="module")
def network():
    return Network(arithmetic.SIZES, np.random.default_rng(0))


def favours(token):
    """Two prompts of two tokens; a response of at most 3, closed by 4, earns 1 if it begins with `token`."""
    prompts = np.array([[0, 1], [1, 0]])
    return Task(prompts, 3, 4, lambda tokens, mask, rows: (tokens[:, 2] == token).astype(np.float32))


def chance(network, prompt, token):
    out = policy.outputs(network.layers(), network.sizes, prompt[None])[0, -1].astype(np.float64)
    return np.exp(out - np.logaddexp.reduce(out))[token]


def test_no_held_out_pair_is_trained_on():
    training, held = arithmetic.pairs()
    assert training.prompts.shape == (320, 6) and held.prompts.shape == (80, 6)
    assert len(np.unique(np.concatenate([training.prompts, held.prompts]), axis=0)) == 400
    for some in (training, held):
        a, b = (some.prompts[:, i] * 10 + some.prompts[:, i + 1] for i in (0, 3))
        assert (some.answers[:, 0] * 10 + some.answers[:, 1] == a + b).all()
    assert (arithmetic.pairs()[1].prompts == held.prompts).all()


def test_the_model_has_the_size_of_the_recipe(network):
    assert 100_000 < network.flat.size < 105_000 and network.flat.dtype == np.float32


def test_all_responses_together_have_probability_one(network):
    """... and the right one has that of pass@1."""
    training, _ = arithmetic.pairs()
    some = arithmetic.Pairs(training.prompts[::107], training.answers[::107])
    responses, mask = arithmetic.every_response()
    assert len(responses) == 1 + 12 + 12 * 12 * 13 == len(np.unique(responses, axis=0))
    found = np.exp(arithmetic.distribution(network, some.prompts))
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)
    at = [np.flatnonzero((responses == a).all(1))[0] for a in some.answers]
    np.testing.assert_allclose(found[np.arange(len(at)), at], arithmetic.pass_at_1(network, some), rtol=1e-4)
    assert mask[at].all()


def test_samples_come_in_their_proportions():
    """4096 responses to a prompt: counts of each first token, of the end after it, within 5 standard deviations."""
    net = Network(TINY, np.random.default_rng(1))
    prompts = np.tile([[0, 1]], (4096, 1))
    tokens, mask = sample(net, prompts, 3, 4, np.random.default_rng(2))
    assert not mask[:, :2].any() and mask[:, 2].all()
    for k in range(5):
        p = chance(net, prompts[0], k)
        assert abs((tokens[:, 2] == k).mean() - p) < 5 * np.sqrt(p * (1 - p) / 4096)
    begun = tokens[:, 2] == 0
    p, n = chance(net, np.array([0, 1, 0]), 4), begun.sum()
    assert abs((tokens[begun, 3] == 4).mean() - p) < 5 * np.sqrt(p * (1 - p) / n)
    over = tokens[:, 2] == 4
    assert over.any() and (tokens[over, 3:] == 4).all() and not mask[over, 3:].any()


def test_a_value_sees_nothing_of_its_own_token():
    critic = policy.critic_of(Network(TINY, np.random.default_rng(3)), np.random.default_rng(4))
    tokens = np.array([[0, 1, 2, 3, 4]])
    before = policy.values(critic.layers(), critic.sizes, tokens)
    for t in range(5):
        other = tokens.copy()
        other[0, t] = (tokens[0, t] + 1) % 5
        after = policy.values(critic.layers(), critic.sizes, other)
        assert (after[0, : t + 1] == before[0, : t + 1]).all() and (t == 4 or after[0, t + 1] != before[0, t + 1])


def test_ppo_with_lambda_one_values_what_is_paid():
    """gamma = lambda = 1, no KL: every kept token's target is the response's reward, wherever the response ends."""
    net = Network(TINY, np.random.default_rng(5))
    critic = policy.critic_of(net, np.random.default_rng(6))
    tokens, mask = sample(net, np.tile([[0, 1]], (40, 1)), 3, 4, np.random.default_rng(7))
    assert len(set(mask.sum(1))) > 1
    rewards = np.random.default_rng(8).random(40, np.float32)
    old = policy.log_probs(net.layers(), net.sizes, tokens, mask)
    batch = Batch(tokens, mask, np.zeros(40, int), rewards, old, old)
    _, targets = policy_training.valued(batch, Plan(beta=0.0, lam=1.0), critic)
    wanted = np.broadcast_to(rewards[:, None], mask.shape)
    np.testing.assert_allclose(targets[mask], wanted[mask], atol=1e-5)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_is_paid_is_learned(algorithm):
    plan = Plan(prompts=2, group=8, epochs=PLANS[algorithm].epochs, lr=0.01, beta=PLANS[algorithm].beta)
    net = Network(TINY, np.random.default_rng(9))
    trainer = Trainer(net, favours(2), algorithm, plan, 0)
    first = [chance(net, x, 2) for x in trainer.task.prompts]
    paid = [trainer.advance() for _ in range(25)]
    last = [chance(trainer.network, x, 2) for x in trainer.task.prompts]
    assert max(first) < 0.5 < 0.9 < min(last) and np.mean(paid[-5:]) > 0.8
    assert (net.flat == trainer.start.flat).all() and (net.flat != trainer.network.flat).any()


@pytest.mark.parametrize("algorithm", ["grpo", "dapo"])
def test_alike_rewards_teach_nothing(algorithm):
    """DAPO takes no step, even of Adam's old moments; GRPO's gradient is 0 where beta is."""
    task = favours(2)._replace(reward=lambda tokens, mask, rows: np.ones(len(tokens), np.float32))
    net = Network(TINY, np.random.default_rng(9))
    layers = net.layers()
    layers["head.bias"][4] = 9.0  # every response ends at once, so that none is overlong
    trainer = Trainer(net, task, algorithm, Plan(prompts=2, group=4, beta=0.0), 0)
    assert trainer.advance() == 1.0
    assert (trainer.network.flat == net.flat).all()
    assert trainer.network.state.t == (0 if algorithm == "dapo" else 2)


def test_a_strong_kl_term_holds_the_policy():
    """PPO and RLOO pay it, GRPO has it in the loss: with beta 50 no policy goes far for a reward of 1."""
    for algorithm in ("ppo", "rloo", "grpo"):
        plan = Plan(prompts=2, group=16, epochs=1, lr=0.003, beta=50.0, critic_lr=0.01)
        trainer = Trainer(Network(TINY, np.random.default_rng(9)), favours(2), algorithm, plan, 0)
        first = chance(trainer.network, trainer.task.prompts[0], 2)
        for _ in range(15):
            trainer.advance()
        assert abs(chance(trainer.network, trainer.task.prompts[0], 2) - first) < 0.15


def test_a_run_is_the_same_twice():
    def once():
        trainer = Trainer(Network(TINY, np.random.default_rng(9)), favours(1), "ppo", Plan(prompts=2, group=4), 3)
        return [trainer.advance() for _ in range(3)], trainer.network.flat

    (paid, flat), (again, same) = once(), once()
    assert paid == again and (flat == same).all()


@pytest.mark.parametrize("algorithm", ["sft", *ALGORITHMS])
def test_the_command_shows_every_seed(algorithm, tmp_path, monkeypatch):
    monkeypatch.setattr(arithmetic_command, "SFT", 0.0)
    monkeypatch.setattr(rl_screen.console, "_width", 120)
    words = ["train-rl", "arithmetic", "--algorithm", algorithm, "--steps", "1", "--seeds", "2", "--out", str(tmp_path)]
    with rl_screen.console.capture() as shown:
        done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    rows = [line.split() for line in shown.get().splitlines() if line.split()[:2] in (["0", "0"], ["1", "0"])]
    assert len(rows) == 2 and all(0 < float(x) < 0.1 for row in rows for x in row[2:-1])
    assert len(rows[0]) == (5 if algorithm == "sft" else 7)
    files = [f.name for f in tmp_path.iterdir()]
    assert files == ([] if algorithm == "sft" else [f"arithmetic-{algorithm}-curve.png"])


def test_a_discount_means_nothing_here():
    done = CliRunner().invoke(app, ["train-rl", "arithmetic", "--gamma", "0.9"])
    assert done.exit_code == 2 and "--gamma means nothing for arithmetic" in done.output


if DEEP:  # a minute and a half for each algorithm and seed

    @pytest.mark.parametrize("seed", range(3))
    def test_the_bars(seed):
        """GRPO at least .65 on the training pairs; PPO, RLOO, DAPO and Kimi at least SFT + .25. Exact pass@1."""
        start, curve = arithmetic.fine_tuned(seed)
        assert 0.25 <= curve[-1][1] < 0.32
        found = {a: arithmetic.improved(start, a, seed, every=100)[1][-1] for a in ALGORITHMS}
        print(seed, curve[-1], found)
        assert found["grpo"][1] >= 0.65
        assert min(solved for _, solved, _ in found.values()) >= curve[-1][1] + 0.25
