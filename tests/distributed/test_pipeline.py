"""Pipeline parallelism: what does not fit is named; a language model with tied ends is one rank's."""

import numpy as np
import pytest

from autodiff import namespace, value_and_grad
from backends.communicators import Mismatch, ThreadWorld
from ref.distributed.pipeline_parallel import pipeline_parallel
from ref.distributed.pipeline_schedule import pipeline_schedule
from ref.losses.softmax_cross_entropy import softmax_cross_entropy

W = [{"w": np.array([2.0])}, {"w": np.array([3.0])}]
BATCHES = [[(np.ones((1, 1)),)]] * 2
OPTIONS = {"stage": lambda own, x, rank: x * own["w"], "loss": lambda own, y, batch: (y.sum(), y.shape[0])}


def call(params=W, batches=BATCHES, **options):
    return pipeline_parallel(ThreadWorld(2), params, batches, **{**OPTIONS, **options})


@pytest.mark.parametrize(
    ("run", "kind", "said"),
    [
        (lambda: call(batches=[[], []]), ValueError, r"\[0, 0\] micro-batches by rank; needed .* at least 1"),
        (lambda: call(batches=[BATCHES[0], []]), Mismatch, r"\[1, 0\] micro-batches by rank"),
        (lambda: call(tied=("w",)), Mismatch, "'w' is tied, and differs between ranks 1 and 0"),
        (lambda: call(tied=("v",)), ValueError, "tied names 'v', which no rank has"),
        (lambda: call([W[0], {"w": np.ones(1, np.float32)}]), Mismatch, r"dtypes \['<f4', '<f8'\]; needed one"),
        (lambda: call(shape=lambda batch: (3, 1)), ValueError, r"stage 0 made float64\[1, 1\] of .* 0; .*\[3, 1\]"),
        (lambda: call(loss=lambda own, y, batch: (y.sum(), 0)), ValueError, "no term to average over"),
        (lambda: call(schedule="zigzag"), ValueError, "name='zigzag'; needed .* one of gpipe, 1f1b"),
        (lambda: pipeline_schedule(0, 2), ValueError, "stages=0, micro=2, .*; needed numbers of at least 1"),
        (lambda: pipeline_schedule(2, 2, backward=0), ValueError, "backward=0"),
        (lambda: pipeline_schedule(2, 2.5), TypeError, "integer"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(run, kind, said):
    with pytest.raises(kind, match=said):
        run()


V, C = 7, 4


def stage(own, x, rank):
    """Embedding on the first stage, then two layers each."""
    xp = namespace(own["a"])
    h = xp.take(own["table"], x, axis=0) if rank == 0 else x
    return h + xp.tanh(h @ own["a"]) @ own["b"]


def loss(own, h, batch):
    """Cross-entropy of the targets under the embedding's transpose; -100 is no target."""
    logits = h @ namespace(h).permute_dims(own["table"], (1, 0))
    return softmax_cross_entropy(logits, batch[1], ignore_index=-100).sum(), float((batch[1] != -100).sum())


def model(p):
    """(parameters of each of p stages, micro-batches of ragged sizes)."""
    g = np.random.default_rng(p)
    table = g.standard_normal((V, C))
    params = [{"a": g.standard_normal((C, 5)), "b": g.standard_normal((5, C))} for _ in range(p)]
    for r in {0, p - 1}:
        params[r]["table"] = table
    batches = []
    for rows in (2, 1, 3, 2, 1):
        target = g.integers(0, V, (rows, 3))
        batches.append((g.integers(0, V, (rows, 3)), np.where(g.random((rows, 3)) < 0.3, -100, target)))
    return params, batches


def alone(params, batches):
    """Mean loss and gradients with all stages in one graph and all micro-batches in one batch."""

    def mean(params):
        total = count = 0.0
        for batch in batches:
            h = batch[0]
            for r, own in enumerate(params):
                h = stage(own, h, r)
            s, n = loss(params[-1] | {"table": params[0]["table"]}, h, batch)
            total, count = total + s, count + n
        return total / count

    return value_and_grad(mean)(params)


@pytest.mark.parametrize("schedule", ["gpipe", "1f1b"])
@pytest.mark.parametrize("p", [1, 2, 4, 7])
@pytest.mark.parametrize("buffered", [True, False])
def test_a_model_with_tied_ends_is_one_ranks(p, schedule, buffered):
    params, batches = model(p)
    means, grads, peaks = pipeline_parallel(
        ThreadWorld(p, buffered=buffered, order=p), params, [batches] * p, stage=stage, loss=loss, schedule=schedule,
        shape=lambda batch: (*batch[0].shape, C), tied=("table",),
    )  # fmt: skip
    mean, wanted = alone(params, batches)
    np.testing.assert_allclose(means, float(mean), rtol=1e-12)
    for r in range(p):
        for name, g in grads[r].items():
            np.testing.assert_allclose(g, wanted[0 if name == "table" else r][name], rtol=1e-10, atol=1e-12)
    assert peaks.tolist() == [5 if schedule == "gpipe" else min(p - r, 5) for r in range(p)]
