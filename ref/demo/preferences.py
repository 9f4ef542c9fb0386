"""Learning from preferences: DPO and its family to their closed-form optima, and on the arithmetic model.

On a finite bandit the loss over all pairs, each weighed by how often it is preferred, is minimised to the end and its
policy compared with the closed form. On the small model pairs are drawn from the policy itself, one response right and
one wrong, and labelled by Bradley-Terry with a reward of `scale` for the right one. Reward and KL divergence of what is
learned are then exact, by the distribution over every response, and stand beside the exact frontier:

    pi_beta = ref e^{right / beta} / Z,   E_pi[right] <= that of pi_beta wherever KL(pi | ref) <= KL(pi_beta | ref)
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from autodiff import value_and_grad
from autodiff.special import log_softmax
from ref.demo.arithmetic import END, MOST, SIZES, distribution, every_response, rewards
from ref.demo.policy import log_probs, sample
from ref.rl.best_of_n import best_of_n
from ref.rl.cdpo_loss import cdpo_loss
from ref.rl.dpo_loss import dpo_loss
from ref.rl.ipo_loss import ipo_loss
from ref.rl.kto_loss import kto_loss
from ref.rl.mirror_descent import mirror_descent
from ref.rl.orpo_loss import orpo_loss
from ref.rl.robust_dpo_loss import robust_dpo_loss
from ref.rl.simpo_loss import simpo_loss

# The bandit ---------------------------------------------------------------------------------------------


class Bandit(NamedTuple):
    """Reference probabilities [K], rewards [K] of Bradley-Terry, share of wrong labels, beta (IPO: tau)."""

    ref: np.ndarray
    rewards: np.ndarray
    eps: float = 0.2
    beta: float = 0.5

    @property
    def wins(self):
        """float[K K]: how often the first is preferred."""
        return 1 / (1 + np.exp(self.rewards - self.rewards[:, None]))


def bandit(K, seed):
    """A random Bandit of K responses."""
    rng = np.random.default_rng(seed)
    return Bandit(rng.dirichlet(np.full(K, 2.0)), rng.standard_normal(K))


def closed_form(name, b):
    """float[K]: the policy at which the loss over all pairs is least. cDPO has one in closed form for K = 2 alone."""
    gain = {"dpo": b.rewards / b.beta, "robust_dpo": b.rewards / b.beta, "ipo": b.wins.mean(1) / b.beta}
    if name == "cdpo":
        q = (1 - b.eps) * b.wins[0, 1] + b.eps * b.wins[1, 0]
        gain["cdpo"] = np.array([np.log(q / (1 - q)) / b.beta, 0.0])
    weight = b.ref * np.exp(gain[name])
    return weight / weight.sum()


def minimised(name, b):
    """float[K]: the policy that the loss's own gradient leads to, by BFGS from the reference."""
    from scipy.optimize import minimize

    K, mask = len(b.ref), np.ones((1, 2, 1), bool)
    losses = {
        "dpo": lambda new, old: dpo_loss(new, old, mask, beta=b.beta),
        "ipo": lambda new, old: ipo_loss(new, old, mask, tau=b.beta),
        "cdpo": lambda new, old: cdpo_loss(new, old, mask, beta=b.beta, eps=b.eps),
        "robust_dpo": lambda new, old: robust_dpo_loss(new, old, mask, beta=b.beta, eps=b.eps),
    }
    wins = (1 - b.eps) * b.wins + b.eps * b.wins.T if name == "robust_dpo" else b.wins  # its labels are flipped
    log_ref = np.log(b.ref)

    def loss(theta):
        found, total = log_softmax(theta, axis=-1), 0.0
        for i, j in np.argwhere(~np.eye(K, dtype=bool)):
            pair = np.array([i, j])
            total = total + wins[i, j] / K**2 * losses[name](
                found[pair][None, :, None], log_ref[pair][None, :, None]
            )
        return total

    def both(theta):
        value, gradient = value_and_grad(loss)(theta)
        return float(value), gradient

    theta = minimize(both, log_ref, jac=True, method="BFGS", options={"gtol": 1e-10}).x
    return np.exp(theta - np.logaddexp.reduce(theta))


# The small model ----------------------------------------------------------------------------------------


class Pairs(NamedTuple):
    """tokens int[P 2 T], the preferred response first; mask bool[P 2 T]."""

    tokens: np.ndarray
    mask: np.ndarray


