"""Partial rollouts: long responses are written a budget of tokens at a time, over several iterations.

Source: Kimi k1.5 (2501.12599) sec. 2.6.2.

    each iteration: every unfinished response is continued by at most `budget` tokens from where the buffer has it;
    what reaches the end token or `longest` leaves, the rest goes back into the buffer

    With the same noise and the same policy the tokens are those of one shot; only who wrote which part when is new.

Notation
    policy(tokens[t]) -> log-probabilities[V] of the next token; noise[B longest] uniform numbers, one a token.

Conventions
    C1  A token is drawn by inverting the distribution at the noise: the first with cumulative probability above it.
    C2  iterations[b, t] says in which iteration token t was written: only those of the present iteration are on
        policy, earlier ones are reused from the buffer with the log-probabilities of their time.
    C3  A finished response holds `end` as its last token; after it stands -1, in both outputs.
    C4  policy may differ from iteration to iteration: policy(tokens, iteration).

Laws
    L1 the_tokens_of_one_shot               L2 iterations_count_the_budget
    L3 frequencies_of_the_policy            L4 a_new_policy_writes_its_own_part
"""

from __future__ import annotations

import numpy as np

from ref.spec import bind, spec

SIGNATURE = "noise[B T], policy:tree -> tokens:int[B T], iterations:int[B T]"


@spec("rl.partial_rollouts", SIGNATURE, backends=("numpy",))
def partial_rollouts(noise, policy, *, budget, end):
    """Responses and the iteration that wrote each of their tokens.

    Parameters
    ----------
    noise : float[B T]
        Uniform in [0, 1); T is the longest response allowed.
    policy : callable
        (tokens so far, a list of int; iteration) -> float[V] log-probabilities.
    budget : int
        Tokens a response may grow in one iteration.
    end : int
        The token that ends a response.

    Returns
    -------
    tokens : int[B T]
    iterations : int[B T]
        -1 after the end in both.

    Raises
    ------
    ValueError
        budget < 1, noise outside [0, 1), or log-probabilities that do not add up to 1.
    TypeError
        noise is not float.

    Complexity: B T calls of the policy.

    >>> policy = lambda tokens, iteration: np.log([0.5, 0.25, 0.25])
    >>> tokens, iterations = partial_rollouts(np.array([[0.1, 0.6, 0.9, 0.2]]), policy, budget=2, end=2)
    >>> tokens, iterations
    (array([[ 0,  1,  2, -1]]), array([[ 0,  0,  1, -1]]))
    """
    sizes = bind("partial_rollouts", SIGNATURE, noise=noise)
    if budget < 1 or not np.all((noise >= 0) & (noise < 1)):
        raise ValueError(f"partial_rollouts: budget={budget}; needed at least 1, and noise in [0, 1)")
    tokens = np.full((sizes["B"], sizes["T"]), -1, np.int64)
    iterations = tokens.copy()
    buffer, iteration = {b: [] for b in range(sizes["B"]) if sizes["T"]}, 0
    while buffer:
        for b in list(buffer):
            for _ in range(budget):
                written = buffer[b]
                token = _draw(policy(list(written), iteration), noise[b, len(written)])
                tokens[b, len(written)], iterations[b, len(written)] = token, iteration
                written.append(token)
                if token == end or len(written) == sizes["T"]:
                    del buffer[b]
                    break
        iteration += 1
    return tokens, iterations


def _draw(log_probs, u):
    """The first token whose cumulative probability lies above u (C1)."""
    p = np.exp(np.asarray(log_probs, np.float64))
    if p.ndim != 1 or not abs(p.sum() - 1) < 1e-6:
        raise ValueError(f"partial_rollouts: policy gave probabilities of shape {p.shape} that add up to {p.sum()}; "
                         "needed [V] that add up to 1")  # fmt: skip
    return min(int(np.searchsorted(np.cumsum(p), u, side="right")), int(np.flatnonzero(p)[-1]))
