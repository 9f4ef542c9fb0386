"""The language model cut over ranks: the losses of one rank, bytes by the formula, checkpoints that any mode reads."""

import numpy as np
import pytest
from typer.testing import CliRunner

from backends.communicators import SelfCommunicator, ThreadWorld
from ref.cli.app import app
from ref.demo import bpe
from ref.demo.parallel import ParallelRun
from ref.demo.tensor_parallel import TensorParallelRun
from ref.demo.train import Plan, train
from ref.models.llama import Config

TEXT = b"the quick brown fox jumps over the lazy dog. " * 20
MERGES = bpe.learn(TEXT, 263)  # no even number of tokens
TINY = Config(vocabulary=263, channels=16, layers=2, heads=4, groups=2, hidden=23, tied=True)
PLAN = Plan(steps=4, batch=4, context=12, lr=1e-2, save_every=2, max_norm=0.5)


def begun(comm, ways, plan=PLAN, config=TINY, dtype=np.float64, mode="zero3"):
    if ways:
        return TensorParallelRun(comm, TEXT, MERGES, config, plan, ways=ways, dtype=dtype)
    return ParallelRun(comm, TEXT, MERGES, config, plan, mode=mode, dtype=dtype)


def ended(comm, ways, folder=None, **options):
    run = begun(comm, ways, **options)
    if folder is not None:
        run.resume(folder)
        train(run, folder)
    while run.step < run.plan.steps:
        run.advance()
    return run.losses, run.collect()


ALONE = {}


def alone(**options):
    """What one rank has, computed once."""
    key = repr(options)
    ALONE[key] = ALONE.get(key) or ended(SelfCommunicator(), 0, **options)
    return ALONE[key]


@pytest.mark.parametrize(
    ("ranks", "ways", "options"),
    [(2, 2, {}), (4, 2, {}), (3, 1, {}),
     (2, 2, {"plan": PLAN._replace(dropout=0.1, checkpointed=True), "config": TINY._replace(tied=False)})],
)  # fmt: skip
def test_losses_and_parameters_are_those_of_one_rank(ranks, ways, options):
    wanted, values = alone(**options)
    found = ThreadWorld(ranks).run(lambda comm: ended(comm, ways, **options))
    for losses, params in found:
        assert losses == found[0][0]
        np.testing.assert_allclose(losses, wanted, rtol=0, atol=1e-11)
        for name, a in params.items():
            np.testing.assert_array_equal(a, found[0][1][name], err_msg=name)
            np.testing.assert_allclose(a, values[name], rtol=0, atol=1e-8, err_msg=name)
    assert wanted[-1] < wanted[0]


@pytest.mark.parametrize(("ranks", "ways"), [(2, 2), (4, 2), (2, 1)])
@pytest.mark.parametrize("checkpointed", [False, True])
def test_every_rank_sends_what_the_formula_says(tmp_path, ranks, ways, checkpointed):
    def program(comm):
        run = begun(comm, ways, PLAN._replace(checkpointed=checkpointed, batch=3), dtype=np.float32)
        comm.traffic.reset()
        run.advance()
        run.advance()
        sent = comm.traffic.count().bytes_sent
        run.save(tmp_path)
        assert run.sent == sent  # what a checkpoint sends is no part of the steps
        return sent, 2 * run.sent_by_formula()

    for sent, formula in ThreadWorld(ranks).run(program):
        assert sent == formula > 0


def test_a_run_that_was_cut_goes_on_to_the_same_bits(tmp_path):
    unbroken = ThreadWorld(4).run(lambda comm: ended(comm, 2))

    def cut(comm):
        run = begun(comm, 2)
        for _ in range(3):
            run.advance()
            if run.step == 2:
                run.save(tmp_path)

    ThreadWorld(4).run(cut)
    for found, wanted in zip(ThreadWorld(4).run(lambda comm: ended(comm, 2, tmp_path)), unbroken, strict=True):
        assert found[0] == wanted[0]
        for name, a in found[1].items():
            np.testing.assert_array_equal(a, wanted[1][name])


@pytest.mark.parametrize(("first", "second"), [((4, 2), (3, 0)), ((3, 0), (4, 2)), ((2, 2), (2, 1))])
def test_any_mode_goes_on_from_it(tmp_path, first, second):
    """Saved by one mode and read by another: the same parameters to the bit, then the losses of one rank."""

    def begin(comm):
        run = begun(comm, first[1])
        run.advance()
        run.advance()
        run.save(tmp_path)
        return run.collect()

    def state(comm):
        run = begun(comm, second[1])
        run.resume(tmp_path)
        return run.collect()

    saved = ThreadWorld(first[0]).run(begin)[0]
    read = ThreadWorld(second[0]).run(state)[0]
    assert all(np.array_equal(a, saved[name]) for name, a in read.items())
    losses, _ = ThreadWorld(second[0]).run(lambda comm: ended(comm, second[1], tmp_path))[0]
    np.testing.assert_allclose(losses, alone()[0], rtol=0, atol=1e-11)


def test_sizes_that_do_not_divide_are_named():
    for ranks, ways, said in ((3, 2, "3 ranks for copies of 2 ranks each"), (4, 4, "4 ranks a copy for 2 key heads")):
        with pytest.raises(ValueError, match=said):
            ThreadWorld(ranks).run(lambda comm, w=ways: begun(comm, w))
    with pytest.raises(ValueError, match="a batch of 1 for 2 ranks"):
        ThreadWorld(4).run(lambda comm: begun(comm, 2, PLAN._replace(batch=1)))


def test_the_command_says_what_it_needs(tmp_path):
    found = CliRunner().invoke(app, ["train", "--out", str(tmp_path), "--parallel", "tp", "--tp", "3"])
    assert found.exit_code == 2
    assert "--tp: 1 ranks for copies of 3 ranks each; ways must divide the ranks" in " ".join(found.output.split())
