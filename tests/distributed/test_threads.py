"""Threads as ranks: errors reach all, deadlocks are seen, groups, plans, buffers used too early."""

import threading

import numpy as np
import pytest

from backends.communicators import (
    Deadlock,
    Mismatch,
    RankFailed,
    SelfCommunicator,
    ThreadWorld,
    wait_all,
)
from ref.distributed.all_reduce import ALGORITHMS, all_reduce
from ref.distributed.ring_all_gather import ring_all_gather
from ref.distributed.ring_all_reduce import ring_all_reduce

X = np.arange(12.0)
WORLDS = [ThreadWorld(3), ThreadWorld(3, buffered=False), ThreadWorld(3, buffered=False, order=1)]
each_world = pytest.mark.parametrize("world", WORLDS, ids=repr)


@each_world
def test_an_exception_in_one_rank_reaches_all(world):
    seen = []

    def program(comm):
        if comm.rank == 1:
            raise ValueError("boom")
        try:
            ring_all_reduce(comm, X)
        except RankFailed as error:
            seen.append((comm.rank, str(error)))
            raise

    with pytest.raises(ValueError, match="boom") as caught:
        world.run(program)
    assert caught.value.__notes__ == ["on rank 1 of 3"]
    assert sorted(seen) == [(r, "rank 1 raised ValueError: boom") for r in (0, 2)]


def test_a_rank_that_swallows_the_error_cannot_go_on():
    def program(comm):
        if comm.rank == 1:
            raise ValueError("boom")
        for _ in range(3):
            with pytest.raises(RankFailed):
                ring_all_reduce(comm, X)

    with pytest.raises(ValueError, match="boom"):
        ThreadWorld(3).run(program)


@each_world
def test_a_deadlock_is_seen_at_once_and_says_who_waits(world):
    def program(comm):
        ring_all_reduce(comm, X)
        if comm.rank != 1:
            ring_all_reduce(comm, X)

    with pytest.raises(Deadlock, match=r"rank 1 has ended; rank 2 waits for .*in ring_all_reduce\(f8, 12\) #2"):
        world.run(program)


def test_blocking_sends_to_each_other_need_buffers():
    def program(comm):
        other = 1 - comm.rank
        out = np.empty(1)
        comm.send(np.ones(1), other)
        comm.recv(out, other)
        return float(out[0])

    assert ThreadWorld(2).run(program) == [1.0, 1.0]
    with pytest.raises(Deadlock, match="rank 0 waits for rank 1 to receive"):
        ThreadWorld(2, buffered=False).run(program)


def test_polling_for_ever_is_a_deadlock():
    def program(comm):
        request = comm.irecv(np.empty(1), 1 - comm.rank)
        while not request.test():
            pass

    with pytest.raises(Deadlock, match="polls"):
        ThreadWorld(2).run(program)


def test_a_send_buffer_written_too_early_shows():
    def program(comm):
        if comm.rank == 0:
            x = np.ones(3)
            request = comm.isend(x, 1)
            x[...] = 7
            request.wait()
            return None
        out = np.empty(3)
        comm.recv(out, 0)
        return out.tolist()

    assert ThreadWorld(2).run(program)[1] == [1.0, 1.0, 1.0]
    assert ThreadWorld(2, buffered=False).run(program)[1] == [7.0, 7.0, 7.0]


def test_a_receive_buffer_read_too_early_holds_junk():
    def program(comm):
        x, out = np.ones(1), np.ones(1)
        request = comm.irecv(out, 1 - comm.rank)
        comm.isend(x, 1 - comm.rank)
        early = float(out[0])
        request.wait()
        return early, float(out[0])

    assert all(early != 1.0 and late == 1.0 for early, late in ThreadWorld(2, buffered=False).run(program))


def test_what_a_rank_has_waited_for_is_let_go():
    """Else the last message, and with it both its buffers, lives until the rank waits again."""

    def program(comm):
        if comm.rank:
            comm.send(np.ones(3), 0)
        else:
            comm.recv(np.empty(3), 1)
        return comm.run.waits[comm.place]()

    assert ThreadWorld(2, buffered=False).run(program) == ["its turn", "its turn"]


