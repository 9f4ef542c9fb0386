"""Laws and mutants of softmax cross entropy."""

from __future__ import annotations

import math

import numpy as np

from ref.losses.common_laws import cotangent
from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, batch, cases, choose, dims, ints, none_or, rng

ID = "losses.softmax_cross_entropy"


def _targets(draw, c):
    targets = ints("*B", 0, "V")(draw, c)
    if c.ignore_index is None:
        return targets
    return np.where(rng(draw).random(targets.shape) < 0.4, c.ignore_index, targets)


space = cases(
    ID,
    B=batch(2, 3, large=80),
    V=dims(1, 6, large=300),
    z_loss=choose(0.0, 0.125, 1e-4),
    ignore_index=none_or(-100, -1, 0),
    targets=_targets,
    values=("dyadic", "normal", "extreme"),
    flags={
        "ignored": Flag(lambda c: c.ignore_index is not None and bool((c.targets == c.ignore_index).any()),
                        {"ignore_index": choose(-100, -1, 0), "B": choose((3,), (2, 3))}),
        "no_positions": Flag(lambda c: c.targets.size == 0, {"B": choose((0,), (2, 0))}),
        "some": Flag(lambda c: c.targets.size > 0),
    },
)  # fmt: skip
plain = space.where(ignore_index=None)


def kept(c):
    return np.ones(c.targets.shape, bool) if c.ignore_index is None else c.targets != c.ignore_index


def parts(c):
    """(log Z, target's logit, where it counts) in float64; ignored rows read as logits 0."""
    x = np.where(kept(c)[..., None], np.asarray(c.logits, np.float64), 0.0)
    t = np.where(kept(c), c.targets, 0)
    top = x.max(-1)
    total = np.zeros(t.shape)
    for j in range(c.logits.shape[-1]):
        total += np.exp(x[..., j] - top)
    return top + np.log(total), np.take_along_axis(x, t[..., None], -1)[..., 0], kept(c)


def log_z_error(c):
    """Error of log Z.

    e^{x_j - m} carries |x_j - m| u + 9 u relative, weighted by p_j (sum p |x - m| <= log V + 1/e each); the sum
    V u, the logarithm 4 ulp, the sum with m one.
    """
    log_z = np.abs(parts(c)[0])
    x = np.where(kept(c)[..., None], np.where(np.isfinite(c.logits), c.logits, 0), 0)
    top = np.max(np.abs(x), axis=-1, initial=0)
    V = c.logits.shape[-1]
    return bounds.rounding(1, 2 * np.log(V + 1) + V + 12 + 2 * log_z + 2 * top, c.dtype)


def loss_bound(c):
    log_z, picked, _ = parts(c)
    error = log_z_error(c) * (1 + 2 * c.z_loss * np.abs(log_z))
    return error + bounds.rounding(6, np.abs(log_z) + np.abs(picked) + c.z_loss * log_z**2, c.dtype)


def loss_size(c):
    log_z, picked, _ = parts(c)
    return float(np.max(np.abs(log_z) + np.abs(picked) + c.z_loss * log_z**2, initial=0.0))


@law(
    ID, "L1", closed_form=True, given=space.reach("ignored", "no_positions"),
    kills=["z_loss_averaged_over_classes", "base_two"],
)  # fmt: skip
def uniform_logits_give_log_v(impl, c, expect):
    "x_j = a: loss = log V + lambda (a + log V)^2, whatever the target."
    a = (np.arange(c.targets.size).reshape(c.targets.shape) % 5 - 2.0) / 2
    c = c.replace(logits=np.broadcast_to(a[..., None], c.logits.shape).astype(c.dtype))
    wanted = np.where(kept(c), math.log(c.V) + c.z_loss * (a + math.log(c.V)) ** 2, 0.0)
    expect(impl(c), wanted, loss_bound(c), scale=loss_size(c))


