"""Random mask by a counter: which elements dropout keeps, as a pure function of (seed, position).

Source: Salmon et al. 2011 (SC11, "Parallel random numbers: as easy as 1, 2, 3") sec. 3.3, Threefry-2x32 with 20
rounds; JAX draws its keys by the same function. Test vectors: Random123, tests/kat_vectors, `threefry2x32 20`.

    (x_0, x_1) = (high, low) 32 bits of the position, (k_0, k_1) of the seed, k_2 = k_0 ^ k_1 ^ 0x1BD11BDA
    x_0 += k_0, x_1 += k_1; then 20 rounds of
        x_0 += x_1;  x_1 = rotate(x_1, r) ^ x_0;  after every fourth the next two keys, and a count, are added
    keep = x_0 >= rate 2^32

Everything is modulo 2^32. No state is carried: a recomputation (gradient checkpointing) draws the same mask,
a shard draws its part of the whole mask, and the number of threads does not matter.

Conventions
    C1  rate is the probability of being dropped; P(keep) is 1 - rate to within 2^-32.
    C2  Of the two words of a block the first decides, and the second is not used: one position, one block.
    C3  Different uses take different seeds (a layer, a step): seeds are 64 bits, and neighbouring seeds are as
        unlike as any. A position added to a seed is not: its streams overlap.

Laws
    L1 every_element_is_threefry            L2 published_vectors
    L3 rate_zero_keeps_all                  L4 a_part_is_a_part_of_the_whole
    L5 higher_rates_drop_more
"""

from __future__ import annotations

from autodiff import namespace
from ref.spec import bind, spec

SIGNATURE = "positions:int[*B] -> :bool[*B]"
ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
PARITY = 0x1BD11BDA
WORD = 0xFFFFFFFF


@spec("nn.keep_mask", SIGNATURE)
def keep_mask(positions, *, seed, rate):
    """Whether each position is kept.

    Parameters
    ----------
    positions : int[*B]
        Counters: equal ones share their fate.
    seed : int
        0 .. 2^64 - 1.
    rate : float
        Probability of being dropped, 0 <= rate < 1.

    Returns
    -------
    bool[*B]

    Raises
    ------
    ValueError
        `seed` or `rate` out of range.
    TypeError
        `positions` are not int.

    Complexity: about 100 B integer operations.

    >>> import numpy as np
    >>> keep_mask(np.arange(8), seed=0, rate=0.5)
    array([False, False,  True,  True,  True, False,  True,  True])
    """
    bind("keep_mask", SIGNATURE, positions=positions)
    if not 0 <= seed < 2**64:
        raise ValueError(f"keep_mask: seed={seed}; needed 0 <= seed < 2^64")
    if not 0 <= rate < 1:
        raise ValueError(f"keep_mask: rate={rate}; needed 0 <= rate < 1")
    xp = namespace(positions)
    wide = xp.astype(xp.reshape(positions, (-1,)), xp.int64)
    high, low = (xp.astype(word, xp.uint32) for word in ((wide >> 32) & WORD, wide & WORD))
    word, _ = _threefry(high, low, seed >> 32, seed & WORD)
    return xp.reshape(xp.astype(word, xp.float64) >= rate * 2.0**32, positions.shape)


def _threefry(x0, x1, k0, k1):
    keys = (k0, k1, k0 ^ k1 ^ PARITY)
    x0, x1 = x0 + k0, x1 + k1
    for block in range(5):
        for r in ROTATIONS[block % 2]:
            x0 = x0 + x1
            x1 = ((x1 << r) | (x1 >> (32 - r))) ^ x0
        x0 = x0 + keys[(block + 1) % 3]
        x1 = x1 + ((keys[(block + 2) % 3] + block + 1) & WORD)
    return x0, x1
