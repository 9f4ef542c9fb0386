"""The in-place optimizer steps: judged by the laws of the readable ones, over lists, for any number of threads."""

import numpy as np
import pytest

from backends.fused.compiled import adamw as compiled
from backends.fused.numpy._blocks import BLOCK, JOB, _jobs
from backends.fused.numpy.adafactor import adafactor_
from backends.fused.numpy.adamw import adamw_
from backends.fused.numpy.ema import ema_
from backends.fused.numpy.lion import lion_
from backends.fused.numpy.muon import muon_
from backends.fused.numpy.sgd import sgd_
from backends.threads import threads
from ref.conform.impl import Target
from ref.conform.runner import run_law
from ref.optim.adafactor import AdafactorState
from ref.optim.ema import EmaState
from ref.optim.lion import LionState
from ref.optim.muon import COEFFICIENTS, SCALES
from ref.optim.sgd import SgdState
from ref.spec import get, load_laws

IDS = ["optim.sgd", "optim.lion", "optim.ema", "optim.muon", "optim.adafactor"]
load_laws(IDS)


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


def muon_in_place(
    param, grad, state, *, lr=1e-3, momentum=0.95, nesterov=True, weight_decay=0.1, scale="moonlight", steps=5,
    coefficients=COEFFICIENTS, eps=1e-7,
):  # fmt: skip
    p, v = param.copy(order="C"), state.velocity.copy(order="C")
    muon_(p, grad.copy(order="C"), v, lr=lr, momentum=momentum, nesterov=nesterov, weight_decay=weight_decay,
          factor=SCALES[scale](*p.shape), steps=steps, coefficients=coefficients, eps=eps)  # fmt: skip
    return p, SgdState(v)


def adafactor_in_place(
    param, grad, state, *, lr=None, decay_exponent=0.8, clip=1.0, eps1=1e-30, eps2=1e-3, scale_parameter=True
):  # fmt: skip
    p, rows = param.copy(order="C"), state.rows.copy()
    columns, t = None if state.columns is None else state.columns.copy(), state.t + 1
    adafactor_(p, grad.copy(order="C"), rows, columns, t, lr=lr, decay_exponent=decay_exponent, clip=clip, eps1=eps1,
               eps2=eps2, scale_parameter=scale_parameter)  # fmt: skip
    return p, AdafactorState(rows, columns, t)


FORMS = dict(zip(IDS, (sgd_in_place, lion_in_place, ema_in_place, muon_in_place, adafactor_in_place), strict=True))
ROWS = [(id, form, law) for id, form in FORMS.items() for law in get(id).laws.values()]


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


ADAMW = {"lr": 0.1, "beta1": 0.9, "beta2": 0.99, "eps": 1e-8, "weight_decay": 0.1}
STEPS = {
    "adamw": (2, lambda p, g, s, t: adamw_(p, g, *s, t, **ADAMW)),
    "adamw, compiled": (2, lambda p, g, s, t: compiled.adamw_(p, g, *s, t, **ADAMW)),
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


def bits_of(step, count):
    rng = np.random.default_rng(0)
    made = [rng.standard_normal((700, 300)).astype(np.float32) for _ in range(3)]
    with threads(count):
        return [x.tobytes() for x in step(*made)]


def muon_step(param, grad, velocity):
    muon_(param, grad, velocity, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1, factor=2.0, steps=0,
          coefficients=COEFFICIENTS, eps=0.0)  # fmt: skip
    return param, velocity


def adafactor_step(param, grad, state):
    rows, columns = np.square(state[:, 0]), np.square(state[0])
    adafactor_(param, grad, rows, columns, 2, lr=None, decay_exponent=0.8, clip=1.0, eps1=1e-30, eps2=1e-3,
               scale_parameter=True)  # fmt: skip
    return param, rows, columns


@pytest.mark.parametrize("step", [muon_step, adafactor_step])
def test_a_matrix_has_the_same_bits_for_any_number_of_threads(step):
    assert bits_of(step, 1) == bits_of(step, 2) == bits_of(step, 5)


def test_bad_input_of_muon_and_adafactor():
    x = np.zeros((2, 3))
    with pytest.raises(ValueError, match=r"muon_: velocity is float64\[3, 2\], param is float64\[2, 3\]"):
        muon_step(x, x, np.zeros((3, 2)))
    with pytest.raises(ValueError, match=r"muon_: grad is float64\[2, 3\], .* must be contiguous matrices"):
        muon_step(x, np.zeros((2, 6))[:, ::2], x)
    options = {"lr": None, "decay_exponent": 0.8, "clip": 1.0, "eps1": 0.0, "eps2": 0.0, "scale_parameter": True}
    with pytest.raises(ValueError, match=r"adafactor_: rows is float64\[3\]; needed contiguous float64\[2\]"):
        adafactor_(x, x, np.zeros(3), np.zeros(3), 1, **options)
    with pytest.raises(ValueError, match="adafactor_: param has 2 axes, columns is NoneType; needed"):
        adafactor_(x, x, np.zeros(2), None, 1, **options)
    with pytest.raises(ValueError, match="adafactor_: t=0; the first step is t=1"):
        adafactor_(x, x, np.zeros(2), np.zeros(3), 0, **options)
