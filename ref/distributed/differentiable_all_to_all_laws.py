"""Laws and mutants of the all-to-all with a gradient."""

from __future__ import annotations

import numpy as np

from ref.distributed import common_laws as common
from ref.distributed.common_laws import drawn, world_space
from ref.spec import law, mutant
from ref.spec.cases import Flag, choose, dims, rng

ID = "distributed.differentiable_all_to_all"


def _counts(draw, c):
    return rng(draw).integers(0, 4, (c.n, c.n)).tolist() if c.counted else None


def _rows(counts):
    """A field of arrays with as many rows as the named counts say."""

    def make(draw, c):
        kind = draw(choose("integers", "wild"))
        rows = [c.n * c.L] * c.n if c[counts] is None else [sum(row) for row in c[counts]]
        return [drawn(draw, (k,), kind) for k in rows]

    return make


space = world_space(
    ID, L=dims(0, 4), counted=choose(False, True), send=_counts, x=_rows("send"),
    receive=lambda draw, c: None if c.send is None else [list(column) for column in zip(*c.send, strict=True)],
    g=_rows("receive"),
    flags={"counts": Flag(lambda c: c.counted and c.n > 2 and c.send != c.receive, {"counted": True, "n": dims(3, 6)})},
)  # fmt: skip


def transposed(x, send, block):
    """Block i of rank j's result is block j of rank i's x."""
    n = len(x)
    size = lambda i, j: block if send is None else send[i][j]  # noqa: E731
    start = lambda i, j: sum(size(i, q) for q in range(j))  # noqa: E731
    return [np.concatenate([x[i][start(i, j) : start(i, j) + size(i, j)] for i in range(n)]) for j in range(n)]


@law(
    ID, "L1", closed_form=True, given=space.reach("alone", "counts"),
    kills=["blocks_stay"],
)  # fmt: skip
def transposes_the_blocks(impl, c, expect):
    "Block i of y_j is block j of x_i, to the bit."
    y = common.by_rank(impl(c), c, expect)
    for r, wanted in enumerate(transposed(c.x, c.send, c.L)):
        expect.same(y[r], wanted, f"y of rank {r}")


@law(
    ID, "L2", closed_form=True, needs=("vjp",), given=space.reach("counts"),
    kills=["identity_backward", "counts_kept"],
)  # fmt: skip
def adjoint_is_itself(impl, c, expect):
    "Block j of dx_i is block i of g_j, and sum_r <g_r, y_r> = sum_r <dx_r, x_r>, exactly."
    c = common.exact(c)
    dx = impl.vjp(c, c.g)["x"]
    for r, wanted in enumerate(transposed(c.g, c.receive, c.L)):
        expect.same(dx[r], wanted, f"dx of rank {r}")
    common.check_adjoint(impl, c, expect, common.by_rank(impl(c), c, expect), dx)


# Mutants: plain NumPy on all ranks' arrays at once -----------------------------------------------------


def of(n, rows):
    """The default-size test: the same blocks everywhere."""
    return lambda: ((common.ThreadWorld(n), np.ones((n, n * rows))), {})


def turned(x, send):
    return transposed([np.asarray(a) for a in x], send, len(x[0]) // len(x))


def back(g, world, x, send=None, receive=None):
    return (turned(g, receive),)


def fitted(blocks, x):
    """The same numbers, cut or repeated to the sizes of x."""
    return [
        np.resize(b, a.shape).astype(a.dtype) if b.size else np.zeros_like(a) for a, b in zip(x, blocks, strict=True)
    ]


@mutant(ID, default_case=of(2, 2), vjp=back)
def blocks_stay(world, x, send=None, receive=None):
    "Nothing is exchanged."
    return turned(x, send) if send is not None else [np.array(a) for a in x]


def not_moved(g, world, x, send=None, receive=None):
    return (fitted([np.asarray(a) for a in g], x),)


@mutant(ID, default_case=of(2, 2), vjp=not_moved)
def identity_backward(world, x, send=None, receive=None):
    "The cotangent goes where it came from."
    return turned(x, send)


def by_forward_counts(g, world, x, send=None, receive=None):
    return (fitted(turned(g, send), x),)


@mutant(ID, default_case=of(2, 2), vjp=by_forward_counts)
def counts_kept(world, x, send=None, receive=None):
    "The backward uses the counts of the forward, as far as they fit."
    return turned(x, send)
