"""Who is judged by what: every algorithm by its laws, every mutant and every null by all of them."""

from __future__ import annotations

import backends
from ref.conform.impl import of_mutant, own
from ref.conform.nulls import NUMBERS, nulls
from ref.conform.runner import run_law, sample, seed_of
from ref.spec import load_laws

KILL_EXAMPLES = 150
NULL_EXAMPLES = 50


def plan(specs, *, backend="numpy", form=None, dtypes=None):
    """The rows of a verification: (spec, law, form, dtype), for a backend that is there."""
    backends.get(backend)
    load_laws([s.id for s in specs])
    for spec in specs:
        if backend not in spec.backends:
            continue
        for each_form in spec.forms(backend):
            if form in (None, each_form):
                for law in spec.laws.values():
                    for dtype in law.dtypes:
                        # The array API standard has no float16: it is judged on NumPy.
                        if (dtypes is None or dtype in dtypes) and (backend, dtype) != ("strict", "float16"):
                            yield spec, law, each_form, dtype


def verify(specs, *, backend="numpy", form=None, examples=25, seed=None, dtypes=None, reach=True):
    """Yield the Outcome of every row of `plan`; with `reach` off, edge classes need not be met."""
    for spec, law, each_form, dtype in plan(specs, backend=backend, form=form, dtypes=dtypes):
        given = law.given if reach else law.given.unreached()
        yield run_law(
            law, spec, own(spec), backend=backend, form=each_form, dtype=dtype, examples=examples, seed=seed,
            given=given,
        )  # fmt: skip


def kills(spec, law, mutant, examples=KILL_EXAMPLES, cases=None):
    """Whether `law` catches `mutant` within `examples` cases, or on the given ones; a crash is not a catch."""
    found = run_law(law, spec, of_mutant(mutant), dtype=law.dtypes[0], examples=examples, cases=cases)
    return found.verdict == "failed" and not found.broken.what.startswith("raised ")


def named_pairs(spec):
    """(law, mutant) for every kill that a law names."""
    return [(law, spec.mutants[name]) for law in spec.laws.values() for name in law.kills]


def draw(spec, examples=NULL_EXAMPLES):
    """{law label: cases}: one drawing for every target that `full_kills` and `null_faults` judge."""
    return {law.label: sample(law.given, examples, seed_of(law)) for law in spec.laws.values()}


def full_kills(spec, drawn=None):
    """{mutant: [labels of the laws that kill it]} over all pairs; a pair that a law names gets more cases."""
    drawn = draw(spec) if drawn is None else drawn

    def killed(law, mutant):
        return kills(spec, law, mutant, cases=drawn[law.label]) or (
            mutant.name in law.kills and kills(spec, law, mutant)
        )

    return {m.name: [law.label for law in spec.laws.values() if killed(law, m)] for m in spec.mutants.values()}


def null_verdicts(spec, drawn=None):
    """{null: {law label: verdict}} with the guards on, and without them for the closed-form laws.

    A guard may catch a null before the law does, so the closed-form laws that must see through zeros, a
    constant and identity on their own are run unguarded as well, under the label `label (unguarded)`.
    """
    drawn, table = draw(spec) if drawn is None else drawn, {}
    for name, target in nulls(spec).items():
        row = {}
        for law in spec.laws.values():
            dtype, cases = law.dtypes[0], drawn[law.label]
            row[law.label] = run_law(law, spec, target, dtype=dtype, cases=cases).verdict
            if name in NUMBERS and law.closed_form:
                bare = run_law(law, spec, target, dtype=dtype, cases=cases, guarded=False)
                row[f"{law.label} (unguarded)"] = bare.verdict
        table[name] = row
    return table


def null_faults(spec, drawn=None):
    """What is wrong with an algorithm's laws in the face of the nulls: a list of sentences, [] if none."""
    faults = []
    for name, row in null_verdicts(spec, drawn).items():
        guarded = {k: v for k, v in row.items() if "unguarded" not in k}
        if "failed" not in guarded.values():
            faults.append(f"{spec.id}: the null {name} passes every law")
        bare = [v for k, v in row.items() if "unguarded" in k]
        if name in NUMBERS and "failed" not in bare:
            faults.append(f"{spec.id}: no closed-form law kills {name}")
        for label, verdict in guarded.items():
            listed = name in spec.laws[label].passes_null
            if verdict == "passed" and not listed:
                faults.append(f"{spec.id} {label}: passes the null {name}, which passes_null does not list")
            if verdict == "failed" and listed:
                faults.append(f"{spec.id} {label}: lists the null {name} and kills it")
    return faults
