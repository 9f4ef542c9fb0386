"""Routing to experts: which experts each token takes, and which of them have room for it.

Source: Lepikhin et al. 2020, GShard (2006.16668) Algorithm 1; Fedus et al. 2021, Switch Transformers (2101.03961) sec.
2.2 and Eq. 3 for k = 1; Shazeer et al. 2017 (1701.06538) for the top k.

    expert[t, 0 .. k - 1] = the k experts of token t with the greatest probabilities, the greatest first
    C = ceil(capacity_factor k T / E)                          slots of an expert
    walk the first choices of all tokens in order, then the second choices, ..: the first C that ask for an expert are
    kept, the others dropped

Notation
    probs[T E] -> the router's softmax, T -> tokens of one rank (GShard's group), E -> experts, C -> capacity.

Conventions
    C1  Capacity is counted in one rank's tokens, so that ranks need not agree before they send. n ranks together may
        give an expert n C tokens; one rank with all tokens would have one C of n times the tokens and drop others.
    C2  Between equal probabilities the lower expert stands first.
    C3  A dropped choice is not made good by another expert: a token with none left passes by on the residual path.
        GShard's random dropping of second choices is not done.
    C4  capacity_factor None drops nothing. `load` counts what was asked for, dropped or not.

Laws
    L1 choices_are_the_greatest             L2 kept_is_the_lesser_of_load_and_capacity
    L3 first_choices_and_first_tokens_first
"""

from __future__ import annotations

import math

from autodiff import namespace
from ref.spec import bind, spec

SIGNATURE = "probs[T E] -> expert:int[T k], kept:bool[T k], load:int[E]"


@spec("distributed.expert_routing", SIGNATURE)
def expert_routing(probs, *, k=1, capacity_factor=None):
    """Experts of each token, whether each has room, and how many tokens ask for an expert.

    Parameters
    ----------
    probs : float[T E]
        Of one rank's tokens.
    k : int
        Experts a token, 1 .. E.
    capacity_factor : float, optional
        Slots of all experts together, as a multiple of what is asked for; at least 0.

    Returns
    -------
    (int[T k], bool[T k], int[E])
        The number of dropped choices is that of the False.

    Raises
    ------
    ValueError
        k outside 1 .. E, capacity_factor below 0, or probs without two axes.
    TypeError
        probs is no float array.

    Complexity: T E log E comparisons, k T E additions.

    >>> import numpy as np
    >>> probs = np.array([[0.2, 0.8], [0.4, 0.6], [0.9, 0.1]])
    >>> expert, kept, load = expert_routing(probs, capacity_factor=0.5)
    >>> expert[:, 0], kept[:, 0], load
    (array([1, 1, 0]), array([ True, False,  True]), array([1, 2]))
    """
    sizes = bind("expert_routing", SIGNATURE, probs=probs)
    T, E = sizes["T"], sizes["E"]
    if not 1 <= k <= E or (capacity_factor is not None and not capacity_factor >= 0):
        raise ValueError(
            f"expert_routing: k={k}, capacity_factor={capacity_factor}, E={E} experts; needed 1 <= k <= E and a "
            f"factor of at least 0"
        )
    xp = namespace(probs)
    expert = xp.argsort(probs, axis=-1, descending=True, stable=True)[:, :k]
    asked = xp.reshape(xp.permute_dims(expert, (1, 0)), (k * T, 1)) == xp.arange(E)[None, :]
    asked = xp.astype(asked, xp.int64)  # first choices of all tokens, second choices, ..
    slots = k * T if capacity_factor is None else math.ceil(capacity_factor * k * T / E)
    place = xp.sum(xp.cumulative_sum(asked, axis=0) * asked, axis=-1)
    kept = xp.permute_dims(xp.reshape(place <= slots, (k, T)), (1, 0))
    return xp.astype(expert, xp.int64), kept, xp.sum(asked, axis=0)
