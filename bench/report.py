"""All results of bench/results in one table: work, peer, ours, theirs, ratio, target, met; and as bench/RESULTS.md.

    python -m bench.report
"""

import json

from bench.common import RESULTS, amount, print_table

PAGE = RESULTS.parent / "RESULTS.md"
HEAD = """# Measured

Ours over the peer's, a ratio by `make bench` (bench/common.py says how a shared machine is measured). Written by
`python -m bench.report` from bench/results, where each kind of machine has its folder and each file names its versions,
commit and load.
"""
COLUMNS = """
| work | peer | threads | ours | peer's | ratio | target | met |
| --- | --- | --- | --- | --- | --- | --- | --- |
"""


def results():
    """[(name of the file, what it holds)]."""
    return [(path.stem, json.loads(path.read_text())) for path in sorted(RESULTS.glob("*/*.json"))]


def markdown():
    """The page: a section a machine."""
    machines = {}
    for name, found in results():
        m = found["machine"]
        machines.setdefault(f"{m['cpu']}, {m['cores']} cores, OpenBLAS for {m['blas']}", []).append((name, found))
    text = HEAD
    for machine, runs in machines.items():
        text += f"\n## {machine}\n{COLUMNS}" + "".join(_line(r) for _, found in runs for r in found["rows"])
    return text


def _line(r):
    if r["ratio"] is None:
        return f"| {r['work']} | {r['peer']} | {r['threads']} | absent | | | | |\n"
    ours, theirs = (amount(r[side], r["unit"]) for side in ("ours", "theirs"))
    judged = ("", "") if r["target"] is None else (f"{r['target']:.3f}", "yes" if r["met"] else "no")
    cells = (r["work"], r["peer"], str(r["threads"]), ours, theirs, f"{r['ratio']:.3f}", *judged)
    return f"| {' | '.join(cells)} |\n"


def main():
    rows = []
    for name, found in results():
        rows += found["rows"]
        machine = found["machine"]
        print(f"{name}: {machine['cpu']}, {machine['cores']} cores, commit {found['commit'][:12]}")
    print_table(rows)
    judged = [r["met"] for r in rows if r["met"] is not None]
    print(f"{sum(judged)} of {len(judged)} targets met")
    PAGE.write_text(markdown())


if __name__ == "__main__":
    main()
