"""Real MPI: the laws on 1, 2, 3, 4 and 8 processes, and what a rank that goes wrong makes of the job."""

import os
import subprocess
import time

import pytest

from tests.distributed.launch import mpi

DEEP = os.environ.get("CLOSEDFORM_PROFILE") == "deep"
# Ranks -> cases a law, laws of each algorithm: processes beyond the cores burn their time waiting.
COMMIT = {1: (2, 1), 2: (4, 9), 3: (3, 3), 4: (3, 2)}
EVERYTHING = {n: (20, 9) for n in (1, 2, 3, 4, 8)}


@pytest.mark.parametrize("ranks", EVERYTHING if DEEP else COMMIT)
def test_laws_hold(ranks):
    cases = (EVERYTHING if DEEP else COMMIT)[ranks]
    status, out = mpi(ranks, "tests.distributed.laws_under_mpi", *cases, timeout=1800 if DEEP else 500)
    assert status == 0, out
    assert f"on {ranks} ranks, 0 broken" in out


def test_eight_ranks_are_exact():
    status, out = mpi(8, "tests.distributed.exact_under_mpi", timeout=200)
    assert status == 0, out
    assert "8 ranks, 0 wrong" in out


@pytest.mark.parametrize("ranks", [2, 4])
def test_a_model_cut_over_two_ranks_trains_as_on_one(ranks, tmp_path):
    status, out = mpi(ranks, "tests.distributed.tensor_under_mpi", 2, tmp_path, timeout=200)
    assert status == 0, out
    assert f"{ranks} ranks, 0 wrong" in out


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("another_collective",
         "rank 2 called ring_all_gather(f8) while rank 0 called ring_all_reduce(f8, 12) at #17"),
        ("another_length", "rank 1 called ring_all_reduce(f8, 9) while rank 0 called ring_all_reduce(f8, 12) at #1"),
        ("another_length_unseen", "rank 1 sent 24 bytes to rank 2, which waits for 32"),
        ("absent", "in ring_all_reduce(f8, 12) #2; absent: rank 1; rank"),
        ("absent_from_a_plan", "absent: rank 1; rank"),
        ("absent_from_a_barrier", "absent: rank 1; rank"),
        ("raises", "ValueError: boom"),
        ("raises_together", "RankFailed: rank 1 raised ValueError: boom"),
        ("raises_between_messages", "ValueError: boom"),
        ("disagrees", "RankFailed: rank 1 raised OSError: disk full"),
        ("other_examples", "ranks [1, 2] bring other arrays than rank 0"),
    ],
)  # fmt: skip
def test_a_rank_that_goes_wrong_is_named_and_ends_the_job(program, said):
    started = time.monotonic()
    status, out = mpi(3, "tests.distributed.faulty", program, timeout=50)
    assert status != 0
    assert said in out
    assert time.monotonic() - started < 40, "it took until the sleeping rank awoke"


def test_the_environment_turns_the_debug_mode_on():
    status, out = mpi(3, "tests.distributed.faulty", "another_length_unseen", CLOSEDFORM_COMM_DEBUG="1")
    assert status != 0
    assert "rank 1 called ring_all_reduce(f8, 9) while rank 0 called" in out


def test_a_job_that_hangs_is_killed():
    with pytest.raises(subprocess.TimeoutExpired):
        mpi(2, "tests.distributed.hangs", timeout=5)
