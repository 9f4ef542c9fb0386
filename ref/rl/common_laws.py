"""What the laws of the policy losses share: drawn batches, the reductions said slowly, laws that all of them obey."""

from __future__ import annotations

import itertools
import math

import numpy as np
from hypothesis import strategies as st

from ref.spec import bounds, law, mutant
from ref.spec.cases import ELEMENTWISE, Flag, _shape, cases, choose, dims, none_or, rng

REDUCTIONS = ("token-mean", "seq-mean-token-mean", "seq-mean-token-sum", "constant")
RANGES = ((0.2, 0.2), (0.2, 0.28), (0.1, 0.3), (1.0, 0.5))  # no dyadic log-ratio falls on a bound
JUNK = np.array([np.nan, np.inf, -np.inf, 1e30])


def dyadics(axes, low, high, per=64):
    """Whole numbers of 1 / per between low and high, as an array with the named axes."""
    a, b = int(low * per), int(high * per)

    def make(draw, c):
        shape = _shape(axes, c)
        size = math.prod(shape)
        if size > ELEMENTWISE:
            return rng(draw).integers(a, b + 1, shape) / per
        drawn = draw(st.lists(st.integers(a, b), min_size=size, max_size=size))
        return np.asarray(np.array(drawn, np.float64).reshape(shape) / per)

    return make


log_probs = dyadics("B T", -3, 0)


def filled_mask(draw, c):
    """Kept positions with gaps, at least one in every row."""
    g = rng(draw)
    mask = g.random((c.B, c.T)) < 0.6
    mask[np.arange(c.B), g.integers(0, c.T, c.B)] = True
    return mask


def any_mask(draw, c):
    """Kept positions; rows may be empty where a count is given."""
    return rng(draw).random((c.B, c.T)) < 0.5 if c.count is not None else filled_mask(draw, c)


def emptied_mask(draw, c):
    """`any_mask` with a row that keeps nothing."""
    mask = any_mask(draw, c)
    mask[draw(choose(*range(c.B)))] = False
    return mask


def batch_flags():
    """Edge classes of a batch of responses."""
    return {
        "masked": Flag(lambda c: not np.all(c.mask), {"B": dims(1, 3), "T": dims(2, 5)}),
        "uneven": Flag(lambda c: len(set(np.sum(c.mask, -1).tolist())) > 1, {"B": dims(2, 3), "T": dims(2, 5)}),
        "empty_row": Flag(lambda c: c.count is not None and not np.all(np.any(c.mask, -1)),
                          {"count": choose(3, 8), "B": dims(1, 3), "T": dims(1, 3), "mask": emptied_mask}),
        "some": Flag(lambda c: bool(np.any(c.mask))),
        "full": Flag(lambda c: bool(np.all(c.mask)), {"mask": lambda draw, c: np.ones((c.B, c.T), bool)}),
    }  # fmt: skip


def policy_cases(id, *, fixed=False, flags=(), first=(), unset=None, **fields):
    """Batches of the policy losses: log-probabilities under two policies, advantages of responses or of tokens.

    `fixed` is for losses whose reduction is part of their name; `first` are fields that the arrays depend on.
    """
    base = {"B": dims(1, 3, large=6), "T": dims(1, 5, large=40), **dict(first)}
    if not fixed:
        base["reduction"] = choose(*REDUCTIONS)
    base |= {"count": none_or(3, 8), "mask": any_mask, "log_probs": log_probs, "old_log_probs": log_probs,
             "t": lambda draw, c: draw(choose(1, c.T)), "advantages": dyadics("B t", -2, 2, 4)}  # fmt: skip
    if not fixed:
        base["length"] = lambda draw, c: 7 if c.reduction == "constant" else None
    return cases(id, **{**base, **fields}, flags={**batch_flags(), **dict(flags)}, unset=unset)


def weights(c, reduction=None):
    """w[B], float64: what a kept token of each row weighs, row by row."""
    if "weights" in c:
        return np.asarray(c.weights, np.float64)
    reduction = reduction or c.reduction
    counts = [int(np.sum(row)) for row in np.asarray(c.mask)]
    total = c.get("count") or (sum(counts) if reduction == "token-mean" else len(counts))
    w = {"token-mean": lambda n: 1 / total, "seq-mean-token-mean": lambda n: 1 / (total * n),
         "seq-mean-token-sum": lambda n: 1 / total, "constant": lambda n: 1 / (total * c.length)}  # fmt: skip
    return np.array([w[reduction](max(n, 1)) for n in counts])


