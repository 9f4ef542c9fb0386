"""All results of bench/results in one table: work, peer, ours, theirs, ratio, target, met.

    python -m bench.report
"""

import json

from bench.common import RESULTS, print_table


def main():
    rows = []
    for path in sorted(RESULTS.glob("*.json")):
        found = json.loads(path.read_text())
        rows += found["rows"]
        machine = found["machine"]
        print(f"{path.stem}: {machine['cpu']}, {machine['cores']} cores, commit {found['commit'][:12]}")
    print_table(rows)
    judged = [r["met"] for r in rows if r["met"] is not None]
    print(f"{sum(judged)} of {len(judged)} targets met")


if __name__ == "__main__":
    main()
