"""Bandwidth of the collectives under MPI, beside the library's own.

    mpiexec -n 2 python -m mpi4py -m ref.demo.bandwidth '{"sizes": [1024], "collectives": ["all_reduce"]}'

Every algorithm is a plan on one buffer; plans and the library's call take turns, in a new order each round, from a
barrier on; a round's time is that of the slowest rank. Ratios are formed round by round, so a burst of other work hits
both sides; rounds in which a rank lost its core are left out and counted, and medians are given. Ranks are pinned one a
core; more ranks than cores measure the scheduler and are marked `oversubscribed`.

Bus bandwidth is that of nccl-tests: S / t times 2 (n - 1)/n for an all-reduce, (n - 1)/n for all-gather,
reduce-scatter and all-to-all, 1 for broadcast and reduce. S is the size of the whole array: what every rank passes, or
for an all-gather what it gets.
"""

from __future__ import annotations

import gc
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from backends.communicators import CommError, MpiCommunicator, bounds
from backends.communicators.mpi import load
from ref.demo.charts import blank
from ref.distributed.all_reduce import ALGORITHMS
from ref.distributed.binomial_broadcast import binomial_broadcast
from ref.distributed.binomial_reduce import binomial_reduce
from ref.distributed.bruck_all_gather import bruck_all_gather
from ref.distributed.canonical_reduce_scatter import canonical_reduce_scatter
from ref.distributed.pairwise_all_to_all import pairwise_all_to_all
from ref.distributed.ring_all_gather import ring_all_gather
from ref.distributed.ring_reduce_scatter import ring_reduce_scatter
from ref.distributed.scatter_gather_broadcast import scatter_gather_broadcast

LIBRARY = "library"
BUS = {  # bus bandwidth over S / t, of nccl-tests
    "all_reduce": lambda n: 2 * (n - 1) / n,
    "all_gather": lambda n: (n - 1) / n,
    "reduce_scatter": lambda n: (n - 1) / n,
    "all_to_all": lambda n: (n - 1) / n,
    "broadcast": lambda n: 1.0,
    "reduce": lambda n: 1.0,
}
_ENVIRONMENT = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}