@law(
    ID, "L2", closed_form=True, given=plain.where(V=2, z_loss=0.0),
    kills=["probability_clipped", "target_off_by_one", "base_two", "always_in_float32"],
)  # fmt: skip
def two_logits_are_a_softplus(impl, c, expect):
    "V = 2: loss = softplus(x_other - x_target)."
    x = np.asarray(c.logits, np.float64)
    gap = np.where(c.targets == 0, x[..., 1] - x[..., 0], x[..., 0] - x[..., 1])
    wanted = np.maximum(gap, 0) + np.log1p(np.exp(-np.abs(gap)))
    expect(impl(c), wanted, loss_bound(c), scale=loss_size(c))


@law(ID, "L3", given=space.where(some=True), kills=["z_loss_of_the_shifted_logits", "no_max_subtraction"])
def a_shift_is_invisible_or_pays_z(impl, c, expect):
    "loss(x + a) - loss(x) = lambda (2 a log Z + a^2): nothing without a z-loss."
    for a in (-2.5, 750.0):
        shifted = c.replace(logits=c.logits + c.dtype.type(a))
        log_z, _, counts = parts(c)
        wanted = np.where(counts, c.z_loss * (2 * a * log_z + a * a), 0.0)
        limit = loss_bound(c) + loss_bound(shifted)
        size = loss_size(c) + loss_size(shifted)
        expect(impl(shifted).astype(np.float64) - impl(c), wanted, limit, f"loss(x + {a}) - loss(x)", scale=size)


@law(
    ID, "L4", closed_form=True, given=plain.where(z_loss=choose(0.125, 0.5), some=True),
    kills=["z_loss_ignored", "z_loss_of_the_shifted_logits"],
)  # fmt: skip
def the_best_shift_is_minus_log_z(impl, c, expect):
    "Shifted by a = e - log Z the loss is the plain cross entropy and lambda e^2: least at a = -log Z."
    log_z = parts(c)[0][..., None]
    at = {e: c.replace(logits=(c.logits - log_z + e).astype(c.dtype)) for e in (0.0, 1.0, -2.0)}
    _, picked, _ = parts(c)
    drift = bounds.rounding(2, np.abs(log_z[..., 0]) + np.abs(picked) + 4, c.dtype)  # of the shifted logits
    for e, moved in at.items():
        limit = loss_bound(moved) + drift * (2 + 2 * c.z_loss * abs(e))
        wanted = log_z[..., 0] - picked + c.z_loss * e * e
        expect(impl(moved), wanted, limit, f"a = {e} - log Z", scale=loss_size(c))


@law(
    ID, "L5", closed_form=True, given=plain.where(z_loss=0.0, V=dims(1, 6), some=True),
    kills=["probability_clipped", "normalised_without_the_target"],
)  # fmt: skip
def probabilities_add_to_one(impl, c, expect):
    "Without a z-loss, sum over targets of e^{-loss} is 1."
    total, slack = 0.0, 0.0
    for t in range(c.V):
        at = c.replace(targets=np.full(c.targets.shape, t))
        p = np.exp(-impl(at).astype(np.float64))
        total, slack = total + p, slack + p * loss_bound(at)
    expect(total, np.ones(c.targets.shape), 2 * slack + bounds.rounding(c.V, 1.0, "float64"), "sum of e^-loss")


@law(
    ID, "L6", closed_form=True, given=plain.where(z_loss=choose(0.0, 1e-4), V=dims(2, 6, large=40), some=True),
    kills=["no_max_subtraction", "probability_clipped"],
)  # fmt: skip
def large_logits_stay_finite(impl, c, expect):
    "Logits 0, -1e4, -2e4, ... (and 1e4 higher): the loss is 1e4 times the target's place."
    steps = -1e4 * np.arange(c.V)
    for top in (0.0, 1e4):
        far = c.replace(logits=np.broadcast_to(top + steps, c.logits.shape).astype(c.dtype))
        wanted = 1e4 * c.targets + c.z_loss * top**2
        expect(impl(far), wanted, bounds.rounding(c.V + 12, 2e4 + wanted, c.dtype), scale=2e4 * c.V)


