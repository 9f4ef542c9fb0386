"""Every law of every algorithm: on NumPy in each form and dtype, and on the strict backend."""

import os

import numpy as np
import pytest

from ref.conform.impl import of_mutant, own
from ref.conform.matrix import kills, named_pairs, verify
from ref.conform.runner import run_law, sample, seed_of
from ref.spec import all_specs, load_laws

load_laws()
SPECS = all_specs()
DEEP = os.environ.get("CLOSEDFORM_PROFILE") == "deep"
EXAMPLES = {"float64": 400, "float32": 200, "strict": 60} if DEEP else {"float64": 12, "float32": 6, "strict": 5}
SEED = int.from_bytes(os.urandom(4), "little") if DEEP else None

each_spec = pytest.mark.parametrize("spec", SPECS, ids=[s.id for s in SPECS])
LAWS = [(s, law) for s in SPECS for law in s.laws.values()]
each_law = pytest.mark.parametrize("spec, law", LAWS, ids=[f"{s.id}-{law.label}" for s, law in LAWS])


@each_law
def test_law_holds(spec, law):
    if "numpy" not in spec.backends:
        pytest.fail(f"{spec.id} is not declared for numpy, which every algorithm is")
    rows = [(form, dtype) for form in spec.forms("numpy") for dtype in law.dtypes]
    space, least = law.given.grow() if DEEP else law.given, 3 * len(law.given.edges) + 5
    most = max(EXAMPLES["float64"], least)
    drawn = sample(space, most, seed_of(law) if SEED is None else SEED) if len(rows) > 1 else None
    for form, dtype in rows:
        given, examples = space, max(EXAMPLES.get(dtype, 8), least)
        if dtype == "float32" and not DEEP:  # the edges were met in float64
            given, examples = space.unreached(), EXAMPLES[dtype]
        found = run_law(
            law, spec, own(spec), form=form, dtype=dtype, examples=examples, seed=SEED, given=given,
            cases=drawn and drawn[:examples],
        )  # fmt: skip
        assert found.verdict == "passed", f"{form} {dtype} seed={SEED}: {found.broken}; {found.case!r}"


@each_spec
def test_laws_hold_on_the_strict_backend(spec):
    if "strict" not in spec.backends:
        assert spec.backends == ("numpy",)
        return
    rows = list(verify([spec], backend="strict", dtypes=("float64",), examples=EXAMPLES["strict"], reach=False))
    assert rows
    for found in rows:
        assert found.verdict == "passed", f"{found.law} {found.name}: {found.broken}; {found.case!r}"


@each_spec
def test_named_mutants_are_killed(spec):
    survivors = [f"{m.name} by {law.label}" for law, m in named_pairs(spec) if not kills(spec, law, m)]
    assert not survivors


@each_spec
def test_mutants_pass_their_default_size_test(spec):
    for mutant in spec.mutants.values():
        assert mutant.default_case is not None, f"{mutant.name} has no default-size test"
        args, options = mutant.default_case()
        wrong = of_mutant(mutant).function(*args, **options)
        right = spec.function(*args, **options)
        assert _close(wrong, right), f"{mutant.name} fails its own default-size test"


def _close(a, b):
    if hasattr(b, "__next__"):
        a, b = list(a), list(b)
    if isinstance(b, tuple | list):
        return len(a) == len(b) and all(map(_close, a, b))
    if isinstance(b, dict):
        return a.keys() == b.keys() and all(_close(a[k], b[k]) for k in b)
    if isinstance(b, str):
        return str(a) == b
    return b is None or np.allclose(a, b, rtol=1e-5, atol=1e-7)


@each_spec
def test_every_law_kills_a_mutant_and_every_mutant_has_its_law(spec):
    assert spec.laws, f"{spec.id} has no laws"
    assert any(law.closed_form for law in spec.laws.values()), f"{spec.id} has no closed-form law"
    idle = [x.label for x in spec.laws.values() if not x.kills and not x.documentation]
    assert not idle, f"laws of {spec.id} that kill nothing and are not labelled documentation"
    unknown = {name for x in spec.laws.values() for name in x.kills} - set(spec.mutants)
    assert not unknown
    free = set(spec.mutants) - {name for x in spec.laws.values() for name in x.kills}
    assert not free, f"mutants of {spec.id} that no law names"
