"""ZeRO beyond its laws: a real model, real memory, saving and going on, what is refused."""

import gc
import tracemalloc
import weakref

import numpy as np
import pytest

from autodiff import tensor
from backends.communicators import Mismatch, RankFailed, ThreadWorld
from ref.demo import sharded_file
from ref.distributed.data_parallel import DataParallel
from ref.distributed.zero import Zero, zero
from ref.losses.softmax_cross_entropy import softmax_cross_entropy
from ref.models.llama import Config, llama, parameter_shapes
from ref.optim.adamw import adamw, start

TINY = Config(vocabulary=11, channels=8, layers=3, heads=2, hidden=12, tied=True)
RATES = dict(lr=1e-2, eps=1e-6, weight_decay=0.1, max_norm=0.4)


def model(seed=0, dtype=np.float32):
    g = np.random.default_rng(seed)
    return {n: (0.3 * g.standard_normal(shape)).astype(dtype) for n, shape in parameter_shapes(TINY).items()}


def layers(params):
    """The embedding, the last norm and the head in one unit, every layer in its own."""
    root = [n for n in params if not n.startswith("model.layers.")]
    return [root] + [[n for n in params if n.startswith(f"model.layers.{i}.")] for i in range(TINY.layers)]


def batches(rank, steps=3):
    g = np.random.default_rng((rank, 5))
    return [(g.integers(0, 11, (2, 9)), g.random((2, 8)) < 0.7) for _ in range(steps)]


def loss(params, batch, checkpointed=False):
    tokens, keep = batch
    out = llama(params, tokens[:, :-1], TINY, checkpointed=checkpointed)
    return (softmax_cross_entropy(out, tokens[:, 1:]) * keep).sum(), keep.sum()


def recomputed(params, batch):
    return loss(params, batch, checkpointed=True)


def trained(n, stage, of=loss, **options):
    params = model()
    return zero(ThreadWorld(n), [params] * n, [batches(r) for r in range(n)], stage=stage, loss=of,
                units=layers(params), block=16, plain=("model.norm.weight",), **{**RATES, **options})  # fmt: skip


def test_a_language_model_in_every_stage_has_the_same_bits():
    wanted = trained(3, 0)
    assert all(np.any(wanted[1][0][name] != a) for name, a in model().items())
    for stage, of in ((1, loss), (2, loss), (3, loss), (3, recomputed)):
        found = trained(3, stage, of)
        np.testing.assert_array_equal(found[0], wanted[0])
        for name, a in wanted[1][0].items():
            for mine in found[1]:
                np.testing.assert_array_equal(mine[name], a, err_msg=f"{name} in stage {stage}")


def test_stage_0_is_data_parallelism_and_adamw():
    """The same bits as `DataParallel`; the same numbers as `optim.adamw` on its gradients."""
    params = model()
    one = trained(2, 0, max_norm=np.inf, weight_decay=0.0)

    def program(comm):
        leaves = {name: tensor(a.copy(), requires_grad=True) for name, a in params.items()}
        ddp, states, means = DataParallel(comm, leaves), {n: start(a) for n, a in params.items()}, []
        for batch in batches(comm.rank):
            means.append(ddp.backward(*loss(leaves, batch)))
            for name, t in leaves.items():
                new, states[name] = adamw(t.data, t.grad, states[name], lr=1e-2, eps=1e-6, weight_decay=0.0)
                t.data[...] = new
                t.grad = None
        return means, {name: t.data for name, t in leaves.items()}

    means, values = ThreadWorld(2).run(program)[0]
    assert means[0] == one[0][0][0]
    np.testing.assert_allclose(means, one[0][0], rtol=1e-5)
    for name, a in values.items():
        np.testing.assert_allclose(one[1][0][name], a, atol=2e-5)


@pytest.mark.parametrize("stage, shares", [(0, (1, 1, 1)), (1, (1, 1, 4)), (2, (1, 4, 4)), (3, (4, 4, 4))])
def test_memory_between_steps_is_the_formula(stage, shares):
    """What NumPy has allocated for four ranks after a step, by tracemalloc: float32, P numbers of 4 + 4 + 8 bytes."""
    P, n, kept = 1 << 16, 4, {}

    def line(params, x):
        return (params["w"] * x).sum(), 1

    def program(comm):
        kept[comm.rank] = Zero(comm, {"w": params}, stage=stage, block=1 << 10)
        kept[comm.rank].step(line, x, lr=1e-3)

    params, x = np.ones(P, np.float32), np.ones(P, np.float32)
    world = ThreadWorld(n, buffered=False)  # the transport keeps no copy of the last message
    world.run(program)  # threads, caches
    kept.clear()
    gc.collect()
    tracemalloc.start()
    try:
        world.run(program)
        gc.collect()
        now, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    weights, gradients, state = shares
    formula = n * P * (4 / weights + 4 / gradients + 8 / state)
    assert formula <= now <= formula + 0.04 * n * P * 16, (now, formula)


@pytest.mark.parametrize("recompute", [False, True])
def test_a_unit_at_a_time_is_all_that_stage_3_gathers(recompute):
    """Whenever a unit is gathered, forward or backward, nothing holds the weights of any other: not even the tape."""
    params, alive, tokens = model(), [], batches(0)[0]

    def program(comm):
        z = Zero(comm, params, stage=3, units=layers(params), block=16)
        gather, given = z.gather, []

        def counted(unit):
            alive.append(sum(ref() is not None for ref in given))
            full = gather(unit).copy()  # the transport still holds where the last message went
            given.append(weakref.ref(full))
            return full

        z.gather = counted
        z.step(recomputed if recompute else loss, tokens, **RATES)
        assert all(u.full is None and u.partial is None for u in z.units)
        assert not any(ref() is not None for ref in given)
        return len(given)

    units = 1 + TINY.layers
    assert ThreadWorld(2).run(program) == [2 * units] * 2
    assert alive == [0] * (4 * units)


