"""Laws and mutants of the log-probabilities of tokens."""

from __future__ import annotations

import itertools
import math

import numpy as np

from ref.rl.common_laws import dyadics
from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, batch, cases, choose, dims, ints, rng

ID = "rl.token_log_probs"


def _segments(draw, c):
    return np.cumsum(rng(draw).random((*c.B, c.T)) < 0.4, axis=-1) if c.packed else None


def _mask(draw, c):
    """Some of the tokens that have one before them."""
    mask = rng(draw).random((*c.B, c.T)) < 0.7
    mask[..., :1] = False
    if c.segments is not None:
        mask[..., 1:] &= np.diff(c.segments, axis=-1) == 0
    return mask


def all_but_the_first(draw, c):
    mask = np.ones((*c.B, c.T), bool)
    mask[..., :1] = False
    return mask


space = cases(
    ID, B=batch(1, 2, large=6), T=dims(0, 4, large=20), V=dims(1, 4), logits=dyadics("*B T V", -3, 3, 8),
    tokens=ints("*B T", 0, "V"), packed=choose(False, True), segments=_segments, mask=_mask,
    temperature=choose(1.0, 0.5, 2.0),
    flags={
        "some": Flag(lambda c: np.any(c.mask), {"B": choose((), (2,)), "T": dims(2, 4)}),
        "packed_row": Flag(lambda c: c.segments is not None and 0 not in c.B and np.any(np.diff(c.segments, axis=-1)),
                           {"packed": True, "B": choose((), (2,)), "T": dims(3, 4)}),
        "one_token": Flag(lambda c: c.T == 1, {"T": 1}),
    },
)  # fmt: skip


def limit(c):
    """log sum exp of V terms of logits below 6, the target and the difference."""
    top = np.max(np.abs(np.where(np.isfinite(c.logits), c.logits, 0)), initial=0) / c.temperature
    return bounds.rounding(1, 4 * top + 2 * c.V + 24, c.dtype)


def softmax(c):
    x = np.asarray(c.logits, np.float64) / c.temperature
    return np.exp(x) / np.exp(x).sum(-1, keepdims=True)


@law(ID, "L1", closed_form=True,
     given=space.where(B=(), V=dims(2, 3), T=dims(2, 4), packed=False, mask=all_but_the_first),
     kills=["not_shifted", "shifted_twice", "temperature_ignored"])  # fmt: skip
def sequences_add_to_one(impl, c, expect):
    """A policy that reads its last two tokens: over all V^(T-1) continuations of the first token, e^(sum of
    log-probabilities) adds up to 1, and each is the product of the policy's conditionals."""
    V, T = c.V, c.T
    g = np.random.default_rng(int(np.sum(np.abs(c.logits)) * 8))
    table = g.integers(-16, 17, (V, V, V)) / 8.0
    rows, tokens, wanted = [], [], []
    for tail in itertools.product(range(V), repeat=T - 1):
        y = np.array([int(c.tokens[0]), *tail])
        x = np.array([table[y[t - 1] if t else 0, y[t]] for t in range(T)])
        p = np.exp(x / c.temperature) / np.sum(np.exp(x / c.temperature), -1, keepdims=True)
        rows.append(x)
        tokens.append(y)
        wanted.append(math.prod(p[t, y[t + 1]] for t in range(T - 1)))
    n = len(rows)
    mask = np.broadcast_to(c.mask, (n, T)).copy()
    now = c.replace(B=(n,), logits=np.array(rows, c.dtype), tokens=np.array(tokens), mask=mask)
    found = np.exp(np.asarray(impl(now), np.float64).sum(-1))
    expect(found, np.array(wanted), 2 * T * limit(now), "probability of a continuation", scale=1.0)
    expect(np.sum(found), np.array(1.0), 2 * T * limit(now) * n, "sum of all probabilities")


