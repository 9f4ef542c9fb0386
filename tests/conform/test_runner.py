"""The runner notices what would make a run worthless: each guard and each check is shown to fail."""

import numpy as np
import pytest
from hypothesis import assume

from ref.conform.impl import Impl, Target
from ref.conform.nulls import nulls
from ref.conform.runner import run_law, sample
from ref.spec import Law, get, load_laws
from ref.spec.cases import Flag, cases, choose, dims

ID = "attention.sdpa"
load_laws([ID])
SPEC = get(ID)
SPACE = SPEC.laws["L3"].given


def judge(run, given=SPACE, function=SPEC.function, cases=None, **options):
    law = Law(id=ID, label="T1", run=run, given=given, **options)
    return run_law(law, SPEC, Target("t", function, differentiable=False), examples=30, cases=cases)


def call(impl, c, expect):
    "The guards alone."
    impl(c)
    impl(c)
    expect.holds(True, "")


def spoiled(change):
    def function(q, k, v, **options):
        return change(SPEC.function(q, k, v, **options), q)

    return function


KEPT = []


def keep_first(out, q):
    KEPT.append(out)
    return next((x for x in KEPT if x.shape == out.shape), out)


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda out, q: out.astype(np.float16), "dtype float16, wanted float64"),
        (lambda out, q: out[..., None], "shape"),
        (lambda out, q: out * np.nan, "NaN, and no input had"),
        (lambda out, q: out + np.inf, "infinity, and no input had"),
        (lambda out, q: out.tolist(), "is a list, wanted an array"),
        (lambda out, q: q.__setitem__(..., 9.0) or out, "input q was changed"),
        (keep_first, "earlier call"),
    ],
)
def test_every_guard_fails_where_it_should(change, said):
    found = judge(call, given=SPACE.where(some=True, memory="C"), function=spoiled(change))
    assert found.verdict == "failed"
    assert said in str(found.broken)


def test_an_output_that_is_a_view_of_an_input_is_caught():
    found = judge(call, SPACE.where(some=True, e=2, d=2, S=3, T=3, R=1), lambda q, k, v, **o: v[...])
    assert "shares memory with the input v" in str(found.broken)


def test_a_law_that_compares_nothing_fails():
    found = judge(lambda impl, c, expect: None)
    assert found.verdict == "failed" and "compared nothing" in str(found.broken)


def test_an_edge_class_that_was_never_reached_fails():
    space = SPACE.where(S=2)._replace(flags={**SPACE.flags, "odd": Flag(lambda c: c.S == 3)}, edges=("odd",))
    found = judge(call, given=space)
    assert found.verdict == "failed" and "never reached: odd" in str(found.broken)


def test_a_premise_that_no_case_meets_fails():
    found = judge(call, given=SPACE.where(S=0, T=dims(1, 3), some=True))
    assert found.verdict == "failed" and "premises" in str(found.broken)


def test_a_law_whose_cases_are_all_rejected_fails():
    def rejecting(impl, c, expect):
        expect(np.ones(1), np.ones(1), 10.0)

    found = judge(rejecting)
    assert found.verdict == "failed"


def test_a_crash_of_the_target_is_reported_and_one_of_the_law_is_raised():
    def crash(q, k, v, **options):
        raise ZeroDivisionError("boom")

    assert "raised ZeroDivisionError: boom" in str(judge(call, function=crash).broken)
    with pytest.raises(ZeroDivisionError):
        judge(lambda impl, c, expect: 1 / 0)


def test_needs_that_the_target_lacks_are_not_applicable():
    assert judge(call, needs=("vjp",)).verdict == "not_applicable"


def test_runs_repeat_and_seeds_differ():
    law = SPEC.laws["L3"]
    first, again = (sample(law.given, 20, seed=3) for _ in range(2))
    other = sample(law.given, 20, seed=4)
    assert [repr(c) for c in first] == [repr(c) for c in again] != [repr(c) for c in other]


