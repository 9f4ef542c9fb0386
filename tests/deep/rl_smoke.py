"""A minute of reinforcement learning in exact scores: SFT, then GRPO; the closed-form optima; exit 1 on a fault.

    python -m tests.deep.rl_smoke
"""

import sys
import time

import numpy as np

from backends.threads import blas_threads
from ref.demo import arithmetic, environments, preferences, tabular
from ref.demo.policy_training import PLANS

ITERATIONS, GAIN = 100, 0.1


def learned():
    """Seed 0: SFT to .25, and GRPO's first hundred iterations from there."""
    network, sft = arithmetic.fine_tuned(0)
    _, curve = arithmetic.improved(network, "grpo", 0, PLANS["grpo"]._replace(iterations=ITERATIONS), every=25)
    print(f"SFT: pass@1 {sft[-1][1]:.4f} after {sft[-1][0]} steps")
    for k, solved, held in curve:
        print(f"GRPO, iteration {k}: pass@1 {solved:.4f} on the training pairs, {held:.4f} held out")
    if not 0.25 <= sft[-1][1] <= 0.32:
        yield f"SFT ended at {sft[-1][1]:.4f}"
    if curve[-1][1] < curve[0][1] + GAIN or curve[-1][2] < curve[0][2]:
        yield f"GRPO went from {curve[0][1:]} to {curve[-1][1:]}; wanted {GAIN} more, and no less held out"


def optima():
    """The DPO family's own gradients lead to the closed forms."""
    for name in ("dpo", "ipo", "robust_dpo", "cdpo"):
        bandit = preferences.bandit(2 if name == "cdpo" else 5, 1)
        found = preferences.minimised(name, bandit)
        error = np.max(np.abs(found - preferences.closed_form(name, bandit)))
        print(f"{name}: {error:.1e} from its optimum, {np.max(np.abs(found - bandit.ref)):.3f} from the reference")
        if not error < 1e-6:
            yield f"{name} is {error} from its optimum"


def known_values():
    """Value iteration on gymnasium's tables."""
    for (task, gamma), known in tabular.KNOWN.items():
        table = environments.table(task)
        start = float(table.start @ tabular.plan(table, "value_iteration", gamma).values)
        print(f"{task}, gamma {gamma:g}: {start:.7f}, known {known:.7f}")
        if not abs(start - known) < 1e-6:
            yield f"{task}, gamma {gamma}: {start}"


def main():
    faults, began = [], time.monotonic()
    with blas_threads(1):
        for part in (learned, optima, known_values):
            faults += part()
            print(f"{part.__name__}: {time.monotonic() - began:.0f} s\n", flush=True)
    print(*faults, f"{len(faults)} faults", sep="\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
