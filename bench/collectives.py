"""All-reduce under MPI against the library's own, at two ranks pinned one a core; and the simulator's fit.

    python -m bench.collectives                # the rows, to bench/results, under the MPI of the environment
    python -m bench.collectives --table        # also renew ref/distributed/all_reduce_times.json, at 2, 4 and 8 ranks
    python -m bench.collectives --ranks 2 8    # reported as measured: more ranks than cores time the scheduler

Targets are for MPICH, with a core for each rank. Open MPI is reported from the environment that
`make test-mpi MPI=openmpi` makes: `.venv-openmpi/bin/python -m bench.collectives`.

Ours is what `select` picks, as a plan: the form that a training loop runs again and again on the same buckets. Plans
and the library's call take turns, in a new order each round; medians of the rounds' ratios (see ref.demo.bandwidth).
The fit: alpha, beta and gamma of the model from half of the (algorithm, size) measurements predict the other half.
"""

from __future__ import annotations

import argparse
import json

import numpy as np

from backends.communicators import Model, Phantom, simulate
from bench.common import measured_on, print_table, save
from ref.demo.bandwidth import LIBRARY, measure
from ref.distributed import select as selection
from ref.distributed.all_reduce import ALGORITHMS
from ref.distributed.binomial_broadcast import binomial_broadcast
from ref.distributed.binomial_reduce import binomial_reduce
from ref.distributed.bruck_all_gather import bruck_all_gather
from ref.distributed.canonical_reduce_scatter import canonical_reduce_scatter
from ref.distributed.pairwise_all_to_all import pairwise_all_to_all
from ref.distributed.ring_all_gather import ring_all_gather
from ref.distributed.ring_reduce_scatter import ring_reduce_scatter
from ref.distributed.scatter_gather_broadcast import scatter_gather_broadcast

SIZES = [8 << (2 * k) for k in range(11)]  # 8 B .. 8 MiB
SIZES += [16 << 20]
SELECTABLE = ("ring", "segmented_ring", "recursive_doubling", "halving_doubling")
MIB = 1 << 20


def allowed(size):
    """Largest ratio of times: .9 of the library's speed from 1 MiB on, .7 below."""
    return 1 / 0.9 if size >= MIB else 1 / 0.7


def by_size(rows):
    """{size: {algorithm: row}}."""
    found = {}
    for row in rows:
        found.setdefault(row["size"], {})[row["algorithm"]] = row
    return found


def speed_rows(run, ranks):
    """Rows of the table: what `select` picks against the library."""
    rows = []
    for size, row in sorted(by_size(run["rows"]).items()):
        name = selection.select(ranks, size)
        crowded = ", oversubscribed" if run["oversubscribed"] else ""
        ratio = 1 / row[name]["ratio"]
        target = None if crowded or run["library"].startswith("Open MPI") else allowed(size)
        label = f"{size // MIB} MiB" if size >= MIB else f"{size // 1024} KiB" if size >= 1024 else f"{size} B"
        rows.append({
            "work": f"all-reduce of {label}, {ranks} ranks{crowded}: {name}",
            "peer": run["library"], "threads": 1, "unit": "s", "ours": row[name]["seconds"],
            "theirs": row[LIBRARY]["seconds"], "ratio": ratio, "target": target,
            "met": None if target is None else ratio <= target,
            "rounds": row[name]["rounds"], "left_out": row[name]["left_out"],
        })  # fmt: skip
    return rows


FUNCTIONS = {
    "all_reduce": ALGORITHMS,
    "all_gather": {"ring": ring_all_gather, "bruck": bruck_all_gather},
    "reduce_scatter": {"ring": ring_reduce_scatter, "canonical": canonical_reduce_scatter},
    "broadcast": {"binomial": binomial_broadcast, "scatter_gather": scatter_gather_broadcast},
    "reduce": {"binomial": binomial_reduce},
    "all_to_all": {"pairwise": pairwise_all_to_all},
}