def test_where_refuses_unknown_names_and_builds_flags():
    with pytest.raises(ValueError, match="'Q' is no field and no flag"):
        SPACE.where(Q=1)
    with pytest.raises(ValueError, match="'odd' is no flag"):
        SPACE.reach("odd")
    assert all(c.S == 0 for c in sample(SPACE.where(no_keys=True), 20))
    assert all(not c.keep.any(-1).all() for c in sample(SPACE.where(empty_row=True), 20))


def test_a_grown_space_reaches_large_and_tile_edge_sizes():
    small = sample(SPACE, 100)
    large = sample(SPACE.grow(), 200)
    assert max(c.S for c in small) <= 6
    assert max(c.S for c in large) > 60


def test_cases_are_exact_in_every_dtype_and_come_in_every_layout():
    found = sample(cases(ID, B=(), G=1, H=1, T=3, S=3, d=2, e=2), 60)
    for c in found:
        assert np.array_equal(c.q.astype(np.float16).astype(np.float64), c.q)
        assert np.array_equal(c.astype("float32").q, c.q)
    assert {c.memory for c in found} == {"C", "F", "strided", "reversed"}
    strided = next(c for c in found if c.memory == "strided").astype("float32")
    assert not strided.q.flags.c_contiguous


def test_a_case_names_what_it_lacks():
    c = sample(SPACE, 1)[0]
    with pytest.raises(AttributeError, match="no field 'nonsense'"):
        _ = c.nonsense
    assert c.replace(scale=3.0).scale == 3.0


@pytest.mark.parametrize("name", sorted(nulls(SPEC)))
def test_a_null_fails_some_law(name):
    target = nulls(SPEC)[name]
    assert any(run_law(x, SPEC, target, examples=40).verdict == "failed" for x in SPEC.laws.values())


def test_choose_and_impl_serve_one_call_without_guards():
    c = sample(SPACE.where(T=choose(2), S=2), 1)[0].astype("float32")
    out = Impl(SPEC, Target("t", SPEC.function), dtype="float32", guarded=False)(c)
    assert out.dtype == np.float32


def test_cases_drawn_before_are_judged_as_copies():
    drawn = sample(SPACE, 20)
    before = [c.q.copy() for c in drawn]

    def writes(impl, c, expect):
        impl(c)
        c.q[...] = 0.0
        expect.same(c.q, c.q)

    seen = []

    def watches(impl, c, expect):
        seen.append(c.q.copy())
        expect.same(impl(c), impl(c))

    for run in (writes, watches):
        found = judge(run, cases=drawn)
        assert (found.verdict, found.examples) == ("passed", 20)
    assert all(np.array_equal(a, b) and np.array_equal(a, c.q) for a, b, c in zip(seen, before, drawn, strict=True))
    broken = judge(lambda impl, c, expect: expect.same(np.asarray(c.q.size), np.asarray(-1)), cases=drawn)
    assert (broken.verdict, broken.examples) == ("failed", 1)


def test_others_are_drawn_where_a_case_says_nothing_of_the_target():
    drawn = sample(SPACE, 20)
    least = min(c.q.size for c in drawn)

    def picky(impl, c, expect):
        assume(c.q.size > least)
        expect.same(impl(c), impl(c))

    found = judge(picky, cases=drawn)
    assert (found.verdict, found.examples) == ("passed", 20)
    premises = judge(call, given=SPACE.where(S=0, T=dims(1, 3), some=True), cases=[])
    assert premises.verdict == "failed" and "premises" in str(premises.broken)


def test_an_edge_class_that_the_drawing_missed_is_sought():
    seen = []

    def watch(impl, c, expect):
        seen.append(c.S)
        expect.same(impl(c), impl(c))

    rare = SPACE.where(S=dims(1, 3))
    rare = rare._replace(flags={**rare.flags, "long": Flag(lambda c: c.S == 9, {"S": 9})}).reach("long")
    drawn = sample(rare.unreached(), 20)
    assert {c.S for c in drawn} <= {1, 2, 3}
    assert judge(watch, given=rare, cases=drawn).verdict == "passed"
    assert 9 in seen

    def fails_there(impl, c, expect):
        expect.same(np.asarray(c.S == 9), np.asarray(False))

    found = judge(fails_there, given=rare, cases=drawn)
    assert found.verdict == "failed" and found.case.S == 9
