"""Laws and mutants of IPO."""

from __future__ import annotations

import numpy as np

from ref.rl.common_laws import (
    all_pairs,
    bandit,
    even_pairs,
    pair_cases,
    pair_laws,
    pair_loss,
    pair_mutants,
    policy_mutant,
    population_gradient,
    scores,
    token_pairs,
)  # fmt: skip
from ref.spec import bounds, law
from ref.spec.cases import choose, dims

ID = "rl.ipo_loss"
space = pair_cases(ID, tau=choose(0.125, 0.5, 2.0), of=choose("sum", "mean"))


def terms(c):
    """(D - 1 / (2 tau))^2, pair by pair."""
    x, size = scores(c)
    off = x[:, 0] - x[:, 1] - 1 / (2 * c.tau)
    slope = 2 * off
    return off**2, np.stack([slope, -slope], 1), off**2 + 2 * (np.abs(off) + 1) * (size.sum(-1) + 1 / c.tau)


# Mutants ---------------------------------------------------------------------------------------------


def base(lp, ref, mask, *, tau=0.1, of="sum", count=None, **edit):
    """(loss, gradient) in plain NumPy."""
    target = edit.pop("target", lambda tau: 1 / (2 * tau))(tau)
    scale = edit.pop("scale", 1.0)

    def f(w, r):
        off = scale * (w - r) - target
        return off**2, 2 * off, -2 * off

    return pair_loss(lp, mask, f=f, ref_log_probs=ref, of=of, count=count, **edit)


kills = pair_mutants(ID, base, even_pairs(same=True), even_pairs(1))
for name, doc, case, edit in (
    ("target_without_the_two", "1 / tau.", even_pairs(tau=1e9), {"target": lambda tau: 1 / tau}),
    ("target_is_half_tau", "tau / 2.", even_pairs(tau=1.0), {"target": lambda tau: tau / 2}),
):
    policy_mutant(ID, name, doc, base, default_case=case, value=edit)
kills["L1"] += ["target_without_the_two", "target_is_half_tau"]
pair_laws(ID, space, terms, kills)


@law(ID, "L5", closed_form=True, needs=("vjp",), given=space, kills=["target_without_the_two", "target_is_half_tau"],
     passes_null=["cached"])  # fmt: skip
def zero_at_half_over_tau(impl, c, expect):
    "D = 1 / (2 tau): loss and gradient 0; at D = 0, 1 / (4 tau^2)."
    half = 1 / (2 * c.tau)
    now = token_pairs(c, np.array([[-0.5, -0.5 - half]]), np.array([[-0.5, -0.5]]))
    slack = bounds.rounding(32, 1 + half, c.dtype)
    expect(impl(now), np.array(0.0), slack * slack + slack, "loss at the target", scale=1 + half)
    found = impl.vjp(now, np.array(1.0, c.dtype))["log_probs"]
    expect(found, np.zeros((1, 2, 1)), 4 * slack, "gradient at the target", scale=1 + half)
    at_ref = token_pairs(c, np.array([[-0.5, -1.5]]), np.array([[-0.5, -1.5]]))
    expect(impl(at_ref), np.array(half**2), bounds.rounding(16, half**2 + half, c.dtype), "loss at the reference",
           scale=half**2 + half)  # fmt: skip


@law(ID, "L6", closed_form=True, needs=("vjp",), given=space.where(P=dims(1, 2), T=dims(1, 2)),
     kills=["target_without_the_two", "chosen_alone_has_a_gradient"])  # fmt: skip
def the_optimum_in_closed_form(impl, c, expect):
    """A bandit of four responses, both drawn from mu, the preferred one named chosen: the population gradient is 0 at
    pi* = ref exp(P(y > mu) / tau) / Z, P(y > mu) the chance that y beats a draw of mu."""
    ref, r = bandit(c)
    mu = np.roll(ref, 1)
    p = 1 / (1 + np.exp(r[None, :] - r[:, None]))  # P(i > j); a tie is a coin
    at = all_pairs(4)
    weigh = np.array([mu[i] * mu[j] * p[i, j] for i, j in at]) * 2  # y and y' may come in either order
    best = ref * np.exp(p @ mu / c.tau)
    best = best / best.sum()
    found = population_gradient(impl, c, best, ref, weigh)
    expect(found, np.zeros(4), bounds.rounding(256, 64 * (1 + 1 / c.tau), c.dtype), "gradient at pi*", scale=1.0)
    pull = np.zeros(4)
    np.add.at(pull, at, weigh[:, None] / c.tau * np.array([-1.0, 1.0]))
    elsewhere = population_gradient(impl, c, ref, ref, weigh)
    slack = bounds.rounding(256, 8 * (1 + 1 / c.tau), c.dtype)
    expect(elsewhere, pull - ref * pull.sum(), slack, "gradient at ref", scale=1.0)
