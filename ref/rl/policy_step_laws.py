"""Laws and mutants of a whole policy step."""

from __future__ import annotations

import math

import numpy as np

from ref.rl.common_laws import REDUCTIONS, clipped, dyadics, plain_weights
from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, cases, choose, dims, ints, rng

ID = "rl.policy_step"


def _lengths(draw, c):
    return rng(draw).integers(2, c.T + 1, c.B)


def _mask(draw, c):
    """Some tokens of each sample, the first never, at least one."""
    g = rng(draw)
    mask = g.random((c.B, c.T)) < 0.6
    for i, n in enumerate(c.lengths):
        mask[i, 0] = False
        mask[i, n:] = False
        mask[i, g.integers(1, n)] = True
    return mask


def _plan(draw, c):
    """Rows dealt to ranks and micro-batches."""
    g = rng(draw)
    ranks, parts = g.integers(1, 3), g.integers(1, 3)
    dealt = [[[] for _ in range(parts)] for _ in range(ranks)]
    for row in g.permutation(c.B).tolist():
        dealt[g.integers(ranks)][g.integers(parts)].append(row)
    return tuple(tuple(tuple(rows) for rows in rank) for rank in dealt)


space = cases(
    ID, V=dims(2, 4), B=dims(1, 4), T=dims(2, 5, large=12), reduction=choose(*REDUCTIONS),
    length=lambda draw, c: 9 if c.reduction == "constant" else None, eps=choose(0.2, 0.1), packed=choose(False, True),
    lengths=_lengths,
    mask=_mask, plan=_plan, tokens=ints("B T", 0, "V"), weight=dyadics("V V", -2, 2, 4),
    old_log_probs=dyadics("B T", -3, 0, 16),
    advantages=dyadics("B", -2, 2, 4),
    flags={
        "uneven": Flag(lambda c: len(set(np.sum(c.mask, -1).tolist())) > 1, {"B": dims(3, 4), "T": dims(4, 5)}),
        "several": Flag(lambda c: sum(bool(rows) for rank in c.plan for rows in rank) > 1, {"B": dims(3, 4)}),
        "two_ranks": Flag(lambda c: sum(any(rank) for rank in c.plan) > 1, {"B": dims(3, 4)}),
        "shared_part": Flag(lambda c: any(len(rows) > 1 for rank in c.plan for rows in rank), {"B": dims(3, 4)}),
        "smooth": Flag(lambda c: not kinks(c)),
        "tokens": Flag(lambda c: np.all(np.asarray(c.tokens) >= 0) and c.V > 0),
    },
)  # fmt: skip


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def predictions(c):
    """[(row, place, tokens before, probabilities)] of the tokens that count, one by one."""
    W, out = np.asarray(c.weight, np.float64), []
    for i, t in zip(*np.nonzero(c.mask), strict=True):
        before = [int(x) for x in c.tokens[i, :t]]
        out.append((i, t, before, softmax(sum(W[x] for x in before) / t)))
    return out


def kinks(c):
    """Whether a ratio lies so near a bound of the clip that rounding chooses the side."""
    rho = [p[c.tokens[i, t]] / math.exp(float(c.old_log_probs[i, t])) for i, t, _, p in predictions(c)]
    return any(abs(r - b) < 1e-4 for r in rho for b in (1 - c.eps, 1 + c.eps))


def definition(c):
    """(loss, gradient, size) of the whole batch, token by token."""
    counts = [int(np.sum(row)) for row in np.asarray(c.mask)]
    loss, grad, size = 0.0, np.zeros(c.weight.shape), 0.0
    for i, t, before, p in predictions(c):
        a, y = float(c.advantages[i]), int(c.tokens[i, t])
        w = {"token-mean": 1 / sum(counts), "seq-mean-token-mean": 1 / (len(counts) * counts[i]),
            "seq-mean-token-sum": 1 / len(counts),
             "constant": 1 / (len(counts) * (c.length or 1))}[c.reduction]  # fmt: skip
        rho = p[y] / math.exp(float(c.old_log_probs[i, t]))
        value, slope = clipped(rho, a, c.eps, c.eps)
        loss += w * value
        size += w * abs(a) * max(rho, 2.0)
        for x in before:
            grad[x] += w * slope * ((np.arange(len(p)) == y) - p) / t
    return loss, grad, max(size, 1e-9)


