"""Laws and mutants of LLaMA-2-Chat's reward."""

from __future__ import annotations

import math

import numpy as np

from ref.rl.common_laws import dyadics
from ref.spec import bounds, law, mutant
from ref.spec.cases import Flag, bools, cases, choose, dims

ID = "rl.llama2_reward"
space = cases(
    ID, B=dims(2, 5, large=20), beta=choose(0.01, 0.0, 0.5), threshold=choose(0.15, 0.4), ddof=choose(0, 1),
    eps=choose(1e-8, 0.25),
    helpful=dyadics("B", 1 / 16, 15 / 16, 16), safe=dyadics("B", 1 / 16, 15 / 16, 16), safety_prompt=bools("B", 0.3),
    kl=dyadics("B", 0, 2, 8),
    flags={"spread": Flag(lambda c: np.ptp(chosen(c)) > 0.05),
           "unsafe": Flag(lambda c: np.any(~c.safety_prompt & (c.safe < c.threshold)),
           {"B": dims(3, 5), "safe": dyadics("B", 1 / 16, 6 / 16, 16)}),
           "prompted": Flag(lambda c: np.any(c.safety_prompt & (c.safe > c.threshold)), {"B": dims(3, 5)})},
).where(spread=True)  # fmt: skip


def chosen(c):
    return np.array([s if p or s < c.threshold else h for h, s,
        p in zip(c.helpful, c.safe, c.safety_prompt, strict=True)], np.float64)


def definition(c):
    """(rewards, bound), step by step."""
    logit = np.array([math.log(x / (1 - x)) for x in chosen(c)])
    mean = math.fsum(logit) / len(logit)
    s = math.sqrt(math.fsum((x - mean) ** 2 for x in logit) / (len(logit) - c.ddof) + c.eps)
    z = (logit - mean) / s
    off = bounds.rounding(c.B + 32, 4.0, c.dtype) / s
    return z - c.beta * np.asarray(c.kl, np.float64), off * (1 + np.abs(z)) + bounds.rounding(2 * c.B + 32,
        np.abs(z) + 2, c.dtype)


@law(ID, "L1", closed_form=True, given=space.reach("unsafe", "prompted"),
     kills=["not_whitened", "logit_forgotten", "whitened_apart", "penalty_whitened", "threshold_on_helpfulness",
     "safety_prompts_alone", "penalty_added"])  # fmt: skip
def value_is_the_definition(impl, c, expect):
    "Safety's score if it is a safety prompt or below the threshold, else helpfulness'; logit; whitened; less beta KL."
    wanted, slack = definition(c)
    expect(impl(c), wanted, slack, scale=1.0)


@law(ID, "L2", closed_form=True, given=space.where(unsafe=True),
    kills=["safety_prompts_alone", "threshold_on_helpfulness"],
     passes_null=["zeros", "constant"])  # fmt: skip
def safety_decides_below_the_threshold(impl, c, expect):
    "Where safety decides another helpfulness changes no bit; where not, another safe score above it changes none."
    by_safety = np.asarray(c.safety_prompt) | (c.safe < c.threshold)
    other = c.replace(helpful=np.where(by_safety, c.dtype.type(0.5), c.helpful),
        safe=np.where(by_safety, c.safe, c.dtype.type(0.99)))
    expect.same(impl(other), impl(c))


@law(ID, "L3", closed_form=True, given=space, kills=["penalty_whitened", "penalty_added"])
def the_penalty_is_not_whitened(impl, c, expect):
    "A divergence larger by 1 on one response lowers its reward by beta and no other's."
    kl = c.kl.copy()
    kl[0] += 1
    moved = impl(c.replace(kl=kl)).astype(np.float64) - impl(c)
    expect(moved, np.where(np.arange(c.B) == 0, -c.beta, 0.0), 2 * definition(c)[1], scale=1.0)


# Mutants ---------------------------------------------------------------------------------------------


def default(score=0.5):
    """The default-size test: one score for all, no divergence."""
    x = np.full(4, score)
    return lambda: ((x, x.copy(), np.zeros(4, bool), np.zeros(4)), {})


def plain(helpful, safe, safety_prompt, kl, *, beta=0.01, threshold=0.15, ddof=0, eps=1e-8, **edit):
    white = lambda x: (x - x.mean()) / np.sqrt(((x - x.mean()) ** 2).sum() / (len(x) - ddof) + eps)  # noqa: E731
    by_safety = edit.get("rule", lambda h, s, p, t: p | (s < t))(helpful, safe, safety_prompt, threshold)
    logit = edit.get("logit", lambda x: np.log(x) - np.log1p(-x))
    h, s = logit(helpful.astype(np.float64)), logit(safe.astype(np.float64))
    if edit.get("apart"):
        return (np.where(by_safety, white(s), white(h)) - beta * kl).astype(kl.dtype)
    score = np.where(by_safety, s, h)
    if edit.get("late"):
        return white(score - beta * kl).astype(kl.dtype)
    return (edit.get("white", white)(score) - edit.get("sign", 1) * beta * kl).astype(kl.dtype)


def _mutant(name, doc, case=None, thread=None, **edit):
    def function(*args, **options):
        return plain(*args, **options, **edit)

    function.__name__, function.__doc__ = name, doc
    mutant(ID, default_case=case or default(), thread=thread)(function)


_mutant("not_whitened", "The logits.", white=lambda x: x)
_mutant("logit_forgotten", "The scores whitened as they are.", logit=lambda x: x)
_mutant("whitened_apart", "Each model's scores whitened, then the choice.", apart=True)
_mutant("penalty_whitened", "Whitened after the penalty.", late=True)
_mutant("threshold_on_helpfulness", "Safety decides where helpfulness is low.", rule=lambda h, s, p, t: p | (h < t))
_mutant("safety_prompts_alone", "The threshold accepted and dropped.", rule=lambda h, s, p, t: p)
_mutant("penalty_added", "+ beta KL.", sign=-1)
