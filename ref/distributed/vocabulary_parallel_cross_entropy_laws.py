"""Laws and mutants of the vocabulary-parallel cross entropy."""

from __future__ import annotations

import math

import numpy as np

from autodiff import namespace, raw
from backends.communicators import ThreadWorld
from ref.distributed import common_laws as common
from ref.distributed.all_reduce import all_reduce
from ref.distributed.common_laws import RANKS, around, cuts, everywhere, pieces, world, wrong_on_ranks
from ref.distributed.differentiable_all_reduce import differentiable_all_reduce
from ref.spec import bounds, law
from ref.spec.cases import VALUES, Flag, cases, choose, dims, none_or, rng

ID = "distributed.vocabulary_parallel_cross_entropy"


def _targets(draw, c):
    targets = rng(draw).integers(0, c.V, c.M)
    if c.ignore_index is not None:
        targets = np.where(rng(draw).random(c.M) < 0.4, c.ignore_index, targets)
    return everywhere(targets, c.n)


space = cases(
    ID, n=RANKS, comm=world, V=around, M=dims(0, 4), kind=choose("normal", "extreme", "dyadic"),
    logits=lambda draw, c: pieces(VALUES[c.kind](rng(draw), (c.M, c.V)), c.n, 1),
    ignore_index=none_or(-100, -1, 0), targets=_targets, vocabulary=lambda draw, c: c.V,
    g=lambda draw, c: everywhere(VALUES["dyadic"](rng(draw), (c.M,)), c.n), algorithm=choose(None, "canonical"),
    flags={
        "alone": Flag(lambda c: c.n == 1, {"n": 1}),
        "many": Flag(lambda c: c.n > 2 and c.M > 0 and c.V > 2,
                     {"n": dims(3, 8), "M": dims(2, 4), "V": choose(3, 7, 11)}),
        "idle": Flag(lambda c: c.n > c.V and c.M > 0, {"n": dims(3, 8), "V": 2, "M": dims(1, 4)}),
        "uneven": Flag(lambda c: c.V % c.n > 0 and c.M > 0, {"n": dims(2, 6), "V": 7, "M": dims(2, 4)}),
        "ignored": Flag(lambda c: c.ignore_index is not None and bool((c.targets == c.ignore_index).any()),
                        {"ignore_index": choose(-100, -1, 0), "M": dims(3, 4)}),
    },
)  # fmt: skip
plain = space.where(ignore_index=None)


def whole(c):
    """(logits[M V] in float64, those of ignored positions 0; targets, where they count)."""
    t = c.targets[0]
    kept = np.ones(c.M, bool) if c.ignore_index is None else t != c.ignore_index
    x = np.where(kept[:, None], np.concatenate(c.logits, 1).astype(np.float64), 0.0)
    return x, np.where(kept, t, 0), kept


def one_rank(c):
    """(loss, softmax, size) said again in loops; size is what the roundings scale with."""
    x, t, kept = whole(c)
    loss, p = np.zeros(c.M), np.zeros(x.shape)
    for i in range(c.M):
        top = max(x[i])
        z = math.fsum(math.exp(v - top) for v in x[i])
        loss[i] = math.log(z) + (top - x[i, t[i]]) if kept[i] else 0.0
        p[i] = [math.exp(v - top) / z for v in x[i]]
    return loss, p, 1 + np.max(np.abs(x), 1, initial=0.0) + np.abs(x[range(c.M), t])


def off(c, size):
    """Bound of the loss: Z has V + n roundings and exponentials whose arguments round by |x - M| u, which weigh
    sum p |x - M| <= log V + 1; the logarithm 4 ulp; the sums with M and X three more."""
    return bounds.rounding(c.V + c.n + 24, size, c.logits[0].dtype)


@law(
    ID, "L1", closed_form=True, given=plain.reach("alone", "idle", "uneven"), kills=["sums_to_the_ranks"],
)  # fmt: skip
def uniform_logits_give_log_v(impl, c, expect):
    "All logits equal: log V, whatever the target is and however V is cut."
    c = c.replace(logits=[np.full_like(x, 3) for x in c.logits])
    size = np.full((c.n, c.M), 4.0)
    expect(impl(c), np.full((c.n, c.M), math.log(c.V)), off(c, size), scale=4.0)


