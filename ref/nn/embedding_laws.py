"""Laws and mutants of the embedding."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from ref.spec import law, mutant
from ref.spec.cases import Flag, batch, cases, choose, dims, ints

ID = "nn.embedding"
table = cases(
    ID,
    B=batch(2, 4, large=80),
    V=dims(1, 5, large=600),
    d=dims(0, 4, large=140),
    ids=ints("*B", 0, "V"),
    flags={
        "repeated": Flag(lambda c: c.d > 0 and np.unique(c.ids).size < c.ids.size,
                         {"V": dims(1, 3), "d": dims(1, 3), "B": choose((4,), (2, 3))}),
        "unused": Flag(lambda c: c.d > 0 and c.ids.size > 0 and np.unique(c.ids).size < c.V,
                       {"V": dims(3, 5), "d": dims(1, 3), "B": choose((2,), (), (2, 1))}),
        "none": Flag(lambda c: c.ids.size == 0, {"B": choose((0,), (0, 2))}),
        "high_id": Flag(lambda c: bool((c.ids > 2**15).any()), {"V": 40_000, "d": 1, "B": choose((3,), (2, 2))}),
    },
)  # fmt: skip


@law(
    ID, "L1", closed_form=True, given=table.reach("repeated", "none", "high_id"),
    kills=["padding_row_is_zero", "ids_in_a_byte", "ids_in_two_bytes", "scaled_by_root_d", "rows_in_sorted_order"],
)  # fmt: skip
def every_position_reads_its_row(impl, c, expect):
    "y[b] = W[id_b], every bit of it."
    wanted = np.zeros((*c.ids.shape, c.d))
    for at in np.ndindex(c.ids.shape):
        for j in range(c.d):
            wanted[(*at, j)] = c.weight[int(c.ids[at]), j]
    expect.same(impl(c), wanted)


@law(
    ID, "L2", given=table.reach("repeated"), kills=["padding_row_is_zero"],
    passes_null=["zeros", "constant"],
)  # fmt: skip
def renumbering_is_invisible(impl, c, expect):
    "Rows and ids counted from the other end give the same output."
    back = c.replace(weight=c.weight[::-1].copy(), ids=np.asarray(c.V - 1 - c.ids))
    expect.same(impl(back), impl(c))


def steps(c):
    """A cotangent of eighths below 8: its sums are exact in every dtype."""
    n = c.ids.size * c.d
    return ((np.arange(n) * 7 % 61 + 1) / 8).reshape(*c.ids.shape, c.d).astype(c.dtype)


@law(
    ID, "L3", closed_form=True, needs=("vjp",), given=table.reach("repeated", "unused", "none"),
    kills=["repeated_ids_overwrite", "repeated_ids_averaged", "gradient_in_the_order_of_positions"],
)  # fmt: skip
def gradient_adds_up_repeated_ids(impl, c, expect):
    "dW_v is the sum of g over the positions with id v, exactly; 0 for an id that nobody used."
    g = steps(c)
    total = [[Fraction(0)] * c.d for _ in range(c.V)]
    for at in np.ndindex(c.ids.shape):
        for j in range(c.d):
            total[int(c.ids[at])][j] += Fraction(float(g[(*at, j)]))
    wanted = np.array([[float(v) for v in row] for row in total]).reshape(c.V, c.d)
    expect.same(impl.vjp(c, g)["weight"], wanted, "dW")


@law(
    ID, "L4", closed_form=True, needs=("vjp",), given=table.reach("repeated"),
    kills=["repeated_ids_overwrite", "repeated_ids_averaged"],
)  # fmt: skip
def gradient_keeps_the_total(impl, c, expect):
    "The sum of dW over ids is the sum of g over positions, exactly."
    g = steps(c)
    found = impl.vjp(c, g)["weight"]
    expect.same(found.sum(0), g.reshape(-1, c.d).sum(0) if g.size else np.zeros(c.d), "sum of dW")


# Mutants ---------------------------------------------------------------------------------------------


def lookup(*ids, d=3):
    """The default-size test: a table of five rows and the given ids."""

    def make():
        return (np.random.default_rng(0).standard_normal((5, d)), np.array(ids)), {}

    return make


@mutant(ID, default_case=lookup(1, 3, 4))
def padding_row_is_zero(weight, ids):
    "Row 0 taken for padding."
    return np.where((ids == 0)[..., None], 0, weight[ids]).astype(weight.dtype)


@mutant(ID, default_case=lookup(1, 3, 4))
def ids_in_a_byte(weight, ids):
    "Ids kept in a byte: a vocabulary above 256 wraps."
    return weight[ids.astype(np.uint8)]


@mutant(ID, default_case=lookup(1, 3, 4))
def ids_in_two_bytes(weight, ids):
    "Ids kept in an int16: a vocabulary above 32768 counts from the end."
    return weight[ids.astype(np.int16)]


@mutant(ID, default_case=lookup(1, 3, 4, d=1))
def scaled_by_root_d(weight, ids):
    "The Transformer's sqrt(d), here and in the model."
    return weight[ids] * weight.dtype.type(np.sqrt(weight.shape[1]))


@mutant(ID, default_case=lookup(0, 1, 4))
def rows_in_sorted_order(weight, ids):
    "Gathered through a sort for locality, not sorted back."
    return weight[np.sort(ids, axis=None).reshape(ids.shape)]


def _vjp_mutant(name, doc, gradient):
    def function(weight, ids):
        return weight[ids]

    def vjp(g, weight, ids):
        return (gradient(g.reshape(-1, weight.shape[1]) if g.size else np.zeros((0, weight.shape[1]), g.dtype),
                         weight, ids.reshape(-1)),)  # fmt: skip

    function.__name__, function.__doc__ = name, doc
    mutant(ID, vjp=vjp, default_case=lookup(1, 3, 4))(function)


def _overwrite(g, weight, ids):
    out = np.zeros_like(weight)
    if g.size:
        out[ids] += g
    return out


def _averaged(g, weight, ids):
    out = np.zeros_like(weight)
    np.add.at(out, ids[: len(g)], g)
    return out / np.maximum(np.bincount(ids, minlength=len(weight)), 1)[:, None].astype(weight.dtype)


def _unsorted(g, weight, ids):
    out = np.zeros_like(weight)
    np.add.at(out, np.sort(ids)[: len(g)], g)
    return out


_vjp_mutant("repeated_ids_overwrite", "dW[ids] += g: fancy indexing keeps one of each.", _overwrite)
_vjp_mutant("repeated_ids_averaged", "Divided by how often an id occurs (scale_grad_by_freq).", _averaged)
_vjp_mutant("gradient_in_the_order_of_positions", "Segments summed for sorted ids, g not sorted along.", _unsorted)