def features(row):
    """What alpha, beta and gamma are multiplied with: the program that was timed, simulated at rates of one each.

    A byte copied counts as a byte combined.
    """
    function, n = FUNCTIONS[row["collective"]][row["algorithm"]], row["ranks"]

    def program(comm):
        x = Phantom(row["size"] // 4 // (n if row["collective"] == "all_gather" else 1))
        function(comm, x, out=x if row["collective"] in ("all_reduce", "broadcast") else None)

    units = Model(1.0, 0.0), Model(0.0, 1.0), Model(0.0, 0.0, gamma=1.0, copy=1.0)
    return [simulate(n, program, unit).seconds.max() for unit in units]


def fit(rows):
    """(alpha, beta, gamma) with the least squares of relative errors; none of them below zero."""
    from scipy.optimize import nnls

    seconds = np.array([[row["seconds"]] for row in rows])
    found, _ = nnls(np.array([features(row) for row in rows]) / seconds, np.ones(len(rows)))
    return found


def fit_row(measured):
    """The median relative error on the half of the measurements that the fit has not seen."""
    ours = [row for row in measured if row["algorithm"] != LIBRARY]
    rows = [row for row in ours if row["left_out"] is not None]
    if len(rows) < 20:
        print(f"  no fit: of {len(ours)} times {len(rows)} were taken with the cores to themselves")
        return None
    order = np.random.default_rng(0).permutation(len(rows))
    half, rest = ([rows[i] for i in part] for part in np.array_split(order, 2))
    rates = fit(half)
    errors = [abs(np.dot(rates, features(row)) / row["seconds"] - 1) for row in rest]
    rate = lambda x: f"1 / {1e-9 / x:.2f} GB/s" if x else "0"  # noqa: E731
    print(
        f"  alpha {rates[0] * 1e6:.2f} us, beta {rate(rates[1])}, gamma {rate(rates[2])}, from {len(half)} times; "
        f"{len(ours) - len(rows)} times are not used: other work had a core in nearly all of their rounds"
    )
    error = float(np.median(errors))
    return {
        "work": f"the model's error on {len(rest)} other times, median", "peer": "the measurement", "threads": 1,
        "unit": "", "ours": error, "theirs": 1.0, "ratio": error, "target": 0.3, "met": error <= 0.3,
    }  # fmt: skip


def renew_table(runs):
    """Write the times that `select` reads."""
    seconds = {}
    for ranks, run in runs.items():
        seconds[str(ranks)] = {
            str(size): {name: row[name]["seconds"] for name in SELECTABLE if name in row}
            for size, row in sorted(by_size(run["rows"]).items())
        }
    path = selection.Path(selection.__file__).parent / "all_reduce_times.json"
    about = {
        "measured_by": "python -m bench.collectives --table",
        "library": next(iter(runs.values()))["library"],
        "machine": measured_on()["machine"],
        "oversubscribed": [n for n, run in runs.items() if run["oversubscribed"]],
    }
    path.write_text(json.dumps({**about, "seconds": seconds}, indent=1) + "\n")
    selection.measured.cache_clear()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--table", action="store_true", help="renew the table that select reads")
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--rounds", type=int, default=0)
    args, _ = parser.parse_known_args()  # `make bench ARGS=...` is for all benchmarks
    ranks = sorted({*args.ranks, 2, 4, 8}) if args.table else args.ranks
    runs = {
        n: measure(n, SIZES if n == 2 else SIZES[:-1], rounds=args.rounds or (15 if n > 2 else None)) for n in ranks
    }
    if args.table:
        renew_table(runs)
    rows = [row for n, run in runs.items() for row in speed_rows(run, n)]
    print_table(rows)
    if 2 in runs:
        others = ["all_gather", "reduce_scatter", "broadcast", "reduce", "all_to_all"]
        more = measure(2, SIZES[3:], others)
        fitted = fit_row(runs[2]["rows"] + more["rows"])
        if fitted:
            rows.append(fitted)
            print_table(rows[-1:], head=False)
    if not args.rounds:
        kind = "_openmpi" if next(iter(runs.values()))["library"].startswith("Open MPI") else ""
        save(f"bench.collectives{kind}", 1, rows)


if __name__ == "__main__":
    main()
