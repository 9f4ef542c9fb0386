"""A rank dies, raises or finds the disk full: the job ends soon and whole, and goes on to the same bits.

A sample; `python -m tests.deep.deaths` strikes every rank in every phase.
"""

import pytest

from backends.communicators import ThreadWorld
from ref.demo import bpe
from ref.demo.parallel import ParallelRun
from tests.distributed.deadly import PLAN, TEXT, TINY
from tests.distributed.deaths import RANKS, faults_of


@pytest.fixture(scope="module")
def unbroken():
    """The losses of a run without a fault, on threads: the transport changes no bit."""

    def program(comm):
        run = ParallelRun(comm, TEXT, bpe.learn(TEXT, 264), TINY, PLAN, mode="ddp")
        for _ in range(PLAN.steps):
            run.advance()
        return run.losses

    return " ".join(["losses", *map(repr, ThreadWorld(RANKS).run(program)[0])])


@pytest.mark.parametrize(
    "mode, phase, rank, how",
    [("zero3", "backward", 1, "kill"), ("ddp", "write", 2, "disk"), ("zero1", "forward", 0, "raise")],
)
def test_a_rank_goes_wrong(tmp_path, unbroken, mode, phase, rank, how):
    """Whatever the mode, the second run has the losses of an unbroken one: they are the same bits in all modes."""
    wrong, _ = faults_of(tmp_path / "run", mode, phase, rank, how, unbroken)
    assert not wrong, "; ".join(wrong)