def close(impl, c, expect, what):
    loss, grad, size = definition(c)
    found = impl(c)
    slack = bounds.rounding(16 * c.mask.size + 128, size, c.dtype)
    expect(found[0], np.array(loss), slack, f"{what}: loss", scale=size)
    expect(found[1], grad, 4 * slack, f"{what}: gradient", scale=max(size, 0.5))


smooth = space.where(smooth=True)


@law(ID, "L1", closed_form=True, given=smooth.where(plan=None, packed=False).reach("uneven"),
     kills=["assumes_on_policy", "mask_shifted_too", "numerator_only", "width_for_the_constant",
     "reads_the_answer"])  # fmt: skip
def the_batch_in_one_piece(impl, c, expect):
    "Loss and gradient of the two lines of the model and the clipped surrogate, token by token."
    close(impl, c, expect, "one piece")


@law(ID, "L2", closed_form=True, given=smooth.where(packed=False).reach("uneven", "several", "two_ranks"),
     kills=["mean_of_means", "local_means_averaged", "local_means_added", "last_part_alone", "first_rank_alone",
     "advantages_in_order_of_arrival",
            "width_for_the_constant"])  # fmt: skip
def any_plan_is_the_batch(impl, c, expect):
    "However rows are dealt to ranks and micro-batches: the loss and the gradient of the whole batch."
    close(impl, c, expect, f"plan {c.plan}")


@law(ID, "L3", closed_form=True, given=smooth.where(packed=True, shared_part=True),
     kills=["attends_across_samples", "positions_run_on", "a_packed_row_is_a_response",
     "advantages_in_order_of_arrival"])  # fmt: skip
def packed_samples_do_not_see_each_other(impl, c, expect):
    "Micro-batches packed end to end: the same, for samples neither attend to each other nor count as one."
    close(impl, c, expect, "packed")


@law(ID, "L4", closed_form=True,
    given=smooth.where(packed=False, reduction="token-mean", B=2, T=dims(4, 5), plan=(((0,),), ((1,),))),
     kills=["local_means_averaged", "local_means_added"])  # fmt: skip
def a_rank_of_one_token_weighs_one_token(impl, c, expect):
    "Two ranks, one with a single token that counts, one with all it can: every token weighs 1 / N."
    mask = np.zeros((2, c.T), bool)
    mask[0, 1] = True
    mask[1, 1:] = True
    now = c.replace(mask=mask, lengths=np.full(2, c.T))
    if kinks(now):
        now = now.replace(old_log_probs=np.full((2, c.T), -6.0, c.dtype))
    close(impl, now, expect, "uneven ranks")


@law(ID, "L5", given=space, kills=["padding_attended"], passes_null=["zeros", "constant", "identity"])
def padding_is_invisible(impl, c, expect):
    "Other tokens in the padding, impossible ones too, and three more columns of it: the same loss and gradient."
    wide = lambda x, fill: np.concatenate([x, np.full((c.B, 3), fill, x.dtype)], 1)  # noqa: E731
    inside = np.arange(c.T) < np.asarray(c.lengths)[:, None]
    tokens = np.where(inside, c.tokens, -99)
    other = c.replace(tokens=wide(tokens, 77), mask=wide(c.mask, False), old_log_probs=wide(c.old_log_probs, -1.0),
        T=c.T + 3)
    size = definition(c)[2]
    for name, a, b in zip(("loss", "gradient"), impl(other), impl(c), strict=True):
        expect(a, b, bounds.rounding(16 * other.mask.size + 128, 4 * size, c.dtype), name, scale=4 * size)


