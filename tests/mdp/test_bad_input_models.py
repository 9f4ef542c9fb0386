"""What the algorithms on models say of bad input: the state and action are named."""

import numpy as np
import pytest
from scipy import sparse

from ref.mdp.action_values import action_values
from ref.mdp.bellman_expectation import bellman_expectation
from ref.mdp.bellman_optimality import bellman_optimality
from ref.mdp.epsilon_greedy import epsilon_greedy
from ref.mdp.finite_horizon import finite_horizon
from ref.mdp.from_table import from_table
from ref.mdp.grid_world import grid_world
from ref.mdp.iterative_evaluation import iterative_evaluation
from ref.mdp.occupancy import occupancy
from ref.mdp.policy_evaluation import policy_evaluation
from ref.mdp.policy_iteration import policy_iteration
from ref.mdp.potential_shaping import potential_shaping
from ref.mdp.sparse_value_iteration import sparse_value_iteration
from ref.mdp.truncated_policy_iteration import truncated_policy_iteration
from ref.mdp.value_iteration import value_iteration

P = np.full((3, 2, 3), 1 / 3)
R, V, PI = np.zeros((3, 2)), np.zeros(3), np.full((3, 2), 0.5)
ON_MODELS = {
    action_values: lambda P, R, **o: action_values(P, R, V, **o),
    bellman_expectation: lambda P, R, **o: bellman_expectation(P, R, PI, V, **o),
    bellman_optimality: lambda P, R, **o: bellman_optimality(P, R, V, **o),
    policy_evaluation: lambda P, R, **o: policy_evaluation(P, R, PI, **o),
    iterative_evaluation: lambda P, R, **o: iterative_evaluation(P, R, PI, V, sweeps=1, **o),
    value_iteration: value_iteration,
    policy_iteration: policy_iteration,
    truncated_policy_iteration: lambda P, R, **o: truncated_policy_iteration(P, R, sweeps=2, **o),
    finite_horizon: lambda P, R, **o: finite_horizon(P, R, horizon=1, **o),
    potential_shaping: lambda P, R, **o: potential_shaping(P, R, V, **o),
}
each = pytest.mark.parametrize("function", ON_MODELS, ids=[f.__name__ for f in ON_MODELS])


def changed(array, at, value):
    array = array.copy()
    array[at] = value
    return array


@each
@pytest.mark.parametrize(
    "error, given, said",
    [
        (
            ValueError,
            (changed(P, (1, 0, 2), 0.5), R),
            r"P at \(s, a\) = \(1, 0\) sums to 1.1666.*; needed chances >= 0",
        ),
        (ValueError, (changed(P, (2, 1), [1.5, -0.5, 0]), R), r"P at \(s, a\) = \(2, 1\) has -0.5"),
        (ValueError, (changed(P, (0, 1, 0), np.nan), R), r"P at \(s, a\) = \(0, 1\) sums to nan"),
        (ValueError, (P, changed(R, (2, 0), np.inf)), r"R at \(s, a\) = \(2, 0\) is inf; needed finite rewards"),
        (ValueError, (P, R[:, :1]), "R has A=1, P has A=2"),
        (ValueError, (P[:, :, :2], R), "P has S=2"),
        (ValueError, (P[:, :0], R[:, :0]), "A=0"),
        (TypeError, (P.astype(np.float32), R), "R has dtype float64, P has float32"),
        (TypeError, (P.tolist(), R), "P is a list"),
    ],
)
def test_a_bad_model_is_named(function, error, given, said):
    with pytest.raises(error, match=f"^{function.__name__}: .*{said}"):
        ON_MODELS[function](*given, gamma=0.5)


@each
@pytest.mark.parametrize(
    "error, gamma, said",
    [
        (ValueError, 1.5, "gamma=1.5; needed 0 <= gamma"),
        (ValueError, -0.1, "gamma=-0.1; needed 0 <= gamma"),
        (ValueError, float("nan"), "gamma=nan"),
        (TypeError, "high", "gamma is a str; needed a number"),
    ],
)
def test_gamma_out_of_range_is_named(function, error, gamma, said):
    with pytest.raises(error, match=f"^{function.__name__}: {said}"):
        ON_MODELS[function](P, R, gamma=gamma)


@pytest.mark.parametrize("function", [value_iteration, truncated_policy_iteration])
def test_discounting_is_needed_to_converge(function):
    with pytest.raises(ValueError, match=f"^{function.__name__}: gamma=1; needed 0 <= gamma < 1"):
        ON_MODELS[function](P, R, gamma=1)


def test_a_policy_that_never_ends_is_named_at_gamma_one():
    stays = np.zeros((3, 1, 3))
    stays[0, 0, 2] = stays[1, 0, 1] = stays[2, 0, 2] = 1
    assert policy_evaluation(stays[[0, 2]][:, :, [0, 2]], np.array([[5.0], [0.0]]), np.ones((2, 1)), gamma=1)[0] == 5
    with pytest.raises(ValueError, match="^policy_evaluation: gamma=1 and from s = 1 the policy reaches no absorbing"):
        policy_evaluation(stays, np.array([[5.0], [0.0], [0.0]])[[0, 1, 2]] - [[0], [1], [0]], np.ones((3, 1)), gamma=1)


