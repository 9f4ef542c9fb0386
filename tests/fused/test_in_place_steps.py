"""The in-place optimizer steps: judged by the laws of the readable ones, over lists, for any number of threads."""

import numpy as np
import pytest

from backends.fused.numpy._blocks import BLOCK, JOB, _jobs
from backends.fused.numpy.adamw import adamw_
from backends.fused.numpy.ema import ema_
from backends.fused.numpy.lion import lion_
from backends.fused.numpy.sgd import sgd_
from backends.threads import threads
from ref.conform.impl import Target
from ref.conform.runner import run_law
from ref.optim.ema import EmaState
from ref.optim.lion import LionState
from ref.optim.sgd import SgdState
from ref.spec import get, load_laws

load_laws(["optim.sgd", "optim.lion", "optim.ema"])


def sgd_in_place(param, grad, state, *, form="torch", **options):
    p, b = param.flatten(), state.velocity.flatten()
    sgd_(p, grad.flatten(), b, **options)
    return p.reshape(param.shape), SgdState(b.reshape(param.shape))


def lion_in_place(param, grad, state, **options):
    p, m = param.flatten(), state.m.flatten()
    lion_(p, grad.flatten(), m, **options)
    return p.reshape(param.shape), LionState(m.reshape(param.shape))


def ema_in_place(param, state, *, decay=0.999, corrected=True):
    e, t = state.average.flatten(), state.t + 1
    ema_(e, param.flatten(), decay=decay)
    e = e.reshape(param.shape)
    return (e / (1 - decay**t)).astype(e.dtype) if corrected else e.copy(), EmaState(e, t)


ROWS = [("optim.sgd", sgd_in_place, law) for law in get("optim.sgd").laws.values()]
ROWS += [("optim.lion", lion_in_place, law) for law in get("optim.lion").laws.values()]
ROWS += [("optim.ema", ema_in_place, law) for law in get("optim.ema").laws.values()]


@pytest.mark.parametrize("id, function, law", ROWS, ids=[f"{id}-{law.label}" for id, _, law in ROWS])
def test_the_in_place_form_obeys_the_laws(id, function, law):
    given = law.given.narrow(form="torch") if id == "optim.sgd" else law.given
    for dtype in law.dtypes:
        target = Target(function.__name__, function, differentiable=False)
        found = run_law(law, get(id), target, dtype=dtype, examples=12 + 3 * len(given.edges), given=given)
        assert found.verdict == "passed", f"{dtype}: {found.broken}; {found.case!r}"


def test_the_laws_catch_a_wrong_in_place_form():
    """Nesterov's look ahead taken from half of the velocity; Lion's signs from the new momentum; the average's weights
    exchanged."""

    def half(param, grad, state, *, form="torch", **options):
        out, new = sgd_in_place(param, grad, state, form=form, **options)
        return out, SgdState((new.velocity * 0.5).astype(param.dtype))

    def late(param, grad, state, *, beta1=0.9, beta2=0.99, **options):
        return lion_in_place(param, grad, state, beta1=beta2, beta2=beta2, **options)

    def exchanged(param, state, *, decay=0.999, corrected=True):
        found, new = ema_in_place(param, state, decay=1 - decay, corrected=False)
        return (found / (1 - decay**new.t)).astype(found.dtype) if corrected else found, new

    for id, wrong, name in (
        ("optim.sgd", half, "quadratic_is_a_matrix_power"), ("optim.lion", late, "the_sign_is_of_the_interpolation"),
        ("optim.ema", exchanged, "an_impulse_fades_geometrically"),
    ):  # fmt: skip
        law = next(x for x in get(id).laws.values() if x.name == name)
        assert run_law(law, get(id), Target("wrong", wrong, differentiable=False), examples=60).verdict == "failed"


STEPS = {
    "adamw": (2, lambda p, g, s, t: adamw_(p, g, *s, t, lr=0.1, beta1=0.9, beta2=0.99, eps=1e-8, weight_decay=0.1)),
    "sgd": (1, lambda p, g, s, t: sgd_(p, g, *s, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1)),
    "lion": (1, lambda p, g, s, t: lion_(p, g, *s, lr=0.1, beta1=0.9, beta2=0.99, weight_decay=0.1)),
}
SIZES = [3, BLOCK + 1, 0, 1, 7, 5 * BLOCK, 2]


def run(step, slots, sizes, *, as_list):
    rng = np.random.default_rng(0)
    params = [rng.standard_normal(n).astype(np.float32) for n in sizes]
    states = [[np.zeros_like(p) for p in params] for _ in range(slots)]
    for t in (1, 2):
        grads = [rng.standard_normal(n).astype(np.float32) for n in sizes]
        if as_list:
            step(params, grads, states, t)
        else:
            for k in range(len(sizes)):
                step(params[k], grads[k], [s[k] for s in states], t)
    return [x.tobytes() for x in (*params, *(x for s in states for x in s))]


@pytest.mark.parametrize("name", STEPS)
def test_a_list_has_the_bits_of_its_arrays_for_any_number_of_threads(name):
    slots, step = STEPS[name]
    wanted = run(step, slots, SIZES, as_list=False)
    for count in (1, 2, 5):
        with threads(count):
            assert run(step, slots, SIZES, as_list=True) == wanted


def test_jobs_cover_every_element_once_and_small_arrays_share_one():
    jobs = _jobs(SIZES)
    seen = [(k, i) for job in jobs for k, start, stop in job for i in range(start, stop)]
    assert seen == [(k, i) for k, n in enumerate(SIZES) for i in range(n)]
    assert all(sum(stop - start for _, start, stop in job) <= JOB for job in jobs)
    assert len(_jobs([10] * 300)) == 1 and _jobs([0, 0]) == []


@pytest.mark.parametrize(
    "arrays, said",
    [
        (([np.zeros(3)], [np.zeros(3)] * 2, [np.zeros(3)]), "sgd_: grad has 2 arrays, param has 1; needed as many"),
        ((np.zeros(3), np.zeros(4), np.zeros(3)), r"sgd_: grad is float64\[4\], param is float64\[3\]"),
        ((np.zeros(3), np.zeros(3), np.zeros((3, 1))), r"velocity is float64\[3, 1\]"),
        ((np.zeros(3), np.zeros(3, np.float32), np.zeros(3)), r"grad is float32\[3\]"),
        ((np.zeros(3), np.zeros(6)[::2], np.zeros(3)), "grad is not contiguous"),
    ],
)
def test_bad_input_is_named(arrays, said):
    with pytest.raises(ValueError, match=said):
        sgd_(*arrays, lr=0.1)


def test_bad_input_of_lion():
    with pytest.raises(ValueError, match="lion_: m has 2 arrays, param has 1"):
        lion_([np.zeros(3)], [np.zeros(3)], [np.zeros(3)] * 2, lr=0.1, beta1=0.9, beta2=0.99)