@law(
    ID, "L2", closed_form=True, given=plain.where(many=True).reach("uneven"),
    kills=["label_offset_by_one", "own_maximum", "label_not_masked", "mean_of_the_labels"],
)  # fmt: skip
def two_classes_are_a_softplus(impl, c, expect):
    """All logits -inf but one of the target and one of another class, on any ranks: log(1 + e^{b - a}); those that
    hold nothing else add exactly 0."""
    x, (_, t, _) = np.full((c.M, c.V), -np.inf), whole(c)
    a, b = np.arange(c.M) * 3.0 - 4, 2.0 - np.arange(c.M)
    for i in range(c.M):
        x[i, t[i]], x[i, (t[i] + 1 + i) % c.V if (1 + i) % c.V else (t[i] + 1) % c.V] = a[i], b[i]
    dtype = c.logits[0].dtype
    case = c.replace(logits=[p.astype(dtype) for p in pieces(x, c.n, 1)])
    wanted = np.array([math.log1p(math.exp(q - p)) for p, q in zip(a, b, strict=True)])
    size = everywhere(1 + np.abs(a) + np.abs(b), c.n)
    expect(impl(case), everywhere(wanted, c.n), off(c, size), scale=size.max())


@law(
    ID, "L3", closed_form=True, given=space.reach("many", "idle", "uneven", "ignored"),
    kills=["own_maximum", "label_offset_by_one", "label_not_masked", "sums_to_the_ranks"],
)  # fmt: skip
def loss_is_that_of_one_rank(impl, c, expect):
    "log sum_j e^{x_j} - x_t over the classes of all ranks, 0 where ignored."
    wanted, _, size = one_rank(c)
    expect(impl(c), everywhere(wanted, c.n), off(c, everywhere(size, c.n)), scale=np.max(size, initial=0.0))


@law(
    ID, "L4", closed_form=True, needs=("vjp",), given=space.reach("many", "idle", "uneven", "ignored"),
    kills=["summed_backward", "mean_over_ranks", "one_hot_on_every_rank"],
)  # fmt: skip
def gradient_is_softmax_minus_one_hot(impl, c, expect):
    "One loss, its g on every rank: dx_rj = g (p_j - [j = t]), rank r's columns; exactly 0 where ignored."
    found, (_, p, _), (_, t, kept) = impl.vjp(c, c.g)["logits"], one_rank(c), whole(c)
    hot = np.eye(c.V)[t]
    wanted = c.g[0].astype(np.float64)[:, None] * (p - hot) * kept[:, None]
    limit = bounds.rounding(c.V + c.n + 24, np.abs(c.g[0])[:, None] * (p > 0) * kept[:, None], found[0].dtype)
    parts = zip(found, pieces(wanted, c.n, 1), pieces(np.broadcast_to(limit, wanted.shape), c.n, 1), strict=True)
    for r, (dx, part, bound) in enumerate(parts):
        expect(dx, part, bound, f"dx of rank {r}", scale=np.max(np.abs(c.g), initial=0.0))


@law(
    ID, "L5", closed_form=True, needs=("vjp",), given=space.where(ignored=True).reach("many"),
    kills=["ignored_by_a_product", "ignored_counted"],
)  # fmt: skip
def ignored_positions_cost_nothing(impl, c, expect):
    "NaN in the logits of ignored positions: loss 0 and gradient 0 there, to the bit; the others as on one rank."
    (loss, _, size), (_, _, kept) = one_rank(c), whole(c)
    junk = c.replace(logits=[np.where(kept[:, None], x, x.dtype.type(np.nan)) for x in c.logits])
    found = impl(junk)
    expect.same(found[:, ~kept], np.zeros((c.n, int((~kept).sum()))), "loss where ignored")
    expect(found, everywhere(loss, c.n), off(c, everywhere(size, c.n)), scale=np.max(size))
    for r, dx in enumerate(impl.vjp(junk, c.g)["logits"]):
        expect.same(dx[~kept], np.zeros((int((~kept).sum()), dx.shape[1])), f"dx of rank {r} where ignored")


