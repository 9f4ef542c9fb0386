"""Seeded kernel bugs against drawn cases: the smallest case that kills each; exit 1 if one survives.

    python -m tests.deep.kernel_bugs [NUMBER ...]

Its finds are stored in tests/kernels/seeded_bugs.py, where `make test` repeats them.
"""

import sys

import numpy as np

from backends.kernels.emulation import ORDERS
from tests.budgets import cpu_seconds
from tests.kernels.attention_run import Pack, judge
from tests.kernels.cases import BF16, F16, MASKS, Case
from tests.kernels.seeded_bugs import BUGS

ROUNDS = 60  # cases a bug; their sizes grow


def drawn(level, n, rng):
    """The n-th case of a search: larger, and with more options, as n grows."""
    longest = 20 + 8 * n
    order = int(rng.choice(ORDERS)) + 16 * (level == "L2" and int(rng.integers(2)))
    d, cap = int(rng.choice([64, 128])), (None, 3.0)[int(rng.integers(2))]
    masks = list(MASKS)[: 3 if level == "L2" else None]
    if level != "L2" and n % 4 == 3:
        lengths = [tuple(int(x) for x in rng.integers(0, longest, 2)) for _ in range(2)]
        return Pack(*lengths, d, str(rng.choice(masks[:3])), cap, order)
    G = int(rng.integers(1, 3))
    T, S = (int(x) for x in rng.integers(1, longest, 2))
    dtype, H = (BF16, F16)[int(rng.integers(2))], G * int(rng.integers(1, 3))
    return Case(dtype, 1, H, G, T, S, d, d, str(rng.choice(masks)), cap, order, n)


def search(number):
    """(case, what it shows, cases tried); case None if the bug survives. A case the kernel fails raises."""
    bug, rng = BUGS[number], np.random.default_rng(number)
    gradients = bug.level != "L2"
    for n in range(ROUNDS):
        case = drawn(bug.level, n, rng)
        if wrong := judge(case, bug.level, number, gradients):
            if right := judge(case, bug.level, 0, gradients):
                raise SystemExit(f"the kernel itself fails {case}: {right}")
            return case, wrong, n + 1
    return None, {}, ROUNDS


def main(numbers):
    started, survivors = cpu_seconds(), []
    for number in numbers or BUGS:
        case, wrong, tried = search(number)
        survivors += [] if case else [number]
        what = next(iter(wrong.items()), "SURVIVES")
        print(f"{number:3} {BUGS[number].level} {BUGS[number].words}: {case} after {tried} cases: {what}", flush=True)
    count = len(numbers or BUGS)
    print(f"{count} bugs, {len(survivors)} survive {survivors or ''}, {cpu_seconds() - started:.0f} CPU s")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main([int(x) for x in sys.argv[1:]]))