@pytest.mark.parametrize(
    "call",
    [
        lambda pi: bellman_expectation(P, R, pi, V, gamma=0.5),
        lambda pi: policy_evaluation(P, R, pi, gamma=0.5),
        lambda pi: iterative_evaluation(P, R, pi, V, gamma=0.5, sweeps=1),
        lambda pi: occupancy(P, pi, np.array([1.0, 0.0, 0.0]), gamma=0.5),
    ],
)
def test_a_bad_policy_is_named(call):
    with pytest.raises(ValueError, match=r"policy at \(s, a\) = \(1,\)|policy at s = 1 sums to 1.25"):
        call(changed(PI, (1, 0), 0.75))


@pytest.mark.parametrize(
    "error, call, said",
    [
        (ValueError, lambda: iterative_evaluation(P, R, PI, V, gamma=0.5, sweeps=-1), "sweeps=-1; needed at least 0"),
        (TypeError, lambda: iterative_evaluation(P, R, PI, V, gamma=0.5, sweeps=1.5), "sweeps is a float"),
        (ValueError, lambda: value_iteration(P, R, gamma=0.5, tolerance=0), "tolerance=0; needed a number > 0"),
        (ValueError, lambda: value_iteration(P, R, np.zeros(2), gamma=0.5), "start has S=2"),
        (TypeError, lambda: value_iteration(P, R, gamma=0.5, iterations="many"), "iterations is a str"),
        (ValueError, lambda: policy_iteration(P, R, gamma=0.5, iterations=0), "iterations=0; needed at least 1"),
        (ValueError, lambda: truncated_policy_iteration(P, R, gamma=0.5, sweeps=0), "sweeps=0; needed at least 1"),
        (ValueError, lambda: finite_horizon(P, R, horizon=0), "horizon=0; needed at least 1"),
        (ValueError, lambda: occupancy(P, PI, np.ones(3), gamma=0.5), "start at s = 0 sums to 3.0"),
        (ValueError, lambda: occupancy(P, PI, np.array([1.0, 0, 0]), gamma=1), "gamma=1; needed 0 <= gamma < 1"),
        (ValueError, lambda: epsilon_greedy(R, 1.5), "epsilon=1.5; needed 0 <= epsilon <= 1"),
        (ValueError, lambda: epsilon_greedy(R[:, :0]), "q has A=0 actions"),
        (TypeError, lambda: epsilon_greedy(R.astype(int)), "q has dtype int64"),
    ],
)
def test_bad_options_are_named(error, call, said):
    with pytest.raises(error, match=said):
        call()


SPARSE = [sparse.eye_array(3, format="csr")] * 2


@pytest.mark.parametrize(
    "error, given, said",
    [
        (ValueError, (SPARSE[:1], R), "P has 1 matrices, R has S=3, A=2"),
        (TypeError, ([*SPARSE[:1], np.eye(3)], R), r"P\[1\] is a ndarray; needed a matrix of scipy.sparse"),
        (ValueError, ([SPARSE[0], sparse.eye_array(2)], R), r"P\[1\] has shape \(2, 2\), R has S=3"),
        (ValueError, ([SPARSE[0], SPARSE[0] * 0.5], R), r"P at \(s, a\) = \(0, 1\) is no distribution"),
        (ValueError, ([SPARSE[0], sparse.csr_array([[1, 0, 0], [2, -1, 0], [0, 0, 1.0]])], R), r"\(1, 1\) is no distr"),
        (ValueError, (SPARSE, changed(R, (2, 1), np.nan)), r"R at \(s, a\) = \(2, 1\) is not finite"),
        (TypeError, (SPARSE, R.astype(int)), "R has dtype int64"),
    ],
)
def test_bad_sparse_models_are_named(error, given, said):
    with pytest.raises(error, match=f"^sparse_value_iteration: .*{said}"):
        sparse_value_iteration(*given, gamma=0.5)


@pytest.mark.parametrize(
    "error, given, options, said",
    [
        (ValueError, (0, 3), {"target": (0, 0)}, "rows=0; needed at least 1"),
        (TypeError, (2.5, 3), {"target": (0, 0)}, "rows is a float"),
        (ValueError, (2, 3), {"target": (2, 0)}, r"target \(2, 0\) is off the grid; needed \(row, column\) in 2 x 3"),
        (ValueError, (2, 3), {"target": (0, 0), "forbidden": [(1, 1), (0, 3)]}, r"forbidden \(0, 3\) is off the grid"),
        (ValueError, (2, 3), {"target": (0, 0), "forbidden": [(0, 0)]}, r"target \(0, 0\) is forbidden"),
    ],
)
def test_bad_grids_are_named(error, given, options, said):
    with pytest.raises(error, match=f"^grid_world: .*{said}"):
        grid_world(*given, **options)


@pytest.mark.parametrize(
    "table, said",
    [
        ({}, "the table has 0 states"),
        ({0: {0: [(1.0, 0, 0.0, False)]}, 1: {}}, "state 1 has 0 actions, state 0 has 1"),
        ({0: {0: [(1.0, 3, 0.0, False)]}}, r"\(s, a\) = \(0, 0\) leads to 3; needed 0 .. 0"),
        ({0: {0: [(0.5, 0, 0.0, False)]}}, r"table at \(s, a\) = \(0, 0\) sums to 0.5"),
    ],
)
def test_bad_tables_are_named(table, said):
    with pytest.raises(ValueError, match=f"^from_table: .*{said}"):
        from_table(table)
