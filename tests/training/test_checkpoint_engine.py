"""Segments as the engine runs them: less memory, the price counted, the same bits; nested and twice differentiated."""

import numpy as np
import pytest

from autodiff import checkpoint, checkpoint_sequential, grad, namespace, saved_bytes, tensor
from ref.nn.dropout import dropout
from ref.training.checkpoint_segments import checkpoint_segments


def layer(i, w):
    def run(x):
        xp = namespace(x, w)
        return dropout(xp.tanh(xp.matmul(x, w)) + x, rate=0.25, seed=i)

    return run


@pytest.mark.parametrize("kind", ["uniform", "decreasing"])
def test_the_segments_of_a_32_layer_chain(kind):
    """Saved bytes after the forward fall to under a third; every gradient keeps its bits."""
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((4, 6)), rng.standard_normal((6, 6)) / 6
    found = []
    for lengths in ([32], checkpoint_segments(32, kind=kind)):
        tx, tw = tensor(x, requires_grad=True), tensor(w, requires_grad=True)
        out = checkpoint_sequential([layer(i, tw) for i in range(32)], tx, lengths)
        kept = saved_bytes(out)
        out.sum().backward()
        found.append((kept, tx.grad, tw.grad))
    assert found[1][0] < found[0][0] / 3
    assert np.array_equal(found[1][1], found[0][1]) and np.array_equal(found[1][2], found[0][2])


def test_nested_segments_and_a_second_derivative_have_the_plain_bits():
    rng = np.random.default_rng(1)
    w, u, x = rng.standard_normal((3, 3)), rng.standard_normal((3, 3)), rng.standard_normal((2, 3))

    def chain(w, cut):
        layers = [layer(i, w) for i in range(6)]
        inner = lambda h: checkpoint_sequential(layers[:4], h, checkpoint_segments(4) if cut else [4])  # noqa: E731
        h = checkpoint(inner, x) if cut else inner(x)
        out = checkpoint_sequential(layers[4:], h, [1, 1] if cut else [2])
        return (out * out).sum()

    def first(cut):
        return grad(lambda w: chain(w, cut))

    def second(cut):
        return grad(lambda w: (first(cut)(w) * u).sum())

    assert np.array_equal(first(True)(w), first(False)(w))
    assert np.array_equal(second(True)(w), second(False)(w)) and np.any(second(True)(w))


def test_dropout_by_a_generator_that_goes_on_is_refused():
    """The shipped bug: the second run draws on, and the gradient is of another function."""
    rng = np.random.default_rng(2)

    def noisy(x):
        return x.sin() * (rng.random(x.shape) < 0.5)

    x = tensor(np.ones(64), requires_grad=True)
    with pytest.raises(RuntimeError, match="not deterministic"):
        checkpoint(noisy, x).sum().backward()
