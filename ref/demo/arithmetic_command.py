"""`closedform train-rl arithmetic`: a transformer learns to add, first by likelihood, then from its own responses."""

from __future__ import annotations

import time

from ref.demo import charts
from ref.demo.rl_screen import console, progress, table

SEEDS, SFT = 3, 0.25  # pass@1 on the training pairs, at which training by likelihood stops
GRPO_BAR, GAIN = 0.65, 0.25  # what GRPO must reach, and the others must gain


def run(task, algorithm, gamma, steps, seeds, out):
    """Every seed: fine-tuned, then improved by the algorithm; exact pass@1 as a table and as curves."""
    from backends.pages import keep_freed_pages
    from backends.threads import blas_threads

    keep_freed_pages()
    with blas_threads(1), progress() as bar:
        found = [one(algorithm, seed, steps, bar) for seed in range(seeds or SEEDS)]
    shown = table(
        f"arithmetic, {algorithm}: exact pass@1 on 320 training and 80 held-out pairs", "seed", "steps of SFT",
        "after SFT", "held out", f"after {algorithm}", "held out", "seconds",
    )  # fmt: skip
    for seed, (sft, curve, seconds) in enumerate(found):
        ends = [f"{x:.4f}" for k in (0, -1) for x in curve[k][1:]]
        shown.add_row(str(seed), str(sft), *(ends if algorithm != "sft" else ends[:2] + ["", ""]), f"{seconds:.0f}")
    console.print(shown)
    if algorithm == "sft":
        return all(curve[0][1] >= SFT for _, curve, _ in found)
    lines = {}
    for seed, (_, curve, _) in enumerate(found):
        lines |= {f"seed {seed}": [p[:2] for p in curve], f"seed {seed}, held out": [p[::2] for p in curve]}
    bars = [GRPO_BAR if algorithm == "grpo" else curve[0][1] + GAIN for _, curve, _ in found]
    picture = charts.curves(
        out / f"arithmetic-{algorithm}-curve.png", lines, {"the bar": min(bars)}, "iterations", "exact pass@1"
    )
    console.print(f"wrote {picture}")
    said = f"{GRPO_BAR}" if algorithm == "grpo" else f"{GAIN} above SFT"
    console.print(f"the bar on the training pairs: {said}, for every seed")
    return bool(steps) or all(curve[-1][1] >= bar for (_, curve, _), bar in zip(found, bars, strict=True))


def one(algorithm, seed, steps, bar):
    """(steps of SFT, curve, seconds) of a seed; the curve's first point is where SFT ended."""
    from ref.demo import arithmetic
    from ref.demo.policy_training import PLANS

    began = time.monotonic()
    line = bar.add_task(f"sft, seed {seed}", total=None)

    def tuned(step, solved):
        bar.update(line, completed=step, description=f"sft, seed {seed}: pass@1 {solved:.4f}")

    network, sft = arithmetic.fine_tuned(seed, until=SFT, watch=tuned)
    bar.update(line, total=sft[-1][0])
    if algorithm == "sft":
        curve = [(0, *(float(arithmetic.pass_at_1(network, x).mean()) for x in arithmetic.pairs()))]
    else:
        plan = PLANS[algorithm]
        plan = plan._replace(iterations=steps or plan.iterations)
        again = bar.add_task(f"{algorithm}, seed {seed}", total=plan.iterations)

        def better(k, solved, held):
            text = f"{algorithm}, seed {seed}: pass@1 {solved:.4f}, held out {held:.4f}"
            bar.update(again, completed=k, description=text)

        _, curve = arithmetic.improved(network, algorithm, seed, plan, better)
    return sft[-1][0], curve, time.monotonic() - began