@law(
    ID, "L7", given=plain.where(V=dims(2, 6, large=40), some=True), kills=["absent_class_floored"],
    passes_null=["zeros", "constant"],
)  # fmt: skip
def a_class_at_minus_infinity_is_absent(impl, c, expect):
    "x_j = -inf for a class that is no target: the loss of the other classes alone."
    c = c.replace(targets=np.asarray(np.minimum(c.targets, c.V - 2)))
    logits = c.logits.copy()
    logits[..., -1] = -np.inf
    fewer = c.replace(logits=c.logits[..., :-1].copy(), V=c.V - 1)
    expect(impl(c.replace(logits=logits)), impl(fewer), 2 * loss_bound(fewer), scale=loss_size(fewer))


@law(
    ID, "L8", closed_form=True, given=space.where(ignored=True),
    kills=["ignored_by_multiplying", "ignore_index_is_minus_100"], passes_null=["zeros"],
)  # fmt: skip
def ignored_positions_cost_nothing(impl, c, expect):
    "target = ignore_index: loss exactly 0, and junk in those logits (NaN, inf) changes no bit anywhere."
    out = impl(c)
    expect.same(out[~kept(c)], np.zeros(int((~kept(c)).sum())), "loss of ignored positions")
    expect.same(impl(with_junk(c)), out, "loss beside junk")


def with_junk(c):
    """The case with NaN, inf and 1e30 in the logits of ignored positions."""
    junk = np.array([np.nan, np.inf, -np.inf, 1e30])[np.arange(c.V) % 4].astype(c.dtype)
    return c.replace(logits=np.where(kept(c)[..., None], c.logits, junk))


# Gradients -------------------------------------------------------------------------------------------


def gradient(c, g):
    """(wanted, bound): g (p (1 + 2 lambda log Z) - one hot); p is off by the errors of log Z and the exponent."""
    log_z, _, counts = parts(c)
    x = np.where(counts[..., None], np.asarray(c.logits, np.float64), 0.0)
    p = np.exp(x - log_z[..., None])
    weight = (1 + 2 * c.z_loss * log_z)[..., None]
    hot = np.arange(c.V) == np.where(counts, c.targets, 0)[..., None]
    g = np.where(counts, g, 0.0)[..., None].astype(np.float64)
    error = log_z_error(c)[..., None]
    relative = 2 * error + bounds.rounding(1, np.abs(x - log_z[..., None]) + 16, c.dtype)
    slack = np.abs(g) * p * (np.abs(weight) * relative + 2 * c.z_loss * error)
    slack = slack + bounds.rounding(4, g * hot, c.dtype) + 64 * float(np.finfo(c.dtype).tiny)
    return g * (p * weight - hot), slack


@law(
    ID, "L9", closed_form=True, needs=("vjp",), given=space.reach("ignored", "no_positions"),
    kills=["z_gradient_forgotten", "z_gradient_without_the_two", "one_hot_forgotten",
           "gradient_averaged_over_positions"],
)  # fmt: skip
def gradient_is_softmax_minus_one_hot(impl, c, expect):
    "dx = g (p (1 + 2 lambda log Z) - one hot)."
    g = cotangent(c, c.targets.shape)
    wanted, slack = gradient(c, g)
    expect(impl.vjp(c, g)["logits"], wanted, slack, "d logits", scale=1.0)


@law(
    ID, "L10", closed_form=True, needs=("vjp",), given=space.where(some=True),
    kills=["z_gradient_forgotten", "one_hot_forgotten"],
)  # fmt: skip
def gradient_sums_to_the_z_part(impl, c, expect):
    "sum_j dx_j = g 2 lambda log Z: zero without a z-loss."
    g = cotangent(c, c.targets.shape)
    log_z, _, counts = parts(c)
    wanted = np.where(counts, g * 2 * c.z_loss * log_z, 0.0)
    _, slack = gradient(c, g)
    total = impl.vjp(c, g)["logits"].astype(np.float64).sum(-1)
    expect(total, wanted, slack.sum(-1) * 2, "sum of d logits", scale=1.0)


