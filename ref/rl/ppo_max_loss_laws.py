"""Laws and mutants of PPO-max's loss."""

from __future__ import annotations

import math

import numpy as np

from ref.rl.common_laws import (
    batch_flags,
    by_multiplying,
    clip_loss,
    clipped,
    dyadics,
    filled_mask,
    log_probs,
    with_junk,
)  # fmt: skip
from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, cases, choose, dims, rng

ID = "rl.ppo_max_loss"


def _mask(draw, c):
    mask = filled_mask(draw, c)
    mask[:, 0] = True
    mask[0, :2] = True
    return mask


space = cases(
    ID, B=dims(1, 3), T=dims(2, 5, large=20), advantage_norm=choose(True, False), advantage_clip=choose(None, 0.7),
    policy_clip=choose(0.2, None),
    value_clip=choose(0.3, None), value_coef=choose(1.0, 0.25), pretrain_coef=choose(0.0, 0.5),
    value_only=choose(False, True), count=None, mask=_mask,
    log_probs=log_probs, old_log_probs=log_probs, advantages=dyadics("B T", -2, 2, 4),
    old_values=dyadics("B T", -2, 2, 8),
    returns=dyadics("B T", -2, 2, 8), pretraining=lambda draw, c: np.array(rng(draw).integers(0, 9) / 4.0),
    flags={**{k: v for k, v in batch_flags().items() if k in ("masked", "uneven")},
           "spread": Flag(lambda c: not c.advantage_norm or deviation(c) > 0.3),
           "off": Flag(lambda c: not c.advantage_norm and c.advantage_clip is None and c.pretrain_coef == 0
           and not c.value_only,
                       {"advantage_norm": False, "advantage_clip": None, "pretrain_coef": 0.0, "value_only": False}),
           "whole": Flag(lambda c: not c.value_only, {"value_only": False}),
           "mixed": Flag(lambda c: c.pretrain_coef > 0 and not c.value_only,
           {"pretrain_coef": 0.5, "value_only": False})},
).where(spread=True)  # fmt: skip


def deviation(c):
    a = np.asarray(c.advantages, np.float64)[c.mask]
    return math.sqrt(math.fsum((a - a.mean()) ** 2) / max(len(a) - 1, 1))


def pieces(c):
    """(loss, d log_probs, d values, size), token by token."""
    mask, n = np.asarray(c.mask), int(np.sum(c.mask))
    a = np.asarray(c.advantages, np.float64)
    if c.advantage_norm:
        own = a[mask]
        a = (a - math.fsum(own) / n) / math.sqrt(deviation(c) ** 2 + 1e-8)
    a = a if c.advantage_clip is None else np.clip(a, -c.advantage_clip, c.advantage_clip)
    loss, d, dv, size = 0.0, np.zeros(mask.shape), np.zeros(mask.shape), 0.0
    for at in zip(*np.nonzero(mask), strict=True):
        rho = math.exp(float(c.log_probs[at]) - float(c.old_log_probs[at]))
        value, slope = (-rho * a[at], -rho * a[at]) if c.policy_clip is None else clipped(rho, a[at], c.policy_clip,
            c.policy_clip)
        v, old, r = (float(c[k][at]) for k in ("values", "old_values", "returns"))
        moved = v if c.value_clip is None else min(max(v, old - c.value_clip), old + c.value_clip)
        worst = (moved - r) ** 2 > (v - r) ** 2
        critic = max((v - r) ** 2, (moved - r) ** 2) / 2
        loss += (value * (not c.value_only) + c.value_coef * critic) / n
        d[at] = slope / n * (not c.value_only)
        dv[at] = 0 if worst else c.value_coef * (v - r) / n
        size += (abs(a[at]) * max(rho, 2) * (1 + abs(a[at])) + (abs(v) + abs(old) + abs(r) + 1) ** 2) / n
    if not c.value_only:
        loss += c.pretrain_coef * float(c.pretraining)
    return loss, d, dv, size + 4


def limit(c, size):
    spread = 1 / min(deviation(c), 1.0) if c.advantage_norm else 1.0
    return bounds.rounding(6 * c.mask.size + 128, size * spread**2, c.dtype)