def wide(*arrays):
    """The arrays in float64."""
    return [np.asarray(a, np.float64) for a in arrays]


def with_junk(c, *names):
    """The case with NaN, inf and 1e30 in the masked slots of the named arrays."""
    junk = JUNK[np.arange(c.mask.size) % 4].reshape(c.mask.shape)
    return c.replace(**{n: np.where(c.mask, c[n], junk.astype(c.dtype)) for n in names if c.get(n) is not None})


def loss_bound(c, terms, dtype):
    """Rounding of a weighted sum of terms[B T] (absolute values), each a few operations on a log-ratio below 8."""
    n = c.mask.size
    return bounds.rounding(n + 48, np.sum(terms), dtype)


class Terms:
    """A token loss said slowly: values[B T], slopes[B T] = d value / d log_prob, and sizes of what is added up."""

    def __init__(self, values, slopes, sizes=None):
        self.values, self.slopes = values, slopes
        self.sizes = np.abs(values) if sizes is None else sizes


def clipped(ratio, a, low, high, dual=None):
    """(value, slope) of one token under the clipped surrogate, by cases."""
    gain = min(ratio * a, min(max(ratio, 1 - low), 1 + high) * a)
    flat = (a > 0 and ratio > 1 + high) or (a < 0 and ratio < 1 - low)
    if dual is not None and a < 0 and ratio > dual:
        gain, flat = dual * a, True
    return -gain, 0.0 if flat or a == 0 else -ratio * a


def clipped_terms(c, defaults=(0.2, 0.2, None)):
    """The token losses of the clipped surrogate, one by one; at level "sequence" with the response's ratio."""
    values, slopes, sizes = np.zeros((3, *c.mask.shape))
    for i in range(c.mask.shape[0]):
        kept = np.flatnonzero(c.mask[i])
        gaps = [float(c.log_probs[i, t]) - float(c.old_log_probs[i, t]) for t in kept]
        if c.get("level") == "sequence":
            gaps = [math.fsum(gaps) / max(len(gaps), 1)] * len(gaps)
        for t, gap in zip(kept, gaps, strict=True):
            a = float(c.advantages[i, t if c.advantages.shape[1] > 1 else 0])
            clip = [c.get(n, d) for n, d in zip(("eps_low", "eps_high", "dual_clip"), defaults, strict=True)]
            values[i, t], slopes[i, t] = clipped(math.exp(gap), a, *clip)
            sizes[i, t] = abs(a) * max(math.exp(gap), 2.0)
    return Terms(values, slopes, sizes)


def total(c, terms, reduction=None):
    """(loss, d loss / d log_probs, size of the sum) of a batch."""
    w = weights(c, reduction)[:, None] * np.asarray(c.mask)
    return float(np.sum(w * terms.values)), w * terms.slopes, w * terms.sizes


