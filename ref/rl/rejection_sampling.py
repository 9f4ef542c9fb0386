"""Rejection sampling: drawing until a response is accepted, exactly.

Source: von Neumann 1951; as a policy for fine-tuning: Touvron et al. 2023 (2307.09288) sec. 3.2.3, DeepSeek-R1
(2501.12948) sec. 2.3.3.

    p = sum over the accepted of pi,   policy pi(y) [y accepted] / p,   expected number of draws 1 / p

Conventions
    C1  The accepted keep their proportions: it filters, it does not sharpen. Fine-tuned on it, a model's likelihood is
        least at this policy.
    C2  p = 0 never ends: an error.

Laws
    L1 proportions_of_the_accepted          L2 draws_by_the_geometric_series
    L3 the_likelihood_is_least_here
"""

from __future__ import annotations

from autodiff import namespace
from ref.rl.best_of_n import check_probs
from ref.spec import bind, spec

SIGNATURE = "probs[K], accepted:bool[K]"


@spec("rl.rejection_sampling", f"{SIGNATURE} -> policy[K], draws[]")
def rejection_sampling(probs, accepted):
    """The distribution of the accepted response, and how many draws it takes on average.

    Parameters
    ----------
    probs : float[K]
        The policy that is drawn from, adding up to 1.
    accepted : bool[K]

    Returns
    -------
    policy : float[K]
    draws : float[]

    Raises
    ------
    ValueError
        Shapes that differ, probabilities that are negative or do not add up to 1, or nothing accepted has any.
    TypeError
        probs is not float or accepted not bool.

    Complexity: K operations.

    >>> import numpy as np
    >>> policy, draws = rejection_sampling(np.array([0.5, 0.25, 0.25]), np.array([False, True, True]))
    >>> policy, float(draws)
    (array([0. , 0.5, 0.5]), 2.0)
    """
    bind("rejection_sampling", SIGNATURE, probs=probs, accepted=accepted)
    check_probs("rejection_sampling", probs)
    xp = namespace(probs, accepted)
    kept = xp.where(accepted, probs, 0.0)
    p = xp.sum(kept)
    if not bool(p > 0):
        raise ValueError("rejection_sampling: no accepted response has a probability above 0")
    return kept / p, 1 / p