def measure(ranks, sizes, collectives=("all_reduce",), *, rounds=None, timeout=600):
    """Rows of times, measured by a job of its own.

    Parameters
    ----------
    ranks : int
        Processes to start.
    sizes : sequence of int
        Bytes of the whole array (rounded to float32 numbers that the ranks divide).
    collectives : sequence of str
        Names of `BUS`.
    rounds : int, optional
        By size if not given: some hundred for short arrays, a dozen for long ones.

    Returns
    -------
    dict
        {"library": version, "oversubscribed": bool, "rows": [{collective, algorithm, ranks, size, seconds, ratio,
        bus, rounds, left_out}]}: median seconds, the median of library / ours over the rounds, bytes a second; rounds
        measured, and left out because a rank was off its core. Where it was so in nearly all rounds, left_out is None,
        and seconds and ratio are of the fastest tenth of each.

    Raises
    ------
    CommError
        No mpiexec, or the job failed; the message ends with what it said.
    """
    launcher = Path(sys.executable).parent / "mpiexec"
    launcher = str(launcher) if launcher.exists() else shutil.which("mpiexec")
    if launcher is None:
        raise CommError("MPI: no mpiexec beside this Python nor on the path; pip install 'closedform[mpi]'")
    wanted = json.dumps({"sizes": list(sizes), "collectives": list(collectives), "rounds": rounds})
    command = [launcher, "-n", str(ranks), sys.executable, "-m", "mpi4py", "-m", "ref.demo.bandwidth", wanted]
    root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    env = {**os.environ, **_ENVIRONMENT, "PYTHONPATH": path}
    try:
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        raise CommError(f"MPI: {ranks} ranks did not end within {timeout} s") from None
    if done.returncode:
        raise CommError(f"MPI: {ranks} ranks ended with {done.returncode}: {(done.stdout + done.stderr)[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


# --- the job ------------------------------------------------------------------------------------


def _engines(comm, mpi, collective, size):
    """(bytes, {algorithm: callable}, plans to free) of one collective at about `size` bytes."""
    MPI, n, r = comm._MPI, comm.size, comm.rank
    L = max(1, size // 4 // n) * n
    x, y = np.zeros(L, np.float32), np.zeros(L, np.float32)
    part = np.zeros(L // n, np.float32)
    cut = bounds(L, n)
    plan = comm.plan
    if collective == "all_reduce":
        ours = {name: plan(f, x, out=x) for name, f in ALGORITHMS.items()}
        library = lambda: mpi.Allreduce(MPI.IN_PLACE, x)  # noqa: E731
    elif collective == "all_gather":
        ours = {"ring": plan(ring_all_gather, part, out=y), "bruck": plan(bruck_all_gather, part, out=y)}
        library = lambda: mpi.Allgather(part, y)  # noqa: E731
    elif collective == "reduce_scatter":
        own = np.zeros(cut[r + 1] - cut[r], np.float32)
        ours = {"ring": plan(ring_reduce_scatter, x, out=own), "canonical": plan(canonical_reduce_scatter, x, out=own)}
        library = lambda: mpi.Reduce_scatter_block(x, own)  # noqa: E731
    elif collective == "broadcast":
        ours = {"binomial": plan(binomial_broadcast, x, out=x),
                "scatter_gather": plan(scatter_gather_broadcast, x, out=x)}  # fmt: skip
        library = lambda: mpi.Bcast(x)  # noqa: E731
    elif collective == "reduce":
        ours = {"binomial": plan(binomial_reduce, x, out=y)}
        library = lambda: mpi.Reduce(x, y if r == 0 else None)  # noqa: E731
    elif collective == "all_to_all":
        ours = {"pairwise": plan(pairwise_all_to_all, x, out=y)}
        library = lambda: mpi.Alltoall(x, y)  # noqa: E731
    else:
        raise ValueError(f"bandwidth: collective {collective!r}; needed one of {', '.join(BUS)}")
    return L * 4, {LIBRARY: library, **ours}, list(ours.values())


def rounds_for(size):
    """How often to measure: enough for a median, within seconds."""
    return int(min(400, max(41, 1e8 // (size + 1))))


def _times(comm, engines, rounds):
    """([rounds, engines] seconds of the slowest rank, NaN where a rank was off its core; all of them).

    Ranks wait by spinning, so CPU time falls behind wall time only if somebody else had the core.
    """
    calls, order = list(engines.values()), np.random.default_rng(0)
    wall, lost = np.zeros((rounds, len(calls))), np.zeros((rounds, len(calls)))
    for call in calls:  # the first warms pages and connections
        call()
    for i in range(rounds):
        for k in order.permutation(len(calls)):
            comm.mpi.Barrier()
            busy, start = time.process_time(), time.perf_counter()
            calls[k]()
            wall[i, k] = time.perf_counter() - start
            lost[i, k] = wall[i, k] - (time.process_time() - busy)
    preempted = (lost > 0.05 * wall + 5e-6).astype(float)
    comm.mpi.Allreduce(comm._MPI.IN_PLACE, wall, op=comm._MPI.MAX)
    comm.mpi.Allreduce(comm._MPI.IN_PLACE, preempted, op=comm._MPI.MAX)
    return np.where(preempted > 0, np.nan, wall), wall


def _median(values, every):
    """(median of the values that are there, how many are not); (the fastest tenth of every one, None) if under five."""
    there = values[~np.isnan(values)]
    if len(there) < 5:
        return float(np.quantile(every, 0.1)), None
    return float(np.median(there)), len(values) - len(there)


def _pin(rank):
    """One core a rank; whether there are enough of them."""
    if not hasattr(os, "sched_setaffinity"):
        return None
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[rank % len(cores)]})
    return len(cores)


def main(wanted):
    """The job's program: rank 0 prints the result as one line of JSON."""
    from backends.pages import keep_freed_pages

    keep_freed_pages()
    comm = MpiCommunicator()
    cores = _pin(comm.rank)
    rows = []
    gc.disable()
    for collective in wanted["collectives"]:
        for size in wanted["sizes"]:
            actual, engines, plans = _engines(comm, comm.mpi, collective, size)
            good, every = _times(comm, engines, wanted["rounds"] or rounds_for(actual))
            for k, name in enumerate(engines):
                t, left_out = _median(good[:, k], every[:, k])
                both = good[:, 0] / good[:, k]
                if np.count_nonzero(~np.isnan(both)) >= 5:
                    ratio = np.nanmedian(both)
                else:
                    ratio = np.quantile(every[:, 0], 0.1) / np.quantile(every[:, k], 0.1)
                rows.append({
                    "collective": collective, "algorithm": name, "ranks": comm.size, "size": actual, "seconds": t,
                    "ratio": float(ratio), "bus": actual / t * BUS[collective](comm.size), "rounds": len(good),
                    "left_out": left_out,
                })  # fmt: skip
            for plan in plans:
                plan.free()
    if comm.rank == 0:
        version = " ".join(load().Get_library_version().split("\n")[0].split(",")[0].strip("\0").split())
        print(json.dumps({"library": version, "oversubscribed": cores is not None and comm.size > cores, "rows": rows}))


def picture(path, rows) -> Path:
    """Bus bandwidth over size, one panel a collective and number of ranks, the library's own dashed.

    Parameters
    ----------
    path : path
        Where the PNG goes; its folder exists.
    rows : list of dict
        As `measure` gives them, of any number of runs.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ValueError
        No rows.
    """
    panels = sorted({(row["collective"], row["ranks"]) for row in rows})
    if not panels:
        raise ValueError("picture: no rows; needed at least one measurement")
    figure, save = blank((4.6 * len(panels), 3.6))
    for axes, (collective, ranks) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        mine = [row for row in rows if (row["collective"], row["ranks"]) == (collective, ranks)]
        for name in dict.fromkeys(row["algorithm"] for row in mine):
            line = sorted((row["size"], row["bus"] / 1e9) for row in mine if row["algorithm"] == name)
            style = {"linestyle": "--", "color": "black"} if name == LIBRARY else {"marker": "o", "markersize": 3}
            axes.plot(*zip(*line, strict=True), label=name.replace("_", " "), **style)
        axes.set(xscale="log", yscale="log", xlabel="bytes", title=f"{collective.replace('_', '-')}, {ranks} ranks")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
    figure.axes[0].set_ylabel("bus bandwidth, GB/s")
    return save(path)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