def drawn_pairs(network, some, rng, *, draws=16, scale=2.0):
    """Pairs of a right and a wrong response of the network to a prompt, labelled by Bradley-Terry."""
    rows = np.repeat(np.arange(len(some.prompts)), draws)
    tokens, mask = sample(network, some.prompts[rows], MOST, END, rng)
    right = rewards(tokens, some, rows) > 0
    pairs = []
    for row in range(len(some.prompts)):
        of = np.flatnonzero(rows == row)
        pairs += zip(of[right[of]], of[~right[of]], strict=False)
    pairs = np.array(pairs, int).reshape(-1, 2)
    wrong = rng.random(len(pairs)) > 1 / (1 + np.exp(-scale))
    pairs[wrong] = pairs[wrong, ::-1]
    return Pairs(tokens[pairs], mask[pairs])


def _kto(new, old, mask, beta, others):
    flat = [x.reshape((-1, x.shape[-1])) for x in (new, old, mask)]
    return kto_loss(*flat, np.arange(flat[1].shape[0]) % 2 == 0, *others(), beta=beta)


FAMILY = {
    "dpo": lambda new, old, mask, beta, others: dpo_loss(new, old, mask, beta=beta),
    "ipo": lambda new, old, mask, beta, others: ipo_loss(new, old, mask, tau=beta),
    "cdpo": lambda new, old, mask, beta, others: cdpo_loss(new, old, mask, beta=beta, eps=0.1),
    "robust_dpo": lambda new, old, mask, beta, others: robust_dpo_loss(new, old, mask, beta=beta, eps=0.1),
    "kto": _kto,
    "simpo": lambda new, old, mask, beta, others: simpo_loss(new, mask, beta=4 * beta, gamma=1.0),
    "orpo": lambda new, old, mask, beta, others: orpo_loss(new, mask, weight=beta),
}


def aligned(network, pairs, name, *, beta=0.5, steps=150, batch=32, lr=2e-4, seed=0, watch=lambda step: None):
    """A copy of the network, trained on the pairs by a loss of the family; ValueError without pairs."""
    if not len(pairs.tokens):
        raise ValueError("aligned: no pairs; needed a right and a wrong response to one prompt")
    new, rng = network.copy(), np.random.default_rng((seed, 2))
    T = pairs.tokens.shape[2]
    for step in range(steps):
        rows = rng.integers(0, len(pairs.tokens), batch)
        tokens, mask = pairs.tokens[rows], pairs.mask[rows]
        flat = tokens.reshape(-1, T), mask.reshape(-1, T)
        old = log_probs(network.layers(), SIZES, *flat).reshape(mask.shape)

        def others(rows=rows, flat=flat):
            """Of KTO: the responses under the prompts of other pairs, by both policies."""
            strange = np.concatenate([np.roll(flat[0][:, :-MOST], 2, axis=0), flat[0][:, -MOST:]], 1)
            return *(log_probs(n.layers(), SIZES, strange, flat[1]) for n in (new, network)), flat[1]

        def loss(layers, flat=flat, old=old, mask=mask, others=others):
            found = log_probs(layers, SIZES, *flat).reshape(mask.shape)
            return FAMILY[name](found, old, mask, beta, others)

        new.step(loss, lr)
        watch(step + 1)
    return new


# The frontier -------------------------------------------------------------------------------------------


class Scale(NamedTuple):
    """Prompts by which a policy is measured, and the reference's log-probabilities [n K] of every response to them."""

    some: object
    ref: np.ndarray

    def measured(self, network):
        """(KL(policy | reference), pass@1): exact means over the prompts."""
        found = distribution(network, self.some.prompts)
        kl = float((np.exp(found) * (found - self.ref)).sum(1).mean())
        return kl, float(np.exp(found[self.right()]).mean())

    def right(self):
        """Where the right response to each prompt stands."""
        responses, _ = every_response()
        at = [np.flatnonzero((responses == a).all(1))[0] for a in self.some.answers]
        return np.arange(len(at)), np.array(at)

    def frontier(self, betas):
        """[(KL, pass@1)] of pi_beta for every beta: no policy does better at its divergence."""
        both = self._right_or_not()
        each = (mirror_descent(np.log(both), np.broadcast_to([1.0, 0.0], both.shape), tau=beta) for beta in betas)
        return [self._of(np.exp(log_new), both) for log_new in each]

    def best_of(self, counts):
        """[(KL, pass@1)] of the best of n draws, for every n."""
        both = self._right_or_not()
        return [self._of(np.stack([best_of_n(p, np.array([1.0, 0.0]), n=n) for p in both]), both) for n in counts]

    def _right_or_not(self):
        """float[n 2]: both policies keep the reference's proportions among the wrong responses."""
        p = np.exp(self.ref[self.right()])
        return np.stack([p, 1 - p], 1)

    @staticmethod
    def _of(new, old):
        return float((new * np.log(new / old)).sum(1).mean()), float(new[:, 0].mean())


def above(frontier, point):
    """How far a (KL, pass@1) is above the frontier; below 0 if it is not."""
    kl, solved = np.array(sorted(frontier)).T
    return point[1] - float(np.interp(point[0], kl, solved))
