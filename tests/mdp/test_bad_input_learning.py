"""What the algorithms on trajectories, episodes and transitions say of bad input."""

import numpy as np
import pytest

from ref.mdp.discounted_returns import discounted_returns
from ref.mdp.expected_sarsa import expected_sarsa
from ref.mdp.gae import gae
from ref.mdp.importance_sampling import importance_sampling
from ref.mdp.lambda_return import lambda_return
from ref.mdp.mc_basic import mc_basic
from ref.mdp.mc_epsilon_greedy import mc_epsilon_greedy
from ref.mdp.mc_exploring_starts import mc_exploring_starts
from ref.mdp.monte_carlo import monte_carlo
from ref.mdp.n_step_return import n_step_return
from ref.mdp.n_step_td import n_step_td
from ref.mdp.q_learning import q_learning
from ref.mdp.rollout import rollout
from ref.mdp.sarsa import sarsa
from ref.mdp.td0 import td0
from ref.mdp.td_lambda import td_lambda

X, NO = np.zeros((4, 3)), np.zeros((4, 3), bool)
P, R, PI = np.full((2, 2, 2), 0.5), np.zeros((2, 2)), np.full((2, 2), 0.5)
RECORDED = {
    gae: lambda x=X, no=NO, **o: gae(x, X, X, no, NO, lam=o.pop("lam", 0.5), **o),
    lambda_return: lambda x=X, no=NO, **o: lambda_return(x, X, no, NO, lam=o.pop("lam", 0.5), **o),
    n_step_return: lambda x=X, no=NO, **o: n_step_return(x, X, no, NO, n=o.pop("n", 2), **o),
    discounted_returns: lambda x=X, no=NO, **o: discounted_returns(x, no, **o),
}


@pytest.mark.parametrize("function", RECORDED, ids=[f.__name__ for f in RECORDED])
@pytest.mark.parametrize(
    "error, given, said",
    [
        (ValueError, {"no": NO[:2], "gamma": 0.5}, r"has N=\(2, 3\)"),
        (TypeError, {"no": X, "gamma": 0.5}, "must be bool"),
        (TypeError, {"x": X.astype(int), "gamma": 0.5}, "rewards has dtype int64"),
        (ValueError, {"gamma": 1.01}, "gamma=1.01; needed 0 <= gamma <= 1"),
        (ValueError, {"gamma": 0.5, "time_axis": 2}, "time_axis=2; needed 0"),
    ],
)
def test_bad_recordings_are_named(function, error, given, said):
    with pytest.raises(error, match=f"^{function.__name__}: .*{said}"):
        RECORDED[function](**given)


@pytest.mark.parametrize("function", [gae, lambda_return])
@pytest.mark.parametrize(
    "lam, said",
    [
        (1.5, "lam=1.5; needed 0 <= lam <= 1"),
        (np.full((3, 1), 0.5), r"lam has shape \(3, 1\); it must broadcast to \(4, 3\)"),
        (np.full((1, 4, 3), 0.5), r"lam has shape \(1, 4, 3\)"),
        (np.full((4, 1), -0.5), "needed 0 <= lam <= 1"),
    ],
)
def test_bad_lambdas_are_named(function, lam, said):
    with pytest.raises(ValueError, match=f"^{function.__name__}: .*{said}"):
        RECORDED[function](gamma=0.5, lam=lam)


def test_a_list_of_lambdas_is_no_array():
    with pytest.raises(TypeError, match="^gae: lam is a list; needed a number or an array"):
        RECORDED[gae](gamma=0.5, lam=[0.5])


def test_a_scalar_is_no_recording():
    x, no = np.zeros(()), np.zeros((), bool)
    with pytest.raises(ValueError, match="^gae: rewards has no axes; needed time on the first or the last"):
        gae(x, x, x, no, no, gamma=0.5, lam=0.5)


@pytest.mark.parametrize(
    "error, call, said",
    [
        (ValueError, lambda: n_step_return(X, X, NO, NO, n=0, gamma=0.5), "n_step_return: n=0; needed at least 1"),
        (TypeError, lambda: n_step_return(X, X, NO, NO, n=1.5, gamma=0.5), "n_step_return: n is a float"),
        (ValueError, lambda: rollout(P, R, PI, np.array([2]), np.zeros((1, 3, 2))), "start holds 2; needed 0 .. 1"),
        (ValueError, lambda: rollout(P, R, PI, np.array([0]), np.ones((1, 3, 2))), "noise holds a number outside"),
        (ValueError, lambda: rollout(P, R, PI, np.array([0]), np.zeros((1, 3, 3))), "noise"),
        (ValueError, lambda: rollout(P, R, PI * 2, np.array([0]), np.zeros((1, 3, 2))), "policy at s = 0 sums to 2.0"),
        (ValueError, lambda: rollout(P, R, PI, np.array([0]), np.zeros((1, 3, 2)), first_actions=np.array([-1])),
         "first_actions holds -1; needed 0 .. 1"),
        (ValueError, lambda: mc_basic(P, R, PI, np.zeros((1, 2, 2, 1, 1)), gamma=0.5),
         r"mc_basic: policy at s = 0 is \[0.5, 0.5\]; needed one action of chance 1"),
        (ValueError, lambda: mc_basic(P, R, np.eye(2), np.zeros((0, 2, 2, 1, 1)), gamma=0.5), "has k=0, n=1, T=1"),
        (ValueError, lambda: mc_exploring_starts(P, R, R, np.array([[0, 2]]), np.zeros((1, 1, 2)), gamma=0.5),
         "actions of starts holds 2"),
        (ValueError,
         lambda: mc_exploring_starts(P, R, R, np.array([[0, 1]]), np.zeros((1, 1, 2)), gamma=0.5, visit="last"),
         "visit='last'; needed 'first' or 'every'"),
        (ValueError, lambda: mc_epsilon_greedy(P, R, R, np.zeros((1, 1), int), np.zeros((1, 1, 1, 2)), gamma=0.5,
                                               epsilon=2.0), "epsilon=2.0"),
        (ValueError, lambda: monte_carlo(np.array([[3]]), np.ones((1, 1)), np.array([1]), num_states=2, gamma=0.5),
         "states holds 3; needed 0 .. 1"),
        (ValueError, lambda: monte_carlo(np.array([[0]]), np.ones((1, 1)), np.array([2]), num_states=2, gamma=0.5),
         "lengths holds 2; needed 0 .. 1"),
        (ValueError, lambda: importance_sampling(X, X, X, gamma=0.5), "behaviour at .episode, step. = .0, 0. is 0"),
        (ValueError, lambda: importance_sampling(X + 2, X + 1, X, gamma=0.5), "target at .episode, step. = .0, 0."),
        (ValueError, lambda: importance_sampling(X[:0], X[:0], X[:0], gamma=0.5), "rewards has n=0 episodes"),
        (ValueError, lambda: importance_sampling(X, X + 1, X, gamma=0.5, kind="best"), "kind='best'; needed one of"),
    ],
)  # fmt: skip
def test_bad_episodes_are_named(error, call, said):
    with pytest.raises(error, match=said):
        call()


