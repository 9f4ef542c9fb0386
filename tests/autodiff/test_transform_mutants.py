"""Wrong transforms, and the check that each one breaks."""

from __future__ import annotations

import numpy as np
import pytest

from autodiff import forward, grad, jacfwd, jacrev, jvp, namespace, vjp
from autodiff.transforms import between, curvature, directional, evaluation, jacobians
from tests.autodiff import test_jacobians as jac
from tests.autodiff import test_transform_hygiene as hygiene
from tests.autodiff.samples import unshrunk


class _Sticky(set):
    def discard(self, level):
        pass


def _stacks_in_front(parts, out, x):
    xp = namespace(*parts)
    return xp.reshape(xp.stack(parts), (*np.shape(out), *np.shape(x)))


def _mean_for_sum(f, argnums=0, has_aux=False):
    return grad(lambda *a: namespace(*a).mean(f(*a)), argnums, has_aux)


def _runs_again(f, *primals):
    return f(*primals), lambda *u: jvp(f, primals, u)[1]


def _widens(parts, count, shape, like):
    return np.reshape(np.stack(parts), shape).astype(np.float64)


def _never_ends(monkeypatch):
    levels = _Sticky()
    for owner in (forward, directional, evaluation, hygiene):
        monkeypatch.setattr(owner, "LIVE", levels)


def _first_axis_only(f, args, tangents):
    return vjp(grad(f, 0), *args)[1](tangents[0])


def _affine_passes(f, *primals):
    return vjp(f, *primals)[1]


def _set(owner, name, value):
    return lambda m: m.setattr(owner, name, value)


# (what is wrong, how, a check that fails on it)
MUTANTS = [
    ("columns stacked in front", _set(jacobians, "_columns", _stacks_in_front), lambda: jac.test_closed_forms(jacfwd)),
    ("rows in float64", _set(jacobians, "_joined", _widens),
     lambda: hygiene.test_dtypes_are_kept("jacrev", np.float32)),
    ("rows of one leaf for all", _set(jacobians, "_arguments", lambda row, shapes, argnums: row[0]),
     lambda: jac.test_blocks_stand_where_the_trees_say(jacrev)),
    ("mean for sum", _set(jac, "elementwise_grad", _mean_for_sum),
     jac.test_elementwise_grad_is_the_diagonal_and_else_the_sum_of_the_rows),
    ("linearize runs f again", _set(jac, "linearize", _runs_again),
     jac.test_linearize_runs_f_once_and_is_the_jacobian),
    ("inner run counts as outside", _set(
        directional, "Evaluation", lambda *a, inner=None: evaluation.Evaluation(*a)),
     lambda: hygiene.test_at_depth_zero_everything_is_raw_and_the_state_is_as_before("linearize")),
    ("one block of the Hessian", lambda m: m.setitem(curvature.WAYS, "reverse_over_reverse", _first_axis_only),
     jac.test_three_ways_of_hessian_times_vector),
    ("Hessian of the loss forgotten", _set(curvature, "hvp", lambda f, args, t: t), jac.test_gauss_newton_is_j_h_j),
    ("an affine function passes", _set(jac, "linear_transpose", _affine_passes),
     lambda: jac.test_refusals_name_what_arrived(
         lambda: jac.linear_transpose(lambda x: x + 1.0, jac.X), ValueError, "needs a linear function")),
    ("closures are lost", _set(evaluation, "outside", lambda *a: (False, False)),
     lambda: hygiene.test_a_closed_over_tensor_is_still_differentiated("grad")),
    ("everything leaks", _set(evaluation, "outside", lambda *a: (True, False)),
     lambda: hygiene.test_at_depth_zero_everything_is_raw_and_the_state_is_as_before("vjp")),
    ("levels stay alive", _never_ends,
     lambda: hygiene.test_at_depth_zero_everything_is_raw_and_the_state_is_as_before("jvp")),
    ("levels stay alive after an error", _never_ends,
     lambda: hygiene.test_the_state_is_as_before_also_after_an_error("jvp")),
    ("one level for all", _set(directional, "tick", lambda: 1),
     lambda: hygiene.test_perturbations_are_not_confused("jvp", "jvp")),
    ("the same, two kinds of transform", _set(directional, "tick", lambda: 1),
     lambda: hygiene.test_perturbations_are_not_confused("jacfwd", "jvp")),
    ("variables are not renewed", _set(evaluation, "variable", lambda x: x if hasattr(x, "node") and x.node
        else between._tensor(x, evaluation.leaf(x))),
     lambda: hygiene.test_perturbations_are_not_confused("grad", "grad")),
    ("the cotangent is not read", _set(evaluation, "checked", lambda g, like, name: np.ones_like(like)),
     lambda: jac.test_the_transpose_of_a_linear_function_is_its_adjoint()),
]  # fmt: skip


@pytest.mark.parametrize("breaks, check", [m[1:] for m in MUTANTS], ids=[m[0] for m in MUTANTS])
def test_a_wrong_transform_is_caught(breaks, check, monkeypatch):
    check()
    unshrunk(check, monkeypatch)
    breaks(monkeypatch)
    with pytest.raises(BaseException) as caught:  # noqa: PT011  a law may fail in its own way
        check()
    assert isinstance(caught.value, (AssertionError, AttributeError, TypeError, ValueError, pytest.fail.Exception))
