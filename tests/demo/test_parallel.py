"""The language model on many ranks: the same bits in every mode, the same losses as one rank, going on to the same."""

import numpy as np
import pytest
from typer.testing import CliRunner

from backends.communicators import SelfCommunicator, ThreadWorld
from ref.cli.app import app
from ref.demo import bpe, sharded_file
from ref.demo.parallel import MODES, ParallelRun, units
from ref.demo.train import Plan, Run, train
from ref.models.llama import Config, parameter_shapes

TEXT = b"the quick brown fox jumps over the lazy dog. " * 20
MERGES = bpe.learn(TEXT, 264)
TINY = Config(vocabulary=264, channels=16, layers=2, heads=2, groups=1, hidden=24, tied=True)
PLAN = Plan(steps=5, batch=4, context=12, lr=1e-2, save_every=3, max_norm=0.5)


def ended(comm, mode, folder=None, plan=PLAN, dtype=np.float64, steps=None):
    run = ParallelRun(comm, TEXT, MERGES, TINY, plan, mode=mode, dtype=dtype)
    if folder is not None:
        run.resume(folder)
        if steps is None:
            train(run, folder)
    for _ in range(steps if steps is not None else plan.steps - run.step):
        run.advance()
    return run.losses, run.collect(), comm.traffic.count().bytes_sent, run.sent_by_formula()


@pytest.mark.parametrize("dtype, plan", [(np.float64, PLAN), (np.float32, PLAN._replace(dropout=0.1, batch=5))])
def test_all_modes_have_the_same_bits(dtype, plan):
    wanted = None
    for mode in MODES:
        world = ThreadWorld(3)
        for losses, params, _, _ in world.run(lambda comm, m=mode: ended(comm, m, plan=plan, dtype=dtype, steps=3)):
            wanted = wanted or (losses, params)
            assert losses == wanted[0], mode
            for name, a in params.items():
                np.testing.assert_array_equal(a, wanted[1][name], err_msg=f"{mode} {name}")


@pytest.mark.parametrize("mode", ["ddp", "zero3"])
def test_losses_are_those_of_one_rank_and_of_the_plain_run(mode):
    alone, params, sent, _ = ended(SelfCommunicator(), mode)
    assert not sent

    class Double(Run):
        def _make(self, values):
            super()._make({name: a.astype(np.float64) for name, a in values.items()})

    plain = Double(TEXT, MERGES, TINY, PLAN)
    bits = [plain.advance() for _ in range(PLAN.steps)]
    run = ParallelRun(SelfCommunicator(), TEXT, MERGES, TINY, PLAN, mode=mode, dtype=np.float64)
    np.testing.assert_allclose([run.advance() for _ in range(PLAN.steps)], bits, rtol=0, atol=1e-11)
    for losses, _, _, _ in ThreadWorld(4).run(lambda comm: ended(comm, mode)):
        np.testing.assert_allclose(losses, alone, rtol=0, atol=1e-11)
    assert alone[-1] < alone[0]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("ranks", [2, 3])
def test_every_rank_sends_what_the_formula_says(mode, ranks):
    def program(comm):
        run = ParallelRun(comm, TEXT, MERGES, TINY, PLAN, mode=mode)
        comm.traffic.reset()
        run.advance()
        run.advance()
        return comm.traffic.count().bytes_sent, 2 * run.sent_by_formula()

    for sent, formula in ThreadWorld(ranks).run(program):
        assert sent == formula > 0


def test_traffic_is_two_or_three_times_the_parameters():
    """(N - 1)/N P numbers: 2 for data parallelism, stages 1 and 2; 3 for stage 3; and little more."""
    config = TINY._replace(channels=64, heads=4, groups=4, hidden=128)
    P = sum(int(np.prod(s)) for s in parameter_shapes(config).values())

    def program(comm, mode):
        return ParallelRun(comm, TEXT, MERGES, config, PLAN, mode=mode).sent_by_formula() / (0.75 * P * 4)

    for mode, times in zip(MODES, (2, 2, 2, 3), strict=True):
        mean = np.mean(ThreadWorld(4).run(lambda comm, m=mode: program(comm, m)))
        assert times <= mean < 1.03 * times, (mode, mean)