def test_saved_at_n_and_read_at_m_reassembles_to_the_same_bits(tmp_path):
    params = model()
    rows = [batches(r, 4) for r in range(4)]

    def fresh(comm, stage):
        return Zero(comm, model(1), stage=stage, units=layers(params), block=16)

    def begun(comm):
        z = Zero(comm, params, stage=2, units=layers(params), block=16)
        for batch in rows[comm.rank][:2]:
            z.step(loss, batch, **RATES)
        sharded_file.save(comm, tmp_path, *z.shards(), {"step": z.steps})
        saved = z.gathered()
        for batch in rows[comm.rank][2:]:
            z.step(loss, batch, **RATES)
        return saved, z.gathered()

    def resumed(stage, more):
        def program(comm):
            z = fresh(comm, stage)
            found = sharded_file.load(comm, tmp_path)
            z.restore(found.arrays, found.state["step"])
            read = z.gathered()
            for batch in rows[comm.rank][2:] if more else ():
                z.step(loss, batch, **RATES)
            return read, z.gathered(), found.state["step"]

        return program

    saved, ended = ThreadWorld(4).run(begun)[0]
    for ranks, stage in ((4, 3), (4, 0), (3, 2), (1, 3), (2, 0), (8, 1)):
        for read, _, step in ThreadWorld(ranks).run(resumed(stage, False)):
            assert step == 2
            for name in params:
                np.testing.assert_array_equal(read[name], saved[name])
    for stage in (2, 3, 0):
        for _, found, _ in ThreadWorld(4).run(resumed(stage, True)):
            for name in params:
                np.testing.assert_array_equal(found[name], ended[name])


def test_going_on_with_another_number_of_ranks_is_exact_on_exact_data(tmp_path):
    """A linear loss on whole numbers: 4 ranks, then 2, end in the bits of 4 ranks all the way."""
    g = np.random.default_rng(3)
    x = g.integers(-3, 4, (4, 4, 10)) * 1.0  # step, row, channel

    def line(params, rows):
        return (params["w"] * rows).sum(), len(rows)

    def program(first, last, folder, saving):
        def run(comm):
            z = Zero(comm, {"w": np.arange(10.0)}, stage=3, block=4)
            if (found := sharded_file.load(comm, folder)) is not None:
                z.restore(found.arrays, found.state["step"])
            for t in range(first, last):
                z.step(line, np.array_split(x[t], comm.size)[comm.rank], lr=0.1, max_norm=2.0)
            if saving:
                sharded_file.save(comm, folder, *z.shards(), {"step": z.steps})
            return z.gathered()["w"]

        return run

    wanted = ThreadWorld(4).run(program(0, 4, tmp_path / "a", False))[0]
    ThreadWorld(4).run(program(0, 2, tmp_path / "b", True))
    for ranks in (2, 1, 3):
        for found in ThreadWorld(ranks).run(program(2, 4, tmp_path / "b", False)):
            np.testing.assert_array_equal(found, wanted)


def test_state_in_files_is_not_in_memory(tmp_path):
    (losses, _, held), params = trained(2, 1, offload=tmp_path), model()
    np.testing.assert_array_equal(losses, trained(2, 1)[0])
    size = sum(f.stat().st_size for f in tmp_path.iterdir())
    assert size == held[:, 2].sum() >= 8 * sum(a.size for a in params.values())


def test_a_gradient_that_is_not_finite_stops_every_rank():
    params = {"w": np.ones(4)}

    def line(p, x):
        return (p["w"] * x).sum(), 1

    def program(comm):
        x = np.array([1.0, 1.0, 1.0, np.inf if comm.rank else 1.0])
        try:
            Zero(comm, params, stage=1, block=1).step(line, x, lr=0.1)
        except FloatingPointError as error:
            return str(error)

    assert ThreadWorld(3).run(program) == ["Zero: the gradient of step 0 has norm inf"] * 3


def square(p, x):
    return (p["w"] * x).sum(), 1


@pytest.mark.parametrize(
    "options, params, error, message",
    [
        ({"stage": 4}, {}, ValueError, r"stage=4.*needed 0..3"),
        ({"block": 0}, {}, ValueError, "block=0"),
        ({"units": [["w"], ["w"]]}, {}, ValueError, "units must name every parameter once; w "),
        ({"units": [["w", "v"]]}, {}, ValueError, "v is missing, unknown or twice"),
        ({"plain": ("v",)}, {}, ValueError, "plain names v"),
        ({}, {"b": np.ones(2, np.float32)}, TypeError, "float32, float64"),
        ({}, {"w": np.ones(2, int)}, TypeError, "int64"),
    ],
)
def test_bad_options_are_refused(options, params, error, message):
    params = {"w": np.ones(2), **params}
    with pytest.raises(error, match=message):
        zero(ThreadWorld(2), [params] * 2, [[np.ones(2)]] * 2, loss=square, **{"stage": 1, **options})


def test_odd_ranks_and_no_terms_are_refused():
    with pytest.raises(Mismatch, match="Zero: rank 1 has w"):
        zero(ThreadWorld(2), [{"w": np.ones(2)}, {"w": np.ones(3)}], [[np.ones(2)]] * 2, loss=square, stage=1)
    with pytest.raises((ValueError, RankFailed), match="no rank has a term"):
        zero(ThreadWorld(2), [{"w": np.ones(2)}] * 2, [[1.0]] * 2, loss=lambda p, x: (0.0, 0), stage=3)
