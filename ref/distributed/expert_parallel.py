"""Expert parallelism: a mixture-of-experts layer whose experts are spread over the ranks, tokens sent to and fro.

Source: Lepikhin et al. 2020, GShard (2006.16668) sec. 2.2 and 3.2; Fedus et al. 2021, Switch Transformers (2101.03961)
sec. 2.2; the uneven exchange instead of padding to the capacity: Gale et al. 2022, MegaBlocks (2211.15841) sec. 4.

    p_t = softmax(x_t R)                                              t a token of this rank, R the router
    y_t = sum over kept choices e of t: gate_te relu(x_t U_e) D_e     gate_te = p_te, or p_te / sum_e' p_te'

    dispatch   rows sorted by expert; counts exchanged, then the rows themselves, as many as there are
    compute    each expert on the rows of all ranks at once
    combine    rows go back the same way, are weighted and added up by token

Notation
    n -> comm.size, r -> comm.rank, T -> tokens of this rank, E -> experts, e = E / n -> experts of a rank (r e ..
    r e + e - 1), R -> router[d E], U -> up[e d F], D -> down[e F d].

Conventions
    C1  Which choices are kept is `expert_routing`'s, on each rank's own tokens; a token with none kept gives zeros.
    C2  The gate is the probability itself (Switch; so that k = 1 trains the router); normalise=True divides by the sum
        over the token's k choices, kept or not (GShard's two).
    C3  Choices are no function to differentiate: gradients reach the router through the gates of kept choices, and
        under `normalise` through those of dropped ones in the sum.
    C4  Gradients are of the sum of the ranks' losses: an expert's is complete where it lives, the router's is this
        rank's part, to be added up over ranks as data parallelism does.

Laws
    L1 output_is_the_sum_over_kept_experts     L2 gradients_are_those_of_one_rank
    L3 whole_numbers_are_exact                 L4 bytes_are_the_rows_that_leave
    L5 what_is_dropped_has_no_part
"""

from __future__ import annotations

import numpy as np

from autodiff import namespace, raw
from ref.attention.safe_softmax import safe_softmax
from ref.distributed.differentiable_all_to_all import differentiable_all_to_all
from ref.distributed.expert_routing import expert_routing
from ref.distributed.pairwise_all_to_all import pairwise_all_to_all
from ref.distributed.ranks import on_tensors
from ref.spec import bind, spec

SIGNATURE = "x[T d], router[d E], up[e d F], down[e F d]"


@spec(
    "distributed.expert_parallel", "comm:tree, x:tree, router:tree, up:tree, down:tree -> :tree",
    grads=("x", "router", "up", "down"), backends=("numpy",),
)  # fmt: skip
@on_tensors("x", "router", "up", "down")
def expert_parallel(comm, x, router, up, down, *, k=1, capacity_factor=None, normalise=False):
    """The layer's output for this rank's tokens.

    Parameters
    ----------
    comm : Communicator
        Or a world, with the arrays one a rank.
    x : float[T d] or Tensor
        This rank's tokens; T may differ between ranks, and be 0.
    router : float[d E] or Tensor
        The same on every rank.
    up, down : float[e d F], float[e F d], or Tensors
        Of this rank's experts.
    k, capacity_factor
        Of `expert_routing`.
    normalise : bool
        C2.

    Returns
    -------
    float[T d] or Tensor
        Without the residual.

    Raises
    ------
    ValueError
        E is not n e, shapes that disagree, k outside 1 .. E, or capacity_factor below 0.
    TypeError
        Other than float arrays of one dtype.

    Complexity: 3 (n - 1) messages a rank: 8 e bytes of counts to each other one, and 2 rows of d a kept choice that
    leaves the rank; as many rows backward.

    >>> import numpy as np
    >>> from backends.communicators import ThreadWorld
    >>> x = np.array([[[1.0, 0.0]], [[2.0, 0.0]]])
    >>> router = np.array([[[0.0, 9.0], [0.0, 0.0]]] * 2)
    >>> up, down = np.ones((2, 1, 2, 1)), np.array([[[[3.0, 3.0]]], [[[5.0, 5.0]]]])
    >>> expert_parallel(ThreadWorld(2), x, router, up, down, normalise=True)
    array([[[ 5.,  5.]],
    <BLANKLINE>
           [[10., 10.]]])
    """
    sizes = bind("expert_parallel", SIGNATURE, x=x, router=router, up=up, down=down)
    T, E, e, n = sizes["T"], sizes["E"], sizes["e"], comm.size
    if n * e != E:
        raise ValueError(f"expert_parallel: the router has E={E} experts, {n} ranks have e={e} each; needed E = n e")
    xp = namespace(x, router, up, down)
    probs = safe_softmax(x @ router)
    expert, kept, _ = expert_routing(raw(probs), k=k, capacity_factor=capacity_factor)
    gates = xp.take_along_axis(probs, expert, axis=-1)
    if normalise:
        gates = gates / xp.sum(gates, axis=-1, keepdims=True)

    token, choice = np.nonzero(kept)
    order = np.argsort(expert[token, choice], kind="stable")
    token, choice = token[order], choice[order]
    counts = np.bincount(expert[token, choice], minlength=E).reshape(n, e)
    theirs = pairwise_all_to_all(comm, counts)  # theirs[q, i]: rows of rank q for expert i of mine
    send, receive = counts.sum(1).tolist(), theirs.sum(1).tolist()

    rows = differentiable_all_to_all(comm, xp.take(x, token, axis=0), send, receive)
    owner = np.repeat(np.tile(np.arange(e), n), theirs.reshape(-1))  # each row's expert
    back = np.argsort(owner, kind="stable")
    cut = np.concatenate([[0], np.cumsum(theirs.sum(0))])
    made = [_expert(xp, xp.take(rows, back[cut[i] : cut[i + 1]], axis=0), up[i], down[i]) for i in range(e)]
    made = xp.take(xp.concat(made, axis=0), np.argsort(back, kind="stable"), axis=0)
    made = differentiable_all_to_all(comm, made, receive, send)
    weighted = made * gates[token, choice][:, None]
    return xp.scatter_add((T, sizes["d"]), token, weighted)


def _expert(xp, rows, up, down):
    h = rows @ up
    return xp.where(raw(h) > 0, h, 0.0) @ down