def policy_laws(id, space, terms, kills, *, reduction=None, junk=("log_probs", "old_log_probs"), cut=True,
                also=None):  # fmt: skip
    """Laws L1 .. L5 of every loss that is a reduction of token losses; `kills` by label.

    `terms(c)` says the token losses slowly. A loss whose rows are not its units is not `cut` (L5). `also` are nulls
    that pass a law by nature besides those listed, by label.
    """
    of = lambda c: reduction or c.get("reduction")  # noqa: E731
    named = lambda label: {"kills": kills.get(label, [])}  # noqa: E731
    passing = lambda label, *nulls: {"passes_null": [*nulls, *(also or {}).get(label, [])]}  # noqa: E731
    edges = [e for e in ("masked", "uneven", "empty_row", "full") if e in space.flags]

    @law(id, "L1", closed_form=True, given=space.reach(*edges), **named("L1"))
    def value_is_the_definition(impl, c, expect):
        "The loss is the definition, token by token, under the named reduction."
        value, _, sizes = total(c, terms(c), of(c))
        expect(impl(c), np.array(value), loss_bound(c, sizes, c.dtype), scale=max(float(np.sum(sizes)), 1e-12))

    @law(id, "L2", closed_form=True, needs=("vjp",), given=space.reach(*edges[:3]), **named("L2"))
    def gradient_is_the_definition(impl, c, expect):
        "d loss / d log pi is the definition's, token by token; masked tokens have gradient 0, exactly."
        _, slopes, sizes = total(c, terms(c), of(c))
        found = impl.vjp(c, np.array(2.0, c.dtype))["log_probs"]
        expect(found, 2 * slopes, slope_bound(c, slopes, sizes), "d log pi", scale=1.0)
        expect.same(found[~c.mask], np.zeros(int((~c.mask).sum())), "d log pi of the masked")

    @law(id, "L3", needs=("vjp",), given=space.where(masked=True), **passing("L3", "zeros", "constant"), **named("L3"))
    def masked_junk_is_invisible(impl, c, expect):
        "NaN, inf or 1e30 in masked slots changes no bit, neither of the loss nor of the gradient."
        other, g = with_junk(c, *junk), np.array(1.0, c.dtype)
        expect.same(impl(other), impl(c), "loss beside junk")
        expect.same(impl.vjp(other, g)["log_probs"], impl.vjp(c, g)["log_probs"], "d log pi beside junk")

    @law(id, "L4", given=space.where(masked=True, some=True), **passing("L4", "zeros", "constant"), **named("L4"))
    def masking_is_deleting(impl, c, expect):
        "A response with masked tokens has the loss of the response without them."
        for i in np.flatnonzero(np.any(c.mask, -1)):
            keep = np.asarray(c.mask)[i]
            row, deleted = rows_of(c, [i]), rows_of(c, [i], keep)
            sizes = total(row, terms(row), of(row))[2]
            expect(impl(deleted), impl(row), 2 * loss_bound(row, sizes, c.dtype), f"row {i}",
                   scale=max(float(np.sum(sizes)), 1e-9))  # fmt: skip

    if not cut:
        return

    @law(id, "L5", given=space.where(count=None, uneven=True), **passing("L5", "zeros"), **named("L5"))
    def any_cut_adds_up(impl, c, expect):
        "However the rows are cut into micro-batches, their losses under the whole's count add up to the whole's."
        sizes = total(c, terms(c), of(c))[2]
        n = int(np.sum(c.mask)) if of(c) == "token-mean" else c.B
        for cuts in (cut for k in range(1, c.B) for cut in itertools.combinations(range(1, c.B), k)):
            parts = [rows_of(c, rows).replace(count=n) for rows in np.split(np.arange(c.B), cuts)]
            found = sum(float(impl(part)) for part in parts)
            expect(np.array(found), impl(c), 4 * loss_bound(c, sizes, c.dtype), f"{len(parts)} parts",
                   scale=max(float(np.sum(sizes)), 1e-12))  # fmt: skip


def slope_bound(c, slopes, sizes):
    """A gradient of a token is a product of few factors, one of them an exponential of T roundings at most."""
    return bounds.rounding(64 + 4 * c.mask.shape[-1], 2 * (np.abs(slopes) + sizes), c.dtype)


def rows_of(c, rows, columns=None):
    """The named rows of a batch, and of their tokens the named columns, as a batch."""
    names = [n for n in (*c.args, *c.options) if isinstance(c[n], np.ndarray) and c[n].ndim and len(c[n]) == c.B]
    taken = {n: c[n][rows] for n in names}
    fields = {"B": len(rows)}
    if columns is not None:
        taken = {n: a[:, columns] if a.ndim == 2 and a.shape[1] == c.T else a for n, a in taken.items()}
        fields["T"] = int(np.sum(columns))
    if "t" in c and "advantages" in taken:
        fields["t"] = taken["advantages"].shape[1]
    return c.replace(**{n: a.copy() for n, a in taken.items()}, **fields)


# Mutants ---------------------------------------------------------------------------------------------


def even_batch(old=0.0, t=1, seed=0, **options):
    """The default-size test: rows of equal length, nothing masked; `old` scales how far the old policy is."""

    def make():
        g = np.random.default_rng(seed)
        lp = -np.abs(g.standard_normal((3, 4)))
        a = g.standard_normal((3, t))
        return (lp, lp - old * g.standard_normal((3, 4)), a, np.ones((3, 4), bool)), dict(options)

    return make