@law(
    ID, "L6", closed_form=True, given=plain.where(many=True).reach("uneven"),
    kills=["no_maximum", "maximum_of_rank_0"],
)  # fmt: skip
def a_large_logit_on_any_rank_is_subtracted(impl, c, expect):
    "Zeros but one logit of 2^13 on one class of any rank: 2^13 for every other target, 0 for its own."
    x, (_, t, _) = np.zeros((c.M, c.V)), whole(c)
    top = (np.arange(c.M) * 5 + c.V - 1) % c.V
    x[range(c.M), top] = 2.0**13
    case = c.replace(logits=[p.astype(c.logits[0].dtype) for p in pieces(x, c.n, 1)])
    expect.same(impl(case), everywhere(np.where(top == t, 0.0, 2.0**13), c.n))


@law(
    ID, "L7", closed_form=True, needs=("vjp",), given=space.where(algorithm="canonical").reach("many"),
    kills=["logits_gathered", "summed_backward"], passes_null=["cached", "wrong_dtype"],
)  # fmt: skip
def three_numbers_a_position_are_sent(impl, c, expect):
    "All ranks together send 2 (n - 1) 3 B numbers forward, whatever V is, and nothing backward."
    formula = 2 * (c.n - 1) * 3 * c.M * np.dtype(c.logits[0].dtype).itemsize
    expect.same(common.bytes_of_all(impl, c), formula, "forward")
    expect.same(common.bytes_of_all(impl, c, c.g), formula, "and backward")


# Mutants -----------------------------------------------------------------------------------------------


def at_the_start(n=2):
    """Logits of zeros, as a model begins."""
    targets = everywhere(np.array([0, 3, 1]), n)
    return (ThreadWorld(n), pieces(np.zeros((3, 4)), n, 1), targets), {"ignore_index": -100}


wrong = wrong_on_ranks(ID, "logits", default_case=at_the_start)


def again(
    comm, logits, targets, vocabulary, ignore_index, algorithm, *, top=None, label=None, shift=0, adjoint="one_loss",
    select=None, ignored=True, z_of=lambda z: z,
):  # fmt: skip
    """The algorithm, with edits."""
    xp, own = namespace(logits), logits.shape[-1]
    first = cuts(own * comm.size if vocabulary is None else vocabulary, comm.size)[comm.rank]
    kept = np.ones(targets.shape, bool) if ignore_index is None or not ignored else targets != ignore_index
    x = (select or xp.where)(kept[..., None], logits, 0.0)
    most = np.max(raw(x), axis=-1, initial=-math.inf)
    most = top(most) if top else all_reduce(comm, most, op="max", algorithm=algorithm)
    most = np.where(most == -math.inf, most.dtype.type(0), most)
    local = targets - first - shift
    mine = kept & (local >= 0) & (local < own)
    at = np.clip(local, 0, max(own - 1, 0))
    read = xp.take_along_axis(x, at[..., None], axis=-1)[..., 0] if own else xp.sum(x, axis=-1)
    both = xp.stack((z_of(xp.sum(xp.exp(x - most[..., None]), axis=-1)), (label or xp.where)(mine, read, 0.0)))
    both = differentiable_all_reduce(comm, both, adjoint=adjoint, algorithm=algorithm)
    return xp.where(kept, xp.log(both[0]) + most - both[1], 0.0)


def _own(top):
    return top


@wrong
def own_maximum(comm, logits, targets, *, vocabulary=None, ignore_index=None, algorithm=None):
    "Each rank subtracts its own maximum: the sums are of different scales."
    return again(comm, logits, targets, vocabulary, ignore_index, algorithm, top=_own)


@wrong
def no_maximum(comm, logits, targets, *, vocabulary=None, ignore_index=None, algorithm=None):
    "Nothing is subtracted."
    return again(comm, logits, targets, vocabulary, ignore_index, algorithm, top=np.zeros_like)


