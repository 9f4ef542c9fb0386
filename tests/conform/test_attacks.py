"""Functions that once passed `check` and should not, or failed it and should not."""

import sys
import types

import numpy as np
import pytest

from ref.conform.check import DEFAULT, BadTarget, check, five_lines
from ref.conform.expect import LawBroken
from ref.conform.impl import Target
from ref.conform.runner import run_law
from ref.optim.adamw import adamw as right_adamw
from ref.spec import get, load_laws


@pytest.fixture
def judge(monkeypatch):
    """check() of a function under the name `attacker:<its name>`."""

    def run(id, function, vjp=None, examples=12, dtype="float64", **options):
        module = types.ModuleType("attacker")
        setattr(module, function.__name__, function)
        if vjp is not None:
            setattr(module, f"{function.__name__}_vjp", vjp)
        monkeypatch.setitem(sys.modules, "attacker", module)
        path = f"attacker:{function.__name__}"
        return check(id, path, examples=examples, grads=vjp is not None, dtype=dtype, **options)

    return run


def linear(x, w, b=None):
    y = x @ w.T
    return y if b is None else y + b


def spoilt_where(condition):
    """A linear layer off by 1e-3 where `condition(x, w)` holds."""

    def wrong(x, w, b=None):
        return linear(x, w, b) * x.dtype.type(1.001 if x.size and condition(x, w) else 1)

    return wrong


@pytest.mark.parametrize(
    "condition",
    [
        lambda x, w: w.shape[1] > 128,
        lambda x, w: w.shape[0] > 64 and w.shape[0] % 2,
        lambda x, w: x.ndim > 3,
        lambda x, w: x.size // max(x.shape[-1], 1) > 64,
        lambda x, w: x.dtype == np.float32,
        lambda x, w: np.abs(x).max() > 1e4,
        lambda x, w: np.abs(x).max() < 1e-3,
        lambda x, w: min(x.strides) < 0,
        lambda x, w: x.strides[-1] > x.itemsize,
    ],
    ids=["wide", "odd", "three batch axes", "many rows", "float32", "huge", "faint", "reversed", "strided"],
)
def test_a_fault_in_a_corner_is_found(condition):
    assert any(
        outcome("nn.linear", label, spoilt_where(condition), dtype=d).verdict == "failed"
        for label in ("L2", "L3", "L4") for d in DEFAULT
    )  # fmt: skip


def outcome(id, label, function, vjp=None, dtype="float64"):
    """What one law says of a function, on the cases that `check` would draw."""
    load_laws([id])
    spec = get(id)
    law, target = spec.laws[label], Target("t", function, vjp, False, True)
    return run_law(law, spec, target, examples=200, dtype=dtype, given=law.given.grow())


def linear_vjp(g, x, w, b=None):
    rows = int(np.prod(x.shape[:-1]))
    g2, x2 = g.reshape(rows, w.shape[0]), x.reshape(rows, w.shape[1])
    return {"x": g @ w, "weight": g2.T @ x2, "bias": g2.sum(0)}


def test_a_right_gradient_conforms(judge):
    assert judge("nn.linear", linear, linear_vjp).verdict == "conforms"


def test_a_gradient_that_spends_its_cotangent_is_caught(judge):
    def in_place(g, x, w, b=None):
        found = linear_vjp(g, x, w, b)
        g *= 2
        return found

    report = judge("nn.linear", linear, in_place)
    assert "the cotangent was changed in place" in _reasons(report)


def test_a_gradient_in_a_buffer_that_is_used_again_is_caught(judge):
    kept = {}

    def buffered(g, q, k, v, **options):
        by_multiplying = get("attention.sdpa").mutants["gradient_by_multiplying"].vjp
        with np.errstate(all="ignore"):
            found = by_multiplying(g, q, k, v, **options)
        for i, x in enumerate(found):
            kept.setdefault((i, x.shape, x.dtype), np.zeros_like(x))[...] = x
        return tuple(kept[i, x.shape, x.dtype] for i, x in enumerate(found))

    def attention(q, k, v, **options):
        from ref.attention.sdpa import sdpa

        return np.asarray(sdpa(q, k, v, **options))

    found = outcome("attention.sdpa", "L15", attention, buffered)
    assert "an earlier call's output was changed" in str(found.broken)