def plain_weights(mask, reduction, count=None, length=None, empty="refuse"):
    """w[B] in NumPy, for mutants."""
    n = mask.sum(-1)
    total = count or (n.sum() if reduction == "token-mean" else (n > 0).sum() if empty == "drop" else len(n))
    per = {"token-mean": 1, "seq-mean-token-mean": np.maximum(n, 1), "seq-mean-token-sum": 1, "constant": length or 1}
    return 1 / (np.broadcast_to(per[reduction], n.shape) * max(total, 1))


def surrogate(low, high, dual):
    """(value, slope) of a token under the clipped surrogate."""

    def token(ratio, a, lp):
        clipped = np.clip(ratio, 1 - low, 1 + high)
        value = -np.minimum(ratio * a, clipped * a)
        slope = np.where(ratio * a <= clipped * a, -ratio * a, 0.0)
        if dual is not None:
            capped = (a < 0) & (ratio > dual)
            value, slope = np.where(capped, -dual * a, value), np.where(capped, 0.0, slope)
        return value, slope

    return token


def plain(log_probs, old_log_probs, advantages, mask, *, token, reduction, count=None, length=None, empty="refuse",
          **edit):  # fmt: skip
    """(loss, d loss / d log_probs) in plain NumPy, whose parts an edit replaces."""
    hide = edit.get("hide", lambda x, mask: np.where(mask, x, 0))
    gap = hide(log_probs - old_log_probs, mask)
    gap = edit.get("gap", lambda gap, mask: gap)(gap, mask)
    a = hide(np.broadcast_to(advantages, mask.shape), mask)
    value, slope = token(np.exp(np.minimum(gap, 80)), a, hide(log_probs, mask))
    weigh = edit.get("weights", plain_weights)
    w = np.reshape(weigh(mask, reduction, count, length, empty), (-1, 1))
    return np.asarray(np.sum(hide(value, mask) * w), log_probs.dtype), (hide(slope, mask) * w).astype(log_probs.dtype)


def policy_mutant(id, name, doc, base, *, default_case, thread=None, value=None, slope=None):
    """Register `base(**edits)` under another name, with its gradient beside it.

    `value` and `slope` are edits of the loss alone and of the gradient alone.
    """

    def function(*args, **options):
        return base(*args, **options, **(value or {}))[0]

    def vjp(g, *args, **options):
        return (g * base(*args, **options, **(value or {}), **(slope or {}))[1],)

    function.__name__, function.__doc__ = name, doc
    return mutant(id, vjp=vjp, thread=thread, default_case=default_case)(function)


# Edits that make the bugs of laws-from-real-bugs out of any loss.


def local_mean(mask, reduction, count=None, length=None, empty="refuse"):
    """The part's own tokens or rows, whatever the count says: a mean of means."""
    return plain_weights(mask, reduction, None, length, empty)


def numerator_only(mask, reduction, count=None, length=None, empty="refuse"):
    """Masked tokens dropped from the sum and kept in the count."""
    return plain_weights(np.ones_like(mask), reduction, count, length, empty)


def other_reduction(name):
    """Always the reduction `name`."""

    def weigh(mask, reduction, count=None, length=None, empty="refuse"):
        return plain_weights(mask, name, count, length or mask.shape[-1], empty)

    return weigh


def by_multiplying(x, mask):
    """Masked values times zero: NaN stays."""
    return x * mask


def clip_loss(log_probs, old_log_probs, advantages, mask, *, eps_low=0.2, eps_high=0.2, dual_clip=None, level="token",
              **edit):  # fmt: skip
    """`plain` of the clipped surrogate. Edits: token(low, high, dual), slope(own, value, rho, A, clip), n(mask)."""
    slope, last = edit.pop("slope", None), edit.pop("last", lambda d, mask, level: d)
    of_clip, n = edit.pop("token", surrogate), edit.pop("n", lambda mask: np.maximum(mask.sum(-1, keepdims=True), 1))
    clip = eps_low, eps_high, dual_clip

    def gap(gap, mask):
        return gap if level == "token" else np.broadcast_to(gap.sum(-1, keepdims=True) / n(mask), gap.shape)

    def both(ratio, a, lp):
        value, own = of_clip(*clip)(ratio, a, lp)
        return value, own if slope is None else slope(own, value, ratio, a, clip)

    loss, d = plain(log_probs, old_log_probs, advantages, mask, token=both, **{"gap": gap, **edit})
    return loss, last(d, mask, level).astype(log_probs.dtype)


