"""The laws of the collectives under real MPI.

    mpiexec -n N python -m mpi4py -m tests.distributed.laws_under_mpi EXAMPLES MOST_LAWS_OF_EACH

Every process judges the same law on the same case: seeds are derived from the law, there is no database, no shrinking.
A case's arrays are compared between the ranks before it runs, results and failures are shared before anyone judges, and
verdicts after: a rank that sees a failure alone is itself a failure.
"""

import pkgutil
import sys

import ref.distributed
from backends.communicators import MpiCommunicator, mpi_world
from ref.conform.impl import of_mutant, own
from ref.conform.runner import run_law
from ref.spec import get, load_laws

KILLED = {  # wrong on every rank alike, none of them waiting for a message that does not come
    "distributed.ring_all_reduce": ("L1", "always_sums"),
    "distributed.recursive_doubling_all_reduce": ("L1", "always_sums"),
    "distributed.differentiable_all_reduce": ("L2", "mean_backward"),
}


def collectives():
    """The specs whose laws take a world (no other family is loaded)."""
    names = [m.name for m in pkgutil.iter_modules(ref.distributed.__path__, "distributed.")]
    specs = [get(n) for n in names if not n.endswith("_laws") and n != "distributed.ranks"]
    return [s for s in specs if s.parameters[0][:1] == ("comm",)]


def judge(law, spec, target, world, examples):
    """The law's outcome on this world; None if it has no case with so many ranks."""
    given = law.given.narrow(n=world.size, comm=world).unreached()
    if given.impossible:
        return None
    found = run_law(law, spec, target, examples=examples, given=given)
    return None if found.verdict == "failed" and found.case is None else found


def main(examples, most):
    comm, world = MpiCommunicator(), mpi_world()
    specs = collectives()
    load_laws([s.id for s in specs])
    judged, broken = 0, []
    for spec in specs:
        for law in list(spec.laws.values())[:most]:
            found = judge(law, spec, own(spec), world, examples)
            said = comm.share(found and (found.verdict, found.examples, str(found.broken or "")))
            if len(set(said)) > 1:
                broken.append(f"{spec.id} {law.label}: ranks disagree: {said}")
            elif found is not None:
                judged += found.examples
                if found.verdict != "passed":
                    broken.append(f"{spec.id} {law.label}: {found.broken}; {found.case!r}")
        label, name = KILLED.get(spec.id, (None, None))
        if label and world.size > 1:
            found = judge(spec.laws[label], spec, of_mutant(spec.mutants[name]), world, 30)
            if comm.share(found.verdict) != ["failed"] * comm.size:
                broken.append(f"{spec.id} {label}: {name} survives under MPI")
    if comm.rank == 0:
        print(*broken, f"judged {judged} cases on {comm.size} ranks, {len(broken)} broken", sep="\n")
    return 1 if broken or not judged else 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