@law(ID, "L1", closed_form=True, given=space.reach("masked", "uneven", "off", "mixed"),
     kills=["clips_before_whitening", "whitens_all_places", "value_clip_ignored", "value_coef_ignored",
     "half_forgotten", "policy_clipped_always", "critic_alone_ignored"])  # fmt: skip
def value_is_the_definition(impl, c, expect):
    "Policy loss of whitened and clipped advantages, the critic's and the pretraining loss with their weights."
    loss, _, _, size = pieces(c)
    expect(impl(c), np.array(loss), limit(c, size), scale=size)


@law(ID, "L2", closed_form=True, needs=("vjp",), given=space.reach("masked", "mixed"),
    kills=["slope_of_the_clipped", "pretraining_detached"])
def gradient_is_the_definition(impl, c, expect):
    "By log pi, by the values (0 where the clipped error is the larger), and by the pretraining loss its weight."
    _, d, dv, size = pieces(c)
    found = impl.vjp(c, np.array(1.0, c.dtype))
    expect(found["log_probs"], d, limit(c, size), "d log pi", scale=4.0)
    near = [abs(abs(float(v) - float(o)) - (c.value_clip or 99)) < 1e-3 for v,
        o in zip(np.ravel(c["values"]), np.ravel(c.old_values), strict=True)]
    ties = np.abs(np.asarray(c["values"], np.float64) + np.clip(np.asarray(c["values"]) - c.old_values,
        -(c.value_clip or 99), c.value_clip or 99) + c.old_values - 2 * c.returns) < 1e-3
    off = 9.0 if any(near) or np.any(ties) else 0.0
    expect(found["values"], dv, limit(c, size) + off, "d V", scale=4.0 + 4 * off)
    expect(found["pretraining"], np.array(0.0 if c.value_only else c.pretrain_coef), 1e-12, "d pretraining", scale=1.0)


@law(ID, "L3", needs=("vjp",), given=space.where(masked=True), kills=["masked_by_multiplying"],
    passes_null=["zeros", "constant"])
def masked_junk_is_invisible(impl, c, expect):
    "NaN, inf or 1e30 in masked slots changes no bit, neither of the loss nor of a gradient."
    other, g = with_junk(c, "log_probs", "old_log_probs", "advantages", "values", "old_values",
        "returns"), np.array(1.0, c.dtype)
    expect.same(impl(other), impl(c), "loss beside junk")
    for name in ("log_probs", "values"):
        expect.same(impl.vjp(other, g)[name], impl.vjp(c, g)[name], f"d {name} beside junk")


@law(ID, "L4", closed_form=True, given=space.where(off=True, policy_clip=0.2),
    kills=["always_whitens", "numerator_only"])
def each_trick_off_is_plain_ppo(impl, c, expect):
    "No norm, no clip of advantages, no pretraining: -min(rho A, clip(rho) A) + coef (..)^2 / 2, means of kept tokens."
    loss, _, _, size = pieces(c)
    expect(impl(c), np.array(loss), limit(c, size), scale=size)
    expect.same(impl(c.replace(pretraining=c.pretraining + 1)), impl(c), "another pretraining loss")


@law(ID, "L5", closed_form=True, given=space.where(mixed=True),
    kills=["pretraining_subtracted", "pretraining_unweighed"])
def the_pretraining_loss_enters_with_its_weight(impl, c, expect):
    "A pretraining loss larger by 1: the loss larger by pretrain_coef."
    more = impl(c.replace(pretraining=c.pretraining + 1)).astype(np.float64)
    size = pieces(c)[3] + 2
    expect(more - impl(c), np.array(c.pretrain_coef), 2 * limit(c, size), scale=size)


# Mutants ---------------------------------------------------------------------------------------------


def default(**options):
    """The default-size test: on policy, values that have not moved, whitened advantages, all kept."""

    def make():
        one = np.ones((2, 2))
        a = np.array([[1.0, -1.0], [1.0, -1.0]]) * math.sqrt(3 / 4)
        given = {"advantage_norm": False, "advantage_clip": None, "policy_clip": 0.2, "value_clip": 0.2,
            "value_coef": 1.0, "pretrain_coef": 0.0, **options}
        return (-one, -one, a, one, one, 0.5 * one, one > 0, np.array(0.0)), given

    return make