@law(ID, "L2", closed_form=True, given=space.where(some=True), kills=["not_normalised", "keeps_all"])
def uniform_logits_give_minus_log_v(impl, c, expect):
    "Equal logits: -log V for each token that counts, whatever it is, and 0 elsewhere."
    now = c.replace(logits=np.full(c.logits.shape, 1.5, c.dtype))
    expect(impl(now), np.where(c.mask, -math.log(c.V), 0.0), limit(now), scale=max(1.0, math.log(c.V)))


@law(ID, "L3", given=space.where(some=True), kills=["not_shifted", "shifted_twice"], passes_null=["zeros", "constant"])
def the_last_logits_predict_nothing(impl, c, expect):
    "Other logits at the last position change no bit; the first token may be any token."
    logits, tokens = c.logits.copy(), c.tokens.copy()
    logits[..., -1, :] = logits[..., -1, ::-1] + 1
    tokens[..., 0] = (tokens[..., 0] + 1) % c.V
    expect.same(impl(c.replace(logits=logits, tokens=tokens)), impl(c))


@law(ID, "L4", closed_form=True, given=space.reach("some", "packed_row", "one_token"),
     kills=["mask_shifted_too", "keeps_all", "not_normalised", "stands_one_before"])  # fmt: skip
def token_by_token(impl, c, expect):
    "Token t: log softmax(logits_{t-1} / temperature) at the token, where it counts; 0, exactly, elsewhere."
    wanted, p = np.zeros(c.tokens.shape), softmax(c)
    for at in zip(*np.nonzero(c.mask), strict=True):
        wanted[at] = math.log(p[(*at[:-1], at[-1] - 1, c.tokens[at])])
    found = impl(c)
    expect(found, wanted, limit(c), scale=1.0)
    expect.same(found[~c.mask], np.zeros(int((~c.mask).sum())), "what does not count")


def with_junk(c):
    """NaN in the logits of predictions that do not count, and an impossible token where none is asked for."""
    used = np.concatenate([np.asarray(c.mask)[..., 1:], np.zeros((*c.B, 1), bool)], axis=-1)
    logits = np.where(used[..., None], c.logits, c.dtype.type(np.nan))
    return c.replace(logits=logits, tokens=np.where(c.mask, c.tokens, -7))


@law(ID, "L5", needs=("vjp",), given=space.where(some=True), kills=["masked_by_multiplying"],
     passes_null=["zeros", "constant"])  # fmt: skip
def junk_outside_is_invisible(impl, c, expect):
    "NaN logits and impossible tokens where nothing counts change no bit, neither of the values nor of the gradient."
    g = np.cos(np.arange(c.mask.size)).reshape(c.mask.shape).astype(c.dtype)
    other = with_junk(c)
    expect.same(impl(other), impl(c))
    expect.same(impl.vjp(other, g)["logits"], impl.vjp(c, g)["logits"], "d logits")


@law(ID, "L6", closed_form=True, needs=("vjp",), given=space.where(some=True),
     kills=["gradient_at_the_token", "gradient_without_the_temperature"])  # fmt: skip
def gradient_is_one_hot_minus_softmax(impl, c, expect):
    "d logits_{t-1} = g_t (one hot of token t - softmax) / temperature where token t counts; of the last position 0."
    g = np.cos(1.0 + np.arange(c.mask.size)).reshape(c.mask.shape).astype(c.dtype)
    wanted, p = np.zeros(c.logits.shape), softmax(c)
    for at in zip(*np.nonzero(c.mask), strict=True):
        before = (*at[:-1], at[-1] - 1)
        wanted[before] = float(g[at]) * ((np.arange(c.V) == c.tokens[at]) - p[before]) / c.temperature
    expect(impl.vjp(c, g)["logits"], wanted, 4 * limit(c) / c.temperature, "d logits", scale=1.0)


# Mutants ---------------------------------------------------------------------------------------------


def same_everywhere():
    """The default-size test: the same logits at every position and the same token in every place."""
    x = np.broadcast_to(np.array([0.5, -1.0, 0.25]), (2, 4, 3)).copy()
    mask = np.ones((2, 4), bool)
    mask[:, 0] = False
    return (x, np.ones((2, 4), np.int64), mask), {}