def test_counts_and_dtypes_that_differ_are_named():
    def lengths(comm):
        ring_all_reduce(comm, X[:9] if comm.rank == 1 else X)

    def dtypes(comm):
        ring_all_reduce(comm, X.astype(np.float32) if comm.rank == 1 else X)

    with pytest.raises(Mismatch, match="rank 0 sent 4 float64 to rank 1, which waits for 3 float64"):
        ThreadWorld(3).run(lengths)
    with pytest.raises(Mismatch, match="rank 0 sent 4 float64 to rank 1, which waits for 4 float32"):
        ThreadWorld(3).run(dtypes)


@pytest.mark.parametrize(
    ("second", "said"),
    [
        (lambda comm: ring_all_gather(comm, X), "rank 2 called ring_all_gather(f8) while rank 0 called "
         "ring_all_reduce(f8, 12) at #17"),
        (lambda comm: ring_all_reduce(comm, X, op="max"), "rank 2 called ring_all_reduce(f8, 12, op=max) while rank 0 "
         "called ring_all_reduce(f8, 12) at #17"),
        (lambda comm: ring_all_reduce(comm, X.astype("f4")), "rank 2 called ring_all_reduce(f4, 12) while"),
        (lambda comm: comm.barrier(), "rank 2 was in a barrier while rank 0 called ring_all_reduce(f8, 12) at #17"),
        (lambda comm: comm.split(0), "rank 2 split while rank 0 called"),
    ],
)  # fmt: skip
def test_debug_mode_names_mismatched_collectives(second, said):
    def program(comm):
        for _ in range(16):
            ring_all_reduce(comm, X)
        (second if comm.rank == 2 else lambda comm: ring_all_reduce(comm, X))(comm)

    with pytest.raises(Mismatch) as caught:
        ThreadWorld(3, debug=True).run(program)
    assert said in str(caught.value)


def test_debug_mode_names_who_does_not_come():
    def program(comm):
        if comm.rank != 1:
            ring_all_reduce(comm, X)

    with pytest.raises(Deadlock, match=r"rank 0 waits for rank 1 to call .*ring_all_reduce\(f8, 12\) #1"):
        ThreadWorld(3, debug=True).run(program)


@each_world
def test_groups(world):
    def program(comm):
        halves = comm.split(comm.rank % 2, key=-comm.rank)
        back = comm.subset([2, 0]) if comm.rank != 1 else None
        nobody = comm.split(None if comm.rank == 1 else 0)
        return (
            halves.rank, halves.size, back and (back.rank, comm.share(comm.rank)) or comm.share(comm.rank),
            nobody is None, float(ring_all_reduce(halves, np.array([10.0 ** comm.rank]))[0]),
        )  # fmt: skip

    found = world.run(program)
    assert found == [
        (1, 2, (1, [0, 1, 2]), False, 101.0), (0, 1, [0, 1, 2], True, 10.0), (0, 2, (0, [0, 1, 2]), False, 101.0)
    ]  # fmt: skip


def test_a_grid_has_rows_of_neighbours():
    def program(comm):
        grid = comm.grid(2, 3)
        x = np.array([10.0**comm.rank])
        row, column = ring_all_reduce(grid.row, x)[0], ring_all_reduce(grid.column, x)[0]
        return grid.i, grid.j, float(row), float(column), comm.traffic.count().messages_sent

    found = ThreadWorld(6).run(program)
    assert [f[:2] for f in found] == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
    assert [f[2] for f in found] == [111.0] * 3 + [111000.0] * 3
    assert [f[3] for f in found] == [1001.0, 10010.0, 100100.0] * 2
    assert {f[4] for f in found} == {4 + 2}, "what goes over a group counts on the world too"
    with pytest.raises(ValueError, match="grid: 2 x 2 ranks, the communicator has 6"):
        ThreadWorld(6).run(lambda comm: comm.grid(2, 2))


@each_world
def test_plans_run_in_any_order_and_in_the_background(world):
    def program(comm):
        x, y = np.ones(7), np.full(5, 2.0)
        first, second = comm.plan(ring_all_reduce, x, out=x), comm.plan(all_reduce, y, algorithm="canonical", out=y)
        first.start()
        second.start()
        while not first.progress():
            pass
        second.wait()
        first.wait()
        x[...] = comm.rank
        first()
        with pytest.raises(RuntimeError, match="not started"):
            first.wait()
        second.start()
        with pytest.raises(RuntimeError, match="already under way"):
            second.start()
        second.wait()
        second.free()
        with pytest.raises(RuntimeError, match="freed"):
            second()
        return x.tolist(), y.tolist(), comm.traffic.count(), first.count

    for x, y, count, one in world.run(program):
        assert x == [3.0] * 7
        assert y == [18.0] * 5
        assert count.messages_sent == 2 * one.messages_sent + 2 * 4


