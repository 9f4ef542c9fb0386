"""Every mutant under every law, and every null under every law with the guards on; exit 1 on a fault.

    python -m tests.deep.kill_matrix [ID ...]
"""

import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor

from ref.conform.matrix import draw, full_kills, null_faults
from ref.spec import all_specs, get, load_laws


def judge(id):
    """(lines to print, faults) of one algorithm."""
    load_laws([id])
    spec, started = get(id), time.process_time()
    lines, faults, drawn = [], [], draw(spec)
    table = full_kills(spec, drawn)
    for mutant, labels in table.items():
        lines.append(f"{id:32} {mutant:32} {' '.join(labels) or 'SURVIVES'}")
        missing = {x.label for x in spec.laws.values() if mutant in x.kills} - set(labels)
        if missing or not labels:
            faults.append(f"{id}: {mutant} survives {sorted(missing) or 'every law'}")
    found = null_faults(spec, drawn)
    spent = time.process_time() - started
    lines.append(f"{id:32} {len(table)} mutants, {len(found)} faults with nulls, {spent:.1f} CPU s")
    return lines, faults + found


def main(ids):
    ids = [s.id for s in all_specs() if not ids or s.id in ids]
    faults = []
    with ProcessPoolExecutor(min(2, os.cpu_count() or 1)) as pool:
        for lines, found in pool.map(judge, ids):
            print(*lines, sep="\n", flush=True)
            faults += found
    print(*faults, sep="\n")
    print(f"{len(ids)} algorithms, {len(faults)} faults")
    return 1 if faults or not ids else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
