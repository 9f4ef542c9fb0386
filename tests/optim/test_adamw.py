"""Bad input of adamw, and the in-place form against the readable one."""

import numpy as np
import pytest

import autodiff
from backends.fused.compiled import adamw as compiled
from backends.fused.numpy import adamw as blocked
from backends.threads import threads
from ref.conform.impl import Target
from ref.conform.runner import run_law
from ref.optim.adamw import AdamState, adamw, start
from ref.spec import get, load_laws

TH, G = np.ones(3), np.full(3, 0.5)


@pytest.mark.parametrize(
    "grad, state, options, said",
    [
        (G, start(TH), {"lr": -1.0}, "adamw: lr=-1.0; needed a finite number >= 0"),
        (G, start(TH), {"eps": float("nan")}, "eps=nan"),
        (G, start(TH), {"weight_decay": -0.1}, "weight_decay=-0.1"),
        (G, start(TH), {"beta1": 1.0}, r"beta1=1.0; needed a number in \[0, 1\)"),
        (G, start(TH), {"beta2": -0.1}, "beta2=-0.1"),
        (G, start(TH), {"lr": np.inf}, "lr=inf"),
        (np.array([1.0, np.nan, 0.0]), start(TH), {"name": "layers.3.w"}, "the gradient of layers.3.w has NaN"),
        (np.array([1.0, np.inf, 0.0]), start(TH), {"name": "w"}, "the gradient of w has an infinity"),
        (np.ones(4), start(TH), {}, r"grad has n=\(4,\), param has n=\(3,\)"),
        (G, AdamState(np.zeros(2), np.zeros(3), 0), {}, r"m has n=\(2,\)"),
        (G, AdamState(np.zeros(3), np.zeros(3), -1), {}, "t=-1"),
    ],
)
def test_bad_input_is_named(grad, state, options, said):
    with pytest.raises(ValueError, match=said):
        adamw(TH, grad, state, **options)


def test_mixed_dtypes_are_refused():
    with pytest.raises(TypeError, match="grad has dtype float32, param has float64"):
        adamw(TH, G.astype(np.float32), start(TH))


def test_a_state_of_another_kind_is_refused():
    with pytest.raises(TypeError, match="adamw: state is a list; needed AdamState"):
        adamw(TH, G, [np.zeros(3), np.zeros(3), 0])


def test_a_step_can_be_differentiated():
    """d th' / d lr = -wd th - m^ / (sqrt(v^) + eps): a learning rate can be learned."""
    options = {"beta1": 0.5, "beta2": 0.5, "eps": 0.5, "weight_decay": 0.25}
    slope = autodiff.grad(lambda lr: adamw(TH, G, start(TH), lr=lr, **options)[0].sum())(np.array(0.125))
    assert abs(slope - 3 * (-0.25 - 0.5 / (0.5 + 0.5))) < 1e-15


def in_place(adamw_):
    """The in-place form behind the signature of the readable one."""

    def step(param, grad, state, *, lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.01):
        p, m, v = param.flatten(), state.m.flatten(), state.v.flatten()
        adamw_(
            p, grad.flatten(), m, v, state.t + 1, lr=lr, beta1=beta1, beta2=beta2, eps=eps, weight_decay=weight_decay
        )
        return p.reshape(param.shape), AdamState(m.reshape(param.shape), v.reshape(param.shape), state.t + 1)

    return step


each_form = pytest.mark.parametrize("module", [blocked, compiled], ids=["blocked", "compiled"])
load_laws(["optim.adamw"])
LAWS = get("optim.adamw").laws.values()


@each_form
@pytest.mark.parametrize("law", LAWS, ids=[x.name for x in LAWS])
def test_the_in_place_form_obeys_the_laws(law, module):
    target = Target("adamw_", in_place(module.adamw_), differentiable=False)
    for dtype in law.dtypes:
        found = run_law(law, get("optim.adamw"), target, dtype=dtype, examples=15 + 3 * len(law.given.edges))
        assert found.verdict == "passed", f"{dtype}: {found.broken}; {found.case!r}"


def test_the_laws_catch_a_wrong_in_place_form():
    """One step too many in the correction."""
    def late(param, grad, state, **options):
        out, new = in_place(blocked.adamw_)(param, grad, state._replace(t=state.t + 1), **options)
        return out, new._replace(t=state.t + 1)

    target = Target("late", late, differentiable=False)
    verdicts = {x.name: run_law(x, get("optim.adamw"), target).verdict for x in LAWS}
    assert verdicts["first_step_is_the_sign"] == "failed"
    assert verdicts["shards_are_the_whole"] == "passed"


@each_form
@pytest.mark.parametrize("n", [1, 5, 200_003])
def test_the_in_place_form_is_the_readable_one_for_any_number_of_threads(n, module):
    rng = np.random.default_rng(n)
    options = {"lr": 1e-2, "beta1": 0.9, "beta2": 0.95, "eps": 1e-8, "weight_decay": 0.1}
    found = []
    for count in (1, 2):
        rng = np.random.default_rng(n)
        param = rng.standard_normal(n)
        wanted, state = param.copy(), start(param)
        m, v = np.zeros(n), np.zeros(n)
        with threads(count):
            for t in range(1, 4):
                grad = rng.standard_normal(n)
                module.adamw_(param, grad, m, v, t, **options)
                wanted, state = adamw(wanted, grad, state, **options)
        assert np.max(np.abs(param - wanted)) <= 1e-14
        found.append(param)
    assert np.array_equal(*found)