def test_the_first_plan_of_two_under_way_may_end_last():
    """Tags of their own: rank 0 waits for the one, rank 1 for the other."""

    def program(comm):
        x, y = np.full(4, 1.0), np.full(4, 10.0)
        plans = [comm.plan(ring_all_reduce, a, out=a) for a in (x, y)]
        for plan in plans:
            plan.start()
        for plan in plans if comm.rank == 0 else plans[::-1]:
            plan.wait()
        return x[0], y[0]

    for world in (ThreadWorld(2), ThreadWorld(2, buffered=False)):
        assert world.run(program) == [(2.0, 20.0)] * 2


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_results_go_into_out_and_into_x_itself(algorithm):
    def program(comm):
        x = np.arange(5.0).reshape(5, 1) + comm.rank
        out = np.full((5, 1), np.nan)
        kept = x.copy()
        assert all_reduce(comm, x, algorithm=algorithm, out=out) is out
        assert np.array_equal(x, kept)
        assert all_reduce(comm, x, algorithm=algorithm, out=x) is x
        return np.array_equal(out, x), out.ravel().tolist()

    assert ThreadWorld(3).run(program) == [(True, [3.0, 6.0, 9.0, 12.0, 15.0])] * 3


@pytest.mark.parametrize("dtype", ["float16", "int32", "complex128", "bfloat16"])
def test_other_dtypes(dtype):
    if dtype == "bfloat16":
        import ml_dtypes

        dtype = ml_dtypes.bfloat16
    found = all_reduce(ThreadWorld(3), np.ones((3, 4)).astype(dtype))
    assert found.dtype == np.dtype(dtype)
    assert (found == 3).all()


def test_requests_complete_in_any_order():
    def program(comm):
        out = np.empty((3, 2))
        receives = [comm.irecv(out[i], 1 - comm.rank, tag=i) for i in range(3)]
        sends = [comm.isend(np.full(2, 10.0 * comm.rank + i), 1 - comm.rank, tag=i) for i in (2, 0, 1)]
        wait_all(receives[::-1] + sends)
        return out[:, 0].tolist()

    assert ThreadWorld(2, buffered=False).run(program) == [[10.0, 11.0, 12.0], [0.0, 1.0, 2.0]]


def test_alone():
    comm = SelfCommunicator()
    assert comm.share("x") == ["x"]
    comm.barrier()
    comm.agree()
    assert all_reduce(comm, X).tolist() == X.tolist()
    assert comm.grid(1, 1).row.size == comm.split(0).size == 1
    with pytest.raises(Deadlock, match="alone, and waiting for a message of rank 0"):
        comm.recv(np.empty(1), 0)
    with pytest.raises(OSError, match="full"):
        comm.agree(OSError("full"))
    assert comm.plan(all_reduce, X)().tolist() == X.tolist()


def test_agreement_raises_on_all():
    seen = []

    def program(comm):
        try:
            comm.agree(OSError("full") if comm.rank == 1 else None)
        except (OSError, RankFailed) as error:
            seen.append((comm.rank, f"{type(error).__name__}: {error}"))
            return

    ThreadWorld(3).run(program)
    said = "RankFailed: rank 1 raised OSError: full"
    assert sorted(seen) == [(0, said), (1, "OSError: full"), (2, said)]


def test_a_run_leaves_no_thread_running_and_uses_them_again():
    ThreadWorld(4).run(lambda comm: comm.barrier())
    before = threading.active_count()
    for _ in range(20):
        ThreadWorld(4).run(lambda comm: comm.barrier())
    assert threading.active_count() == before


def test_a_world_in_a_rank():
    def program(comm):
        return ring_all_reduce(ThreadWorld(2), np.ones((2, 2)))[0, 0] + ring_all_reduce(comm, np.ones(1))[0]

    assert ThreadWorld(2).run(program) == [4.0, 4.0]
