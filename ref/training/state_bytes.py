"""Bytes of model states: weights, gradients and Adam's state, whole or sharded.

Source: Rajbhandari et al. 2020 (1910.02054) sec. 3.1 and Fig. 1; Micikevicius et al. 2018 (1710.03740) for masters.

    16 bytes a parameter: in mixed precision 2 (weight) + 2 (gradient) + 4 + 4 + 4 (master, m, v); in float32 4 + 4 + 8
    ZeRO over N ranks, a rank's share being ceil(P / N) parameters:
        stage 1 shards Adam's state, stage 2 the gradients too, stage 3 the weights too

Notation
    P -> parameters, N -> ranks.

Conventions
    C1  GB = 1e9 bytes, as in the paper: 7e9 parameters take 112 GB.
    C2  A share is rounded up: the ranks pad the flat vector of parameters.
    C3  Gradients have the dtype of the weights; sums over micro-batches in float32 take 4 bytes more and are not here.

Laws
    L1 sixteen_bytes_a_parameter             L2 the_papers_stages
    L3 ranks_hold_the_whole                  L4 arrays_take_as_much
"""

from __future__ import annotations

import operator
from typing import NamedTuple

from ref.spec import spec

BYTES = {"fp32": (4, 4, 8), "bf16": (2, 2, 12), "fp16": (2, 2, 12)}


class States(NamedTuple):
    """Bytes on one rank."""

    weights: int
    gradients: int
    optimizer: int


@spec("training.state_bytes", "parameters:int[] -> states:tree", backends=("numpy",))
def state_bytes(parameters, *, precision="bf16", zero=0, ranks=1):
    """Bytes that a rank holds of weights, gradients and Adam's state.

    Parameters
    ----------
    parameters : int
    precision : "fp32", "bf16" or "fp16"
        The latter two with float32 masters.
    zero : 0, 1, 2 or 3
        Stage of sharding.
    ranks : int
        Data-parallel ranks.

    Returns
    -------
    States

    Raises
    ------
    ValueError
        parameters < 0, ranks < 1, an unknown precision or stage.
    TypeError
        Not integers.

    Complexity: constant.

    >>> sum(state_bytes(7_000_000_000)) / 1e9, sum(state_bytes(7_000_000_000, zero=3, ranks=64)) / 1e9
    (112.0, 1.75)
    """
    P, N = operator.index(parameters), operator.index(ranks)
    if P < 0 or N < 1:
        raise ValueError(f"state_bytes: parameters={P}, ranks={N}; needed at least 0 and 1")
    if precision not in BYTES:
        raise ValueError(f"state_bytes: precision={precision!r}; needed one of {', '.join(BYTES)}")
    if zero not in (0, 1, 2, 3):
        raise ValueError(f"state_bytes: zero={zero!r}; needed 0, 1, 2 or 3")
    share = -(-P // N)
    weights, gradients, optimizer = BYTES[precision]
    return States(
        weights * (share if zero >= 3 else P),
        gradients * (share if zero >= 2 else P),
        optimizer * (share if zero >= 1 else P),
    )