def plain(logits, tokens, mask, *, temperature=1.0, segments=None, **edit):
    """The log-probabilities in plain NumPy, whose parts an edit replaces."""
    if not logits.size:
        return np.zeros(tokens.shape, logits.dtype)
    x = edit.get("before", lambda x: np.roll(x, 1, axis=-2))(logits / edit.get("by", temperature))
    t = np.clip(tokens, 0, x.shape[-1] - 1)
    hide = edit.get("hide", lambda v, mask: np.where(mask, v, 0))
    top = x.max(-1, keepdims=True)
    z = edit.get("normaliser", lambda x: np.log(np.exp(x - top).sum(-1)) + top[..., 0])(x)
    return hide(np.take_along_axis(x, t[..., None], -1)[..., 0] - z, mask).astype(logits.dtype)


def plain_vjp(g, logits, tokens, mask, *, temperature=1.0, segments=None, shift=-1, divide=True, by=np.where):
    if not logits.size:
        return (np.zeros_like(logits),)
    x = np.roll(logits, 1, axis=-2) / temperature
    p = np.exp(x - x.max(-1, keepdims=True))
    p = p / p.sum(-1, keepdims=True)
    d = g[..., None] * ((np.arange(x.shape[-1]) == tokens[..., None]) - p) / (temperature if divide else 1)
    d = np.where(mask[..., None], d, 0) if by is np.where else d * mask[..., None]
    return (np.roll(d, shift, axis=-2).astype(logits.dtype),)


def _mutant(name, doc, thread=None, case=same_everywhere, vjp=None, **edit):
    def function(*args, **options):
        return plain(*args, **options, **edit)

    function.__name__, function.__doc__ = name, doc
    mutant(ID, thread=thread, default_case=case, vjp=vjp)(function)


_mutant("not_shifted", "Token t under the logits at t, which have seen it.", before=lambda x: x)
_mutant("shifted_twice", "Token t under the logits at t - 2: shifted by the caller and here.",
        before=lambda x: np.roll(x, 2, axis=-2))  # fmt: skip
_mutant("temperature_ignored", "The logits as they are.", by=1.0)
_mutant("keeps_all", "Every token but the first, whatever the mask.",
        hide=lambda v, mask: np.where(np.arange(v.shape[-1]) > 0, v, 0))  # fmt: skip
_mutant("not_normalised", "The logit itself.", normaliser=lambda x: 0.0,
        case=lambda: ((np.zeros((2, 3, 1)), np.zeros((2, 3), np.int64), same_everywhere()[0][2][:, :3]),
        {}))  # fmt: skip
_mutant("mask_shifted_too", "The mask of the token before.",
        hide=lambda v, mask: np.where(np.roll(mask, 1, axis=-1) & (np.arange(v.shape[-1]) > 0), v, 0),
        case=lambda: ((np.zeros((2, 3, 1)), np.zeros((2, 3), np.int64), same_everywhere()[0][2][:, :3]),
        {}))  # fmt: skip
_mutant("stands_one_before", "The value stands where its logits do.",
        hide=lambda v, mask: np.roll(np.where(mask, v, 0), -1, axis=-1),
        case=lambda: ((np.zeros((2, 3, 1)), np.zeros((2, 3), np.int64), same_everywhere()[0][2][:, :3]),
        {}))  # fmt: skip
_mutant("masked_by_multiplying", "Values times the mask: NaN stays.", hide=lambda v, mask: v * mask,
        vjp=lambda g, *a, **o: plain_vjp(g, *a, **o, by=np.multiply))  # fmt: skip
_mutant("gradient_at_the_token", "The gradient lands on the token's own logits, not on those before it.",
        vjp=lambda g, *a, **o: plain_vjp(g, *a, **o, shift=0))  # fmt: skip
_mutant("gradient_without_the_temperature", "1 / temperature forgotten.",
        vjp=lambda g, *a, **o: plain_vjp(g, *a, **o, divide=False))  # fmt: skip