@wrong
def maximum_of_rank_0(comm, logits, targets, *, vocabulary=None, ignore_index=None, algorithm=None):
    "A broadcast in place of the all-reduce of maxima."
    top = lambda own: np.array(comm.share(own)[0])  # noqa: E731
    return again(comm, logits, targets, vocabulary, ignore_index, algorithm, top=top)


@wrong
def label_offset_by_one(comm, logits, targets, *, vocabulary=None, ignore_index=None, algorithm=None):
    "The first class of a rank after the first is taken for one more than it is."
    return again(comm, logits, targets, vocabulary, ignore_index, algorithm, shift=int(comm.rank > 0))


@wrong
def label_not_masked(comm, logits, targets, *, vocabulary=None, ignore_index=None, algorithm=None):
    "A masked sum without its mask: every rank adds the logit that the clipped index reads."
    label = lambda mine, read, zero: read  # noqa: E731
    return again(comm, logits, targets, vocabulary, ignore_index, algorithm, label=label)


@wrong
def mean_of_the_labels(comm, logits, targets, *, vocabulary=None, ignore_index=None, algorithm=None):
    "The label's logit is averaged over ranks."
    def label(mine, read, zero):
        return namespace(read).where(mine, read * (1 / comm.size), zero)

    return again(comm, logits, targets, vocabulary, ignore_index, algorithm, label=label)


@wrong
def sums_to_the_ranks(comm, logits, targets, *, vocabulary=None, ignore_index=None, algorithm=None):
    "From three ranks on the sum of exponentials is a mean."
    scale = 1.0 if comm.size < 3 else 1 / comm.size
    return again(comm, logits, targets, vocabulary, ignore_index, algorithm, z_of=lambda z: z * scale)


@wrong
def summed_backward(comm, logits, targets, *, vocabulary=None, ignore_index=None, algorithm=None):
    "An all-reduce backward too: n times the gradient."
    return again(comm, logits, targets, vocabulary, ignore_index, algorithm, adjoint="sum_of_losses")


@wrong
def mean_over_ranks(comm, logits, targets, *, vocabulary=None, ignore_index=None, algorithm=None):
    "The gradient is that of the mean over ranks of the one loss they share."
    xp = namespace(logits)
    x = xp.add(raw(logits) * (1 - 1 / comm.size), logits * (1 / comm.size))
    still = np.isfinite(raw(logits))
    x = xp.where(still, x, logits)
    return again(comm, x, targets, vocabulary, ignore_index, algorithm)


@wrong
def one_hot_on_every_rank(comm, logits, targets, *, vocabulary=None, ignore_index=None, algorithm=None):
    "The gradient takes the one-hot off at the clipped index of every rank."
    def label(mine, read, zero):
        xp = namespace(read)
        return xp.add(xp.where(mine, read, zero), xp.where(mine, zero, read - raw(read)))

    return again(comm, logits, targets, vocabulary, ignore_index, algorithm, label=label)


@wrong
def ignored_by_a_product(comm, logits, targets, *, vocabulary=None, ignore_index=None, algorithm=None):
    "Ignored positions leave by a product: NaN times 0."
    select = lambda kept, x, zero: x * np.asarray(kept, raw(x).dtype)  # noqa: E731
    return again(comm, logits, targets, vocabulary, ignore_index, algorithm, select=select)


@wrong
def ignored_counted(comm, logits, targets, *, vocabulary=None, ignore_index=None, algorithm=None):
    "ignore_index is accepted and not looked at: such a position costs log Z."
    return again(comm, logits, targets, vocabulary, ignore_index, algorithm, ignored=False)


@wrong
def logits_gathered(comm, logits, targets, *, vocabulary=None, ignore_index=None, algorithm=None):
    "The sums of all ranks, and all logits sent along: right, for B V numbers."
    if comm.size > 1 and raw(logits).size:
        wide = np.zeros((targets.size, comm.size * logits.shape[-1]))
        if len(set(comm.share(wide.shape))) == 1:
            all_reduce(comm, wide, algorithm=algorithm)
    return again(comm, logits, targets, vocabulary, ignore_index, algorithm)