def reduction_mutants(id, base, case, own):
    """The reductions that a loss with a reduction of its own (or a named one) is confused with."""
    others = {"token-mean": "trl#2881", "seq-mean-token-mean": "verl#5355, trl#2995", "seq-mean-token-sum": "trl#3178"}
    for name, thread in others.items():
        if name != own:
            policy_mutant(id, f"reduced_by_{name.replace('-', '_')}", f"Always {name}.", base, thread=thread,
                          default_case=case(name), value={"weights": other_reduction(name)})  # fmt: skip
    policy_mutant(id, "mean_of_means", "The micro-batch's own count, whatever the whole batch's is.", base,
                  thread="transformers#34191, #34242; torchtitan#2206; verl#593", default_case=case(own),
                  value={"weights": local_mean})  # fmt: skip
    if own != "constant":
        policy_mutant(id, "numerator_only", "Masked tokens leave the sum and stay in the count.", base,
            thread="trl#6439",
                      default_case=case(own), value={"weights": numerator_only})  # fmt: skip
    policy_mutant(id, "masked_by_multiplying", "Times the mask: NaN stays.", base, thread="AReaL#1346, ROLL#447",
                  default_case=case(own), value={"hide": by_multiplying})  # fmt: skip
    names = [f"reduced_by_{n.replace('-', '_')}" for n in others if n != own]
    return [*names, "mean_of_means"], ["numerator_only"] * (own != "constant"), ["masked_by_multiplying"]


# Preference pairs --------------------------------------------------------------------------------------


def pair_mask(draw, c):
    """Kept tokens of both responses, at least one of each, of different numbers where there is room."""
    g = rng(draw)
    mask = g.random((c.P, 2, c.T)) < 0.6
    np.put_along_axis(mask, g.integers(0, c.T, (c.P, 2, 1)), True, axis=-1)
    return mask


def pair_cases(id, *, ref=True, flags=(), unset=None, **fields):
    """Preference pairs: log-probabilities of a chosen and a rejected response, under policy and reference."""
    base = {"P": dims(1, 3, large=6), "T": dims(1, 4, large=40), "count": none_or(2, 7), "mask": pair_mask,
            "log_probs": dyadics("P 2 T", -3, -1 / 64)}  # fmt: skip
    if ref:
        base["ref_log_probs"] = dyadics("P 2 T", -3, 0)
    edges = {
        "masked": Flag(lambda c: not np.all(c.mask), {"T": dims(2, 4)}),
        "uneven": Flag(lambda c: bool(np.any(np.diff(np.sum(c.mask, -1), axis=1))), {"T": dims(2, 4)}),
        "several": Flag(lambda c: c.P > 1, {"P": dims(2, 3)}),
        **dict(flags),
    }
    return cases(id, **{**base, **fields}, flags=edges, unset=unset)


def scores(c, of=None):
    """(score[P 2], size[P 2]): each response's log-probability less the reference's, token by token."""
    out, size = np.zeros(c.mask.shape[:2]), np.zeros(c.mask.shape[:2])
    ref = c.get("ref_log_probs")
    for p, k in np.ndindex(*out.shape):
        kept = np.flatnonzero(c.mask[p, k])
        terms = [float(c.log_probs[p, k, t]) for t in kept]
        less = [0.0 if ref is None else float(ref[p, k, t]) for t in kept]
        n = len(kept) if (of or c.get("of")) == "mean" else 1
        out[p, k] = (math.fsum(terms) - math.fsum(less)) / n
        size[p, k] = (sum(map(abs, terms)) + sum(map(abs, less))) / n
    return out, size


