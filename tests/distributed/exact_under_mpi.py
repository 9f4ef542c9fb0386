"""Every collective once, on small integers: mpiexec -n N python -m mpi4py -m tests.distributed.exact_under_mpi

No hypothesis: eight processes on two cores have enough to do with their imports.
"""

import sys

import numpy as np

from backends.communicators import MpiCommunicator, bounds
from ref.distributed.all_reduce import ALGORITHMS, all_reduce
from ref.distributed.binomial_broadcast import binomial_broadcast
from ref.distributed.binomial_reduce import binomial_reduce
from ref.distributed.bruck_all_gather import bruck_all_gather
from ref.distributed.canonical_reduce_scatter import canonical_reduce_scatter
from ref.distributed.dissemination_barrier import dissemination_barrier
from ref.distributed.pairwise_all_to_all import pairwise_all_to_all
from ref.distributed.ring_all_gather import ring_all_gather
from ref.distributed.ring_reduce_scatter import ring_reduce_scatter
from ref.distributed.scatter_gather_broadcast import scatter_gather_broadcast


def check(comm, length):
    """Sentences of what is wrong on this rank."""
    n, r, wrong = comm.size, comm.rank, []
    x = (np.arange(n * length).reshape(n, length) * 7 % 11 - 5).astype(np.float32)
    total, cut = x.sum(0), bounds(length, n)
    root = n - 1

    def same(name, found, wanted):
        if found.dtype != wanted.dtype or not np.array_equal(found, wanted):
            wrong.append(f"rank {r}: {name} of {length} is wrong")

    for name in (None, *ALGORITHMS):
        same(name, all_reduce(comm, x[r], algorithm=name), total)
        y = x[r].copy()
        plan = comm.plan(all_reduce, y, algorithm=name, out=y)
        for _ in range(2):
            y[...] = x[r]
            same(f"plan {name}", plan(), total)
        plan.free()
    for f in (binomial_broadcast, scatter_gather_broadcast):
        same(f.__name__, f(comm, x[r], root=root), x[root])
    found = binomial_reduce(comm, x[r], op="max", root=root)
    if r == root:
        same("reduce", found, x.max(0))
    for f in (ring_reduce_scatter, canonical_reduce_scatter):
        same(f.__name__, f(comm, x[r]), total[cut[r] : cut[r + 1]])
    for f in (ring_all_gather, bruck_all_gather):
        same(f.__name__, f(comm, total[cut[r] : cut[r + 1]], length=length), total)
    blocks = np.arange(n * n).reshape(n, n)
    same("all-to-all", pairwise_all_to_all(comm, blocks[r]), blocks[:, r].copy())
    same("barrier", np.asarray(dissemination_barrier(comm, float(r))), np.asarray(float(n - 1)))
    return wrong


if __name__ == "__main__":
    comm = MpiCommunicator()
    wrong = [w for length in (0, 1, comm.size + 1, 1000) for w in check(comm, length)]
    said = [w for one in comm.share(wrong) for w in one]
    if comm.rank == 0:
        print(*said, f"{comm.size} ranks, {len(said)} wrong", sep="\n")
    sys.exit(1 if said else 0)