@law(
    ID, "L11", closed_form=True, needs=("vjp",), given=space.where(ignored=True), kills=["gradient_by_multiplying"],
    passes_null=["zeros"],
)  # fmt: skip
def ignored_junk_has_no_gradient(impl, c, expect):
    "The gradient of ignored logits is exactly 0, and junk in them changes no bit of any gradient."
    g = cotangent(c, c.targets.shape)
    clean, junk = impl.vjp(c, g)["logits"], impl.vjp(with_junk(c), g)["logits"]
    expect.same(clean[~kept(c)], np.zeros((int((~kept(c)).sum()), c.V)), "d logits of ignored positions")
    expect.same(junk, clean, "d logits beside junk")


# Mutants ---------------------------------------------------------------------------------------------


def default(scale=1.0, **options):
    """The default-size test: six positions over five classes, no option."""

    def make():
        rng = np.random.default_rng(0)
        return (rng.standard_normal((6, 5)) * scale, rng.integers(0, 5, 6)), options

    return make


def small_normaliser():
    """Logits that are log-probabilities, as after a few steps with a z-loss."""
    (x, t), _ = default()()
    return (x - np.log(np.exp(x).sum(-1, keepdims=True)), t), {"z_loss": 1e-4}


def edited(logits, targets, *, z_loss=0.0, ignore_index=None, log_z=None, picked=None, z=None, drop=None):
    keep = np.ones(targets.shape, bool) if ignore_index is None else targets != ignore_index
    t = np.where(keep, targets, 0)
    x = logits if drop is not None else np.where(keep[..., None], logits, 0)
    norm = _log_z(x) if log_z is None else log_z(x)
    chosen = np.take_along_axis(x, t[..., None], -1)[..., 0] if picked is None else picked(x, t)
    loss = norm - chosen + z_loss * (norm if z is None else z(x, norm)) ** 2
    return (np.where(keep, loss, 0) if drop is None else drop(loss, keep)).astype(logits.dtype)


def _log_z(x):
    top = x.max(-1, keepdims=True)
    return np.log(np.exp(x - top).sum(-1)) + top[..., 0]


@mutant(ID, default_case=default())
def no_max_subtraction(logits, targets, **options):
    "log sum exp without the maximum."
    return edited(logits, targets, **options, log_z=lambda x: np.log(np.exp(x).sum(-1)))


@mutant(ID, default_case=default())
def probability_clipped(logits, targets, **options):
    "-log(p + 1e-7): a softmax, then a logarithm with a guard."
    def picked(x, t):
        p = np.exp(x - _log_z(x)[..., None])
        return _log_z(x) + np.log(np.take_along_axis(p, t[..., None], -1)[..., 0] + 1e-7)

    return edited(logits, targets, **options, picked=picked)


@mutant(ID, default_case=lambda: ((np.zeros((3, 4)), np.array([0, 1, 2])), {}))
def target_off_by_one(logits, targets, **options):
    "The next class's logit, which uniform logits do not tell."
    def picked(x, t):
        return np.take_along_axis(x, ((t + 1) % x.shape[-1])[..., None], -1)[..., 0]

    return edited(logits, targets, **options, picked=picked)


@mutant(ID, default_case=lambda: ((np.zeros((3, 1)), np.zeros(3, int)), {}))
def base_two(logits, targets, **options):
    "log2: bits where nats were promised."
    return edited(logits, targets, **options) / logits.dtype.type(math.log(2))


@mutant(ID, default_case=lambda: ((np.array([[800.0, 0.0, 0.0]]), np.array([1])), {}))
def normalised_without_the_target(logits, targets, **options):
    "The sum leaves the target out (a contrastive loss of that form)."
    def log_z(x):
        others = np.where(np.arange(x.shape[-1]) == np.where(targets < 0, 0, targets)[..., None], -np.inf, x)
        top = x.max(-1, keepdims=True)
        return np.log(np.maximum(np.exp(others - top).sum(-1), 1e-300)) + top[..., 0]

    return edited(logits, targets, **options, log_z=log_z)