def pair_laws(id, space, terms, kills, *, of=None, junk=("log_probs", "ref_log_probs"), also=None, cut=None):
    """Laws L1 .. L4 of every loss that is a mean over pairs; `kills` by label.

    `terms(c)` gives losses[P], slopes[P 2] (by the responses' scores) and the size[P] of what is added up.
    """
    named = lambda label, *nulls: {  # noqa: E731
        "kills": kills.get(label, []), "passes_null": [*nulls, *(also or {}).get(label, [])],
    }  # fmt: skip

    def bound(c, sizes):
        return bounds.rounding(2 * c.mask.shape[-1] + 64, np.sum(sizes) / (c.count or c.P), c.dtype)

    @law(id, "L1", closed_form=True, given=space.reach("masked", "uneven", "several"), **named("L1"))
    def value_is_the_definition(impl, c, expect):
        "The loss is the definition, pair by pair, over the number of pairs."
        losses, _, sizes = terms(c)
        wanted = np.array(np.sum(losses) / (c.count or c.P))
        expect(impl(c), wanted, bound(c, sizes), scale=max(float(np.sum(sizes) / (c.count or c.P)), 1e-9))

    @law(id, "L2", closed_form=True, needs=("vjp",), given=space.reach("masked", "uneven"), **named("L2"))
    def gradient_is_the_definition(impl, c, expect):
        "d loss / d log pi is the definition's, token by token; masked tokens have gradient 0, exactly."
        _, slopes, sizes = terms(c)
        n = np.sum(c.mask, -1) if (of or c.get("of")) == "mean" else np.ones(c.mask.shape[:2])
        wanted = (2 * slopes / n / (c.count or c.P))[..., None] * np.asarray(c.mask)
        found = impl.vjp(c, np.array(2.0, c.dtype))["log_probs"]
        slack = bounds.rounding(2 * c.mask.shape[-1] + 64, np.abs(wanted) + np.max(sizes) + 1, c.dtype)
        expect(found, wanted, slack, "d log pi", scale=max(4.0, float(np.max(np.abs(wanted)))))
        expect.same(found[~c.mask], np.zeros(int((~c.mask).sum())), "d log pi of the masked")

    @law(id, "L3", needs=("vjp",), given=space.where(masked=True), **named("L3", "zeros", "constant"))
    def masked_junk_is_invisible(impl, c, expect):
        "NaN, inf or 1e30 in prompts and padding changes no bit, neither of the loss nor of the gradient."
        other, g = with_junk(c, *junk), np.array(1.0, c.dtype)
        expect.same(impl(other), impl(c), "loss beside junk")
        expect.same(impl.vjp(other, g)["log_probs"], impl.vjp(c, g)["log_probs"], "d log pi beside junk")

    @law(id, "L4", given=space.where(several=True, count=None, **(cut or {})), **named("L4", "zeros"))
    def any_cut_adds_up(impl, c, expect):
        "Pair by pair under the whole's count: the losses add up to the whole's."
        _, _, sizes = terms(c)
        found = sum(float(impl(pairs_of(c, [p], count=c.P))) for p in range(c.P))
        expect(np.array(found), impl(c), 4 * bound(c, sizes), scale=max(float(np.sum(sizes) / c.P), 1e-9))


def pairs_of(c, at, **fields):
    """The named pairs as a batch."""
    names = [n for n in ("log_probs", "ref_log_probs", "mask") if c.get(n) is not None]
    return c.replace(**{n: c[n][at].copy() for n in names}, P=len(at), **fields)


def token_pairs(c, lp, ref=None, **fields):
    """Pairs of responses of one token each: lp[P 2]."""
    arrays = {"log_probs": np.asarray(lp)[..., None].astype(c.dtype), "mask": np.ones((len(lp), 2, 1), bool)}
    if ref is not None:
        arrays["ref_log_probs"] = np.asarray(ref)[..., None].astype(c.dtype)
    return c.replace(**arrays, P=len(lp), T=1, count=None, **fields)


def bandit(c, K=4):
    """A finite bandit from the case's numbers: (ref[K], rewards[K])."""
    g = np.random.default_rng(int(np.sum(np.abs(np.asarray(c.log_probs)) * 64)))
    ref = g.integers(1, 9, K).astype(np.float64)
    return ref / ref.sum(), g.integers(-8, 9, K) / 8.0