@pytest.mark.parametrize("mode", MODES)
def test_a_run_that_was_cut_goes_on_to_the_same_bits(tmp_path, mode):
    unbroken = ThreadWorld(2).run(lambda comm: ended(comm, mode))

    def cut(comm):
        run = ParallelRun(comm, TEXT, MERGES, TINY, PLAN, mode=mode, dtype=np.float64)
        for _ in range(4):
            run.advance()
            if run.step == 3:
                run.save(tmp_path)

    ThreadWorld(2).run(cut)
    resumed = ThreadWorld(2).run(lambda comm: ended(comm, mode, tmp_path))
    for (losses, params, _, _), (wanted, values, _, _) in zip(resumed, unbroken, strict=True):
        assert losses == wanted
        for name, a in params.items():
            np.testing.assert_array_equal(a, values[name])
    assert sharded_file.manifest(tmp_path)["state"]["step"] == PLAN.steps


def test_any_mode_on_any_ranks_goes_on(tmp_path):
    """Saved by zero3 on 4 ranks: read by every mode on 1, 2 and 3, the losses within rounding."""

    def begin(comm):
        run = ParallelRun(comm, TEXT, MERGES, TINY, PLAN, mode="zero3", dtype=np.float64)
        for _ in range(3):
            run.advance()
        run.save(tmp_path)
        return run.collect()

    saved = ThreadWorld(4).run(begin)[0]
    unbroken = ThreadWorld(4).run(lambda comm: ended(comm, "zero3"))[0][0]
    for mode, ranks in zip(MODES, (1, 2, 3, 2), strict=True):
        read = ThreadWorld(ranks).run(lambda comm, m=mode: ended(comm, m, tmp_path, steps=0))[0][1]
        for name, a in read.items():
            np.testing.assert_array_equal(a, saved[name])
        losses = ThreadWorld(ranks).run(lambda comm, m=mode: ended(comm, m, tmp_path, steps=2))[0][0]
        np.testing.assert_allclose(losses, unbroken, rtol=0, atol=1e-11)


def test_other_checkpoints_and_bad_sizes_are_refused(tmp_path):
    run = ParallelRun(SelfCommunicator(), TEXT, MERGES, TINY, PLAN, mode="ddp")
    run.save(tmp_path)
    for name, plan, dtype in (("plan", PLAN._replace(lr=1.0), np.float32), ("dtype", PLAN, np.float64)):
        other = ParallelRun(SelfCommunicator(), TEXT, MERGES, TINY, plan, mode="ddp", dtype=dtype)
        with pytest.raises(ValueError, match=f"resume: .* has another {name}"):
            other.resume(tmp_path)
    with pytest.raises(ValueError, match="mode 'zero4'; needed one of ddp, zero1"):
        ParallelRun(SelfCommunicator(), TEXT, MERGES, TINY, PLAN, mode="zero4")
    with pytest.raises(ValueError, match="a batch of 4 for 5 ranks"):
        ThreadWorld(5).run(lambda comm: ParallelRun(comm, TEXT, MERGES, TINY, PLAN, mode="ddp"))


@pytest.mark.parametrize(
    "args, message",
    [(["--parallel", "zero9"], "needed one of ddp, zero1"), (["--float64"], "go with --parallel"),
     (["--parallel", "ddp"], "has a checkpoint; go on with --resume")],
)  # fmt: skip
def test_the_command_says_what_it_needs(tmp_path, args, message):
    (tmp_path / sharded_file.MANIFEST).write_text("{}")
    found = CliRunner().invoke(app, ["train", "--out", str(tmp_path), *args])
    assert found.exit_code == 2 and message in " ".join(found.output.split())


def test_units_are_the_layers():
    found = units(parameter_shapes(TINY._replace(tied=False)))
    assert found[0] == ["model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"]
    assert [len(u) for u in found] == [3, 9, 9] and all(n.startswith("model.layers.1.") for n in found[2])
