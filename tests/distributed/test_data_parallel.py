"""Data parallelism beyond its laws: what overlaps, what is refused, a model of every layer."""

import numpy as np
import pytest

from autodiff import tensor
from backends.communicators import Mismatch, RankFailed, ThreadWorld
from ref.distributed.data_parallel import DataParallel, data_parallel
from ref.distributed.gradient_buckets import gradient_buckets
from ref.losses.softmax_cross_entropy import softmax_cross_entropy
from ref.models.llama import Config, llama, parameter_shapes

TINY = Config(vocabulary=11, channels=8, layers=2, heads=2, hidden=12, tied=True)


def chain(params, x):
    for w in params.values():
        x = w * x
    return x.sum(), x.shape[0]


def test_the_first_bucket_leaves_while_backward_goes_on():
    names = [f"w{k}" for k in range(6)]

    def program(comm):
        params = {name: tensor(np.full(1, 2.0), requires_grad=True) for name in names}
        model = DataParallel(comm, params, first=8, size=16)
        events = []
        fill, begin = model.arrivals.fill, model.arrivals.begin
        model.arrivals.fill = lambda name: (events.append(name), fill(name))
        model.arrivals.begin = lambda k: (events.append(k), begin(k))
        model.backward(*chain(params, tensor(np.ones(1))))
        return events

    for events in ThreadWorld(2, order=5).run(program):
        assert events == ["w5", 0, "w4", "w3", 1, "w2", "w1", 2, "w0", 3]


def test_nothing_is_sent_under_no_sync():
    def program(comm):
        params = {"w": tensor(np.ones(3), requires_grad=True)}
        model = DataParallel(comm, params)
        comm.traffic.reset()
        with model.no_sync():
            assert model.backward((params["w"] * 2.0).sum(), 3) is None
        before = comm.traffic.count()
        model.backward((params["w"] * 3.0).sum(), 1)
        return before.messages_sent, params["w"].grad

    for messages, grad in ThreadWorld(2).run(program):
        assert messages == 0
        np.testing.assert_array_equal(grad, np.full(3, 10 / 8))


def test_steps_follow_each_other():
    """Ten steps with gradient None in between: nothing of the last step's buckets is left in the next."""

    def program(comm):
        params = {f"w{k}": tensor(np.full(2, 1.0 + k), requires_grad=True) for k in range(3)}
        model = DataParallel(comm, params, first=1, size=1)
        rows = []
        for step in range(10):
            name = f"w{(step + comm.rank) % 3}"
            model.backward((params[name] * float(step + 1)).sum(), 1)
            rows.append([None if t.grad is None else float(t.grad[0]) for t in params.values()])
            for t in params.values():
                t.grad = None
        return rows

    first, second = ThreadWorld(2).run(program)
    assert first == second
    for step, row in enumerate(first):
        half = (step + 1) / 2
        assert row == [half if k in (step % 3, (step + 1) % 3) else None for k in range(3)]


@pytest.mark.parametrize("checkpointed", [False, True])
def test_a_language_model_on_three_ranks_is_that_on_one(checkpointed):
    g = np.random.default_rng(0)
    params = {name: g.standard_normal(shape) * 0.3 for name, shape in parameter_shapes(TINY).items()}
    tokens = g.integers(0, 11, (6, 8))
    keep = g.random((6, 7)) < 0.6

    def loss(p, rows):
        out = llama(p, tokens[rows][:, :-1], TINY, checkpointed=checkpointed)
        return (softmax_cross_entropy(out, tokens[rows][:, 1:]) * keep[rows]).sum(), keep[rows].sum()

    rows = [np.arange(0, 3), np.arange(3, 4), np.arange(4, 6)]
    means, gradients, _ = data_parallel(
        ThreadWorld(3), [params] * 3, [[r] for r in rows], loss=loss, first=500, size=2000
    )
    (mean,), (gradient,), _ = data_parallel(ThreadWorld(1), [params], [[np.arange(6)]], loss=loss)
    np.testing.assert_allclose(means, mean, rtol=1e-14)
    for name, wanted in gradient.items():
        for found in gradients:
            np.testing.assert_allclose(found[name], wanted, rtol=1e-11, atol=1e-14)


def test_an_odd_rank_is_named_with_what_differs():
    params = [{"a": np.ones(2), "w": np.ones(3)} for _ in range(3)]
    params[2]["w"] = np.ones((3, 1))
    with pytest.raises(Mismatch, match=r"rank 2 has w float64\[3, 1\] where rank 0 has w float64\[3\]"):
        data_parallel(ThreadWorld(3), params, [[np.ones(1)]] * 3, loss=chain)
    params[2] = {"a": np.ones(2)}
    with pytest.raises(Mismatch, match="rank 2 has nothing where rank 0 has w"):
        data_parallel(ThreadWorld(3), params, [[np.ones(1)]] * 3, loss=chain)
    params[2] = {"a": np.ones(2), "w": np.ones(3, np.float32)}
    with pytest.raises(Mismatch, match=r"w float32\[3\] where rank 0 has w float64\[3\]"):
        data_parallel(ThreadWorld(3), params, [[np.ones(1)]] * 3, loss=chain)


def test_no_terms_and_no_batches_are_refused():
    params = [{"w": np.ones(1)}] * 2
    with pytest.raises(ValueError, match="no rank has a term"):
        data_parallel(ThreadWorld(2), params, [[np.ones(0)]] * 2, loss=chain)
    with pytest.raises(ValueError, match="no batches"):
        data_parallel(ThreadWorld(2), params, [[], []], loss=chain)


def test_a_rank_that_raises_ends_the_others():
    def loss(p, x):
        if x[0] > 1:
            raise ArithmeticError("on purpose")
        return chain(p, x)

    world = ThreadWorld(3)
    with pytest.raises(ArithmeticError, match="on purpose"):
        data_parallel(world, [{"w": np.ones(1)}] * 3, [[np.full(1, r)] for r in (0.0, 2.0, 0.0)], loss=loss)
    assert issubclass(RankFailed, RuntimeError)


@pytest.mark.parametrize(
    "call", [lambda: gradient_buckets([1, -1]), lambda: gradient_buckets([1], first=0),
             lambda: gradient_buckets([1], kinds=["f4", "f4"])],
)  # fmt: skip
def test_bad_sizes_are_refused(call):
    with pytest.raises(ValueError, match="gradient_buckets: .* needed sizes >= 0"):
        call()