def all_pairs(K):
    """Every ordered pair of distinct responses, [K (K - 1), 2]."""
    return np.array([(i, j) for i in range(K) for j in range(K) if i != j])


def population_gradient(impl, c, pi, ref, weigh, **fields):
    """grad_z of the population loss, pi = softmax(z): every ordered pair once, weighed by weigh[K (K - 1)].

    The loss is a mean of pairs, so that the weights multiply the gradients of the pairs.
    """
    at = all_pairs(len(pi))
    now = token_pairs(c, np.log(pi)[at], None if ref is None else np.log(ref)[at], **fields)
    d = np.asarray(impl.vjp(now, np.array(1.0, c.dtype))["log_probs"], np.float64)[..., 0] * len(at)
    by_response = np.zeros(len(pi))
    np.add.at(by_response, at, d * np.asarray(weigh)[:, None])
    return by_response - pi * by_response.sum()


def pair_loss(lp, mask, *, f, ref_log_probs=None, of="sum", count=None, **edit):
    """(loss, d loss / d log_probs) of a mean over pairs in plain NumPy; f(chosen, rejected): losses and two slopes."""
    hide = edit.get("hide", lambda x, mask: np.where(mask, x, 0))
    n = np.maximum(mask.sum(-1), 1) if edit.get("of_is", lambda of: of)(of) == "mean" else np.ones(mask.shape[:2],
        lp.dtype)
    n = edit.get("n", lambda n, mask: n)(n, mask)
    x = hide(lp if ref_log_probs is None or "alone" in edit else lp - ref_log_probs, mask).sum(-1) / n
    losses, *slopes = f(x[:, 0], x[:, 1])
    P = edit.get("count_of", lambda count, P: count or P)(count, len(lp))
    d = hide((np.stack(slopes, 1) / n / P)[..., None] * np.ones_like(lp), mask)
    d = edit.get("slope", lambda d, mask: d)(d, mask)
    return np.asarray(np.sum(losses) / P, lp.dtype), d.astype(lp.dtype)


def sigma(x):
    return 1 / (1 + np.exp(-np.clip(x, -700, 700)))


def even_pairs(T=3, same=False, ref=True, **options):
    """The default-size test: three pairs, both responses of one length, nothing masked."""

    def make():
        g = np.random.default_rng(1)
        lp = -np.abs(g.standard_normal((3, 2, T))) - 0.1
        mask = np.ones((3, 2, T), bool)
        return ((lp, lp.copy() if same else lp - 0.2, mask) if ref else (lp, mask)), dict(options)

    return make


def pair_mutants(id, base, case, one):
    """Bugs of any loss over pairs: their names, by the law that is to kill them. `one` has responses of one token."""
    policy_mutant(id, "sum_and_mean_confused",
        "dpo-sum-mean: the mean where the sum is due, the sum where the mean is.",
                  base, thread="trl#789, trl#1265, torchtune#1291, Liger-Kernel#510", default_case=one,
                  value={"of_is": lambda of: "sum" if of == "mean" else "mean"})  # fmt: skip
    policy_mutant(id, "prompts_counted", "The mask is not asked for the sums.", base, default_case=case,
                  value={"hide": lambda x, mask: np.where(np.isfinite(x), x, 0)})  # fmt: skip
    policy_mutant(id, "masked_by_multiplying", "Times the mask: NaN stays.", base, default_case=case,
                  value={"hide": by_multiplying})  # fmt: skip
    policy_mutant(id, "own_count", "The micro-batch's own number of pairs.", base, thread="transformers#34191",
                  default_case=case, value={"count_of": lambda count, P: P})  # fmt: skip
    policy_mutant(id, "slope_negated", "The gradient pushes the pair the other way.", base, default_case=case,
                  slope={"slope": lambda d, mask: -d})  # fmt: skip
    policy_mutant(id, "chosen_alone_has_a_gradient", "The rejected response is detached.", base, default_case=case,
                  slope={"slope": lambda d, mask: d * np.array([1.0, 0.0])[:, None]})  # fmt: skip
    return {"L1": ["sum_and_mean_confused", "prompts_counted", "own_count"],
            "L2": ["slope_negated", "chosen_alone_has_a_gradient"], "L3": ["masked_by_multiplying"],
            "L4": ["own_count"]}  # fmt: skip