@mutant(ID, default_case=default())
def always_in_float32(logits, targets, **options):
    "float32 inside whatever arrives."
    return edited(logits.astype(np.float32), targets, **options).astype(logits.dtype)


@mutant(ID, default_case=default())
def z_loss_ignored(logits, targets, *, z_loss=0.0, ignore_index=None):
    "z_loss is accepted and dropped."
    return edited(logits, targets, ignore_index=ignore_index)


@mutant(ID, default_case=default())
def z_loss_averaged_over_classes(logits, targets, *, z_loss=0.0, ignore_index=None):
    "The z-loss divided by V."
    return edited(logits, targets, z_loss=z_loss / logits.shape[-1], ignore_index=ignore_index)


@mutant(ID, default_case=default())
def z_loss_of_the_shifted_logits(logits, targets, **options):
    "(log Z - max)^2: the maximum was subtracted first and not put back."
    return edited(logits, targets, **options, z=lambda x, norm: norm - x.max(-1))


@mutant(ID, default_case=default())
def absent_class_floored(logits, targets, **options):
    "Logits clipped at -30 from the top, so an absent class keeps a share."
    top = logits.max(-1, keepdims=True, initial=-1e30)
    return edited(np.where(np.isneginf(logits), top - 10, logits).astype(logits.dtype), targets, **options)


@mutant(ID, default_case=default())
def ignored_by_multiplying(logits, targets, **options):
    "Ignored losses times zero: NaN times zero is NaN."
    return edited(logits, targets, **options, drop=lambda loss, keep: loss * keep)


@mutant(ID, default_case=default())
def ignore_index_is_minus_100(logits, targets, *, z_loss=0.0, ignore_index=None):
    "-100 hard-coded: another ignore_index reads as a class, counted from the end."
    keep = targets != -100
    t = np.where(keep, targets, 0)
    return np.where(keep, edited(np.where(keep[..., None], logits, 0), t, z_loss=z_loss), 0).astype(logits.dtype)


def _vjp_mutant(name, doc, *, slope=None, hot=1.0, by=np.where, share=lambda g: g):
    def function(logits, targets, *, z_loss=0.0, ignore_index=None):
        return edited(logits, targets, z_loss=z_loss, ignore_index=ignore_index)

    def vjp(g, logits, targets, *, z_loss=0.0, ignore_index=None):
        keep = np.ones(targets.shape, bool) if ignore_index is None else targets != ignore_index
        x = np.where(keep[..., None], logits, 0) if by is np.where else logits
        norm = _log_z(x)
        weight = 1 + 2 * z_loss * norm if slope is None else slope(z_loss, norm)
        one_hot = np.arange(x.shape[-1]) == np.where(keep, targets, 0)[..., None]
        dx = share(g)[..., None] * (np.exp(x - norm[..., None]) * weight[..., None] - hot * one_hot)
        return (by(keep[..., None], dx, 0).astype(logits.dtype),)

    function.__name__, function.__doc__ = name, doc
    mutant(ID, vjp=vjp, default_case=default())(function)


_vjp_mutant("z_gradient_forgotten", "The z-loss has a value and no gradient.", slope=lambda z, n: np.ones_like(n))
_vjp_mutant("z_gradient_without_the_two", "lambda log Z p: the 2 forgotten.", slope=lambda z, n: 1 + z * n)
_vjp_mutant("one_hot_forgotten", "g p: the target's own logit has no pull.", hot=0.0)
_vjp_mutant("gradient_averaged_over_positions", "Divided by their number.", share=lambda g: g / max(g.size, 1))
_vjp_mutant("gradient_by_multiplying", "Ignored rows times zero.", by=lambda keep, dx, zero: dx * keep)
