"""Wrong executors are caught: each edit of the schedule's or the policies' code, by a check named beside it."""

import numpy as np
import pytest

from autodiff import checkpoint_schedule, checkpoint_selective, namespace, policies, saved_bytes, schedule, tensor
from autodiff.checkpoint import _Segment
from autodiff.tree import tree_map
from ref.training.revolve import extra_steps, revolve

N, SNAPS = 8, 2


def chain(w, rng, calls):
    def layer(x):
        calls.append(1)
        xp = namespace(x, w)
        return xp.tanh(xp.matmul(x, w)) * ((rng.random(x.shape) < 0.75) * 1.5) + x * 0.5

    return [layer] * N


def gradient(run):
    """(gradients and the generator's next draw, saved bytes, calls) of the chain run by `run(layers, x, rng)`."""
    source, calls, rng = np.random.default_rng(0), [], np.random.default_rng(1)
    w, x = (tensor(source.standard_normal((3, 3)), requires_grad=True) for _ in range(2))
    out = run(chain(w, rng, calls), x * 1.0, rng)
    held = saved_bytes(out, besides=[w])
    out.sum().backward()
    return [w.grad, x.grad, rng.random()], held, len(calls)


def plain(layers, x, rng):
    for f in layers:
        x = f(x)
    return x


def scheduled(layers, x, rng):
    return checkpoint_schedule(layers, x, revolve(N, SNAPS), rng=rng)


def selected(layers, x, rng):
    policy = {"matmul": "offload", "multiply": "save"}
    return checkpoint_selective(lambda x: plain(layers, x, rng), x, policy=policy, rng=rng)


def check_bits(run):
    assert all(map(np.array_equal, gradient(run)[0], gradient(plain)[0]))


def check_schedule_counts():
    _, held, calls = gradient(scheduled)
    tape = gradient(lambda layers, x, rng: plain(layers[:1], x, rng))[1]
    assert (held, calls) == (SNAPS * 72 + tape, extra_steps(N, SNAPS) + N)


def check_policy_counts():
    assert gradient(selected)[1] == 72 * (1 + 2 * N)  # the argument, and two products a layer


def check_that_chance_is_seen():
    rng = np.random.default_rng(0)
    x = tensor(np.ones(32), requires_grad=True)
    with pytest.raises(RuntimeError, match="not deterministic"):
        checkpoint_selective(lambda x: x.sin() * rng.random(32), x, policy={"sin": "save"}).sum().backward()


CHECKS = {
    "schedule bits": lambda: check_bits(scheduled),
    "schedule counts": check_schedule_counts,
    "policy bits": lambda: check_bits(selected),
    "policy counts": check_policy_counts,
    "chance": check_that_chance_is_seen,
}


def draws_afresh(run, start, stop):
    for k in range(start, stop):
        with schedule.no_grad():
            run.state = run.fs[k](run.state)


def one_state_late(run, start, stop, right=schedule._Run._advance):
    right(run, start, stop)
    run.state = tree_map(lambda v: v * (1 + 2.0**-40), run.state)


def uncounted(run):
    return []


def never_discarded(run, i, right=schedule._Run.input_of):
    kept = dict(run.kept)
    out = right(run, i)
    run.fs[0](run.state or tensor(out[0]))  # and one run too many
    run.kept.update(kept)
    return out


def in_single_precision(spilled, right=policies._Spilled.get):
    return tree_map(lambda v: v.astype(np.float32).astype(v.dtype), right(spilled))


def the_last_result(book, prim, f, raws, params, right=policies._Book.run):
    if book.next:
        kept = [k for name, k in book.calls if name == prim.name]
        if kept[-1] is not None:
            book.next += 1
            return kept[-1].get()
    return right(book, prim, f, raws, params)


WRONG = [
    ("recomputation draws afresh", schedule._Run, "_advance", draws_afresh, "schedule bits"),
    ("a state is off in its last digits", schedule._Run, "_advance", one_state_late, "schedule bits"),
    ("kept states are not counted", schedule._Run, "arrays", uncounted, "schedule counts"),
    ("states are never discarded", schedule._Run, "input_of", never_discarded, "schedule counts"),
    ("the file holds float32", policies._Spilled, "get", in_single_precision, "policy bits"),
    ("every call gets the last result", policies._Book, "run", the_last_result, "policy bits"),
    ("kept results are not counted", policies._Book, "arrays", uncounted, "policy counts"),
    ("what comes back is not compared", _Segment, "_compare", lambda *a: None, "chance"),
]


@pytest.mark.parametrize("check", CHECKS)
def test_the_checks_pass_as_it_is(check):
    CHECKS[check]()


@pytest.mark.parametrize("owner, name, wrong, check", [w[1:] for w in WRONG], ids=[w[0] for w in WRONG])
def test_a_wrong_executor_is_caught(monkeypatch, owner, name, wrong, check):
    monkeypatch.setattr(owner, name, wrong)
    with pytest.raises((AssertionError, RuntimeError, pytest.fail.Exception)):
        CHECKS[check]()