def base(lp, old, a, v, old_v, r, mask, pretraining, *, advantage_norm, advantage_clip, policy_clip, value_clip,
    value_coef, pretrain_coef,
         value_only=False, count=None, **edit):  # fmt: skip
    hide = edit.get("hide", lambda x, m: np.where(m, x, 0))
    cut = lambda a: a if advantage_clip is None else np.clip(a, -advantage_clip, advantage_clip)  # noqa: E731

    def white(a):
        own = a[mask] if not edit.get("all_places") else a.ravel()
        return (a - own.mean()) / np.sqrt(((own - own.mean()) ** 2).sum() / max(len(own) - 1, 1) + 1e-8)

    a = hide(a, mask)
    steps = [cut, white] if edit.get("clip_first") else [white, cut]
    for step in steps:
        if step is cut or advantage_norm or edit.get("norm"):
            a = step(a)
    n = mask.size if edit.get("numerator") else mask.sum()
    clip = policy_clip if policy_clip is not None or not edit.get("clipped") else 0.2
    how = {"reduction": "token-mean", "weights": lambda m, *x: np.full(len(m), 1 / n), "hide": hide}
    if clip is None:
        how["token"] = lambda *c: lambda ratio, a, lp: (-ratio * a, -ratio * a)
    policy, d = clip_loss(lp, old, a, mask, eps_low=clip or 0.2, eps_high=clip or 0.2, slope=edit.get("slope"), **how)
    plain = hide((v - r) ** 2, mask)
    moved = hide((np.clip(v, old_v - (value_clip or 1e9), old_v + (value_clip or 1e9)) - r) ** 2, mask)
    worst = plain if edit.get("free") else np.maximum(plain, moved)
    critic = worst.sum() / n * (1.0 if edit.get("whole") else 0.5) * edit.get("coef", value_coef)
    loss = critic + (0 if value_only and not edit.get("both")
        else policy + edit.get("pre", lambda w, x: w * x)(pretrain_coef, pretraining))
    dv = np.where((moved > plain) & ~np.bool_(edit.get("free", False)), 0, hide(v - r, mask)) * value_coef / n
    quiet = 0.0 if value_only else 1.0
    grads = {"log_probs": d * quiet, "values": dv,
        "pretraining": np.asarray(pretrain_coef * quiet * edit.get("pre_slope", 1.0))}
    return np.asarray(loss, lp.dtype), {k: g.astype(lp.dtype) for k, g in grads.items()}


def _mutant(name, doc, case=None, thread=None, slope=None, **edit):
    def function(*args, **options):
        return base(*args, **options, **edit)[0]

    def vjp(g, *args, **options):
        return {k: g * d for k, d in base(*args, **options, **edit, **(slope or {}))[1].items()}

    function.__name__, function.__doc__ = name, doc
    mutant(ID, vjp=vjp, thread=thread, default_case=case or default())(function)


_mutant("clips_before_whitening", "clip, then whiten.", clip_first=True)
_mutant("whitens_all_places", "Masked places count as zeros.", default(advantage_norm=True), all_places=True)
_mutant("always_whitens", "Whitened whatever advantage_norm says.", default(advantage_norm=True), norm=True)
_mutant("value_clip_ignored", "value_clip accepted and dropped.", free=True)
_mutant("value_coef_ignored", "value_coef = 1.", coef=1.0)
_mutant("half_forgotten", "The squared error without its half.", default(value_coef=0.0), whole=True)
_mutant("policy_clipped_always", "Clipped at .2 when no clip was asked for.", clipped=True)
_mutant("critic_alone_ignored", "value_only accepted and dropped.", both=True)
_mutant("numerator_only", "Masked tokens leave the sums and stay in the count.", thread="trl#6439", numerator=True)
_mutant("masked_by_multiplying", "Times the mask: NaN stays.", hide=by_multiplying)
_mutant("pretraining_subtracted", "- coef times it.", pre=lambda w, x: -w * x)
_mutant("pretraining_unweighed", "Added as it is where it counts.", pre=lambda w, x: x if w else 0.0)
_mutant("slope_of_the_clipped", "The gradient flows where the clip holds.",
    slope={"slope": lambda own, value, r, a, clip: -r * a})
_mutant("pretraining_detached", "The pretraining loss has no gradient.", slope={"pre_slope": 0.0})
