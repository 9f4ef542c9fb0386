"""Laws and mutants of sequence parallelism.

Exact cases: rows of x hold as many 1 as -1, so that LayerNorm without eps leaves them as they are, and what enters GeLU
is at least 40, where it and its slope are z and 1 to the last bit. All that follows is whole numbers.
"""

from __future__ import annotations

import math

import numpy as np

from autodiff import raw
from backends.communicators import ThreadWorld
from ref.distributed import common_laws as common
from ref.distributed.common_laws import EXACT, RANKS, around, everywhere, pieces, whole_numbers, world, wrong_on_ranks
from ref.distributed.copy_to_ranks import copy_to_ranks
from ref.distributed.differentiable_all_gather import differentiable_all_gather
from ref.distributed.differentiable_reduce_scatter import differentiable_reduce_scatter
from ref.nn.gelu import gelu
from ref.nn.layer_norm import layer_norm
from ref.nn.linear import linear
from ref.spec import bounds, law
from ref.spec.cases import VALUES, Flag, cases, choose, dims, rng

ID = "distributed.sequence_parallel"


def _x(draw, c):
    if c.kind == "wild":
        return pieces(VALUES["normal"](rng(draw), (c.T, c.d)), c.n)
    rows = np.tile(np.repeat([1.0, -1.0], c.d // 2), (c.T, 1))
    return pieces(rng(draw).permuted(rows, axis=1), c.n)


def _field(exact, *shape, axis=None):
    """A field: small integers, `exact(rng, shape)`, or for "wild" numbers as they come; cut along `axis`."""

    def make(draw, c):
        g, size = rng(draw), tuple(c[a] for a in shape)
        a = VALUES["normal"](g, size) if c.kind == "wild" else exact(g, size).astype(np.float64)
        return everywhere(a, c.n) if axis is None else pieces(a, c.n, axis)

    return make


space = cases(
    ID, n=RANKS, comm=world, T=around, d=choose(2, 4), F=around, kind="whole", x=_x,
    scale=_field(lambda g, s: g.integers(1, 4, s), "d"), shift=_field(lambda g, s: g.integers(64, 68, s), "d"),
    up=_field(lambda g, s: g.integers(1, 3, s), "F", "d", axis=0),
    down=_field(lambda g, s: g.integers(-3, 4, s), "d", "F", axis=1),
    length=lambda draw, c: c.T, eps=0.0, g=lambda draw, c: pieces(whole_numbers(draw, c.T, c.d), c.n),
    algorithm=choose(None, "canonical"),
    flags={
        "alone": Flag(lambda c: c.n == 1, {"n": 1}),
        "many": Flag(lambda c: c.n > 2 and c.T > 2 and c.F > 2, {"n": dims(3, 8), "T": choose(5, 7), "F": 4}),
        "idle": Flag(lambda c: c.n > max(c.T, c.F), {"n": dims(3, 8), "T": 2, "F": 2}),
        "uneven": Flag(lambda c: c.T % c.n > 0 and c.F % c.n > 0, {"n": dims(2, 6), "T": 7, "F": 7}),
    },
)  # fmt: skip
wild = space.where(kind="wild", eps=0.25)


def whole(c):
    """(x, gamma, beta, A, B) of one rank, in float64."""
    parts = np.concatenate(c.x), c.scale[0], c.shift[0], np.concatenate(c.up), np.concatenate(c.down, 1)
    return [a.astype(np.float64) for a in parts]


def same_parts(found, wanted, n, expect, what, axis=0):
    """Rank r has chunk r of what one rank has, to the bit."""
    for r, part in enumerate(pieces(wanted, n, axis)):
        expect.same(found[r], part, f"{what} of rank {r}")


@law(
    ID, "L1", closed_form=True, given=space.reach("alone", "many", "idle", "uneven"),
    kills=["rows_of_the_neighbour", "residual_inside"],
)  # fmt: skip
def tokens_are_those_of_one_rank(impl, c, expect):
    "Exact cases: y = x + (x * gamma + beta) A^T B^T in whole numbers, its rows on their ranks."
    x, gamma, beta, A, B = whole(c)
    same_parts(common.by_rank(impl(c), c, expect), x + (x * gamma + beta) @ A.T @ B.T, c.n, expect, "y")


@law(
    ID, "L2", closed_form=True, needs=("vjp",), given=space.reach("many", "idle", "uneven"),
    kills=["norm_gradients_not_summed", "norm_gradients_averaged", "own_rows_backward", "weights_as_if_replicated"],
)  # fmt: skip
def gradients_are_those_of_one_rank(impl, c, expect):
    """Exact cases, h = g B A: dbeta = sum of h, dgamma = sum of h x on every rank; dA = (g B)^T n and dB = g^T (n A^T),
    cut; dx = g + k - mean k - x mean(k x), k = h gamma."""
    (x, gamma, beta, A, B), g, found = whole(c), np.concatenate(c.g).astype(np.float64), impl.vjp(c, c.g)
    n, h = x * gamma + beta, g @ B @ A
    k = h * gamma
    expect.same(found["shift"], everywhere(h.sum(0), c.n), "dbeta")
    expect.same(found["scale"], everywhere((h * x).sum(0), c.n), "dgamma")
    same_parts(found["up"], (g @ B).T @ n, c.n, expect, "dA")
    same_parts(found["down"], g.T @ (n @ A.T), c.n, expect, "dB", 1)
    dx = g + k - k.mean(1, keepdims=True) - x * (k * x).mean(1, keepdims=True)
    same_parts(found["x"], dx, c.n, expect, "dx")


@law(
    ID, "L3", closed_form=True, dtypes=EXACT, given=wild.reach("many", "uneven"),
    kills=["rows_of_the_neighbour", "rectified", "one_norm_for_all_tokens"],
)  # fmt: skip
def block_is_the_equations_written_out(impl, c, expect):
    """Any numbers: the equations on one rank, a token at a time. Roundings: LayerNorm's 2 d + 16 of |x| / sqrt(eps),
    two products of d and F terms, the sum over ranks; GeLU's slope is at most 1.13."""
    x, gamma, beta, A, B = whole(c)
    y, size = np.empty(x.shape), np.empty(x.shape)
    for t, row in enumerate(x):
        centred = row - math.fsum(row) / c.d
        n = centred / math.sqrt(math.fsum(centred**2) / c.d + c.eps) * gamma + beta
        z = np.array([v * (1 + math.erf(v / math.sqrt(2))) / 2 for v in A @ n])
        y[t] = row + B @ z
        most = 2 * np.max(np.abs(row)) / math.sqrt(c.eps) * np.abs(gamma) + np.abs(beta)
        size[t] = np.abs(row) + np.abs(B) @ (np.abs(A) @ most)
    limit = bounds.rounding(3 * c.d + c.F + c.n + 48, 1.13 * size, np.float64)
    found = common.by_rank(impl(c), c, expect)
    for r, (part, bound) in enumerate(zip(pieces(y, c.n), pieces(limit, c.n), strict=True)):
        expect(found[r], part, bound, f"y of rank {r}", scale=size.max())


@law(
    ID, "L4", closed_form=True, needs=("vjp",), given=space.where(algorithm="canonical").reach("many", "uneven"),
    kills=["norm_gradients_not_summed", "own_rows_backward", "weights_as_if_replicated"],
    passes_null=["zeros", "constant", "nan", "identity", "cached", "wrong_dtype"],
)  # fmt: skip
def as_many_bytes_as_two_all_reduces(impl, c, expect):
    """All ranks together send 2 (n - 1) T d numbers forward, as one all-reduce of all tokens does; backward the same
    and 4 (n - 1) d for gamma and beta."""
    one = 2 * (c.n - 1) * c.d * np.dtype(c.x[0].dtype).itemsize
    expect.same(common.bytes_of_all(impl, c), one * c.T, "forward")
    expect.same(common.bytes_of_all(impl, c, c.g), 2 * one * c.T + 2 * one, "and backward")


# Mutants -----------------------------------------------------------------------------------------------


def equal_tokens(n=2):
    """Two ranks whose tokens are all zero, at the start of a training."""
    x, ones = np.zeros((4, 2)), np.ones(2)
    up, down = np.arange(8.0).reshape(4, 2), np.arange(8.0).reshape(2, 4)
    return (ThreadWorld(n), pieces(x, n), everywhere(ones, n), everywhere(ones * 30, n), pieces(up, n),
            pieces(down, n, 1)), {}  # fmt: skip


wrong = wrong_on_ranks(ID, "x", "scale", "shift", "up", "down", default_case=equal_tokens)


def again(
    comm, x, norm, weights, length, eps, algorithm, *, adjoint="sum_of_losses", f=copy_to_ranks, act=gelu, inside=False,
    roll=0,
):  # fmt: skip
    """The block, with edits."""
    scale, shift = (f(comm, a, algorithm=algorithm) for a in norm)
    up, down = weights
    n = differentiable_all_gather(comm, layer_norm(x, scale, shift, eps=eps), length=length, adjoint=adjoint)
    part = linear(act(linear(n, up)), down)
    if roll:
        part = part[np.roll(np.arange(part.shape[0]), -roll)]
    if inside:
        part = part + differentiable_all_gather(comm, x, length=length)
    y = differentiable_reduce_scatter(comm, part)
    return y if inside else x + y


def _alone(comm, a, *, algorithm):
    return a


def _averaged(comm, a, *, algorithm):
    return copy_to_ranks(comm, a * (1 / comm.size) + raw(a) * (1 - 1 / comm.size), algorithm=algorithm)


@wrong
def norm_gradients_not_summed(comm, x, scale, shift, up, down, *, length=None, eps=1e-5, algorithm=None):
    "gamma and beta keep the gradient of the rank's own tokens."
    return again(comm, x, (scale, shift), (up, down), length, eps, algorithm, f=_alone)


@wrong
def norm_gradients_averaged(comm, x, scale, shift, up, down, *, length=None, eps=1e-5, algorithm=None):
    "gamma and beta go through data parallelism's mean."
    return again(comm, x, (scale, shift), (up, down), length, eps, algorithm, f=_averaged)


@wrong
def own_rows_backward(comm, x, scale, shift, up, down, *, length=None, eps=1e-5, algorithm=None):
    "Behind the all-gather each rank takes the rows of its own cotangent, as if all ranks had the same."
    return again(comm, x, (scale, shift), (up, down), length, eps, algorithm, adjoint="one_loss")


@wrong
def weights_as_if_replicated(comm, x, scale, shift, up, down, *, length=None, eps=1e-5, algorithm=None):
    "The matrices' gradients are summed over ranks too, where they have one shape."
    if len(set(comm.share(tuple(up.shape)))) == 1:
        up, down = (copy_to_ranks(comm, a, algorithm=algorithm) for a in (up, down))
    return again(comm, x, (scale, shift), (up, down), length, eps, algorithm)


@wrong
def rows_of_the_neighbour(comm, x, scale, shift, up, down, *, length=None, eps=1e-5, algorithm=None):
    "The reduce-scatter leaves the next rank's tokens."
    return again(comm, x, (scale, shift), (up, down), length, eps, algorithm, roll=x.shape[0])


@wrong
def residual_inside(comm, x, scale, shift, up, down, *, length=None, eps=1e-5, algorithm=None):
    "The residual is added to every rank's part: n of it."
    return again(comm, x, (scale, shift), (up, down), length, eps, algorithm, inside=True)


@wrong
def one_norm_for_all_tokens(comm, x, scale, shift, up, down, *, length=None, eps=1e-5, algorithm=None):
    "One mean and variance for all tokens of the rank."
    flat = layer_norm(x.reshape(1, -1), eps=eps).reshape(x.shape) if x.shape[0] > 1 else layer_norm(x, eps=eps)
    scale, shift = (copy_to_ranks(comm, a, algorithm=algorithm) for a in (scale, shift))
    n = differentiable_all_gather(comm, flat * scale + shift, length=length)
    return x + differentiable_reduce_scatter(comm, linear(gelu(linear(n, up)), down))


@wrong
def rectified(comm, x, scale, shift, up, down, *, length=None, eps=1e-5, algorithm=None):
    "max(z, 0) for GeLU: far from 0 they agree."
    act = lambda z: (z + abs(z)) * 0.5  # noqa: E731
    return again(comm, x, (scale, shift), (up, down), length, eps, algorithm, act=act)