def _reasons(report):
    return " ".join(str(f.outcome.broken) for f in report.findings)


def test_an_input_that_is_written_later_is_caught(judge):
    kept = []

    def late(x, w, b=None):
        if kept and kept[-1] is not x:
            kept[-1][...] = 7
        kept[:] = [x]
        return linear(x, w, b)

    assert "changed" in _reasons(judge("nn.linear", late))


@pytest.mark.parametrize("form", [list, lambda s: {"m": s[0], "v": s[1], "t": s[2]}])
def test_a_state_may_be_any_container_of_its_fields(judge, form):
    def step(param, grad, state, **options):
        out, new = right_adamw(param, grad, state, **options)
        return [out, form(new)]

    assert judge("optim.adamw", step, examples=6).verdict == "conforms"


@pytest.mark.parametrize(
    "spoil, said",
    [
        (lambda s: s._replace(m=s.m.astype(np.float16)), "dtype float16, wanted float64"),
        (lambda s: s._replace(v=s.v[..., None]), "an entry of state has shape"),
        (lambda s: (s.m, s.v), "nor a tuple, list or dict"),
    ],
)
def test_a_state_of_another_shape_is_named(judge, spoil, said):
    def step(param, grad, state, **options):
        out, new = right_adamw(param, grad, state, **options)
        return out, spoil(new)

    assert said in _reasons(judge("optim.adamw", step, examples=6))


def test_an_option_that_is_lacking_stays_at_its_default(judge):
    def rms(x, weight):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + x.dtype.type(1e-5)) * weight

    report = judge("nn.rms_norm", rms)
    assert report.verdict == "conforms" and report.lacks == ("eps",)


def test_a_positional_option_that_is_lacking_is_left_out(judge):
    def without_bias(x, weight):
        return x @ weight.T

    report = judge("nn.linear", without_bias)
    assert report.verdict == "conforms" and report.lacks == ("bias",)


def test_a_function_that_widens_is_judged_in_float64(judge):
    def wide(x, w, b=None):
        return linear(*(None if a is None else a.astype(np.float64) for a in (x, w, b)))

    report = judge("nn.linear", wide, dtype=None)
    assert report.verdict == "conforms"
    assert {f.outcome.dtype for f in report.findings if f.outcome.verdict == "passed"} == {"float64"}
    assert "dtype float64, wanted float32" in _reasons(judge("nn.linear", wide, dtype="float32"))


def test_where_nothing_is_judged_nothing_conforms(judge):
    with pytest.raises(ValueError, match="nothing was judged"):
        judge("nn.keep_mask", lambda positions, *, seed, rate: positions > 0, dtype="float16")
    with pytest.raises(BadTarget, match="takes no peak"):
        judge("optim.warmup_cosine", lambda step: step * 1.0)


def test_exits_and_slow_calls_are_failures(judge):
    def leaves_(x, w, b=None):
        sys.exit(0)

    def hangs(x, w, b=None):
        while True:
            pass

    assert "raised SystemExit" in _reasons(judge("nn.linear", leaves_))
    report = judge("nn.linear", hangs, limit=0.2)
    assert report.verdict == "broken" and "took more than 0.2 s" in _reasons(report)


def test_five_lines_of_a_state_and_of_nan_replay(judge):
    def frozen(param, grad, state, **options):
        return param.copy(), state._replace(m=state.m.copy(), v=state.v.copy())

    def leaky(logits, targets, *, z_loss=0.0, ignore_index=None):
        x = logits - logits.max(-1, keepdims=True)
        loss = np.log(np.exp(x).sum(-1)) - np.take_along_axis(x, np.clip(targets, 0, None)[..., None], -1)[..., 0]
        return np.where(targets == ignore_index, loss * 0, loss)

    for id, function in (("optim.adamw", frozen), ("losses.softmax_cross_entropy", leaky)):
        report = judge(id, function)
        failed = [f for f in report.findings if f.outcome.verdict == "failed"]
        assert failed
        for finding in failed:
            with pytest.raises(LawBroken):
                exec(five_lines(finding, report.target), {})
