"""The simulator: counts of real runs, stragglers and failures, links, and what it says of a whole program."""

import importlib

import numpy as np
import pytest

from backends.communicators import Model, Nodes, Phantom, ThreadWorld, Torus, simulate
from ref.distributed.all_reduce import ALGORITHMS, all_reduce
from ref.distributed.forecast import forecast
from ref.distributed.ring_all_reduce import ring_all_reduce
from ref.distributed.rounds import ROUNDS

PLAIN = Model(alpha=1.0, beta=0.5, gamma=0.25)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 8])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_counts_are_those_of_the_real_run(n, algorithm):
    world = ThreadWorld(n)
    all_reduce(world, np.ones((n, 13), np.float32), algorithm=algorithm)
    found = simulate(n, lambda comm: all_reduce(comm, Phantom(13), algorithm=algorithm), PLAIN)
    assert found.counts == world.traffic
    assert found.hangs == {}


def test_a_step_of_data_and_tensor_parallelism():
    """Counts of a program with groups: 2 x 3 ranks, a sum along rows and one along columns, as threads count them."""

    def step(make):
        def program(comm):
            grid = comm.grid(2, 3)
            comm.compute(10.0)
            all_reduce(grid.row, make(12), algorithm="ring")
            all_reduce(grid.column, make(4), algorithm="ring")

        return program

    world = ThreadWorld(6)
    world.run(step(lambda n: np.ones(n, np.float32)))
    found = simulate(6, step(Phantom), PLAIN)
    assert found.counts == world.traffic
    row, column = 4 * (1 + 0.5 * 16) + 2 * 16 * 0.25, 2 * (1 + 0.5 * 8) + 8 * 0.25
    assert found.seconds.tolist() == [10 + row + column] * 6


def test_overlap_is_seen():
    """Compute that runs while a message is on its way costs nothing more."""

    def program(comm):
        requests = [comm.irecv(Phantom(100), 1 - comm.rank), comm.isend(Phantom(100), 1 - comm.rank)]
        comm.compute(150.0)
        for request in requests:
            request.wait()

    assert simulate(2, program, PLAIN).seconds.tolist() == [201.0, 201.0]


def test_messages_of_one_rank_share_its_port():
    def program(comm):
        if comm.rank == 0:
            for request in [comm.isend(Phantom(2), r) for r in (1, 2)]:
                request.wait()
        else:
            comm.recv(Phantom(2), 0)

    assert simulate(3, program, PLAIN).seconds.tolist() == [10.0, 5.0, 10.0]


def test_segments_overlap_combining():
    whole = simulate(2, lambda comm: all_reduce(comm, Phantom(1000), algorithm="ring"), Model(1.0, 1.0, 1.0))
    from ref.distributed.segmented_ring_all_reduce import segmented_ring_all_reduce

    cut = simulate(2, lambda comm: segmented_ring_all_reduce(comm, Phantom(1000), segment=200), Model(1.0, 1.0, 1.0))
    assert whole.seconds.max() == 2 + 4000 + 2000
    assert cut.seconds.max() == 20 + 4000, "all combining is hidden behind messages"


def test_who_waits_for_a_dead_rank_hangs():
    model = Model(alpha=1.0, beta=0.0, dies={2: 2.5})
    found = simulate(5, lambda comm: ring_all_reduce(comm, Phantom(5)), model)
    assert found.seconds.tolist() == [np.inf] * 5
    assert found.hangs[2] == "died" or "rank 2" in found.hangs[2] or "died" in found.hangs[2]
    assert set(found.hangs) == set(range(5))
    late = simulate(5, lambda comm: ring_all_reduce(comm, Phantom(5)), Model(1.0, 0.0, dies={2: 100.0}))
    assert late.seconds.tolist() == [8.0] * 5


def test_a_tree_goes_on_without_a_dead_leaf():
    from ref.distributed.binomial_broadcast import binomial_broadcast

    model = Model(alpha=1.0, beta=0.0, dies={3: 0.5})
    found = simulate(4, lambda comm: binomial_broadcast(comm, Phantom(5)), model)
    assert found.seconds.tolist() == [2.0, 2.0, np.inf, np.inf], "the leaf, and its parent that sends to it"


@pytest.mark.parametrize("name", sorted(ROUNDS))
def test_forecast_and_event_queue_agree_on_deaths(name):
    """Whoever dies, and whenever: the rounds' recursion and the queue over the real program, to the bit."""
    function = getattr(importlib.import_module(f"ref.distributed.{name}"), name)
    for n in (2, 3, 4, 5):

        def program(comm, n=n):
            if name == "dissemination_barrier":
                return function(comm, 0.0)
            gather = "all_gather" in name
            return function(comm, Phantom(2 if gather else 2 * n), **({"length": 2 * n} if gather else {}))

        for rank in range(n):
            for second in (-0.5, 1.5, 4.5):
                model = Model(1.0, 0.25, 0.125, dies={rank: second})
                found = forecast(n, 2 * n, np.array([1.0, 0.25, 0.125]), name=name, dies={rank: second})
                assert found.tolist() == simulate(n, program, model).seconds.tolist()


def test_links():
    nodes = Nodes(4, 0.1, 0.01)
    a, b = nodes.links(1.0, 0.5, np.array([0, 3, 4]), np.array([3, 4, 7]))
    assert a.tolist() == [0.1, 1.0, 0.1]
    assert b.tolist() == [0.01, 0.5, 0.01]
    torus = Torus((4, 4), hop=0.5)
    hops = {(0, 1): 1, (0, 3): 1, (0, 2): 2, (0, 12): 1, (0, 10): 4, (5, 0): 2}
    for (s, d), h in hops.items():
        assert float(torus.links(1.0, 0.0, s, d)[0]) == 1.0 + 0.5 * (h - 1)


def test_a_hundred_thousand_ranks():
    rates = np.array([2e-6, 1e-10, 1e-11])
    slow = np.ones(100_000)
    slow[12_345] = 4.0
    even = forecast(100_000, 1 << 20, rates, name="halving_doubling_all_reduce")
    uneven = forecast(100_000, 1 << 20, rates, name="halving_doubling_all_reduce", slow=slow)
    assert even.shape == uneven.shape == (100_000,)
    assert uneven.max() > 2 * even.max()
    assert (uneven >= even).all()


def test_a_deadlock_is_a_hang():
    found = simulate(2, lambda comm: comm.recv(Phantom(1), 1 - comm.rank), PLAIN)
    assert found.hangs == {0: "waits for rank 1", 1: "waits for rank 0"}
    with pytest.raises(ValueError, match="message of 4 and 8 bytes"):
        simulate(2, lambda comm: comm.sendrecv(Phantom(1), 1 - comm.rank, Phantom(2), 1 - comm.rank), PLAIN)
