"""Laws and mutants of the vocabulary-parallel embedding."""

from __future__ import annotations

import numpy as np

from autodiff import namespace, raw
from backends.communicators import ThreadWorld
from ref.distributed import common_laws as common
from ref.distributed.common_laws import RANKS, around, everywhere, pieces, whole_numbers, world, wrong_on_ranks
from ref.distributed.differentiable_all_reduce import differentiable_all_reduce
from ref.distributed.ranks import own_range
from ref.nn.embedding import embedding
from ref.spec import law
from ref.spec.cases import Flag, cases, choose, dims, rng

ID = "distributed.vocabulary_parallel_embedding"


def _ids(draw, c):
    return everywhere(rng(draw).integers(0, c.V, c.M), c.n)


space = cases(
    ID, n=RANKS, comm=world, V=around, M=dims(0, 6), d=dims(1, 3),
    weight=lambda draw, c: pieces(whole_numbers(draw, c.V, c.d, most=9), c.n), ids=_ids,
    vocabulary=lambda draw, c: c.V, g=lambda draw, c: everywhere(whole_numbers(draw, c.M, c.d), c.n),
    algorithm=choose(None, "canonical"),
    flags={
        "alone": Flag(lambda c: c.n == 1, {"n": 1}),
        "many": Flag(lambda c: c.n > 2 and c.M > 0, {"n": dims(3, 8), "M": dims(1, 6)}),
        "idle": Flag(lambda c: c.n > c.V and c.M > 0, {"n": dims(3, 8), "V": 2, "M": dims(1, 6)}),
        "uneven": Flag(lambda c: c.V % c.n > 0 and c.M > 0, {"n": dims(2, 6), "V": 7, "M": dims(3, 6)}),
        "repeated": Flag(lambda c: len(set(c.ids[0].tolist())) < c.M, {"V": choose(1, 2), "M": dims(3, 6)}),
    },
)  # fmt: skip


@law(
    ID, "L1", closed_form=True, given=space.reach("alone", "many", "idle", "uneven"),
    kills=["equal_shares", "not_masked", "mean_of_the_parts"],
)  # fmt: skip
def every_position_has_its_row(impl, c, expect):
    "y = E[id] on every rank, to the bit."
    table = np.concatenate(c.weight)
    wanted = np.array([table[i] for i in c.ids[0]]).reshape(c.M, c.d)
    expect.same(impl(c), everywhere(wanted, c.n), "y")


@law(
    ID, "L2", closed_form=True, needs=("vjp",), given=space.reach("many", "idle", "uneven", "repeated"),
    kills=["summed_backward", "last_one_counts", "not_masked"],
)  # fmt: skip
def gradient_is_that_of_one_table(impl, c, expect):
    "One loss, its g on every rank: dE_v is the sum of g over the positions of v, exactly, on v's own rank."
    found, dE = impl.vjp(c, c.g)["weight"], np.zeros((c.V, c.d))
    for i, g in zip(c.ids[0], c.g[0], strict=True):
        dE[i] += g
    for r, part in enumerate(pieces(dE, c.n)):
        expect.same(found[r], part, f"dE of rank {r}")


@law(
    ID, "L3", closed_form=True, needs=("vjp",), given=space.where(algorithm="canonical").reach("many"),
    kills=["summed_backward"], passes_null=["cached", "wrong_dtype"],
)  # fmt: skip
def one_all_reduce_and_that_forward(impl, c, expect):
    "All ranks together send 2 (n - 1) B d numbers forward, whatever V is, and nothing backward."
    formula = 2 * (c.n - 1) * c.M * c.d * np.dtype(c.weight[0].dtype).itemsize
    expect.same(common.bytes_of_all(impl, c), formula, "forward")
    expect.same(common.bytes_of_all(impl, c, c.g), formula, "and backward")


@law(ID, "L4", closed_form=True, given=space.reach("many", "uneven"), kills=["masked_by_a_product", "not_masked"])
def another_row_is_invisible(impl, c, expect):
    "The rows that no id names hold NaN: y is the same to the bit."
    table = np.concatenate(c.weight)
    wanted = np.array([table[i] for i in c.ids[0]]).reshape(c.M, c.d)
    table[[v for v in range(c.V) if v not in c.ids[0]]] = np.nan
    expect.same(impl(c.replace(weight=pieces(table, c.n))), everywhere(wanted, c.n), "y")


# Mutants -----------------------------------------------------------------------------------------------


def even(n=2):
    """Two equal shares, whose first rows are zeros (padding)."""
    table = np.arange(8.0).reshape(4, 2)
    table[::2] = 0
    return (ThreadWorld(n), pieces(table, n), everywhere(np.array([1, 3, 0]), n)), {}


wrong = wrong_on_ranks(ID, "weight", default_case=even)


def parts(comm, weight, ids, vocabulary, first=None, mask=None):
    """(namespace, this rank's part), with edits."""
    own, _ = own_range(comm, "a mutant", len(weight), vocabulary, names=("V_r", "vocabulary"))
    first = own if first is None else first
    xp, mine = namespace(weight), (ids >= first) & (ids < first + len(weight))
    if not len(weight):
        return xp, xp.broadcast_to(xp.sum(weight, axis=0), (*ids.shape, weight.shape[1]))
    part = embedding(weight, xp.where(mine, ids - first, 0))
    return xp, mask(xp, mine[..., None], part) if mask else part


def select(xp, mine, part):
    return xp.where(mine, part, 0.0)


def total(comm, part, algorithm, adjoint="one_loss"):
    return differentiable_all_reduce(comm, part, adjoint=adjoint, algorithm=algorithm)


@wrong
def equal_shares(comm, weight, ids, *, vocabulary=None, algorithm=None):
    "The first row is r V_r: right where all shares are equal."
    return total(comm, parts(comm, weight, ids, vocabulary, comm.rank * len(weight), select)[1], algorithm)


@wrong
def not_masked(comm, weight, ids, *, vocabulary=None, algorithm=None):
    "Others' ids read row 0 and are not taken out: invisible while it is a row of padding."
    return total(comm, parts(comm, weight, ids, vocabulary)[1], algorithm)


@wrong
def masked_by_a_product(comm, weight, ids, *, vocabulary=None, algorithm=None):
    "The mask is a product: 0 times NaN."
    mask = lambda xp, mine, part: part * xp.astype(mine, part.dtype)  # noqa: E731
    return total(comm, parts(comm, weight, ids, vocabulary, mask=mask)[1], algorithm)


@wrong
def mean_of_the_parts(comm, weight, ids, *, vocabulary=None, algorithm=None):
    "From three ranks on, the mean."
    part = parts(comm, weight, ids, vocabulary, mask=select)[1]
    return total(comm, part * (1.0 if comm.size < 3 else 1 / comm.size), algorithm)


@wrong
def summed_backward(comm, weight, ids, *, vocabulary=None, algorithm=None):
    "An all-reduce backward too: n times the gradient."
    return total(comm, parts(comm, weight, ids, vocabulary, mask=select)[1], algorithm, "sum_of_losses")


@wrong
def last_one_counts(comm, weight, ids, *, vocabulary=None, algorithm=None):
    "A repeated id writes its cotangent in place of those before it."
    xp, part = parts(comm, weight, ids, vocabulary, mask=select)
    last = np.array([i not in ids[k + 1 :] for k, i in enumerate(ids)], bool).reshape(-1, 1)
    kept = xp.where(last, part, 0.0)
    return total(comm, xp.add(kept, raw(part) * ~last), algorithm)
