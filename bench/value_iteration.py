"""Value iteration on a sparse grid of 10^6 states and 5 actions: seconds to an error of 1e-8 at gamma .9.

The grid is 1000 x 1000, with the target in the middle and nothing forbidden, so that v* is known: gamma^(d-1) /
(1 - gamma) at a distance of d steps. Slippery, a step goes to either side with chance .1 each.
"""

import functools
import json
import sys
import time

import numpy as np

from bench.common import main, print_table, save, start_child

SIDE, GAMMA, TOLERANCE, LIMIT = 1000, 0.9, 1e-8, 10.0
MOVES = ((-1, 0), (0, 1), (1, 0), (0, -1), (0, 0))
MODULE = "bench.value_iteration"


@functools.cache
def grid(slip):
    """(P: a sparse matrix an action, R, the target's state)."""
    from scipy import sparse

    S, target = SIDE * SIDE, SIDE // 2 * SIDE + SIDE // 2
    row, column = divmod(np.arange(S), SIDE)
    to, R = [], np.zeros((S, len(MOVES)))
    for a, (down, right) in enumerate(MOVES):
        i, j = row + down, column + right
        inside = (i >= 0) & (i < SIDE) & (j >= 0) & (j < SIDE)
        to.append(np.where(inside, i * SIDE + j, np.arange(S)))
        R[:, a] = np.where(inside, to[-1] == target, -1)
    P = []
    for a in range(len(MOVES)):
        ways = [(1 - 2 * slip, a), (slip, (a + 1) % 4), (slip, (a - 1) % 4)] if slip and a < 4 else [(1.0, a)]
        chance = np.repeat([p for p, _ in ways], S)
        entries = np.tile(np.arange(S), len(ways)), np.concatenate([to[b] for _, b in ways])
        P.append(sparse.csr_array((chance, entries), shape=(S, S)))
    return P, R, target


def measure(slip):
    """[CPU seconds of a solve, largest error against v* (sure moves) or the last residual's bound]."""
    from ref.mdp.sparse_value_iteration import sparse_value_iteration

    P, R, target = grid(slip)
    started = time.process_time()
    v = sparse_value_iteration(P, R, gamma=GAMMA, tolerance=TOLERANCE)
    seconds = time.process_time() - started
    if slip:
        more = sparse_value_iteration(P, R, v, gamma=GAMMA, iterations=1)
        return seconds, float(GAMMA / (1 - GAMMA) * np.max(np.abs(more - v)))
    row, column = divmod(np.arange(len(v)), SIDE)
    d = np.abs(row - target // SIDE) + np.abs(column - target % SIDE)
    return seconds, float(np.max(np.abs(v - GAMMA ** np.maximum(d - 1, 0) / (1 - GAMMA))))


def rows():
    for slip, name in ((0.0, "sure"), (0.1, "slippery")):
        seconds, error = min(start_child(MODULE, 1, "measure", str(slip)) for _ in range(3))
        met = seconds <= LIMIT and error <= TOLERANCE
        yield {
            "work": f"value iteration, 10^6 states, {name}, error {error:.1e}", "peer": "limit", "threads": 1,
            "unit": "s", "ours": seconds, "theirs": LIMIT, "ratio": seconds / LIMIT, "target": 1.0, "met": met,
        }  # fmt: skip


if __name__ == "__main__":
    if "measure" in sys.argv:
        print(json.dumps(measure(float(sys.argv[-1]))))
    else:
        main(MODULE, [])  # reads the command line, as every benchmark does
        found = list(rows())
        print_table(found)
        save(MODULE, 1, found)
