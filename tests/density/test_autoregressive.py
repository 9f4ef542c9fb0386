"""Autoregressive models at the size of twelve bits, what they keep, and that their samples follow them."""

import numpy as np
import pytest

from autodiff import saved_bytes, tensor
from ref.density.affine_flow import affine_flow, generate
from ref.density.autoregressive_sample import autoregressive_sample
from ref.density.fvsbn import fvsbn
from ref.density.made import made, parameter_shapes
from ref.density.made_masks import sequential_degrees
from ref.density.nade import nade


def strings(n):
    return (np.arange(2**n)[:, None] >> np.arange(n) & 1).astype(float)


def model(name, n, H=5, seed=0):
    """bits -> (log p, logits) with random parameters."""
    g = np.random.default_rng(seed)
    if name == "fvsbn":
        W, b = g.standard_normal((n, n)), g.standard_normal(n)
        return lambda x: fvsbn(x, W, b)
    if name == "nade":
        W, V = g.standard_normal((H, n)), g.standard_normal((n, H))
        c, b = g.standard_normal(H), g.standard_normal(n)
        return lambda x: nade(x, W, c, V, b)
    degrees = sequential_degrees(n, (H, 2 * H))
    params = {k: g.standard_normal(s) for k, s in parameter_shapes(degrees).items()}
    return lambda x: made(x, params, degrees)


@pytest.mark.parametrize("name", ["fvsbn", "nade", "made"])
def test_twelve_bits_sum_to_one(name):
    log_prob, _ = model(name, 12)(strings(12))
    assert abs(np.exp(log_prob).sum() - 1) < 1e-12


@pytest.mark.parametrize("name", ["fvsbn", "nade", "made"])
def test_samples_have_the_frequencies_of_the_model(name):
    n, N = 3, 40_000
    call = model(name, n)
    x = autoregressive_sample(np.random.default_rng(1).random((N, n)), conditional=lambda x: call(x)[1])
    p = np.exp(call(strings(n))[0])
    counts = np.bincount((x @ 2 ** np.arange(n)).astype(int), minlength=2**n)
    # Five standard deviations of each count: a false alarm in 2e5 such tests, and the numbers are fixed.
    assert (np.abs(counts - N * p) < 5 * np.sqrt(N * p * (1 - p)) + 1).all()


def test_nade_keeps_and_computes_in_proportion_to_the_bits():
    def kept(n, H=7):
        g = np.random.default_rng(0)
        weights = [g.standard_normal(s) for s in ((H, n), (H,), (n, H), (n,))]
        tensors = [tensor(a, requires_grad=True) for a in weights]
        log_prob, _ = nade(g.integers(0, 2, (3, n)).astype(float), *tensors)
        return saved_bytes(log_prob.sum(), besides=tensors)

    small, large = kept(16), kept(64)
    assert 3.5 < large / small < 4.5


def test_flow_and_its_samples_are_inverse():
    g, n = np.random.default_rng(0), 5
    shapes = {"hidden.weight": (4, n), "hidden.bias": (4,), "scale.weight": (n, 4), "scale.bias": (n,),
              "shift.weight": (n, 4), "shift.bias": (n,)}  # fmt: skip
    layers = [{k: g.standard_normal(s) / 2 for k, s in shapes.items()} for _ in range(4)]
    z = g.standard_normal((6, n))
    np.testing.assert_allclose(affine_flow(generate(z, layers), layers)[1], z, atol=1e-12)
