"""Every mutant under every law, and every null under every law with the guards on; exit 1 on a fault.

    python -m tests.deep.kill_matrix [ID ...]
"""

import sys
import time

from ref.conform.matrix import full_kills, null_faults
from ref.spec import all_specs, load_laws


def main(ids):
    load_laws()
    faults = []
    for spec in all_specs():
        if ids and spec.id not in ids:
            continue
        started = time.process_time()
        table = full_kills(spec)
        for mutant, labels in table.items():
            named = [x.label for x in spec.laws.values() if mutant in x.kills]
            print(f"{spec.id:32} {mutant:32} {' '.join(labels) or 'SURVIVES'}")
            missing = set(named) - set(labels)
            if missing or not labels:
                faults.append(f"{spec.id}: {mutant} survives {sorted(missing) or 'every law'}")
        found = null_faults(spec)
        faults += found
        print(f"{spec.id:32} {len(table)} mutants, {len(found)} faults with nulls, "
              f"{time.process_time() - started:.1f} CPU s", flush=True)  # fmt: skip
    print(*faults, sep="\n")
    print(f"{len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