AT, ROW, HALF = np.zeros((1, 2), int), np.zeros((1, 2)), np.array([0.5])
OFF = np.zeros((1, 2), bool)
UPDATES = {
    td0: lambda s=AT, a=AT, rate=HALF, gamma=0.5: td0(np.zeros(2), s, ROW, AT, OFF, rate, gamma=gamma),
    q_learning: lambda s=AT, a=AT, rate=HALF, gamma=0.5: q_learning(R, s, a, ROW, AT, OFF, rate, gamma=gamma),
    sarsa: lambda s=AT, a=AT, rate=HALF, gamma=0.5: sarsa(R, s, a, ROW, AT, AT, OFF, rate, gamma=gamma),
    expected_sarsa: lambda s=AT, a=AT, rate=HALF, gamma=0.5: expected_sarsa(
        R, PI, s, a, ROW, AT, OFF, rate, gamma=gamma
    ),
}
each_update = pytest.mark.parametrize("function", UPDATES, ids=[f.__name__ for f in UPDATES])


@each_update
@pytest.mark.parametrize(
    "error, given, said",
    [
        (ValueError, {"s": AT + 2}, "states holds 2; needed 0 .. 1"),
        (ValueError, {"s": AT - 1}, "states holds -1; needed 0 .. 1"),
        (TypeError, {"s": ROW}, "states has dtype float64"),
        (ValueError, {"rate": np.array([1.5])}, r"rates hold a number outside \[0, 1\]"),
        (ValueError, {"rate": np.array([0.5, 0.5])}, "rates has k=2"),
        (ValueError, {"gamma": 2.0}, "gamma=2.0"),
    ],
)
def test_bad_transitions_are_named(function, error, given, said):
    with pytest.raises(error, match=f"^{function.__name__}: .*{said}"):
        UPDATES[function](**given)


@pytest.mark.parametrize("function", [q_learning, sarsa, expected_sarsa])
def test_an_action_that_is_not_there_is_named(function):
    with pytest.raises(ValueError, match=f"^{function.__name__}: actions holds 5; needed 0 .. 1"):
        UPDATES[function](a=AT + 5)


def test_a_bad_policy_of_expected_sarsa_is_named():
    with pytest.raises(ValueError, match="^expected_sarsa: policy at s = 0 sums to 2.0"):
        expected_sarsa(R, 2 * PI, AT, AT, ROW, AT, OFF, HALF, gamma=0.5)


LINE = np.zeros(3, int), np.zeros(3), np.zeros(3, int), np.zeros(3, bool), np.zeros(3, bool)


@pytest.mark.parametrize(
    "function, options, said",
    [
        (td_lambda, {"gamma": 0.5, "lam": 2.0, "rate": 0.5}, "lam=2.0; needed 0 <= lam <= 1"),
        (td_lambda, {"gamma": 0.5, "lam": 0.5, "rate": -1.0}, "rate=-1.0"),
        (td_lambda, {"gamma": 0.5, "lam": 0.5, "rate": 0.5, "traces": "dutch"}, "traces='dutch'; needed one of"),
        (td_lambda, {"gamma": 5, "lam": 0.5, "rate": 0.5}, "gamma=5"),
        (n_step_td, {"n": 0, "gamma": 0.5, "rate": 0.5}, "n=0; needed at least 1"),
        (n_step_td, {"n": 1, "gamma": 0.5, "rate": 1.5}, "rate=1.5"),
    ],
)
def test_bad_options_of_traces_and_windows_are_named(function, options, said):
    with pytest.raises(ValueError, match=f"^{function.__name__}: {said}"):
        function(np.zeros(2), *LINE, **options)


@pytest.mark.parametrize("function, options", [(td_lambda, {"lam": 0.5}), (n_step_td, {"n": 2})])
def test_a_state_that_is_not_there_is_named(function, options):
    with pytest.raises(ValueError, match=f"^{function.__name__}: next_states holds 7; needed 0 .. 1"):
        function(np.zeros(2), *LINE[:2], LINE[2] + 7, *LINE[3:], gamma=0.5, rate=0.5, **options)