@law(ID, "L6", given=space.where(B=dims(2, 4)), kills=["empty_parts_counted"],
    passes_null=["zeros", "constant", "identity"])
def empty_parts_add_nothing(impl, c, expect):
    "A rank without a row and a micro-batch without one: the same bits as without them."
    plan = tuple((*rank, ()) for rank in c.plan) + (((),),)
    bare = tuple(tuple(rows for rows in rank if rows) for rank in c.plan)
    for name, a, b in zip(("loss", "gradient"), impl(c.replace(plan=plan)), impl(c.replace(plan=bare)), strict=True):
        expect.same(a, b, name)


# Mutants ---------------------------------------------------------------------------------------------


def default():
    """The default-size test: one micro-batch of two samples of one length, on policy, padded."""
    weight = np.array([[0.0, 0.0], [0.0, 0.0]])
    tokens, mask = np.array([[0, 1, 1], [1, 0, 0]]), np.array([[False, True, True]] * 2)
    return (weight, tokens, np.full(2, 3), mask, np.full((2, 3), np.log(0.5)),
        np.array([1.0, -0.5])), {"reduction": "token-mean"}


def one_sample():
    """.. and one sample."""
    (weight, tokens, lengths, mask, old, a), options = default()
    return (weight, tokens[:1], lengths[:1], mask[:1], old[:1], a[:1]), options


def plain(weight, tokens, lengths, mask, old, advantages, *, plan=None, packed=False, reduction, length=None, eps=0.2,
    **edit):
    """Loss and gradient in plain NumPy, part by part."""
    B = len(tokens)
    plan = ((tuple(range(B)),),) if plan is None else plan
    total = mask.size if edit.get("numerator") else int(mask.sum())
    count = total if reduction == "token-mean" else B
    ranks = []
    for rank in plan:
        parts = []
        for rows in rank:
            if rows or edit.get("hollow"):
                parts.append(_part(weight, tokens, lengths, mask, old, advantages, list(rows), packed, reduction,
                    length, eps, count, edit))
        parts = parts[-1:] if edit.get("last") else parts
        scale = 1 / len(parts) if edit.get("mean_parts") and parts else 1.0
        ranks.append((sum(p[0] for p in parts) * scale, sum((p[1] for p in parts), np.zeros(weight.shape)) * scale))
    ranks = ranks[:1] if edit.get("first_rank") else ranks
    scale = 1 / max(sum(any(r) for r in plan), 1) if edit.get("mean_ranks") else 1.0
    loss, grad = sum(r[0] for r in ranks) * scale, sum((r[1] for r in ranks), np.zeros(weight.shape)) * scale
    return np.asarray(loss, weight.dtype), np.asarray(grad, weight.dtype)


def _part(W, tokens, lengths, mask, old, advantages, rows, packed, reduction, length, eps, count, edit):
    if not rows:
        return 1e-3, np.zeros(W.shape)
    own = mask[rows]
    local = (int(own.sum()) if reduction == "token-mean" else len(rows)) if edit.get("local") else count
    longest = own.shape[1] if edit.get("width") else length
    w = plain_weights(own, reduction, local, longest)
    if packed and edit.get("one_response"):
        flat = plain_weights(own.reshape(1, -1), reduction, 1 if reduction != "token-mean" else local, longest)
        w = np.full(len(rows), flat[0]) * (1 if reduction == "token-mean" else len(rows) / count)
    loss, grad, before_part, place = 0.0, np.zeros(W.shape), [], 0
    for k, row in enumerate(rows):
        x = np.where(np.arange(tokens.shape[1]) < lengths[row], tokens[row], 0).astype(int)
        a = float(advantages[k] if edit.get("arrival") else advantages[row])
        for t in np.flatnonzero(own[k]):
            before = [int(v) for v in (x[: t + 1] if edit.get("peek") else x[:t])]
            if edit.get("padding"):
                before = before + [int(v) % len(W) for v in tokens[row, lengths[row] :]]
            if packed and edit.get("leak"):
                before = before_part + before
            n = place + len(before) if packed and edit.get("run_on") else len(before)
            p = softmax(sum(W[v] for v in before) / n)
            y = int(x[t - 1] if edit.get("shifted") else x[t])
            rho = 1.0 if edit.get("on_policy") else p[y] / math.exp(float(old[row, t]))
            value, slope = clipped(rho, a, eps, eps)
            loss += w[k] * value
            for v in before:
                grad[v] += w[k] * slope * ((np.arange(len(p)) == y) - p) / n
        before_part += [int(v) for v in x[: lengths[row]]]
        place += int(lengths[row])
    return loss, grad


