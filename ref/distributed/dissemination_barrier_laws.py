"""Laws and mutants of the dissemination barrier."""

from __future__ import annotations

import numpy as np

from backends.communicators import collective
from ref.distributed import common_laws as common
from ref.distributed.common_laws import NUMBERS, RANKS, world
from ref.spec import law, mutant
from ref.spec.cases import Flag, cases, choose, dims

ID = "distributed.dissemination_barrier"
space = cases(
    ID, n=RANKS, comm=world, values=("normal", "dyadic"),
    flags={
        "alone": Flag(lambda c: c.n == 1, {"n": 1}),
        "odd": Flag(lambda c: c.n & (c.n - 1) > 0, {"n": choose(3, 5, 6, 7)}),
        "many": Flag(lambda c: c.n > 2, {"n": dims(3, 8)}),
    },
)  # fmt: skip


@law(
    ID, "L1", closed_form=True, given=space.reach("alone", "odd"),
    kills=["rounds_rounded_down", "neighbours_alone", "adds_up", "the_first_arrival"],
)  # fmt: skip
def everyone_learns_the_latest_arrival(impl, c, expect):
    "max over ranks of the arrival, on every rank, wherever the latest one is."
    for late in range(c.n):
        arrival = c.arrival.copy()
        arrival[late] = 16.0
        expect.same(impl(c.replace(arrival=arrival)), np.full(c.n, 16.0), f"rank {late} comes last")
    expect.same(impl(c), np.full(c.n, max(float(a) for a in c.arrival)))


@law(
    ID, "L2", closed_form=True, given=space.reach("alone", "odd"), kills=["through_rank_0"],
)  # fmt: skip
def bytes_and_messages_are_the_formula(impl, c, expect):
    "ceil(log2 n) messages of one number a rank."
    rounds = sum(1 for k in range(4) if 1 << k < c.n)
    common.check_traffic(impl, c, expect, lambda r: rounds * c.arrival.dtype.itemsize, lambda r: rounds)


@law(
    ID, "L3", needs=("plan",), given=space.reach("many"), kills=["copies_by_itself"], passes_null=NUMBERS,
)  # fmt: skip
def a_plan_gives_the_same(impl, c, expect):
    "A plan made on other numbers gives the bits of the call."
    common.check_plan(impl, c, expect)


# Mutants ---------------------------------------------------------------------------------------------


def of(n):
    """The default-size test: all come at once, at 0."""
    return lambda: ((common.ThreadWorld(n), np.zeros(n)), {})


def rounds(comm, arrival, *, most=9, op="max", far=True):
    """The rounds, whose parts an edit replaces."""
    n, r, x = comm.size, comm.rank, np.asarray(arrival)
    latest, got = comm.empty(x, 1), comm.empty(x, 1)
    comm.copy(x, latest)
    for k in range(most):
        d = 1 << k
        if d < n:
            d = d if far else 1
            comm.sendrecv(latest, (r + d) % n, got, (r - d) % n)
            comm.combine(op, latest, got, latest)
    return latest.reshape(())


@mutant(ID, default_case=of(4))
@collective
def rounds_rounded_down(comm, arrival=None):
    "floor(log2 n) rounds: enough for powers of two."
    return rounds(comm, arrival, most=comm.size.bit_length() - 1)


@mutant(ID, default_case=of(4))
@collective
def neighbours_alone(comm, arrival=None):
    "Every round to the neighbour: enough for three ranks."
    return rounds(comm, arrival, far=False)


@mutant(ID, default_case=of(4))
@collective
def adds_up(comm, arrival=None):
    "The arrivals are added."
    return rounds(comm, arrival, op="sum")


@mutant(ID, default_case=of(4))
@collective
def the_first_arrival(comm, arrival=None):
    "The earlier of the two is kept."
    return rounds(comm, arrival, op="min")


@mutant(ID, default_case=of(1))
@collective
def through_rank_0(comm, arrival=None):
    "Everybody reports to rank 0, which answers."
    n, r, x = comm.size, comm.rank, np.asarray(arrival)
    latest, got = comm.empty(x, 1), comm.empty(x, 1)
    comm.copy(x, latest)
    if r:
        comm.send(latest, 0)
        comm.recv(latest, 0)
    else:
        for q in range(1, n):
            comm.recv(got, q)
            comm.combine("max", latest, got, latest)
        for q in range(1, n):
            comm.send(latest, q)
    return latest.reshape(())


@mutant(ID, default_case=of(4))
@collective
def copies_by_itself(comm, arrival=None):
    "The own arrival noted without the communicator: a plan sends what it was when it was made."
    return rounds(common.copies_itself(comm), arrival)