def _mutant(name, doc, case=default, thread=None, **edit):
    def function(*args, **options):
        return plain(*args, **options, **edit)

    function.__name__, function.__doc__ = name, doc
    mutant(ID, default_case=case, thread=thread)(function)


_mutant("mean_of_means", "Each micro-batch divided by its own count, the rank's mean of them, added over ranks.",
    local=True, mean_parts=True,
        mean_ranks=True, thread="transformers#34191, #34263, #35121, #35438; verl#593")  # fmt: skip
_mutant("local_means_averaged", "Each rank divides by its own count and the ranks are averaged.", local=True,
    mean_ranks=True,
        thread="transformers#34242, torchtitan#2206")  # fmt: skip
_mutant("local_means_added", "Each part divided by its own count, all added.", local=True, thread="transformers#35121")
_mutant("last_part_alone", "The gradient is zeroed before every micro-batch.", last=True)
_mutant("first_rank_alone", "The ranks are not reduced.", first_rank=True)
_mutant("width_for_the_constant", "The batch's width for the constant.", width=True, thread="verl#5355")
_mutant("numerator_only", "Masked tokens leave the sum and stay in the count.", thread="trl#6439", numerator=True,
    case=lambda: (
    (np.zeros((2, 2)), np.array([[0, 1]]), np.array([2]), np.array([[False, True]]), np.full((1, 2), np.log(0.5)),
    np.array([0.0])), {"reduction": "token-mean"}))  # fmt: skip
_mutant("assumes_on_policy", "The ratio is taken for 1.", on_policy=True)
_mutant("mask_shifted_too", "Each token's place holds its predecessor as the target.", shifted=True,
    thread="shift-by-one", case=lambda: (
    (np.zeros((2, 2)), np.array([[1, 1, 1]]), np.array([3]), np.array([[False, True, True]]),
    np.full((1, 3), np.log(0.5)), np.array([1.0])), {"reduction": "token-mean"}))  # fmt: skip
_mutant("reads_the_answer", "The logits at t, which have seen token t.", peek=True, thread="shift-by-one",
    case=lambda: (
    (np.zeros((2, 2)), np.array([[1, 1, 1]]), np.array([3]), np.array([[False, True, True]]),
    np.full((1, 3), np.log(0.5)), np.array([1.0])), {"reduction": "token-mean"}))  # fmt: skip
_mutant("advantages_in_order_of_arrival", "A micro-batch takes the first advantages of the batch.", arrival=True)
_mutant("attends_across_samples", "A packed sample sees those before it.", one_sample, leak=True,
    thread="trl#3067, trl#3526")
_mutant("positions_run_on", "The position of a packed token counts the samples before it.", one_sample, run_on=True,
    thread="trl#3067")
_mutant("a_packed_row_is_a_response", "A packed row is reduced as one response.", one_sample, one_response=True)
_mutant("padding_attended", "The tokens of the padding are part of the mean.", padding=True)
_mutant("empty_parts_counted", "A micro-batch without rows has a loss.", hollow=True)
